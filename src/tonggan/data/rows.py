"""Rows in Arrow, memory-mapped from disk, read one row at a time, in the one `data.schema` of every data set.

A data set directory holds `rows-00000.arrow`, … (shards) and `dataset.json` (format, the rows that were dropped on the way in
and why). Media are kept as paths, relative to the directory where they can be, or as bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from tonggan.config import did_you_mean
from tonggan.data.media import read_bytes
from tonggan.data.schema import SCHEMA, from_plain, record_batches, to_plain
from tonggan.types import Dropped, Image, Row, TongganError, UsageError

FORMAT = 1
SHARD_ROWS = 10_000
SPOOL_BYTES = 256_000_000
"""Rows made in memory move to a temporary memory-mapped file once they hold more than this."""
_OURS = re.compile(r"dataset\.json|rows-\d{5,}\.arrow")


class Dataset(Sequence[Row]):
    """Rows by number. Selecting (`where`, `split`) makes a view, not a copy.

    `dropped` lists what did not become a row and `notes` what a reader decided or mended; both stay with the data set.
    """

    def __init__(
        self,
        shards: Sequence[pa.Table],
        *,
        base: Path | None = None,
        dropped: Sequence[Dropped] = (),
        notes: Sequence[str] = (),
        earlier: int = 0,
        indices: np.ndarray | None = None,
        splits: Sequence[str | None] | None = None,
    ) -> None:
        self._tables = tuple(shards)
        self._batches: list[pa.RecordBatch] = [batch for table in shards for batch in table.to_batches() if len(batch)]
        self._ends = list(itertools.accumulate(len(batch) for batch in self._batches))
        self._indices = indices
        self._splits = list(splits) if splits is not None else None  # one per row of this view, instead of the stored ones
        self.base = base
        """The directory that relative media paths start from."""
        self.dropped = tuple(dropped)
        self.notes = tuple(notes)
        self.earlier = earlier
        """How many of `dropped`, from the first, were left out before these rows were written: known, and no fault of what is here."""

    # ------------------------------------------------------------------------------------ in and out

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Row],
        *,
        base: str | Path | None = None,
        dropped: Sequence[Dropped] = (),
        notes: Sequence[str] = (),
    ) -> Dataset:
        """Rows from anywhere, one pass; arrays are kept as PNG. Two rows with one id are refused.

        More than `SPOOL_BYTES` of them go to a temporary file that disappears with the data set.
        """
        root = Path(base).absolute() if base is not None else None
        batches: list[pa.RecordBatch] = []
        spooled: list[pa.Table] = []
        held = 0
        for batch in record_batches(_unique(rows), root):
            batches.append(batch)
            held += batch.nbytes
            if held > SPOOL_BYTES:
                spooled.append(_spool(batches))
                batches, held = [], 0
        tables = [*spooled, pa.Table.from_batches(batches, SCHEMA)] if batches or not spooled else spooled
        return cls([pa.concat_tables(tables)], base=root, dropped=dropped, notes=notes)

    @classmethod
    def read(cls, directory: str | Path) -> Dataset:
        """A data set that `write` made, memory-mapped; raises `TongganError` when it is none, or damaged."""
        where = Path(directory)
        file = where / "dataset.json"
        if not file.is_file():
            raise TongganError(f"{where}: no data set here (dataset.json is missing)")
        try:
            record = json.loads(file.read_text("utf-8"))
            if record.get("format") != FORMAT:
                raise TongganError(f"{file}: format {record.get('format')}, this version reads {FORMAT}")
            shards = [pa.ipc.open_file(pa.memory_map(str(where / name))).read_all() for name in record["shards"]]
            dropped = [Dropped(**one) for one in record["dropped"]]
            wrong = [name for name, shard in zip(record["shards"], shards, strict=True) if shard.schema != SCHEMA]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
            raise TongganError(f"{where}: the data set is damaged: {error}") from None
        if wrong:
            raise TongganError(f"{where}: {', '.join(wrong)}: not the columns of a data set of ours")
        return cls(shards, base=where.absolute(), dropped=dropped, notes=record.get("notes", ()), earlier=len(dropped))

    def write(self, directory: str | Path, *, embed: bool = False, shard_rows: int = SHARD_ROWS) -> Path:
        """Write shards and their record, whole or not at all; an older data set there is replaced, anything else is refused.

        Media paths become relative where they lie inside the directory, else absolute; `embed` stores the files' bytes instead,
        so that the directory can travel alone. What else lies in a replaced directory (its pictures, for one) stays there.
        """
        where = Path(directory)
        if where.is_file() or (where.is_dir() and any(where.iterdir()) and not (where / "dataset.json").is_file()):
            raise TongganError(f"{where}: there is something else here already; choose a new directory")
        home = where.resolve()  # a link to a directory stays one
        home.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
        try:
            self._write_into(fresh, where.absolute(), embed, shard_rows)
            fresh.chmod(0o755)  # mkdtemp makes private directories
            if home.is_dir():
                _replace(home, fresh)
            else:
                fresh.rename(home)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return where

    def _write_into(self, fresh: Path, base: Path, embed: bool, shard_rows: int) -> None:
        names = []
        rows = map(_embedded, self) if embed else iter(self)
        for number, start in enumerate(range(0, len(self), shard_rows)):
            name = f"rows-{number:05d}.arrow"
            here = itertools.islice(rows, min(shard_rows, len(self) - start))
            with pa.OSFile(str(fresh / name), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
                for batch in record_batches(here, base):
                    writer.write_batch(batch)
            names.append(name)
        record = {
            "format": FORMAT,
            "shards": names,
            "dropped": [{"where": d.where, "reason": d.reason} for d in self.dropped],
            "notes": list(self.notes),
        }
        (fresh / "dataset.json").write_text(json.dumps(record, ensure_ascii=False, indent=1), "utf-8")

    # ------------------------------------------------------------------------------------------ rows

    def __len__(self) -> int:
        return len(self._indices) if self._indices is not None else self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Row | Dataset:
        if isinstance(index, slice):
            return self.where(np.arange(len(self))[index])
        number = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= number < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        at = number if self._indices is None else int(self._indices[number])
        which = bisect_right(self._ends, at)
        batch = self._batches[which]
        place = at - (self._ends[which] - len(batch))
        plain = {name: column[place].as_py() for name, column in zip(SCHEMA.names, batch.columns, strict=True)}
        if self._splits is not None:
            plain["split"] = self._splits[number]
        return from_plain(plain, self.base)

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))

    def light(self) -> list[Row]:
        """Every row, but with empty bytes in place of embedded media: what fits into memory when the pictures do not."""
        return [row if row.images == () else row.with_(images=tuple(map(_light, row.images))) for row in self]

    @property
    def shards(self) -> tuple[int, ...]:
        """Rows of each shard, in order; they add up to the length. A view in another order than the files' is one shard."""
        lengths = [len(table) for table in self._tables]
        if self._indices is None:
            return tuple(lengths) or (0,)
        if len(self._indices) and (np.diff(self._indices) <= 0).any():
            return (len(self._indices),)
        counts: Any = np.histogram(self._indices, bins=np.cumsum([0, *lengths]))[0] if sum(lengths) else []
        return tuple(int(n) for n in counts if n) or (0,)

    def column(self, name: str) -> list[Any]:
        """One plain column (`id`, `group`, `split`, …) without decoding the rest."""
        if name == "split" and self._splits is not None:
            return list(self._splits)
        values: list[Any] = [value for batch in self._batches for value in batch.column(name).to_pylist()]
        return values if self._indices is None else [values[int(i)] for i in self._indices]

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits over everything a row says, in order; a file counts by its name, size, head and tail.

        Reading every picture whole would take as long as an epoch; two pictures of one name, size, head and tail are one.
        """
        digest = hashlib.sha256()
        for row in self:
            plain = to_plain(row)
            for media in (*plain["images"], *plain["audios"], *plain["videos"]):
                media["path"] = media["path"] and Path(media["path"]).name  # the same data set elsewhere is the same
            digest.update(json.dumps(plain, ensure_ascii=False, sort_keys=True, default=_hashed).encode("utf-8", "surrogatepass"))
            for handle in (*row.images, *row.audios, *row.videos):
                if handle.path is not None:
                    digest.update(_file_print(handle.path))
        return digest.hexdigest()[:12]

    # --------------------------------------------------------------------------------------- choosing

    def where(self, indices: Sequence[int] | np.ndarray) -> Dataset:
        """A view of the rows at these numbers, in this order."""
        numbers = np.asarray(indices)
        if numbers.dtype == bool or (numbers.size and not np.issubdtype(numbers.dtype, np.integer)):
            raise ValueError(f"where() takes row numbers, got {numbers.dtype}")
        numbers = numbers.astype(np.int64)
        if numbers.size and (numbers.min() < 0 or numbers.max() >= len(self)):
            raise IndexError(f"rows {numbers.min()}..{numbers.max()} of {len(self)}")
        chosen = numbers if self._indices is None else self._indices[numbers]
        return self._view(chosen, None if self._splits is None else [self._splits[int(i)] for i in numbers])

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in order of appearance."""
        return tuple(dict.fromkeys(name for name in self.column("split") if name))

    def split(self, name: str) -> Dataset:
        """The rows of one split; an unknown name raises `UsageError` naming those there are."""
        if name not in self.splits:
            there = ", ".join(self.splits) or "none"
            raise UsageError(f"no split {name!r}; there are: {there}{did_you_mean(name, self.splits)}")
        return self.where(np.array([i for i, found in enumerate(self.column("split")) if found == name]))

    def with_splits(self, names: Sequence[str | None]) -> Dataset:
        """The same rows with other splits, one name per row."""
        if len(names) != len(self):
            raise ValueError(f"{len(names)} splits for {len(self)} rows")
        return self._view(self._indices, names)

    def with_dropped(self, dropped: Sequence[Dropped], notes: Sequence[str] = ()) -> Dataset:
        """The same rows with more rows known to be dropped, and more notes."""
        same = self._view(self._indices, self._splits)
        same.dropped, same.notes = (*self.dropped, *dropped), (*self.notes, *notes)
        return same

    def _view(self, indices: np.ndarray | None, splits: Sequence[str | None] | None) -> Dataset:
        known: dict[str, Any] = {"dropped": self.dropped, "notes": self.notes, "earlier": self.earlier}
        return Dataset(self._tables, base=self.base, indices=indices, splits=splits, **known)


def _unique(rows: Iterable[Row]) -> Iterator[Row]:
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise UsageError(f"the id {row.id!r} occurs twice; ids name rows in splits, results and indexes")
        seen.add(row.id)
        yield row


def _spool(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """The batches on disk instead of in memory. The file has no name any more once it is mapped: nothing is left behind."""
    handle, name = tempfile.mkstemp(suffix=".arrow", prefix="tonggan-")
    os.close(handle)
    try:
        with pa.OSFile(name, "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return pa.ipc.open_file(pa.memory_map(name)).read_all()
    finally:
        Path(name).unlink()


def _embedded(row: Row) -> Row:
    """The row with its local pictures as bytes; addresses on the network stay addresses."""
    inline = [m if m.url is not None else Image(data=read_bytes(m), role=m.role) for m in row.images]
    return row.with_(images=tuple(inline))


def _light(image: Image) -> Image:
    return image if image.data is None else Image(data=b"", role=image.role)


def _replace(home: Path, fresh: Path) -> None:
    """Put a fresh data set in the place of an old one and move the user's other files into it; a failure puts everything back.

    The old directory is deleted last, when nothing but the old data set is left in it.
    """
    aside = fresh.with_name(f"{fresh.name}-old")
    try:
        home.rename(aside)
        fresh.rename(home)
        _move_others(aside, home)
    except BaseException:
        _put_back(home, fresh, aside)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _put_back(home: Path, fresh: Path, aside: Path) -> None:
    """Undo as much of a replacement as was done, which the directories show; raises `TongganError` naming them when it cannot."""
    try:
        if aside.exists() and home.exists():
            _move_others(home, aside)
            home.rename(fresh)
        if aside.exists():
            aside.rename(home)
    except OSError as error:
        there = f"what was in it is now in {aside} and {home}: join them by hand"
        raise TongganError(f"{home}: cannot be replaced ({error}); {there}") from None


def _move_others(old: Path, new: Path) -> None:
    """Move what is not the data set itself."""
    for file in list(old.iterdir()):
        if not _OURS.fullmatch(file.name):
            file.rename(new / file.name)


def _hashed(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)


def _file_print(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(4096)
            file.seek(max(0, size - 4096))
            return hashlib.sha256(f"{size} ".encode() + head + file.read()).digest()
    except OSError:
        return b"absent"
