"""Vertical text (竖排), read from right to left: couplets, poems, price tablets, notices."""

from __future__ import annotations

import random

from tonggan.data.sources.pages.asking import Asks, Draft, Style
from tonggan.data.sources.pages.canvas import INK, Canvas, Mark, Type, cells
from tonggan.data.sources.pages.chinese.names import people
from tonggan.data.sources.pages.near import lookalike
from tonggan.data.sources.pages.numerals import counted
from tonggan.data.sources.pages.pools import words

STYLES = ("traditional", "traditional", "handwritten", "occluded", "blurred")

_RED_PAPER, _GOLD = (176, 26, 26), (252, 214, 110)
_COUPLETS = (
    # 上联, 下联, 横批; 繁體 below
    ("春回大地风光好", "福满人间喜事多", "万象更新"),
    ("和顺一门有百福", "平安二字值千金", "吉祥如意"),
    ("一帆风顺年年好", "万事如意步步高", "五福临门"),
    ("爆竹声声辞旧岁", "梅花点点报新春", "迎春接福"),
    ("绿竹别其三分景", "红梅正报万家春", "春回大地"),
    ("天增岁月人增寿", "春满乾坤福满门", "四季长安"),
    ("勤俭家风传万代", "和睦门第纳千祥", "家和事兴"),
    ("门迎春夏秋冬福", "户纳东西南北财", "财源广进"),
    ("书山有路勤为径", "学海无涯苦作舟", "勤能补拙"),
)
_COUPLETS_HANT = (
    ("春回大地風光好", "福滿人間喜事多", "萬象更新"),
    ("和順一門有百福", "平安二字值千金", "吉祥如意"),
    ("一帆風順年年好", "萬事如意步步高", "五福臨門"),
    ("爆竹聲聲辭舊歲", "梅花點點報新春", "迎春接福"),
    ("天增歲月人增壽", "春滿乾坤福滿門", "四季長安"),
    ("門迎春夏秋冬福", "戶納東西南北財", "財源廣進"),
)
_POEMS = (
    ("静夜思", "李白", "床前明月光 疑是地上霜 举头望明月 低头思故乡"),
    ("春晓", "孟浩然", "春眠不觉晓 处处闻啼鸟 夜来风雨声 花落知多少"),
    ("登鹳雀楼", "王之涣", "白日依山尽 黄河入海流 欲穷千里目 更上一层楼"),
    ("江雪", "柳宗元", "千山鸟飞绝 万径人踪灭 孤舟蓑笠翁 独钓寒江雪"),
    ("相思", "王维", "红豆生南国 春来发几枝 愿君多采撷 此物最相思"),
    ("鹿柴", "王维", "空山不见人 但闻人语响 返景入深林 复照青苔上"),
    ("早发白帝城", "李白", "朝辞白帝彩云间 千里江陵一日还 两岸猿声啼不住 轻舟已过万重山"),
    ("绝句", "杜甫", "两个黄鹂鸣翠柳 一行白鹭上青天 窗含西岭千秋雪 门泊东吴万里船"),
    ("枫桥夜泊", "张继", "月落乌啼霜满天 江枫渔火对愁眠 姑苏城外寒山寺 夜半钟声到客船"),
    ("山行", "杜牧", "远上寒山石径斜 白云生处有人家 停车坐爱枫林晚 霜叶红于二月花"),
    ("凉州词", "王翰", "葡萄美酒夜光杯 欲饮琵琶马上催 醉卧沙场君莫笑 古来征战几人回"),
    ("元日", "王安石", "爆竹声中一岁除 春风送暖入屠苏 千门万户曈曈日 总把新桃换旧符"),
)
_POEMS_HANT = (
    ("靜夜思", "李白", "床前明月光 疑是地上霜 舉頭望明月 低頭思故鄉"),
    ("春曉", "孟浩然", "春眠不覺曉 處處聞啼鳥 夜來風雨聲 花落知多少"),
    ("登鸛雀樓", "王之渙", "白日依山盡 黃河入海流 欲窮千里目 更上一層樓"),
    ("江雪", "柳宗元", "千山鳥飛絕 萬徑人蹤滅 孤舟蓑笠翁 獨釣寒江雪"),
    ("早發白帝城", "李白", "朝辭白帝彩雲間 千里江陵一日還 兩岸猿聲啼不住 輕舟已過萬重山"),
    ("楓橋夜泊", "張繼", "月落烏啼霜滿天 江楓漁火對愁眠 姑蘇城外寒山寺 夜半鐘聲到客船"),
    ("山行", "杜牧", "遠上寒山石徑斜 白雲生處有人家 停車坐愛楓林晚 霜葉紅於二月花"),
)
_TABLETS = words("阳春面 小馄饨 生煎包 糖芋苗 桂花糕 豆腐脑 鸭血粉丝 红豆汤 酒酿圆子 葱油饼 牛肉汤 臭豆腐 赤豆元宵 梅花糕 蟹黄汤包")
_TABLETS_HANT = words("陽春麵 小餛飩 生煎包 紅豆湯 豆腐腦 蔥油餅 牛肉湯 滷肉飯 擔仔麵 貢丸湯 蚵仔煎 綠豆糕 鳳梨酥 冬瓜茶")


def draw(rng: random.Random, style: Style) -> Draft:
    return rng.choice([_couplet, _poem, _tablets, _roster])(rng, style)


def _face(rng: random.Random, style: Style) -> str:
    return rng.choice(["pen", "brush"]) if style.hand else "serif-hant" if style.hant else rng.choice(["serif", "sans"])


def _couplet(rng: random.Random, style: Style) -> Draft:
    pool = _COUPLETS_HANT if style.hant else _COUPLETS
    up, down, top = rng.choice(pool)
    canvas, asks = Canvas(620, 840, (232, 222, 206)), Asks(rng)
    letters = Type("brush" if style.hand else _face(rng, style), 66, rng.choice([_GOLD, INK]))
    for box in ((470, 170, 570, 790), (50, 170, 150, 790), (150, 40, 470, 140)):
        canvas.rect(box, fill=_RED_PAPER)
    canvas.rect((190, 190, 430, 800), fill=(104, 62, 34))
    canvas.line(310, 190, 310, 800, (70, 40, 22), 4)
    right = canvas.column(520, 220, up, letters)
    left = canvas.column(100, 220, down, letters)
    middle = canvas.text(310, 90, top, letters.but(size=62), "mm")
    others = [one for one in pool if one[0] != up]
    a, b, c = (rng.sample([one[i] for one in others], n) for i, n in enumerate((2, 2, 3)))
    words = ("門右邊的上聯", "門左邊的下聯", "橫批") if style.hant else ("门右边的上联", "门左边的下联", "横批")
    write = "寫的是什麼？" if style.hant else "写的是什么？"
    asks.alike(words[0] + write, right, [down, *a])
    asks.alike(words[1] + write, left, [up, *b])
    asks.alike(words[2] + write, middle, c)
    _nth(asks, right, words[0], style)
    _nth(asks, left, words[1], style)
    return Draft(canvas, asks)


def _nth(asks: Asks, mark: Mark, name: str, style: Style) -> None:
    """Which character stands at one place of a column; the column is the evidence."""
    at = asks.rng.randrange(1, len(mark.text))
    number = counted(at + 1)
    question = f"{name}從上往下第{number}個字是什麼？" if style.hant else f"{name}从上往下第{number}个字是什么？"
    one = cell(mark, at)
    asks.read(question, one, [*lookalike(one.text, asks.rng)[:1], *(other for other in mark.text if other != one.text)])


def cell(mark: Mark, at: int) -> Mark:
    """One character of a column as a mark of its own."""
    character, x, y = list(cells(mark.text, mark.origin, mark.type))[at]
    half = mark.type.size / 2
    return Mark(character, (x - half, y - half, x + half, y + half), mark.type, (x, y), "mm", vertical=True)


def _poem(rng: random.Random, style: Style) -> Draft:
    pool = _POEMS_HANT if style.hant else _POEMS
    title, poet, lines = rng.choice(pool)
    verses = lines.split()
    # In an order of chance: who knows the poem by heart still has to look.
    rng.shuffle(verses)
    size = 50
    canvas, asks = (
        Canvas(660, 200 + round(size * 1.12 * len(verses[0])) + 60, rng.choice([(246, 238, 220), (252, 250, 244), (238, 230, 206)])),
        Asks(rng),
    )
    face = _face(rng, style)
    bottom = canvas.picture.height
    canvas.rect((24, 24, 636, bottom - 24), outline=(150, 60, 44), width=3)
    said_title = canvas.column(580, 70, title, Type(face, 46))
    said_poet = canvas.column(510, 130, poet, Type(face, 34))
    marks = [canvas.column(430 - 92 * i, 150, verse, Type(face, size)) for i, verse in enumerate(verses)]
    others = [one for one in pool if one[0] != title]
    ask = "是什麼？" if style.hant else "是什么？"
    named = "這首詩寫的題目是什麼？" if style.hant else "这首诗写的题目是什么？"
    asks.alike(named, said_title, rng.sample([one[0] for one in others], 3))
    asks.alike("詩的作者署名是誰？" if style.hant else "诗的作者署名是谁？", said_poet, [one[1] for one in others])
    for i, mark in enumerate(marks):
        place = ("第一", "第二", "第三", "第四")[i]
        question = f"從右往左讀，詩的{place}句寫的{ask}" if style.hant else f"从右往左读，诗的{place}句写的{ask}"
        asks.alike(question, mark, [other for other in marks if other is not mark])
        _nth(asks, mark, f"詩的{place}句" if style.hant else f"从右往左读，诗的{place}句", style)
    return Draft(canvas, asks)


def _tablets(rng: random.Random, style: Style) -> Draft:
    names = rng.sample(_TABLETS_HANT if style.hant else _TABLETS, rng.randint(5, 6))
    canvas, asks = Canvas(110 + 100 * len(names), 620, (92, 60, 38)), Asks(rng)
    face = _face(rng, style)
    prices = [f"{counted(price)}元" for price in rng.sample(range(3, 39), len(names))]
    tops, ends = [], []
    for i, (name, price) in enumerate(zip(names, prices, strict=True)):
        x = canvas.width - 105 - 100 * i
        canvas.rect((x - 40, 40, x + 40, 580), fill=(224, 186, 132), outline=(60, 36, 20), width=3)
        tops.append(canvas.column(x, 64, name, Type(face, 48)))
        ends.append(canvas.column(x, 558 - 42 * 1.12 * len(price), price, Type(face, 42, (150, 24, 20))))
    for top, end in rng.sample(list(zip(tops, ends, strict=True)), 4):
        ask = f"“{top.text}”賣多少錢？" if style.hant else f"“{top.text}”卖多少钱？"
        asks.read(ask, end, [other for other in ends if other is not end], [top])
        ask = f"賣{end.text}的是哪一樣？" if style.hant else f"卖{end.text}的是哪一样？"
        asks.read(ask, top, [other for other in tops if other is not top], [end])
    right = (
        ("最右邊的牌子寫的是什麼？", "最左邊的牌子寫的是什麼？") if style.hant else ("最右边的牌子写的是什么？", "最左边的牌子写的是什么？")
    )
    asks.read(right[0], tops[0], tops[1:])
    asks.read(right[1], tops[-1], tops[:-1])
    asks.count("一共掛了幾塊牌子？" if style.hant else "一共挂了几块牌子？", tops, "{}塊" if style.hant else "{}块")
    return Draft(canvas, asks)


def _roster(rng: random.Random, style: Style) -> Draft:
    if style.hant:
        return _tablets(rng, style)
    days = ["星期一", "星期二", "星期三", "星期四", "星期五"]
    canvas, asks = Canvas(680, 640, rng.choice([(255, 255, 255), (250, 246, 236), (240, 246, 250)])), Asks(rng)
    face = _face(rng, style)
    names = people(rng, len(days))
    task = rng.choice(["扫地", "擦黑板", "浇花", "倒垃圾", "关门窗"])
    canvas.column(600, 60, f"{task}值日表", Type("serif", 46, (150, 40, 30)))
    canvas.rect((40, 40, 550, 600), outline=INK, width=2)
    heads, cells = [], []
    for i, (day, name) in enumerate(zip(days, names, strict=True)):
        x = 499 - 102 * i
        canvas.line(x - 51, 40, x - 51, 600)
        heads.append(canvas.column(x, 60, day, Type("serif", 42)))
        cells.append(canvas.column(x, 300, name, Type(face, 50, (26, 50, 130) if style.hand else INK)))
    canvas.rule(250, 40, 550)
    for head, mark in zip(heads, cells, strict=True):
        others = [other for other in cells if other is not mark]
        asks.alike(f"{head.text}由谁{task}？", mark, others, [head])
        asks.read(f"{mark.text}在星期几{task}？", head, [other for other in heads if other is not head], [mark])
    asks.read("表上最左边一列写的是谁的名字？", cells[-1], cells[:-1])
    return Draft(canvas, asks)
