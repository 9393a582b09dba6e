"""Near duplicates and the splits that hold them together."""

from __future__ import annotations

import io
import time
from collections import Counter

import numpy as np
import PIL.Image
import pytest
from draw import encoded, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageDraw, ImageEnhance

from tonggan.data.rows import Dataset
from tonggan.data.similar import SIDE, Pictures, components, near_duplicates, scan
from tonggan.data.splits import leaks, propose_split
from tonggan.types import Image, Row, Text, UsageError


def dataset_of(pictures, **fields) -> Dataset:
    return Dataset.from_rows(Row(id=str(n), images=(Image(array=one),), **fields) for n, one in enumerate(pictures))


def jpeg(image: PIL.Image.Image, quality: int) -> PIL.Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return PIL.Image.open(buffer)


def test_copies_are_found_and_others_are_not():
    pictures = [picture(n, (160, 120)) for n in range(30)]
    first = pictures[0]
    rng = np.random.default_rng(0)
    noisy = np.clip(np.asarray(first, np.int16) + rng.normal(0, 4, (120, 160, 3)), 0, 255).astype(np.uint8)
    copies = [
        first.copy(),
        jpeg(first, 40),
        first.resize((80, 60)),
        ImageEnhance.Brightness(first).enhance(1.03),
        PIL.Image.fromarray(noisy),
    ]
    pairs = near_duplicates(scan(dataset_of([*pictures, *copies])))
    joined = components(35, pairs)
    assert [n for n in range(35) if joined[n] == 0] == [0, 30, 31, 32, 33, 34]
    assert len(set(joined)) == 30


def shape(kind: str, colour: tuple[int, int, int]) -> PIL.Image.Image:
    image = PIL.Image.new("RGB", (96, 96), (235, 235, 240))
    pen = ImageDraw.Draw(image)
    (pen.ellipse if kind == "circle" else pen.rectangle)([30, 30, 66, 66], fill=colour)
    return image


def test_colour_and_shape_keep_drawings_on_one_ground_apart():
    pictures = [shape(kind, colour) for kind in ("circle", "square") for colour in ((220, 40, 40), (40, 180, 60), (40, 70, 220))]
    assert near_duplicates(scan(dataset_of(pictures))) == []


def test_two_pink_things_in_different_places_are_not_one_picture():
    pictures = [PIL.Image.new("RGB", (96, 96), "white") for _ in range(2)]
    for image, box in zip(pictures, ([20, 10, 30, 20], [70, 70, 80, 80]), strict=True):
        ImageDraw.Draw(image).ellipse(box, fill=(248, 150, 190))
    assert near_duplicates(scan(dataset_of(pictures))) == []


def test_unreadable_pictures_are_told_and_are_like_nothing():
    rows = [Row(id=str(n), images=(Image(data=b"broken"),)) for n in range(3)] + [Row(id="far", images=(Image(url="https://x/y.jpg"),))]
    found = scan(Dataset.from_rows(rows))
    assert len(found) == 3 and set(found.reasons) == {0, 1, 2} and near_duplicates(found) == []


@pytest.mark.parametrize("ground", ["noise", "white"])
def test_pairs_equal_those_of_comparing_everything_with_everything(ground):
    """On white too, where most are told apart by what is white in one and dark in the other: greys at the limits, moved and noisy."""
    rng = np.random.default_rng(1)
    base = rng.integers(0, 255, (40, SIDE, SIDE, 3))
    if ground == "white":
        drawn = rng.random((40, SIDE, SIDE, 1)) < 0.03
        base = np.where(drawn, rng.choice([180, 185, 190, 195, 240], (40, SIDE, SIDE, 1)), 250) + rng.integers(0, 5, (40, SIDE, SIDE, 3))
    small = np.clip(base[rng.integers(0, 40, 300)] + rng.integers(-9, 9, (300, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    small[100:110] = small[0]
    hashes = rng.integers(0, 2**12, 300).astype(np.uint64)
    hashes[100:110] = hashes[0]
    found = near_duplicates(Pictures(np.arange(300), np.ones((300, 3), np.int64), hashes, small, {}))
    expected = []
    for a in range(300):
        for b in range(a + 1, 300):
            difference = np.abs(small[a].astype(int) - small[b])
            bits = int(hashes[a] ^ hashes[b]).bit_count()
            if bits <= 10 and difference.mean() <= 6 and difference.max() <= 60:
                expected.append((a, b))
    assert components(300, found) == components(300, expected) and len(expected) > 300


def test_ten_thousand_pictures_are_compared_in_seconds():
    rng = np.random.default_rng(0)
    many = Pictures(
        np.arange(10_000),
        np.ones((10_000, 3), np.int64),
        rng.integers(0, 2**63, 10_000).astype(np.uint64),
        rng.integers(0, 255, (10_000, SIDE, SIDE, 3), dtype=np.uint8),
        {},
    )
    many.small[5000:] = many.small[0]  # five thousand blank pages are five thousand pairs, not twelve million
    many.hashes[5000:] = many.hashes[0]
    start = time.process_time()
    assert len(near_duplicates(many)) == 5000
    assert time.process_time() - start < 5


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=30))
def test_components_are_the_connected_ones(count, pairs):
    pairs = [(a % count, b % count) for a, b in pairs]
    label = list(range(count))
    for _ in range(count):  # the slow way: pass the smallest number along until nothing changes
        for a, b in pairs:
            label[a] = label[b] = min(label[a], label[b])
    assert components(count, pairs) == label


# ---------------------------------------------------------------------------------------------- splits


def rows_of(groups: list[str | None], artists: list[str | None], langs: list[str]) -> Dataset:
    return Dataset.from_rows(
        Row(id=str(n), texts=(Text(f"words {n}", lang),), group=group, meta={"artist": artist} if artist else {})
        for n, (group, artist, lang) in enumerate(zip(groups, artists, langs, strict=True))
    )


few = st.sampled_from([None, "a", "b", "c", "d", "e"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(few, few, st.sampled_from(["zh", "en"])), min_size=2, max_size=40), st.integers(0, 3))
def test_a_proposal_never_leaks_and_repeats(rows, seed):
    dataset = rows_of([g for g, _, _ in rows], [a for _, a, _ in rows], [lang for _, _, lang in rows])
    try:
        proposal = propose_split(dataset, seed=seed, by=("group", "artist"))
    except UsageError:
        pairs = [
            (a, b) for a in range(len(rows)) for b in range(a) if any(x and x == y for x, y in zip(rows[a][:2], rows[b][:2], strict=True))
        ]
        assert set(components(len(rows), pairs)) == {0}, "refused although it could be split"
        return
    assert leaks(dataset.with_splits(proposal.names), by=("group", "artist")) == []
    assert propose_split(dataset, seed=seed, by=("group", "artist")) == proposal
    assert sum(proposal.counts.values()) == len(rows)


def test_fractions_and_languages_are_met():
    rng = np.random.default_rng(0)
    groups = [f"g{n}" for n in rng.integers(0, 150, 600)]
    langs = ["zh" if n < 0.25 else "en" for n in rng.random(600)]
    dataset = rows_of(groups, [None] * 600, langs)
    proposal = propose_split(dataset, {"train": 7, "val": 1, "test": 2}, by=("group",))
    counts = proposal.counts
    assert abs(counts["train"] - 420) <= 6 and abs(counts["val"] - 60) <= 6 and abs(counts["test"] - 120) <= 6
    for name, count in counts.items():
        chinese = sum(lang == "zh" for lang, side in zip(langs, proposal.names, strict=True) if side == name)
        assert abs(chinese / count - langs.count("zh") / 600) < 0.04
    assert propose_split(dataset, by=("group",), seed=1).names != propose_split(dataset, by=("group",), seed=2).names


def test_chains_of_ties_are_followed():
    """1 and 2 share a group, 2 and 3 a picture, 3 and 4 an artist, 4 and 5 a caption: one part; 6 to 9 are free."""
    rows = [
        Row(id="1", group="g", images=(Image(data=encoded(1)),)),
        Row(id="2", group="g", images=(Image(data=encoded(2)),)),
        Row(id="3", images=(Image(data=encoded(2, "PNG")),), meta={"artist": "x"}),
        Row(id="4", images=(Image(data=encoded(4)),), meta={"artist": "x"}, texts=(Text("A cat."),)),
        Row(id="5", images=(Image(data=encoded(5)),), texts=(Text("a  cat"),)),
        *[Row(id=str(n), images=(Image(data=encoded(n)),)) for n in range(6, 10)],
    ]
    proposal = propose_split(Dataset.from_rows(rows), {"train": 1, "test": 1}, by=("group", "picture", "artist", "caption"))
    assert proposal.parts == 5 and len(set(proposal.names[:5])) == 1
    assert propose_split(Dataset.from_rows(rows), by=("group", "picture")).parts == 7


def test_one_artists_data_can_still_be_split():
    dataset = rows_of([None] * 20, ["only"] * 20, ["en"] * 20)
    proposal = propose_split(dataset, pictures=scan(dataset))
    assert proposal.by == ("group", "picture") and proposal.parts == 20 and "artist" in proposal.notes[0]
    with pytest.raises(UsageError, match="20 rows, but all hang together by artist"):
        propose_split(dataset, by=("artist",))
    with pytest.raises(UsageError, match="above 0"):
        propose_split(dataset, {"train": 1, "test": 0})


def test_classes_stand_on_both_sides_and_are_balanced():
    classes = ["猫", "狗", "鸟"] * 10
    rows = [Row(id=str(n), group=c, meta={"class": c}, images=(Image(data=encoded(n)),)) for n, c in enumerate(classes)]
    dataset = Dataset.from_rows(rows)
    proposal = propose_split(dataset, {"train": 0.8, "test": 0.2})
    held_out = Counter(row.group for row, side in zip(rows, proposal.names, strict=True) if side == "test")
    assert held_out == {"猫": 2, "狗": 2, "鸟": 2}
    assert leaks(dataset.with_splits(proposal.names)) == []


def test_leaks_name_what_crosses():
    rows = [
        Row(id="1", group="g", split="train", images=(Image(data=encoded(1)),)),
        Row(id="2", group="g", split="test", images=(Image(data=encoded(2)),)),
        Row(id="3", split="train", images=(Image(data=encoded(3)),)),
        Row(id="4", split="test", images=(Image(data=encoded(3, quality=60)),)),
        Row(id="5", images=(Image(data=encoded(3)),)),
    ]
    found = leaks(Dataset.from_rows(rows))
    assert [(leak.tie, leak.rows, leak.splits) for leak in found] == [
        ("group", (0, 1), ("test", "train")),
        ("picture", (2, 3), ("test", "train")),
    ]
