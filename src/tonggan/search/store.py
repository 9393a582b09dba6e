"""Where vectors live: a small protocol, and its embedded engine, LanceDB.

The table holds unit vectors beside thumbnails and metadata. Search over it is exact; only past `EXACT_UP_TO` rows, and only when
asked to, is an approximate index built, because at that size the difference in time is worth a loss in recall.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from tonggan.types import MissingExtra, TongganError

EXACT_UP_TO = 200_000
"""At this many rows of 512 numbers an exact query reads 400 MB: about a tenth of a second."""
_TABLE = "items"


@dataclass(frozen=True, slots=True)
class Record:
    """One searchable thing. `content` is a hash of what was embedded, so that what has not changed is not encoded again."""

    id: str
    vector: np.ndarray
    content: str
    title: str = ""
    where: str = ""
    thumbnail: bytes = b""
    meta: str = "{}"
    """JSON object with the row's texts, group, split and columns."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer: cosine similarity in -1..1, and the record without its vector."""

    id: str
    score: float
    title: str
    where: str
    thumbnail: bytes
    meta: str

    @property
    def seconds(self) -> tuple[float, float | None] | None:
        """Where in a clip it starts and ends (None: with the clip); None for what has no seconds."""
        said = json.loads(self.meta)
        return None if said.get("start") is None else (said["start"], said.get("end"))

    @property
    def moment(self) -> str:
        """The same as text, `12.4-17.9 s`; empty for what has no seconds."""
        if self.seconds is None:
            return ""
        start, end = (None if one is None else f"{round(one, 2):.10g}" for one in self.seconds)
        return f"{start}-{end} s" if end is not None else f"{start} s to the end"


class VectorStore(Protocol):
    """All that `Index` asks of an engine."""

    def upsert(self, records: Sequence[Record]) -> None: ...
    def delete(self, ids: Sequence[str]) -> int: ...
    def move(self, places: Mapping[str, str]) -> None: ...
    def search(self, vector: np.ndarray, limit: int) -> list[Hit]: ...
    def contents(self) -> Mapping[str, tuple[str, str]]: ...
    def __len__(self) -> int: ...


class LanceStore:
    """Vectors in a LanceDB table under `directory`; `dim` is the vectors' width. Raises `TongganError` when there is no table,
    unless it is to be made (`create`)."""

    def __init__(self, directory: Path, dim: int, *, create: bool = False) -> None:
        try:
            import lancedb
            from lancedb.index import HnswSq
        except ImportError:
            raise MissingExtra("the search index", "search") from None
        if not create and not (directory / f"{_TABLE}.lance").is_dir():
            raise TongganError(
                f"{directory}: no table here: the index is incomplete (a copy that left folders out?); copy it whole, or make it again"
            )
        self._directory, self._dim = directory, dim
        self._approximate = HnswSq(distance_type="cosine")
        schema = pa.schema(
            [
                ("id", pa.string()),
                ("vector", pa.list_(pa.float32(), dim)),
                ("content", pa.string()),
                ("title", pa.string()),
                ("where", pa.string()),
                ("thumbnail", pa.binary()),
                ("meta", pa.string()),
            ]
        )
        with self._told():
            self._table: Any = lancedb.connect(directory).create_table(_TABLE, schema=schema, exist_ok=True)

    def upsert(self, records: Sequence[Record]) -> None:
        """Add records; one whose id is there already replaces it."""
        if not records:
            return
        columns: dict[str, Any] = {name: [getattr(r, name) for r in records] for name in Record.__slots__ if name != "vector"}
        flat = pa.array(np.stack([r.vector for r in records]).astype(np.float32).ravel())
        columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, self._dim)
        with self._told():
            data = pa.table({name: columns[name] for name in self._table.schema.names}, schema=self._table.schema)
            self._merge(data)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete by id; gives how many there were."""
        before = len(self)
        for start in range(0, len(ids), 500):
            with self._told():
                self._table.delete(_among(ids[start : start + 500]))
        return before - len(self)

    def move(self, places: Mapping[str, str]) -> None:
        """Give the records of these ids another `where`."""
        if not places:
            return
        with self._told():
            found = self._table.search().where(_among(list(places))).limit(len(places)).select(self._table.schema.names).to_arrow()
            where = pa.array([places[i] for i in found["id"].to_pylist()], pa.string())
            self._merge(found.set_column(found.schema.get_field_index("where"), "where", where))

    def search(self, vector: np.ndarray, limit: int) -> list[Hit]:
        """The nearest by cosine, best first, equal scores in the order of their ids."""
        with self._told():
            query = self._table.search(vector.astype(np.float32), vector_column_name="vector").distance_type("cosine").limit(limit)
            found = query.select(["id", "title", "where", "thumbnail", "meta", "_distance"]).to_arrow().to_pylist()
        hits = [Hit(r["id"], 1.0 - r["_distance"], r["title"], r["where"], r["thumbnail"], r["meta"]) for r in found]
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))

    def contents(self) -> Mapping[str, tuple[str, str]]:
        """Content hash and `where` of every id."""
        with self._told():
            found = self._table.search().select(["id", "content", "where"]).limit(max(len(self), 1)).to_arrow()
        return dict(zip(found["id"].to_pylist(), zip(found["content"].to_pylist(), found["where"].to_pylist(), strict=True), strict=True))

    def approximate(self) -> None:
        """Build an approximate index (IVF with HNSW and scalar quantisation); later queries go through it."""
        with self._told():
            self._table.create_index("vector", config=self._approximate)

    def __len__(self) -> int:
        with self._told():
            return int(self._table.count_rows())

    def _merge(self, data: pa.Table) -> None:
        self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(data)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever the engine fails by names the directory: a damaged file, a full disk, no rights."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise TongganError(f"{self._directory}: the index failed: {reason}; if it is damaged, make it again") from None


def _among(ids: Sequence[str]) -> str:
    quoted = ", ".join("'" + i.replace("'", "''") + "'" for i in ids)
    return f"id IN ({quoted})"
