"""Spreadsheets: CSV and TSV (with open_clip's columns `filepath` and `title`) and Excel."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tonggan.data.formats.base import Located, Reading
from tonggan.data.formats.cells import Record, plain_name
from tonggan.data.formats.columns import IMAGE_NAMES, meta_column, numbered, own_header, rows_of
from tonggan.data.formats.delimited import doubtful, read_text, records, separator
from tonggan.data.formats.writing import Writing
from tonggan.data.media import is_picture_name
from tonggan.data.rows import Dataset
from tonggan.types import Image, MissingExtra, Row, TongganError

_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
# What openpyxl raises on damaged files. SyntaxError: cut XML. RuntimeError: a part that claims a password, or an unknown packing.
_DAMAGE = (
    OSError, LookupError, ValueError, TypeError, AttributeError, SyntaxError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ CSV


def read_csv(job: Reading) -> Iterator[Located]:
    """CSV or TSV, whatever its encoding and separator. A file without a header of names has columns `filepath`, `title`.

    An Excel file that was given another ending is read as what it is.
    """
    if _head(job.path) in (_ZIP, _OLE):
        job.note(f"{job.label}: an Excel file, although its name ends in {job.path.suffix!r}; read as one")
        return read_excel(job)
    text, encoding = read_text(job.path, job.encoding)
    by = "\t" if job.path.suffix.lower() == ".tsv" else separator(text)
    if encoding not in ("utf-8", "utf-8-sig"):
        doubt = "; doubtful: if the captions look wrong, save the table as UTF-8" if not job.encoding and doubtful(text, encoding) else ""
        job.note(f"encoding: {encoding}{doubt}")
    lines = records(text, by)
    first = next(lines, None)
    if first is None:
        raise TongganError(f"{job.path}: an empty table")
    number, names = first
    if any(is_picture_name(name.strip()) for name in names):
        header = _invented(names)
        job.note(f"no line of column names: read as {', '.join(header)}")
        return rows_of(_cells([(number, names), *lines], header, job), header, job)
    header = _named(names)
    return rows_of(_cells(lines, header, job), header, job)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise TongganError(f"{path}: cannot be read: {error.strerror}") from None


def _invented(cells: Sequence[str]) -> list[str]:
    """Column names for a table without any: the first picture is `filepath`, a single other column `title`."""
    picture = next(n for n, cell in enumerate(cells) if is_picture_name(cell.strip()))
    return ["filepath" if n == picture else "title" if len(cells) == 2 else f"column {n + 1}" for n in range(len(cells))]


def _named(names: Sequence[Any]) -> list[str]:
    """Column names without BOM and space; unnamed and repeated ones get a number."""
    result: list[str] = []
    for number, name in enumerate(names, 1):
        word = str(name if name is not None else "").replace("\ufeff", "").strip() or f"column {number}"
        result.append(word if word not in result else f"{word} ({number})")
    return result


def _cells(lines: Iterable[tuple[int, list[str]]], names: Sequence[str], job: Reading) -> Iterator[Record]:
    for number, cells in lines:
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()  # spreadsheets end lines with empty cells
        where = f"{job.label}:{number}"
        if len(cells) > len(names):
            reason = f"{len(cells)} cells, but {len(names)} columns (a separator in a caption without quotes?)"
            job.drop(where, f"{cells[0][:100]}: {reason}")
            continue
        yield where, dict(zip(names, cells, strict=False))


def write_csv(dataset: Dataset, job: Writing) -> None:
    """A table with open_clip's columns first: `filepath`, `title`. Tab separated, as open_clip expects, unless it ends in `.csv`.

    Pictures that have no file are written into a folder beside it.
    """
    names = _columns(dataset)
    with job.place.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="," if job.path.suffix.lower() == ".csv" else "\t")
        writer.writerow(names)
        for row in dataset:
            cells = _record(row, job)
            writer.writerow([cells.get(name, "") for name in names])


# ---------------------------------------------------------------------------------------------- Excel


def read_excel(job: Reading) -> Iterator[Located]:
    """The first sheet that has cells. Pictures are cells with paths, or, where no column names them, pictures laid on the rows."""
    if _head(job.path) == _OLE:
        raise TongganError(f"{job.path}: the old Excel format (or one with a password); save it as .xlsx without")
    try:
        import openpyxl
    except ImportError:
        raise MissingExtra("Excel", "files") from None
    try:
        # Values, not formulas. The content and not the path: openpyxl would refuse a name with another ending.
        book = openpyxl.load_workbook(io.BytesIO(job.path.read_bytes()), data_only=True)
    except _DAMAGE as error:
        raise TongganError(f"{job.path}: not readable as Excel: {error}") from None
    filled = [sheet for sheet in book.worksheets if sheet.max_row > 1]
    if not filled:
        raise TongganError(f"{job.path}: no sheet with rows")
    sheet = filled[0]
    if len(filled) > 1:
        job.note(f"sheet {sheet.title!r} is read; not read: {', '.join(other.title for other in filled[1:])}")
    lines: Iterator[tuple[int, Sequence[Any]]] = enumerate(sheet.iter_rows(values_only=True), 1)
    full = ((number, cells) for number, cells in lines if any(cell is not None for cell in cells))
    first, second = next(full, None), next(full, None)
    if first is None:
        raise TongganError(f"{job.path}: no line of column names")
    while second is not None and _filled(first[1]) == 1 < _filled(second[1]):
        job.note(f"line {first[0]} is read as a heading above the column names: {next(c for c in first[1] if c is not None)}")
        first, second = second, next(full, None)
    lines = chain([second] if second is not None else [], lines)
    names = _named(_trimmed(first[1]))
    pictures = [n for n, name in enumerate(names) if plain_name(name) in IMAGE_NAMES]
    below = sheet.iter_rows(min_row=first[0] + 1, values_only=True)
    named = job.image_col or any(cells[n] is not None for cells in below for n in pictures)
    laid = {} if named else _laid_pictures(sheet, first[0])
    header = names if not laid else [*names, "图片 (laid on the sheet)"]
    if laid:
        job.image_col = header[-1]
        job.note(f"{len(laid)} pictures laid on the sheet belong to the rows under their upper left corner")
    return rows_of(_sheet_records(lines, header, laid, job), header, job)


def _filled(cells: Sequence[Any]) -> int:
    return sum(cell is not None for cell in cells)


def _trimmed(cells: Sequence[Any]) -> list[Any]:
    last = max((number for number, cell in enumerate(cells, 1) if cell is not None), default=0)
    return list(cells[:last])


def _sheet_records(
    lines: Iterable[tuple[int, Sequence[Any]]], header: Sequence[str], laid: Mapping[int, bytes], job: Reading
) -> Iterator[Record]:
    for number, cells in lines:
        if any(cell is not None for cell in cells) or number in laid:
            values = dict(zip(header, cells, strict=False))
            yield f"{job.label}:{number}", values | ({header[-1]: laid.get(number)} if laid else {})


def _laid_pictures(sheet: Any, header: int) -> dict[int, bytes]:
    """Pictures that lie on a sheet below its header (a logo above is none), by the number of the line under their upper left corner;
    the first of each line."""
    found: dict[int, bytes] = {}
    for picture in getattr(sheet, "_images", ()):
        corner = getattr(picture.anchor, "_from", None)  # a picture may also lie at an absolute place, on no line
        if corner is not None and corner.row + 1 > header:
            found.setdefault(corner.row + 1, picture._data())
    return found


def write_excel(dataset: Dataset, job: Writing) -> None:
    """The same columns as the CSV writer's."""
    try:
        import openpyxl
        from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    except ImportError:
        raise MissingExtra("Excel", "files") from None
    names = _columns(dataset)
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("rows")
    sheet.append(names)
    for row in dataset:
        cells = _record(row, job)
        sheet.append([_text_cell(sheet, ILLEGAL_CHARACTERS_RE.sub("", cells.get(name, ""))) for name in names])
    book.save(job.place)


def _text_cell(sheet: Any, word: str) -> Any:
    """A cell that stays text: a caption that begins with `=` is no formula, and `#N/A` no error."""
    if not word.startswith(("=", "#")):
        return word or None
    from openpyxl.cell import WriteOnlyCell

    cell = WriteOnlyCell(sheet, word)
    cell.data_type = "s"
    return cell


# --------------------------------------------------------------------------------------------- writing


def _columns(dataset: Dataset) -> list[str]:
    captions, meta, spoken, pictures = 0, dict[str, None](), 0, False
    for row in dataset:
        pictures = pictures or bool(row.images)
        captions = max(captions, len(row.texts))
        spoken = max(spoken, max((number for number, text in enumerate(row.texts, 1) if text.lang), default=0))
        meta |= dict.fromkeys(meta_column(name) for name in row.meta)
    return [*own_header("filepath" if pictures else None, captions, spoken), *meta]


def _record(row: Row, job: Writing) -> dict[str, str]:
    cells = {"id": row.id, "split": row.split or "", "group": row.group or ""}
    if row.images:
        cells["filepath"] = _picture_cell(row.images[0], job, row.id)
    for number, text in enumerate(row.texts, 1):
        cells[numbered("title", number)] = text.text
        cells[numbered("lang", number)] = text.lang or ""
    return cells | {meta_column(name): value for name, value in row.meta.items()}


def _picture_cell(image: Image, job: Writing, name: str) -> str:
    return image.url if image.url is not None else job.picture(image, name)
