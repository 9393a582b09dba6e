"""Wrong choices that are easy to take for the right one, and do not give it away.

Slips alone would: among a figure and three slips of it, the right one is the most like the others, and the median too. So the four
are made such that each of them could have been the one that the others were made of.
"""

from __future__ import annotations

import calendar
import datetime
import itertools
import random
import re
from collections.abc import Callable, Iterable, Sequence

CHOICES = 4
Slips = Callable[[str, random.Random], list[str]]
"""Makes strings one slip away, all of the same length, in an order of chance; what is a slip of a string has that string as a slip."""


def around(answer: str, others: Iterable[str], slips: Slips, rng: random.Random) -> list[str]:
    """Three wrong choices that leave each of the four the same number of neighbours one slip away; none if that cannot be.

    Two pairs, the answer and a slip of it, another string (of `others`) and a slip of that one: {a, a', b, b'}. Or a square: a slip
    here, a slip there, and both: {a, a', a*, a'*}. Which of them is left to chance.
    """
    rest = [other for other in dict.fromkeys(others) if other != answer]
    rng.shuffle(rest)
    ways = [lambda: _pairs(answer, rest, slips, rng), lambda: _square(answer, slips, rng)]
    rng.shuffle(ways)
    return ways[0]() or ways[1]()


def _pairs(answer: str, others: Sequence[str], slips: Slips, rng: random.Random) -> list[str]:
    for other in others:
        for mine, its in itertools.product(slips(answer, rng), slips(other, rng)):
            if len({answer, mine, other, its}) == CHOICES:
                return [mine, other, its]
    return []


def _square(answer: str, slips: Slips, rng: random.Random) -> list[str]:
    near = slips(answer, rng)
    for a, b in itertools.combinations(near, 2):
        if not any(x != old != y for x, y, old in zip(a, b, answer, strict=True)):
            both = "".join(x if x != old else y for x, y, old in zip(a, b, answer, strict=True))
            if both in slips(a, rng) and both in slips(b, rng):
                return [a, b, both]
    return []


def figures_around(figure: str, others: Iterable[str], rng: random.Random, slips: Slips | None = None) -> list[str]:
    """Three wrong figures by `around`; where a figure is too short for that, three of four in a row: 8A of 5A, 6A, 7A, 8A."""
    if found := around(figure, others, slips or misread, rng):
        return found
    before, number, after = re.split("([0-9]+)", figure, maxsplit=1)
    high = None if ":" not in figure else 12 if figure.endswith("M") else 23
    near = consecutive(int(number), rng, 0 if number[0] == "0" else 1, high)
    return [f"{before}{other:0{len(number) if number[0] == '0' else 1}d}{after}" for other in near]


def consecutive(number: int, rng: random.Random, low: int = 0, high: int | None = None) -> list[int]:
    """The other three of four numbers in a row, between `low` and `high`: the right one may be any of the four."""
    last = number if high is None else min(number, high - CHOICES + 1)
    first = rng.randint(max(number - CHOICES + 1, min(low, number)), last)
    rest = [other for other in range(first, first + CHOICES) if other != number]
    rng.shuffle(rest)
    return rest


def off_by(number: int, rng: random.Random) -> list[int]:
    """By how much three slips differ from a result: by ten (or a hundred), by one or two, and by both; if it is small, four in a row."""
    if number < 14:
        return [other - number for other in consecutive(number, rng, 1)]
    carry = 100 if number > 200 and rng.random() < 0.5 else 10
    tens, ones = rng.choice((-carry, carry)), rng.choice((-2, -1, 1, 2))
    return [tens, ones, tens + ones]


def near_places(at: int, n: int, rng: random.Random) -> list[int]:
    """Three days of a month of `n` days (all count from 0) that are taken for another: a week off, a day or two off, and both."""
    weeks = [step for step in (-7, 7) if 0 <= at + step < n]
    days = [step for step in (-2, -1, 1, 2) if 0 <= at + step < n]
    squares = [[at + week, at + day, at + week + day] for week in weeks for day in days if 0 <= at + week + day < n]
    return rng.choice(squares)


_DIGITS = {
    "0": "689", "1": "47", "2": "37", "3": "258", "4": "19", "5": "36", "6": "0589", "7": "12", "8": "0369", "9": "0468",
}  # fmt: skip
"""Digits that are taken for one another."""
_BESIDE = {str(digit): "".join(str(other) for other in (digit - 1, digit + 1) if 0 <= other <= 9) for digit in range(10)}
_LOOKALIKES = (
    "人入八", "大太犬天夫", "土士工", "日曰目白", "未末来", "己已巳", "王玉主", "千干于", "午牛", "今令", "东车", "贝见", "石右",
    "晴睛情清请", "园圆团", "陈阵", "杨扬场", "徐除", "折拆析", "候侯", "住往佳", "治冶", "洒酒", "免兔", "鸟乌", "竞竟", "蓝篮",
    "茶荼", "哀衰", "延廷", "壁璧", "幕慕墓暮", "辛幸", "账帐", "桃挑", "烧浇", "肉内", "丝纟", "明朋", "海悔", "和知", "李季",
    "张弦", "林材", "刘刻", "周同", "吴昊", "孙孔", "赵起", "高亮", "何河", "郭部", "马鸟", "江汪红", "市布", "北比", "西酉",
    "南商", "湖潮", "江工", "州洲", "宁宇", "成城", "昌冒", "杭抗", "苏办", "汉仅", "安女", "广厂", "长卡", "春舂", "永水",
    "陳陣", "張弦", "東車", "馬鳥", "麵麴", "魚魯", "湯揚", "飯飲", "館飽", "場揚", "線綠", "鄉卿", "貝見",
)  # fmt: skip
_LIKE: dict[str, str] = {}
for _group in _LOOKALIKES:
    for _character in _group:
        _LIKE[_character] = _LIKE.get(_character, "") + _group.replace(_character, "")


def misread(figure: str, rng: random.Random) -> list[str]:
    """Figures (amounts, dates, times, numbers of trains) one slip away: a digit taken for one that looks like it, or two swapped.

    The length stays, a leading digit does not become zero, what is round stays round, and a time stays one of the clock. The first
    of three digits and more stays too: it is more often small than great, which would give away the smallest of four. For the same
    reason, and so that temperatures stay temperatures, the first of two digits is one off and the two are not swapped.
    """
    places = [i for i, character in enumerate(figure) if character.isdigit() and character.isascii()]
    two = places[0] if len(places) == 2 else None
    if len(places) > 2 and ":" not in figure:
        del places[0]
    slips = [figure[:i] + other + figure[i + 1 :] for i in places for other in (_BESIDE if i == two else _DIGITS)[figure[i]]]
    slips += [
        figure[:i] + figure[j] + figure[i + 1 : j] + figure[i] + figure[j + 1 :]
        for i, j in itertools.pairwise(places)
        if figure[i] != figure[j] and two is None
    ]
    slips = [slip for slip in dict.fromkeys(slips) if _sound(slip, figure)]
    rng.shuffle(slips)
    return slips


def near_dates(day: datetime.date, rng: random.Random, other: datetime.date | None = None) -> list[datetime.date]:
    """Three days that are taken for another: the day is off, the month or the year, and both; or `other` and both some days off."""
    if other is not None and rng.random() < 0.5:
        apart = abs((day - other).days)
        step = datetime.timedelta(rng.choice([days for days in (-10, -3, -1, 1, 3, 10) if abs(days) != apart]))
        return [day + step, other, other + step]
    squares = []
    for days in (-10, -3, -1, 1, 3, 10):
        for month, year in ((-1, 0), (1, 0), (-2, 0), (2, 0), (0, -1), (0, 1)):
            square = [(day.year + y, day.month + m, day.day + d) for d, m, y in ((days, 0, 0), (0, month, year), (days, month, year))]
            if all(_exists(*date) for date in square):
                squares.append([datetime.date(*date) for date in square])
    return rng.choice(squares)


def _exists(year: int, month: int, day: int) -> bool:
    return 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]


def _sound(slip: str, figure: str) -> bool:
    first = next((i for i, character in enumerate(slip) if character.isdigit()), None)
    if first is not None and slip[first] == "0" and figure[first] != "0":
        return False
    hours, colon, minutes = slip.partition(":")
    if colon:
        least, most = (1, 12) if slip.endswith("M") else (0, 23)
        return hours[-2:].isdigit() and least <= int(hours[-2:]) <= most and int(minutes[:2]) < 60
    return len(_zeros(slip)) == len(_zeros(figure))


def _zeros(figure: str) -> str:
    """The zeros at the end of a figure, and what is written between them and behind: 0.00元 of 10.00元."""
    found = re.search("[0.,]*[^0-9]*$", figure)
    return found[0] if found else ""


def lookalike(text: str, rng: random.Random) -> list[str]:
    """Texts in which one Chinese character is another that looks like it."""
    swaps = [text[:i] + other + text[i + 1 :] for i, character in enumerate(text) for other in _LIKE.get(character, "")]
    rng.shuffle(swaps)
    return swaps
