"""Documents name files, tests and commands that exist; both languages say the same amount."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from tonggan import recipes
from tonggan.cli import app
from tonggan.recipes.config import RunConfig

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


def names_of_tests(file: Path) -> set[str]:
    """Names of a file's tests, as it reads: nothing is imported."""
    return {node.name for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_named_tests_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for path, name in re.findall(r"\b(tests/[\w./-]+)::(\w+)", text):
        assert (ROOT / path).is_file(), f"{page.name} names {path}"
        assert name in names_of_tests(ROOT / path), f"{page.name} names {path}::{name}"
    for path in re.findall(r"pytest (tests/[\w./-]+)", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def named_commands(text: str) -> tuple[list[str], list[str]]:
    """Lines of a page's code blocks; and what it calls `tonggan` with, there or between backquotes."""
    blocks = re.findall(r"```(?:bash|sh|console|shell|)\n(.*?)```", text, re.S)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return lines, [line for line in [*lines, *re.findall(r"`(tonggan [^`]+)`", text)] if line.startswith("tonggan ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_named_commands_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    known = commands()
    lines, named = named_commands(text)
    for line in named:
        verb = line.split()[1]
        if verb.startswith("-"):
            continue
        assert verb in known, f"{page.name}: {line}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for target in [*re.findall(r"`make ([a-z-]+)", text), *(line.split()[1] for line in lines if line.startswith("make "))]:
        assert target in targets, f"{page.name}: make {target}"


def test_the_articles_commands_are_recipes_that_parse() -> None:
    """With their changes: a field that a recipe has not is found here, not by the reader."""
    found = 0
    for line in named_commands((ROOT / "docs" / "article.md").read_text("utf-8"))[1]:
        match shlex.split(line):
            case ["tonggan", "train", recipe, *changes] if recipe in recipes.names():
                RunConfig.read(recipes.path(recipe), changes)
                found += bool(changes)
    assert found >= 4


def table_rows(page: Path) -> list[list[str]]:
    lines = [line for line in page.read_text("utf-8").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_articles_map_is_whole_and_the_same_in_both_languages() -> None:
    """Every cell is filled, every row that names code names a test, and both languages name the same files, tests and commands."""
    english, chinese = (table_rows(ROOT / "docs" / where / "article.md") for where in (".", "zh"))
    for one, other in zip(english, chinese, strict=True):
        assert all(one) and all(other), one[0]
        assert "`tests/" in one[-2] or "`src/" not in " ".join(one[:3]), f"{one[0]}: no test"
        assert sorted(re.findall(r"`[^`]+`", " ".join(one))) == sorted(re.findall(r"`[^`]+`", " ".join(other))), one[0]


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
    plain = [re.sub(r"(?<=\d),(?=\d{3})", "", "\n".join(t)) for t in tables]  # 4,462 in English is 4462 in Chinese
    numbers = [re.findall(r"\d+(?:\.\d+)?", t) for t in plain]
    assert numbers[0] == numbers[1], "the two READMEs report different numbers"
