"""Conversations about a picture in which later questions refer back: `What color is it?`, `其中有几个是红色的？`"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations

import numpy as np

from tonggan.data.rows import Dataset
from tonggan.data.sources.scenes.asking import COLOR_WORDS, SHAPE_WORDS, SIDES, THERE, alone, beside
from tonggan.data.sources.scenes.draw import draw
from tonggan.data.sources.scenes.making import LANGS, Turn, checked_langs, in_splits, meta, one_lang, picture, talk
from tonggan.data.sources.scenes.words import EN_PLACES, ZH_PLACES, ZH_SHAPES, Said, english, name, number, plural, relation, the
from tonggan.data.sources.scenes.world import SHAPES, Scene, Thing, place_name, random_scene
from tonggan.types import Row

_SIZES = {"small": Said("small", "小的"), "large": Said("large", "大的")}


def generate_dialogues(n: int, seed: int = 0, *, langs: Sequence[str] = LANGS, size: int = 64) -> Dataset:
    """Dialogues 0..n-1 of the endless sequence that `seed` and `langs` name: rows with `messages`, of two to four questions each.

    Every answer is exact. `meta` has the `scene`, the `thread` of the talk and its `lang`; splits are those of `generate`.
    """
    langs = checked_langs(langs)
    rows, pictures, held_out = [], [], []
    for i in range(n):
        rng = np.random.default_rng([seed, i, 4])
        thread = list(_THREADS)[rng.integers(len(_THREADS))]
        scene = random_scene(rng)
        while (turns := _THREADS[thread](scene, rng)) is None:
            scene = random_scene(rng)
        lang, seen = one_lang(langs, rng), picture(draw(scene, size))
        row = Row(
            f"scenes/dialogues/{seed}/{i}",
            messages=talk(seen, turns, lang),
            group=f"scenes:{english(scene)}",
            meta=meta(scene.to_json(), "dialogue") | {"thread": thread, "lang": lang},
        )
        rows.append(row)
        pictures.append(row.with_(images=(seen,)))
        held_out.append(scene.held_out)
    sides = in_splits(pictures, held_out)
    return Dataset.from_rows(row.with_(split=side.split) for row, side in zip(rows, sides, strict=True))


def _it(scene: Scene, rng: np.random.Generator) -> list[Turn] | None:
    """Is there one, and what is it like; half of the time something is asked for first that is not there."""
    things = alone(scene.things, "shape")
    if not things:
        return None
    thing = things[rng.integers(len(things))]
    absent = [shape for shape in SHAPES if all(shape != other.shape for other in scene.things)]
    wrong = absent[rng.integers(len(absent))] if rng.integers(2) else None
    noun = ZH_SHAPES[thing.shape][1]
    turns: list[Turn] = []
    if wrong is not None:
        turns.append((Said(f"Is there a {wrong} in the picture?", f"图里有{ZH_SHAPES[wrong][1]}吗？"), THERE["no"]))
        turns.append((Said(f"And a {thing.shape}?", f"那{noun}呢？"), THERE["yes"]))
    else:
        turns.append((Said(f"Is there a {thing.shape} in the picture?", f"图里有{noun}吗？"), THERE["yes"]))
    about = [
        (Said("What color is it?", "它是什么颜色的？"), COLOR_WORDS[thing.color]),
        (Said("Is it large or small?", "它是大的还是小的？"), _SIZES[thing.size]),
    ]
    if scene.kind == "one":
        about.append((Said("And where is it?", "它在什么位置？"), Said(EN_PLACES[place_name(thing)], ZH_PLACES[place_name(thing)])))
    return [*turns, *(about[k] for k in rng.permutation(len(about))[:2])]


def _of_them(scene: Scene, rng: np.random.Generator) -> list[Turn] | None:
    """How many there are, how many of them are of one colour, and what the others are."""
    colors = Counter(thing.color for thing in scene.things)
    some = [color for color, n in colors.items() if n < len(scene.things)]
    if not some:
        return None
    color = some[rng.integers(len(some))]
    others = [thing for thing in scene.things if thing.color != color]
    zh = COLOR_WORDS[color].zh
    turns = [
        (Said("How many things are there in the picture?", "图里一共有几个图形？"), number(len(scene.things))),
        (Said(f"And how many of them are {color}?", f"其中有几个是{zh}的？"), number(colors[color])),
    ]
    if len({thing.color for thing in others}) == 1:
        question = (
            Said("What color is the other one?", "另外一个是什么颜色的？")
            if len(others) == 1
            else Said("What color are the others?", "其余的是什么颜色的？")
        )
        turns.append((question, COLOR_WORDS[others[0].color]))
    elif len({thing.shape for thing in others}) == 1:
        turns.append((Said("What shape are the others?", "其余的是什么形状的？"), SHAPE_WORDS[others[0].shape]))
    return turns


def _alike(scene: Scene, rng: np.random.Generator) -> list[Turn] | None:
    """How many of a shape there are, and what these are like."""
    (shape, n), *more = Counter(thing.shape for thing in scene.things).most_common()
    these = [thing for thing in scene.things if thing.shape == shape]
    if n < 2 or (more and more[0][1] == n) or len({thing.color for thing in these}) > 1:
        return None
    measure, noun = ZH_SHAPES[shape]
    turns = [
        (Said(f"How many {plural(shape)} are there?", f"图里有几{measure}{noun}？"), number(n, measure)),
        (Said("What color are they?", "它们是什么颜色的？"), COLOR_WORDS[these[0].color]),
    ]
    if len({thing.size for thing in these}) == 1:
        turns.append((Said("Are they large or small?", "它们是大的还是小的？"), _SIZES[these[0].size]))
    return turns


def _the_two(scene: Scene, rng: np.random.Generator) -> list[Turn] | None:
    """What is beside something, which of the two is larger, and where the other one is, seen from the one that was named last."""
    if scene.kind != "relation":
        return None
    pairs = list(permutations(scene.things))
    found, known = pairs[rng.integers(len(pairs))]
    side = beside(relation(found, known), known)
    turns = [(Said(f"What is {side.en}?", f"{side.zh}是什么？"), _one(found))]
    last, other = found, known
    if found.size != known.size:
        last, other = (found, known) if found.size == "large" else (known, found)
        turns.append((Said("Which of the two is larger?", "这两个哪个大？"), the(last)))
    called = Said(f"the {other.shape}", ZH_SHAPES[other.shape][1]) if found.shape != known.shape else Said("the other one", "另一个")
    turns.append((Said(f"And where is {called.en} in relation to it?", f"那{called.zh}在它的哪一边？"), SIDES[relation(other, last)]))
    return turns


def _one(thing: Thing) -> Said:
    called = name(thing.color, thing.shape)
    article = "an" if called.en[0] in "aeiou" else "a"
    return Said(f"{article} {called.en}", f"一{ZH_SHAPES[thing.shape][0]}{called.zh}")


_THREADS: dict[str, Callable[[Scene, np.random.Generator], list[Turn] | None]] = {
    "it": _it,
    "of them": _of_them,
    "they": _alike,
    "the two": _the_two,
}
