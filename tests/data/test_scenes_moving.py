"""Scenes that move: captions that are true of the frames, read back from the pixels."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from tonggan.data.sources import scenes
from tonggan.data.sources.scenes.motion import (
    ACTS,
    FRAMES,
    HELD_OUT_WAYS,
    STEPS,
    TRAVEL,
    MovingScene,
    chinese,
    draw_frames,
    encode_frames,
    english,
    random_motion,
)  # fmt: skip
from tonggan.data.sources.scenes.world import Thing
from tonggan.data.video import VideoProcessing, VideoProcessor, load_frames
from tonggan.types import Row

ZH_WAYS = {"向左": "left", "向右": "right", "向上": "up", "向下": "down"}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(scenes.generate_moving(300, seed=5))


def scene_of(row: Row) -> MovingScene:
    return MovingScene.from_json(row.meta["scene"])


def moved(frames: np.ndarray) -> tuple[float, float]:
    """How far the only thing of a clip goes, to the right and down, by the middle of its ink."""
    ink = 255 - frames.min(axis=3).astype(float)
    places = np.arange(frames.shape[1]) / frames.shape[1]
    x = (ink.sum(axis=1) * places).sum(axis=1) / ink.sum(axis=(1, 2))
    y = (ink.sum(axis=2) * places).sum(axis=1) / ink.sum(axis=(1, 2))
    return float(x[-1] - x[0]), float(y[-1] - y[0])


def test_clips_are_stored_without_loss(rows: list[Row]) -> None:
    for row in rows[:60]:
        stored = row.videos[0].data
        assert stored is not None and len(stored) < 3_000
        assert np.array_equal(load_frames(row.videos[0], FRAMES), draw_frames(scene_of(row), 64))
    assert VideoProcessor(VideoProcessing(frames=4))(rows[0].videos[0]).shape == (4, 3, 224, 224)


def test_captions_say_which_way_and_how_fast(rows: list[Row]) -> None:
    seen: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if scene_of(row).act != "move":
            continue
        dx, dy = moved(load_frames(row.videos[0], FRAMES))
        along, across = (dx, dy) if abs(dx) > abs(dy) else (dy, dx)
        way = ("right" if dx > 0 else "left") if abs(dx) > abs(dy) else ("down" if dy > 0 else "up")
        speed = "slow" if abs(along) < (TRAVEL["slow"][1] + TRAVEL["fast"][0]) / 2 else "fast"
        assert abs(across) < 0.01
        en, zh = (text.text for text in row.texts)
        assert en.endswith(f"moves {({'slow': 'slowly', 'fast': 'quickly'})[speed]} {'to the ' * (way in ('left', 'right'))}{way}")
        found = re.fullmatch(r"一[个颗弯].+(向[左右上下])(快速|缓慢)移动", zh)
        assert found and ZH_WAYS[found[1]] == way and (found[2] == "快速") == (speed == "fast"), zh
        seen[way, speed] += 1
    assert len(seen) == 8


def test_things_appear_and_vanish_where_captions_say(rows: list[Row]) -> None:
    acts: Counter[str] = Counter()
    for row in rows:
        one = scene_of(row)
        if one.act in ("appear", "vanish"):
            ink = (load_frames(row.videos[0], FRAMES) < 200).any(axis=(1, 2, 3)).tolist()
            first, last = [one.act == "vanish"] * one.turn, [one.act == "appear"] * (FRAMES - one.turn)
            assert ink == first + last and 3 <= one.turn <= 5
            acts[one.act] += 1
    assert acts["appear"] > 30 and acts["vanish"] > 30


def test_a_bystander_stands_still_and_apart(rows: list[Row]) -> None:
    beside = [scene_of(row) for row in rows if scene_of(row).act == "move beside"]
    assert len(beside) > 30
    for one in beside:
        assert one.still is not None and one.still.look[1:] != one.thing.look[1:]
        for number in range(FRAMES):
            moving, still = one.frame(number).things
            assert still == one.still and np.hypot(moving.x - still.x, moving.y - still.y) > moving.r + still.r
            assert moving.r < moving.x < 1 - moving.r and moving.r < moving.y < 1 - moving.r


def test_splits_share_no_caption_and_hold_combinations_back(rows: list[Row]) -> None:
    sides: dict[str, set[str | None]] = {}
    for row in rows:
        assert (row.split == "combination") == scene_of(row).held_out
        sides.setdefault(row.texts[0].text, set()).add(row.split)
    assert all(len(side) == 1 for side in sides.values()) and {row.split for row in rows} == {"train", "val", "test", "combination"}
    trained = [scene_of(row) for row in rows if row.split == "train"]
    ways = {(one.thing.shape, one.direction) for one in trained if one.direction}
    assert not ways & HELD_OUT_WAYS
    assert {way for _, way in ways} == set(STEPS) and {shape for shape, _ in ways} == set(scenes.SHAPES)
    assert {one.act for one in trained} == set(ACTS)


def test_scenes_are_seeded_and_endless() -> None:
    few, more = scenes.generate_moving(4, seed=3), scenes.generate_moving(7, seed=3)
    assert [few[i].videos[0].data for i in range(4)] == [more[i].videos[0].data for i in range(4)]
    assert scene_of(few[0]) == random_motion(np.random.default_rng([3, 0])) and few[0].videos[0].fps == 8
    assert few[0].texts != scenes.generate_moving(1, seed=4)[0].texts


def test_the_source_gives_them_on_request() -> None:
    (moving,) = scenes.Scenes().rows(n=1, moving=True)
    (still,) = scenes.Scenes().rows(n=1)
    assert moving.videos and not moving.images and still.images and not still.videos
    assert still.images[0].data == scenes.generate(1)[0].images[0].data


def test_captions_of_each_act() -> None:
    star, circle = Thing("star", "red", "small", 0.2, 0.2, 0.08), Thing("circle", "blue", "large", 0.7, 0.7, 0.15)
    cases = [
        (MovingScene("move", star, "right", "fast", 0.5), "a small red star moves quickly to the right", "一颗红色的小五角星向右快速移动"),
        (MovingScene("move", circle, "up", "slow", 0.2), "a large blue circle moves slowly up", "一个蓝色的大圆形向上缓慢移动"),
        (
            MovingScene("move beside", star, "down", "slow", 0.2, still=circle),
            "a small red star moves slowly down while a large blue circle stands still",
            "一颗红色的小五角星向下缓慢移动，一个蓝色的大圆形静止不动",
        ),
        (MovingScene("appear", star, turn=4), "a small red star appears in the upper left corner", "左上角出现了一颗红色的小五角星"),
        (MovingScene("vanish", star, turn=4), "a small red star in the upper left corner vanishes", "左上角的一颗红色的小五角星消失了"),
    ]
    for one, en, zh in cases:
        assert (english(one), chinese(one)) == (en, zh)
        assert MovingScene.from_json(one.to_json()) == one


def test_frames_that_stay_are_stored_once() -> None:
    still = draw_frames(MovingScene("appear", Thing("star", "red", "small", 0.2, 0.2, 0.08), turn=4), 64)
    assert len(encode_frames(still)) < 2 * len(encode_frames(still[[0, 7]]))
