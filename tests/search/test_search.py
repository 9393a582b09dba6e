"""The index: exact against brute force, changed by id, and closed to every model but its own."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from fakes import ColourModel, colour_rows, square
from tonggan.search import Index
from tonggan.search.store import LanceStore, Record
from tonggan.types import Identity, Image, MediaError, Row, Text, TongganError, UsageError


@pytest.fixture
def model() -> ColourModel:
    return ColourModel()


@pytest.fixture
def index(tmp_path: Path, model: ColourModel) -> Index:
    index = Index.create(tmp_path / "index", model)
    index.add(model, colour_rows())
    return index


def test_finds_by_words_and_by_picture(index: Index, model: ColourModel) -> None:
    assert [hit.id for hit in index.search(model, "something red", 1)] == ["r"]
    assert [hit.id for hit in index.search(model, "蓝色", 1)] == ["b"]
    hit = index.search(model, square(0, 255, 0), 3)[0]
    assert hit.id == "g"
    assert hit.title == "a green square"
    assert hit.score == pytest.approx(1.0, abs=1e-3)
    assert Pil.open(io.BytesIO(hit.thumbnail)).size == (24, 24)
    assert json.loads(hit.meta)["texts"][1] == {"text": "绿色的方块", "lang": "zh"}


def test_add_update_delete(index: Index, model: ColourModel) -> None:
    calls = len(model.calls)
    again = index.add(model, colour_rows())
    assert (again.added, again.updated, again.unchanged) == (0, 0, 3)
    assert len(model.calls) == calls, "what has not changed is not embedded again"
    changed = Row(id="r", images=(square(5, 5, 250),), texts=(Text("now blue"),))
    fresh = Row(id='it\'s "quoted" 新', images=(square(250, 250, 5),))
    done = index.add(model, [changed, fresh])
    assert (done.added, done.updated) == (1, 1)
    assert {hit.id for hit in index.search(model, "blue", 2)} == {"r", "b"}
    assert index.delete(['it\'s "quoted" 新']) == 1
    assert len(index) == 3


def test_an_id_that_is_not_there_deletes_nothing_and_is_named(index: Index) -> None:
    index.add(ColourModel(), [Row(id="birds/red.png", images=(square(200, 0, 0),))])
    with pytest.raises(TongganError, match=r"no such id: 'bird/red\.png' \(did you mean 'birds/red\.png'\?\); nothing was deleted"):
        index.delete(["r", "bird/red.png"])
    with pytest.raises(TongganError, match="'4' and 2 more; nothing"):
        index.delete([str(n) for n in range(7)])
    assert len(index) == 4
    assert index.delete(["r", "r", "g"]) == 2


def test_pictures_that_moved_are_found_where_they_are_without_being_embedded_again(tmp_path: Path, model: ColourModel) -> None:
    def rows() -> list[Row]:
        files = {"it's red": "r.png", "blue": "b.png"}
        return [Row(id=id, images=(Image.open(next(tmp_path.rglob(file))),), texts=(Text(id),)) for id, file in files.items()]

    (tmp_path / "old").mkdir()
    for name, colour in (("r.png", (250, 0, 0)), ("b.png", (0, 0, 250))):
        Pil.new("RGB", (16, 16), colour).save(tmp_path / "old" / name)
    index = Index.create(tmp_path / "i", model)
    index.add(model, rows())
    (tmp_path / "old").rename(tmp_path / "new")
    calls = len(model.calls)
    again = index.add(model, rows())
    assert (again.added, again.updated, again.unchanged, len(model.calls)) == (0, 0, 2, calls)
    hit = index.search(model, "red", 1)[0]
    assert (hit.id, hit.where, hit.title) == ("it's red", str(tmp_path / "new" / "r.png"), "it's red") and hit.thumbnail
    assert hit.score == pytest.approx(1.0, abs=1e-3)
    assert len(index) == 2


def test_a_creation_that_was_killed_can_be_repeated(tmp_path: Path, model: ColourModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            Index.create(tmp_path / "i", model)
    assert (tmp_path / "i" / "lance").is_dir() and not (tmp_path / "i" / "index.json").exists()
    assert Index.create(tmp_path / "i", model).add(model, colour_rows()).added == 3


@pytest.mark.parametrize("part", ["data", "_versions"])
def test_a_damaged_table_names_its_directory_whatever_is_asked(index: Index, model: ColourModel, part: str) -> None:
    for file in (index.directory / "lance" / "items.lance" / part).iterdir():
        file.write_bytes(b"nonsense")
    for call in (
        lambda i: i.search(model, "red"),
        lambda i: i.add(model, [Row(id="r", images=(square(9, 9, 9),))]),
        lambda i: i.delete(["r"]),
    ):
        with pytest.raises(TongganError, match=f"{index.directory}.*the index failed"):
            call(Index.open(index.directory))


def test_survives_closing_and_moving(index: Index, model: ColourModel, tmp_path: Path) -> None:
    shutil.move(index.directory, tmp_path / "elsewhere")
    assert [hit.id for hit in Index.open(tmp_path / "elsewhere").search(model, "green", 1)] == ["g"]


def test_what_cannot_be_indexed_is_listed(index: Index, model: ColourModel, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    done = index.add(model, [Row(id="none"), Row(id="bad", images=(Image.open(broken),)), Row(id="ok", images=(square(9, 9, 9),))])
    assert [d.where for d in done.dropped] == ["none", "bad"]
    assert all(d.reason for d in done.dropped)
    assert done.added == 1


@pytest.mark.parametrize(
    ("other", "names"),
    [
        (ColourModel(weights="x" * 64), "weights"),
        (ColourModel(**{"image.interpolation": "bilinear"}), "image.interpolation"),
        (ColourModel(**{"text.max_length": 3}), "text.max_length"),
    ],
)
def test_another_model_is_refused_by_field(index: Index, other: ColourModel, names: str) -> None:
    for call in (lambda: index.search(other, "red"), lambda: index.add(other, colour_rows())):
        with pytest.raises(TongganError, match=names):
            call()
    with pytest.raises(TongganError, match=names):
        Index.create(index.directory, other)


def test_a_model_that_differs_in_everything_is_refused_in_six_lines(tmp_path: Path) -> None:
    """Stored pixels and token ids are lists of hundreds of numbers."""
    fields = {f"text.field{n:02}": list(range(n)) for n in range(60)}
    index = Index.create(tmp_path / "i", ColourModel(**fields))
    other = ColourModel(weights="x" * 64, **{name: [*value, 9] for name, value in fields.items()})
    with pytest.raises(TongganError) as error:
        index.check(other)
    lines = str(error.value).splitlines()
    assert len(lines) == 6 and all(len(line) < 200 for line in lines)
    assert lines[1].strip() == f"weights: {'w' * 12} != {'x' * 12}"
    assert lines[4].strip() == "and 58 more fields"
    with pytest.raises(TongganError, match="pixels: differs"):
        Index.create(tmp_path / "j", ColourModel(pixels=[1] * 500)).check(ColourModel(pixels=[2] * 500))


def test_verified_or_not_the_same_model_is_the_same(index: Index, model: ColourModel) -> None:
    model.identity = Identity(model.identity.preprocessing, model.identity.weights, verified=False)
    index.search(model, "red")


def test_errors_say_what_to_do(tmp_path: Path, index: Index, model: ColourModel) -> None:
    with pytest.raises(TongganError, match="tonggan index MODEL DATA --to"):
        Index.open(tmp_path / "nothing")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        Index.create(tmp_path / "full", model)
    with pytest.raises(UsageError, match="limit 0"):
        index.search(model, "red", 0)
    with pytest.raises(MediaError):
        index.search(model, Image(data=b"nonsense"))
    shutil.rmtree(index.directory / "lance")
    for opened in (Index.open, lambda where: Index.create(where, model)):
        with pytest.raises(TongganError, match="lance: no table here: the index is incomplete"):
            opened(index.directory)
    assert not (index.directory / "lance").exists()
    (index.directory / "index.json").write_text("{")
    with pytest.raises(TongganError, match="damaged"):
        Index.open(index.directory)


def test_exact_search_equals_brute_force(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store = LanceStore(tmp_path / "s", 16, create=True)
    store.upsert([Record(str(i), v, "") for i, v in enumerate(vectors)])
    for query in vectors[:20] + 0.1:
        unit = query / np.linalg.norm(query)
        best = np.argsort(-(vectors @ unit), kind="stable")[:10]
        hits = store.search(unit, 10)
        assert [int(hit.id) for hit in hits] == best.tolist()
        assert [hit.score for hit in hits] == pytest.approx((vectors @ unit)[best].tolist(), abs=1e-5)


def test_approximate_index_still_finds_most(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store = LanceStore(tmp_path / "s", 16, create=True)
    store.upsert([Record(str(i), v, "") for i, v in enumerate(vectors)])
    store.approximate()
    found = [len({int(h.id) for h in store.search(v, 10)} & set(np.argsort(-(vectors @ v))[:10].tolist())) for v in vectors[:50]]
    assert np.mean(found) >= 7
