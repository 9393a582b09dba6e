"""Clips in which things meet, or one thing happens after another: a bounce, a collision, two events in order.

Every film is the places of its things, frame by frame, and the events that a viewer sees, in order of time.

Shape letters: T frames, H W pixels, A places across the way.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float, UInt8

from tonggan.data.sources.scenes.draw import INSIDE, draw
from tonggan.data.sources.scenes.motion import FRAMES, HELD_OUT_WAYS, STEPS, Direction, MovingScene, Speed
from tonggan.data.sources.scenes.words import EN_PLACES, ZH_PLACES, Said, chinese_look, english_look
from tonggan.data.sources.scenes.world import HELD_OUT, Scene, Thing, one_place, place_name, random_thing

FilmAct: TypeAlias = Literal["bounce", "push", "rebound", "in order", "one event"]
Deed: TypeAlias = Literal["move", "appear", "vanish", "bounce", "hit"]
Spot: TypeAlias = tuple[float, float] | None
"""Where a thing is in a frame; None: not there."""

FILM_ACTS: tuple[FilmAct, ...] = ("bounce", "push", "rebound", "in order")
_DEEDS: tuple[Deed, ...] = ("move", "appear", "vanish")
_GAP = 0.03
_MARGIN = 0.02
_SETTLED = FRAMES // 2
"""The frame in which things touch; of two events in order the first is over by then, and the second has not begun."""
_ACROSS = np.linspace(-1, 1, 201)
_SPEED = {"slow": Said("slowly ", "缓慢"), "fast": Said("quickly ", "快速")}
_WAY = {"left": Said("to the left", "向左"), "right": Said("to the right", "向右"), "up": Said("up", "向上"), "down": Said("down", "向下")}


@dataclass(frozen=True, slots=True)
class Event:
    """What one thing does, `who` and `onto` by their numbers. `speed` only where it is plainly slow or fast."""

    deed: Deed
    who: int
    direction: Direction | None = None
    onto: int | None = None
    speed: Speed | None = None
    start: int = 0
    """The first frame in which something of it can be seen."""


@dataclass(frozen=True, slots=True)
class Film:
    """What happens in a clip: its things, where each is in every frame, and the events in order of time."""

    act: FilmAct
    things: tuple[Thing, ...]
    paths: tuple[tuple[Spot, ...], ...]
    events: tuple[Event, ...]

    @property
    def held_out(self) -> bool:
        """Whether it shows a combination kept out of training: of colour and shape, or of shape and direction (also on the way back)."""
        looks = any((thing.color, thing.shape) in HELD_OUT for thing in self.things)
        return looks or any(
            (thing.shape, way) in HELD_OUT_WAYS for thing, path in zip(self.things, self.paths, strict=True) for way in _ways(path)
        )

    def frame(self, number: int) -> Scene:
        """What is to be seen in a frame, 0 to `FRAMES` - 1; perhaps nothing."""
        spots = zip(self.things, (path[number] for path in self.paths), strict=True)
        return Scene(tuple(_at(thing, spot) for thing, spot in spots if spot is not None), "several")

    def to_json(self) -> str:
        """As kept in `Row.meta["scene"]`; `from_json` gives an equal film."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Film:
        data = json.loads(text)
        paths = tuple(tuple(None if spot is None else (spot[0], spot[1]) for spot in path) for path in data["paths"])
        return cls(data["act"], tuple(Thing(**one) for one in data["things"]), paths, tuple(Event(**one) for one in data["events"]))


def random_film(rng: np.random.Generator) -> Film:
    """A film of any act of `FILM_ACTS`, equally often."""
    act = FILM_ACTS[rng.integers(len(FILM_ACTS))]
    make = {"bounce": _bounce, "push": _collision, "rebound": _collision, "in order": _in_order}[act]
    while (film := make(rng, act)) is None:
        pass
    return film


def film_of(scene: MovingScene) -> Film:
    """A scene of `motion` as a film of one event."""
    frames = [scene.frame(number).things for number in range(FRAMES)]
    moving = [next(((one.x, one.y) for one in frame if one.look == scene.thing.look), None) for frame in frames]
    things, paths = [scene.thing], [tuple(moving)]
    if scene.still is not None:
        things.append(scene.still)
        paths.append(((scene.still.x, scene.still.y),) * FRAMES)
    deed: Deed = scene.act if scene.act in ("appear", "vanish") else "move"
    return Film("one event", tuple(things), tuple(paths), (Event(deed, 0, scene.direction, speed=scene.speed, start=scene.turn),))


def caption(film: Film) -> Said:
    """For example `a small red star moves to the right and bounces off a large blue circle`."""
    first, *others = film.events
    who = film.things[first.who].look
    en, zh = english_look(who), chinese_look(who)
    if film.act == "in order":
        told = [_told(film, event) for event in film.events]
        return Said(f"first {told[0].en}, then {told[1].en}", f"先是{told[0].zh}，然后{told[1].zh}")
    if film.act == "one event":
        told_first, stills = _told(film, first), [english_look(thing.look) for thing in film.things[1:]]
        stands = [chinese_look(thing.look) for thing in film.things[1:]]
        return Said(
            " while ".join([told_first.en, *(f"{still} stands still" for still in stills)]),
            "，".join([told_first.zh, *(f"{still}静止不动" for still in stands)]),
        )
    assert first.direction is not None
    way = _WAY[first.direction]
    if film.act == "bounce":
        return Said(f"{en} moves {way.en}, bounces off the edge and moves back", f"{zh}{way.zh}移动，碰到边缘后弹了回来")
    hit = film.things[others[0].onto or 0].look
    if film.act == "push":
        return Said(f"{en} moves {way.en} and knocks {english_look(hit)} away", f"{zh}{way.zh}移动，把{chinese_look(hit)}撞开了")
    return Said(f"{en} moves {way.en} and bounces off {english_look(hit)}", f"{zh}{way.zh}移动，撞上{chinese_look(hit)}后弹了回来")


def way_words(direction: Direction) -> Said:
    """`to the left`, `向左`."""
    return _WAY[direction]


def draw_film(film: Film, size: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Every frame on white, antialiased."""
    return np.stack([draw(film.frame(number), size) for number in range(FRAMES)])


def _told(film: Film, event: Event) -> Said:
    thing = film.things[event.who]
    en, zh = english_look(thing.look), chinese_look(thing.look)
    if event.deed == "move":
        assert event.direction is not None
        speed = _SPEED[event.speed] if event.speed else Said("", "")
        return Said(f"{en} moves {speed.en}{_WAY[event.direction].en}", f"{zh}{_WAY[event.direction].zh}{speed.zh}移动")
    place = place_name(thing)
    if event.deed == "appear":
        return Said(f"{en} appears {EN_PLACES[place]}", f"{ZH_PLACES[place]}出现了{zh}")
    return Said(f"{en} {EN_PLACES[place]} vanishes", f"{ZH_PLACES[place]}的{zh}消失了")


# ------------------------------------------------------------------------------------------------ making


def _bounce(rng: np.random.Generator, act: FilmAct) -> Film | None:
    """From somewhere straight to the picture's edge, and back at the same pace."""
    way = _a_way(rng)
    dx, dy = STEPS[way]
    thing, travel = random_thing(rng, (0.0, 0.0)), float(rng.uniform(0.35, 0.5))
    edge = reach(thing.shape, way) * thing.r
    end = (thing.x if not dx else edge if dx < 0 else 1 - edge, thing.y if not dy else edge if dy < 0 else 1 - edge)
    path = tuple(
        _rounded(end[0] - dx * travel * far, end[1] - dy * travel * far) for far in (abs(n - _SETTLED) / _SETTLED for n in range(FRAMES))
    )
    return Film(act, (_at(thing, path[0]),), (path,), (Event("move", 0, way), Event("bounce", 0, way, start=_SETTLED)))


def _collision(rng: np.random.Generator, act: FilmAct) -> Film | None:
    """One thing runs into another, head on: either that goes on instead of it, or it goes back. None where there is no room."""
    way = _a_way(rng)
    dx, dy = STEPS[way]
    hit, runner = random_thing(rng, (0.0, 0.0)), random_thing(rng, (0.0, 0.0))
    if hit.look[1:] == runner.look[1:]:
        return None
    apart = contact(runner, hit, way)
    touch = (hit.x - dx * apart, hit.y - dy * apart)
    before, after = (float(one) for one in rng.uniform(0.2, 0.3, 2))
    last = FRAMES - 1 - _SETTLED
    runs = [
        max(_SETTLED - n, 0) / _SETTLED * before + (max(n - _SETTLED, 0) / last * after if act == "rebound" else 0) for n in range(FRAMES)
    ]
    knocked = [max(n - _SETTLED, 0) / last * after if act == "push" else 0.0 for n in range(FRAMES)]
    paths = (
        tuple(_rounded(touch[0] - dx * far, touch[1] - dy * far) for far in runs),
        tuple(_rounded(hit.x + dx * far, hit.y + dy * far) for far in knocked),
    )
    if not all(_inside(thing, path) for thing, path in zip((runner, hit), paths, strict=True)):
        return None
    events = (Event("move", 0, way), Event("hit", 0, way, onto=1, start=_SETTLED))
    then = (Event("move", 1, way, start=_SETTLED + 1),) if act == "push" else (Event("bounce", 0, way, start=_SETTLED),)
    return Film(act, (_at(runner, paths[0][0]), hit), paths, (*events, *then))


def _in_order(rng: np.random.Generator, act: FilmAct) -> Film | None:
    """Two things; first something happens to one of them, then to the other. None where they would come too near."""
    deeds = [_DEEDS[rng.integers(len(_DEEDS))] for _ in range(2)]
    things = [random_thing(rng, (0.0, 0.0)) if deed == "move" else one_place(rng) for deed in deeds]
    if things[0].look[1:] == things[1].look[1:]:
        return None
    paths: list[tuple[Spot, ...]] = []
    events: list[Event] = []
    for who, (deed, thing, start) in enumerate(zip(deeds, things, (1, _SETTLED + 1), strict=True)):
        way, travel = _a_way(rng), float(rng.uniform(0.25, 0.4))
        turn = start + int(rng.integers(2))
        if deed == "move":
            dx, dy = STEPS[way]
            fars = [travel * min(max((n - start + 1) / 3, 0), 1) for n in range(FRAMES)]
            paths.append(tuple(_rounded(thing.x + dx * far, thing.y + dy * far) for far in fars))
            events.append(Event("move", who, way, start=start))
        else:
            paths.append(tuple((thing.x, thing.y) if (n >= turn) == (deed == "appear") else None for n in range(FRAMES)))
            events.append(Event(deed, who, start=turn))
        if not _inside(thing, paths[-1]):
            return None
    everywhere = [[spot for spot in path if spot is not None] for path in paths]
    near = min(math.dist(a, b) for a in everywhere[0] for b in everywhere[1])
    if near <= things[0].r + things[1].r + _GAP:
        return None
    return Film(act, tuple(things), tuple(paths), tuple(events))


@cache
def reach(shape: str, way: Direction) -> float:
    """How far a shape of radius 1 goes from its centre in a direction."""
    dx, dy = STEPS[way]
    line = np.linspace(-1, 1, 401)
    v, u = np.nonzero(INSIDE[shape](line[None, :], line[:, None]))
    return float((line[u] * dx + line[v] * dy).max())


def contact(runner: Thing, hit: Thing, way: Direction) -> float:
    """How far apart the centres are when `runner`, coming from straight behind, first touches `hit`."""
    across = np.linspace(-1, 1, 101) * min(runner.r, hit.r)
    front = np.interp(across / runner.r, _ACROSS, _outline(runner.shape, way, 1)) * runner.r
    back = np.interp(across / hit.r, _ACROSS, _outline(hit.shape, way, -1)) * hit.r
    return float((front + back).max())


@cache
def _outline(shape: str, way: Direction, side: int) -> Float[np.ndarray, "A"]:
    """How far a shape of radius 1 goes along the way (`side` 1) or against it (-1), at each distance aside; -2 where it is not."""
    dx, dy = STEPS[way]
    along, aside = np.linspace(-1, 1, 401)[None, :], _ACROSS[:, None]
    inside = INSIDE[shape](along * dx * side + aside * abs(dy), along * dy * side + aside * abs(dx))
    furthest: np.ndarray = np.where(inside, along, -2.0).max(axis=1)
    return furthest


def _a_way(rng: np.random.Generator) -> Direction:
    return list(STEPS)[rng.integers(len(STEPS))]


def _at(thing: Thing, spot: Spot) -> Thing:
    assert spot is not None
    return Thing(thing.shape, thing.color, thing.size, spot[0], spot[1], thing.r)


def _rounded(x: float, y: float) -> tuple[float, float]:
    return round(x, 4), round(y, 4)


def _inside(thing: Thing, path: tuple[Spot, ...]) -> bool:
    free = thing.r + _MARGIN
    return all(free <= value <= 1 - free for spot in path if spot is not None for value in spot)


def _ways(path: tuple[Spot, ...]) -> set[Direction]:
    """Every direction that a path goes in."""
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(path) if a is not None and b is not None]
    return {way for way, (dx, dy) in STEPS.items() for x, y in steps if x * dx + y * dy > 1e-3}
