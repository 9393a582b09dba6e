"""Ways of asking about tones: by themselves, or beside a picture of things of which some sound."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations

import numpy as np

from tonggan.data.sources.scenes.asking import (
    COLOR_WORDS,
    COUNTS,
    PAIR,
    SHAPE_WORDS,
    SIDES,
    THERE,
    Ask,
    Form,
    alone,
    answered,
    counted,
    nameable,
    paired,
)
from tonggan.data.sources.scenes.sound import PITCHES
from tonggan.data.sources.scenes.words import Said, chinese_look, english_look, name, relation, the
from tonggan.data.sources.scenes.world import COLORS, HELD_OUT, KINDS, SHAPES, Kind, Scene, Thing, random_scene


@dataclass(frozen=True, slots=True)
class Heard:
    """A scene, and which of its things sound, in this order."""

    scene: Scene
    order: tuple[int, ...]

    @property
    def tones(self) -> tuple[Thing, ...]:
        """The things that are heard, one after another."""
        return tuple(self.scene.things[who] for who in self.order)

    def held_out(self, seen: bool) -> bool:
        """Whether a combination kept out of training is heard, or `seen`."""
        return any((thing.color, thing.shape) in HELD_OUT for thing in (self.scene.things if seen else self.tones))

    def to_json(self) -> str:
        """As kept in `Row.meta["scene"]`; `from_json` gives an equal one."""
        return json.dumps({"order": self.order, "scene": json.loads(self.scene.to_json())})

    @classmethod
    def from_json(cls, text: str) -> Heard:
        data = json.loads(text)
        return cls(Scene.from_json(json.dumps(data["scene"])), tuple(data["order"]))


def random_heard(rng: np.random.Generator, kinds: Sequence[Kind] = KINDS, tones: int | None = None) -> Heard:
    """A scene of any of these kinds, and of its things so many in any order: half of the time one, else up to all, unless it is said."""
    scene = random_scene(rng, kinds)
    if tones is None:
        tones = 1 + int(rng.integers(len(scene.things) if rng.integers(2) else 1))
    return Heard(scene, tuple(int(who) for who in rng.permutation(len(scene.things))[:tones]))


def _one_of_three(rng: np.random.Generator) -> Heard:
    """Three different things, of which one sounds: rare in scenes as they come, so what is there twice is left out."""
    while True:
        scene = random_scene(rng, ("several",))
        things = {thing.look: thing for thing in scene.things}
        if len(things) == 3:
            return Heard(Scene(tuple(things.values()), "several"), (int(rng.integers(3)),))


def caption(heard: Heard) -> Said:
    """What is heard, without what is seen: `the tones of a small red star, then a large blue circle`."""
    looks = [thing.look for thing in heard.tones]
    return Said(
        "the tones of " + ", then ".join(english_look(look) for look in looks),
        "，然后是".join(chinese_look(look) for look in looks) + "的声音",
    )


def _is_it_heard(heard: Heard) -> Iterator[Ask]:
    """What is not heard is nearly so: it shares its colour or its shape with something that is."""
    there = {(thing.color, thing.shape) for thing in heard.tones}
    colors, shapes = {color for color, _ in there}, {shape for _, shape in there}
    held_out = heard.held_out(seen=False)
    for color, shape in ((c, s) for c in COLORS for s in SHAPES if (c in colors or s in shapes) and nameable(c, s, held_out)):
        called = name(color, shape)
        article = "an" if called.en[0] in "aeiou" else "a"
        question = Said(f"Do you hear {article} {called.en}?", f"声音里有{called.zh}吗？")
        yield answered("yes" if (color, shape) in there else "no", question, THERE)


def _count_tones(heard: Heard) -> Iterator[Ask]:
    yield counted(len(heard.order), Said("How many tones do you hear?", "你听到了几个音？"))


def _color_heard(heard: Heard) -> Iterator[Ask]:
    if len(heard.order) == 1:
        yield answered(heard.tones[0].color, Said("What color is the thing that you hear?", "发出声音的图形是什么颜色的？"), COLOR_WORDS)


def _shape_heard(heard: Heard) -> Iterator[Ask]:
    if len(heard.order) == 1:
        yield answered(heard.tones[0].shape, Said("What shape is the thing that you hear?", "发出声音的图形是什么形状的？"), SHAPE_WORDS)


def _where_heard(heard: Heard) -> Iterator[Ask]:
    if len(heard.order) == 1 and heard.scene.kind == "relation":
        sounds, silent = (heard.scene.things[who] for who in (heard.order[0], 1 - heard.order[0]))
        question = Said("Where is the thing that you hear, in relation to the other one?", "发出声音的图形在另一个图形的哪一边？")
        yield answered(relation(sounds, silent), question, SIDES)


_HIGHER = {"higher": Said("higher", "更高"), "lower": Said("lower", "更低")}
_LOUDER = {"louder": Said("louder", "更响"), "softer": Said("softer", "更轻")}


def _higher_or_lower(heard: Heard) -> Iterator[Ask]:
    if len(heard.order) == 2 and len({thing.color for thing in heard.tones}) == 2:
        first, second = (PITCHES[thing.color] for thing in heard.tones)
        question = Said("Is the second tone higher or lower than the first?", "跟第一个音相比，第二个音更高还是更低？")
        yield answered("higher" if second > first else "lower", question, _HIGHER)


def _louder_or_softer(heard: Heard) -> Iterator[Ask]:
    if len(heard.order) == 2 and len({thing.size for thing in heard.tones}) == 2:
        question = Said("Is the second tone louder or softer than the first?", "跟第一个音相比，第二个音更响还是更轻？")
        yield answered("louder" if heard.tones[1].size == "large" else "softer", question, _LOUDER)


def _which_heard_first(heard: Heard) -> Iterator[Ask]:
    tones = heard.tones
    for a, b in permutations(alone(tones, "color", "shape"), 2):
        if tones.index(a) < tones.index(b):
            first, last = the(a), the(b)
            yield from paired(
                first, last, lambda x, y: Said(f"Which do you hear first, {x.en} or {y.en}?", f"{x.zh}和{y.zh}，先听到哪个？")
            )
            yield from paired(last, first, lambda x, y: Said(f"Which do you hear last, {x.en} or {y.en}?", f"{x.zh}和{y.zh}，后听到哪个？"))


def _which_sounds(heard: Heard, count: int) -> Iterator[Ask]:
    """Of so many different things in a picture; keyed by where it stands from left to right, and so are the choices."""
    things = sorted(heard.scene.things, key=lambda thing: (thing.x, thing.y))
    if len(heard.order) == 1 and len(things) == len(alone(things, "color", "shape")) == count:
        (sounds,) = heard.tones
        question = Said("Which of the things do you hear?", "你听到的是哪个图形的声音？")
        yield Ask(str(things.index(sounds)), question, the(sounds), tuple(the(thing) for thing in things))


_ONE = partial(random_heard, kinds=("one",), tones=1)
_TWO = partial(random_heard, kinds=("relation", "several"), tones=2)
_ONE_OF_TWO = partial(random_heard, kinds=("relation",), tones=1)

SOUND_FORMS: tuple[Form[Heard], ...] = (
    Form("is it heard", "existence", ("yes", "no"), _is_it_heard, seen=False),
    Form("count tones", "count", COUNTS, _count_tones, seen=False),
    Form("colour that is heard", "colour", tuple(COLORS), _color_heard, seen=False, draw_world=_ONE),
    Form("shape that is heard", "shape", SHAPES, _shape_heard, seen=False, draw_world=_ONE),
    Form("where is what is heard", "relation", tuple(SIDES), _where_heard, draw_world=_ONE_OF_TWO),
    Form("higher or lower", "comparison", tuple(_HIGHER), _higher_or_lower, seen=False, draw_world=_TWO),
    Form("louder or softer", "comparison", tuple(_LOUDER), _louder_or_softer, seen=False, draw_world=_TWO),
    Form("which is heard first", "order", PAIR, _which_heard_first, seen=False),
    Form("which of two sounds", "sounding", ("0", "1"), partial(_which_sounds, count=2), draw_world=_ONE_OF_TWO),
    Form("which of three sounds", "sounding", ("0", "1", "2"), partial(_which_sounds, count=3), draw_world=_one_of_three),
)
