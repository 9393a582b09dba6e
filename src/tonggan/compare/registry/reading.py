"""Tables as checked lines: every wrong cell is reported with its file, line and column, its value and what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tonggan.config import did_you_mean
from tonggan.types import TongganError

_SHOWN = 20
"""Problems printed at most; the rest is counted."""


class RegistryError(TongganError):
    """A table of the registry that cannot be used; the message lists its wrong cells."""


@dataclass(slots=True)
class Problems:
    """Collects what is wrong, so that a user mends a table once."""

    found: list[str] = field(default_factory=list)

    def raise_any(self) -> None:
        """Raise a `RegistryError` that lists the problems, if there are any."""
        if not self.found:
            return
        shown = [f"  {problem}" for problem in self.found[:_SHOWN]]
        if len(self.found) > _SHOWN:
            shown.append(f"  … and {len(self.found) - _SHOWN} more")
        raise RegistryError("\n".join([f"{len(self.found)} problem{'s' * (len(self.found) > 1)} in the registry's tables", *shown]))


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table: its cells by column, without surrounding space; `number` counts from 1, the header is line 1."""

    file: str
    number: int
    cells: Mapping[str, str]
    problems: Problems

    def wrong(self, column: str, allowed: str) -> None:
        """Note that the cell of `column` is not what is allowed."""
        value = self.cells.get(column, "")
        shown = repr(value if len(value) <= 60 else value[:57] + "…") if value else "empty"
        self.problems.found.append(f"{self.where}: {column}: {shown}; expected {allowed}")

    @property
    def where(self) -> str:
        """`benchmarks.tsv:12`."""
        return f"{self.file}:{self.number}"

    def text(self, column: str) -> str | None:
        """The cell; None when it is empty or the table has no such column: unknown."""
        return self.cells.get(column) or None

    def required(self, column: str, what: str) -> str:
        """The cell; a note and the empty text when it is empty."""
        if not self.cells.get(column):
            self.wrong(column, what)
        return self.cells.get(column, "")

    def one_of(self, column: str, allowed: Iterable[str]) -> str:
        """A cell that must be one of `allowed`."""
        names = list(allowed)
        if self.cells.get(column, "") not in names:
            self.wrong(column, f"one of {', '.join(names)}{did_you_mean(self.cells.get(column, ''), names)}")
        return self.cells.get(column, "")

    def matching(self, column: str, pattern: str, what: str) -> str:
        """A cell that must match the whole of `pattern`."""
        if not re.fullmatch(pattern, self.cells.get(column, "")):
            self.wrong(column, what)
        return self.cells.get(column, "")

    def number_in(self, column: str, low: float | None, high: float | None) -> float:
        """A decimal number within the bounds (None: open); NaN with a note otherwise."""
        text = self.cells.get(column, "")
        if not re.fullmatch(r"-?\d+(\.\d+)?", text):
            self.wrong(column, "a number with a decimal point, such as 63.5")
            return math.nan
        value = float(text)
        if (low is not None and value < low) or (high is not None and value > high):
            bounds = f"{low or 0:g} or more" if high is None else f"{low or 0:g} to {high:g}"
            self.wrong(column, f"{bounds} (unit {self.cells.get('unit', '')!r})")
        return value


def unquoted(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of a tab-separated table in which a quotation mark is an ordinary character; blank lines are left out."""
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if line.strip():
            yield number, line.split("\t")


def lines(
    table: Iterable[tuple[int, Sequence[str]]], file: str, columns: Sequence[str], needed: Sequence[str], problems: Problems
) -> Iterator[Line]:
    """The lines below the header. `columns` are all that a table may have, `needed` those that it must have, in any order."""
    rows = iter(table)
    number, header = next(rows, (1, ()))
    names = [name.strip() for name in header]
    while names and not names[-1]:
        names.pop()  # spreadsheets end lines with empty cells
    before = len(problems.found)
    for name in names:
        if name not in columns:
            problems.found.append(f"{file}:{number}: no such column {name!r}{did_you_mean(name, columns)}; allowed: {', '.join(columns)}")
        elif names.count(name) > 1:
            problems.found.append(f"{file}:{number}: column {name!r} occurs twice")
    for name in needed:
        if name not in names:
            problems.found.append(f"{file}:{number}: column {name!r} is missing")
    if len(problems.found) > before:
        return  # under a wrong header every cell would be wrong
    for number, row in rows:
        cells = [" ".join(cell.split()) for cell in row]
        while len(cells) > len(names) and not cells[-1]:
            cells.pop()
        if len(cells) > len(names):
            problems.found.append(f"{file}:{number}: {len(cells)} cells, but {len(names)} columns (a separator inside a cell?)")
            continue
        yield Line(file, number, dict(zip(names, cells, strict=False)), problems)
