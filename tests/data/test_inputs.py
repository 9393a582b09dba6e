"""Pictures pixel for pixel as others make them; processors told apart; order, loader, pairs and augmentation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tonggan.config import ConfigError
from tonggan.data.augment import Augment, augment
from tonggan.data.images import FILTERS, THIN, Filter, ImageProcessing, ImageProcessor, canonical_picture
from tonggan.data.loader import Loader, LoaderConfig
from tonggan.data.order import Stream
from tonggan.data.pairs import PairCollate, keys_of
from tonggan.data.processor import Processor
from tonggan.data.rows import Dataset
from tonggan.data.text import train_bpe
from tonggan.types import Image, Row, Text, TongganError, UsageError

SIZES = [(300, 200), (200, 300), (301, 199), (97, 411), (64, 64), (33, 35), (500, 64), (65, 64), (20, 90)]


def random_picture(width: int, height: int) -> Pil.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Pil.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("short", "crop"), [(64, 64), (72, 64), (48, 64)])
def test_as_transformers(size: tuple[int, int], short: int, crop: int) -> None:
    theirs = CLIPImageProcessorPil(
        size={"shortest_edge": short}, crop_size={"height": crop, "width": crop}, do_normalize=False, do_rescale=False
    )
    picture = random_picture(*size)
    expected = np.asarray(theirs(picture, return_tensors="np")["pixel_values"][0])
    mine = ImageProcessor(ImageProcessing(size=short, crop=crop, rounding="transformers"))(picture)
    assert np.abs(mine.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_as_open_clip(size: tuple[int, int]) -> None:
    """torchvision's arithmetic, which open_clip's transform is: Resize cuts the long side down, CenterCrop rounds half to even."""
    picture, (w, h), s = random_picture(*size), size, 64
    scaled = (s, int(s * h / w)) if w <= h else (int(s * w / h), s)
    resized = picture.resize(scaled, Pil.Resampling.BICUBIC)
    left, top = round((scaled[0] - s) / 2.0), round((scaled[1] - s) / 2.0)
    expected = np.asarray(resized.crop((left, top, left + s, top + s))).transpose(2, 0, 1)
    assert np.array_equal(ImageProcessor(ImageProcessing(size=s, rounding="openai"))(picture), expected)


@pytest.mark.parametrize("short", [61, 60, 59])
def test_a_crop_larger_than_the_picture_adds_black(short: int) -> None:
    """torchvision puts the odd line of black behind, transformers before."""
    picture, more = Pil.new("RGB", (short, short), "white"), 64 - short
    columns = {
        r: ImageProcessor(ImageProcessing(size=short, crop=64, rounding=r))(picture)[0, 32]  # type: ignore[arg-type]
        for r in ("openai", "transformers")
    }
    assert (columns["openai"] == 0).nonzero()[0].tolist() == [*range(more // 2), *range(64 - (more + 1) // 2, 64)]
    assert (columns["transformers"] == 0).nonzero()[0].tolist() == [*range((more + 1) // 2), *range(64 - more // 2, 64)]


@pytest.mark.parametrize("interpolation", ["bilinear", "hamming", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(2, 90), (90, 2), (3, 700), (1100, 33)])
@pytest.mark.parametrize(("short", "crop"), [(16, 16), (20, 16), (12, 16)])
def test_only_the_crop_of_a_thin_picture_is_scaled(size: tuple[int, int], short: int, crop: int, interpolation: Filter) -> None:
    picture = random_picture(*size)
    scaled = (short, int(short * size[1] / size[0])) if size[0] <= size[1] else (int(short * size[0] / size[1]), short)
    assert max(scaled) > THIN * min(scaled)
    left, top = ((length - crop) // 2 for length in scaled)
    whole = picture.resize(scaled, FILTERS[interpolation]).crop((left, top, left + crop, top + crop))
    mine = ImageProcessor(ImageProcessing(size=short, crop=crop, interpolation=interpolation))(picture)
    assert np.abs(mine.astype(int) - np.asarray(whole).transpose(2, 0, 1).astype(int)).max() <= 1


def test_a_thread_of_millions_of_pixels_takes_no_gigabytes() -> None:
    """Resized whole as CLIP's transform does, this one would take 20 GB."""
    thread = np.zeros((2_000_000, 1, 3), np.uint8)
    thread[999_000:1_001_000] = 200
    assert (ImageProcessor(ImageProcessing(size=32))(Pil.fromarray(thread)) == 200).all()


@pytest.mark.parametrize("wrong", [{"size": 0}, {"crop": 0}, {"std": [0, 1, 1]}, {"interpolation": "cubic"}], ids=lambda c: next(iter(c)))
def test_settings_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ImageProcessing.parse(wrong)


def test_the_roundings_differ() -> None:
    picture = random_picture(67, 64)
    one, two = (ImageProcessor(ImageProcessing(size=64, rounding=r))(picture) for r in ("openai", "transformers"))  # type: ignore[arg-type]
    assert not np.array_equal(one, two)


def test_squash_and_pad() -> None:
    wide = Pil.new("RGB", (100, 50), "red")
    assert (ImageProcessor(ImageProcessing(size=20, mode="squash"))(wide) == np.array([255, 0, 0]).reshape(3, 1, 1)).all()
    padded = ImageProcessor(ImageProcessing(size=20, mode="pad"))(wide)
    assert (padded[:, :5] == 255).all() and (padded[:, 15:] == 255).all()
    assert (padded[:, 6:14] == np.array([255, 0, 0]).reshape(3, 1, 1)).all()


def test_transparency_is_a_setting() -> None:
    clear = Pil.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert ImageProcessor(ImageProcessing(size=8))(clear).min() == 255
    assert ImageProcessor(ImageProcessing(size=8, transparency="ignore"))(clear).max() == 0


def processor(**image: object) -> Processor:
    tokenizer = train_bpe(["一只红色的鸟", "a red bird", "two blue birds"] * 2, 320, max_length=16)
    return Processor(ImageProcessor(ImageProcessing.parse({"size": 16, **image})), tokenizer)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 15},
        {"crop": 12},
        {"interpolation": "bilinear"},
        {"mode": "squash"},
        {"rounding": "openai"},
        {"mean": [0.5, 0.5, 0.5]},
        {"transparency": "ignore"},
    ],
    ids=lambda c: next(iter(c)),
)
def test_every_setting_shows_in_the_record(change: dict[str, object]) -> None:
    assert processor().record()["image"] != processor(**change).record()["image"]


def test_pixels_in_the_record_tell_what_settings_do() -> None:
    plain = processor().record()["image"]["pixels"]
    for change in ({"interpolation": "bilinear"}, {"mode": "squash"}, {"crop": 15}):
        assert processor(**change).record()["image"]["pixels"] != plain
    assert canonical_picture().size == (303, 211)


def test_token_ids_in_the_record() -> None:
    one = processor().record()["text"]
    assert one["max_length"] == 16 and one["vocab_size"] > 256
    shorter = Processor(None, processor().text.with_settings(max_length=9)).record()["text"]  # type: ignore[union-attr]
    assert shorter["ids.long"] != one["ids.long"]


def test_processor_saved_and_read(tmp_path: Path) -> None:
    first = processor(interpolation="lanczos")
    again = Processor.read(tmp_path, first.save(tmp_path))
    assert again.record() == first.record()


def test_tokens_are_never_padded_further_than_needed() -> None:
    made = processor()
    tokens = made.tokens(["a", "a red bird"])
    assert tokens.ids.shape[1] == int(tokens.lengths.max())
    fixed = Processor(None, made.text.with_settings(pad_to=16))  # type: ignore[union-attr]
    assert fixed.tokens(["a"]).ids.shape == (1, 16)


# ----------------------------------------------------------------------------------------------- order


@given(shards=st.lists(st.integers(1, 30), min_size=1, max_size=5), window=st.sampled_from([None, 1, 7, 100]), stop=st.integers(0, 150))
@settings(max_examples=60, deadline=None)
def test_resume_gives_the_same_rows(shards: list[int], window: int | None, stop: int) -> None:
    whole = Stream(shards, seed=3, window=window)
    rows = [next(whole) for _ in range(stop + 60)]
    first = Stream(shards, seed=3, window=window)
    for _ in range(stop):
        next(first)
    state = first.state()
    second = Stream(shards, seed=3, window=window)
    second.restore(state)
    assert [next(second) for _ in range(60)] == rows[stop:]


@pytest.mark.parametrize("window", [None, 5])
def test_every_row_once_per_epoch_and_another_order_each_time(window: int | None) -> None:
    stream = Stream([7, 12, 4], seed=0, window=window)
    epochs: dict[int, list[int]] = {}
    for _ in range(23 * 3):
        epoch, row = next(stream)
        epochs.setdefault(epoch, []).append(row)
    assert all(sorted(rows) == list(range(23)) for rows in epochs.values())
    assert len({tuple(rows) for rows in epochs.values()}) == 3


@pytest.mark.parametrize("window", [None, 6])
def test_ranks_share_the_streams_without_overlap(window: int | None) -> None:
    streams = [Stream([20, 20], seed=1, stream=s, streams=4, window=window) for s in range(4)]
    seen = Counter(next(stream)[1] for _ in range(10) for stream in streams)
    assert seen == Counter(range(40))


def test_more_streams_than_rows() -> None:
    with pytest.raises(TongganError, match="cannot be shared out"):
        Stream([2], seed=0, streams=4)


def rows(n: int = 20) -> Dataset:
    made = [
        Row(
            id=f"r{i}",
            images=(Image(array=np.full((8, 8, 3), i * 9 % 256, np.uint8)),),
            texts=(Text(f"picture {i}", "en"), Text(f"第{i}张图", "zh")),
            group=f"g{i % 7}",
        )
        for i in range(n)
    ]
    return Dataset.from_rows(made)


def test_threads_and_prefetch_change_nothing() -> None:
    batches = []
    for threads, prefetch in ((1, 1), (3, 4)):
        collate = PairCollate(processor(), seed=5, augmentation=Augment())
        loader = Loader(rows(), collate, LoaderConfig(batch_size=6, threads=threads, prefetch=prefetch), seed=5)
        batches.append([next(loader) for _ in range(9)])
        loader.close()
    for a, b in zip(*batches, strict=True):
        assert a.ids == b.ids
        assert a.pixels is not None and b.pixels is not None and torch.equal(a.pixels, b.pixels)
        assert a.tokens is not None and b.tokens is not None and torch.equal(a.tokens.ids, b.tokens.ids)


def test_state_is_of_what_was_taken_not_of_what_was_prefetched() -> None:
    def make() -> Loader:
        return Loader(rows(), PairCollate(processor(), seed=5), LoaderConfig(batch_size=6, prefetch=4), seed=5)

    first = make()
    for _ in range(4):
        next(first)
    state = first.state_dict()
    expected = [next(first).ids for _ in range(5)]
    second = make()
    second.load_state_dict(state)
    assert [next(second).ids for _ in range(5)] == expected
    first.close(), second.close()


def test_streams_must_fit_ranks_and_batch() -> None:
    with pytest.raises(UsageError, match="multiple of the 2 ranks"):
        Loader(rows(), PairCollate(processor(), seed=0), LoaderConfig(batch_size=6, streams=3), seed=0, world=2)


def test_keys_join_group_picture_and_caption() -> None:
    a, b, c = rows()[0], rows()[7], rows()[1]
    assert keys_of(a, "x")[0] == keys_of(b, "y")[0] != keys_of(c, "x")[0]
    assert keys_of(a, "Same words")[2] == keys_of(c, "same words ")[2]
    assert keys_of(a, "x")[1] == keys_of(a, "y")[1] != keys_of(c, "x")[1]
    assert keys_of(Row(id="n"), "x")[:2] == [0, 0]


def test_a_caption_is_picked_per_row_and_epoch() -> None:
    collate = PairCollate(processor(), seed=0)
    some = [rows()[i] for i in range(20)]
    first, again, later = collate(some, [0] * 20), collate(some[::-1], [0] * 20), collate(some, [1] * 20)
    assert first.langs == again.langs[::-1]
    assert first.langs != later.langs
    assert set(first.langs) == {"en", "zh"}
    assert set(PairCollate(processor(), seed=0, langs=["zh"])(some, [0] * 20).langs) == {"zh"}


def test_unreadable_pictures_are_listed_and_replaced() -> None:
    bad = Row(id="bad", images=(Image(data=b"nonsense"),), texts=(Text("x", "en"),))
    collate = PairCollate(processor(), seed=0)
    batch = collate([rows()[0], bad, rows()[1]], [0, 0, 0])
    assert batch.ids == ("r0", "r1", "r0")
    assert set(collate.dropped) == {"bad"}
    assert batch.keys is not None and torch.equal(batch.keys[0], batch.keys[2])
    with pytest.raises(TongganError, match="no picture of a whole batch"):
        collate([bad], [0])


def test_nothing_switched_on_changes_nothing() -> None:
    off = Augment(min_scale=1.0, flip=0.0, rotate=0.0, stretch=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(augment(pixels, off, off.draw([(i, 0) for i in range(4)])), pixels)


def test_a_rows_changes_do_not_depend_on_its_batch() -> None:
    config = Augment(erase=0.5, grey=0.2)
    pixels = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    seeds = [(i, 3) for i in range(5)]
    whole = augment(pixels, config, config.draw(seeds))
    alone = augment(pixels[2:3], config, config.draw(seeds[2:3]))
    assert (whole[2].int() - alone[0].int()).abs().max() <= 1
    assert not torch.equal(whole, pixels)
