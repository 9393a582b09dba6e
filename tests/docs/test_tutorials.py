"""The tutorial's code runs, block after block, and both languages show the same code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)


def test_both_languages_show_the_same_code() -> None:
    english, chinese = blocks(DOCS / "clip-from-scratch.md"), blocks(DOCS / "zh" / "clip-from-scratch.md")
    assert len(english) >= 8
    assert english == chinese


@pytest.mark.slow
def test_the_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for number, block in enumerate(blocks(DOCS / "clip-from-scratch.md")):
        exec(compile(block, f"clip-from-scratch.md, block {number}", "exec"), names)
    assert capsys.readouterr().out.strip()
