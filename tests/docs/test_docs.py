"""Documents name files, tests and commands that exist; both languages say the same amount."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tonggan import recipes
from tonggan.cli import app
from tonggan.recipes.config import RunConfig

ROOT = Path(__file__).parents[2]
TONGGAN: Any = get_command(app)
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


SHELLS = {"", "bash", "sh", "console", "shell"}


def fenced(text: str) -> tuple[list[str], str]:
    """Lines of a page's blocks of shell commands, continued ones as one; and the page without any block."""
    lines: list[str] = []
    prose: list[str] = []
    language: str | None = None
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if fence := re.match(r"\s*```\s*([\w-]*)", line):
            language = fence[1] if language is None else None
        elif language is None:
            prose.append(line)
        elif language in SHELLS:
            lines.append(line.strip().removeprefix("$ "))
    return lines, "\n".join(prose)


def named_commands(text: str) -> tuple[list[list[str]], list[list[str]]]:
    """The words of every line of a page's shell blocks; and those of every call of `tonggan`, there or between backquotes."""
    lines, prose = fenced(text)
    split = [shlex.split(line, comments=True) for line in lines]
    split = [words for words in split if words]
    inline = [shlex.split(" ".join(code.split())) for code in re.findall(r"`(tonggan [^`]+)`", prose)]
    return split, [words[words.index("tonggan") :] for words in (*split, *inline) if "tonggan" in words]


def check_call(words: list[str]) -> None:
    """Walk from `tonggan` to the verb, then look for each option among the verb's own."""
    command, rest = TONGGAN, words[1:]
    while rest and not rest[0].startswith("-") and hasattr(command, "commands"):
        assert rest[0] in command.commands, f"no verb {rest[0]!r}: {shlex.join(words)}"
        command, rest = command.commands[rest[0]], rest[1:]
    known = {"--help"} | {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        option = word.partition("=")[0]
        assert option in known or not re.match(r"--?[a-z]", option), f"no option {option}: {shlex.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_named_commands_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    lines, calls = named_commands(text)
    for words in calls:
        check_call(words)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for target in [*re.findall(r"`make ([a-z-]+)", text), *(words[1] for words in lines if words[0] == "make")]:
        assert target in targets, f"{page.name}: make {target}"


def test_a_command_that_does_not_exist_is_found_wherever_it_stands() -> None:
    page = """A `tonggan eval` and

```python
x = 1
```

prose between blocks, tonggan is a name here

```bash
KEY=a tonggan serve runs/demo \\
  --port 1  # it's free
tonggan data doctor my.csv --image-col 图片 --typo
```
"""
    lines, calls = named_commands(page)
    assert [words[0] for words in lines] == ["KEY=a", "tonggan"]
    assert [words[1] for words in calls] == ["serve", "data", "eval"]
    check_call(calls[0])
    with pytest.raises(AssertionError, match="no option --typo"):
        check_call(calls[1])
    with pytest.raises(AssertionError, match="no verb 'dcotor'"):
        check_call(["tonggan", "data", "dcotor", "x"])


def trained(text: str, own: Path) -> list[dict[str, Any]]:
    """What every call of `tonggan train` on a page is given, read as the command line reads it; recipes of the page's own are put into
    `own` by their names. A field that a recipe has not, or a training of nothing, is found here, not by the reader."""
    for block in re.findall(r"```yaml\n(.*?)```", text, re.S):
        if name := re.search(r"^name: (\S+)$", block, re.M):
            (own / f"{name[1]}.yaml").write_text(block, "utf-8")
    verb, found = TONGGAN.commands["train"], []
    for words in named_commands(text)[1]:
        if words[1:2] != ["train"]:
            continue
        given = verb.make_context("train", words[2:]).params
        if (recipe := given["recipe"]) is None:
            assert given["start"] and given["data"], f"train needs a recipe, or --from with --data: {shlex.join(words)}"
        else:
            file = own / recipe if recipe.endswith(".yaml") else recipes.path(recipe)
            RunConfig.read(file, given["overrides"] or ())
        found.append(given)
    return found


TRAININGS = {"docs/article.md": 10, "docs/systems.md": 16, "docs/adapting.md": 10, "docs/sound-and-video.md": 4, "README.md": 1}
"""Pages by how many calls they have at least."""


@pytest.mark.parametrize("page", TRAININGS)
def test_every_training_on_a_page_parses_and_is_the_same_in_both_languages(page: str, tmp_path: Path) -> None:
    english, chinese = ROOT / page, ROOT / ("README.zh-CN.md" if page == "README.md" else page.replace("docs/", "docs/zh/"))
    calls = trained(english.read_text("utf-8"), tmp_path)
    assert len(calls) >= TRAININGS[page]
    assert trained(chinese.read_text("utf-8"), tmp_path) == calls


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tonggan train joint stages.0.streams.9.weight=1", r"'9' is not one of 0\.\.3"),
        ("tonggan train joint stages.0.trian.minutes=3", "did you mean 'train'"),
        ("tonggan train mine.yaml seed=x", "seed"),
        ("tonggan train other.yaml", "no such file"),
        ("tonggan train qickstart", "did you mean 'quickstart'"),
        ("tonggan train quickstart --limit few", "integer"),
    ],
)
def test_a_training_that_would_not_begin_is_found(line: str, message: str, tmp_path: Path) -> None:
    mine = f"```yaml\n{recipes.show('quickstart').replace('name: quickstart', 'name: mine')}```\n"
    (given,) = trained(f"{mine}```bash\ntonggan train mine.yaml seed=7\n```\n", tmp_path)
    assert list(given["overrides"]) == ["seed=7"]
    with pytest.raises(Exception, match=message):
        trained(f"{mine}`{line}`", tmp_path)


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


@pytest.mark.parametrize(("article", "readme"), [("docs/article.md", "README.md"), ("docs/zh/article.md", "README.zh-CN.md")])
def test_the_articles_map_gives_the_readmes_numbers(article: str, readme: str) -> None:
    """In a cell that cites it, every triple of per cents is a row of its table, every number of points one that it gives."""
    text = (ROOT / readme).read_text("utf-8")
    rows = {"/".join(found) for found in re.findall(r"\| (\d+\.\d) ± [\d.]+ " * 3, text)}
    cells = [cell for row in table_rows(ROOT / article) for cell in row if re.search(r"[(（]README[)）]", cell)]
    triples = [triple for cell in cells for triple in re.findall(r"[\d.]+/[\d.]+/[\d.]+(?= %)", cell)]
    assert len(triples) >= 4 and set(triples) <= rows, set(triples) - rows
    given = re.compile(r"\d+ (?:to|到) \d+(?=\s(?:points|个百分点))")
    points = [found for cell in cells for found in given.findall(cell)]
    assert points and set(points) <= set(given.findall(text)), points


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
