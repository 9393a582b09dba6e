"""Every file format that users bring, to rows and back.

    data = formats.read("照片.xlsx", image_col="图片", text_col="标题")
    for one in data.dropped:
        print(one.where, one.reason)
    lost = formats.write(data, "照片.xlsx")
    print(*lost, *lost.dropped, sep="\n")

Reading never drops a row in silence, and writing says what the format cannot hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from tonggan.config import one_of
from tonggan.data.formats.arrow import read_hf, read_parquet, read_rows, write_hf, write_parquet, write_rows
from tonggan.data.formats.base import (
    EMPTY_CAPTION,
    Field,
    Format,
    Limits,
    Located,
    Need,
    Reading,
    fitting,
    holding,
    lost,
    storable,
    unique_ids,
    walk,
)
from tonggan.data.formats.captions import (
    TOKEN_LINE,
    is_number,
    json_kind,
    read_coco,
    read_flickr,
    read_karpathy,
    write_coco,
    write_flickr,
    write_karpathy,
)
from tonggan.data.formats.cells import EXCEL_CELL
from tonggan.data.formats.chinese_clip import read_chinese_clip, write_chinese_clip
from tonggan.data.formats.clips import ANIMATED, CLIP_SUFFIXES, is_clip_name, read_clips
from tonggan.data.formats.delimited import read_text
from tonggan.data.formats.folder import TABLES, read_folder, write_folder
from tonggan.data.formats.jsonl import read_jsonl, write_jsonl
from tonggan.data.formats.tables import read_csv, read_excel, write_csv, write_excel
from tonggan.data.formats.vqa import read_vqa
from tonggan.data.formats.webdataset import expand, read_webdataset, write_webdataset
from tonggan.data.formats.writing import Losses, reference, writing
from tonggan.data.media import check_image, is_picture_name, load_image
from tonggan.data.rows import Dataset
from tonggan.types import Image, MediaError, Row, TongganError, UsageError

__all__ = ["EMPTY_CAPTION", "FORMATS", "Check", "Format", "Losses", "detect", "read", "write"]

Check = Literal["exists", "header", "decode"]
"""How far pictures are looked at while reading: that the file is there, that it begins as a picture (0.1 ms), or wholly."""

_TABLE: tuple[Field, ...] = ("captions", "lang", "group", "split", "meta")
_BOTH: tuple[Need, ...] = ("picture", "caption")


def _numbered(row: Row, path: Path) -> bool:
    return is_number(row.id)


def _named_as_file(row: Row, path: Path) -> bool:
    return bool(row.images) and row.images[0].path is not None and row.id == reference(row.images[0].path, path)


_COPIED = Limits(copies=True)
_CELLS = Limits(needs=_BOTH, table=True)
_EXCEL = Limits(needs=_BOTH, table=True, longest=EXCEL_CELL)
_HF = Limits(needs=_BOTH, table=True, urls=False, copies=True)
_TAR = Limits(needs=("picture",), urls=False, copies=True)
_PAIRS = Limits(needs=_BOTH, urls=False)
_CLIP = Limits(needs=_BOTH, urls=False, copies=True, unsplit="train")
_ALL = (
    Format("rows", "a data set directory of ours (Arrow)", holding(), read_rows, write_rows),
    Format("folder", "pictures in folders, with metadata, texts beside them, or classes", holding(), read_folder, write_folder, _COPIED),
    Format("csv", "CSV or TSV; written with open_clip's columns filepath, title", holding(*_TABLE), read_csv, write_csv, _CELLS),
    Format("excel", "the first sheet of an Excel file (.xlsx)", holding(*_TABLE), read_excel, write_excel, _EXCEL),
    Format("jsonl", "JSON lines, a JSON list of records, dialogues, or captions by file name", holding(), read_jsonl, write_jsonl),
    Format("parquet", "Parquet, also with Hugging Face's pictures", holding(), read_parquet, write_parquet),
    Format("webdataset", "tar files of KEY.jpg, KEY.txt, KEY.json", holding(*_TABLE, "images"), read_webdataset, write_webdataset, _TAR),
    Format("coco", "COCO captions", holding("captions"), read_coco, write_coco, _PAIRS, _numbered),
    Format("karpathy", "Karpathy's JSON with splits", holding("captions", "split"), read_karpathy, write_karpathy, _PAIRS),
    Format("flickr", "Flickr's token file", holding("captions"), read_flickr, write_flickr, _PAIRS, _named_as_file),
    Format("chinese-clip", "Chinese-CLIP's TSV and JSONL", holding("captions", "split"), read_chinese_clip, write_chinese_clip, _CLIP),
    Format("hf", "a Hugging Face data set on disk", holding(*_TABLE), read_hf, write_hf, _HF),
)
FORMATS: dict[str, Format] = {format.name: format for format in _ALL}
"""Every format that is read and written, by name."""
_READERS = {format.name: format.read for format in _ALL} | {"vqa": read_vqa, "clips": read_clips}
"""VQAv2's files, and others of their form, are only read; so are clips that lie in a folder."""

_BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "csv",
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".xls": "excel",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".tgz": "webdataset",
    ".token": "flickr",
    ".json": "jsonl",
}


def read(
    path: str | Path,
    *,
    format: str | None = None,
    image_col: str | None = None,
    text_col: str | Sequence[str] | None = None,
    text_lang: str | Mapping[str, str] | None = None,
    encoding: str | None = None,
    restval: Literal["train", "keep"] = "train",
    check: Check = "header",
) -> Dataset:
    """Rows of anything in `FORMATS`, found out from the path and its content unless `format` says so.

    `text_col` may name several columns (a list, or one string with commas); `text_lang` is one language for all captions
    or one by column; without it a language column or the letters decide. `restval` is for Karpathy's splits.
    What could not be used is in `.dropped`, with file, line and reason; what was decided or mended in `.notes`.
    Raises `UsageError` for a wrong column or format, `TongganError` when nothing can be read or no row is left.
    """
    spec = str(path)
    sources = expand(spec) if "::" in spec or ("{" in spec and ".tar" in spec) else []
    place = sources[0] if sources else Path(path).expanduser()
    if not place.exists():
        raise TongganError(f"{path}: no such file or folder")
    name = one_of(format, _READERS, "format") if format else "webdataset" if sources else detect(place)
    if name == "rows":
        return Dataset.read(place)
    columns = (text_col,) if isinstance(text_col, str) else tuple(text_col or ())
    job = Reading(place.absolute(), image_col, columns, text_lang, encoding, restval, tuple(sources))
    rows = _checked(unique_ids(storable(_READERS[name](job), job), job), job, check)
    dataset = Dataset.from_rows(rows, base=job.base).with_dropped(job.dropped, job.notes)
    if not len(dataset):
        reasons = "; ".join(f"{one.where}: {one.reason}" for one in job.dropped[:5])
        raise TongganError(f"{path}: no row can be used" + (f", all {len(job.dropped)} were dropped: {reasons}" if reasons else ""))
    return dataset


def write(dataset: Dataset, path: str | Path, format: str | None = None) -> Losses:
    """Write a data set, whole or not at all; the format follows from the ending unless given.

    Returns what it could not hold, e.g. `split: 120 rows`, and in `.dropped` the rows that it could not hold at all, each with its
    reason. Raises `TongganError` when that is all of them.
    """
    place = Path(path)
    name = one_of(format, FORMATS, "format") if format else _BY_SUFFIX.get(place.suffix.lower(), "rows" if not place.suffix else "")
    if not name:
        raise UsageError(f"{path}: no format is known by this ending; say which: {', '.join(FORMATS)}")
    kept, dropped = fitting(dataset, FORMATS[name])
    if dropped and not len(kept):
        reasons = "; ".join(f"{one.where}: {one.reason}" for one in dropped[:5])
        raise TongganError(f"{path}: no row can be written as {name}, all {len(dropped)} were dropped: {reasons}")
    with writing(place) as job:
        FORMATS[name].write(kept, job)
    return Losses(lost(kept, FORMATS[name], place), dropped)


def detect(path: Path) -> str:
    """The format of a file or folder, from its ending and a look inside; raises `UsageError` when it is none we know."""
    return _detect_folder(path) if path.is_dir() else _detect_file(path)


def _detect_folder(path: Path) -> str:
    if (path / "dataset.json").is_file():
        if json_kind(path / "dataset.json") == "karpathy":  # his file has this name too
            raise UsageError(f"{path}: name the file: {path / 'dataset.json'}")
        return "rows"
    if (path / "dataset_dict.json").is_file() or ((path / "state.json").is_file() and (path / "dataset_info.json").is_file()):
        return "hf"
    if any(path.glob("*_imgs.tsv")):
        return "chinese-clip"
    files = list(itertools.islice(walk(path), 20_000))
    if any(is_picture_name(file) or (file.parent == path and file.suffix.lower() in TABLES) for file in files):
        return "folder"
    for suffix, name in ((".tar", "webdataset"), (".parquet", "parquet")):
        if any(file.suffix.lower() == suffix for file in files):
            return name
    if any(map(is_clip_name, files)):
        return "clips"
    raise UsageError(f"{path}: nothing in this folder is known: no pictures, tables, tar or Parquet files, or clips")


def _detect_file(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in (".gz", ".bz2", ".xz") and ".tar" in path.name.lower():
        return "webdataset"
    if path.name.endswith("_texts.jsonl") or path.name.endswith("_imgs.tsv"):
        return "chinese-clip"
    if suffix == ".zip":
        raise UsageError(f"{path}: unpack the archive and give the folder")
    if suffix == ".txt":
        first = read_text(path)[0].lstrip().partition("\n")[0]
        return "flickr" if TOKEN_LINE.match(first) else "csv"
    if suffix == ".json":
        return json_kind(path)
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if suffix in CLIP_SUFFIXES | ANIMATED:
        return "clips"
    raise UsageError(f"{path}: no format is known by the ending {suffix!r}; say which: {', '.join(FORMATS)}")


# --------------------------------------------------------------------------------------------- checking


def _checked(rows: Iterator[Located], job: Reading, check: Check) -> Iterator[Row]:
    """The rows whose pictures can be read; the others, and single pictures of those with several, go to `job.dropped`."""
    if check == "exists":
        yield from (row for _, row in rows)
        return
    look: Callable[[Image], object] = check_image if check == "header" else load_image
    with ThreadPoolExecutor(4) as pool:
        while chunk := list(itertools.islice(rows, 64)):
            for (where, row), reasons in zip(chunk, pool.map(lambda pair: _faults(pair[1], look), chunk), strict=True):
                good = tuple(image for image, reason in zip(row.images, reasons, strict=True) if reason is None)
                for image, reason in zip(row.images, reasons, strict=True):
                    if reason is not None:
                        job.drop(where, f"{_name(image, job)}{reason}")
                if row.question is not None and len(good) < len(row.images):
                    continue  # without one of its pictures it would be another question
                if good or not row.images:
                    yield row if len(good) == len(row.images) else row.with_(images=good)


def _faults(row: Row, look: Callable[[Image], object]) -> list[str | None]:
    return [_fault(image, look) for image in row.images]


def _fault(image: Image, look: Callable[[Image], object]) -> str | None:
    if image.url is not None and image.url[:5].lower() != "data:":
        return None  # on the network: not ours to look at here
    try:
        look(image)
    except MediaError as error:
        return error.reason
    return None


def _name(image: Image, job: Reading) -> str:
    if image.path is None:
        return ""
    return f"{image.path.relative_to(job.base).as_posix() if image.path.is_relative_to(job.base) else image.path}: "
