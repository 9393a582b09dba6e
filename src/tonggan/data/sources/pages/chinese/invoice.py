"""Invoices (数电发票); by hand, receipts (收款收据)."""

from __future__ import annotations

import datetime
import random

from tonggan.data.sources.pages.asking import Asks, Draft, Style, value_of
from tonggan.data.sources.pages.canvas import INK, WHITE, Canvas, Color, Type
from tonggan.data.sources.pages.chinese.names import company, person
from tonggan.data.sources.pages.near import figures_around, near_dates
from tonggan.data.sources.pages.numerals import amount
from tonggan.data.sources.pages.parts import table

STYLES = ("handwritten", "handwritten", "occluded", "blurred")

_BROWN: Color = (138, 52, 36)
_RED: Color = (196, 44, 44)
_BLUE: Color = (34, 54, 140)
_GOODS = (
    # name on an invoice, model, unit, lowest and highest price in yuan
    ("*文具*中性笔", "0.5mm", "支", 2, 6),
    ("*纸制品*复印纸", "A4", "包", 18, 32),
    ("*文具*文件夹", "A4", "个", 4, 15),
    ("*文具*订书机", "12号", "个", 9, 28),
    ("*计算机外部设备*鼠标", "无线", "个", 39, 129),
    ("*计算机外部设备*键盘", "K120", "个", 59, 199),
    ("*家具*办公椅", "网布", "把", 180, 460),
    ("*照明装置*台灯", "8W", "盏", 49, 169),
    ("*日用杂品*毛巾", "棉", "条", 8, 20),
    ("*茶叶*绿茶", "250g", "盒", 68, 168),
    ("*纺织品*床单", "1.5m", "条", 59, 139),
    ("*玩具*积木", "80粒", "套", 45, 120),
    ("*电子元件*硬盘", "1TB", "块", 280, 420),
    ("*日用化学品*洗衣液", "3kg", "瓶", 25, 60),
    ("*体育用品*羽毛球", "12只装", "筒", 40, 98),
    ("*塑料制品*收纳箱", "50L", "个", 29, 79),
    ("*家用器具*电水壶", "1.7L", "把", 69, 159),
    ("*金属制品*保温杯", "500ml", "只", 45, 128),
)


def draw(rng: random.Random, style: Style) -> Draft:
    return _receipt(rng) if style.hand else _invoice(rng)


def _money(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02d}"


def _date(day: datetime.date) -> str:
    return f"{day.year}年{day.month:02d}月{day.day:02d}日"


def _invoice(rng: random.Random) -> Draft:
    canvas, asks = Canvas(1000, 900), Asks(rng)
    label, value = Type("sans", 19, _BROWN), Type("sans", 19)
    canvas.text(500, 30, "电子发票（普通发票）", Type("serif", 34, _BROWN), "ma")
    canvas.rule(80, 330, 670, _BROWN, 2)
    number = "24" + "".join(rng.choice("0123456789") for _ in range(18))
    day = datetime.date(2024, 1, 1) + datetime.timedelta(rng.randrange(700))
    canvas.text(620, 96, "发票号码：", label)
    said_number = canvas.text(720, 96, number, value)
    canvas.text(620, 126, "开票日期：", label)
    said_date = canvas.text(720, 126, _date(day), value)

    buyer, seller = rng.sample(list(dict.fromkeys(company(rng) for _ in range(8))), 2)
    canvas.rect((30, 164, 970, 244), outline=_BROWN)
    for x, role in ((30, "购买方"), (500, "销售方")):
        canvas.line(x + 44, 164, x + 44, 244, _BROWN)
        for i, character in enumerate(role):
            canvas.text(x + 22, 181 + 23 * i, character, label, "mm")
        canvas.text(x + 54, 174, "名称：", label)
        canvas.text(x + 54, 210, "纳税人识别号：", label.but(size=17))
        code = (
            "91"
            + "".join(rng.choice("0123456789") for _ in range(6))
            + "".join(rng.choice("0123456789ABCDEFGHJKLMNPQRTUWXY") for _ in range(10))
        )
        canvas.text(x + 178, 210, code, value.but(size=17))
    canvas.line(500, 164, 500, 244, _BROWN)
    said_buyer = canvas.text(140, 174, buyer, value, within=350)
    said_seller = canvas.text(610, 174, seller, value, within=350)

    goods = rng.sample(_GOODS, rng.randint(4, 6))
    rows, total, taxes = [["项目名称", "规格型号", "单位", "数量", "单价", "金额", "税率", "税额"]], 0, 0
    for name, model, unit, low, high in goods:
        quantity, price = rng.randint(2, 24), rng.randint(low * 10, high * 10) * 10
        tax = round(quantity * price * 0.13)
        rows.append([name, model, unit, str(quantity), _money(price), _money(quantity * price), "13%", _money(tax)])
        total, taxes = total + quantity * price, taxes + tax
    widths = (270, 100, 60, 80, 110, 130, 70, 120)
    marks = table(canvas, 30, 244, widths, rows, value, height=38, head=label, align="lmmrrrmr", rule=None)
    bottom = 244 + 38 * len(rows) + 14
    sums = table(
        canvas,
        30,
        bottom,
        widths,
        [["合　　计", "", "", "", "", f"¥{_money(total)}", "", f"¥{_money(taxes)}"]],
        label,
        height=40,
        rule=None,
    )
    for edge in (30, *(30 + sum(widths[: c + 1]) for c in range(8))):
        canvas.line(edge, 244, edge, bottom + 40, _BROWN)
    for y in (244, 282, bottom + 40, bottom + 92):
        canvas.rule(y, 30, 970, _BROWN)
    canvas.line(30, bottom + 40, 30, bottom + 92, _BROWN)
    canvas.line(970, bottom + 40, 970, bottom + 92, _BROWN)
    canvas.text(56, bottom + 66, "价税合计（大写）", label, "lm")
    formal = canvas.text(240, bottom + 66, amount(total + taxes, "圆"), value.but(size=21), "lm", within=440)
    canvas.text(700, bottom + 66, "（小写）", label, "lm")
    figures = canvas.text(790, bottom + 66, f"¥{_money(total + taxes)}", value.but(size=21), "lm")
    clerk = person(rng)
    canvas.text(56, bottom + 112, "开票人：", label)
    said_clerk = canvas.text(136, bottom + 112, clerk, value)
    canvas.cut(bottom + 156)

    head, body = marks[0], marks[1:]
    near = figures_around(figures.text, [sums[0][1].text], rng)
    asks.read("发票上价税合计的大写金额是什么？", formal, [amount(round(value_of(slip) * 100), "圆") for slip in near])
    asks.figure("发票上价税合计的小写金额是多少？", figures, [sums[0][1]])
    asks.alike("发票上的销售方是哪家公司？", said_seller, [buyer, *(company(rng) for _ in range(2))])
    asks.alike("发票上的购买方是哪家公司？", said_buyer, [seller, *(company(rng) for _ in range(2))])
    asks.read("这张发票是哪天开的？", said_date, map(_date, near_dates(day, rng)))
    asks.figure("这张发票的发票号码是多少？", said_number)
    asks.figure("合计税额是多少？", sums[0][2], [sums[0][1]])
    asks.alike("这张发票是谁开的？", said_clerk, [person(rng) for _ in range(4)])
    for column, title in ((3, "数量"), (4, "单价"), (5, "金额"), (7, "税额")):
        row = rng.choice(body)
        asks.figure(
            f"发票上“{row[0].text}”的{title}是多少？", row[column], [r[column] for r in body if r is not row], [row[0], head[column]]
        )
    asks.extreme("发票上哪一项的金额最高？", [row[0] for row in body], [row[5] for row in body], "most")
    asks.count("这张发票一共开了几项商品？", [row[0] for row in body], "{}项")
    return Draft(canvas, asks)


def _receipt(rng: random.Random) -> Draft:
    canvas, asks = Canvas(900, 520, rng.choice([(255, 253, 244), (252, 244, 246), WHITE])), Asks(rng)
    label, hand = Type("serif", 25, _BLUE), Type(rng.choice(["pen", "brush"]), 38, INK)
    canvas.text(450, 34, "收　款　收　据", Type("serif", 40, _BLUE), "ma")
    for y in (90, 95):
        canvas.rule(y, 300, 600, _BLUE)
    number = f"{rng.randrange(10**7):07d}"
    canvas.text(690, 60, f"No.{number}", Type("serif", 26, _RED))
    day = datetime.date(2023, 1, 1) + datetime.timedelta(rng.randrange(1000))
    parts = [(f"{day.year}", 330), (f"{day.month}", 452), (f"{day.day}", 534)]
    for text, x in parts:
        canvas.text(x, 128, text, hand.but(size=36), "mm")
    for text, x in (("年", 398), ("月", 492), ("日", 574)):
        canvas.text(x, 128, text, label, "mm")

    reasons = ["房租", "押金", "货款", "学费", "定金", "水电费", "物业费", "维修费", "会费", "停车费", "伙食费", "装修款", "运费", "材料费"]
    payer, reason, receiver = person(rng), rng.choice(reasons), person(rng)
    fen = rng.choice([rng.randint(2, 99) * 10000, rng.randint(30, 9999) * 100, rng.randint(3000, 999999), rng.randint(300, 9999) * 10])
    rows = [("今收到", payer, 220), ("交　来", reason, 220), ("人民币（大写）", amount(fen), 300)]
    said = []
    for i, (title, text, x) in enumerate(rows):
        y = 206 + 72 * i
        canvas.text(90, y, title, label, "ls")
        canvas.rule(y + 9, x - 14, 800, _BLUE)
        said.append(canvas.text(x, y, text, hand, "ls", within=800 - x))
    canvas.text(90, 424, "￥", label, "ls")
    figures = canvas.text(130, 424, _money(fen), hand.but(size=46), "ls", within=200)
    canvas.rule(433, 120, 330, _BLUE)
    canvas.text(400, 424, "收款人：", label, "ls")
    signed = canvas.text(510, 424, receiver, hand, "ls")
    canvas.rule(433, 500, 800, _BLUE)
    canvas.rect((40, 20, 860, 480), outline=_BLUE, width=2)

    near = figures_around(figures.text, [], rng)
    asks.read("收据上写的大写金额是什么？", said[2], [amount(round(value_of(slip) * 100)) for slip in near])
    asks.figure("收据上写的小写金额是多少？", figures)
    asks.alike("这笔钱是谁交的？", said[0], [receiver, *(person(rng) for _ in range(3))])
    asks.alike("这笔钱是谁收的？", signed, [payer, *(person(rng) for _ in range(3))])
    asks.read("收据上写明交来的是什么款项？", said[1], rng.sample([other for other in reasons if other != reason], 3))
    asks.add(
        "把收据上的大写金额写成数字，是多少元？",
        f"{_money(fen)}元",
        [f"{slip}元" for slip in figures_around(figures.text, [], rng)],
        [said[2]],
        "amount",
        "{}元",
    )
    return Draft(canvas, asks)
