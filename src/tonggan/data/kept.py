"""Media by their content: keys that are the same on every machine, and what was prepared kept under them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tonggan.data.media import content_bytes, moment_bytes
from tonggan.tensors import Frames, Tiles
from tonggan.types import Media

CACHE_BYTES = 2 * 1024**3
NAMES: Mapping[str, str] = {"image": "picture", "text": "caption", "audio": "sound", "video": "clip"}


def media_key(part: Media) -> int:
    """Equal for handles on one file, or on the same embedded bytes, and the same moment of it. All the bytes count: drawings on white begin
    alike."""
    name = NAMES[part.kind]
    if part.path is not None:
        return stable_hash(f"{name}\0{part.path}".encode("utf-8", "surrogatepass") + moment_bytes(part))
    return stable_hash(f"{name}\0".encode() + content_bytes(part))


def stable_hash(value: str | bytes) -> int:
    """63 bits that are the same on every machine and in every process; never 0."""
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return (int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1) | 1


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What is made of one medium, the ids that stand for it, and of what the pieces are, where that matters."""

    arrays: tuple[np.ndarray, ...]
    ids: tuple[int, ...] = ()
    cut: Tiles | Frames | None = None


class Kept:
    """Media as they were prepared, by their content: what many lessons are about is decoded once. Several threads may use it.

    Of at most `room` bytes; what finds no room is prepared each time.
    """

    def __init__(self, room: int = CACHE_BYTES) -> None:
        self._room = room
        self._known: dict[tuple[int, bool], Prepared] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Whether anything is kept."""
        return bool(self._known)

    def __call__(self, part: Media, prepare: Callable[[], Prepared], *, alone: bool = True) -> Prepared:
        """What `prepare` makes of a medium, alone in its conversation or not."""
        key = media_key(part), alone
        if (known := self._known.get(key)) is not None:
            return known
        made = prepare()
        size = sum(one.nbytes for one in made.arrays)
        with self._lock:
            if key not in self._known and size <= self._room:
                self._room -= size
                self._known[key] = made
        return made
