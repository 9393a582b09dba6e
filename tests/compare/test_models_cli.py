"""`tonggan models`: what is printed, JSON, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tonggan.cli.models import PARADIGMS, app
from tonggan.compare.registry import facts

runner = CliRunner()


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONGGAN_HOME", str(tmp_path / "home"))


def call(*words: object) -> tuple[int, str, str]:
    done = runner.invoke(app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def data(*words: object) -> Any:
    code, out, err = call(*words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_ls_lists_what_fits_and_says_what_might() -> None:
    code, out, err = call("ls", "--origin", "CN", "--smallest", 7, "--largest", 9, "--since", "2025-06")
    assert code == 0
    assert "minicpm-v-4.5" in out
    assert "gpt-4o" not in out
    assert "other models might fit: size unknown" in err
    found = data("ls", "--origin", "CN", "--smallest", 7, "--largest", 9, "--since", "2025-06")
    assert all(any(7 <= size <= 9 for size in model["sizes"]) for model in found["models"])
    assert "doubao-seed-1.6" in found["unknown"]["size"]
    assert {"benchmark": "MMMU val", "values": 215} in data("ls", "--benchmarks")


def test_show_gives_every_fact_and_value_with_its_source() -> None:
    code, out, _ = call("show", "通义千问2.5-VL")
    assert code == 0
    assert "sizes             3, 7, 32, 72" in out
    assert "licence           unknown" in out
    assert "gives             text, boxes, JSON" in out
    assert "open_weights      no" in call("show", "gpt-4o")[1], "no is not unknown"
    found = data("show", "qwen2.5-vl")
    assert found["licence"] is None
    assert len(found["results"]) > 50
    assert all(result["source"] for result in found["results"])


def test_compare_keeps_settings_apart() -> None:
    code, out, _ = call("compare", "qwen2.5-vl", "gpt-4o", "--benchmark", "MMMU val")
    assert code == 0
    assert "values in different lists are not comparable" in out
    columns = data("compare", "qwen2.5-vl", "gpt-4o", "--benchmark", "MMMU val")["columns"]
    assert len({(c["benchmark"], c["unit"], c["setting"], c["evidence"], c["source"]) for c in columns}) == len(columns) > 1
    _, out, _ = call("compare", "--benchmark", "OCRBench")
    assert "no medians: by the median date the domestic models are 7 months newer, more than 6" in out


def test_add_keeps_rows_and_marks_them(tmp_path: Path) -> None:
    file = tmp_path / "newer.csv"
    file.write_text("model_id,benchmark,value,unit,setting,source,evidence\ngpt-4o,OCRBench,801,points/1000,mine,a note,self-reported\n")
    assert data("add", file)["rows"] == 1
    assert "(newer.results.tsv)" in call("compare", "--benchmark", "OCRBench", "--alone")[1]
    file.write_text(file.read_text() + "gpt-4o,OCRBench,80.1,%,mine,a note,self-reported\n")
    code, _, err = call("add", file, "--replace")
    assert code == 1
    assert "unit: '%'; expected points/1000" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "gpt-4-o"), "did you mean 'gpt-4o'"),
        (("compare",), "name models or a benchmark"),
        (("compare", "--benchmark", "MMMU vol"), "did you mean 'MMMU val'"),
        (("ls", "--origin", "chine"), "there are: "),
        (("add", "no-such.tsv"), "no such file"),
    ],
)
def test_wrong_calls_exit_2_with_a_hint(words: tuple[str, ...], said: str) -> None:
    code, _, err = call(*words)
    assert code == 2
    assert said in err


def test_the_help_names_what_there_is() -> None:
    assert PARADIGMS.split(", ") == list(facts.PARADIGMS)
    said = " ".join(call("ls", "--help")[1].split())
    for capability in facts.CAPABILITIES:
        assert capability in said
