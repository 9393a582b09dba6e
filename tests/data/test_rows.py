"""Rows in Arrow: what goes in comes out, from memory and from disk, in any view."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from draw import encoded, picture, saved
from hypothesis import given, settings
from hypothesis import strategies as st

from tonggan.data import rows as rows_module
from tonggan.data import schema
from tonggan.data.media import load_image
from tonggan.data.rows import Dataset
from tonggan.data.schema import to_plain
from tonggan.types import Audio, Dropped, Image, Message, Row, Text, TongganError, UsageError, Video

words = st.text(max_size=20)
maybe = st.none() | words
languages = st.sampled_from([None, "zh", "en"])
texts = st.lists(st.builds(Text, words, languages), max_size=3).map(tuple)
handles = {
    "data": st.binary(max_size=30),
    "url": words,
    "path": st.sampled_from([Path("/data/图片/a b.jpg"), Path("/elsewhere/c.png")]),
}


def media(kind):
    return st.one_of([st.builds(kind, **{name: values}, role=st.sampled_from([None, "mask"])) for name, values in handles.items()])


images = st.lists(media(Image), max_size=3).map(tuple)
audios = st.lists(media(Audio), max_size=1).map(tuple)
videos = st.lists(st.builds(Video, data=st.binary(max_size=9), fps=st.sampled_from([None, 25.0])), max_size=1).map(tuple)
messages = st.lists(st.builds(Message, st.just("user"), st.lists(media(Image) | st.builds(Text, words), max_size=2).map(tuple)), max_size=2)
any_row = st.builds(
    Row,
    id=words,
    images=images,
    audios=audios,
    videos=videos,
    texts=texts,
    messages=messages.map(tuple),
    question=maybe,
    choices=st.lists(words, max_size=3).map(tuple),
    answers=st.lists(words, max_size=2).map(tuple),
    group=maybe,
    split=maybe,
    meta=st.dictionaries(words, words, max_size=3),
)


def same(a, b) -> bool:
    """Media are compared by what they hold, not by which object they are."""
    return [to_plain(row) for row in a] == [to_plain(row) for row in b]


@settings(max_examples=60, deadline=None)
@given(st.lists(any_row, max_size=6, unique_by=lambda row: row.id))
def test_any_row_survives_memory_and_disk(tmp_path_factory, rows):
    dataset = Dataset.from_rows(rows)
    assert same(dataset, rows)
    where = tmp_path_factory.mktemp("rows") / "d"
    again = Dataset.read(dataset.write(where, shard_rows=2))
    assert same(again, rows)
    assert again.fingerprint == dataset.fingerprint
    assert sum(again.shards) == len(rows) and all(n <= 2 for n in again.shards)


def numbered(n: int, **fields) -> list[Row]:
    return [Row(id=f"r{i}", texts=(Text(f"text {i}", "en"),), split="test" if i % 5 == 0 else "train", **fields) for i in range(n)]


def test_views_know_their_rows_splits_and_shards(tmp_path):
    dataset = Dataset.read(Dataset.from_rows(numbered(23)).write(tmp_path / "d", shard_rows=10))
    assert dataset.shards == (10, 10, 3)
    assert dataset[-1].id == "r22" and dataset[3:5].column("id") == ["r3", "r4"]
    test = dataset.split("test")
    assert test.column("id") == ["r0", "r5", "r10", "r15", "r20"] and test.shards == (2, 2, 1)
    assert [row.id for row in test.where([2, 0])] == ["r10", "r0"] and test.where([2, 0]).shards == (2,)
    assert dataset.splits == ("test", "train")
    with pytest.raises(UsageError, match="did you mean 'train'"):
        dataset.split("trian")
    with pytest.raises(IndexError):
        dataset[23]
    with pytest.raises(IndexError):
        test.where([5])


def test_new_splits_follow_the_rows_into_views_and_to_disk(tmp_path):
    dataset = Dataset.from_rows(numbered(6)).with_splits(["a", "b"] * 3)
    assert dataset.split("b").column("id") == ["r1", "r3", "r5"]
    assert [row.split for row in dataset.where([1, 4])] == ["b", "a"]
    assert Dataset.read(dataset.write(tmp_path / "d")).column("split") == ["a", "b"] * 3


def test_paths_move_with_the_directory_and_bytes_can_be_embedded(tmp_path):
    picture_file = saved(tmp_path / "d" / "pictures" / "猫.png", 1)
    (tmp_path / "d" / "dataset.json").write_text("{}")
    dataset = Dataset.from_rows([Row(id="a", images=(Image(path=picture_file),))])
    dataset.write(tmp_path / "d")
    moved = (tmp_path / "d").rename(tmp_path / "moved")
    again = Dataset.read(moved)
    assert again[0].images[0].path == moved / "pictures" / "猫.png"
    assert again[0].images[0].path.is_file(), "the pictures of a replaced data set are kept"
    again.write(tmp_path / "e", embed=True)
    embedded = Dataset.read(tmp_path / "e")
    assert embedded[0].images[0].data == (moved / "pictures" / "猫.png").read_bytes()


def test_the_fingerprint_sees_words_order_and_changed_pictures(tmp_path):
    file = saved(tmp_path / "a.png", 1)
    rows = [Row(id="a", images=(Image(path=file),), texts=(Text("x"),)), Row(id="b")]
    first = Dataset.from_rows(rows).fingerprint
    assert Dataset.from_rows(rows, base=tmp_path).fingerprint == first, "where the files lie is no content"
    assert Dataset.from_rows(rows[::-1]).fingerprint != first
    assert Dataset.from_rows([rows[0].with_(texts=(Text("y"),)), rows[1]]).fingerprint != first
    saved(file, 2)
    assert Dataset.from_rows(rows).fingerprint != first


def test_arrays_are_kept_as_pictures_without_loss():
    array = np.asarray(picture(3))
    stored = Dataset.from_rows([Row(id="a", images=(Image(array=array),))])[0].images[0]
    assert (np.asarray(load_image(stored)) == array).all()
    with pytest.raises(UsageError, match="save it to a file"):
        Dataset.from_rows([Row(id="a", audios=(Audio(array=np.zeros(9)),))])


def test_large_rows_are_spooled_to_a_file_that_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "SPOOL_BYTES", 20_000)
    monkeypatch.setattr(schema, "BATCH_BYTES", 5_000)
    monkeypatch.setattr(rows_module.tempfile, "tempdir", str(tmp_path))
    data = [encoded(seed) for seed in range(40)]
    assert sum(map(len, data)) > 40_000
    dataset = Dataset.from_rows(Row(id=str(i), images=(Image(data=one),)) for i, one in enumerate(data))
    assert [row.images[0].data for row in dataset] == data
    assert list(tmp_path.iterdir()) == []


def test_dropped_rows_and_notes_stay_with_the_data(tmp_path):
    dropped = [Dropped("t.csv:3", "图片\\a.jpg: no such file")]
    dataset = Dataset.from_rows(numbered(3), dropped=dropped, notes=["encoding: gb18030"])
    again = Dataset.read(dataset.where([0]).write(tmp_path / "d"))
    assert again.dropped == tuple(dropped) and again.notes == ("encoding: gb18030",)


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    Dataset.from_rows(numbered(3)).write(tmp_path / "d")

    class Broken(Dataset):
        def __getitem__(self, index):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        Broken(Dataset.from_rows(numbered(9))._tables).write(tmp_path / "d")
    assert len(Dataset.read(tmp_path / "d")) == 3 and [p.name for p in tmp_path.iterdir()] == ["d"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("do not lose me")
    with pytest.raises(TongganError, match="something else"):
        Dataset.from_rows(numbered(3)).write(tmp_path / "mine")


def replaced(folder: Path) -> Path:
    """A data set with files of the user's beside its own."""
    where = Dataset.from_rows(numbered(3)).write(folder / "d")
    saved(where / "pictures" / "a.png", 1)
    (where / "letter.txt").write_text("do not lose me")
    (where / "rows-mine.arrow").write_bytes(b"mine")
    return where


OTHERS = {"pictures/a.png", "letter.txt", "rows-mine.arrow"}


def names_below(where: Path) -> set[str]:
    return {path.relative_to(where).as_posix() for path in where.rglob("*") if path.is_file()}


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(5))
def test_an_interrupted_replacement_loses_no_file(tmp_path, monkeypatch, at, done):
    where = replaced(tmp_path)
    calls = iter(range(100))
    rename = Path.rename

    def interrupted(path, target):
        number = next(calls)
        if number != at or done:
            rename(path, target)
        if number == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Dataset.from_rows(numbered(5)).write(where)
    assert len(Dataset.read(where)) == 3 and names_below(where) >= OTHERS
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    monkeypatch.undo()
    Dataset.from_rows(numbered(5)).write(where)
    assert len(Dataset.read(where)) == 5 and names_below(where) >= OTHERS


@pytest.mark.parametrize("at", range(1, 5))
def test_what_cannot_be_put_back_is_kept_and_named(tmp_path, monkeypatch, at):
    where = replaced(tmp_path)
    calls = iter(range(100))
    rename = Path.rename

    def broken(path, target):
        if next(calls) >= at:
            raise OSError(16, "Device or resource busy")
        rename(path, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(TongganError, match=r"cannot be replaced .*busy.*; what was in it is now in .*-old and .*: join them by hand"):
        Dataset.from_rows(numbered(5)).write(where)
    assert {name.split("/", 1)[1] for name in names_below(tmp_path)} >= OTHERS


def test_a_link_to_a_data_set_stays_a_link(tmp_path):
    where = replaced(tmp_path / "disk")
    (tmp_path / "link").symlink_to(where, target_is_directory=True)
    Dataset.from_rows(numbered(5)).write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and len(Dataset.read(where)) == 5 and names_below(where) >= OTHERS


def test_equal_ids_and_damaged_directories_are_named(tmp_path):
    with pytest.raises(UsageError, match="'a' occurs twice"):
        Dataset.from_rows([Row(id="a"), Row(id="a")])
    with pytest.raises(TongganError, match="no data set here"):
        Dataset.read(tmp_path)
    where = Dataset.from_rows(numbered(3)).write(tmp_path / "d")
    shard = where / "rows-00000.arrow"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(TongganError, match="damaged"):
        Dataset.read(where)
    record = json.loads((where / "dataset.json").read_text())
    (where / "dataset.json").write_text(json.dumps(record | {"format": 99}))
    with pytest.raises(TongganError, match="format 99"):
        Dataset.read(where)
