"""Arrow's relatives: Parquet (ours without loss, anyone's by column) and Hugging Face data sets on disk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tonggan.data.formats.base import Located, Reading, normal_split
from tonggan.data.formats.cells import Record
from tonggan.data.formats.columns import meta_column, numbered, own_header, rows_of
from tonggan.data.formats.writing import Writing, safe_name
from tonggan.data.media import read_bytes
from tonggan.data.rows import Dataset
from tonggan.data.schema import BATCH_ROWS, SCHEMA, from_plain, to_plain
from tonggan.types import MissingExtra, Row, TongganError


def read_rows(job: Reading) -> Iterator[Located]:
    """A data set of ours, row by row; `formats.read` opens such a directory directly instead."""
    dataset = Dataset.read(job.path)
    job.dropped += dataset.dropped
    for row in dataset:
        yield row.id, row


def write_rows(dataset: Dataset, job: Writing) -> None:
    """A data set directory, which by itself appears whole or not at all."""
    dataset.write(job.path)


# -------------------------------------------------------------------------------------------- Parquet


def read_parquet(job: Reading) -> Iterator[Located]:
    """One file or a folder of them, a group of rows at a time. Pictures: Hugging Face's `{"bytes", "path"}`, bytes, or paths."""
    files = sorted(job.path.rglob("*.parquet")) if job.path.is_dir() else [job.path]
    opened: list[tuple[Path, pq.ParquetFile]] = []
    for file in files:
        try:
            opened.append((file, pq.ParquetFile(file, memory_map=True)))
        except (OSError, pa.ArrowException) as error:
            if len(files) == 1:
                raise TongganError(f"{file}: not readable as Parquet: {error}") from None
            job.drop(file.name, f"not readable as Parquet ({str(error)[:60]})")
    if not opened:
        raise TongganError(f"{job.path}: no Parquet file that can be read")
    if all(set(SCHEMA.names) <= set(parquet.schema_arrow.names) for _, parquet in opened):
        for where, cells in _groups(opened, job):
            yield where, from_plain(cells, job.base)
        return
    names = list(dict.fromkeys(name for _, parquet in opened for name in parquet.schema_arrow.names))
    if "split" not in names and any(_split_of(file) for file, _ in opened):
        names.append("split")
    yield from rows_of(_groups(opened, job), names, job)


def _split_of(file: Path) -> str | None:
    """Hugging Face names its files `train-00000-of-00002.parquet`."""
    split = normal_split(re.split(r"[-.]", file.name)[0])
    return split if split in ("train", "val", "test") else None


def _groups(opened: list[tuple[Path, pq.ParquetFile]], job: Reading) -> Iterator[Record]:
    for file, parquet in opened:
        number = 0
        split = _split_of(file)
        try:
            for batch in parquet.iter_batches(batch_size=BATCH_ROWS):
                for cells in batch.to_pylist():
                    number += 1
                    if split and "split" not in cells:
                        cells["split"] = split
                    yield f"{file.name}:{number}", cells
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            job.drop(f"{file.name}:{number + 1}", f"damaged from here on ({str(error)[:60]})")


def write_parquet(dataset: Dataset, job: Writing) -> None:
    """Every field of every row; media paths inside the file's folder become relative to it."""
    base = job.path.absolute().parent
    with pq.ParquetWriter(job.place, SCHEMA, compression="zstd") as writer:
        held: list[dict[str, Any]] = []
        for row in dataset:
            held.append(to_plain(row, base))
            if len(held) == BATCH_ROWS:
                writer.write_batch(pa.RecordBatch.from_pylist(held, SCHEMA))
                held = []
        if held or not len(dataset):
            writer.write_batch(pa.RecordBatch.from_pylist(held, SCHEMA))


# -------------------------------------------------------------------------------------- Hugging Face


def read_hf(job: Reading) -> Iterator[Located]:
    """What `save_to_disk` wrote, one data set or one for each split. Class labels become their names."""
    try:
        import datasets
    except ImportError:
        raise MissingExtra("Hugging Face data sets", "hf") from None
    try:
        loaded = datasets.load_from_disk(str(job.path))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise TongganError(f"{job.path}: not readable as a Hugging Face data set: {str(error)[:200]}") from None
    parts = loaded.items() if isinstance(loaded, datasets.DatasetDict) else [(None, loaded)]
    for split, part in parts:
        labels = {name: feature.names for name, feature in part.features.items() if isinstance(feature, datasets.ClassLabel)}
        names = [*part.column_names, *(["split"] if split and "split" not in part.column_names else [])]
        yield from rows_of(_hf_records(part, split, labels), names, job)


def _hf_records(part: Any, split: str | None, labels: Mapping[str, list[str]]) -> Iterator[Record]:
    """Records as Arrow has them: pictures, single or in lists, stay `{"bytes", "path"}` instead of being decoded."""
    tables = part.with_format("arrow").iter(batch_size=BATCH_ROWS)
    for number, cells in enumerate(chain.from_iterable(table.to_pylist() for table in tables), 1):
        for name, words in labels.items():
            if cells[name] is not None and 0 <= cells[name] < len(words):
                cells[name] = words[cells[name]]
        if split and "split" not in cells:
            cells["split"] = split
        yield f"{split or 'row'}:{number}", cells


def write_hf(dataset: Dataset, job: Writing) -> None:
    """`save_to_disk`, one data set for each split (rows without one in `unsplit`; a single data set when no row has one); the first
    picture as bytes, `title`, `lang`, … as in our tables.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtra("Hugging Face data sets", "hf") from None
    captions = max((len(row.texts) for row in dataset), default=0)
    pictures = any(row.images for row in dataset)
    meta = dict.fromkeys(meta_column(name) for row in dataset for name in row.meta)
    names = [*own_header("image" if pictures else None, captions, captions), *meta]
    features = datasets.Features({name: datasets.Image() if name == "image" else datasets.Value("string") for name in names})
    by_split: dict[str, list[dict[str, Any]]] = {}
    for row in dataset:
        by_split.setdefault(safe_name(row.split) if row.split else "", []).append(_hf_record(row, names))
    made = {split or "unsplit": datasets.Dataset.from_list(records, features=features) for split, records in by_split.items()}
    whole = made["unsplit"] if [*by_split] == [""] else datasets.DatasetDict(made)
    whole.save_to_disk(str(job.place))


def _hf_record(row: Row, names: list[str]) -> dict[str, Any]:
    cells: dict[str, Any] = {"id": row.id, "group": row.group, "split": row.split}
    for number, text in enumerate(row.texts, 1):
        cells |= {numbered("title", number): text.text, numbered("lang", number): text.lang}
    cells |= {meta_column(name): value for name, value in row.meta.items()}
    if row.images:
        picture = row.images[0]
        cells["image"] = {"bytes": read_bytes(picture), "path": picture.path.name if picture.path is not None else None}
    return {name: cells.get(name) for name in names}
