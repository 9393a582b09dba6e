"""Rows in Arrow: one schema for every data set, memory-mapped from disk, read one row at a time.

A data set directory holds `rows-00000.arrow`, … (shards) and `dataset.json` (format, the rows that were dropped on the way in
and why). Media are kept as paths, relative to the directory where they can be, or as bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tonggan.data.media import encode_png
from tonggan.types import Audio, Dropped, Image, Media, Message, Part, Row, Text, TongganError, UsageError, Video

FORMAT = 1
SHARD_ROWS = 10_000

_MEDIA = pa.struct([("path", pa.string()), ("data", pa.binary()), ("url", pa.string()), ("role", pa.string()), ("rate", pa.float64())])
_TEXT = pa.struct([("text", pa.string()), ("lang", pa.string())])
_PART = pa.struct([("kind", pa.string()), ("text", _TEXT), ("media", _MEDIA)])
_MESSAGE = pa.struct([("role", pa.string()), ("parts", pa.list_(_PART))])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(_MEDIA)),
        ("audios", pa.list_(_MEDIA)),
        ("videos", pa.list_(_MEDIA)),
        ("texts", pa.list_(_TEXT)),
        ("messages", pa.list_(_MESSAGE)),
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("answers", pa.list_(pa.string())),
        ("group", pa.string()),
        ("split", pa.string()),
        ("meta", pa.map_(pa.string(), pa.string())),
    ]
)
"""`rate` is a sound's samples per second, or a clip's frames per second."""


class Dataset(Sequence[Row]):
    """Rows by number. Selecting (`where`, `split`) makes a view, not a copy; `dropped` lists what did not become a row."""

    def __init__(
        self,
        table: pa.Table,
        *,
        base: Path | None = None,
        dropped: Sequence[Dropped] = (),
        indices: np.ndarray | None = None,
        shards: Sequence[int] | None = None,
    ) -> None:
        self._table, self._base, self._indices = table, base, indices
        self.dropped = tuple(dropped)
        self.shards: tuple[int, ...] = tuple(shards) if shards is not None else (len(self),)
        """Rows of each shard, in order; they add up to the length."""

    @classmethod
    def from_rows(cls, rows: Iterable[Row], *, base: str | Path | None = None, dropped: Sequence[Dropped] = ()) -> Dataset:
        """Rows in memory; arrays are kept as PNG. Two rows with one id are refused."""
        columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        seen: set[str] = set()
        for row in rows:
            if row.id in seen:
                raise UsageError(f"the id {row.id!r} occurs twice; ids name rows in splits, results and indexes")
            seen.add(row.id)
            for name, value in _to_plain(row).items():
                columns[name].append(value)
        table = pa.table([pa.array(columns[f.name], type=f.type) for f in SCHEMA], schema=SCHEMA)
        return cls(table, base=Path(base) if base is not None else None, dropped=dropped)

    @classmethod
    def read(cls, directory: str | Path) -> Dataset:
        """A data set that `write` made, memory-mapped; raises `TongganError` when it is none, or damaged."""
        where = Path(directory)
        file = where / "dataset.json"
        if not file.is_file():
            raise TongganError(f"{where}: no data set here (dataset.json is missing)")
        try:
            record = json.loads(file.read_text("utf-8"))
            shards = [pa.ipc.open_file(pa.memory_map(str(where / name))).read_all() for name in record["shards"]]
            dropped = [Dropped(**one) for one in record["dropped"]]
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
            raise TongganError(f"{where}: the data set is damaged: {error}") from None
        if record.get("format") != FORMAT:
            raise TongganError(f"{file}: format {record.get('format')}, this version reads {FORMAT}")
        table = pa.concat_tables(shards) if shards else SCHEMA.empty_table()
        return cls(table, base=where, dropped=dropped, shards=[len(s) for s in shards])

    def write(self, directory: str | Path) -> Path:
        """Write shards and their record. Media paths become relative where they lie inside the directory, else absolute."""
        where = Path(directory)
        where.mkdir(parents=True, exist_ok=True)
        names = []
        for number, start in enumerate(range(0, len(self), SHARD_ROWS)):
            name = f"rows-{number:05d}.arrow"
            rows = [self[i] for i in range(start, min(start + SHARD_ROWS, len(self)))]
            columns = {key: [] for key in SCHEMA.names}  # type: dict[str, list[Any]]
            for row in rows:
                for key, value in _to_plain(row, where.resolve()).items():
                    columns[key].append(value)
            table = pa.table([pa.array(columns[f.name], type=f.type) for f in SCHEMA], schema=SCHEMA)
            with pa.OSFile(str(where / name), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
                writer.write_table(table)
            names.append(name)
        record = {"format": FORMAT, "shards": names, "dropped": [{"where": d.where, "reason": d.reason} for d in self.dropped]}
        (where / "dataset.json").write_text(json.dumps(record, ensure_ascii=False, indent=1), "utf-8")
        return where

    def __len__(self) -> int:
        return len(self._table) if self._indices is None else len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.where(np.arange(len(self))[index])
        number = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= number < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        at = number if self._indices is None else int(self._indices[number])
        return _from_plain(self._table.slice(at, 1).to_pylist()[0], self._base)

    def __iter__(self) -> Iterator[Row]:
        for i in range(len(self)):
            yield self[i]

    def where(self, indices: Sequence[int] | np.ndarray) -> Dataset:
        """A view of the rows at these numbers, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        chosen = chosen if self._indices is None else self._indices[chosen]
        return Dataset(self._table, base=self._base, indices=chosen)

    def column(self, name: str) -> list[Any]:
        """One plain column (`id`, `group`, `split`, …) without decoding the rest."""
        values: list[Any] = self._table.column(name).to_pylist()
        return values if self._indices is None else [values[int(i)] for i in self._indices]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in order of appearance."""
        return tuple(dict.fromkeys(name for name in self.column("split") if name))

    def split(self, name: str) -> Dataset:
        """The rows of one split; an unknown name raises `UsageError` naming those there are."""
        if name not in self.splits:
            there = ", ".join(self.splits) or "none"
            raise UsageError(f"no split {name!r}; there are: {there}")
        return self.where(np.array([i for i, found in enumerate(self.column("split")) if found == name]))

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits over ids, words, groups, splits and media handles, in order."""
        digest = hashlib.sha256()
        for row in self:
            plain = _to_plain(row)
            digest.update(json.dumps(plain, ensure_ascii=False, sort_keys=True, default=_hashed).encode())
        return digest.hexdigest()[:12]


def _hashed(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)


def _to_plain(row: Row, base: Path | None = None) -> dict[str, Any]:
    return {
        "id": row.id,
        "images": [_media(m, base) for m in row.images],
        "audios": [_media(m, base) for m in row.audios],
        "videos": [_media(m, base) for m in row.videos],
        "texts": [{"text": t.text, "lang": t.lang} for t in row.texts],
        "messages": [{"role": m.role, "parts": [_part(p, base) for p in m.parts]} for m in row.messages],
        "question": row.question,
        "choices": list(row.choices),
        "answers": list(row.answers),
        "group": row.group,
        "split": row.split,
        "meta": sorted(row.meta.items()),
    }


def _media(media: Media, base: Path | None) -> dict[str, Any]:
    path = None
    if media.path is not None:
        path = media.path
        if base is not None:
            absolute = path.resolve()
            path = absolute.relative_to(base) if absolute.is_relative_to(base) else absolute
    data = media.data if media.array is None else encode_png(media.array)
    rate = media.rate if isinstance(media, Audio) else media.fps if isinstance(media, Video) else None
    return {"path": str(path) if path is not None else None, "data": data, "url": media.url, "role": media.role, "rate": rate}


def _part(part: Part, base: Path | None) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"kind": part.kind, "text": {"text": part.text, "lang": part.lang}, "media": None}
    return {"kind": part.kind, "text": None, "media": _media(part, base)}


def _from_plain(plain: dict[str, Any], base: Path | None) -> Row:
    return Row(
        id=plain["id"],
        images=tuple(_handle("image", m, base) for m in plain["images"] or ()),
        audios=tuple(_handle("audio", m, base) for m in plain["audios"] or ()),
        videos=tuple(_handle("video", m, base) for m in plain["videos"] or ()),
        texts=tuple(Text(**t) for t in plain["texts"] or ()),
        messages=tuple(Message(m["role"], tuple(_unpart(p, base) for p in m["parts"])) for m in plain["messages"] or ()),
        question=plain["question"],
        choices=tuple(plain["choices"] or ()),
        answers=tuple(plain["answers"] or ()),
        group=plain["group"],
        split=plain["split"],
        meta=dict(plain["meta"] or ()),
    )


def _handle(kind: str, plain: dict[str, Any], base: Path | None) -> Any:
    path = Path(plain["path"]) if plain["path"] is not None else None
    if path is not None and base is not None:
        path = base / path
    given: dict[str, Any] = {"path": path, "data": plain["data"], "url": plain["url"], "role": plain["role"]}
    if kind == "image":
        return Image(**given)
    if kind == "audio":
        return Audio(**given, rate=int(plain["rate"]) if plain["rate"] is not None else None)
    return Video(**given, fps=plain["rate"])


def _unpart(plain: dict[str, Any], base: Path | None) -> Part:
    if plain["kind"] == "text":
        return Text(**plain["text"])
    part: Part = _handle(plain["kind"], plain["media"], base)
    return part
