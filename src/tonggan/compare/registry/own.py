"""A user's own rows: checked like the shipped ones and together with them, kept beside them, marked with their file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tonggan.compare.registry.loading import MODELS, RESULTS, Table, build, own_tables, shipped_tables
from tonggan.compare.registry.reading import Problems
from tonggan.compare.registry.store import Registry
from tonggan.config import did_you_mean
from tonggan.data.formats.delimited import read_text, records, separator
from tonggan.data.sources.base import cache_home
from tonggan.types import UsageError


@dataclass(frozen=True, slots=True)
class Added:
    """What was kept: `models` or `results`, how many rows, in which file, and what deserves a look."""

    kind: str
    rows: int
    file: Path
    notes: list[str]


def home() -> Path:
    """The directory that keeps a user's own rows."""
    return cache_home() / "registry"


def add(path: str | Path, to: Path | None = None, *, replace: bool = False) -> Added:
    """Check a table of models or of results (CSV or TSV in any usual encoding; its header says which) and keep it in `to`.

    A wrong cell raises a `RegistryError` that lists all of them, and nothing is kept. Rows of an earlier file of the same name
    are replaced only with `replace`.
    """
    source = Path(path).expanduser()
    directory = to or home()
    mine = _read(source)
    target = directory / f"{source.stem.removesuffix('.models').removesuffix('.results')}{MODELS if mine.of_models else RESULTS}"
    text = "\n".join("\t".join(" ".join(cell.split()) for cell in cells) for _, cells in mine.lines) + "\n"
    if target.exists() and not replace and target.read_text(encoding="utf-8") != text:
        raise UsageError(f"{target}: other rows of a file of this name are kept already; replace them with --replace, or rename your file")
    whole = build(*shipped_tables(), *own_tables(directory, but=target.name), mine)
    notes = _look(whole, mine)
    directory.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(target)
    return Added("models" if mine.of_models else "results", len(mine.lines) - 1, target, notes)


def _read(source: Path) -> Table:
    if not source.is_file():
        raise UsageError(f"{source}: no such file")
    if source.suffix.lower() in {".xlsx", ".xls", ".ods"}:
        raise UsageError(f"{source}: a spreadsheet; save it as CSV first")
    text, _ = read_text(source)
    lines = list(records(text, "\t" if source.suffix.lower() == ".tsv" else separator(text)))
    header = {name.strip() for name in lines[0][1]} if lines else set()
    if "model_id" not in header and "id" not in header:
        raise UsageError(
            f"{source}: its first line names neither the columns of results (model_id, benchmark, value, unit, setting, source, evidence) "
            "nor those of models (id, display_name_en, family_paradigm, modalities_in, modalities_out, source, …)"
        )
    if len(lines) < 2:
        raise UsageError(f"{source}: no rows below the column names")
    return Table(str(source), lines, "model_id" not in header)


def _look(whole: Registry, mine: Table) -> list[str]:
    """What the other tables say against the new rows: raises on another unit and on a date to come, notes new benchmarks."""
    problems, notes = Problems(), dict[str, None]()
    units: dict[str, set[str]] = {}
    for result in whole.results:
        if result.file != mine.name:
            units.setdefault(result.benchmark, set()).add(result.unit)
    for result in whole.results:
        if result.file == mine.name and result.benchmark not in units:
            notes[f"{result.benchmark!r} is a new benchmark{did_you_mean(result.benchmark, units)}"] = None
        elif result.file == mine.name and result.unit not in units[result.benchmark]:
            known = " or ".join(sorted(units[result.benchmark]))
            problems.found.append(f"{mine.name}: {result.model} on {result.benchmark!r}: unit: {result.unit!r}; expected {known}")
    today = date.today().isoformat()
    for model in (model for model in whole.models.values() if model.file == mine.name):
        if model.released and model.released > today[: len(model.released)]:
            problems.found.append(f"{mine.name}: {model.id}: release_date {model.released!r} is after today, {today}")
    problems.raise_any()
    return list(notes)
