"""Stopping anywhere and going on, on other numbers of threads and ranks: the batches are those of a run that never stopped."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tonggan.config import ConfigError
from tonggan.data.augment import Augment
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.loader import Loader, LoaderConfig, joined
from tonggan.data.pairs import PairCollate, picture_key
from tonggan.data.processor import Processor
from tonggan.data.rows import Dataset
from tonggan.data.text import train_bpe
from tonggan.tensors import Batch
from tonggan.types import Image, Row, Text, UsageError

PROCESSOR = Processor(ImageProcessor(ImageProcessing(size=8)), train_bpe(["a picture", "一张图"] * 2, 320, max_length=16))


def row(i: int) -> Row:
    """Two captions; every seventh picture is none."""
    data = b"no picture" if i % 7 == 3 else None
    image = Image(data=data) if data else Image(array=np.full((9, 8, 3), i, np.uint8))
    return Row(id=f"r{i}", images=(image,), texts=(Text(f"picture {i}", "en"), Text(f"第{i}张图", "zh")))


def sharded(tmp: Any, rows: Sequence[Row] | None = None) -> Dataset:
    """Thirty rows in shards of seven."""
    Dataset.from_rows(rows or [row(i) for i in range(30)]).write(tmp / "data", shard_rows=7)
    data = Dataset.read(tmp / "data")
    assert len(data.shards) > 1
    return data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return sharded(tmp_path_factory.mktemp("loader"))


def only_ids(rows: Sequence[Row], epochs: Sequence[int]) -> Batch:
    return Batch(ids=tuple(f"{row.id}@{epoch}" for row, epoch in zip(rows, epochs, strict=True)))


def loader(data: Dataset, collate: Callable[..., Batch] = only_ids, *, rank: int = 0, world: int = 1, **config: Any) -> Loader:
    return Loader(data, collate, LoaderConfig(**{"batch_size": 8, "streams": 4, "threads": 1, **config}), seed=9, rank=rank, world=world)


def take(source: Loader, count: int) -> list[tuple[str, ...]]:
    return [next(source).ids for _ in range(count)]


@pytest.mark.parametrize("window", [None, 5])
@given(stops=st.lists(st.integers(0, 12), min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_stopped_at_random_batches(data: Dataset, window: int | None, stops: list[int]) -> None:
    """Each time on another number of threads, and through JSON as a checkpoint keeps it."""
    whole = loader(data, window=window)
    expected = take(whole, sum(stops) + 3)
    state, found = None, []
    for threads, batches in enumerate([*stops, 3]):
        part = loader(data, window=window, threads=threads, prefetch=threads + 1)
        if state is not None:
            part.load_state_dict(json.loads(state))
        found += take(part, batches)
        state = json.dumps(part.state_dict())
        part.close()
    whole.close()
    assert found == expected


@pytest.mark.parametrize("window", [None, 5])
def test_one_two_and_four_ranks_read_the_same(data: Dataset, window: int | None) -> None:
    seen = []
    for world in (1, 2, 4):
        ranks = [loader(data, rank=r, world=world, window=window) for r in range(world)]
        seen.append([Counter(id for rank in ranks for id in next(rank).ids) for _ in range(20)])
        for rank in ranks:
            rank.close()
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("window", [None, 5])
def test_going_on_with_another_number_of_ranks(data: Dataset, window: int | None) -> None:
    whole = loader(data, window=window)
    expected = [Counter(ids) for ids in take(whole, 12)]
    two = [loader(data, rank=r, world=2, window=window) for r in range(2)]
    found = [Counter(id for rank in two for id in next(rank).ids) for _ in range(7)]
    state = joined([rank.state_dict() for rank in two])
    four = [loader(data, rank=r, world=4, window=window) for r in range(4)]
    for rank in four:
        rank.load_state_dict(state)
    found += [Counter(id for rank in four for id in next(rank).ids) for _ in range(5)]
    for rank in (whole, *two, *four):
        rank.close()
    assert found == expected


@pytest.mark.parametrize("window", [None, 5])
def test_an_epoch_has_every_row_once(data: Dataset, window: int | None) -> None:
    one = loader(data, window=window, streams=1)
    seen = Counter(id for ids in take(one, 15) for id in ids)
    one.close()
    assert {f"r{i}@{epoch}" for i in range(30) for epoch in range(4)} == set(seen) and set(seen.values()) == {1}


def test_another_order_is_not_taken_for_the_same(data: Dataset) -> None:
    first = loader(data)
    state = first.state_dict()
    for other, message in (
        (loader(data.where(range(20))), "rows 30 then, 20 now"),
        (loader(data, window=5), "window None then, 5 now"),
        (Loader(data, only_ids, LoaderConfig(batch_size=8, streams=4), seed=10), "seed 9 then, 10 now"),
        (loader(data, streams=8), "no stream 4"),
    ):
        with pytest.raises(UsageError, match=message):
            other.load_state_dict(state)
        other.close()
    first.close()


@pytest.mark.parametrize("wrong", ["batch_size", "streams", "window"])
def test_settings_without_sense_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"{wrong}: 0"):
        LoaderConfig.parse({wrong: 0})


def test_its_threads_take_one_core_each_and_leave_others_theirs(data: Dataset) -> None:
    cores, seen = torch.get_num_threads(), []

    def collate(rows: Sequence[Row], epochs: Sequence[int]) -> Batch:
        seen.append(torch.get_num_threads())
        return Batch(tuple(row.id for row in rows))

    torch.set_num_threads(2)
    try:
        loader = Loader(data, collate, LoaderConfig(batch_size=4), seed=0)
        next(loader)
        loader.close()
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(cores)
    assert set(seen) == {1}


def test_unreadable_pictures_change_nothing_about_resuming(data: Dataset) -> None:
    """What stands in for them, and what augmentation does, is the same after a restart, with cold caches."""

    def pairs() -> PairCollate:
        return PairCollate(PROCESSOR, seed=1, augmentation=Augment(erase=0.3, grey=0.2))

    first = loader(data, pairs(), window=6, threads=3)
    for _ in range(5):
        next(first)
    state = first.state_dict()
    expected = [next(first) for _ in range(6)]
    again = loader(data, pairs(), window=6)
    again.load_state_dict(state)
    for one in expected:
        two = next(again)
        assert one.ids == two.ids and one.langs == two.langs
        for a, b in ((one.pixels, two.pixels), (one.keys, two.keys), (one.tokens and one.tokens.ids, two.tokens and two.tokens.ids)):
            assert a is not None and b is not None and torch.equal(a, b)
    assert isinstance(first.collate, PairCollate) and set(first.collate.dropped) <= {"r3", "r10", "r17", "r24"}
    assert first.collate.dropped and len(expected[0]) == 8
    first.close(), again.close()


@pytest.mark.parametrize("langs", [None, ["zh"], ["en"]])
def test_the_largest_batch_has_the_longest_captions_that_may_be_taken(langs: list[str] | None) -> None:
    """Rows 0 to 2 are long in English, 3 to 5 in Chinese (fewer characters, more tokens), each beside a short caption to draw instead."""
    long, short = {"en": "a picture of a picture of a", "zh": "一张很长的中文图片说明"}, {"en": "a b", "zh": "一"}
    texts = [(Text(long["en"], "en"), Text(short["en"], "en"), Text(short["zh"], "zh"))] * 3
    texts += [(Text(short["zh"], "zh"), Text(long["zh"], "zh"), Text(short["en"], "en"))] * 3
    texts += [(Text(short["zh"], "zh"), Text(short["en"], "en"))] * 10
    image = Image(array=np.zeros((9, 8, 3), np.uint8))
    data = Dataset.from_rows([Row(id=str(i), images=(image,), texts=t, group="g") for i, t in enumerate(texts)])
    tokenizer = train_bpe(["a picture of a picture", "图"] * 20, 400, max_length=100)
    collate = PairCollate(Processor(PROCESSOR.image, tokenizer), seed=1, langs=langs)
    source = Loader(data, collate, LoaderConfig(batch_size=3), seed=9)
    before = source.state_dict()
    batch = source.largest()
    wanted = long[langs[0]] if langs else long["zh"]
    assert batch.tokens is not None and batch.tokens.lengths.tolist() == [len(tokenizer.encode([wanted])[0][0])] * 3
    assert batch.keys is not None and len(batch.keys.unique()) == batch.keys.numel(), "one group, yet no row without a negative"
    assert source.state_dict() == before
    unused = Loader(data, PairCollate(collate.processor, seed=1, langs=langs), LoaderConfig(batch_size=3), seed=9)
    for _ in range(8):
        one, two = next(source), next(unused)
        assert one.ids == two.ids and one.langs == two.langs and one.keys is not None and two.keys is not None
        assert torch.equal(one.keys, two.keys)
    source.close(), unused.close()


# ------------------------------------------------------------------------------------ cached features


ROWS = [row(i) for i in range(3)]


def test_cached_features_stand_in_for_pictures_and_text() -> None:
    pictures = {r.id: torch.full((4,), float(i)) for i, r in enumerate(ROWS)}
    words = {text.text: torch.full((5,), float(i)) for i, r in enumerate(ROWS) for text in r.texts}
    batch = PairCollate(PROCESSOR, seed=0, image_features=pictures, text_features=words)(ROWS, [0, 0, 0])
    assert batch.pixels is None and batch.tokens is None
    assert batch.image_features is not None and torch.equal(batch.image_features, torch.stack(list(pictures.values())))
    assert batch.text_features is not None and batch.text_features[:, 0].tolist() == [0.0, 1.0, 2.0]


def test_captions_that_were_not_encoded_come_with_their_tokens() -> None:
    """A bilingual tower whose BERT is frozen: its captions are known, the others are read."""
    first = {text.text: torch.ones(5) for text in ROWS[0].texts}
    collate = PairCollate(PROCESSOR, seed=0, image_features={r.id: torch.zeros(4) for r in ROWS}, text_features=first)
    batch = collate(ROWS, [0, 0, 0])
    assert batch.tokens is not None and len(batch.tokens.ids) == 3
    assert batch.text_features is not None and batch.text_features[:, 0].tolist() == [1.0, 0.0, 0.0]
    assert collate(ROWS[:1], [0]).tokens is None, "where every caption is known, none is read"


def test_how_much_memory_decoded_pictures_will_take() -> None:
    side = PROCESSOR.image.config.side if PROCESSOR.image is not None else 0
    assert PairCollate(PROCESSOR, seed=0).fills(10) == 10 * 3 * side * side
    assert PairCollate(PROCESSOR, seed=0).fills(10**9) == 2 * 1024**3
    assert PairCollate(PROCESSOR, seed=0, modalities=frozenset({"text"})).fills(10) == 0
    assert PairCollate(PROCESSOR, seed=0, image_features={}).fills(10) == 0


def test_one_cached_view_is_picked_per_epoch() -> None:
    views = {r.id: torch.arange(4.0)[:, None] for r in ROWS}
    collate = PairCollate(PROCESSOR, seed=0, image_features=views)
    picked = []
    for epoch in range(20):
        features = collate(ROWS, [epoch] * 3).image_features
        assert features is not None and features.shape == (3, 1)
        picked.append(tuple(features[:, 0].tolist()))
    assert {view for views in picked for view in views} == {0.0, 1.0, 2.0, 3.0}
    assert len(set(picked)) > 10


def test_a_teacher_comes_with_the_tokens_of_its_pupil() -> None:
    """Language transfer: Chinese words, and what the English tower makes of the English ones; no pictures."""
    taught = {r.id: torch.full((4,), float(i)) for i, r in enumerate(ROWS)}
    batch = PairCollate(PROCESSOR, seed=0, langs=["zh"], modalities=frozenset({"text"}), teacher_features=taught)(ROWS, [0, 0, 0])
    assert batch.pixels is None and batch.image_features is None
    assert batch.langs == ("zh",) * 3 and batch.tokens is not None
    assert batch.text_features is not None and torch.equal(batch.text_features, torch.stack(list(taught.values())))


def test_pictures_that_begin_alike_are_not_one() -> None:
    """100 kB of white, then a drawing: uncompressed formats look like that."""
    one, two = (Row(id=str(i), images=(Image(data=b"BM" + bytes(100_000) + bytes([i])),)) for i in range(2))
    assert picture_key(one) != picture_key(two)
    assert picture_key(one) == picture_key(Row(id="copy", images=one.images))
