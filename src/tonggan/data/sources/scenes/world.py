"""The world of coloured shapes: what there is, and how a scene is drawn from a seed.

Coordinates are fractions of the picture's side: x to the right, y down, (0.5, 0.5) the middle. Shapes stand upright on a
white ground and never touch, so that a picture says all there is to know. `motion` and `events` let them move, `sound` lets them sound.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

Size = Literal["small", "large"]

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (247, 140, 20),
    "yellow": (250, 213, 30),
    "green": (46, 150, 62),
    "blue": (36, 92, 214),
    "purple": (130, 50, 160),
    "pink": (248, 150, 190),
    "brown": (125, 78, 40),
    "gray": (138, 138, 138),
    "black": (24, 24, 24),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "diamond", "star", "heart", "cross", "ring", "moon")
RADII: dict[Size, tuple[float, float]] = {"small": (0.075, 0.095), "large": (0.14, 0.175)}
"""Range of the radius of a shape's circumscribed circle, as a fraction of the picture's side."""

HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {("red", "star"), ("blue", "heart"), ("green", "circle"), ("yellow", "square"), ("purple", "triangle"), ("orange", "ring"),
     ("pink", "diamond"), ("brown", "cross"), ("black", "moon")}
)  # fmt: skip
"""Combinations never seen in training: every colour and every shape is, but not these together. One per shape."""

Kind = Literal["one", "count", "relation", "several"]
KINDS: tuple[Kind, ...] = ("one", "count", "relation", "several")
_GAP = 0.045
_MARGIN = 0.02


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape: `x`, `y` its centre, `r` its circumscribed radius."""

    shape: str
    color: str
    size: Size
    x: float
    y: float
    r: float

    @property
    def look(self) -> tuple[Size, str, str]:
        """Everything but where it is."""
        return self.size, self.color, self.shape


@dataclass(frozen=True, slots=True)
class Scene:
    """The things of one picture, and what its caption is about."""

    things: tuple[Thing, ...]
    kind: Kind

    @property
    def held_out(self) -> bool:
        """Whether it shows a combination kept out of training."""
        return any((thing.color, thing.shape) in HELD_OUT for thing in self.things)

    def to_json(self) -> str:
        """As kept in `Row.meta["scene"]`; `from_json` gives an equal scene."""
        return json.dumps({"kind": self.kind, "things": [asdict(thing) for thing in self.things]})

    @classmethod
    def from_json(cls, text: str) -> Scene:
        data = json.loads(text)
        return cls(tuple(Thing(**thing) for thing in data["things"]), data["kind"])


def random_scene(rng: np.random.Generator, kinds: Sequence[Kind] = KINDS) -> Scene:
    """A scene of any of these kinds. One: a thing and its place. Count: 2-5 alike. Relation: two unlike things, beside or above each other.

    Several: 2-4 looks, 3-5 things in all.
    """
    kind = kinds[int(rng.integers(len(kinds)))]
    if kind == "one":
        return Scene((one_place(rng),), kind)
    if kind == "relation":
        return Scene(_two_related(rng), kind)
    counts = [int(rng.integers(2, 6))] if kind == "count" else _split_count(rng)
    looks = _different_looks(rng, len(counts))
    # Large things first: small ones still find room between them.
    wanted = sorted((look for look, n in zip(looks, counts, strict=True) for _ in range(n)), key=lambda look: look[0])
    while (things := _scatter(rng, wanted)) is None:
        pass
    return Scene(things, kind)


def place_name(thing: Thing) -> tuple[int, int]:
    """Column and row (-1, 0, 1) of the nine fields of the picture in which the thing stands."""
    return _third(thing.x), _third(thing.y)


def _third(value: float) -> int:
    return -1 if value < 1 / 3 else 1 if value > 2 / 3 else 0


def one_place(rng: np.random.Generator) -> Thing:
    """One thing in the middle of one of the nine fields, a little off: never so near a border that two names would fit."""
    (size, color, shape), r = _look(rng), 0.0
    r = _radius(rng, size)
    x, y = (_clamp((field + 0.5) / 3 + rng.uniform(-0.04, 0.04), r) for field in rng.integers(0, 3, 2))
    return Thing(shape, color, size, x, y, r)


def random_thing(rng: np.random.Generator, room: tuple[float, float]) -> Thing:
    """Any thing anywhere, with so much `room` to the left and right, and above and below, to move in."""
    size, color, shape = _look(rng)
    r = _radius(rng, size)
    x, y = (round(float(rng.uniform(r + _MARGIN + free, 1 - r - _MARGIN - free)), 4) for free in room)
    return Thing(shape, color, size, x, y, r)


def _two_related(rng: np.random.Generator) -> tuple[Thing, ...]:
    """Two things that differ in shape or colour, one clearly beside or above the other and nearly in line with it."""
    (size_a, color_a, shape_a), (size_b, color_b, shape_b) = _different_looks(rng, 2)
    r_a, r_b = _radius(rng, size_a), _radius(rng, size_b)
    apart = max(r_a + r_b + _GAP, rng.uniform(0.35, 0.5))
    middle, drift = rng.uniform(-0.08, 0.08), rng.uniform(-0.05, 0.05)
    along = (_clamp(0.5 + middle - apart / 2, r_a), _clamp(0.5 + middle + apart / 2, r_b))
    across = (_clamp(0.5 + drift + rng.uniform(-0.1, 0.1), r_a), _clamp(0.5 + drift + rng.uniform(-0.1, 0.1), r_b))
    if rng.integers(2):
        along, across = across, along
    first = Thing(shape_a, color_a, size_a, along[0], across[0], r_a)
    second = Thing(shape_b, color_b, size_b, along[1], across[1], r_b)
    return (second, first) if rng.integers(2) else (first, second)


def _scatter(rng: np.random.Generator, looks: list[tuple[Size, str, str]]) -> tuple[Thing, ...] | None:
    """Things anywhere without touching; None when they found no room."""
    things: list[Thing] = []
    for size, color, shape in looks:
        r = _radius(rng, size)
        for _ in range(60):
            x, y = (float(v) for v in rng.uniform(r + _MARGIN, 1 - r - _MARGIN, 2))
            if all(math.hypot(x - o.x, y - o.y) > r + o.r + _GAP for o in things):
                things.append(Thing(shape, color, size, round(x, 4), round(y, 4), r))
                break
        else:
            return None
    return tuple(things)


def _different_looks(rng: np.random.Generator, n: int) -> list[tuple[Size, str, str]]:
    """Looks that differ pairwise in shape or colour, not in size alone: `small` and `large` are easily mistaken."""
    looks: list[tuple[Size, str, str]] = []
    while len(looks) < n:
        look = _look(rng)
        if all(look[1:] != other[1:] for other in looks):
            looks.append(look)
    return looks


def _look(rng: np.random.Generator) -> tuple[Size, str, str]:
    size: Size = "large" if rng.integers(2) else "small"
    return size, list(COLORS)[rng.integers(len(COLORS))], SHAPES[rng.integers(len(SHAPES))]


def _split_count(rng: np.random.Generator) -> list[int]:
    """How many of each look: 3-5 things of 2-4 looks."""
    looks = int(rng.integers(2, 5))
    total = int(rng.integers(max(looks, 3), 6))
    cuts = np.sort(rng.choice(np.arange(1, total), looks - 1, replace=False))
    return [int(n) for n in np.diff([0, *cuts, total])]


def _radius(rng: np.random.Generator, size: Size) -> float:
    return round(float(rng.uniform(*RADII[size])), 4)


def _clamp(value: float, r: float) -> float:
    """Inside the picture with the whole circle."""
    return round(float(min(max(value, r + _MARGIN), 1 - r - _MARGIN)), 4)
