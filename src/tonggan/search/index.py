"""A searchable set of pictures, clips or sounds, bound to the model that made it.

The directory holds `index.json` (which model, its identity, the width) and the store. A query embedded by any other model would
return confident nonsense, so it is refused, field by field.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tonggan.data.audio import canonical_sound
from tonggan.data.images import canonical_picture
from tonggan.data.kept import NAMES
from tonggan.data.shots import Splitting
from tonggan.data.video import canonical_clip
from tonggan.search.clips import by_frames, content_hash, embed, entries
from tonggan.search.store import EXACT_UP_TO, Hit, LanceStore, Record
from tonggan.search.thumbnails import thumbnail
from tonggan.types import (
    Audio,
    CannotError,
    Dropped,
    EmbedOptions,
    Identity,
    Image,
    Item,
    Media,
    MediaError,
    Model,
    Row,
    Text,
    TongganError,
    UsageError,
    Video,
)

Shown: TypeAlias = Image | Video | Audio

FORMAT = 1
_SPLITTING = Splitting()
MEDIA = ("image", "video", "audio")
"""What a row is found by: the first of these that it has and the model embeds. Clips become pictures for a model that embeds only these."""
FINGERPRINT = re.compile(r": '[0-9a-f]{16}' != '[0-9a-f]{16}'$")
"""A field that says that something differs, but not what."""


@dataclass(slots=True)
class Changes:
    """What one call to `Index.add` did, in entries: of a clip each shot is one."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    """Shots that a changed clip no longer has."""
    dropped: list[Dropped] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is to be embedded and stored."""

    id: str
    row: str
    shown: Shown
    content: str
    title: str
    thumbnail: bytes
    meta: str


class Index:
    """Add, update, delete and search. Open one with `Index.create` or `Index.open`."""

    def __init__(self, directory: Path, record: dict[str, Any]) -> None:
        self.directory = directory
        self.model_name: str = record["model"]
        self.identity = Identity(**record["identity"])
        self._store = LanceStore(directory / "lance", int(record["dim"]))

    @classmethod
    def create(cls, directory: str | Path, model: Model) -> Index:
        """A new index for `model`, or the one already there if it is that model's."""
        where = Path(directory)
        if (where / "index.json").exists():
            index = cls.open(where)
            index.check(model)
            return index
        begun = where / ".index.json.part"
        if where.exists() and any(where.iterdir()) and not begun.exists():
            raise UsageError(f"{where}: not empty and not an index; name a new directory")
        where.mkdir(parents=True, exist_ok=True)
        dim = model.embed([_anything(model)]).vectors.shape[1]
        record = {"format": FORMAT, "model": _portable(model.name, where), "dim": dim, "identity": asdict(model.identity)}
        begun.write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")
        # A table beside a record that is not in place yet is empty, and perhaps of another width: left by a call that was killed here.
        shutil.rmtree(where / "lance", ignore_errors=True)
        LanceStore(where / "lance", dim, create=True)
        begun.replace(where / "index.json")
        return cls.open(where)

    @classmethod
    def open(cls, directory: str | Path) -> Index:
        """The index in `directory`; raises `TongganError` when there is none, or it is damaged."""
        where = Path(directory)
        file = where / "index.json"
        if not file.is_file():
            raise TongganError(f"{where}: no index here; make one with: tonggan index MODEL DATA --to {where}")
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            if record["format"] != FORMAT:
                raise TongganError(f"{file}: format {record['format']}, this version reads {FORMAT}; make the index again")
            return cls(where, record)
        except (ValueError, KeyError, TypeError) as error:
            raise TongganError(f"{file}: damaged ({error}); make the index again") from None

    @property
    def model_path(self) -> str:
        """The name to `load` the model by; a path relative to the index is resolved against it."""
        inside = self.directory / self.model_name
        return str(inside.resolve()) if self.model_name.startswith("..") and inside.exists() else self.model_name

    def check(self, model: Model) -> None:
        """Refuse any model but the one that made this index, naming the first fields that differ."""
        if difference := self.identity.difference(model.identity):
            raise TongganError(
                f"{self.directory}: made with {self.model_name}, not with {model.name}; their vectors are not comparable.\n"
                + "\n".join(f"  {line}" for line in _in_brief(difference))
                + "\nSearch with the model it was made with, or make the index again."
            )

    def add(
        self,
        model: Model,
        rows: Iterable[Row],
        *,
        batch: int = 256,
        options: EmbedOptions | None = None,
        splitting: Splitting | None = _SPLITTING,
    ) -> Changes:
        """Embed and store each row's first picture; of one that has none, or where the model embeds none, its first clip or sound. A
        known id is updated. One whose medium and words are unchanged is not embedded again; where its file lies now is recorded.

        A clip of several shots becomes an entry for each, with its seconds, unless `splitting` is None. Rows without any of these, and what
        cannot be read, are listed in the result.
        """
        self.check(model)
        if not model.modalities & set(MEDIA):
            raise CannotError(f"{model.name} embeds {', '.join(sorted(model.modalities))}; an index needs {' or '.join(MEDIA)}")
        changes = Changes()
        known = _Known(self._store.contents())
        due: dict[str, _Entry] = {}
        moved: dict[str, str] = {}
        gone: dict[str, str] = {}
        """What a row no longer has, and the row."""
        kept: set[str] = set()
        failed: set[str] = set()
        for row in rows:
            part = _shown(row, model)
            if part is None:
                named = [NAMES[kind] for kind in MEDIA if kind in _kinds(model)]
                changes.dropped.append(Dropped(row.id, f"no {' or '.join(named)}"))
                continue
            try:
                content = content_hash(part, _meta(row).encode(), *_how(part, splitting))
                there = known.of(row.id)
                if there and all(known.content(id) == content for id in there):
                    changes.unchanged += len(there)
                    kept |= there
                    moved |= {id: part.where for id in there if known.where(id) != part.where}
                    if len(moved) >= batch:
                        self._store.move(moved)
                        moved = {}
                    continue
                made = _entries(row, part, content, splitting)
            except MediaError as error:
                changes.dropped.append(Dropped(row.id, error.reason))
                continue
            due |= made
            kept |= made.keys()
            gone |= dict.fromkeys(there - made.keys(), row.id)
            # All shots of a clip are stored at once: what is found of one later stands for the others.
            if len(due) >= batch:
                failed |= self._put(model, due, known, changes, options)
                due = {}
        failed |= self._put(model, due, known, changes, options)
        self._store.move(moved)
        late = sorted(id for id, row_id in gone.items() if id not in kept and row_id not in failed)
        changes.removed = self._store.delete(late) if late else 0
        return changes

    def _put(self, model: Model, due: Mapping[str, _Entry], known: _Known, changes: Changes, options: EmbedOptions | None) -> set[str]:
        """Embed and store; gives the rows that could not be, which stay as they were. Of a clip all shots are stored or none, so that it is
        tried again."""
        if not due:
            return set()
        embedded = embed(model, [entry.shown for entry in due.values()], options)
        records, failed = [], {entry.row for i, entry in enumerate(due.values()) if i in embedded.errors}
        for i, entry in enumerate(due.values()):
            if i in embedded.errors:
                changes.dropped.append(Dropped(entry.id, embedded.errors[i]))
            if entry.row in failed:
                continue
            where = entry.shown.where
            records.append(Record(entry.id, embedded.vectors[i], entry.content, entry.title, where, entry.thumbnail, entry.meta))
            if known.put(entry.id, entry.content, where):
                changes.updated += 1
            else:
                changes.added += 1
        self._store.upsert(records)
        return failed

    def delete(self, ids: Sequence[str]) -> int:
        """Take ids out, a clip's with all its shots; gives how many entries there were. Raises `TongganError` when one is not there, and
        takes none out."""
        contents = self._store.contents()
        known = _Known(contents)
        if unknown := [i for i in dict.fromkeys(ids) if not known.of(i)]:
            named = ", ".join(map(repr, unknown[:5])) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
            near = difflib.get_close_matches(unknown[0], contents, n=1) if len(unknown) == 1 else []
            raise TongganError(
                f"{self.directory}: no such id: {named}"
                + (f" (did you mean {near[0]!r}?)" if near else "")
                + f"; nothing was deleted. `tonggan search {self.directory} WORDS --json` shows ids"
            )
        return self._store.delete(sorted({entry for id in ids for entry in known.of(id)}))

    def search(self, model: Model, query: Item | np.ndarray, limit: int = 10) -> list[Hit]:
        """The `limit` nearest to a text, a picture, a sound or a clip, or to a unit vector [dim] already embedded by this model."""
        self.check(model)
        if limit < 1:
            raise UsageError(f"limit {limit}: expected 1 or more")
        if isinstance(query, np.ndarray):
            return self._store.search(query, limit)
        embedded = embed(model, [query])
        if embedded.errors:
            where = query.where if isinstance(query, Media) else "query"
            raise MediaError(where, embedded.errors[0])
        return self._store.search(embedded.vectors[0], limit)

    def approximate(self) -> bool:
        """Trade exactness for speed where the table is large enough for it to pay; gives whether an index was built."""
        if len(self) <= EXACT_UP_TO:
            return False
        self._store.approximate()
        return True

    def __len__(self) -> int:
        return len(self._store)


def _in_brief(difference: list[str]) -> list[str]:
    """At most four lines, the weights first, fingerprints of what settings do after these; of long values only that they differ."""
    lines = [line if len(line) <= 160 else f"{line.partition(':')[0]}: differs" for line in difference]
    lines.sort(key=lambda line: (not line.startswith("weights:"), FINGERPRINT.search(line) is not None))
    return lines if len(lines) <= 4 else [*lines[:3], f"and {len(lines) - 3} more fields"]


def _portable(name: str, index: Path) -> str:
    """A model directory is recorded relative to the index, so that both can be moved together."""
    return os.path.relpath(name, index) if Path(name).exists() else name


def _anything(model: Model) -> Item:
    """Something that it embeds, to see how wide its vectors are."""
    if "text" in model.modalities:
        return "index"
    if "image" in model.modalities:
        return Image(array=canonical_picture())
    return canonical_clip() if "video" in model.modalities else Audio(array=canonical_sound(16_000), rate=16_000)


def _kinds(model: Model) -> frozenset[str]:
    return model.modalities | {"video"} if by_frames(model) else model.modalities


def _shown(row: Row, model: Model) -> Shown | None:
    """What a row is found by, if there is anything."""
    each: tuple[Sequence[Shown], ...] = (row.images, row.videos, row.audios)
    return next((parts[0] for kind, parts in zip(MEDIA, each, strict=True) if parts and kind in _kinds(model)), None)


def _how(part: Shown, splitting: Splitting | None) -> Iterator[bytes]:
    """What is said of how a clip is divided; nothing where it is not."""
    if isinstance(part, Video) and part.stretch is None and splitting is not None:
        yield splitting.model_dump_json().encode()


def _entries(row: Row, part: Shown, content: str, splitting: Splitting | None) -> dict[str, _Entry]:
    title = row.texts[0].text if row.texts else ""
    if not isinstance(part, Video):
        return {row.id: _Entry(row.id, row.id, part, content, title, thumbnail(part), _meta(row))}
    return {
        id: _Entry(id, row.id, shown, content, title, thumbnail(shown), _meta(row, seconds))
        for id, shown, seconds in entries(row.id, part, splitting)
    }


class _Known:
    """What is in the store: content and place by id, and the ids of each clip's shots."""

    def __init__(self, contents: Mapping[str, tuple[str, str]]) -> None:
        self._contents: dict[str, tuple[str, str]] = {}
        self._shots: dict[str, set[str]] = {}
        for id, (content, where) in contents.items():
            self.put(id, content, where)

    def of(self, id: str) -> set[str]:
        """Ids of the entries of a row: its own, and those of its shots, also where it shows something else by now."""
        return ({id} & self._contents.keys()) | self._shots.get(id, set())

    def content(self, id: str) -> str:
        return self._contents[id][0]

    def where(self, id: str) -> str:
        return self._contents[id][1]

    def put(self, id: str, content: str, where: str) -> bool:
        """Whether it was there before."""
        before = id in self._contents
        self._contents[id] = (content, where)
        if "#t=" in id:
            self._shots.setdefault(id.rpartition("#t=")[0], set()).add(id)
        return before


def _meta(row: Row, seconds: tuple[float, float] | None = None) -> str:
    texts = [{"text": t.text, "lang": t.lang} for t in row.texts if isinstance(t, Text)]
    said: dict[str, Any] = {"texts": texts, "group": row.group, "split": row.split, "meta": dict(row.meta)}
    if seconds is not None:
        said |= {"start": seconds[0], "end": seconds[1] if math.isfinite(seconds[1]) else None}
    return json.dumps(said, ensure_ascii=False, sort_keys=True)
