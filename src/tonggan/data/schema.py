"""The one schema of every data set: a row as plain values, and many as record batches.

Media are kept as paths, relative to the data set's directory where they can be, or as bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tonggan.data.media import encode_png
from tonggan.types import Audio, Image, Media, Message, Part, Row, Text, UsageError, Video

BATCH_ROWS = 512
BATCH_BYTES = 32_000_000
"""A record batch ends at so many rows or so many bytes of embedded media, whichever is first."""

_MEDIA = pa.struct(
    [("path", pa.string()), ("data", pa.large_binary()), ("url", pa.string()), ("role", pa.string()), ("rate", pa.float64())]
)
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


def to_plain(row: Row, base: Path | None = None) -> dict[str, Any]:
    """A row as the schema's plain values; paths inside `base` become relative to it, others absolute."""
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


def from_plain(plain: Mapping[str, Any], base: Path | None = None) -> Row:
    """The row again; relative paths start at `base`."""
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


def _media(media: Media, base: Path | None) -> dict[str, Any]:
    if media.array is not None and not isinstance(media, Image):
        raise UsageError(f"a {media.kind} given as an array cannot be stored; save it to a file first")
    if isinstance(media, Video) and media.stretch is not None:
        raise UsageError(f"{media.where}: a moment of a clip cannot be stored in a data set; cut it into a file of its own first")
    data = media.data if media.array is None else encode_png(media.array)
    rate = media.rate if isinstance(media, Audio) else media.fps if isinstance(media, Video) else None
    path = None if media.path is None else _stored_path(media.path, base)
    return {"path": path, "data": data, "url": media.url, "role": media.role, "rate": rate}


def _stored_path(path: Path, base: Path | None) -> str:
    """Posix, relative to `base` when inside it. Symbolic links are left as they are: a data set of links stays one."""
    whole = path.absolute()
    return whole.relative_to(base).as_posix() if base is not None and whole.is_relative_to(base) else whole.as_posix()


def _part(part: Part, base: Path | None) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"kind": part.kind, "text": {"text": part.text, "lang": part.lang}, "media": None}
    return {"kind": part.kind, "text": None, "media": _media(part, base)}


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


def record_batches(rows: Iterable[Row], base: Path | None) -> Iterator[pa.RecordBatch]:
    """Rows as record batches of bounded size, so that embedded media never pile up."""
    held: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        plain = to_plain(row, base)
        held.append(plain)
        size += sum(len(m["data"] or b"") for kind in ("images", "audios", "videos") for m in plain[kind])
        if len(held) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield pa.RecordBatch.from_pylist(held, SCHEMA)
            held, size = [], 0
    if held:
        yield pa.RecordBatch.from_pylist(held, SCHEMA)
