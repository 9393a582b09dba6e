"""Clips: a folder of them, or one file. Words stand in `NAME.txt` beside `NAME.mp4`, a caption a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tonggan.data.formats.base import Located, Reading, natural, normal_split, walk
from tonggan.data.formats.delimited import read_text
from tonggan.data.language import language_of
from tonggan.types import Row, Text, TongganError, Video

CLIP_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv"})
ANIMATED = frozenset({".gif", ".webp", ".apng"})
"""Taken for clips where they are named themselves; in a folder they are pictures."""


def is_clip_name(name: str | Path) -> bool:
    """Whether a file's name says that it is a clip."""
    path = Path(name)
    return path.suffix.lower() in CLIP_SUFFIXES and not path.name.startswith(".")


def read_clips(job: Reading) -> Iterator[Located]:
    """A row for each clip, named by its file; a first folder called train, val or test is its split."""
    files = [job.path] if job.path.is_file() else sorted(filter(is_clip_name, walk(job.path)), key=natural)
    if not files:
        raise TongganError(f"{job.path}: no clips in this folder")
    for file in files:
        name = file.relative_to(job.base)
        split = normal_split(name.parts[0]) if len(name.parts) > 1 else None
        split = split if split in ("train", "val", "test") else None
        yield name.as_posix(), Row(id=name.as_posix(), videos=(Video(path=file),), texts=tuple(_texts(file, job)), split=split)


def _texts(file: Path, job: Reading) -> Iterator[Text]:
    beside = file.with_suffix(".txt")
    if beside.is_file():
        for line in filter(None, map(str.strip, read_text(beside, job.encoding)[0].splitlines())):
            yield Text(line, job.text_lang if isinstance(job.text_lang, str) else language_of(line))
