"""Writing a format: everything is made beside its place and moved there when it is whole, so that a failure leaves nothing half-made."""

from __future__ import annotations

import itertools
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tonggan.data.media import is_picture_name, read_bytes, sniff
from tonggan.types import Dropped, Media


class Losses(list[str]):
    """What a format could not hold, one line each, for example `split: 120 rows`."""

    def __init__(self, lines: Iterable[str] = (), dropped: Iterable[Dropped] = ()) -> None:
        super().__init__(lines)
        self.dropped = tuple(dropped)
        """Rows that it could not hold at all: their ids, and why."""


@dataclass(frozen=True, slots=True)
class Writing:
    """One writing: where the result will stand, and the directory beside it in which everything is made until it is whole."""

    path: Path
    work: Path

    @property
    def place(self) -> Path:
        """Where to write the result; whatever it refers to is named from `path`."""
        return self.work / self.path.name

    def picture(self, media: Media, name: str) -> str:
        """How the result names a picture: its own file if it has one, else its bytes, stored in a folder beside the result."""
        return reference(media.path or self.store(media, name, Path(f"{self.path.stem}_pictures")), self.path)

    def store(self, media: Media, name: str, folder: Path) -> Path:
        """The file that a picture's bytes will stand in: in `folder` (seen from the result's directory), under a safe form of `name`."""
        data = read_bytes(media)
        made, final = self.work / folder, self.path.parent / folder
        made.mkdir(parents=True, exist_ok=True)
        stem, suffix = safe_name(name), sniff(data[:1024]) or ".bin"
        for number in itertools.count(1):
            file = f"{stem}{suffix}" if number == 1 else f"{stem}~{number}{suffix}"
            if all(not (place / file).exists() or (place / file).read_bytes() == data for place in (made, final)):
                (made / file).write_bytes(data)
                return final / file
        raise AssertionError("unreachable")


@contextmanager
def writing(path: Path) -> Iterator[Writing]:
    """A writing whose files are moved to their places when the block ends well, and thrown away when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name[:50]}-", dir=path.parent))
    try:
        yield Writing(path, work)
        for made in sorted(work.iterdir(), key=lambda made: made.name == path.name):  # pictures before the table that names them
            _put(made, path.parent / made.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _put(made: Path, target: Path) -> None:
    """Move into place; a directory that is there already takes the new files in."""
    if made.is_dir() and target.is_dir():
        for inner in sorted(made.iterdir(), key=Path.is_file):
            _put(inner, target / inner.name)
    else:
        made.replace(target)


def safe_name(name: str) -> str:
    """An id as a file name: separators and what Windows forbids become `_`, an ending that names a picture type goes."""
    stem = name[: -len(Path(name).suffix)] if is_picture_name(name) else name
    plain = re.sub(r'[\\/:*?"<>|\x00-\x1f.]+', "_", stem).strip(" _")
    return plain.encode()[:150].decode(errors="ignore") or "picture"


def reference(file: Path, table: Path) -> str:
    """How a table names a picture: from its own directory when it lies below it, else by its whole path."""
    whole, base = file.absolute(), table.absolute().parent
    return whole.relative_to(base).as_posix() if whole.is_relative_to(base) else whole.as_posix()
