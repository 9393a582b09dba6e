"""Documents name files and commands that exist; both languages say the same amount."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from tonggan.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [
    p
    for p in [
        ROOT / "README.md",
        ROOT / "README.zh-CN.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
    if p.exists()
]


def commands() -> set[str]:
    root = get_command(app)
    found = set()
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        found |= {f"{name} {sub}" for sub in getattr(command, "commands", {})} | {name}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_named_paths_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for path in re.findall(r"`((?:src|tests|docs|benchmarks|scripts|constraints)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), f"{page.name} links {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_named_commands_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    known = commands()
    blocks = re.findall(r"```(?:bash|sh|console|shell|)\n(.*?)```", text, re.S)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    named = [line for line in [*lines, *re.findall(r"`(tonggan [^`]+)`", text)] if line.startswith("tonggan ")]
    for line in named:
        verb = line.split()[1]
        if verb.startswith("-"):
            continue
        assert verb in known, f"{page.name}: {line}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for target in [*re.findall(r"`make ([a-z-]+)", text), *(line.split()[1] for line in lines if line.startswith("make "))]:
        assert target in targets, f"{page.name}: make {target}"


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name == "docs"], ids=lambda p: p.name)
def test_every_english_page_that_has_a_chinese_twin_has_its_sections(page: Path) -> None:
    twin = page.parent / "zh" / page.name
    if page.name in {"architecture.md", "journal.md"}:
        return
    assert twin.exists(), f"{page.name} has no Chinese twin"
    count = [len(re.findall(r"^#+ ", p.read_text("utf-8"), re.M)) for p in (page, twin)]
    rows = [len(re.findall(r"^\|", p.read_text("utf-8"), re.M)) for p in (page, twin)]
    assert count[0] == count[1]
    assert rows[0] == rows[1]


def test_readme_in_both_languages_has_the_same_sections_and_numbers() -> None:
    texts = [(ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md")]
    heads = [len(re.findall(r"^#+ ", t, re.M)) for t in texts]
    assert heads[0] == heads[1]
    tables = [re.findall(r"^\|.*\|$", t, re.M) for t in texts]
    numbers = [re.findall(r"\d+(?:\.\d+)?", "\n".join(t)) for t in tables]
    assert numbers[0] == numbers[1], "the two READMEs report different numbers"
