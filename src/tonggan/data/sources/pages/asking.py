"""Questions about a page: an answer that follows from strings on it, and wrong choices that are easy to take for the answer."""

from __future__ import annotations

import datetime
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tonggan.data.sources.pages.canvas import Canvas, Mark, Shape

Rule = Literal["read", "count", "sum", "difference", "most", "least", "absent", "amount", "measure"]
CHOICES = 4


@dataclass(frozen=True, slots=True)
class Ask:
    """One question, and how its answer follows from the page.

    `evidence` by `rule`:
    read: the string that answers, then the strings it is found by (in its row or column, and named in the question);
    count: what is counted; sum, difference: the numbers; amount: the amount in figures or formal characters;
    most, least: the answer, its value, then all other values; measure: nothing, the answer is the value of `shape`;
    absent: nothing, the answer is the one choice that is not on the page.
    `form` makes the answer from what the rule yields: `{}天`.
    """

    question: str
    answer: str
    wrong: tuple[str, ...]
    evidence: tuple[Mark, ...] = ()
    rule: Rule = "read"
    form: str = "{}"
    shape: Shape | None = None

    def printed(self, choice: str) -> str:
        """What the page would show if this choice were right: the choice without its form."""
        before, after = self.form.split("{}")
        return choice.removeprefix(before).removesuffix(after)

    def choices(self, rng: random.Random) -> tuple[str, ...]:
        """The answer among the first three wrong choices, in an order of chance."""
        chosen = [self.answer, *self.wrong[: CHOICES - 1]]
        rng.shuffle(chosen)
        return tuple(chosen)


class Asks:
    """The questions that a page could be asked (`found`); those that lack three good wrong choices are left out."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.found: list[Ask] = []

    def add(
        self,
        question: str,
        answer: Mark | str,
        wrong: Iterable[str],
        by: Sequence[Mark] = (),
        rule: Rule = "read",
        form: str = "{}",
        shape: Shape | None = None,
    ) -> None:
        """One question. `answer` is the string that is read, or the answer itself for other rules; `wrong` may hold too many and
        repeat itself, the first three that differ from the answer are taken (already in the answer's form)."""
        said = form.format(answer.text) if isinstance(answer, Mark) else answer
        choices = tuple(dict.fromkeys(choice for choice in wrong if choice and choice != said))
        if len(choices) < CHOICES - 1:
            return
        evidence = (answer, *by) if isinstance(answer, Mark) else tuple(by)
        self.found.append(Ask(question, said, choices[: CHOICES - 1], evidence, rule, form, shape))

    def read(self, question: str, answer: Mark, others: Iterable[Mark | str], by: Sequence[Mark] = (), form: str = "{}") -> None:
        """What a string says; wrong are other strings of its kind from the page, in an order of chance."""
        texts = [other.text if isinstance(other, Mark) else other for other in others]
        self.rng.shuffle(texts)
        self.add(question, answer, (form.format(text) for text in texts), by, form=form)

    def figure(self, question: str, answer: Mark, others: Iterable[Mark] = (), by: Sequence[Mark] = (), form: str = "{}") -> None:
        """What a figure says; wrong are one or two others from the page, and figures that look much like it."""
        texts = [other.text for other in others if other.text != answer.text]
        self.rng.shuffle(texts)
        lookalikes = misread(answer.text, self.rng)
        wrong = (*texts[:1], *lookalikes[:2], *texts[1:], *lookalikes[2:])
        self.add(question, answer, (form.format(text) for text in wrong), by, form=form)

    def count(self, question: str, counted: Sequence[Mark], form: str = "{}") -> None:
        """How many there are; wrong are the numbers nearby."""
        n = len(counted)
        near = [form.format(other) for other in (n - 2, n - 1, n + 1, n + 2, n + 3) if other > 0]
        self.rng.shuffle(near)
        self.add(question, form.format(n), near, counted, "count", form)

    def extreme(self, question: str, labels: Sequence[Mark], values: Sequence[Mark], rule: Literal["most", "least"]) -> None:
        """Which label has the highest or lowest value; asked only when one alone has. Wrong are the other labels."""
        numbers = [value_of(mark.text) for mark in values]
        best = max(numbers) if rule == "most" else min(numbers)
        if len(labels) < CHOICES or numbers.count(best) != 1 or len({mark.text for mark in labels}) < len(labels):
            return
        at = numbers.index(best)
        others = [mark.text for i, mark in enumerate(labels) if i != at]
        self.rng.shuffle(others)
        evidence = [labels[at], values[at], *(mark for i, mark in enumerate(values) if i != at)]
        self.add(question, labels[at].text, others, evidence, rule)

    def total(self, question: str, parts: Sequence[Mark], write: Callable[[float], str]) -> None:
        """The sum of figures."""
        self._computed(question, sum(value_of(mark.text) for mark in parts), parts, write, "sum")

    def gap(self, question: str, a: Mark, b: Mark, write: Callable[[float], str]) -> None:
        """By how much two figures differ."""
        self._computed(question, abs(value_of(a.text) - value_of(b.text)), (a, b), write, "difference")

    def _computed(self, question: str, value: float, parts: Sequence[Mark], write: Callable[[float], str], rule: Rule) -> None:
        answer = write(value)
        if value <= 0:
            return
        step = 10.0 ** (len(str(int(value))) - 1)
        slips = [write(value + slip) for slip in (step, -step, step / 10, -step / 10, 2 * step) if value + slip > 0]
        wrong = [*misread(answer, self.rng)[:2], *slips]
        self.rng.shuffle(wrong)
        self.add(question, answer, wrong, parts, rule)

    def pick(self, n: int, *, reading: bool = False) -> list[Ask]:
        """`n` of them by chance, as different in rule as can be, or as many of reading as there are; no two with one question."""
        unlike: dict[str, list[Ask]] = {}
        for ask in {ask.question: ask for ask in self.rng.sample(self.found, len(self.found))}.values():
            unlike.setdefault(ask.rule, []).append(ask)
        chosen: list[Ask] = unlike.pop("read", [])[:n] if reading else []
        while len(chosen) < n and any(unlike.values()):
            turns = [*unlike, "read"]  # reading is what most pages are for: it has two turns in each round
            self.rng.shuffle(turns)
            for rule in turns:
                if unlike.get(rule) and len(chosen) < n:
                    chosen.append(unlike[rule].pop())
        return chosen


# ------------------------------------------------------------------------------------------- near misses

_DIGITS = {"0": "869", "1": "74", "2": "73", "3": "85", "4": "19", "5": "36", "6": "859", "7": "12", "8": "369", "9": "48"}
"""Digits that are taken for one another."""
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

    The length stays, a leading digit does not become zero, and a time stays one of the clock.
    """
    places = [i for i, character in enumerate(figure) if character.isdigit() and character.isascii()]
    slips = [figure[:i] + other + figure[i + 1 :] for i in places for other in _DIGITS[figure[i]]]
    slips += [
        figure[:i] + figure[j] + figure[i + 1 : j] + figure[i] + figure[j + 1 :]
        for i, j in itertools.pairwise(places)
        if figure[i] != figure[j]
    ]
    slips = [slip for slip in dict.fromkeys(slips) if _sound(slip, figure)]
    rng.shuffle(slips)
    return slips


def near_dates(day: datetime.date, rng: random.Random) -> list[datetime.date]:
    """Days that are taken for another: a digit or a figure off."""
    swapped = int(str(day.day)[::-1])
    changes = [{"day": other} for other in (swapped, day.day % 10, day.day + 10, day.day - 10, day.day + 1, day.day - 3) if 0 < other <= 28]
    changes += [{"month": other} for other in (day.month - 1, day.month + 1, (day.month + 5) % 12) if 0 < other <= 12]
    changes += [{"year": day.year - 1}, {"year": day.year + 1}]
    # The 28th is in every month: no change makes a day that does not exist.
    near = [day.replace(day=min(day.day, 28)).replace(**change) for change in changes]
    near = [other for other in dict.fromkeys(near) if other != day]
    rng.shuffle(near)
    return near


def _sound(slip: str, figure: str) -> bool:
    first = next((i for i, character in enumerate(slip) if character.isdigit()), None)
    if first is not None and slip[first] == "0" and figure[first] != "0":
        return False
    hours, colon, minutes = slip.partition(":")
    return not colon or (hours[-2:].isdigit() and int(hours[-2:]) < 24 and int(minutes[:2]) < 60)


def lookalike(text: str, rng: random.Random) -> list[str]:
    """Texts in which one Chinese character is another that looks like it."""
    swaps = [text[:i] + other + text[i + 1 :] for i, character in enumerate(text) for other in _LIKE.get(character, "")]
    rng.shuffle(swaps)
    return swaps


def value_of(text: str) -> float:
    """The number in a string such as ¥1,280.50, 38元 or 12 km; a time counts in minutes. Raises `ValueError` without one."""
    digits = "".join(character for character in text if character in "0123456789.:-").strip(".-")
    if ":" in digits:
        hours, minutes = digits.split(":")
        afternoon = 12 * 60 if "PM" in text and int(hours) < 12 else -12 * 60 if "AM" in text and int(hours) == 12 else 0
        return int(hours) * 60 + int(minutes) + afternoon
    return -float(digits) if text.startswith("-") else float(digits)


@dataclass(frozen=True, slots=True)
class Style:
    """What kind of page is wanted: `plain`, or one of those that are hard to read."""

    name: str = "plain"

    @property
    def hand(self) -> bool:
        return self.name == "handwritten"

    @property
    def hant(self) -> bool:
        return self.name == "traditional"


@dataclass(slots=True)
class Draft:
    """A page before anything happened to it: what is drawn, and what could be asked."""

    canvas: Canvas
    asks: Asks
