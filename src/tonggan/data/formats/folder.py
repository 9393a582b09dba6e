"""Folders of pictures: with a table of metadata, with a text beside each picture, sorted into classes, or bare."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tonggan.data.formats.base import EMPTY_CAPTION, Located, Reading, natural, normal_split, picture_file, reference, walk
from tonggan.data.formats.delimited import read_text
from tonggan.data.formats.jsonl import read_jsonl, row_record
from tonggan.data.formats.tables import read_csv, read_excel
from tonggan.data.language import language_of
from tonggan.data.media import is_picture_name, read_bytes
from tonggan.data.rows import Dataset
from tonggan.types import Image, Media, Row, Text, TongganError

TABLES = {".csv": read_csv, ".tsv": read_csv, ".xlsx": read_excel, ".xlsm": read_excel, ".jsonl": read_jsonl}
_SPLITS = ("train", "val", "test")


def read_folder(job: Reading) -> Iterator[Located]:
    """Pictures of a folder. In this order: `metadata.*` as Hugging Face's imagefolder has it (in each split's folder, too); the
    only table at the top; `NAME.txt` beside `NAME.jpg`, a caption a line; folders as classes; pictures alone.
    """
    if not job.path.is_dir():
        raise TongganError(f"{job.path}: not a folder")
    files = sorted(walk(job.path), key=natural)
    tables = [file for file in files if file.stem.lower() == "metadata" and file.suffix.lower() in TABLES]
    at_top = [file for file in files if file.parent == job.path and file.suffix.lower() in TABLES]
    if not tables and len(at_top) == 1:
        tables = at_top
    if tables:
        for table in tables:
            yield from _from_table(table, job)
        return
    if at_top:
        raise TongganError(f"{job.path}: several tables ({', '.join(f.name for f in at_top)}); give the one to read")
    pictures = [file for file in files if is_picture_name(file)]
    if not pictures:
        raise TongganError(f"{job.path}: no pictures and no table that can be read in this folder")
    if any(file.with_suffix(".txt").is_file() for file in pictures):
        yield from _with_texts(pictures, job)
    else:
        yield from _by_class(pictures, job)


def _from_table(table: Path, job: Reading) -> Iterator[Located]:
    inner = replace(job, path=table, root=job.path)  # with the same lists of what is dropped
    folder = table.parent.relative_to(job.path)
    split = normal_split(folder.parts[0]) if folder.parts else None
    for where, row in TABLES[table.suffix.lower()](inner):
        yield where, row if row.split or split not in _SPLITS else row.with_(split=split)


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


def write_folder(dataset: Dataset, path: Path) -> None:
    """Hugging Face's imagefolder: `metadata.jsonl` with `file_name` and `text` (the first caption), and everything else a row has.

    Pictures are copied into `pictures/`, for the folder to be whole in itself.
    """
    path.mkdir(parents=True, exist_ok=True)
    table = path / "metadata.jsonl"
    with table.open("w", encoding="utf-8") as file:
        for row in dataset:
            record = row_record(row, lambda media, name: reference(_copied(media, path, name), table))
            names = record.pop("images", [])
            record = {"file_name": names[0] if len(names) == 1 else names, "text": row.texts[0].text if row.texts else ""} | record
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _copied(media: Media, folder: Path, name: str) -> Path:
    """The medium's file inside the folder; one that lies there already stays as it is."""
    if media.path is not None and media.path.absolute().is_relative_to(folder.absolute()):
        return media.path
    return picture_file(Image(data=read_bytes(media)), folder / "pictures", name)
