"""The same predictions under several protocols: each one's score, and which replies make the difference, by the rules that fired.

A question counts with all of its turns: where its choices were rotated, it is right when every rotation is (the circular score); the
vanilla score takes the first rotation alone. What a program leaves open is shown as a range: a random option has its expected value
between wrong and right, a judge's verdict and what we leave unread count as wrong, and as right at the upper end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import prod
from string import ascii_uppercase
from typing import Any

import numpy as np

from tonggan.config import one_of
from tonggan.evaluate.predictions import Choice, Free, Item, Predictions
from tonggan.evaluate.protocols import CHOICES, FREE, NAMES, Read
from tonggan.evaluate.resample import Estimate, Measure, intervals, mean
from tonggan.types import UsageError


@dataclass(frozen=True, slots=True)
class Marked:
    """One question under one protocol: how each of its replies was read, and the score with its lowest and highest possible value."""

    reads: tuple[Read, ...]
    score: float
    lowest: float
    highest: float
    vanilla: float
    """The score of the first reply alone."""


@dataclass(frozen=True, slots=True)
class Score:
    """A protocol's score over all questions, what its open replies could make of it, and how often each rule fired."""

    protocol: str
    id: str
    estimate: Estimate
    lowest: float
    highest: float
    vanilla: Estimate
    rules: dict[str, int]
    left: dict[str, int]
    """Replies that were left open, by what becomes of them there: `random`, `judge`, `unread`."""


@dataclass(frozen=True, slots=True)
class Group:
    """Questions on which two protocols differ in the same way: the rule that fired in each, the ids, and `one` minus `other` in points of
    the score. The points of all groups of a pair add up to the difference of their scores."""

    rule: str
    other_rule: str
    ids: tuple[str, ...]
    points: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Two protocols: `one` minus `other` (paired, with its interval), and the groups of questions on which they differ, largest first."""

    one: str
    other: str
    difference: Estimate
    groups: tuple[Group, ...]

    @property
    def count(self) -> int:
        """Questions on which they differ."""
        return sum(len(group.ids) for group in self.groups)


@dataclass(frozen=True)
class Scored:
    """Everything that came out; `marked` holds each protocol's reading of every question, in the order of `predictions.items`."""

    predictions: Predictions
    marked: dict[str, list[Marked]]
    scores: list[Score]
    pairs: list[Pair]


def score(predictions: Predictions, names: Sequence[str] = ()) -> Scored:
    """Score predictions under protocols (all that apply, if none is named), and explain where they differ.

    Raises `UsageError` for a protocol that is not known, or that does not read this kind of answer.
    """
    known = CHOICES if isinstance(predictions.items[0], Choice) else FREE
    for name in names:
        if one_of(name, NAMES, "protocol") not in known:
            kind = "questions with choices" if known is CHOICES else "free answers"
            raise UsageError(f"protocol {name!r} does not read {kind}; for these there are: {', '.join(known)}")
    used = [name for name in known if not names or name in names]
    marked = {name: [mark(item, name) for item in predictions.items] for name in used}
    couples = list(combinations(used, 2))
    values = {name: np.array([one.score for one in marked[name]]) for name in used}
    vanilla = {name: np.array([one.vanilla for one in marked[name]]) for name in used}
    # All on the same resamples, which are drawn once.
    measures = [Measure(mean, column[name]) for column in (values, vanilla) for name in used]
    measures += [Measure(mean, values[one] - values[other]) for one, other in couples]
    found = iter(intervals(measures, [item.cluster for item in predictions.items]))
    estimates = [{name: next(found) for name in used} for _ in (values, vanilla)]
    return Scored(
        predictions,
        marked,
        [_score(name, known[name].id, marked[name], *(column[name] for column in estimates)) for name in used],
        [Pair(one, other, next(found), _groups(marked[one], marked[other], predictions.items)) for one, other in couples],
    )


def mark(item: Item, name: str) -> Marked:
    """One question under one protocol."""
    if isinstance(item, Free):
        value, read = FREE[name].read(item.reply, item.answers)
        return Marked((read,), value, value, value, value)
    reads = tuple(
        # Ours alone looks at how asking ended; the other programs see a text like any other.
        Read("unanswered", left="unread") if name == "ours" and not turn.answered else CHOICES[name].read(turn.reply, turn.options)
        for turn in item.turns
    )
    turns = [read.marks(turn.right, len(turn.options)) for read, turn in zip(reads, item.turns, strict=True)]
    value, lowest, highest = (prod(column) for column in zip(*turns, strict=True))
    return Marked(reads, value, lowest, highest, turns[0][0])


def _score(name: str, protocol: str, marked: Sequence[Marked], estimate: Estimate, vanilla: Estimate) -> Score:
    reads = [read for one in marked for read in one.reads]
    return Score(
        name,
        protocol,
        estimate,
        float(np.mean([one.lowest for one in marked])),
        float(np.mean([one.highest for one in marked])),
        vanilla,
        dict(Counter(read.rule for read in reads).most_common()),
        dict(Counter(read.left for read in reads if read.left)),
    )


def _groups(mine: Sequence[Marked], theirs: Sequence[Marked], items: Sequence[Item]) -> tuple[Group, ...]:
    """Questions on which two protocols differ, those with the same two rules and the same winner together; largest first."""
    groups: dict[tuple[str, str, float], list[int]] = {}
    gaps = [a.score - b.score for a, b in zip(mine, theirs, strict=True)]
    for place, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        turn = differ(a, b)
        if turn is not None:
            # Who gains belongs to the group: the same two rules may fire for the right option and for a wrong one.
            groups.setdefault((a.reads[turn].rule, b.reads[turn].rule, float(np.sign(gaps[place]))), []).append(place)
    made = [
        Group(rule, other_rule, tuple(items[place].id for place in places), sum(gaps[place] for place in places) / len(items))
        for (rule, other_rule, _), places in groups.items()
    ]
    return tuple(sorted(made, key=lambda group: (-abs(group.points), -len(group.ids), group.rule, group.other_rule)))


def differ(one: Marked, other: Marked) -> int | None:
    """The first reply that two protocols read differently: another option, or drawn in one only; of free answers: another score."""
    for turn, (a, b) in enumerate(zip(one.reads, other.reads, strict=True)):
        if a.choice != b.choice or (a.left == "random") != (b.left == "random"):
            return turn
    return 0 if one.score != other.score else None


# ------------------------------------------------------------------------------------------- plain forms


def plain(scored: Scored) -> dict[str, Any]:
    """The numbers as plain data; `records` has the questions."""
    found = scored.predictions
    return {
        "file": found.path.name,
        "form": found.form,
        "items": len(found.items),
        "circular": found.circular,
        "scores": [asdict(one) for one in scored.scores],
        "pairs": [asdict(pair) | {"count": pair.count} for pair in scored.pairs],
        "dropped": [asdict(one) for one in found.dropped],
        "notes": list(found.notes),
    }


def records(scored: Scored) -> list[dict[str, Any]]:
    """Every question with its replies, and what each protocol made of them."""
    return [_record(item, {name: marked[i] for name, marked in scored.marked.items()}) for i, item in enumerate(scored.predictions.items)]


def _record(item: Item, marked: dict[str, Marked]) -> dict[str, Any]:
    asked: dict[str, Any]
    if isinstance(item, Free):
        asked = {"said": [item.reply], "answers": list(item.answers)}
    else:
        asked = {
            "said": [turn.reply for turn in item.turns],
            "shown": [list(turn.options) for turn in item.turns],
            "right": [ascii_uppercase[turn.right] for turn in item.turns],
        }
    told = {
        name: {
            "score": one.score,
            "lowest": one.lowest,
            "highest": one.highest,
            "read": [None if read.choice is None else ascii_uppercase[read.choice] for read in one.reads],
            "rule": [read.rule for read in one.reads],
            "seen": [read.seen for read in one.reads],
        }
        for name, one in marked.items()
    }
    return {"id": item.id, "cluster": item.cluster, "question": item.question, **asked, "protocols": told}
