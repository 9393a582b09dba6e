"""Folders of pictures: with a table of metadata, with a text beside each picture, sorted into classes, or bare."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tonggan.data.formats.base import EMPTY_CAPTION, Located, Reading, natural, normal_split, walk
from tonggan.data.formats.captions import json_kind, read_coco, read_karpathy
from tonggan.data.formats.clips import is_clip_name
from tonggan.data.formats.delimited import read_text
from tonggan.data.formats.jsonl import by_picture, read_jsonl, row_record
from tonggan.data.formats.tables import read_csv, read_excel
from tonggan.data.formats.vqa import read_vqa
from tonggan.data.formats.writing import Writing, reference
from tonggan.data.language import language_of
from tonggan.data.media import is_picture_name
from tonggan.data.rows import Dataset
from tonggan.types import Image, Media, Row, Text, TongganError

TABLES = {".csv": read_csv, ".tsv": read_csv, ".xlsx": read_excel, ".xlsm": read_excel, ".jsonl": read_jsonl}
_JSON = {"jsonl": read_jsonl, "coco": read_coco, "karpathy": read_karpathy, "vqa": read_vqa}
_SPLITS = ("train", "val", "test")


def read_folder(job: Reading) -> Iterator[Located]:
    """Pictures of a folder. In this order: `metadata.*` as Hugging Face's imagefolder has it (in each split's folder, too); the
    only table at the top, or several that are named after their splits (`train.csv`, `test.csv`), else JSON files about the pictures;
    `NAME.txt` beside `NAME.jpg`, a caption a line; folders as classes; pictures alone.
    """
    if not job.path.is_dir():
        raise TongganError(f"{job.path}: not a folder")
    files = sorted(walk(job.path), key=natural)
    if tables := _tables(files, job):
        for table in tables:
            yield from _from_table(table, job, _split_named(table) if len(tables) > 1 else None)
        return
    pictures = [file for file in files if is_picture_name(file)]
    if clips := sum(map(is_clip_name, files)):
        job.note(f"{clips} clip{'s' * (clips > 1)} beside the pictures left out; clips are read from a folder of their own")
    if not pictures:
        raise TongganError(f"{job.path}: no pictures and no table that can be read in this folder")
    if any(file.with_suffix(".txt").is_file() for file in pictures):
        yield from _with_texts(pictures, job)
    else:
        yield from _by_class(pictures, job)


def _tables(files: Sequence[Path], job: Reading) -> list[Path]:
    """The tables about the pictures. Several at the top are read only where each is named after a split."""
    metadata = [file for file in files if file.stem.lower() == "metadata" and file.suffix.lower() in TABLES]
    if metadata:
        return metadata
    at_top = [file for file in files if file.parent == job.path]
    tables = [file for file in at_top if file.suffix.lower() in TABLES]
    jsons = [file for file in at_top if file.suffix.lower() == ".json"]
    tables = tables or [file for file in jsons if _about_pictures(file)] or [file for file in jsons if _asks(file)]
    if len(tables) > 1 and not all(map(_split_named, tables)):
        names = ", ".join(file.name for file in tables)
        raise TongganError(f"{job.path}: several tables ({names}); give the one to read, or name them after splits: train.csv, test.csv")
    return tables


def _from_table(table: Path, job: Reading, named: str | None) -> Iterator[Located]:
    inner = replace(job, path=table, root=job.path)  # with the same lists of what is dropped
    folder = table.parent.relative_to(job.path)
    split = normal_split(folder.parts[0]) if folder.parts else named
    for where, row in _reader(table)(inner):
        yield where, row if row.split or split not in _SPLITS else row.with_(split=split)


def _reader(table: Path) -> Callable[[Reading], Iterator[Located]]:
    return TABLES.get(table.suffix.lower()) or _JSON[json_kind(table)]


def _about_pictures(file: Path) -> bool:
    """Whether a JSON file holds captions of pictures: other programs leave files of theirs beside pictures, too."""
    text, _ = read_text(file)
    try:
        data: Any = by_picture(text) or json.loads(text)
    except (ValueError, RecursionError):
        return False
    if json_kind(file) in ("karpathy", "vqa"):
        return json_kind(file) == "karpathy"
    if json_kind(file) == "coco":  # most of COCO's files are about boxes
        data = data.get("annotations")
        return isinstance(data, list) and any(isinstance(one, dict) and "caption" in one for one in data[:20])
    records = [one for one in data[:20] if isinstance(one, dict)] if isinstance(data, list) else []
    return any(isinstance(cell, str) and is_picture_name(cell) for one in records for cell in one.values())


def _asks(file: Path) -> bool:
    """Whether a JSON file holds questions as VQAv2 has them; the file of their answers is found from it."""
    return json_kind(file) == "vqa" and "annotations" not in file.stem.lower()


def _split_named(table: Path) -> str | None:
    """The split after which a table is named: `train.csv`, `captions_val.xlsx`."""
    found = {normal_split(word) for word in re.split(r"[-_. ]+", table.stem)}.intersection(_SPLITS)
    return found.pop() if len(found) == 1 else None


def _split_of(parts: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """(split, the other folders) of a picture's folders: a first folder called train, val or test is a split."""
    split = normal_split(parts[0]) if parts else None
    return (split, parts[1:]) if split in _SPLITS else (None, parts)


def _with_texts(pictures: Sequence[Path], job: Reading) -> Iterator[Located]:
    for file in pictures:
        name = file.relative_to(job.path).as_posix()
        beside = file.with_suffix(".txt")
        if not beside.is_file():
            job.drop(name, f"no {beside.name} beside it")
            continue
        lines = [line.strip() for line in read_text(beside, job.encoding)[0].splitlines() if line.strip()]
        if not lines:
            job.drop(name, f"{EMPTY_CAPTION} in {beside.name}")
            continue
        texts = tuple(Text(line, job.text_lang if isinstance(job.text_lang, str) else language_of(line)) for line in lines)
        split, _ = _split_of(file.relative_to(job.path).parts[:-1])
        yield name, Row(id=name, images=(Image(path=file),), texts=texts, split=split)


def _by_class(pictures: Sequence[Path], job: Reading) -> Iterator[Located]:
    """The folder's name is the caption and the group: pictures of one class are positives of each other."""
    placed = [(file, *_split_of(file.relative_to(job.path).parts[:-1])) for file in pictures]
    classes = {folders[-1] for _, _, folders in placed if folders}
    sorted_out = len(classes) > 1  # one folder is only where the pictures happen to lie
    for file, split, folders in placed:
        name = file.relative_to(job.path).as_posix()
        row = Row(id=name, images=(Image(path=file),), split=split)
        if sorted_out and folders:
            label = folders[-1]
            caption = label.replace("_", " ").strip()
            texts = (Text(caption, job.text_lang if isinstance(job.text_lang, str) else language_of(caption)),)
            row = row.with_(texts=texts, group=label, meta={"class": label})
        yield name, row
    job.note(f"{len(classes)} folders are read as classes: each one's name is the caption" if sorted_out else "pictures without captions")


def write_folder(dataset: Dataset, job: Writing) -> None:
    """Hugging Face's imagefolder: `metadata.jsonl` with `file_name` and `text` (the first caption), and everything else a row has.

    Pictures are copied into `pictures/`, for the folder to be whole in itself.
    """
    job.place.mkdir()
    with (job.place / "metadata.jsonl").open("w", encoding="utf-8") as file:
        for row in dataset:
            record = row_record(row, lambda media, name: _inside(media, name, job))
            names = record.pop("images", [])
            record = {"file_name": names[0] if len(names) == 1 else names, "text": row.texts[0].text if row.texts else ""} | record
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _inside(media: Media, name: str, job: Writing) -> str:
    """The name of the medium's file inside the folder; one that lies there already stays as it is."""
    there = media.path is not None and media.path.absolute().is_relative_to(job.path.absolute())
    file = media.path if media.path is not None and there else job.store(media, name, Path(job.path.name, "pictures"))
    return reference(file, job.path / "metadata.jsonl")
