"""One setting flipped, or one weight: nothing that knew the model takes the other for it, and everything names what differs.

Twice: a directory that was changed after it was saved (its own record refuses it everywhere), and a whole other model, saved like that
(the index, and the server in front of it, refuse it).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from hub.references import picture, save_clip, tiny_clip
from hub.test_clip import edit
from tonggan import hub
from tonggan.backends import load
from tonggan.cli import app
from tonggan.search import Index
from tonggan.serve.engine import Engine
from tonggan.types import Image, Row, TongganError


def one_weight(directory: Path) -> None:
    file = directory / "model.safetensors"
    state = load_file(file)
    weight = state["text_projection.weight"]
    weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    save_file(state, file, metadata={"format": "pt"})


FLIPS: dict[str, tuple[Callable[[Path], None], str]] = {
    "activation": (
        lambda d: edit(d / "config.json", {"text_config.hidden_act": "gelu"}),
        r"model\.text\.activation: 'gelu' != 'quick_gelu'",
    ),
    "resampling": (lambda d: edit(d / "preprocessor_config.json", {"resample": 2}), r"image\.interpolation: 'bilinear' != 'bicubic'"),
    "maximum length": (lambda d: edit(d / "tokenizer_config.json", {"model_max_length": 10}), r"text\.max_length: 10 != 20"),
    "one weight": (one_weight, r"weights: [0-9a-f]{12} != [0-9a-f]{12}"),
}


def rows() -> list[Row]:
    return [Row(id=str(i), images=(Image(array=np.asarray(picture(40, 40, i))),)) for i in range(3)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model in `clip`, its index in `index`, and the pictures in `pictures`."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("flips")
    found = hub.read(save_clip(place / "published", tiny_clip()))
    hub.save(place / "clip", found.module, found.config, found.processor)
    (place / "pictures").mkdir()
    for i in range(3):
        picture(40, 40, i).save(place / "pictures" / f"{i}.png")
    model = load(place / "clip", device="cpu")
    Index.create(place / "index", model).add(model, rows())
    return place


@pytest.fixture
def place(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "here")


COMMANDS = {
    "verify": ["verify", "clip"],
    "embed": ["embed", "clip", "words"],
    "serve": ["serve", "clip", "--port", "0"],
    "index": ["index", "clip", "pictures", "--to", "index"],
    "search": ["search", "index", "words"],
}


@pytest.mark.parametrize("flip", FLIPS)
def test_a_changed_directory_is_refused_by_every_verb(place: Path, flip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, says = FLIPS[flip]
    change(place / "clip")
    monkeypatch.chdir(place)
    with pytest.raises(TongganError, match=says):
        load("clip")
    for verb, words in COMMANDS.items():
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 1, (verb, done.output, done.exception)
        assert re.search(says, done.stderr), (words, done.stderr)


@pytest.mark.parametrize("flip", FLIPS)
def test_another_model_is_refused_by_the_index_and_the_server(place: Path, flip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own record is right, so it loads; but what was made with the first is not its own."""
    change, says = FLIPS[flip]
    change(place / "published")
    found = hub.read(place / "published")
    hub.save(place / "other", found.module, found.config, found.processor)
    # The index says `index's != the other's`.
    mine, _, theirs = says.rpartition(": ")[2].partition(" != ")
    says = f"{says.rpartition(': ')[0]}: {theirs} != {mine}"
    other = load(place / "other", device="cpu")
    index = Index.open(place / "index")
    for refused in (
        lambda: index.check(other),
        lambda: Index.create(place / "index", other),
        lambda: index.search(other, "words"),
        lambda: index.add(other, rows()),
        lambda: Engine(other, index),
    ):
        with pytest.raises(TongganError, match=says):
            refused()
    monkeypatch.chdir(place)
    for words in (
        ["serve", "other", "--index", "index", "--port", "0"],
        ["index", "other", "pictures", "--to", "index"],
        ["search", "index", "words", "--model", "other"],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 1, (words, done.output, done.exception)
        assert re.search(says, done.stderr), (words, done.stderr)


def test_the_model_itself_is_taken_by_all(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests above would pass for something that refuses everything."""
    monkeypatch.chdir(place)
    model = load("clip", device="cpu")
    index = Index.open("index")
    index.check(model)
    Engine(model, index).close()
    for verb in ("verify", "index", "search"):
        done = CliRunner().invoke(app, COMMANDS[verb])
        assert done.exit_code == 0, (verb, done.output, done.exception)
