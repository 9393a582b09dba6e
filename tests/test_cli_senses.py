"""Sounds and clips on the command line: embedded, indexed, searched with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from senses import clip_rows, model_of, sound_rows
from tonggan.cli import app
from tonggan.data.rows import Dataset


def call(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in `model`, and rows of sounds and clips in `data`, whose files are in `files`."""
    where = tmp_path_factory.mktemp("senses")
    model_of(where / "model", "text", "audio", "video")
    Dataset.from_rows([*sound_rows(where / "files"), *clip_rows(where / "files")]).write(where / "data")
    return where


def test_sounds_and_clips_are_embedded_beside_words(place: Path) -> None:
    sound, clip = place / "files" / "s1.wav", place / "files" / "c2.mp4"
    code, out, err = call("embed", place / "model", "a bird", "--audio", sound, "--video", clip, "--audio", sound, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert [one["item"] for one in told["items"]] == ["a bird", str(sound), str(sound), str(clip)] and told["dim"] == 7
    _, first, second, last = (np.array(one["vector"]) for one in told["items"])
    assert np.abs(first - second).max() < 1e-6 and np.abs(first - last).max() > 1e-3
    (place / "broken.wav").write_bytes(b"nothing of the kind")
    code, out, _ = call("embed", place / "model", "--audio", place / "broken.wav")
    assert code == 1 and "not a sound that can be read" in out
    code, _, err = call("embed", place / "model", "-i", place / "files" / "c2.mp4")
    assert code == 1 and "does not take image; it takes: audio, text, video" in err


def test_sounds_and_clips_are_indexed_and_found(place: Path) -> None:
    code, out, err = call("index", place / "model", place / "data", "--to", place / "index")
    assert code == 0, err
    assert f"{place / 'index'}: 7 items (7 added" in out
    for option, name in (("--audio", "s3.wav"), ("--video", "c1.mp4")):
        file = place / "files" / name
        code, out, err = call("search", place / "index", option, file, "-k", 1)
        assert code == 0, err
        assert "+1.000" in out and (f"[{file}]" in out or f"[{file} 0-0.7 s]" in out)
        told = json.loads(call("search", place / "index", option, file, "-k", 2, "--json")[1])
        assert told["query"] == str(file) and told["hits"][0]["where"] == str(file) and len(told["hits"]) == 2
    assert json.loads(call("search", place / "index", "a bird", "--json")[1])["query"] == "a bird"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("search", "index", "words", "--audio", "files/s1.wav"), 2, "exactly one of them"),
        (("search", "index", "--audio", "files/s1.wav", "--video", "files/c1.mp4"), 2, "exactly one of them"),
        (("search", "index", "--audio", "files/s11.wav"), 1, "did you mean 's1.wav'"),
        (("embed", "model", "--video", "files/c11.mp4"), 1, "files/c11.mp4: no such file"),
        (("embed", "model"), 2, "nothing to embed"),
    ],
)
def test_what_is_wrong_is_said(place: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, says: str) -> None:
    monkeypatch.chdir(place)
    (place / "index").mkdir(exist_ok=True)
    found, out, err = call(*words)
    assert found == code and says in err, (out, err)
