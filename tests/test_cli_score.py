"""`tonggan score`: what the documents print is what it prints; JSON, a report, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tonggan.cli import app

DOCS = Path(__file__).parents[1] / "docs"
runner = CliRunner()


def example(page: Path) -> tuple[str, str]:
    """The table and the output in a page's last section: its last two plain blocks."""
    *_, table, printed = re.findall(r"```text\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    return table, printed


@pytest.mark.parametrize("page", ["comparing.md", "zh/comparing.md"])
def test_the_documents_show_what_it_prints(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, printed = example(DOCS / page)
    (tmp_path / "replies.tsv").write_text(table, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    done = runner.invoke(app, ["score", "replies.tsv", "--protocol", "vlmevalkit", "--protocol", "official"])
    assert done.exit_code == 0, done.output
    assert [line.rstrip() for line in done.stdout.splitlines()] == printed.splitlines()


def test_json_a_report_and_exit_codes(tmp_path: Path) -> None:
    table, _ = example(DOCS / "comparing.md")
    file = tmp_path / "replies.tsv"
    file.write_text(table + "11\tno answer\ta\tb\tc\td\t\tB\n", encoding="utf-8")
    done = runner.invoke(app, ["score", str(file), "--json", "--out", str(tmp_path / "out"), "--limit", "4"])
    told = json.loads(done.stdout)
    assert done.exit_code == 0 and told["items"] == 4 and len(told["scores"]) == 4 and len(told["pairs"]) == 6
    assert told["dropped"] == [{"where": "replies.tsv:12", "reason": "no answer to mark by"}]
    assert Path(told["report"]).is_file()
    assert len((tmp_path / "out" / "items.jsonl").read_text(encoding="utf-8").splitlines()) == 4
    done = runner.invoke(app, ["score", str(file)])
    assert done.exit_code == 0 and "1 row could not be used" in done.stderr and "every pair" in done.stdout
    for words, says in (
        (["--protocol", "vlmeval"], "did you mean 'vlmevalkit'"),
        (["--annotations", str(file)], "goes with VQA results"),
    ):
        done = runner.invoke(app, ["score", str(file), *words])
        assert done.exit_code == 2 and says in done.stderr
    assert runner.invoke(app, ["score", str(tmp_path / "none.tsv")]).exit_code == 2
