"""Splits without leaks: rows that mean or look the same stay on one side, and every side gets its share of every language."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tonggan.data.rows import Dataset
from tonggan.data.similar import Pictures, components, near_duplicates, scan
from tonggan.types import Row, UsageError

Tie = Literal["group", "picture", "artist", "caption"]
"""What ties rows together: an equal `group`; nearly equal pictures; an equal `meta["artist"]`; an equal first caption."""

SPARE = "spare"
"""The split of rows that are for no side: neither for training nor for measuring, whatever they have in common with others."""
FRACTIONS: Mapping[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}
DEFAULT_TIES: tuple[Tie, ...] = ("group", "picture", "artist")
_TOO_MUCH = 0.6
"""An artist whose works are more than this part of all rows cannot be held apart; the others' works can still be split."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Rows of different splits that should be in one."""

    tie: Tie
    what: str
    rows: tuple[int, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A split name for each row, what was kept together, how many independent parts there were, and what could not be kept."""

    names: tuple[str, ...]
    by: tuple[Tie, ...]
    parts: int
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each split."""
        return dict(Counter(self.names))


def caption_key(text: str) -> str:
    """A caption without case, space and punctuation."""
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def leaks(dataset: Dataset, *, pictures: Pictures | None = None, by: Sequence[Tie] = DEFAULT_TIES) -> list[Leak]:
    """What stands on both sides of the given splits. Rows without a split, and spare ones, are on no side.

    Pictures are decoded unless their facts are given (`similar.scan`). A class (`meta["class"]`) is meant to be on both sides.
    """
    splits = [name if name != SPARE else None for name in dataset.column("split")]
    if len({name for name in splits if name}) < 2:
        return []
    rows = dataset.light()
    found: list[Leak] = []
    for tie in by:
        for what, numbers in _sets(tie, dataset, rows, pictures):
            sides = {n: name for n in numbers if (name := splits[n])}
            if len(set(sides.values())) > 1:
                found.append(Leak(tie, what, tuple(sides), tuple(sorted(set(sides.values())))))
    return found


def propose_split(
    dataset: Dataset,
    fractions: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
    by: Sequence[Tie] | None = None,
    pictures: Pictures | None = None,
) -> Proposal:
    """A split in which nothing of `by` crosses, near the wanted fractions in rows and in captions of each language.

    Everything tied together, through any chain, is one part; parts are dealt out, the largest first, each to the split that it
    brings nearest to its share. The same data and seed give the same split. Without `by`, artists are let go when most rows
    are one artist's (it is noted). Raises `UsageError` when everything is one part.
    """
    wanted = _normalised(fractions or FRACTIONS)
    ties = tuple(by) if by is not None else DEFAULT_TIES
    rows = dataset.light()
    notes: list[str] = []
    part = _parts(ties, dataset, rows, pictures)
    if by is None and "artist" in ties and rows and max(Counter(part).values()) > _TOO_MUCH * len(rows):
        ties = tuple(tie for tie in ties if tie != "artist")
        freed = _parts(ties, dataset, rows, pictures)
        if len(set(freed)) > len(set(part)):
            notes.append("most rows are one artist's: artists stand on both sides")
        part = freed
    number = len(set(part))
    if number < 2 <= len(rows):
        raise UsageError(f"{len(rows)} rows, but all hang together by {', '.join(ties)}: there is nothing to split")
    names = _deal(rows, part, wanted, seed)
    notes += [f"too few independent parts ({number}) for a {name} split" for name in wanted if name not in names]
    return Proposal(tuple(names), ties, number, tuple(notes))


# ------------------------------------------------------------------------------------------------ ties


def _sets(tie: Tie, dataset: Dataset, rows: Sequence[Row], pictures: Pictures | None) -> Iterator[tuple[str, list[int]]]:
    """Sets of rows that one kind of tie holds together, each with its name."""
    if tie == "picture":
        yield from _alike(dataset, rows, pictures)
        return
    sets: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        if key := _key(tie, row):
            sets[key].append(number)
    yield from ((key, numbers) for key, numbers in sets.items() if len(numbers) > 1)


def _key(tie: Tie, row: Row) -> str | None:
    if tie == "group":
        return row.group if row.group != row.meta.get("class") else None
    if tie == "artist":
        return row.meta.get("artist")
    return caption_key(row.texts[0].text) if row.texts else None


def _alike(dataset: Dataset, rows: Sequence[Row], pictures: Pictures | None) -> Iterator[tuple[str, list[int]]]:
    pictures = pictures if pictures is not None else scan(dataset)
    pairs = [(int(pictures.rows[a]), int(pictures.rows[b])) for a, b in near_duplicates(pictures)]
    sets: dict[int, list[int]] = defaultdict(list)
    for number, root in enumerate(components(len(rows), pairs)):
        sets[root].append(number)
    yield from ((rows[root].id, numbers) for root, numbers in sets.items() if len(numbers) > 1)


def _parts(ties: Iterable[Tie], dataset: Dataset, rows: Sequence[Row], pictures: Pictures | None) -> list[int]:
    sets = (numbers for tie in ties for _, numbers in _sets(tie, dataset, rows, pictures))
    return components(len(rows), ((numbers[0], other) for numbers in sets for other in numbers[1:]))


# --------------------------------------------------------------------------------------------- dealing


def _normalised(fractions: Mapping[str, float]) -> dict[str, float]:
    if not fractions or any(share <= 0 for share in fractions.values()):
        raise UsageError(f"split fractions must be above 0, got {dict(fractions)}")
    total = sum(fractions.values())
    return {name: share / total for name, share in fractions.items()}


def _deal(rows: Sequence[Row], part: Sequence[int], wanted: Mapping[str, float], seed: int) -> list[str]:
    """Parts to splits. What is balanced: rows, and captions per language (and pictures per class, where there are classes)."""
    load: dict[int, Counter[str]] = defaultdict(Counter)
    for number, row in zip(part, rows, strict=True):
        load[number].update(["rows"])
        load[number].update({f"lang {text.lang}" for text in row.texts})
        if "class" in row.meta:
            load[number].update([f"class {row.meta['class']}"])
    total: Counter[str] = sum(load.values(), Counter())
    order = sorted(load)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda number: -load[number]["rows"])
    have: dict[str, Counter[str]] = {name: Counter() for name in wanted}
    side: dict[int, str] = {}
    for number in order:
        name = min(wanted, key=lambda name: _cost(load[number], have[name], wanted[name], total))
        side[number] = name
        have[name] += load[number]
    return [side[number] for number in part]


def _cost(load: Counter[str], have: Counter[str], share: float, total: Counter[str]) -> float:
    """By how much the squared distance from a split's fair share grows when it takes this load."""
    return sum(amount * (2 * (have[what] - share * total[what]) + amount) / total[what] ** 2 for what, amount in load.items())
