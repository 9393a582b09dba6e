"""A month of the wall calendar, with the lunar date under each day (农历); the one of Taiwan is 繁體."""

from __future__ import annotations

import calendar
import datetime
import random

from tonggan.data.sources.pages.asking import Asks, Draft, Style
from tonggan.data.sources.pages.canvas import GRAY, INK, WHITE, Canvas, Mark, Type
from tonggan.data.sources.pages.lunar import lunar, term
from tonggan.data.sources.pages.near import near_places
from tonggan.data.sources.pages.numerals import spelled
from tonggan.data.sources.pages.parts import month

STYLES = ("traditional", "traditional", "occluded", "blurred")

_FEASTS = {
    (1, 1): "元旦",
    (2, 14): "情人节",
    (3, 8): "妇女节",
    (3, 12): "植树节",
    (5, 1): "劳动节",
    (5, 4): "青年节",
    (6, 1): "儿童节",
    (7, 1): "建党节",
    (8, 1): "建军节",
    (9, 10): "教师节",
    (10, 1): "国庆节",
    (12, 25): "圣诞节",
}
_HANT_FEASTS = {
    (1, 1): "元旦",
    (2, 28): "和平紀念日",
    (3, 8): "婦女節",
    (3, 12): "植樹節",
    (3, 29): "青年節",
    (4, 4): "兒童節",
    (5, 1): "勞動節",
    (9, 3): "軍人節",
    (9, 28): "教師節",
    (10, 10): "國慶日",
    (12, 25): "行憲紀念日",
}
_LUNAR_FEASTS = {
    (1, 1): "春节",
    (1, 15): "元宵节",
    (5, 5): "端午节",
    (7, 7): "七夕",
    (7, 15): "中元节",
    (8, 15): "中秋节",
    (9, 9): "重阳节",
    (12, 8): "腊八节",
}
_HANT = str.maketrans("节惊蛰谷满种处阳腊闰", "節驚蟄穀滿種處陽臘閏")
"""Every character among the names of days that Taiwan writes otherwise."""
_RED, _GREEN = (200, 36, 36), (24, 116, 84)


def below(day: datetime.date, hant: bool = False) -> tuple[str, str]:
    """What a calendar prints under a day, and what that is: feast, term, or (lunar) day. A feast goes before a term, that before a day.

    The first day of a month shows the month's name.
    """
    there = lunar(day)
    last = lunar(day + datetime.timedelta(1))
    feast = None if there.leap else _LUNAR_FEASTS.get((there.month, there.day))
    if last.month == 1 and last.day == 1:
        feast = "除夕"
    name, kind = feast, "feast"
    if name is None:
        name, kind = term(day), "term"
    if name is None:
        name, kind = (_HANT_FEASTS if hant else _FEASTS).get((day.month, day.day)), "feast"
    if name is None:
        name, kind = there.month_name if there.day == 1 else there.day_name, "day"
    if hant:
        name = name.replace("冬月", "十一月").replace("腊月", "十二月").translate(_HANT)
    return name, kind


def draw(rng: random.Random, style: Style) -> Draft:
    year, number, first = rng.randint(2010, 2035), rng.randint(1, 12), 6 if style.hant else rng.choice([0, 6])
    canvas, asks = Canvas(860, 900, rng.choice([WHITE, WHITE, (255, 250, 240)])), Asks(rng)
    face, hand = ("serif-hant", "sans-hant") if style.hant else (rng.choice(["serif", "sans"]), "sans")
    accent = rng.choice([_RED, _GREEN, (28, 78, 150)])
    canvas.text(60, 34, f"{year}年{number}月", Type(face, 50, accent))
    animal = lunar(datetime.date(year, 6, 1))
    said = f"中華民國{spelled(str(year - 1911))}年" if style.hant else f"农历{animal.year_name}年（{animal.animal}年）"
    canvas.text(800, 60, said, Type(face, 28, accent), "ra")
    canvas.rule(112, 40, 820, accent, 2)

    def look(day: int) -> tuple[Type, str, Type]:
        name, kind = below(datetime.date(year, number, day), style.hant)
        weekend = datetime.date(year, number, day).weekday() >= 5
        small = {"feast": _RED, "term": _GREEN, "day": GRAY}[kind]
        return Type(face, 36, _RED if weekend else INK), name, Type(hand, 21, small)

    names = [("一二三四五六日"[(first + c) % 7], Type(hand, 25, _RED if (first + c) % 7 > 4 else INK)) for c in range(7)]
    heads, days, notes = month(canvas, 40, 122, (780 / 7, 96), year, number, first, names, look)
    weeks = len(calendar.Calendar(first).monthdayscalendar(year, number))
    for week in range(weeks):
        canvas.rule(168 + 96 * week, 40, 820, (226, 226, 226))
    canvas.cut(168 + 96 * weeks + 24)
    _ask(asks, year, number, first, heads, days, [note for note in notes if note is not None], style.hant)
    return Draft(canvas, asks)


def _ask(asks: Asks, year: int, number: int, first: int, heads: list[Mark], days: list[Mark], notes: list[Mark], hant: bool) -> None:
    rng = asks.rng
    dates = [datetime.date(year, number, day) for day in range(1, len(days) + 1)]
    kinds = [below(date, hant)[1] for date in dates]
    texts = [note.text for note in notes]
    for at in rng.sample(range(len(days)), 4):
        near = near_places(at, len(days), rng)
        question = f"{number}月{at + 1}日這一天，下面印的農曆是什麼？" if hant else f"{number}月{at + 1}日这一天下面印的农历是什么？"
        if kinds[at] == "day" and lunar(dates[at]).day != 1:
            asks.read(question, notes[at], [notes[other] for other in near], [days[at]])
            if texts.count(texts[at]) == 1:
                named = f"{lunar(dates[at]).month_name}{texts[at]}"
                named = named.replace("冬月", "十一月").replace("腊月", "十二月").translate(_HANT) if hant else named
                question = f"農曆{named}是國曆幾日？" if hant else f"农历{named}是公历几日？"
                asks.read(question, days[at], [days[other] for other in near], [notes[at]], "{}日")
        weekday = heads[(dates[at].weekday() - first) % 7]
        question = f"{number}月{at + 1}日是星期幾？" if hant else f"{number}月{at + 1}日是星期几？"
        asks.read(question, weekday, [head for head in heads if head is not weekday], [days[at]], "星期{}")
    for at, kind in enumerate(kinds):
        if kind != "day":
            near = near_places(at, len(days), rng)
            question = f"這個月的{texts[at]}是幾日？" if hant else f"这个月的{texts[at]}是几日？"
            asks.read(question, days[at], [days[other] for other in near], [notes[at]], "{}日")
    chosen, nth = rng.randrange(7), rng.randrange(4)
    name, place = "一二三四五六日"[chosen], "一二三四"[nth]
    at = [i for i, date in enumerate(dates) if date.weekday() == chosen][nth]
    question = f"這個月的第{place}個星期{name}是幾日？" if hant else f"这个月的第{place}个星期{name}是几日？"
    near = near_places(at, len(days), rng)
    asks.read(question, days[at], [days[other] for other in near], [heads[(chosen - first) % 7]], "{}日")
