"""Questions about a page: an answer that follows from strings on it, and wrong choices that are easy to take for the answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tonggan.data.sources.pages.canvas import Canvas, Mark, Shape
from tonggan.data.sources.pages.near import CHOICES, Slips, around, consecutive, figures_around, lookalike, off_by

Rule = Literal["read", "count", "sum", "difference", "most", "least", "absent", "amount", "measure"]


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

    def figure(
        self,
        question: str,
        answer: Mark,
        others: Iterable[Mark] = (),
        by: Sequence[Mark] = (),
        form: str = "{}",
        slips: Slips | None = None,
    ) -> None:
        """What a figure says; wrong are figures that look much like it (`misread`, or other `slips`), or like another of the page."""
        wrong = figures_around(answer.text, [other.text for other in others], self.rng, slips)
        self.add(question, answer, (form.format(text) for text in wrong), by, form=form)

    def alike(self, question: str, answer: Mark, others: Iterable[Mark | str], by: Sequence[Mark] = ()) -> None:
        """What a string of Chinese says; wrong are others of its kind, and strings in which one character looks like the right one."""
        texts = [other.text if isinstance(other, Mark) else other for other in others]
        self.rng.shuffle(texts)
        self.add(question, answer, around(answer.text, texts, lookalike, self.rng) or texts, by)

    def count(self, question: str, counted: Sequence[Mark], form: str = "{}") -> None:
        """How many there are; wrong are the numbers nearby."""
        n = len(counted)
        self.add(question, form.format(n), map(form.format, consecutive(n, self.rng)), counted, "count", form)

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

    def total(self, question: str, parts: Sequence[Mark], write: Callable[[float], str], slips: Slips | None = None) -> None:
        """The sum of figures; `slips` as in `figure`."""
        self._computed(question, sum(value_of(mark.text) for mark in parts), parts, write, "sum", slips)

    def gap(self, question: str, a: Mark, b: Mark, write: Callable[[float], str]) -> None:
        """By how much two figures differ."""
        self._computed(question, abs(value_of(a.text) - value_of(b.text)), (a, b), write, "difference")

    def _computed(
        self,
        question: str,
        value: float,
        parts: Sequence[Mark],
        write: Callable[[float], str],
        rule: Rule,
        slips: Slips | None = None,
    ) -> None:
        answer = write(value)
        if value <= 0:
            return
        if value == int(value) and slips is None:
            wrong = [write(value + step) for step in off_by(int(value), self.rng)]
        else:
            wrong = figures_around(answer, [], self.rng, slips)
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
