"""Files of records as evaluators write them: JSON lines, JSON lists, delimited text, Excel; each record with the place it stands at."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeAlias

from tonggan.data.formats.delimited import read_text, records, separator
from tonggan.types import MissingExtra, UsageError

Located: TypeAlias = tuple[str, Mapping[str, Any]]
"""Where a record stands (file and line), and the record."""


def read_records(file: Path) -> Iterator[Located]:
    """The records of a file, by its ending. Raises `UsageError` for other endings, and for what is damaged or no record."""
    readers: dict[str, Callable[[Path], Iterator[Located]]] = {
        ".jsonl": _lines, ".json": _list, ".csv": _delimited, ".tsv": _delimited, ".xlsx": _sheet,
    }  # fmt: skip
    if file.suffix.lower() not in readers:
        raise UsageError(f"{file}: predictions are read from files that end in {', '.join(readers)}, not {file.suffix or 'nothing'}")
    for where, record in readers[file.suffix.lower()](file):
        if not isinstance(record, Mapping):
            raise UsageError(f"{where}: expected an object with fields, found {type(record).__name__}")
        yield where, record


def parse_json(text: str, where: str) -> Any:
    """JSON, or a `UsageError` that names where it stands."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not readable as JSON (cut off?): {error}") from None


def _lines(file: Path) -> Iterator[Located]:
    for number, line in enumerate(read_text(file)[0].split("\n"), 1):
        if line.strip():
            yield f"{file.name}:{number}", parse_json(line, f"{file}:{number}")


def _list(file: Path) -> Iterator[Located]:
    data = parse_json(read_text(file)[0], str(file))
    if isinstance(data, Mapping) and isinstance(data.get("logs"), list):  # lmms-eval before version 0.2.4
        data = data["logs"]
    if not isinstance(data, list):
        raise UsageError(f"{file}: expected a JSON list of predictions, found {type(data).__name__}")
    for number, record in enumerate(data, 1):
        yield f"{file.name}, record {number}", record


def _delimited(file: Path) -> Iterator[Located]:
    text, _ = read_text(file)
    lines = records(text, "\t" if file.suffix.lower() == ".tsv" else separator(text))
    _, names = next(lines, (0, []))
    for number, cells in lines:
        yield f"{file.name}:{number}", dict(zip(_columns(names), cells, strict=False))


def _sheet(file: Path) -> Iterator[Located]:
    try:
        import openpyxl
    except ImportError:
        raise MissingExtra("Excel", "files") from None
    try:
        book = openpyxl.load_workbook(io.BytesIO(file.read_bytes()), data_only=True)
    except Exception as error:  # openpyxl raises whatever its parsers do
        raise UsageError(f"{file}: not readable as Excel: {error}") from None
    rows = book.worksheets[0].iter_rows(values_only=True)
    names = _columns(next(rows, ()))
    for number, cells in enumerate(rows, 2):
        if any(cell is not None for cell in cells):
            yield f"{file.name}:{number}", dict(zip(names, cells, strict=False))


def _columns(names: Iterable[Any]) -> list[str]:
    """As VLMEvalKit: options are named by capitals, all other columns in small letters."""
    plain = [str(name or "").strip() for name in names]
    return [name if name in ascii_uppercase else name.lower() for name in plain]
