"""Ways of asking about a clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import permutations

import numpy as np

from tonggan.data.sources.scenes.ask_pictures import which_larger
from tonggan.data.sources.scenes.asking import COLOR_WORDS, PAIR, SHAPE_WORDS, THERE, Ask, Form, answered, paired
from tonggan.data.sources.scenes.events import Deed, Event, Film, film_of, random_film, way_words
from tonggan.data.sources.scenes.motion import FRAMES, STEPS, random_motion
from tonggan.data.sources.scenes.words import Said, number, the
from tonggan.data.sources.scenes.world import COLORS, SHAPES, Scene, Thing

_DEEDS: dict[Deed, Said] = {
    "move": Said("moves", "移动"),
    "appear": Said("appears", "出现"),
    "vanish": Said("vanishes", "消失"),
}
_ANY: dict[Deed, Said] = {
    "move": Said("Does anything move in the clip?", "视频里有图形移动吗？"),
    "appear": Said("Does anything new appear in the clip?", "视频里有新的图形出现吗？"),
    "vanish": Said("Does anything vanish in the clip?", "视频里有图形消失吗？"),
    "hit": Said("Do two things collide in the clip?", "视频里有图形相撞吗？"),
    "bounce": Said("Does anything bounce back in the clip?", "视频里有图形被弹回来吗？"),
}
_MOVED = {"yes": Said("yes", "动了"), "no": Said("no", "没动")}
_WAYS = {way: way_words(way) for way in STEPS}
_SPEEDS = {"slow": Said("slowly", "慢"), "fast": Said("quickly", "快")}
_FEW = {str(n): number(n) for n in (1, 2)}


def random_clip(rng: np.random.Generator) -> Film:
    """Two times in three a film of `events`, else one of `motion`."""
    return random_film(rng) if rng.integers(3) else film_of(random_motion(rng))


def _doers(film: Film, deed: Deed) -> set[int]:
    return {event.who for event in film.events if event.deed == deed}


def _does_any(film: Film, deed: Deed) -> Iterator[Ask]:
    yield answered("yes" if _doers(film, deed) else "no", _ANY[deed], THERE)


def _does_it_move(film: Film) -> Iterator[Ask]:
    movers = _doers(film, "move")
    for who, thing in enumerate(film.things):
        yield answered("yes" if who in movers else "no", Said(f"Does {the(thing).en} move?", f"{the(thing).zh}动了吗？"), _MOVED)


def _count_movers(film: Film) -> Iterator[Ask]:
    if movers := _doers(film, "move"):
        yield answered(str(len(movers)), Said("How many things move?", "有几个图形移动了？"), _FEW)


def _count_at_the_end(film: Film) -> Iterator[Ask]:
    for frame, en, zh in ((0, "at the beginning", "开始时"), (FRAMES - 1, "at the end", "最后")):
        if there := len(film.frame(frame).things):
            yield answered(str(there), Said(f"How many things are there {en} of the clip?", f"视频{zh}有几个图形？"), _FEW)


def _only_doers(film: Film) -> Iterator[tuple[Deed, Thing]]:
    """Things that alone do something."""
    for deed in _DEEDS:
        if len(doers := _doers(film, deed)) == 1:
            yield deed, film.things[doers.pop()]


def _color_of_doer(film: Film) -> Iterator[Ask]:
    for deed, thing in _only_doers(film):
        question = Said(f"What color is the thing that {_DEEDS[deed].en}?", f"{_DEEDS[deed].zh}的图形是什么颜色的？")
        yield answered(thing.color, question, COLOR_WORDS)


def _shape_of_doer(film: Film) -> Iterator[Ask]:
    for deed, thing in _only_doers(film):
        question = Said(f"What shape is the thing that {_DEEDS[deed].en}?", f"{_DEEDS[deed].zh}的图形是什么形状的？")
        yield answered(thing.shape, question, SHAPE_WORDS)


def _which_way(film: Film) -> Iterator[Ask]:
    """Of things that go one way only."""
    bounced, moves = _doers(film, "bounce"), Counter(event.who for event in film.events if event.deed == "move")
    for event in film.events:
        if event.deed == "move" and event.direction and event.who not in bounced and moves[event.who] == 1:
            called = the(film.things[event.who])
            yield answered(event.direction, Said(f"Which way does {called.en} move?", f"{called.zh}往哪个方向移动？"), _WAYS)


def _how_fast(film: Film) -> Iterator[Ask]:
    for event in film.events:
        if event.speed:
            called = the(film.things[event.who])
            question = Said(f"Does {called.en} move slowly or quickly?", f"{called.zh}移动得快还是慢？")
            yield answered(event.speed, question, _SPEEDS)


def _which_is_larger(film: Film) -> Iterator[Ask]:
    yield from which_larger(Scene(film.things, "several"))


def _what_first(film: Film) -> Iterator[Ask]:
    if film.act == "in order":
        first, last = (_happening(film, event) for event in film.events)
        yield from paired(first, last, lambda x, y: Said(f"What happens first: {x.en} or {y.en}?", f"哪件事先发生：{x.zh}，还是{y.zh}？"))
        yield from paired(last, first, lambda x, y: Said(f"What happens last: {x.en} or {y.en}?", f"哪件事后发生：{x.zh}，还是{y.zh}？"))


def _happening(film: Film, event: Event) -> Said:
    called, deed = the(film.things[event.who]), _DEEDS[event.deed]
    return Said(f"{called.en} {deed.en}", f"{called.zh}{deed.zh}")


def _which_first(film: Film) -> Iterator[Ask]:
    """Of two things that both move: in an order, or because the first runs into the second."""
    moves = [event for event in film.events if event.deed == "move"]
    for a, b in permutations(moves, 2):
        if a.start < b.start:
            first, last = the(film.things[a.who]), the(film.things[b.who])
            yield from paired(first, last, lambda x, y: Said(f"Which moves first, {x.en} or {y.en}?", f"{x.zh}和{y.zh}，哪个先动？"))


CLIP_FORMS: tuple[Form[Film], ...] = (
    *(Form(f"does anything {deed}", "existence", ("yes", "no"), partial(_does_any, deed=deed)) for deed in _ANY),
    Form("does it move", "existence", ("yes", "no"), _does_it_move),
    Form("count what moves", "count", tuple(_FEW), _count_movers),
    Form("count at a time", "count", tuple(_FEW), _count_at_the_end),
    Form("colour of who does it", "colour", tuple(COLORS), _color_of_doer),
    Form("shape of who does it", "shape", SHAPES, _shape_of_doer),
    Form("which way", "relation", tuple(STEPS), _which_way),
    Form("how fast", "comparison", tuple(_SPEEDS), _how_fast),
    Form("which is larger in the clip", "comparison", PAIR, _which_is_larger),
    Form("what happens first", "order", PAIR, _what_first),
    Form("which moves first", "order", PAIR, _which_first),
)
