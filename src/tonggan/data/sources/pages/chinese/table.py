"""Tables: marks of a class, its week of lessons, sales, the weather."""

from __future__ import annotations

import random

from tonggan.data.sources.pages.asking import Asks, Draft, Style
from tonggan.data.sources.pages.canvas import INK, WHITE, Canvas, Color, Mark, Type
from tonggan.data.sources.pages.chinese.names import people
from tonggan.data.sources.pages.parts import table
from tonggan.data.sources.pages.pools import words

STYLES = ("handwritten", "handwritten", "occluded", "blurred")

_BANDS: tuple[Color | None, ...] = ((222, 232, 244), (236, 240, 226), (246, 230, 214), (232, 232, 236), None)
_WEEK = (
    "语文 语文 语文 语文 语文 语文 语文 数学 数学 数学 数学 体育 体育 体育 道德与法治 道德与法治 音乐 音乐 美术 美术 "
    "科学 劳动 书法 心理健康"
)
_LOWER, _UPPER = "语文 数学 体育 阅读 阅读 班会", "英语 英语 英语 科学 信息科技 数学"
"""Lessons of a primary school's week: those of every year, and what the first two years and the others have besides (30 in all)."""
_WEATHER = ("晴", "多云", "阴", "小雨", "中雨", "雷阵雨", "雾", "阵雨", "大雨", "晴转多云", "多云转阴")
_CITIES = words("北京 上海 广州 哈尔滨 成都 西安 武汉 昆明 拉萨 乌鲁木齐 沈阳 杭州 海口 兰州 济南 长沙")
_SHOPS = ("人民路店", "火车站店", "大学城店", "中山路店", "万象城店", "开发区店", "江滨店", "老城店", "体育馆店", "北门店")
_WARES = ("面包", "蛋糕", "咖啡", "奶茶", "果汁", "饼干", "冰淇淋", "三明治", "酸奶", "豆浆")


def draw(rng: random.Random, style: Style) -> Draft:
    return rng.choice([_marks, _lessons, _sales, _weather])(rng, style)


def _sheet(
    rng: random.Random, style: Style, title: str, rows: list[list[str]], widths: list[float], note: str = ""
) -> tuple[Canvas, Asks, list[list[Mark]]]:
    canvas = Canvas(round(sum(widths)) + 80, 1000, rng.choice([WHITE, WHITE, (253, 251, 245)]))
    face = rng.choice(["sans", "serif"])
    ink = rng.choice([INK, (30, 44, 120)]) if style.hand else INK
    cell = Type(rng.choice(["pen", "brush"]), 36, ink) if style.hand else Type(face, 26)
    head = Type(face, 25, bold=True)
    canvas.text(canvas.width / 2, 28, title, Type(face, 36, bold=True), "ma", within=canvas.width - 80)
    if note:
        canvas.text(canvas.width - 40, 84, note, Type(face, 20), "ra")
    # The first column is printed with the form; only what is filled in is by hand.
    marks = table(canvas, 40, 116, widths, rows, cell, height=52, head=head, band=rng.choice(_BANDS), body=[head.but(bold=False)])
    canvas.cut(116 + 52 * len(rows) + 36)
    return canvas, Asks(rng), marks


def _marks(rng: random.Random, style: Style) -> Draft:
    grade, room = rng.choice("三四五六七八"), rng.randint(1, 8)
    pool = ["语文", "数学", "英语", *(["历史", "地理", "生物"] if grade in "七八" else ["科学"])]
    subjects = rng.sample(pool, 4)
    names = people(rng, rng.randint(5, 7))
    rows = [["姓名", *subjects]] + [[name, *(str(rng.randint(58, 99)) for _ in subjects)] for name in names]
    title = f"{grade}年级（{room}）班{rng.choice(['期中', '期末', '第一单元', '第三单元'])}成绩表"
    canvas, asks, marks = _sheet(rng, style, title, rows, [150, *[130] * 4])
    head, body = marks[0], marks[1:]
    for row in rng.sample(body, 3):
        c = rng.randint(1, 4)
        asks.figure(f"{row[0].text}的{head[c].text}考了多少分？", row[c], [r[c] for r in body if r is not row], [row[0], head[c]], "{}分")
    for c in rng.sample(range(1, 5), 2):
        values = [row[c] for row in body]
        asks.extreme(f"哪位同学的{head[c].text}分数最高？", [row[0] for row in body], values, "most")
        asks.extreme(f"哪位同学的{head[c].text}分数最低？", [row[0] for row in body], values, "least")
        full = [mark for mark in values if int(mark.text) >= 90]
        if full:
            asks.count(f"{head[c].text}90分以上（含90分）的同学有几位？", full, "{}位")
    row, (first, second) = rng.choice(body), rng.sample(range(1, 5), 2)
    asks.total(f"{row[0].text}的{head[first].text}和{head[second].text}一共考了多少分？", [row[first], row[second]], lambda v: f"{v:.0f}分")
    a, b = rng.sample(body, 2)
    asks.gap(f"{a[0].text}和{b[0].text}的{head[1].text}成绩相差多少分？", a[1], b[1], lambda v: f"{v:.0f}分")
    return Draft(canvas, asks)


def _week(rng: random.Random, lower: bool) -> list[list[str]]:
    """Six lessons on each of five days; one or two of the week's are others than usual. What is taught often is taught every day."""
    lessons = [*words(_WEEK), *words(_LOWER if lower else _UPPER)]
    for usual, other in rng.sample([("语文", "阅读"), ("数学", "综合实践"), ("体育", "阅读"), ("音乐", "书法")], 2):
        lessons[lessons.index(usual)] = other
    order = rng.sample(list(dict.fromkeys(lessons)), len(set(lessons)))
    lessons.sort(key=order.index)
    return [rng.sample(lessons[day::5], 6) for day in range(5)]


def _lessons(rng: random.Random, style: Style) -> Draft:
    days, periods = ["星期一", "星期二", "星期三", "星期四", "星期五"], ["第一节", "第二节", "第三节", "第四节", "第五节", "第六节"]
    grade = rng.choice("一二三四五六")
    columns = _week(rng, grade in "一二")
    rows = [["节次", *days]] + [[period, *(column[r] for column in columns)] for r, period in enumerate(periods)]
    title = f"{grade}年级（{rng.randint(1, 8)}）班课程表"
    canvas, asks, marks = _sheet(rng, style, title, rows, [110, *[144] * 5])
    head, body = marks[0], marks[1:]
    for row in rng.sample(body, 4):
        c = rng.randint(1, 5)
        others = [mark for r in body for mark in r[1:] if mark is not row[c]]
        asks.read(f"{head[c].text}{row[0].text}上什么课？", row[c], others, [row[0], head[c]])
    subject = rng.choice(["语文", "数学", "体育", "科学" if grade in "一二" else "英语"])
    found = [mark for row in body for mark in row[1:] if mark.text == subject]
    if found:
        asks.count(f"一个星期一共有几节{subject}课？", found, "{}节")
    for c in rng.sample(range(1, 6), 3):
        column = [row[c] for row in body]
        once = [r for r, mark in enumerate(column) if [m.text for m in column].count(mark.text) == 1]
        if once:
            row = body[rng.choice(once)]
            asks.read(f"{head[c].text}的{row[c].text}课是第几节？", row[0], [r[0] for r in body if r is not row], [row[c]])
    return Draft(canvas, asks)


def _sales(rng: random.Random, style: Style) -> Draft:
    wares, shops = rng.sample(_WARES, 3), rng.sample(_SHOPS, rng.randint(4, 6))
    rows = [["门店", *wares]] + [[shop, *(str(rng.randint(60, 1980)) for _ in wares)] for shop in shops]
    canvas, asks, marks = _sheet(rng, style, f"{rng.randint(1, 12)}月份各门店销售情况", rows, [180, *[150] * 3], "单位：份")
    head, body = marks[0], marks[1:]
    for row in rng.sample(body, 3):
        c = rng.randint(1, 3)
        asks.figure(f"{row[0].text}卖出了多少份{head[c].text}？", row[c], [r[c] for r in body if r is not row], [row[0], head[c]], "{}份")
    for c in (1, 2, 3):
        asks.extreme(f"哪家店卖出的{head[c].text}最多？", [row[0] for row in body], [row[c] for row in body], "most")
        asks.extreme(f"哪家店卖出的{head[c].text}最少？", [row[0] for row in body], [row[c] for row in body], "least")
    row = rng.choice(body)
    asks.total(f"{row[0].text}的{head[1].text}和{head[2].text}一共卖出多少份？", [row[1], row[2]], lambda v: f"{v:.0f}份")
    a, b = rng.sample(body, 2)
    asks.gap(f"{a[0].text}和{b[0].text}卖出的{head[3].text}相差多少份？", a[3], b[3], lambda v: f"{v:.0f}份")
    asks.count("表中一共有几家店？", [row[0] for row in body], "{}家")
    return Draft(canvas, asks)


def _weather(rng: random.Random, style: Style) -> Draft:
    rows = [["城市", "天气", "最高气温", "最低气温", "风力"]]
    for city in rng.sample(_CITIES, rng.randint(5, 8)):
        high = rng.randint(15, 33)
        rows.append([city, rng.choice(_WEATHER), f"{high}℃", f"{high - rng.randint(3, 12)}℃", f"{rng.randint(1, 7)}级"])
    title = f"{rng.choice([4, 5, 9, 10])}月{rng.randint(1, 30)}日主要城市天气预报"
    canvas, asks, marks = _sheet(rng, style, title, rows, [160, 140, 140, 140, 120])
    head, body = marks[0], marks[1:]
    cities = [row[0] for row in body]
    for row in rng.sample(body, 3):
        city = row[0].text
        asks.read(f"预报{city}是什么天气？", row[1], [*(r[1] for r in body if r is not row), *_WEATHER], [row[0]])
        c = rng.choice([2, 3])
        asks.figure(f"预报{city}的{head[c].text}是多少？", row[c], [r[c] for r in body if r is not row], [row[0], head[c]])
        asks.read(f"预报{city}的风力是几级？", row[4], [f"{n}级" for n in range(1, 8)], [row[0]])
    asks.extreme("哪座城市的最高气温最高？", cities, [row[2] for row in body], "most")
    asks.extreme("哪座城市的最低气温最低？", cities, [row[3] for row in body], "least")
    row = rng.choice(body)
    asks.gap(f"{row[0].text}的最高气温和最低气温相差多少？", row[2], row[3], lambda v: f"{v:.0f}℃")
    wet = [row[1] for row in body if "雨" in row[1].text]
    if wet:
        asks.count("预报有雨的城市有几座？", wet, "{}座")
    return Draft(canvas, asks)
