"""`tonggan eval` on tables of labelled pictures: a probe, several labels, and options that a task has no use for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image as Pil
from typer.testing import CliRunner

from fakes import ColourModel
from tonggan.cli import app

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def call(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["eval", "mine", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of three colours, a little different each; every third has two."""
    lines = ["filepath,title,kind,tags,split"]
    for split, n in (("train", 12), ("val", 6), ("test", 9)):
        for i in range(n):
            name, (r, g, b) = list(COLOURS.items())[i % 3]
            picture = Pil.new("RGB", (8, 8), tuple(abs(c - 4 * i - len(split)) for c in (r, g, b)))
            if i >= 6:
                picture.paste((0, 0, 255), (0, 0, 8, 3))
            picture.save(tmp_path / f"{split}{i}.png")
            lines.append(f"{split}{i}.png,{name} {split} {i},{name},{name}{'|blue' if i >= 6 and name != 'blue' else ''},{split}")
    monkeypatch.setattr("tonggan.backends.load", lambda name: ColourModel())
    file = tmp_path / "t.csv"
    file.write_text("\n".join(lines))
    return file


def test_a_probe_on_a_table_of_ones_own(table: Path, tmp_path: Path) -> None:
    code, out, _ = call("--data", table, "--task", "probe", "--label", "kind", "--json")
    found = json.loads(out)
    assert code == 0 and found["primary"] == "probe acc1" and found["metrics"]["probe acc1"]["value"] == 1
    assert found["protocol"].startswith("probe/v1: embed") and found["extra"]["pictures"] == {"train": 12, "val": 6, "test": 9}
    words = ("--data", table, "--task", "probe", "--label", "kind", "--shots", 1, "--shots", 2)
    code, out, _ = call(*words, "--out", tmp_path / "out")
    assert code == 0 and "probe 1-shot acc1" in out and "probe 2-shot balanced accuracy" in out
    code, out, _ = call(*words, "--baseline", tmp_path / "out" / "probe.json", "--json")
    assert code == 0 and {d["value"] for d in json.loads(out)["differences"].values()} == {0}


def test_labels_on_a_table_of_ones_own(table: Path, tmp_path: Path) -> None:
    words = ("--data", table, "--task", "labels", "--label", "tags", "--out", tmp_path / "out")
    code, out, _ = call(*words, "--json")
    found = json.loads(out)
    assert code == 0 and found["primary"] == "labels en mAP" and found["metrics"]["labels en mAP"]["value"] > 0.9
    assert found["extra"]["classes"].keys() == COLOURS.keys()
    code, out, _ = call(*words, "--baseline", tmp_path / "out" / "labels.json")
    assert code == 0 and "labels en mAP-11" in out and "+0.0 – +0.0" in out


def test_retrieval_prints_rsum_as_it_is(table: Path) -> None:
    code, out, _ = call("--data", table)
    assert code == 0 and "RSUM en" in out
    (line,) = (line for line in out.splitlines() if "RSUM" in line)
    assert 100 < float(line.split("│")[2]) <= 600


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--task", "prob"), "did you mean 'probe'"),
        (("--task", "probe", "--label", "knid"), "no picture has a label in column 'knid'; columns:"),
        (("--task", "probe", "--label", "kind", "--shots", "5"), "5 pictures of each class are to be drawn"),
        (("--task", "probe", "--label", "kind", "--split", "test"), "leave --split out"),
        (("--task", "probe", "--label", "kind", "--lang", "en"), "leave --lang out"),
        (("--task", "labels", "--label", "tags", "--shots", "1"), "--shots goes with --task probe"),
        (("--task", "labels", "--label", "tags", "--lang", "en", "--lang", "zh"), "one language at a time"),
    ],
)
def test_what_cannot_be_is_told(table: Path, words: tuple[str, ...], told: str) -> None:
    code, _, err = call("--data", table, *words)
    assert code == 2 and told in " ".join(err.split())
