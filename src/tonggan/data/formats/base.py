"""What every format shares: the job a reader is given, how it reports, how it finds pictures, and what a format can hold."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PureWindowsPath
from typing import Literal, TypeAlias, get_args

from tonggan.data.formats.writing import Writing
from tonggan.data.language import language_of
from tonggan.data.media import is_picture_name, read_bytes
from tonggan.data.rows import Dataset
from tonggan.types import Dropped, Image, Media, MediaError, Row, Text

Located: TypeAlias = tuple[str, Row]
"""A row and where it comes from (file and line, or the member of an archive), for reports."""

EMPTY_CAPTION = "empty caption"
SPLIT_NAMES = {
    "train": ("train", "training", "trn", "训练", "训练集"),
    "val": ("val", "valid", "validation", "dev", "eval", "验证", "验证集"),
    "test": ("test", "testing", "tst", "测试", "测试集"),
}
_INDEX_LIMIT = 200_000  # files looked at when a picture is searched by its name


@dataclass(slots=True)
class Reading:
    """One reading: what the user asked for, and the lists that a reader reports to."""

    path: Path
    image_col: str | None = None
    text_col: tuple[str, ...] = ()
    text_lang: str | Mapping[str, str] | None = None
    encoding: str | None = None
    restval: Literal["train", "keep"] = "train"
    """What Karpathy's `restval` becomes: part of `train`, as everyone trains, or a split of its own."""
    sources: tuple[Path, ...] = ()
    """The shards of a WebDataset; empty for formats that are one path."""
    root: Path | None = None
    """The folder of which this file is a part: reports and ids start there."""
    dropped: list[Dropped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def base(self) -> Path:
        """The directory that relative paths in the data start from."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def label(self) -> str:
        """The file in reports: its name, or its path from `root`."""
        return self.path.name if self.root is None else self.path.relative_to(self.root).as_posix()

    def drop(self, where: str, reason: str) -> None:
        """Record a row that cannot be used."""
        self.dropped.append(Dropped(_printable(where), _printable(reason)))

    def note(self, text: str) -> None:
        """Record something that was decided or mended, once."""
        if text not in self.notes:
            self.notes.append(text)


Field: TypeAlias = Literal["images", "captions", "lang", "group", "split", "meta", "media", "dialogue"]
"""What a row may hold, as formats differ in it. `images`: more than one picture; `captions`: more than one text;
`media`: sounds and clips; `dialogue`: messages, question, choices, answers."""


Need: TypeAlias = Literal["picture", "caption"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Which rows a format cannot hold at all: they are left out when it is written, and listed."""

    needs: tuple[Need, ...] = ()
    """What every row must have."""
    table: bool = False
    """A table has no column for what none of the rows has, and so does not need it."""
    urls: bool = True
    """Whether a picture may stay an address on the network."""
    copies: bool = False
    """Whether pictures are copied, and must therefore be there."""
    longest: int | None = None
    """Characters that one text may have."""
    unsplit: str | None = None
    """The split in which rows without one end up; None where a format can say that there is none."""


@dataclass(frozen=True, slots=True)
class Format:
    """A file format, both ways. `write` returns nothing: what cannot be held is worked out from `holds` and `limits`."""

    name: str
    about: str
    holds: frozenset[Field]
    read: Callable[[Reading], Iterator[Located]]
    write: Callable[[Dataset, Writing], None]
    limits: Limits = Limits()
    keeps_id: Callable[[Row, Path], bool] = lambda row, path: True
    """Whether a row's id survives in a file at this path."""


def holding(*fields: Field) -> frozenset[Field]:
    """Some of the fields; none named means all, a lossless format."""
    return frozenset(fields or get_args(Field))


def fitting(dataset: Dataset, format: Format) -> tuple[Dataset, list[Dropped]]:
    """The rows that a format can hold at all, and the others with their reasons."""
    looked = [(_has(row), row.id, _refusal(row, format)) for row in dataset]
    needs = [name for name in format.limits.needs if not format.limits.table or any(name in has for has, _, _ in looked)]
    kept: list[int] = []
    dropped: list[Dropped] = []
    for number, (has, name, refusal) in enumerate(looked):
        reason = next((f"no {need}" for need in needs if need not in has), refusal)
        if reason is None:
            kept.append(number)
        else:
            dropped.append(Dropped(name, reason))
    return (dataset.where(kept) if dropped else dataset), dropped


def _has(row: Row) -> tuple[Need, ...]:
    spoken = any(text.text.strip() for text in row.texts)
    return (*(("picture",) if row.images else ()), *(("caption",) if spoken else ()))


def _refusal(row: Row, format: Format) -> str | None:
    """Why a format cannot hold what is in a row."""
    for image in row.images if "images" in format.holds else row.images[:1]:
        if reason := _unwritable(image, format.limits):
            return f"{image.where}: {reason}"
    addresses = [image.url for image in row.images[:1] if image.url is not None]
    size = max(map(len, (row.id, row.group or "", *(text.text for text in row.texts), *row.meta.values(), *addresses)))
    if format.limits.longest is not None and size > format.limits.longest:
        return f"a text of {size:,} characters; a cell holds {format.limits.longest:,}"
    return None


def _unwritable(image: Image, limits: Limits) -> str | None:
    if image.url is not None and image.url[:5].lower() != "data:":
        return None if limits.urls else "a picture on the network; save it to a file first"
    if image.path is not None:
        return "no such file" if limits.copies and not _is_file(image.path) else None
    if image.url is not None and (limits.copies or not limits.urls):
        try:
            read_bytes(image)
        except MediaError as error:
            return error.reason
    return None


def lost(rows: Iterable[Row], format: Format, path: Path) -> list[str]:
    """What of these rows a format cannot hold, one line each, for example `split: 120 rows`."""
    counts: Counter[str] = Counter()
    for row in rows:
        has: dict[Field, bool] = {
            "images": len(row.images) > 1,
            "captions": len(row.texts) > 1,
            "lang": any(text.lang != language_of(text.text) for text in row.texts),
            "group": row.group is not None,
            "split": row.split is not None,
            "meta": bool(row.meta),
            "media": bool(row.audios or row.videos),
            "dialogue": bool(row.messages or row.question is not None or row.choices or row.answers),
        }
        counts.update(name for name, present in has.items() if present and name not in format.holds)
        counts.update(["id"] * (not format.keeps_id(row, path)))
        if format.limits.unsplit and row.split is None:
            counts[f"split: none becomes {format.limits.unsplit!r}"] += 1
    return [f"{name}: {count} row{'s' * (count > 1)}" for name, count in counts.items()]


# --------------------------------------------------------------------------------------------- reading


def normal_split(value: object) -> str | None:
    """`train`, `val` or `test` for the usual spellings of them, the value itself otherwise."""
    word = str(value if value is not None else "").strip()
    return next((name for name, words in SPLIT_NAMES.items() if word.lower() in words), word or None)


def storable(rows: Iterable[Located], job: Reading) -> Iterator[Located]:
    """The rows whose texts are text. JSON can hold half a character, or a number where words belong; file names of another
    system are bytes in no encoding of ours."""
    for where, row in rows:
        words = [row.id, *(text.text for text in row.texts), *row.choices, *row.answers, *row.meta, *row.meta.values()]
        said = [part for message in row.messages for part in message.parts]
        words += [part.text for part in said if isinstance(part, Text)]
        words += [word for word in (row.group, row.split, row.question, *(text.lang for text in row.texts)) if word is not None]
        media = (*row.images, *row.audios, *row.videos, *(part for part in said if isinstance(part, Media)))
        files = [str(medium.path) for medium in media if medium.path is not None]
        odd = next((word for word in words if not isinstance(word, str)), None)
        if odd is not None:
            job.drop(where, f"{str(odd)[:60]!r} is of type {type(odd).__name__}, where text belongs")
        elif any(_printable(name) != name for name in files):
            job.drop(where, "its file name is not in UTF-8 (a Chinese Windows archive?): rename it, for example with convmv -f gbk -t utf8")
        elif any(_printable(word) != word for word in words):
            job.drop(where, "its text is damaged (half a character)")
        else:
            yield where, row


def _printable(word: str) -> str:
    """The word with what no file can hold (lone surrogates) written as escapes."""
    return word.encode("utf-8", errors="backslashreplace").decode()


def unique_ids(rows: Iterable[Located], job: Reading) -> Iterator[Located]:
    """Repeated ids get `~2`, `~3`, …, and are reported: results and splits name rows by id."""
    seen: set[str] = set()
    repeated: list[str] = []
    for where, row in rows:
        if row.id in seen:
            repeated.append(row.id)
            number = 2
            while f"{row.id}~{number}" in seen:
                number += 1
            row = row.with_(id=f"{row.id}~{number}")
        seen.add(row.id)
        yield where, row
    if repeated:
        some = ", ".join(list(dict.fromkeys(repeated))[:3])
        job.note(f"{len(repeated)} repeated ids were made unique by a number after them, for example {some}")


class Finder:
    """Finds the file that a table means, although it was written on another computer.

    Tried in turn: the path as it is; from the table's directory; with Windows' backslashes and without its drive; ever
    shorter tails of it; the bare name anywhere below the directory, if it is the only one; the same without an ending.
    A folder that is there is believed: a file missing from it is missing, whatever has the same name elsewhere.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self._files: dict[str, list[Path]] | None = None
        self._folders: set[tuple[str, ...]] = set()
        self._moved = 0
        self._example = ""

    def find(self, text: str) -> Path | str:
        """The file, or the reason why there is none."""
        if "\0" in text or len(text) > 4000:
            return "not a path"
        parts = [part for part in PureWindowsPath(text).parts if part not in (".", "/", "\\")]
        if parts and (parts[0].endswith((":", ":\\", ":/")) or parts[0].startswith("\\\\")):
            parts = parts[1:]
        if not parts:
            return "not a path"
        for candidate in (self.base / text, self.base / "/".join(parts)):
            if _is_file(candidate):
                return candidate
        found = self._elsewhere(parts[:-1], parts[-1])
        if isinstance(found, Path) and _keys(found.relative_to(self.base).parts[:-1]) != _keys(parts[:-1]):
            self._moved += 1
            self._example = self._example or f"{text[:200]!r} as {found.relative_to(self.base).as_posix()}"
        return found

    def report(self, job: Reading) -> None:
        """Note the files that were found in another folder than the one named: it may be a mistake."""
        if self._moved:
            count = f"{self._moved:,} picture{'s were' if self._moved > 1 else ' was'}"
            job.note(f"{count} found by the name alone or the end of the path, for example {self._example}")

    def _elsewhere(self, folder: Sequence[str], name: str) -> Path | str:
        """By ever shorter tails of the folder, up to the first that is there, else by the bare name."""
        if self._files is None:
            self._files, self._folders = _index(self.base)
        found = self._files.get(_key(name), [])
        for start in range(len(folder) + 1):
            place, tail = self.base.joinpath(*folder[start:]), _keys(folder[start:])
            if _is_file(place / name):
                return place / name
            if {*tail} - {".."} and (tail in self._folders or _is_folder(place)):
                found = [file for file in found if _keys(file.relative_to(self.base).parts[:-1])[-len(tail) :] == tail]
                break
        if len(found) == 1:
            return found[0]
        return "no such file" if not found else f"no such file there, and {len(found)} of this name elsewhere"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # a name longer than the file system allows


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _key(name: str) -> str:
    """One key for the spellings of a name: macOS decomposes accents, Windows ignores case."""
    return unicodedata.normalize("NFC", name).casefold()


def _keys(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(_key, names))


def _index(base: Path) -> tuple[dict[str, list[Path]], set[tuple[str, ...]]]:
    """The pictures below a directory by the key of their name, with and without its ending, and the keys of every tail of their folders."""
    files: dict[str, list[Path]] = {}
    folders: set[tuple[str, ...]] = set()
    for file in islice(walk(base), _INDEX_LIMIT):
        if is_picture_name(file):
            for key in {_key(file.name), _key(file.stem)}:
                files.setdefault(key, []).append(file)
            names = _keys(file.relative_to(base).parts[:-1])
            if names not in folders:
                folders |= {names[start:end] for end in range(1, len(names) + 1) for start in range(end)}
    return files, folders


def walk(base: Path) -> Iterator[Path]:
    """Every visible file below a directory, in a fixed order; archives' `__MACOSX` and hidden directories are left out."""
    for directory, names, files in os.walk(base):
        names[:] = sorted(name for name in names if not name.startswith(".") and name != "__MACOSX")
        yield from (Path(directory, name) for name in sorted(files) if not name.startswith(".") and name != "Thumbs.db")


def natural(path: Path) -> list[tuple[int, str]]:
    """Sorting key that puts `10.jpg` after `9.jpg`."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"([0-9]+)", path.as_posix())]
