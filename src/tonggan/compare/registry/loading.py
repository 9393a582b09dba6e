"""The tables made into a registry: the shipped ones, and a user's own beside them, checked as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tonggan.compare.registry.facts import COLUMNS as MODEL_COLUMNS
from tonggan.compare.registry.facts import NEEDED, model_of
from tonggan.compare.registry.published import COLUMNS as RESULT_COLUMNS
from tonggan.compare.registry.published import Published, published_of
from tonggan.compare.registry.reading import Line, Problems, lines, unquoted
from tonggan.compare.registry.store import Registry, near

_HERE = Path(__file__).parent
AS_OF = "2026-08-18"
"""Date of the newest source that the shipped tables were read from."""

MODELS, RESULTS = ".models.tsv", ".results.tsv"
"""Endings of a user's own tables in the directory that keeps them."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is read but not checked: its lines are (number, cells), the first of them the header."""

    name: str
    lines: Sequence[tuple[int, Sequence[str]]]
    of_models: bool


def table(path: Path) -> Table:
    """A table of ours; whether of models or of results is in its name."""
    return Table(path.name, list(unquoted(path)), path.name.endswith("models.tsv"))


def shipped_tables() -> list[Table]:
    """The two tables of the package."""
    return [table(_HERE / "models.tsv"), table(_HERE / "benchmarks.tsv")]


def own_tables(directory: Path | None, *, but: str | None = None) -> list[Table]:
    """A user's tables in a directory, all but the file of that name."""
    if directory is None or not directory.is_dir():
        return []
    return [table(path) for ending in (MODELS, RESULTS) for path in sorted(directory.glob(f"*{ending}")) if path.name != but]


def build(*tables: Table) -> Registry:
    """A registry of these tables, checked as a whole: cells, duplicates, and that every value's model is known."""
    registry, problems = Registry(), Problems()
    seen: dict[tuple[str, ...], Line] = {}
    for one in tables:
        if one.of_models:
            for line in lines(one.lines, one.name, MODEL_COLUMNS, NEEDED, problems):
                model = model_of(line)
                if model.id in registry.models:
                    line.wrong("id", f"an id of its own; {seen[model.id,].where} has this one")
                else:
                    registry.models[model.id] = model
                    seen[model.id,] = line
    for one in tables:
        if not one.of_models:
            for line in lines(one.lines, one.name, RESULT_COLUMNS, RESULT_COLUMNS, problems):
                result = published_of(line)
                if result.release not in registry.models:
                    line.wrong("model_id", f"the id of a known model before the first /{near(result.release, registry.models)}")
                key = (result.model, result.benchmark, result.unit, line.cells.get("setting", ""), result.source)
                if key in seen:
                    line.wrong("value", _once(result, seen[key]))
                else:
                    registry.results.append(result)
                    seen[key] = line
    problems.raise_any()
    return registry


def load(own: Path | None = None) -> Registry:
    """The shipped tables, and a user's in the directory `own` (see `own.add`); raises `RegistryError` that lists every wrong cell."""
    return build(*shipped_tables(), *own_tables(own))


def _once(result: Published, other: Line) -> str:
    setting = f"in setting {result.setting!r}" if result.setting else "with no setting stated"
    value = other.cells.get("value", "")
    said = "the same" if value == result.written else value
    return (
        f"one value of {result.model} on {result.benchmark!r} {setting} from one source, but {other.where} says {said}; "
        "keep one, or state the settings in which they differ"
    )
