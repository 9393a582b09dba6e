"""Departure boards of railway stations, on the mainland and in Taiwan (繁體)."""

from __future__ import annotations

import random

from tonggan.data.sources.pages.asking import Asks, Draft, Style
from tonggan.data.sources.pages.canvas import INK, WHITE, Canvas, Mark, Type
from tonggan.data.sources.pages.parts import table
from tonggan.data.sources.pages.pools import words

STYLES = ("traditional", "traditional", "occluded", "blurred")

_HERE = ("杭州东", "南京南", "郑州东", "武汉", "合肥南", "济南西", "长沙南", "徐州东")
_THERE = words(
    "北京南 上海虹桥 广州南 深圳北 西安北 成都东 重庆北 天津西 厦门北 福州南 南昌西 宁波 青岛北 太原南 石家庄 昆明南 贵阳北 温州南 "
    "苏州北 沈阳北 兰州西 桂林北 黄山北 金华 无锡东 南宁东 海口东"
)
_HANT_THERE = {
    # by station: where 自強 and 莒光 go, and where 區間 and 區間快 do
    "臺北": (words("潮州 新左營 臺東 花蓮 樹林 七堵 彰化 嘉義"), words("基隆 新竹 苗栗 蘇澳 竹南 中壢 宜蘭 鶯歌")),
    "新竹": (words("潮州 新左營 臺東 花蓮 七堵 南港 彰化 屏東"), words("基隆 苗栗 竹南 中壢 后里 臺中 嘉義 樹林")),
    "臺中": (words("潮州 新左營 臺東 花蓮 七堵 南港 樹林 屏東"), words("后里 苗栗 彰化 二水 嘉義 竹南 新竹 斗六")),
    "彰化": (words("潮州 新左營 臺東 花蓮 七堵 南港 樹林 屏東"), words("后里 苗栗 員林 二水 嘉義 竹南 新竹 斗六")),
    "臺南": (words("潮州 臺東 七堵 南港 樹林 彰化 花蓮 基隆"), words("沙崙 嘉義 斗六 屏東 二水 善化 新營 高雄")),
}
_BOARDS = (
    # paper, letters, times, remarks
    (WHITE, INK, INK, (176, 40, 32)),
    ((14, 18, 30), (238, 240, 244), (255, 208, 70), (110, 220, 130)),
    ((18, 46, 92), WHITE, (255, 224, 120), (160, 236, 255)),
)


def draw(rng: random.Random, style: Style) -> Draft:
    hant = style.hant
    paper, letters, times, remarks = rng.choice(_BOARDS)
    canvas, asks = Canvas(860, 900, paper), Asks(rng)
    face = "sans-hant" if hant else "sans"
    cell = Type(face, 25, letters)
    here = rng.choice(list(_HANT_THERE) if hant else _HERE)
    rows = _trains_hant(rng, here) if hant else _trains(rng)
    title = f"{here}車站　列車時刻" if hant else f"{here}站　列车出发信息"
    canvas.text(430, 24, title, Type(face, 36, letters, bold=True), "ma")
    head = ["車次", "車種", "往", "開車", "月台", "備註"] if hant else ["车次", "终到站", "发车时间", "检票口", "状态"]
    widths = (110, 140, 150, 120, 110, 170) if hant else (150, 190, 160, 130, 170)
    body = [cell] * len(widths)
    body[3 if hant else 2] = cell.but(color=times)
    body[-1] = cell.but(color=remarks)
    rule = tuple((3 * p + ink) // 4 for p, ink in zip(paper, letters, strict=True))
    marks = table(
        canvas,
        30,
        90,
        widths,
        [head, *rows],
        cell,
        height=54,
        head=cell.but(size=23),
        rule=(rule[0], rule[1], rule[2]),
        upright=False,
        body=body,
    )
    canvas.cut(90 + 54 * (len(rows) + 1) + 30)
    _ask(asks, marks[0], marks[1:], hant)
    return Draft(canvas, asks)


def _clock(rng: random.Random, n: int) -> list[str]:
    start = rng.randint(6, 17) * 60
    minutes = sorted(rng.sample(range(start, start + 5 * 60), n))
    return [f"{at // 60:02d}:{at % 60:02d}" for at in minutes]


def _trains(rng: random.Random) -> list[list[str]]:
    n = rng.randint(6, 9)
    numbers = [f"{kind}{number}" for kind, number in zip(rng.choices("GGGDDKZT", k=n), rng.sample(range(7, 3000), n), strict=True)]
    gates = [f"{rng.randint(1, 28)}{rng.choice('AB')}" for _ in range(n)]
    late = [f"晚点{rng.randint(1, 9) * 5}分" if rng.random() < 0.35 else "正点" for _ in range(n)]
    states = ["停止检票", "正在检票", *late[2:]] if rng.random() < 0.5 else ["正在检票", *late[1:]]
    return [list(row) for row in zip(numbers, rng.sample(_THERE, n), _clock(rng, n), gates, states, strict=True)]


def _trains_hant(rng: random.Random, here: str) -> list[list[str]]:
    n = rng.randint(6, 9)
    kinds = rng.choices(("自強", "莒光", "區間", "區間快"), k=n)
    far, near = (rng.sample(places, len(places)) for places in _HANT_THERE[here])
    there = [(near if kind.startswith("區間") else far).pop() for kind in kinds]
    # 自強 and 莒光 have numbers of three digits, 區間 and 區間快 of four.
    starts = {"自強": 101, "莒光": 501, "區間": 1101, "區間快": 2001}
    numbers = [str(starts[kind] + off) for kind, off in zip(kinds, rng.sample(range(299), n), strict=True)]
    platforms = [f"{rng.randint(1, 4)}{rng.choice('AB')}" for _ in range(n)]
    states = [f"晚{rng.randint(3, 24)}分" if rng.random() < 0.35 else "準點" for _ in range(n)]
    return [list(row) for row in zip(numbers, kinds, there, _clock(rng, n), platforms, states, strict=True)]


def _ask(asks: Asks, head: list[Mark], rows: list[list[Mark]], hant: bool) -> None:
    number, there, time, gate = (0, 2, 3, 4) if hant else (0, 1, 2, 3)

    def column(c: int, but: list[Mark] | None = None) -> list[Mark]:
        return [row[c] for row in rows if row is not but]

    for row in asks.rng.sample(rows, 3):
        train, to, at = row[number].text, row[there].text, row[time].text
        unit = "次" if not hant else "次車"
        asks.figure(f"{train}次車幾點開？" if hant else f"{train}次列车几点发车？", row[time], column(time, row), [row[number]])
        asks.read(f"{train}次車開往哪裡？" if hant else f"{train}次列车的终到站是哪里？", row[there], column(there, row), [row[number]])
        asks.figure(f"往{to}的列車幾點開？" if hant else f"开往{to}的列车几点发车？", row[time], column(time, row), [row[there]])
        asks.figure(f"{at}開的是幾次車？" if hant else f"{at}发车的是哪趟车？", row[number], column(number, row), [row[time]], "{}" + unit)
        asks.figure(
            f"往{to}的列車在第幾月台上車？" if hant else f"开往{to}的列车在哪个检票口检票？",
            row[gate],
            column(gate, row),
            [row[there], head[gate]] if not hant else [row[there]],
            "第{}月台" if hant else "{}检票口",
        )
    asks.extreme("表上最晚開的是往哪裡的列車？" if hant else "表中最晚发车的列车开往哪里？", column(there), column(time), "most")
    late = [mark for mark in column(-1) if mark.text.startswith("晚")]
    if late:
        asks.count("表上有幾班車誤點？" if hant else "表中有几趟列车晚点？", late, "{}班" if hant else "{}趟")
    asks.count("表上一共列了幾班車？" if hant else "表中一共列出了几趟列车？", column(number), "{}班" if hant else "{}趟")
