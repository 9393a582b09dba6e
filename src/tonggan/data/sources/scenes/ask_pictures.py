"""Ways of asking about a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import permutations

from tonggan.data.sources.scenes.asking import (
    COLOR_WORDS,
    COUNTS,
    PAIR,
    SHAPE_WORDS,
    SIDES,
    THERE,
    TRUE,
    Ask,
    Form,
    alone,
    answered,
    beside,
    counted,
    nameable,
    paired,
)
from tonggan.data.sources.scenes.words import EN_PLACES, RELATIONS, ZH_COLORS, ZH_PLACES, ZH_SHAPES, Said, name, plural, relation, the
from tonggan.data.sources.scenes.world import COLORS, SHAPES, Scene, place_name, random_scene

_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_PLACES = {f"{x} {y}": Said(EN_PLACES[x, y], ZH_PLACES[x, y]) for x, y in EN_PLACES}


def _looks(scene: Scene) -> Counter[tuple[str, str]]:
    return Counter((thing.color, thing.shape) for thing in scene.things)


def _is_there_look(scene: Scene) -> Iterator[Ask]:
    """What is not there is nearly there: it shares its colour or its shape with something that is."""
    there = _looks(scene)
    colors, shapes = {color for color, _ in there}, {shape for _, shape in there}
    near = [(c, s) for c in COLORS for s in SHAPES if (c in colors or s in shapes) and nameable(c, s, scene.held_out)]
    for color, shape in near:
        called = name(color, shape)
        article = "an" if called.en[0] in "aeiou" else "a"
        question = Said(f"Is there {article} {called.en} in the picture?", f"图里有{called.zh}吗？")
        yield answered("yes" if (color, shape) in there else "no", question, THERE)


def _is_there_shape(scene: Scene) -> Iterator[Ask]:
    there = {thing.shape for thing in scene.things}
    for shape in SHAPES:
        question = Said(f"Are there any {plural(shape)} in the picture?", f"图里有{ZH_SHAPES[shape][1]}吗？")
        yield answered("yes" if shape in there else "no", question, THERE)


def _is_there_color(scene: Scene) -> Iterator[Ask]:
    there = {thing.color for thing in scene.things}
    for color in COLORS:
        question = Said(f"Is anything in the picture {color}?", f"图里有{ZH_COLORS[color]}的图形吗？")
        yield answered("yes" if color in there else "no", question, THERE)


def _count_all(scene: Scene) -> Iterator[Ask]:
    yield counted(len(scene.things), Said("How many things are there in the picture?", "图里一共有几个图形？"))


def _count_shape(scene: Scene) -> Iterator[Ask]:
    for shape, n in Counter(thing.shape for thing in scene.things).items():
        measure, noun = ZH_SHAPES[shape]
        yield counted(n, Said(f"How many {plural(shape)} are there?", f"图里有几{measure}{noun}？"), measure)


def _count_color(scene: Scene) -> Iterator[Ask]:
    for color, n in Counter(thing.color for thing in scene.things).items():
        yield counted(n, Said(f"How many {color} things are there?", f"图里有几个{ZH_COLORS[color]}的图形？"))


def _count_look(scene: Scene) -> Iterator[Ask]:
    for (color, shape), n in _looks(scene).items():
        measure, noun = ZH_SHAPES[shape]
        question = Said(f"How many {color} {plural(shape)} are there?", f"图里有几{measure}{ZH_COLORS[color]}的{noun}？")
        yield counted(n, question, measure)


def _color_of_shape(scene: Scene) -> Iterator[Ask]:
    for thing in alone(scene.things, "shape"):
        yield answered(thing.color, Said(f"What color is the {thing.shape}?", f"{ZH_SHAPES[thing.shape][1]}是什么颜色的？"), COLOR_WORDS)


def _color_of_several(scene: Scene) -> Iterator[Ask]:
    for shape, n in Counter(thing.shape for thing in scene.things).items():
        colors = {thing.color for thing in scene.things if thing.shape == shape}
        if n > 1 and len(colors) == 1:
            question = Said(f"What color are the {plural(shape)}?", f"这些{ZH_SHAPES[shape][1]}是什么颜色的？")
            yield answered(colors.pop(), question, COLOR_WORDS)


def _color_beside(scene: Scene) -> Iterator[Ask]:
    if scene.kind == "relation":
        for a, b in permutations(scene.things):
            side = beside(relation(a, b), b)
            yield answered(a.color, Said(f"What color is the thing {side.en}?", f"{side.zh}的图形是什么颜色的？"), COLOR_WORDS)


def _shape_of_color(scene: Scene) -> Iterator[Ask]:
    for thing in alone(scene.things, "color"):
        question = Said(f"What shape is the {thing.color} thing?", f"{ZH_COLORS[thing.color]}的图形是什么形状的？")
        yield answered(thing.shape, question, SHAPE_WORDS)


def _shape_of_several(scene: Scene) -> Iterator[Ask]:
    for color, n in Counter(thing.color for thing in scene.things).items():
        shapes = {thing.shape for thing in scene.things if thing.color == color}
        if n > 1 and len(shapes) == 1:
            question = Said(f"What shape are the {color} things?", f"这些{ZH_COLORS[color]}的图形是什么形状的？")
            yield answered(shapes.pop(), question, SHAPE_WORDS)


def _shape_beside(scene: Scene) -> Iterator[Ask]:
    if scene.kind == "relation":
        for a, b in permutations(scene.things):
            side = beside(relation(a, b), b)
            yield answered(a.shape, Said(f"What shape is the thing {side.en}?", f"{side.zh}的图形是什么形状的？"), SHAPE_WORDS)


def _which_side(scene: Scene) -> Iterator[Ask]:
    if scene.kind == "relation":
        for a, b in permutations(scene.things):
            question = Said(f"Where is {the(a).en} in relation to {the(b).en}?", f"{the(a).zh}在{the(b).zh}的哪一边？")
            yield answered(relation(a, b), question, SIDES)


def _is_it_beside(scene: Scene) -> Iterator[Ask]:
    """Where it is not, it is on the opposite side."""
    if scene.kind == "relation":
        for a, b in permutations(scene.things):
            for side, key in ((relation(a, b), "yes"), (_OPPOSITE[relation(a, b)], "no")):
                en, zh = RELATIONS[side]
                question = Said(f"Is {the(a).en} {en} {the(b).en}?", f"{the(a).zh}是在{the(b).zh}的{zh}吗？")
                yield answered(key, question, TRUE)


def _which_place(scene: Scene) -> Iterator[Ask]:
    if scene.kind == "one":
        (thing,) = scene.things
        x, y = place_name(thing)
        yield answered(f"{x} {y}", Said(f"Where in the picture is {the(thing).en}?", f"{the(thing).zh}在图的什么位置？"), _PLACES)


def which_larger(scene: Scene) -> Iterator[Ask]:
    """Of two things of different sizes, asked for either."""
    for a, b in permutations(alone(scene.things, "color", "shape"), 2):
        if (a.size, b.size) == ("large", "small"):
            yield from paired(the(a), the(b), lambda x, y: Said(f"Which is larger, {x.en} or {y.en}?", f"{x.zh}和{y.zh}，哪个大？"))
            yield from paired(the(b), the(a), lambda x, y: Said(f"Which is smaller, {x.en} or {y.en}?", f"{x.zh}和{y.zh}，哪个小？"))


def _which_more(scene: Scene) -> Iterator[Ask]:
    shapes = Counter(thing.shape for thing in scene.things)
    colors = Counter(thing.color for thing in scene.things)
    named = [
        *((n, m, Said(plural(a), ZH_SHAPES[a][1]), Said(plural(b), ZH_SHAPES[b][1])) for (a, n), (b, m) in permutations(shapes.items(), 2)),
        *((n, m, _things(a), _things(b)) for (a, n), (b, m) in permutations(colors.items(), 2)),
    ]
    for n, m, more, fewer in named:
        if n > m:
            yield from paired(more, fewer, lambda x, y: Said(f"Which are there more of, {x.en} or {y.en}?", f"{x.zh}和{y.zh}，哪种多？"))
            yield from paired(fewer, more, lambda x, y: Said(f"Which are there fewer of, {x.en} or {y.en}?", f"{x.zh}和{y.zh}，哪种少？"))


def _things(color: str) -> Said:
    return Said(f"{color} things", f"{ZH_COLORS[color]}的图形")


_RELATED = partial(random_scene, kinds=("relation",))
_MANY = partial(random_scene, kinds=("count", "several"))

PICTURE_FORMS: tuple[Form[Scene], ...] = (
    Form("is there such a thing", "existence", ("yes", "no"), _is_there_look),
    Form("is there such a shape", "existence", ("yes", "no"), _is_there_shape),
    Form("is there such a colour", "existence", ("yes", "no"), _is_there_color),
    Form("count all", "count", COUNTS, _count_all),
    Form("count a shape", "count", COUNTS, _count_shape),
    Form("count a colour", "count", COUNTS, _count_color),
    Form("count such things", "count", COUNTS, _count_look),
    Form("colour of a shape", "colour", tuple(COLORS), _color_of_shape),
    Form("colour of several", "colour", tuple(COLORS), _color_of_several, draw_world=_MANY),
    Form("colour of what is beside", "colour", tuple(COLORS), _color_beside, draw_world=_RELATED),
    Form("shape of a colour", "shape", SHAPES, _shape_of_color),
    Form("shape of several", "shape", SHAPES, _shape_of_several, draw_world=_MANY),
    Form("shape of what is beside", "shape", SHAPES, _shape_beside, draw_world=_RELATED),
    Form("on which side", "relation", tuple(SIDES), _which_side, draw_world=_RELATED),
    Form("is it on this side", "relation", ("yes", "no"), _is_it_beside, draw_world=_RELATED),
    Form("in which place", "relation", tuple(_PLACES), _which_place, draw_world=partial(random_scene, kinds=("one",))),
    Form("which is larger", "comparison", PAIR, which_larger),
    Form("which are more", "comparison", PAIR, _which_more),
)
