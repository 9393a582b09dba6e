"""Signs with a name on the left and what belongs to it on the right, drawn alike in both languages."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tonggan.data.sources.pages.asking import Asks, Draft
from tonggan.data.sources.pages.canvas import WHITE, Canvas, Color, Mark, Type
from tonggan.data.sources.pages.pools import words


@dataclass(frozen=True, slots=True)
class Board:
    """One kind of sign, and how it is asked about (`{}` in `right`: the left side of a row, in `left`: the right side)."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """For each name what may stand beside it (one of them is drawn)."""
    ground: Color
    right: str
    left: str
    ink: Color = WHITE
    accent: Color = (255, 214, 64)


@dataclass(frozen=True, slots=True)
class Roads:
    """A road sign: the next places, each with its distance; `gap` asks how far two (`{}`) are apart.

    `roads` has by title the places in the order of the road, each with its kilometre (about), or None: any of `towns`, all made up.
    """

    roads: Mapping[str, str | None]
    distance: str
    right: str
    left: str
    gap: str
    apart: str
    towns: tuple[str, ...] = ()


GREEN: Color = (0, 108, 68)


def draw(rng: random.Random, board: Board | Roads, face: str, missing: str) -> Draft:
    """The sign; `missing` asks which choice is not on it."""
    if isinstance(board, Roads):
        title = rng.choice(list(board.roads))
        rows = [(place, board.distance.format(far)) for place, far in _ahead(rng, board.roads[title], board.towns)]
        ground, ink, accent = GREEN, WHITE, WHITE
    else:
        title = rng.choice(board.titles)
        rows = [(name, rng.choice(beside)) for name, *beside in board.rows]
        ground, ink, accent = board.ground, board.ink, board.accent
    canvas, asks = Canvas(800, 900, (230, 234, 238)), Asks(rng)
    height = 130 + 80 * len(rows)
    canvas.rect((20, 20, 780, height + 20), fill=ground, radius=26)
    canvas.rect((30, 30, 770, height + 10), outline=ink, width=4, radius=20)
    canvas.text(400, 50, title, Type(face, 44, ink), "ma", within=680)
    canvas.rule(122, 60, 740, ink, 2)
    left, right = [], []
    for i, (name, beside) in enumerate(rows):
        middle = 168 + 80 * i
        left.append(canvas.text(70, middle, name, Type(face, 39, accent, bold=True), "lm"))
        right.append(canvas.text(730, middle, beside, Type(face, 37, ink), "rm", within=700 - left[-1].right))
    canvas.cut(height + 40)
    _ask(asks, board, left, right, missing)
    return Draft(canvas, asks)


def _ahead(rng: random.Random, road: str | None, towns: Sequence[str]) -> list[tuple[str, int]]:
    """The next five or six places of a road and how far they are, the nearest first."""
    n = rng.randint(5, 6)
    if road is None:
        return list(zip(rng.sample(towns, n), sorted(rng.sample(range(2, 98), n)), strict=True))
    stops = [(re.sub("[0-9]", "", stop), int(re.sub("[^0-9]", "", stop)) + rng.randint(-2, 2)) for stop in words(road)]
    first = rng.randint(0, len(stops) - n)
    here = stops[first][1] - rng.randint(2, 15)
    return [(place, at - here) for place, at in stops[first : first + n]]


def _ask(asks: Asks, board: Board | Roads, left: list[Mark], right: list[Mark], missing: str) -> None:
    texts = [mark.text for mark in right]
    for name, beside in asks.rng.sample(list(zip(left, right, strict=True)), len(left)):
        asks.read(board.right.format(name.text), beside, [other for other in right if other is not beside], [name])
        if texts.count(beside.text) == 1 and "{}" in board.left and beside.text not in CLOSED:
            asks.read(board.left.format(beside.text), name, [other for other in left if other is not name], [beside])
    if isinstance(board, Roads):
        for (a, near), (b, far) in itertools.pairwise(zip(left, right, strict=True)):
            asks.gap(board.gap.format(a.text, b.text), far, near, lambda value: board.apart.format(f"{value:.0f}"))
        return
    gone = [text for _, *beside in board.rows for text in beside if text not in texts]
    asks.add(missing, asks.rng.choice(gone), asks.rng.sample(list(dict.fromkeys(texts)), 3), rule="absent")


CLOSED = ("闭馆", "休息", "休診", "Closed")
"""What stands for no hours at all: nothing to be asked with."""
