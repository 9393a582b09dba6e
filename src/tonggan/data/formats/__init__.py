"""Every file format that users bring, to rows and back.

    data = formats.read("照片.xlsx", image_col="图片", text_col="标题")
    for one in data.dropped:
        print(one.where, one.reason)
    lost = formats.write(data, "照片.parquet")

Reading never drops a row in silence, and writing says what the format cannot hold.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from tonggan.config import one_of
from tonggan.data.formats.arrow import read_hf, read_parquet, read_rows, write_hf, write_parquet, write_rows
from tonggan.data.formats.base import EMPTY_CAPTION, Field, Format, Located, Reading, holding, lost, storable, unique_ids, walk
from tonggan.data.formats.captions import (
    TOKEN_LINE,
    is_number,
    read_coco,
    read_flickr,
    read_karpathy,
    write_coco,
    write_flickr,
    write_karpathy,
)
from tonggan.data.formats.chinese_clip import read_chinese_clip, write_chinese_clip
from tonggan.data.formats.delimited import read_text
from tonggan.data.formats.folder import TABLES, read_folder, write_folder
from tonggan.data.formats.jsonl import read_jsonl, write_jsonl
from tonggan.data.formats.tables import read_csv, read_excel, write_csv, write_excel
from tonggan.data.formats.webdataset import expand, read_webdataset, write_webdataset
from tonggan.data.media import check_image, is_picture_name, load_image
from tonggan.data.rows import Dataset
from tonggan.types import Image, MediaError, Row, TongganError, UsageError

__all__ = ["EMPTY_CAPTION", "FORMATS", "Check", "Format", "detect", "read", "write"]

Check = Literal["exists", "header", "decode"]
"""How far pictures are looked at while reading: that the file is there, that it begins as a picture (0.1 ms), or wholly."""

_TABLE: tuple[Field, ...] = ("captions", "lang", "group", "split", "meta")


def _named_as_file(row: Row) -> bool:
    return bool(row.images) and row.images[0].path is not None and row.id == row.images[0].path.name


_ALL = (
    Format("rows", "a data set directory of ours (Arrow)", holding(), read_rows, write_rows),
    Format("folder", "pictures in folders, with metadata, texts beside them, or classes", holding(), read_folder, write_folder),
    Format("csv", "CSV or TSV; written with open_clip's columns filepath, title", holding(*_TABLE), read_csv, write_csv),
    Format("excel", "the first sheet of an Excel file (.xlsx)", holding(*_TABLE), read_excel, write_excel),
    Format("jsonl", "JSON lines, or a JSON list of records", holding(), read_jsonl, write_jsonl),
    Format("parquet", "Parquet, also with Hugging Face's pictures", holding(), read_parquet, write_parquet),
    Format("webdataset", "tar files of KEY.jpg, KEY.txt, KEY.json", holding(*_TABLE, "images"), read_webdataset, write_webdataset),
    Format("coco", "COCO captions", holding("captions"), read_coco, write_coco, lambda row: is_number(row.id)),
    Format("karpathy", "Karpathy's JSON with splits", holding("captions", "split"), read_karpathy, write_karpathy),
    Format("flickr", "Flickr's token file", holding("captions"), read_flickr, write_flickr, _named_as_file),
    Format("chinese-clip", "Chinese-CLIP's TSV and JSONL", holding("captions", "split"), read_chinese_clip, write_chinese_clip),
    Format("hf", "a Hugging Face data set on disk", holding(*_TABLE), read_hf, write_hf),
)
FORMATS: dict[str, Format] = {format.name: format for format in _ALL}
"""Every format by name."""

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
    name = one_of(format, FORMATS, "format") if format else "webdataset" if sources else detect(place)
    if name == "rows":
        return Dataset.read(place)
    columns = (text_col,) if isinstance(text_col, str) else tuple(text_col or ())
    job = Reading(place.absolute(), image_col, columns, text_lang, encoding, restval, tuple(sources))
    rows = _checked(unique_ids(storable(FORMATS[name].read(job), job), job), job, check)
    dataset = Dataset.from_rows(rows, base=job.base).with_dropped(job.dropped, job.notes)
    if not len(dataset):
        reasons = "; ".join(f"{one.where}: {one.reason}" for one in job.dropped[:5])
        raise TongganError(f"{path}: no row can be used" + (f", all {len(job.dropped)} were dropped: {reasons}" if reasons else ""))
    return dataset


def write(dataset: Dataset, path: str | Path, format: str | None = None) -> list[str]:
    """Write a data set; the format follows from the ending unless given. Returns what it could not hold, e.g. `split: 120 rows`."""
    place = Path(path)
    name = one_of(format, FORMATS, "format") if format else _BY_SUFFIX.get(place.suffix.lower(), "rows" if not place.suffix else "")
    if not name:
        raise UsageError(f"{path}: no format is known by this ending; say which: {', '.join(FORMATS)}")
    place.parent.mkdir(parents=True, exist_ok=True)
    FORMATS[name].write(dataset, place)
    return lost(dataset, FORMATS[name])


def detect(path: Path) -> str:
    """The format of a file or folder, from its ending and a look inside; raises `UsageError` when it is none we know."""
    return _detect_folder(path) if path.is_dir() else _detect_file(path)


def _detect_folder(path: Path) -> str:
    if (path / "dataset.json").is_file():
        if _detect_json(path / "dataset.json") == "karpathy":  # his file has this name too
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
    raise UsageError(f"{path}: nothing in this folder is known: no pictures, tables, tar or Parquet files")


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
        return _detect_json(path)
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    raise UsageError(f"{path}: no format is known by the ending {suffix!r}; say which: {', '.join(FORMATS)}")


def _detect_json(path: Path) -> str:
    try:
        data = json.loads(read_text(path)[0])
    except (ValueError, RecursionError):
        return "jsonl"
    if not _has_images(data):
        return "jsonl"
    return "karpathy" if data["images"] and "sentences" in data["images"][0] else "coco"


def _has_images(data: object) -> bool:
    """Whether this is COCO's or Karpathy's object, with a list of pictures that are objects."""
    pictures = data.get("images") if isinstance(data, dict) else None
    return isinstance(pictures, list) and all(isinstance(one, dict) for one in pictures)


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
