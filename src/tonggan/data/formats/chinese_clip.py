"""Chinese-CLIP's files: `{split}_imgs.tsv` with pictures in base64, and `{split}_texts.jsonl` with the texts that belong to them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from tonggan.data.formats.base import EMPTY_CAPTION, Located, Reading, normal_split
from tonggan.data.formats.writing import Writing, safe_name
from tonggan.data.language import language_of
from tonggan.data.media import read_bytes
from tonggan.data.resolve import decode_base64
from tonggan.data.rows import Dataset
from tonggan.types import Image, Row, Text, TongganError

_PICTURES = "_imgs.tsv"
_TEXTS = "_texts.jsonl"


def read_chinese_clip(job: Reading) -> Iterator[Located]:
    """A folder, or one of its files. A row for each picture, with all its texts; pictures are read line by line, never all at once."""
    if job.path.is_dir():
        tables = sorted(job.path.glob(f"*{_PICTURES}"))
    else:
        tables = [job.path.with_name(job.path.name.replace(_TEXTS, _PICTURES))]
    if not tables or not all(table.is_file() for table in tables):
        raise TongganError(f"{job.path}: no *{_PICTURES} here")
    for table in tables:
        yield from _read_split(table, table.name.removesuffix(_PICTURES), job)


def _read_split(table: Path, split: str, job: Reading) -> Iterator[Located]:
    texts = table.with_name(split + _TEXTS)
    captions = _captions(texts, job)
    with table.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{table.name}:{number}"
            name, tab, packed = line.rstrip("\r\n").partition("\t")
            if not line.strip():
                continue
            if not tab:
                job.drop(where, "no tab between id and picture")
                continue
            words = captions.pop(name, [])
            try:
                data = decode_base64(packed)
            except ValueError:
                job.drop(where, f"{name}: its base64 is damaged")
                continue
            if not data:
                job.drop(where, f"{name}: empty picture")
            elif not words and texts.is_file():
                job.drop(where, f"{name}: {EMPTY_CAPTION} (no text names this picture)")
            else:
                yield where, Row(id=name, images=(Image(data=data),), texts=tuple(words), split=normal_split(split))
    for name in captions:
        job.drop(texts.name, f"no picture has the id {name}")


def _captions(file: Path, job: Reading) -> dict[str, list[Text]]:
    """Texts by picture. A text may belong to several pictures, a picture to several texts."""
    found: dict[str, list[Text]] = {}
    if not file.is_file():
        job.note(f"{file.name} is not there: pictures without texts")
        return found
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                word, names = record["text"].strip(), [str(name) for name in record["image_ids"]]
            except (ValueError, KeyError, TypeError, AttributeError):
                job.drop(f"{file.name}:{number}", "not an object with text and image_ids")
                continue
            if not word:
                job.drop(f"{file.name}:{number}", EMPTY_CAPTION)
                continue
            if not names:
                job.drop(f"{file.name}:{number}", "it names no picture (a test set whose answers are not published?)")
            for name in names:
                found.setdefault(name, []).append(Text(word, job.text_lang if isinstance(job.text_lang, str) else language_of(word)))
    return found


def write_chinese_clip(dataset: Dataset, job: Writing) -> None:
    """A folder; rows without a split go to `train`. Ids must hold no tab."""
    job.place.mkdir()
    number = 0
    with ExitStack() as stack:
        opened: dict[str, tuple[IO[Any], IO[Any]]] = {}
        for row in dataset:
            if "\t" in row.id or "\n" in row.id:
                raise TongganError(f"the id {row.id!r} holds a tab or a line break; Chinese-CLIP's tables cannot")
            split = {"val": "valid"}.get(row.split or "train", safe_name(row.split or "train"))
            if split not in opened:
                names = (split + _PICTURES, split + _TEXTS)
                opened[split] = tuple(stack.enter_context((job.place / name).open("w", encoding="utf-8")) for name in names)  # type: ignore[assignment]
            pictures, texts = opened[split]
            pictures.write(f"{row.id}\t{base64.b64encode(read_bytes(row.images[0])).decode()}\n")
            for text in row.texts:
                number += 1
                texts.write(json.dumps({"text_id": number, "text": text.text, "image_ids": [row.id]}, ensure_ascii=False) + "\n")
