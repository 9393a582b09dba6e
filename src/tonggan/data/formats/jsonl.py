"""JSON lines (and a JSON list, or captions by file name): anyone's records by column, and our own rows without loss."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from tonggan.data.formats.base import Finder, Located, Reading
from tonggan.data.formats.cells import Record
from tonggan.data.formats.columns import IMAGE_NAMES, rows_of
from tonggan.data.formats.delimited import read_text
from tonggan.data.formats.dialogues import is_dialogue, read_dialogues
from tonggan.data.formats.pictures import picture_of
from tonggan.data.formats.writing import Writing
from tonggan.data.media import is_picture_name
from tonggan.data.rows import Dataset
from tonggan.data.schema import SCHEMA, from_plain, to_plain
from tonggan.types import Image, Media, Row, TongganError

Namer = Callable[[Media, str], str]
"""Gives the text by which a record names a medium; the second argument is the row's id."""


def read_jsonl(job: Reading) -> Iterator[Located]:
    """One object per line, one list of objects, or one object `{FILE: CAPTION}`. Lines that are no JSON are dropped and listed."""
    records = _objects(job)
    first = next(records, None)
    if first is None:
        raise TongganError(f"{job.path}: no records" + (f"; {job.dropped[0].where}: {job.dropped[0].reason}" if job.dropped else ""))
    stream = chain([first], records)
    if _is_ours(first[1]) and not (job.image_col or job.text_col):
        return _ours(stream, job)
    if is_dialogue(first[1]) and not (job.image_col or job.text_col):
        return read_dialogues(stream, job)
    held = [(where, _one_turn(cells)) for where, cells in stream]  # a column may be absent from the first lines
    names = list(dict.fromkeys(str(name) for _, cells in held for name in cells))
    return rows_of(held, names, job)


def _objects(job: Reading) -> Iterator[Record]:
    text, _ = read_text(job.path, job.encoding)
    if text.lstrip().startswith("["):
        try:
            found = list(enumerate(json.loads(text), 1))
        except (ValueError, RecursionError) as error:
            raise TongganError(f"{job.path}: not readable as JSON: {error}") from None
    elif (named := by_picture(text) or _asked(text)) is not None:
        found = list(enumerate(named, 1))
    else:
        found = []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    found.append((number, json.loads(line)))
                except (ValueError, RecursionError):
                    job.drop(f"{job.label}:{number}", "not JSON (cut off?)")
    for number, record in found:
        if isinstance(record, dict):
            yield f"{job.label}:{number}", record
        else:
            job.drop(f"{job.label}:{number}", f"not an object but {type(record).__name__}")


def by_picture(text: str) -> list[dict[str, Any]] | None:
    """The records of an object `{FILE: CAPTION}`, in which a caption may also be a list or a record; None for anything else."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not data or not all(map(is_picture_name, data)):
        return None
    return [{**(said if isinstance(said, dict) else {"title": said}), "filepath": name} for name, said in data.items()]


def _asked(text: str) -> list[Any] | None:
    """The records of an object that holds one list of questions, `{"questions": [{"question": …}]}`; None for anything else."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    lists = [part for part in data.values() if isinstance(part, list) and part] if isinstance(data, dict) else []
    asked = [part for part in lists if isinstance(part[0], dict) and "question" in part[0]]
    return asked[0] if len(asked) == 1 and "question" not in data else None


def _one_turn(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """LLaVA's dialogue of one question and its answer as the two of them; others stay as they are."""
    turns = record.get("conversations")
    if not isinstance(turns, list) or len(turns) != 2 or "question" in record or not all(isinstance(turn, dict) for turn in turns):
        return record
    said = {turn.get("from"): turn.get("value") for turn in turns}
    if said.keys() != {"human", "gpt"} or not isinstance(said["human"], str):
        return record
    others = {name: cell for name, cell in record.items() if name != "conversations"}
    return others | {"question": said["human"].replace("<image>", "").strip(), "answer": [said["gpt"]]}


def _is_ours(record: Mapping[str, Any]) -> bool:
    """Whether we wrote a record: `texts` is always there and a list, and pictures are where we put them."""
    return "id" in record and isinstance(record.get("texts"), list) and record.keys() & {*IMAGE_NAMES} <= {"images", "file_name"}


def _ours(records: Iterator[Record], job: Reading) -> Iterator[Located]:
    finder = Finder(job.base)
    for where, record in records:
        try:
            row = _our_row(record, finder)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            job.drop(where, f"not a row: {error!r}"[:200])
            continue
        if isinstance(row, str):
            job.drop(where, row)
        else:
            yield where, row
    finder.report(job)


def _our_row(record: Mapping[str, Any], finder: Finder) -> Row | str:
    images = []
    named = record.get("images") or record.get("file_name") or []
    for name in [named] if isinstance(named, str) else named:
        image = picture_of(name, finder)
        if not isinstance(image, Image):
            return image
        images.append(image)
    plain: dict[str, Any] = {name: record.get(name) for name in SCHEMA.names} | {"images": []}
    plain["id"] = str(record["id"])
    plain["texts"] = [{"text": text, "lang": None} if isinstance(text, str) else text for text in record.get("texts") or []]
    plain["meta"] = [(str(name), str(value)) for name, value in (record.get("meta") or {}).items()]
    return from_plain(plain, finder.base).with_(images=tuple(images))


def row_record(row: Row, name: Namer) -> dict[str, Any]:
    """A row as a JSON object, empty fields left out but `texts`, by which it is known as ours. Pictures are named by `name`; media
    inside messages become data URIs."""
    plain = to_plain(row.with_(images=(), audios=(), videos=()))
    record = {key: value for key, value in plain.items() if key == "texts" or value not in (None, [], {})}
    if row.images:
        record["images"] = [image.url or name(image, _numbered(row.id, n)) for n, image in enumerate(row.images)]
    for kind, parts in (("audios", row.audios), ("videos", row.videos)):
        if parts:
            record[kind] = [_sound(entry, part, row.id, name) for entry, part in zip(to_plain(row)[kind], parts, strict=True)]
    for message in record.get("messages", ()):
        for part in message["parts"]:
            if part["media"] and part["media"]["data"]:
                part["media"] |= {"url": _data_uri(part["media"]["data"]), "data": None}
    if row.meta:
        record["meta"] = dict(row.meta)
    return {"id": record.pop("id")} | record


def _sound(entry: dict[str, Any], part: Media, row_id: str, name: Namer) -> dict[str, Any]:
    """A sound or clip: named when it is a file, inside the record when it is bytes."""
    if part.data is not None:
        return entry | {"data": None, "url": _data_uri(part.data)}
    return entry | {"path": name(part, row_id)} if part.path is not None else entry


def _data_uri(data: bytes) -> str:
    return "data:;base64," + base64.b64encode(data).decode()


def _numbered(name: str, number: int) -> str:
    return name if number == 0 else f"{name}_{number + 1}"


def write_jsonl(dataset: Dataset, job: Writing) -> None:
    """One row per line. Pictures that have no file are written into a folder beside it."""
    with job.place.open("w", encoding="utf-8") as file:
        for row in dataset:
            file.write(json.dumps(row_record(row, job.picture), ensure_ascii=False) + "\n")
