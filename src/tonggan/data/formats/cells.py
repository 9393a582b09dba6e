"""Cells and names of columns as text, the same for every table."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

Record: TypeAlias = tuple[str, Mapping[str, Any]]
"""Where a record stands (file and line), and its cells by column."""
EMPTY = frozenset({"", "nan", "null", "#n/a", "\\n", "<na>"})
"""Words by which other programs write emptiness."""
EXCEL_CELL = 32_767
"""Characters that a cell of Excel holds; openpyxl cuts off the others without a word."""
META = "meta."
"""Prefix that our writers give to a column whose plain name would be taken for something else."""


def plain_name(name: str) -> str:
    """A column's name as it is compared: no BOM, no surrounding space, one width and case."""
    return unicodedata.normalize("NFKC", name.replace("\ufeff", "")).strip().strip("'\"").lower()


def meta_name(name: str) -> str:
    """A column's name as a key of `meta`."""
    return name.replace("\ufeff", "").strip().removeprefix(META)


def as_text(cell: Any, empty: Collection[str] = EMPTY) -> str | None:
    """A cell as text, None when it is empty: spreadsheets make numbers of ids (3.0), Parquet's plain columns are bytes, other programs
    write emptiness as a word. A list or an object becomes JSON."""
    if cell is None:
        return None
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", errors="replace")
    if isinstance(cell, float):
        if cell != cell:
            return None
        cell = int(cell) if cell.is_integer() else cell
    if isinstance(cell, list | tuple | dict):
        return json.dumps(cell, ensure_ascii=False, default=str) if cell else None
    text = str(cell).strip()
    return None if text.lower() in empty else text
