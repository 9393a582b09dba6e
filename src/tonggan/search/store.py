"""Where vectors live: a small protocol, and its embedded engine, LanceDB.

The table holds unit vectors beside thumbnails and metadata. Search over it is exact; only past `EXACT_UP_TO` rows, and only when
asked to, is an approximate index built, because at that size the difference in time is worth a loss in recall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


class VectorStore(Protocol):
    """All that `Index` asks of an engine."""

    def upsert(self, records: Sequence[Record]) -> None: ...
    def delete(self, ids: Sequence[str]) -> int: ...
    def search(self, vector: np.ndarray, limit: int) -> list[Hit]: ...
    def contents(self) -> Mapping[str, str]: ...
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
        self._dim = dim
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
        try:
            self._table: Any = lancedb.connect(directory).create_table(_TABLE, schema=schema, exist_ok=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise TongganError(f"{directory}: the index cannot be opened: {str(error).splitlines()[0]}") from None

    def upsert(self, records: Sequence[Record]) -> None:
        """Add records; one whose id is there already replaces it."""
        if not records:
            return
        columns: dict[str, Any] = {name: [getattr(r, name) for r in records] for name in Record.__slots__ if name != "vector"}
        flat = pa.array(np.stack([r.vector for r in records]).astype(np.float32).ravel())
        columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, self._dim)
        data = pa.table({name: columns[name] for name in self._table.schema.names}, schema=self._table.schema)
        self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(data)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete by id; gives how many there were."""
        before = len(self)
        for start in range(0, len(ids), 500):
            quoted = ", ".join("'" + i.replace("'", "''") + "'" for i in ids[start : start + 500])
            self._table.delete(f"id IN ({quoted})")
        return before - len(self)

    def search(self, vector: np.ndarray, limit: int) -> list[Hit]:
        """The nearest by cosine, best first, equal scores in the order of their ids."""
        query = self._table.search(vector.astype(np.float32), vector_column_name="vector").distance_type("cosine").limit(limit)
        try:
            found = query.select(["id", "title", "where", "thumbnail", "meta", "_distance"]).to_arrow().to_pylist()
        except (OSError, RuntimeError, ValueError) as error:
            raise TongganError(f"the index is damaged: {str(error).splitlines()[0][:200]}; make it again") from None
        hits = [Hit(r["id"], 1.0 - r["_distance"], r["title"], r["where"], r["thumbnail"], r["meta"]) for r in found]
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))

    def contents(self) -> Mapping[str, str]:
        """Content hash of every id."""
        found = self._table.search().select(["id", "content"]).limit(max(len(self), 1)).to_arrow()
        return dict(zip(found["id"].to_pylist(), found["content"].to_pylist(), strict=True))

    def approximate(self) -> None:
        """Build an approximate index (IVF with HNSW and scalar quantisation); later queries go through it."""
        self._table.create_index("vector", config=self._approximate)

    def __len__(self) -> int:
        return int(self._table.count_rows())
