"""Moments of clips on the command line: a folder of films indexed and searched, one moment asked about."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from typer.testing import CliRunner

from fakes import COLOURS, ColourModel, Parrot
from sounds import video_file
from tonggan.cli import app
from tonggan.data import formats
from tonggan.types import Model, UsageError, Video


def call(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two films, one with words beside it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "films" / "test"
    folder.mkdir(parents=True)
    for name, colours in (("a", ("red", "green", "blue")), ("b", ("green",))):
        shots = [np.zeros((12, 32, 48, 3), np.uint8) + np.array(COLOURS[colour], np.uint8) * 250 for colour in colours]
        (folder / f"{name}.mp4").write_bytes(video_file(np.concatenate(shots)))
    (folder / "b.txt").write_text("草地\ngrass\n", "utf-8")
    return tmp_path / "films"


def given(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tonggan.backends.load", lambda name: model)


def test_a_folder_of_films_is_searched_by_shots(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(ColourModel(), monkeypatch)
    code, out, err = call("index", "m", films, "--to", "index")
    assert code == 0 and "index: 4 items (4 added" in out, err
    code, out, err = call("search", "index", "something blue", "-k", 1)
    assert code == 0 and out.rstrip().endswith(f"test/a.mp4#t=2.4,3.6  [{films / 'test' / 'a.mp4'} 2.4-3.6 s]"), (out, err)
    hits = json.loads(call("search", "index", "something green", "--json")[1])["hits"]
    assert {(hit["id"], hit["start"], hit["end"]) for hit in hits[:2]} == {("test/a.mp4#t=1.2,2.4", 1.2, 2.4), ("test/b.mp4", 0, 1.2)}
    told = {hit["id"]: hit for hit in hits}["test/b.mp4"]
    assert (told["title"], told["split"], told["where"]) == ("草地", "test", str(films / "test" / "b.mp4"))
    assert "8 items (8 added, 0 updated, 0 unchanged, 4 deleted)" in call("index", "m", films, "--to", "index", "--longest", 0.9)[1]
    assert "2 items (2 added" in call("index", "m", films, "--to", "whole", "--whole")[1]
    assert "start" not in json.loads(call("search", "whole", "red", "--json")[1])["hits"][0]
    code, out, _ = call("index", "m", films / "test" / "a.mp4", "--to", "one")
    assert code == 0 and "3 items" in out


def test_clips_are_read_from_folders_and_files(films: Path) -> None:
    assert [row.id for row in formats.read(films)] == ["test/a.mp4", "test/b.mp4"]
    assert [(text.text, text.lang) for text in formats.read(films)[1].texts] == [("草地", "zh"), ("grass", "en")]
    assert [row.id for row in formats.read(films / "test" / "b.mp4")] == ["b.mp4"]
    Pil.new("RGB", (9, 9)).save(films / "test" / "p.png")
    both = formats.read(films)
    assert [row.id for row in both] == ["test/p.png"]
    assert any("2 clips beside the pictures left out" in note for note in both.notes)


@pytest.mark.parametrize(
    ("at", "stretch"),
    [
        ("12.4-17.9", (12.4, 17.9)),
        ("1:02 - 1:07.5", (62, 67.5)),
        ("1:00:01-1:00:02", (3601, 3602)),
        ("3-", (3, math.inf)),
        ("2s-3s", (2, 3)),
    ],
)
def test_one_moment_is_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, stretch: tuple[float, float]) -> None:
    parrot = Parrot("text", "video")
    given(parrot, monkeypatch)
    file = tmp_path / "a.mp4"
    file.write_bytes(b"x")
    assert call("ask", "m", file, "发生了什么？", "--at", at)[:2] == (0, "发生了什么？ (1)\n")
    clip = parrot.heard[0][0].parts[0]
    assert isinstance(clip, Video) and clip.stretch == stretch and clip.path == file
    assert json.loads(call("ask", "m", file, "what?", "--at", at, "--json")[1])["at"] == at
    file.rename(tmp_path / "a.gif")
    assert call("ask", "m", tmp_path / "a.gif", "what?", "--at", at)[0] == 0, "animated pictures have moments"


@pytest.mark.parametrize(
    ("name", "at", "code", "said"),
    [
        ("a.mp4", "soon", 2, "--at soon: expected seconds, as 12.4-17.9"),
        ("a.mp4", "5-4", 2, "5-4 s is no moment"),
        ("a.mp4", "-4", 2, "--at -4"),
        ("r.jpg", "1-2", 2, "r.jpg is none"),
        ("none.mp4", "1-2", 1, "no such file"),
    ],
)
def test_a_moment_that_makes_no_sense_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: str, code: int, said: str
) -> None:
    given(Parrot("text", "video"), monkeypatch)
    (tmp_path / "a.mp4").write_bytes(b"x")
    found, _, err = call("ask", "m", tmp_path / name, "what?", f"--at={at}")
    assert found == code and said in err


def test_no_clip_here(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match="or clips"):
        formats.detect(tmp_path)
