"""From a caption back to what it claims, so that a model's caption is scored exactly, attribute by attribute.

told = scenes.described("two small red stars and a large blue circle", "en")
scenes.marks(told, scene)                   # {"shape": True, "colour": True, "size": True, "count": False, ...}
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tonggan.data.sources.scenes.words import (
    EN_NUMBERS,
    EN_PLACES,
    RELATIONS,
    ZH_COLORS,
    ZH_NUMBERS,
    ZH_PLACES,
    ZH_SHAPES,
    ZH_SIZES,
    Look,
    plural,
    relation,
)
from tonggan.data.sources.scenes.world import COLORS, RADII, SHAPES, Scene, place_name

Relation = tuple[Look, str, Look]
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


@dataclass(frozen=True, slots=True)
class Description:
    """What a caption claims: how many of each look, and perhaps the place of the only thing, or where the first of two is."""

    looks: Mapping[Look, int]
    place: tuple[int, int] | None = None
    relation: Relation | None = None


def described(caption: str, lang: str) -> Description | None:
    """What a caption of a picture claims, in `en` or `zh`; None when it is not a sentence of this world.

    Case, outer space and a full stop at the end are let go; nothing else is.
    """
    text = caption.strip().rstrip(".。").strip()
    return _chinese(text) if lang == "zh" else _english(" ".join(text.lower().split()))


def marks(told: Description | None, scene: Scene) -> dict[str, bool]:
    """Whether each attribute of a caption is right: the shapes, colours and sizes (of how many things each), the `count` of all things,
    the `things` (all of these belong together as in the picture), and the `place` or `relation` where the scene's own caption has one.

    A caption of another world (None) has none right. A relation told from the other thing's side is as right.
    """
    truth = description_of(scene)
    names = ["shape", "colour", "size", "count", "things"]
    names += [name for name in ("place", "relation") if getattr(truth, name) is not None]
    if told is None:
        return dict.fromkeys(names, False)
    right = {name: _tally(told, part) == _tally(truth, part) for name, part in (("shape", 2), ("colour", 1), ("size", 0))}
    right |= {"count": sum(told.looks.values()) == sum(truth.looks.values()), "things": dict(told.looks) == dict(truth.looks)}
    if truth.place is not None:
        right["place"] = told.place == truth.place
    if truth.relation is not None:
        right["relation"] = told.relation is not None and told.relation in (truth.relation, _turned(truth.relation))
    return right


def description_of(scene: Scene) -> Description:
    """What a right caption of a scene claims."""
    looks = Counter(thing.look for thing in scene.things)
    if scene.kind == "one":
        return Description(looks, place=place_name(scene.things[0]))
    if scene.kind == "relation":
        a, b = scene.things
        return Description(looks, relation=(a.look, relation(a, b), b.look))
    return Description(looks)


def _tally(told: Description, part: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for look, n in told.looks.items():
        found[look[part]] += n
    return found


def _turned(claim: Relation) -> Relation:
    a, side, b = claim
    return b, _OPPOSITE[side], a


# ------------------------------------------------------------------------------------------------ reading


def _any(words: Iterable[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_EN_NOUNS = {shape: (shape, 1) for shape in SHAPES} | {plural(shape): (shape, 2) for shape in SHAPES}
_EN_LOOK = rf"({_any(EN_NUMBERS[1:])}) ({_any(RADII)}) ({_any(COLORS)}) ({_any(_EN_NOUNS)})"
_EN_ONE = re.compile(rf"{_EN_LOOK} ({_any(EN_PLACES.values())})")
_EN_RELATION = re.compile(rf"{_EN_LOOK} ({_any(en for en, _ in RELATIONS.values())}) {_EN_LOOK}")
_EN_LIST = re.compile(rf"{_EN_LOOK}(?:(?:, {_EN_LOOK})* and {_EN_LOOK})?".replace("(", "(?:").replace("(?:?:", "(?:"))

_ZH_NOUNS = {noun: shape for shape, (_, noun) in ZH_SHAPES.items()}
_ZH_LOOK = (
    rf"({_any(ZH_NUMBERS[1:])})({_any({measure for measure, _ in ZH_SHAPES.values()})})"
    rf"({_any(ZH_COLORS.values())})的({_any(ZH_SIZES.values())})({_any(_ZH_NOUNS)})"
)
_ZH_ONE = re.compile(rf"({_any(ZH_PLACES.values())})有{_ZH_LOOK}")
_ZH_RELATION = re.compile(rf"{_ZH_LOOK}在{_ZH_LOOK}的({_any(zh for _, zh in RELATIONS.values())})")
_ZH_LIST = re.compile(rf"{_ZH_LOOK}(?:(?:、{_ZH_LOOK})*和{_ZH_LOOK})?".replace("(", "(?:").replace("(?:?:", "(?:"))


def _english(text: str) -> Description | None:
    sides = {en: side for side, (en, _) in RELATIONS.items()}
    places = {en: field for field, en in EN_PLACES.items()}
    if found := _EN_ONE.fullmatch(text):
        return _told([_en_look(*found.groups()[:4])], place=places[found[5]])
    if found := _EN_RELATION.fullmatch(text):
        return _told([_en_look(*found.groups()[:4]), _en_look(*found.groups()[5:])], side=sides[found[5]])
    return _told([_en_look(*parts) for parts in re.findall(_EN_LOOK, text)]) if _EN_LIST.fullmatch(text) else None


def _chinese(text: str) -> Description | None:
    sides = {zh: side for side, (_, zh) in RELATIONS.items()}
    places = {zh: field for field, zh in ZH_PLACES.items()}
    if found := _ZH_ONE.fullmatch(text):
        return _told([_zh_look(*found.groups()[1:])], place=places[found[1]])
    if found := _ZH_RELATION.fullmatch(text):
        return _told([_zh_look(*found.groups()[:5]), _zh_look(*found.groups()[5:10])], side=sides[found[11]])
    return _told([_zh_look(*parts) for parts in re.findall(_ZH_LOOK, text)]) if _ZH_LIST.fullmatch(text) else None


Claim = tuple[Look, int] | None


def _told(claims: list[Claim], place: tuple[int, int] | None = None, side: str | None = None) -> Description | None:
    looks: Counter[Look] = Counter()
    for claim in claims:
        if claim is None:
            return None
        looks[claim[0]] += claim[1]
    if (place is not None or side is not None) and sum(looks.values()) != len(claims):
        return None  # only single things have a place here
    order = [claim[0] for claim in claims if claim is not None]
    return Description(looks, place, (order[0], side, order[1]) if side is not None else None)


def _en_look(n: str, size: str, color: str, noun: str) -> Claim:
    """None for `two star` or `a stars`."""
    count, (shape, form) = EN_NUMBERS.index(n), _EN_NOUNS[noun]
    return ((size, color, shape), count) if (count > 1) == (form > 1) else None  # type: ignore[return-value]


def _zh_look(n: str, measure: str, color: str, size: str, noun: str) -> Claim:
    """None for another noun's measure word; 个 goes with all."""
    shape = _ZH_NOUNS[noun]
    if measure not in (ZH_SHAPES[shape][0], "个"):
        return None
    colors, sizes = {zh: en for en, zh in ZH_COLORS.items()}, {zh: en for en, zh in ZH_SIZES.items()}
    return (sizes[size], colors[color], shape), ZH_NUMBERS.index(n)  # type: ignore[return-value]
