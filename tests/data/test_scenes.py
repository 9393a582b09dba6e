"""The world of coloured shapes: same seed same scene, captions that are true, and a reader that is exact."""

from __future__ import annotations

import io
import re
from collections import Counter

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

from tonggan.data.sources import SOURCES, scenes
from tonggan.data.sources.scenes.draw import coverage
from tonggan.data.sources.scenes.words import relation
from tonggan.data.sources.scenes.world import RADII, Scene, Thing
from tonggan.data.splits import leaks
from tonggan.types import UsageError

N = 300


def scene(i: int, seed: int = 7) -> Scene:
    return scenes.random_scene(np.random.default_rng([seed, i]))


def looks(one: Scene | None) -> Counter[tuple[str, str, str]]:
    assert one is not None, "read as outside this world"
    return Counter(thing.look for thing in one.things)


@pytest.mark.parametrize("size", [64, pytest.param(96, marks=pytest.mark.slow), 128])
def test_read_is_exact_on_clean_pictures(size: int):
    right = total = 0
    for i in range(N if size == 96 else N // 5):
        truth = scene(i)
        found = scenes.read(scenes.draw(truth, size))
        total += 3 * len(truth.things)
        if found is None:
            continue
        for thing in truth.things:
            near = min(found.things, key=lambda other: abs(other.x - thing.x) + abs(other.y - thing.y))
            assert abs(near.x - thing.x) + abs(near.y - thing.y) < 0.01
            right += sum(a == b for a, b in zip(near.look, thing.look, strict=True))
        assert len(found.things) == len(truth.things)
    assert right / total >= 0.995


def test_read_survives_jpeg_for_most_pictures():
    right = 0
    for i in range(50):
        buffer = io.BytesIO()
        PIL.Image.fromarray(scenes.draw(scene(i), 96)).save(buffer, "JPEG", quality=85)
        found = scenes.read(PIL.Image.open(buffer))
        right += found is not None and looks(found) == looks(scene(i))
    assert right >= 45


def outside() -> dict[str, PIL.Image.Image]:
    blank = PIL.Image.new("RGB", (96, 96), "white")
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    pictures = {"blank": blank, "noise": noise, "small": blank.resize((20, 20)), "wide": blank.resize((96, 64))}
    drawings = {
        "ellipse": lambda d: d.ellipse((10, 30, 70, 55), fill=(214, 40, 40)),
        "bar": lambda d: d.rectangle((10, 30, 80, 40), fill=(36, 92, 214)),
        "huge circle": lambda d: d.ellipse((5, 5, 90, 90), fill=(214, 40, 40)),
        "cyan circle": lambda d: d.ellipse((30, 30, 54, 54), fill=(0, 255, 255)),
        "dark ground": lambda d: d.rectangle((0, 0, 96, 96), fill=(24, 24, 24)),
        "letter": lambda d: d.text((30, 20), "R", fill=(24, 24, 24), font_size=50),
    }
    for name, draw in drawings.items():
        pictures[name] = blank.copy()
        draw(PIL.ImageDraw.Draw(pictures[name]))
    return pictures


@pytest.mark.parametrize("name", outside())
def test_pictures_of_another_world_are_refused(name: str):
    assert scenes.read(outside()[name]) is None


def test_a_circle_drawn_by_someone_else_is_read():
    picture = PIL.Image.new("RGB", (96, 96), "white")
    PIL.ImageDraw.Draw(picture).ellipse((24, 24, 53, 53), fill=(210, 45, 38))
    assert looks(scenes.read(picture)) == Counter([("large", "red", "circle")])


def test_generate_is_seeded_and_endless():
    few, more = scenes.generate(5, seed=3), scenes.generate(9, seed=3)
    assert [few[i].images[0].data for i in range(5)] == [more[i].images[0].data for i in range(5)]
    assert few[0].texts != scenes.generate(1, seed=4)[0].texts


def test_splits_share_no_caption_and_hold_combinations_back():
    rows = list(scenes.generate(400, seed=1, size=48))
    sides: dict[str, set[str | None]] = {}
    for row in rows:
        truth = Scene.from_json(row.meta["scene"])
        assert (row.split in ("combination", "spare")) == truth.held_out
        sides.setdefault(row.texts[0].text, set()).add(row.split)
    assert all(len(side) == 1 for side in sides.values())
    assert {row.split for row in rows} >= {"train", "val", "test", "combination"}
    training = [Scene.from_json(row.meta["scene"]) for row in rows if row.split == "train"]
    assert {thing.color for one in training for thing in one.things} == set(scenes.COLORS)
    assert {thing.shape for one in training for thing in one.things} == set(scenes.SHAPES)


def test_no_side_has_a_picture_that_looks_like_one_of_another():
    dataset = scenes.generate(150, seed=39, size=48)
    assert "spare" in dataset.splits, "this seed has a held-out scene that looks like another one"
    assert leaks(dataset, by=("picture", "caption")) == []


def test_rows_say_that_they_are_synthetic():
    (row,) = scenes.generate(1)
    assert row.meta["synthetic"] == "yes"
    assert not scenes.Scenes.real
    assert {text.lang for text in row.texts} == {"en", "zh"}


def test_things_stay_apart_and_inside():
    for i in range(N):
        things = scene(i).things
        for a in things:
            assert a.r < a.x < 1 - a.r and a.r < a.y < 1 - a.r
            assert RADII[a.size][0] <= a.r <= RADII[a.size][1]
        for a, b in ((a, b) for n, a in enumerate(things) for b in things[:n]):
            assert np.hypot(a.x - b.x, a.y - b.y) > a.r + b.r + 0.03


def test_every_shape_fills_its_unit_circle():
    for shape in scenes.SHAPES:
        rows, columns, alpha = coverage(Thing(shape, "red", "large", 0.5, 0.5, 0.17), 96)
        y, x = np.nonzero(alpha > 0.5)
        far = np.hypot((y + rows.start + 0.5) / 96 - 0.5, (x + columns.start + 0.5) / 96 - 0.5).max() / 0.17
        assert 0.85 < far <= 1.02, shape


# ---------------------------------------------------------------------------------------------------- words

_ZH = dict(
    zip(
        ["圆形", "正方形", "三角形", "菱形", "五角星", "爱心", "十字", "圆环", "月牙"],
        ["circle", "square", "triangle", "diamond", "star", "heart", "cross", "ring", "moon"],
        strict=True,
    )
)
_ZH_COLORS = dict(
    zip(
        ["红色", "橙色", "黄色", "绿色", "蓝色", "紫色", "粉色", "棕色", "灰色", "黑色"],
        ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "black"],
        strict=True,
    )
)
_NUMBERS = {"a": 1, "two": 2, "three": 3, "four": 4, "five": 5, "一": 1, "两": 2, "三": 3, "四": 4, "五": 5}


def parse_english(caption: str) -> Counter[tuple[str, str, str]]:
    found = re.findall(rf"({'|'.join(k for k in _NUMBERS if k.isascii())}) (small|large) (\w+) ({'|'.join(scenes.SHAPES)})", caption)
    return sum((Counter({(size, color, shape): _NUMBERS[n]}) for n, size, color, shape in found), Counter())


def parse_chinese(caption: str) -> Counter[tuple[str, str, str]]:
    found = re.findall(rf"([一两三四五])[个颗弯]({'|'.join(_ZH_COLORS)})的([大小])({'|'.join(_ZH)})", caption)
    return sum(
        (Counter({("small" if s == "小" else "large", _ZH_COLORS[c], _ZH[noun]): _NUMBERS[n]}) for n, c, s, noun in found), Counter()
    )


def test_both_captions_say_exactly_what_is_there():
    for i in range(N):
        truth = scene(i)
        assert parse_english(scenes.english(truth)) == looks(truth), scenes.english(truth)
        assert parse_chinese(scenes.chinese(truth)) == looks(truth), scenes.chinese(truth)


def test_captions_of_each_kind():
    star, circle = Thing("star", "red", "small", 0.2, 0.2, 0.08), Thing("circle", "blue", "large", 0.7, 0.25, 0.15)
    assert scenes.english(Scene((star,), "one")) == "a small red star in the upper left corner"
    assert scenes.chinese(Scene((star,), "one")) == "左上角有一颗红色的小五角星"
    assert scenes.english(Scene((star, star), "count")) == "two small red stars"
    assert scenes.chinese(Scene((star, star), "count")) == "两颗红色的小五角星"
    assert scenes.english(Scene((circle, star), "relation")) == "a large blue circle to the right of a small red star"
    assert scenes.chinese(Scene((circle, star), "relation")) == "一个蓝色的大圆形在一颗红色的小五角星的右边"
    assert scenes.english(Scene((circle, star, star), "several")) == "a large blue circle and two small red stars"
    assert scenes.chinese(Scene((circle, star, star), "several")) == "一个蓝色的大圆形和两颗红色的小五角星"


def test_relations_are_clear_in_the_picture():
    related = [one for one in map(scene, range(N)) if one.kind == "relation"]
    assert len(related) > 30
    assert {relation(*one.things) for one in related} == {"left", "right", "above", "below"}
    for one in related:
        a, b = one.things
        near, far = sorted((abs(a.x - b.x), abs(a.y - b.y)))
        assert far > 0.3 > 0.21 > near
        assert a.look[1:] != b.look[1:]


def test_json_keeps_a_scene():
    assert Scene.from_json(scene(5).to_json()) == scene(5)


@pytest.mark.parametrize("options", [{}, {"labels": True}, {"sounding": True}, {"moving": True}, {"moving": True, "events": True}])
def test_captions_are_in_the_languages_that_are_asked_for(options: dict[str, bool]) -> None:
    both, one = (list(SOURCES["scenes"].rows(n=6, size=32, **options, **langs)) for langs in ({}, {"langs": ["zh"]}))
    assert [row.texts for row in one] == [tuple(text for text in row.texts if text.lang == "zh") for row in both]
    assert [(row.id, row.split, row.meta) for row in one] == [(row.id, row.split, row.meta) for row in both]
    with pytest.raises(UsageError, match="language"):
        SOURCES["scenes"].rows(n=2, langs=["fr"], **options)


def test_labels_are_what_all_things_share() -> None:
    plain, labelled = list(scenes.generate(60, 3, size=32)), list(scenes.generate(60, 3, size=32, labels=True))
    for before, row in zip(plain, labelled, strict=True):
        things = scenes.Scene.from_json(row.meta["scene"]).things
        assert row.texts == before.texts and row.split == before.split and row.images[0].data == before.images[0].data
        assert {name: row.meta[name] for name in before.meta} == before.meta, "and nothing else changes"
        expected = {"shape": {t.shape for t in things}, "colour": {t.color for t in things}, "size": {t.size for t in things}}
        assert {name: row.meta.get(name) for name in expected} == {n: next(iter(v)) if len(v) == 1 else None for n, v in expected.items()}
        assert row.meta["number"] == str(len(things))
        assert ("place" in row.meta) == (row.meta["kind"] == "one") and row.texts[0].text.endswith(row.meta.get("place", ""))
    with pytest.raises(UsageError, match="labels are of pictures with captions"):
        SOURCES["scenes"].rows(n=4, labels=True, ask=True)
