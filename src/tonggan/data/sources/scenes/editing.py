"""Editing pairs: a picture, an instruction, and the picture after it. What is to be changed is named so that nothing else can be meant."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from tonggan.data.rows import Dataset
from tonggan.data.sources.scenes.asking import alone
from tonggan.data.sources.scenes.draw import draw
from tonggan.data.sources.scenes.making import LANGS, checked_langs, in_splits, meta, one_lang, picture
from tonggan.data.sources.scenes.words import EN_PLACES, ZH_COLORS, ZH_PLACES, Said, chinese_look, english, english_look, the
from tonggan.data.sources.scenes.world import COLORS, HELD_OUT, RADII, SHAPES, Scene, Size, Thing, random_scene
from tonggan.data.sources.splits import by_concept
from tonggan.data.splits import SPARE
from tonggan.types import Message, Row, Text

EditKind: TypeAlias = Literal["recolour", "remove", "add", "move"]
_GAP = 0.045
_MARGIN = 0.02
_TRIES = 30
"""How many edits of one picture are tried: one in ten leads to a picture of the small side that it may be on itself."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A scene, what is asked for, and the scene after it."""

    kind: EditKind
    before: Scene
    after: Scene
    instruction: Said

    @property
    def held_out(self) -> bool:
        """Whether either picture shows a combination kept out of training."""
        return self.before.held_out or self.after.held_out


def generate_edits(n: int, seed: int = 0, *, langs: Sequence[str] = LANGS, size: int = 64) -> Dataset:
    """Edits 0..n-1 of the endless sequence that `seed` and `langs` name: the user's message has a picture and an instruction, the
    assistant's the picture after it, which is what to draw.

    `meta` has the scenes (`scene`, `after`), the `kind` of the edit and its `lang`. Splits are those of `generate`, of the pictures
    before and after, which are on the same side; an edit is `spare` where either looks like a picture of another side.
    """
    langs = checked_langs(langs)
    rows, pictures, held_out = [], [], []
    for i in range(n):
        rng = np.random.default_rng([seed, i, 5])
        edit = random_edit(rng)
        lang = one_lang(langs, rng)
        shown = [picture(draw(scene, size)) for scene in (edit.before, edit.after)]
        row = Row(
            f"scenes/edits/{seed}/{i}",
            messages=(
                Message("user", (shown[0], Text(edit.instruction.in_(lang), lang))),
                Message("assistant", (shown[1],)),
            ),
            group=f"scenes:{english(edit.before)}",
            meta=meta(edit.before.to_json(), edit.kind) | {"after": edit.after.to_json(), "lang": lang},
        )
        rows.append(row)
        pictures += [
            Row(f"{row.id}/{when}", images=(one,), group=f"scenes:{english(scene)}")
            for when, one, scene in zip(("before", "after"), shown, (edit.before, edit.after), strict=True)
        ]
        held_out += [edit.held_out] * 2
    sides = [one.split for one in in_splits(pictures, held_out)]
    pairs = zip(rows, sides[::2], sides[1::2], strict=True)
    return Dataset.from_rows(row.with_(split=before if before == after else SPARE) for row, before, after in pairs)


def random_edit(rng: np.random.Generator) -> Edit:
    """An edit of any kind, equally often, that leads from no side of the splits to another."""
    kind = list(_EDITS)[rng.integers(len(_EDITS))]
    while True:
        before = random_scene(rng)
        for _ in range(_TRIES):
            if (found := _EDITS[kind](before, rng)) is not None and _side(after := _scene(found[0])) == _side(before):
                return Edit(kind, before, after, found[1])


def _side(scene: Scene) -> str | None:
    """Where a scene stands by its caption, if it looks like no other."""
    (row,) = by_concept([Row("", group=f"scenes:{english(scene)}")])
    return row.split


Found: TypeAlias = tuple[list[Thing], Said] | None


def _recolour(scene: Scene, rng: np.random.Generator) -> Found:
    thing = _named(scene, rng)
    if thing is None:
        return None
    colors = [color for color in COLORS if color != thing.color and ((color, thing.shape) not in HELD_OUT or scene.held_out)]
    color = colors[rng.integers(len(colors))]
    new = replace(thing, color=color)
    if any(other.look[1:] == new.look[1:] and other.look != new.look for other in scene.things):
        return None  # two that differ in size alone are no scene of this world
    return [new if other is thing else other for other in scene.things], Said(
        f"Make {the(thing).en} {color}.", f"把{the(thing).zh}变成{ZH_COLORS[color]}。"
    )


def _remove(scene: Scene, rng: np.random.Generator) -> Found:
    thing = _named(scene, rng)
    if thing is None or len(scene.things) == 1:
        return None
    return [other for other in scene.things if other is not thing], Said(f"Remove {the(thing).en}.", f"去掉{the(thing).zh}。")


def _add(scene: Scene, rng: np.random.Generator) -> Found:
    """Something unlike what is there, in the middle of one of the nine fields, of the middle radius of its size."""
    size: Size = "large" if rng.integers(2) else "small"
    color, shape = list(COLORS)[rng.integers(len(COLORS))], SHAPES[rng.integers(len(SHAPES))]
    if ((color, shape) in HELD_OUT and not scene.held_out) or any(other.look[1:] == (color, shape) for other in scene.things):
        return None
    field = _fields()[rng.integers(9)]
    new = _in_field(Thing(shape, color, size, 0.5, 0.5, round(sum(RADII[size]) / 2, 4)), field)
    if not _free(new, scene.things):
        return None
    en, zh = english_look(new.look), chinese_look(new.look)
    return [*scene.things, new], Said(f"Add {en} {EN_PLACES[field]}.", f"在{ZH_PLACES[field]}加上{zh}。")


def _move(scene: Scene, rng: np.random.Generator) -> Found:
    """To the middle of a field that it is not in the neighbourhood of."""
    thing = _named(scene, rng)
    field = _fields()[rng.integers(9)]
    if thing is None:
        return None
    new = _in_field(thing, field)
    if math.hypot(new.x - thing.x, new.y - thing.y) < 0.25 or not _free(new, [other for other in scene.things if other is not thing]):
        return None
    instruction = Said(f"Move {the(thing).en} {_TO[field]}.", f"把{the(thing).zh}移到{ZH_PLACES[field]}。")
    return [new if other is thing else other for other in scene.things], instruction


_EDITS: dict[EditKind, Callable[[Scene, np.random.Generator], Found]] = {
    "recolour": _recolour,
    "remove": _remove,
    "add": _add,
    "move": _move,
}
_TO = {field: f"to {place.partition(' ')[2]}" for field, place in EN_PLACES.items()}


def _named(scene: Scene, rng: np.random.Generator) -> Thing | None:
    """A thing that colour and shape tell apart from all others."""
    things = alone(scene.things, "color", "shape")
    return things[rng.integers(len(things))] if things else None


def _fields() -> list[tuple[int, int]]:
    return list(EN_PLACES)


def _in_field(thing: Thing, field: tuple[int, int]) -> Thing:
    free = thing.r + _MARGIN
    x, y = (round(min(max(0.5 + side / 3, free), 1 - free), 4) for side in field)
    return replace(thing, x=x, y=y)


def _free(new: Thing, others: Sequence[Thing]) -> bool:
    return all(math.hypot(new.x - other.x, new.y - other.y) > new.r + other.r + _GAP for other in others)


def _scene(things: Sequence[Thing]) -> Scene:
    """With the kind that its caption would have: by how many there are and whether they are alike."""
    alike = len({thing.look for thing in things}) == 1
    return Scene(tuple(things), "one" if len(things) == 1 else "count" if alike else "several")
