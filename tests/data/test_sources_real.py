"""The real sources, where they are installed: counts, languages, no leaks, pictures that show something."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from tonggan.data import sources
from tonggan.data.doctor import doctor
from tonggan.data.media import load_image
from tonggan.data.rows import Dataset
from tonggan.data.sources import render
from tonggan.data.sources.splits import caption_key, concepts, held_out_captions
from tonggan.types import Row


@pytest.fixture(scope="module", autouse=True)
def fresh_pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Rendered pictures go to a place of their own; fetched archives stay where the user has them."""
    place = tmp_path_factory.mktemp("pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render, "cache_home", lambda: place)
        yield
    rows_of.cache_clear()


@cache
def rows_of(name: str) -> list[Row]:
    return list(sources.load(name, size=32))


REAL = [
    pytest.param("openmoji", marks=pytest.mark.source("openmoji")),
    pytest.param("stamps", marks=pytest.mark.source("stamps")),
    pytest.param("emoji", marks=pytest.mark.source("emoji")),
    pytest.param("openclipart", marks=[pytest.mark.source("openclipart"), pytest.mark.slow]),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_rows_are_whole(name: str):
    rows = rows_of(name)
    assert len({row.id for row in rows}) == len(rows)
    assert all(row.texts and row.images and row.group and row.split for row in rows)
    assert all(row.meta["source"] == name and row.meta["licence"] for row in rows)
    assert all(text.text == text.text.strip() != "" for row in rows for text in row.texts)
    assert not any("_" in text.text for row in rows for text in row.texts if name in ("openmoji", "emoji"))


@pytest.mark.parametrize("name", REAL)
def test_pictures_show_something(name: str):
    rows = rows_of(name)[::7]
    assert not [row.id for row in rows if np.asarray(load_image(row.images[0])).std() == 0]


@pytest.mark.parametrize("name", REAL)
def test_no_concept_caption_or_picture_stands_on_both_sides(name: str):
    rows = rows_of(name)
    sides: dict[tuple[str, str], set[str | None]] = defaultdict(set)
    for row in rows:
        sides["group", str(row.group)].add(row.split)
        for key in ("picture", "concept"):
            if key in row.meta:
                sides[key, row.meta[key]].add(row.split)
        sides["caption", caption_key(row.texts[0].text)].add(row.split)
    assert not {key for key, side in sides.items() if len(side) > 1}
    count = Counter(row.split for row in rows)
    assert min(count["test"], count["val"]) >= 0.03 * len(rows)


@pytest.mark.parametrize("name", REAL[:2])  # the others take longer, by the same rule
def test_the_doctor_finds_no_leak_of_a_meaning_or_picture(name: str):
    found = doctor(Dataset.from_rows(rows_of(name)))
    assert not [error for error in found.errors if error.code.startswith("leak")]


@pytest.mark.source("openmoji")
def test_openmoji_has_chinese_and_english_for_each_drawing():
    rows = rows_of("openmoji")
    assert len(rows) > 1500
    assert all([text.lang for text in row.texts] == ["en", "zh"] for row in rows)
    named = {row.texts[0].text: row.texts[1].text for row in rows}
    assert (named["red apple"], named["cat"], named["umbrella with rain drops"]) == ("红苹果", "猫", "雨伞")
    red = next(row for row in rows if row.texts[0].text == "red circle")
    assert np.asarray(load_image(red.images[0]))[16, 16].tolist()[0] > 180


@pytest.mark.slow
@pytest.mark.source("openmoji")
def test_openmoji_variants_join_the_group_of_their_base():
    plain, toned = rows_of("openmoji"), sources.load("openmoji", size=32, skin_tones=True, languages=("en", "ja"))
    assert len(toned) > len(plain) + 1000
    waves = [row for row in toned if row.group == "emoji:1F44B"]
    assert len(waves) == 6
    assert len({row.split for row in waves}) == 1
    assert {text.lang for text in waves[0].texts} == {"en", "ja"}


@pytest.mark.source("stamps")
def test_stamps_are_all_there_with_their_languages():
    rows = rows_of("stamps")
    assert len(rows) >= 945
    assert sum(any(text.lang == "zh" for text in row.texts) for row in rows) >= 765
    assert sum(len(row.audios) for row in rows) > 0
    assert sum(row.meta["original"].endswith(".svg") for row in rows) >= 165


@pytest.mark.source("stamps")
@pytest.mark.parametrize("seed", range(5))
def test_stamps_splits_hold_out_150_captions(seed: int):
    rows = held_out_captions(rows_of("stamps"), seed=seed)
    test = [row for row in rows if row.split == "test"]
    assert len({row.texts[0].text for row in test}) == len(test) == 150
    number = concepts(rows)
    sides: dict[int, set[str | None]] = defaultdict(set)
    for i, row in enumerate(rows):
        sides[number[i]].add(row.split)
    assert not [side for side in sides.values() if "train" in side and len(side) > 1]


@pytest.mark.source("emoji")
def test_every_emoji_is_drawn_by_every_artist():
    rows = rows_of("emoji")
    artists = Counter(row.meta["artist"] for row in rows)
    assert set(artists) == {"openmoji", "google", "twitter"}
    assert len(set(artists.values())) == 1
    assert artists["google"] > 1500
    assert sum("keywords_zh" in row.meta for row in rows) > 0.9 * len(rows)
    pictures = {row.images[0].path.read_bytes() for row in rows if row.group == "emoji:1F34E" and row.images[0].path}
    assert len(pictures) == 3


@pytest.mark.source("emoji")
def test_the_held_out_artist_is_never_trained_on():
    rows = sources.load("emoji", size=32, held_out="openmoji", keywords=True)
    assert {(row.meta["artist"], row.split) for row in rows} == {("google", "train"), ("twitter", "train"), ("openmoji", "test")}
    assert all(len(row.texts) >= 2 for row in rows)


@pytest.mark.source("openclipart")
@pytest.mark.slow
def test_openclipart_has_titles_where_drawings_have_them():
    rows = rows_of("openclipart")
    assert len(rows) > 6500
    if sources.get("openclipart").has_titles:
        assert Counter(row.meta["caption_from"] for row in rows)["title"] > 2500
