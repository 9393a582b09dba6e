"""WebDataset: tar files of `KEY.jpg`, `KEY.txt`, `KEY.json`, read in one pass and never unpacked to disk."""

from __future__ import annotations

import io
import itertools
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tonggan.data.formats.base import EMPTY_CAPTION, Located, Reading, normal_split
from tonggan.data.formats.jsonl import row_record
from tonggan.data.formats.writing import Writing, safe_name
from tonggan.data.language import language_of
from tonggan.data.media import PICTURE_SUFFIXES, read_bytes, sniff
from tonggan.data.rows import Dataset
from tonggan.types import Image, Row, Text, TongganError

SHARD_ROWS = 5_000
MEMBER_BYTES = 512_000_000
"""A member that claims to be larger is not read: the claim may be a lie, the memory would be real."""
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_LIST = re.compile(r"\{([^{}]*,[^{}]*)\}")
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)


def expand(spec: str) -> list[Path]:
    """The shards of `a/{00000..00099}.tar`, `{a,b}.tar`, several joined by `::`. Raises `TongganError` naming those that are absent."""
    paths = [Path(one).expanduser() for part in spec.split("::") for one in _braces(part.strip())]
    absent = [str(path) for path in paths if not path.is_file()]
    if absent:
        raise TongganError(f"{len(absent)} of {len(paths)} shards are not there: {', '.join(absent[:3])}{', …' * (len(absent) > 3)}")
    return paths


def _braces(spec: str) -> Iterator[str]:
    if found := _RANGE.search(spec):
        low, high = found.groups()
        choices = [f"{number:0{len(low)}d}" for number in range(int(low), int(high) + 1)]
    elif found := _LIST.search(spec):
        choices = found[1].split(",")
    else:
        yield spec
        return
    for choice in choices:
        yield from _braces(spec[: found.start()] + choice + spec[found.end() :])


def read_webdataset(job: Reading) -> Iterator[Located]:
    """Rows of every shard. Members with unsafe names are refused and listed; a damaged shard gives its rows up to the damage."""
    shards = list(job.sources) or (sorted(job.path.rglob("*.tar")) if job.path.is_dir() else [job.path])
    if not shards:
        raise TongganError(f"{job.path}: no tar files in this folder")
    for shard in shards:
        split = normal_split(shard.parent.name)
        classes = _class_names(shard.parent)
        for key, members in itertools.groupby(_members(shard, job), key=lambda member: member[0]):
            where = f"{shard.name}: {key}"
            row = _row(key, {ending: data for _, ending, data in members}, classes)
            if isinstance(row, str):
                job.drop(where, row)
            else:
                yield where, row if row.split or split not in ("train", "val", "test") else row.with_(split=split)


def _class_names(folder: Path) -> list[str]:
    """CLIP_benchmark keeps the names of the classes beside the shards, or one folder up."""
    for place in (folder, folder.parent):
        file = place / "classnames.txt"
        if file.is_file():
            return file.read_text("utf-8").splitlines()
    return []


def _members(shard: Path, job: Reading) -> Iterator[tuple[str, str, bytes]]:
    """(key, ending, content) of the shard's files: the key ends at the first dot of the file's name."""
    try:
        with tarfile.open(shard) as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or the archive's whole list of contents is kept
                where = f"{shard.name}: {member.name[:200]}"
                if reason := _refusal(member):
                    job.drop(where, reason)
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, dot, ending = name.partition(".")
                if not member.isfile() or not stem or not dot or name.startswith("."):
                    continue
                stream = tar.extractfile(member)
                data = stream.read() if stream is not None else b""
                if len(data) < member.size:
                    raise tarfile.ReadError("unexpected end of data")
                yield f"{folder}/{stem}" if folder else stem, ending.lower(), data
            if not _ended_well(shard, tar):
                raise tarfile.ReadError("no end mark")
    except _DAMAGE as error:
        job.drop(shard.name, f"damaged or cut off ({str(error)[:60] or type(error).__name__}): rows after this point are lost")


def _refusal(member: tarfile.TarInfo) -> str | None:
    """Why a member is not read. Nothing is unpacked, but its name becomes an id, and ids become file names."""
    if member.name.startswith(("/", "\\")) or ".." in re.split(r"[\\/]", member.name) or re.match(r"^[A-Za-z]:", member.name):
        return "refused: its name points out of the archive"
    if member.issym() or member.islnk() or member.isdev():
        return "refused: a link or device, not a file"
    return "refused: too large for a picture or text" if member.size > MEMBER_BYTES else None


def _ended_well(shard: Path, tar: tarfile.TarFile) -> bool:
    """Python takes a damaged header for the end of the archive; the real end is a block of zeros."""
    with shard.open("rb") as file:
        packed = file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7")
        if packed:
            return True  # a packed archive has its own checksum
        file.seek(tar.offset)
        block = file.read(tarfile.BLOCKSIZE)
    return len(block) == tarfile.BLOCKSIZE and not block.strip(b"\0")


def _row(key: str, files: Mapping[str, bytes], classes: list[str]) -> Row | str:
    """One sample. Our own `json` says everything; img2dataset's has `caption` and the picture's origin."""
    record = _json(files.get("json"))
    if record is None or not isinstance(record.get("meta") or {}, dict):
        return "its json is damaged"
    texts = _captions(files, record)
    label = _label(files.get("cls"), classes)
    if label is not None and not texts:
        texts = (Text(label, language_of(label)),)
    images = tuple(Image(data=data) for ending, data in files.items() if f".{ending.split('.')[-1]}" in PICTURE_SUFFIXES)
    if not images:
        return "no picture"
    if any(not image.data for image in images):
        return "empty picture"
    if not texts and any(ending.endswith(("txt", "caption")) for ending in files):
        return EMPTY_CAPTION
    ours = isinstance(record.get("texts"), list)
    fields: dict[str, Any] = {"group": record.get("group"), "split": normal_split(record.get("split"))} if ours else {}
    meta = record.get("meta") if ours else {name: value for name, value in record.items() if name not in ("caption", "text", "key")}
    plain = {str(name): str(value) for name, value in (meta or {}).items() if value is not None and not isinstance(value, dict | list)}
    if label is not None:
        plain["class"] = fields["group"] = label
    return Row(id=str(record.get("id") or key) if ours else key, images=images, texts=texts, meta=plain, **fields)


def _captions(files: Mapping[str, bytes], record: Mapping[str, Any]) -> tuple[Text, ...]:
    given = record.get("texts")
    if isinstance(given, list):
        return tuple(Text(one["text"], one.get("lang")) for one in given if isinstance(one, dict) and one.get("text"))
    words = [
        (data.decode("utf-8-sig", errors="replace").strip(), ending.rpartition(".")[0] or None)
        for ending, data in sorted(files.items())
        if ending.rpartition(".")[2] in ("txt", "caption")
    ]
    if not any(word for word, _ in words):
        words = [(str(record.get("caption") or record.get("text") or "").strip(), None)]
    return tuple(Text(word, lang or language_of(word)) for word, lang in words if word)


def _label(data: bytes | None, classes: list[str]) -> str | None:
    word = data.decode("utf-8", errors="replace").strip() if data is not None else ""
    return (classes[int(word)] if word.isdigit() and int(word) < len(classes) else word) or None


def _json(data: bytes | None) -> dict[str, Any] | None:
    try:
        record = json.loads(data) if data is not None else {}
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


# --------------------------------------------------------------------------------------------- writing


def write_webdataset(dataset: Dataset, job: Writing) -> None:
    """Shards `00000.tar`, … in a folder (or one file, when the path ends in `.tar`), each row with its first caption as `txt`
    and everything in `json`. Times and owners are left out, so that equal data give equal files.
    """
    one_file = job.path.suffix == ".tar"
    if not one_file:
        job.place.mkdir()
    per_shard = max(1, len(dataset)) if one_file else SHARD_ROWS
    for shard, start in enumerate(range(0, max(1, len(dataset)), per_shard)):
        with tarfile.open(job.place if one_file else job.place / f"{shard:05d}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for number in range(start, min(start + per_shard, len(dataset))):
                _write_row(tar, number, dataset[number])


def _write_row(tar: tarfile.TarFile, number: int, row: Row) -> None:
    key = f"{number:08d}_{safe_name(row.id)[:60]}"
    for n, image in enumerate(row.images, 1):
        data = read_bytes(image)
        ending = (sniff(data[:1024]) or (image.path.suffix if image.path else "")).lstrip(".") or "bin"
        _add(tar, f"{key}.{ending}" if n == 1 else f"{key}.{n}.{ending}", data)
    if row.texts:
        _add(tar, f"{key}.txt", row.texts[0].text.encode())
    record = row_record(row.with_(images=()), lambda media, name: name)
    _add(tar, f"{key}.json", json.dumps(record, ensure_ascii=False).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
