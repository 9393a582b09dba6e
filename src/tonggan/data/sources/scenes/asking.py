"""How questions about a world are made: first how to ask and the answer, dealt out equally often, then a world that has this answer.

So no way of asking can be answered better than by chance without looking, however rare an answer is in worlds as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np

from tonggan.data.sources.scenes.words import EN_NUMBERS, RELATIONS, ZH_COLORS, ZH_NUMBERS, ZH_SHAPES, Said, the
from tonggan.data.sources.scenes.world import COLORS, HELD_OUT, SHAPES, Thing

AskKind: TypeAlias = Literal["existence", "count", "colour", "shape", "relation", "comparison", "order", "sounding"]
ASK_KINDS: tuple[AskKind, ...] = ("existence", "count", "colour", "shape", "relation", "comparison", "order", "sounding")
WorldT = TypeVar("WorldT")
OptionT = TypeVar("OptionT")


class Ask(NamedTuple):
    """One question about one world; `key` names its answer among those of its form."""

    key: str
    question: Said
    answer: Said
    choices: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class Form(Generic[WorldT]):
    """A way of asking. `find` gives every question of this form that a world answers without doubt."""

    name: str
    kind: AskKind
    keys: tuple[str, ...]
    find: Callable[[WorldT], Iterable[Ask]]
    seen: bool = True
    """Whether a picture belongs to it, of a world that also sounds."""
    draw_world: Callable[[np.random.Generator], WorldT] | None = None
    """Its own worlds, where those that all forms of a subject share seldom answer it."""

    @property
    def chance(self) -> float:
        """How often a guess is right."""
        return 1 / len(self.keys)


def ask(form: Form[WorldT], key: str, draw_world: Callable[[np.random.Generator], WorldT], rng: np.random.Generator) -> tuple[WorldT, Ask]:
    """A world and a question of this form about it that has this answer."""
    while True:
        world = (form.draw_world or draw_world)(rng)
        if found := [one for one in form.find(world) if one.key == key]:
            return world, found[rng.integers(len(found))]


def dealt(options: Sequence[OptionT], turn: int, *seed: int) -> tuple[OptionT, int]:
    """Which option the turn of this number has, and how many turns that option had before: each has one in every `len(options)` turns,
    in an order drawn anew each time."""
    round_, place = divmod(turn, len(options))
    return options[np.random.default_rng([*seed, round_]).permutation(len(options))[place]], round_


# ------------------------------------------------------------------------------------------------ answers

COLOR_WORDS = {color: Said(color, ZH_COLORS[color]) for color in COLORS}
SHAPE_WORDS = {shape: Said(shape, ZH_SHAPES[shape][1]) for shape in SHAPES}
THERE = {"yes": Said("yes", "有"), "no": Said("no", "没有")}
TRUE = {"yes": Said("yes", "是"), "no": Said("no", "不是")}
SIDES = {
    "left": Said("to the left", "左边"),
    "right": Said("to the right", "右边"),
    "above": Said("above", "上面"),
    "below": Said("below", "下面"),
}
COUNTS = ("1", "2", "3", "4", "5")
PAIR = ("first", "second")
"""Keys of questions that name two things: the answer is the one named first, or second."""


def answered(key: str, question: Said, words: Mapping[Any, Said]) -> Ask:
    """With an answer out of a fixed few."""
    return Ask(key, question, words[key], tuple(words.values()))


def counted(n: int, question: Said, measure: str = "个") -> Ask:
    """With a number from one to five as the answer, none where it is another."""
    return answered(str(n), question, {str(i): Said("one" if i == 1 else EN_NUMBERS[i], ZH_NUMBERS[i] + measure) for i in range(1, 6)})


def paired(right: Said, wrong: Said, words: Callable[[Said, Said], Said]) -> list[Ask]:
    """Two questions that name both, in either order."""
    return [
        Ask("first", words(right, wrong), right, (right, wrong)),
        Ask("second", words(wrong, right), right, (wrong, right)),
    ]


def alone(things: Sequence[Thing], *attributes: str) -> list[Thing]:
    """The things that no other equals in these attributes."""
    values = [tuple(getattr(thing, name) for name in attributes) for thing in things]
    return [thing for thing, value in zip(things, values, strict=True) if values.count(value) == 1]


def nameable(color: str, shape: str, held_out: bool) -> bool:
    """Whether a question may name this combination: one kept out of training only where the world shows such a one anyway."""
    return held_out or (color, shape) not in HELD_OUT


def beside(side: str, thing: Thing) -> Said:
    """`to the left of the red star`, `红色的五角星左边`."""
    en, zh = RELATIONS[side]
    return Said(f"{en} {the(thing).en}", f"{the(thing).zh}{zh}")
