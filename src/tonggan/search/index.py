"""A searchable set of pictures, clips or sounds, bound to the model that made it.

The directory holds `index.json` (which model, its identity, the width) and the store. A query embedded by any other model would
return confident nonsense, so it is refused, field by field.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tonggan.data.audio import canonical_sound
from tonggan.data.images import canonical_picture
from tonggan.data.media import content_bytes
from tonggan.data.pairs import NAMES
from tonggan.data.video import canonical_clip
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
MEDIA = ("image", "video", "audio")
"""What a row is found by: the first of these that it has and the model embeds."""
FINGERPRINT = re.compile(r": '[0-9a-f]{16}' != '[0-9a-f]{16}'$")
"""A field that says that something differs, but not what."""


@dataclass(slots=True)
class Changes:
    """What one call to `Index.add` did."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    dropped: list[Dropped] = field(default_factory=list)


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

    def add(self, model: Model, rows: Iterable[Row], *, batch: int = 256, options: EmbedOptions | None = None) -> Changes:
        """Embed and store each row's first picture; of one that has none, or where the model embeds none, its first clip or sound. A
        known id is updated. One whose medium and words are unchanged is not embedded again; where its file lies now is recorded.

        Rows without any of these, and what cannot be read, are listed in the result.
        """
        self.check(model)
        if not model.modalities & set(MEDIA):
            raise CannotError(f"{model.name} embeds {', '.join(sorted(model.modalities))}; an index needs {' or '.join(MEDIA)}")
        changes = Changes()
        known = dict(self._store.contents())
        for chunk in _chunks(rows, batch):
            self._add_chunk(model, chunk, known, changes, options)
        return changes

    def _add_chunk(
        self, model: Model, rows: list[Row], known: dict[str, tuple[str, str]], changes: Changes, options: EmbedOptions | None
    ) -> None:
        due: dict[str, tuple[Row, Shown, str, bytes]] = {}
        moved: dict[str, str] = {}
        for row in rows:
            part = _shown(row, model)
            if part is None:
                named = [NAMES[kind] for kind in MEDIA if kind in model.modalities]
                changes.dropped.append(Dropped(row.id, f"no {' or '.join(named)}"))
                continue
            try:
                known_by, place = _known_by(row, part), part.where
                if (there := known.get(row.id)) is not None and there[0] == known_by:
                    changes.unchanged += 1
                    if there[1] != place:
                        moved[row.id] = place
                    continue
                due[row.id] = (row, part, known_by, thumbnail(part))
            except MediaError as error:
                changes.dropped.append(Dropped(row.id, error.reason))
        self._store.move(moved)
        entries = list(due.values())
        if not entries:
            return
        embedded = model.embed([shown for _, shown, _, _ in entries], options)
        records = []
        for i, (row, shown, known_by, small) in enumerate(entries):
            if i in embedded.errors:
                changes.dropped.append(Dropped(row.id, embedded.errors[i]))
                continue
            title = row.texts[0].text if row.texts else ""
            records.append(Record(row.id, embedded.vectors[i], known_by, title, shown.where, small, _meta(row)))
            if row.id in known:
                changes.updated += 1
            else:
                changes.added += 1
            known[row.id] = (known_by, shown.where)
        self._store.upsert(records)

    def delete(self, ids: Sequence[str]) -> int:
        """Take ids out; gives how many there were. Raises `TongganError` when one is not there, and takes none out."""
        known = self._store.contents()
        if unknown := [i for i in dict.fromkeys(ids) if i not in known]:
            named = ", ".join(map(repr, unknown[:5])) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
            near = difflib.get_close_matches(unknown[0], known, n=1) if len(unknown) == 1 else []
            raise TongganError(
                f"{self.directory}: no such id: {named}"
                + (f" (did you mean {near[0]!r}?)" if near else "")
                + f"; nothing was deleted. `tonggan search {self.directory} WORDS --json` shows ids"
            )
        return self._store.delete(ids)

    def search(self, model: Model, query: Item | np.ndarray, limit: int = 10) -> list[Hit]:
        """The `limit` nearest to a text, a picture, a sound or a clip, or to a unit vector [dim] already embedded by this model."""
        self.check(model)
        if limit < 1:
            raise UsageError(f"limit {limit}: expected 1 or more")
        if isinstance(query, np.ndarray):
            return self._store.search(query, limit)
        embedded = model.embed([query])
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


def _chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    stream = iter(rows)
    while chunk := list(islice(stream, size)):
        yield chunk


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


def _shown(row: Row, model: Model) -> Shown | None:
    """What a row is found by, if there is anything."""
    each: tuple[Sequence[Shown], ...] = (row.images, row.videos, row.audios)
    return next((parts[0] for kind, parts in zip(MEDIA, each, strict=True) if parts and kind in model.modalities), None)


def _known_by(row: Row, part: Media) -> str:
    return hashlib.sha256(content_bytes(part) + b"\0" + _meta(row).encode()).hexdigest()


def _meta(row: Row) -> str:
    texts = [{"text": t.text, "lang": t.lang} for t in row.texts if isinstance(t, Text)]
    return json.dumps({"texts": texts, "group": row.group, "split": row.split, "meta": dict(row.meta)}, ensure_ascii=False, sort_keys=True)
