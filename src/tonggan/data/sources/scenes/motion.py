"""Scenes that move: a few frames in which one thing moves, appears or vanishes, with captions that say so.

Shape letters: T frames, H W pixels.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from tonggan.data.sources.scenes.draw import draw
from tonggan.data.sources.scenes.words import EN_PLACES, ZH_PLACES, chinese_look, english_look
from tonggan.data.sources.scenes.world import HELD_OUT, Scene, Thing, one_place, place_name, random_thing

FRAMES = 8
FPS = 8
Act: TypeAlias = Literal["move", "move beside", "appear", "vanish"]
Direction: TypeAlias = Literal["left", "right", "up", "down"]
Speed: TypeAlias = Literal["slow", "fast"]

ACTS: tuple[Act, ...] = ("move", "move beside", "appear", "vanish")
STEPS: dict[Direction, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
TRAVEL: dict[Speed, tuple[float, float]] = {"slow": (0.15, 0.22), "fast": (0.46, 0.56)}
"""Range of the way from the first frame to the last, as a fraction of the picture's side."""
HELD_OUT_WAYS: frozenset[tuple[str, Direction]] = frozenset({("star", "left"), ("heart", "right"), ("circle", "up"), ("square", "down")})
"""Shapes that are never seen moving this way in training: every shape and every direction is, but not these together."""
_GAP = 0.03

_EN_WAYS = {"left": "to the left", "right": "to the right", "up": "up", "down": "down"}
_EN_SPEEDS = {"slow": "slowly", "fast": "quickly"}
_ZH_WAYS = {"left": "向左", "right": "向右", "up": "向上", "down": "向下"}
_ZH_SPEEDS = {"slow": "缓慢", "fast": "快速"}


@dataclass(frozen=True, slots=True)
class MovingScene:
    """What happens: `thing` as it is in the middle of the clip, and beside a moving one perhaps something that stands `still`."""

    act: Act
    thing: Thing
    direction: Direction | None = None
    speed: Speed | None = None
    travel: float = 0.0
    """The whole way, as a fraction of the picture's side."""
    turn: int = 0
    """The first frame with the thing (appear), or without it (vanish)."""
    still: Thing | None = None

    @property
    def held_out(self) -> bool:
        """Whether it shows a combination kept out of training: of colour and shape, or of shape and direction."""
        looks = any((thing.color, thing.shape) in HELD_OUT for thing in (self.thing, self.still) if thing is not None)
        return looks or (self.direction is not None and (self.thing.shape, self.direction) in HELD_OUT_WAYS)

    def frame(self, number: int) -> Scene:
        """What is to be seen in a frame, 0 to `FRAMES` - 1; perhaps nothing."""
        there = {"appear": number >= self.turn, "vanish": number < self.turn}.get(self.act, True)
        things = [self._at(number)] if there else []
        return Scene((*things, *([self.still] if self.still is not None else [])), "several")

    def _at(self, number: int) -> Thing:
        if self.direction is None:
            return self.thing
        dx, dy = STEPS[self.direction]
        way = self.travel * (number / (FRAMES - 1) - 0.5)
        return replace(self.thing, x=self.thing.x + dx * way, y=self.thing.y + dy * way)

    def to_json(self) -> str:
        """As kept in `Row.meta["scene"]`; `from_json` gives an equal scene."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> MovingScene:
        data = json.loads(text)
        return cls(**data | {name: Thing(**data[name]) for name in ("thing", "still") if data[name] is not None})


def random_motion(rng: np.random.Generator) -> MovingScene:
    """A scene of any act, equally often."""
    act = ACTS[rng.integers(len(ACTS))]
    if act in ("appear", "vanish"):
        return MovingScene(act, one_place(rng), turn=int(rng.integers(3, FRAMES - 2)))
    direction, speed = list(STEPS)[rng.integers(len(STEPS))], list(TRAVEL)[rng.integers(len(TRAVEL))]
    travel = round(float(rng.uniform(*TRAVEL[speed])), 4)
    dx, dy = STEPS[direction]
    thing = random_thing(rng, (abs(dx) * travel / 2, abs(dy) * travel / 2))
    moving = MovingScene(act, thing, direction, speed, travel)
    return replace(moving, still=_bystander(rng, moving)) if act == "move beside" else moving


def english(scene: MovingScene) -> str:
    """For example `a small red star moves quickly to the right`."""
    look, place = english_look(scene.thing.look), EN_PLACES[place_name(scene.thing)]
    if scene.act == "appear":
        return f"{look} appears {place}"
    if scene.act == "vanish":
        return f"{look} {place} vanishes"
    assert scene.direction is not None and scene.speed is not None
    moves = f"{look} moves {_EN_SPEEDS[scene.speed]} {_EN_WAYS[scene.direction]}"
    return f"{moves} while {english_look(scene.still.look)} stands still" if scene.still is not None else moves


def chinese(scene: MovingScene) -> str:
    """For example `一颗红色的小五角星向右快速移动`."""
    look, place = chinese_look(scene.thing.look), ZH_PLACES[place_name(scene.thing)]
    if scene.act == "appear":
        return f"{place}出现了{look}"
    if scene.act == "vanish":
        return f"{place}的{look}消失了"
    assert scene.direction is not None and scene.speed is not None
    moves = f"{look}{_ZH_WAYS[scene.direction]}{_ZH_SPEEDS[scene.speed]}移动"
    return f"{moves}，{chinese_look(scene.still.look)}静止不动" if scene.still is not None else moves


def draw_frames(scene: MovingScene, size: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Every frame on white, antialiased."""
    return np.stack([draw(scene.frame(number), size) for number in range(FRAMES)])


def encode_frames(frames: UInt8[np.ndarray, "T H W 3"]) -> bytes:
    """An animated WebP without loss, the smallest that Pillow writes; frames that stay are stored once, with the time they stay."""
    buffer = io.BytesIO()
    first, *others = (PIL.Image.fromarray(frame) for frame in frames)
    first.save(buffer, "WEBP", save_all=True, append_images=others, duration=1000 // FPS, lossless=True, quality=100, method=4)
    return buffer.getvalue()


def _bystander(rng: np.random.Generator, moving: MovingScene) -> Thing:
    """Something of another shape or colour, out of the way."""
    ways = [moving.frame(number).things[0] for number in range(FRAMES)]
    while True:
        thing = random_thing(rng, (0.0, 0.0))
        free = all(math.hypot(thing.x - way.x, thing.y - way.y) > thing.r + way.r + _GAP for way in ways)
        if free and thing.look[1:] != moving.thing.look[1:]:
            return thing
