"""What several questions on one picture have in common, computed once (Zheng et al. 2024, SGLang, section 3, in small)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from tonggan.nn.cache import KVCache
from tonggan.nn.talking import Seen


@dataclass(frozen=True, slots=True)
class Shared:
    """Says that a row begins as others do: `length` tokens, and all its media among them, are those of every row with this `key`."""

    key: str
    length: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A prefix, of one row: its keys and values, and what was seen for it."""

    cache: KVCache
    seen: Seen | None

    @staticmethod
    def of_rows(some: Sequence[Kept], rows: Sequence[int], room: int) -> tuple[Seen | None, KVCache]:
        """For each row what it begins with, which is one of these."""
        # A cache of each row's own, to be written behind; what was seen is only looked at.
        seen = some[0].seen and some[0].seen.join([one.seen for one in some[1:]]).select(rows)
        return seen, KVCache.join([some[row].cache for row in rows], room)


class Prefixes:
    """The last few prefixes by their keys. Whoever gives a key answers for it: same key, same model, same tokens, same media."""

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def get(self, key: str) -> Kept | None:
        """What is kept under a key, which is then the youngest."""
        if (found := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: str, kept: Kept) -> None:
        """Keep a prefix; the eldest goes."""
        self._kept[key] = kept
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
