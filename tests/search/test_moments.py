"""An index of moments: clips are found by their shots, with seconds."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from fakes import COLOURS, ColourModel
from sounds import video_file
from tonggan.data.kept import media_key
from tonggan.data.media import content_bytes
from tonggan.data.rows import Dataset
from tonggan.data.shots import Splitting
from tonggan.data.video import load_frames
from tonggan.search import Index
from tonggan.search.store import Hit
from tonggan.types import MediaError, Row, Text, UsageError, Video


def film(path: Path, *names: str, each: int = 10) -> Path:
    """So many frames of each colour, ten a second."""
    shots = [np.full((each, 32, 48, 3), 0, np.uint8) + np.array(COLOURS[name], np.uint8) * 250 for name in names]
    path.write_bytes(video_file(np.concatenate(shots)))
    return path


def titled(path: Path) -> Row:
    return Row(id=path.name, videos=(Video.open(path),), texts=(Text("a film", "en"),))


@pytest.fixture
def model() -> ColourModel:
    return ColourModel()


@pytest.fixture
def index(tmp_path: Path, model: ColourModel) -> Index:
    return Index.create(tmp_path / "index", model)


def test_a_shot_is_found_with_its_seconds_by_a_model_of_pictures(tmp_path: Path, index: Index, model: ColourModel) -> None:
    path = film(tmp_path / "a.mp4", "red", "green", "blue")
    assert index.add(model, [titled(path)]).added == 3
    hit = index.search(model, "something green", 1)[0]
    assert (hit.id, hit.where, hit.title, hit.seconds, hit.moment) == ("a.mp4#t=1,2", str(path), "a film", (1, 2), "1-2 s")
    assert json.loads(hit.meta)["start"] == 1 and json.loads(hit.meta)["end"] == 2
    assert hit.score == pytest.approx(1, abs=0.02)
    small = np.asarray(Pil.open(io.BytesIO(hit.thumbnail)).convert("RGB")).astype(int)
    assert small.shape == (32, 48, 3) and small[16, 24].argmax() == 1 and small[16, 24, 1] > 200, "from the middle of the shot"
    assert index.search(model, Video(path=path, stretch=(2, 3)), 1)[0].id == "a.mp4#t=2,3", "a moment is a query, too"


def test_what_has_not_changed_is_not_looked_at_again(
    tmp_path: Path, index: Index, model: ColourModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "a.mp4", "red", "green")
    index.add(model, [titled(path)])
    with monkeypatch.context() as patch:
        patch.setattr("tonggan.search.clips.shots", None)
        moved = path.rename(tmp_path / "b.mp4")
        done = index.add(model, [titled(moved).with_(id="a.mp4")])
    assert (done.added, done.updated, done.unchanged, done.removed) == (0, 0, 2, 0)
    assert {hit.where for hit in index.search(model, "red")} == {str(moved)}


def test_a_clip_that_changed_has_its_new_shots_only(tmp_path: Path, index: Index, model: ColourModel) -> None:
    rows = [titled(film(tmp_path / "a.mp4", "red", "green", "blue")), titled(film(tmp_path / "b.mp4", "red"))]
    assert index.add(model, rows).added == 4
    film(tmp_path / "a.mp4", "red", "blue", each=15)
    done = index.add(model, rows)
    assert (done.added, done.updated, done.unchanged, done.removed) == (2, 0, 1, 3)
    assert sorted(hit.id for hit in index.search(model, "red")) == ["a.mp4#t=0,1.5", "a.mp4#t=1.5,3", "b.mp4"]
    done = index.add(model, rows, splitting=None)
    assert (done.added, done.updated, done.removed) == (1, 1, 2) and len(index) == 2, "whole clips instead"
    assert [hit.moment for hit in index.search(model, "red")] == ["", ""]
    done = index.add(model, rows, splitting=Splitting(longest=0.6))
    assert (done.added, done.updated, done.removed) == (3 + 3 + 2, 0, 2) and len(index) == 8, "1.5, 1.5 and 1 s in parts of 0.6 at most"


def test_shots_go_when_their_row_shows_something_else_or_is_taken_out(tmp_path: Path, index: Index, model: ColourModel) -> None:
    path = film(tmp_path / "a.mp4", "red", "green", "blue")
    index.add(model, [titled(path)])
    done = index.add(model, [titled(path).with_(videos=(Video(path=path, stretch=(0, 1)),))])
    assert (done.added, done.removed) == (1, 3) and [hit.id for hit in index.search(model, "red")] == ["a.mp4"]
    index.add(model, [titled(path)])
    assert len(index) == 3 and index.delete(["a.mp4"]) == 3 and len(index) == 0


def test_a_clip_with_a_shot_that_failed_is_tried_again(
    tmp_path: Path, index: Index, model: ColourModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [titled(film(tmp_path / "a.mp4", "red", "green"))]
    index.add(model, rows)
    film(tmp_path / "a.mp4", "red", "blue", "green")

    def failing(clip: Video, frames: int) -> np.ndarray:
        if clip.stretch == (1, 2):
            raise MediaError(clip.where, "a passing error")
        return load_frames(clip, frames)

    with monkeypatch.context() as patch:
        patch.setattr("tonggan.search.clips.load_frames", failing)
        done = index.add(model, rows)
    assert [(one.where, one.reason) for one in done.dropped] == [("a.mp4#t=1,2", "a passing error")]
    assert (done.added, done.updated, done.removed) == (0, 0, 0) and len(index) == 2, "it stays as it was"
    assert index.add(model, rows).dropped == [] and len(index) == 3


def test_frames_at_another_rate_are_another_clip(index: Index, model: ColourModel) -> None:
    frames = np.repeat(np.eye(3, dtype=np.uint8)[:, None, None] * 250, 20, axis=0) + np.zeros((1, 32, 48, 1), np.uint8)
    for rate in (20.0, 10.0):
        index.add(model, [Row("array", videos=(Video(array=frames, fps=rate),))])
        assert max(hit.seconds[1] for hit in index.search(model, "red") if hit.seconds) == 60 / rate


def test_a_clip_of_one_shot_keeps_its_id_and_one_without_a_clock_has_no_seconds(tmp_path: Path, index: Index, model: ColourModel) -> None:
    frames = np.full((6, 8, 8, 3), 200, np.uint8)
    rows = [titled(film(tmp_path / "a.mp4", "red")), Row("array", videos=(Video(array=frames),))]
    assert index.add(model, rows).added == 2
    assert {hit.id: hit.moment for hit in index.search(model, "red")} == {"a.mp4": "0-1 s", "array": ""}


def test_moments_of_rows_are_entries_as_they_are(tmp_path: Path, index: Index, model: ColourModel) -> None:
    path = film(tmp_path / "a.mp4", "red", "green", "blue")
    rows = [
        Row("middle", videos=(Video(path=path, stretch=(1, 2)),)),
        Row("rest", videos=(Video(path=path, stretch=(2, float("inf"))),)),
        Row("beyond", videos=(Video(path=path, stretch=(4, 5)),)),
    ]
    done = index.add(model, rows)
    assert [(one.where, one.reason) for one in done.dropped] == [("beyond", "has no 4-5 s: it ends at 3 s")]
    assert {hit.id: hit.moment for hit in index.search(model, "red")} == {"middle": "1-2 s", "rest": "2 s to the end"}
    assert index.search(model, "blue", 1)[0].id == "rest"
    assert index.add(model, rows[:2]).unchanged == 2
    assert index.add(model, [rows[0].with_(videos=(Video(path=path, stretch=(0, 1)),))]).updated == 1


def test_clips_that_cannot_be_read_do_not_stop_the_others(tmp_path: Path, index: Index, model: ColourModel) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"nothing of the kind" * 9)
    rows = [
        titled(tmp_path / "broken.mp4"),
        titled(film(tmp_path / "a.mp4", "red", "green")),
        Row("gone", videos=(Video(path=tmp_path / "x"),)),
    ]
    done = index.add(model, rows)
    assert done.added == 2
    assert {one.where: one.reason for one in done.dropped} == {"broken.mp4": "not a clip that can be read", "gone": "no such file"}


def test_entries_from_before_there_were_seconds_look_as_they_did() -> None:
    old = Hit("a", 0.5, "a film", "a.mp4", b"", json.dumps({"texts": [], "group": None, "split": None, "meta": {}}))
    assert old.seconds is None and old.moment == ""
    said = Hit("a", 0.5, "", "a.mp4", b"", json.dumps({"start": 12.4, "end": 3725.128}))
    assert said.moment == "12.4-3725.13 s"


def test_a_moment_is_not_the_clip(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", "red", "green")
    handles = [Video(path=path), *(Video(path=path, stretch=stretch) for stretch in ((0.0, 1.0), (1.0, 2.0)))]
    assert len({media_key(one) for one in handles}) == len({content_bytes(one) for one in handles}) == 3
    assert media_key(Video(path=path, stretch=(0.0, 1.0))) == media_key(handles[1])
    with pytest.raises(UsageError, match="a moment of a clip cannot be stored"):
        Dataset.from_rows([Row("a", videos=(handles[1],))])
