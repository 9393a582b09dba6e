"""Keys and values of what has been read, so that the next token costs one token (Pope et al. 2022, section 3).

Shape letters: B rows, G heads of keys and values, T new tokens, R room, E width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tonggan.tensors import Mask
from tonggan.types import UsageError

AHEAD = 64
"""Positions that memory is taken for beyond what is asked."""


class KVCache:
    """Keys and values of every layer, and how many positions each row has filled.

    A chunk of new tokens is written behind what each row has; the key at index i stands at position i. A chunk may be padded on the right:
    what was written there is overwritten by the next one, and seen by nobody before. Whoever generates calls `advance` after each chunk.
    Memory is taken ahead and doubled when it is full, up to `room` positions: an answer may be long, most are not.
    """

    def __init__(self, layers: int, room: int) -> None:
        self.room = room
        self.filled: list[int] = []
        """Positions of each row; none before the first chunk."""
        self._places: tuple[list[int], Tensor] = ([], torch.empty(0, 0))
        self.layers = [LayerCache(self, Memory()) for _ in range(layers)]

    @property
    def most(self) -> int:
        """Positions of the longest row."""
        return max(self.filled, default=0)

    @property
    def even(self) -> bool:
        """Whether all rows have filled as many."""
        return len(set(self.filled)) <= 1

    def lengths(self, device: torch.device | str) -> Int[Tensor, " B"]:
        """`filled` as a tensor."""
        return torch.tensor(self.filled, device=device)

    def mask(self, new: int, device: torch.device) -> Mask | None:
        """What each query of a chunk of `new` tokens may see: what stands before it, and itself."""
        if not self.most:
            return Mask(causal=True)
        if new == 1 and self.even:
            return None  # every key there is
        return Mask(causal=True, offset=self.lengths(device))

    def positions(self, rows: int, new: int, device: torch.device) -> Int[Tensor, "rows T"]:
        """Where the tokens of a chunk stand."""
        filled, places = self._places
        if filled is not self.filled or places.shape != (rows, new) or places.device != device:  # once for all layers
            begun = self.lengths(device)[:, None] if self.filled else torch.zeros(rows, 1, dtype=torch.long, device=device)
            self._places = self.filled, begun + torch.arange(new, device=device)
        return self._places[1]

    def advance(self, counts: Sequence[int]) -> None:
        """Count a chunk that every layer has stored: so many tokens of each row are its own, the rest were padding."""
        self.filled = [a + b for a, b in zip(self.filled or [0] * len(counts), counts, strict=True)]

    def parts(self, counts: Sequence[int]) -> Iterator[KVCache]:
        """Its rows in runs of so many, each to be filled by itself: chunks of like length are read together. What they have filled is
        the whole's once all have been given."""
        filled: list[int] = []
        for first, count in zip((sum(counts[:number]) for number in range(len(counts))), counts, strict=True):
            rows, part = slice(first, first + count), KVCache(0, self.room)
            part.filled = self.filled[rows]
            part.layers = [LayerCache(part, layer.memory, rows, sum(counts)) for layer in self.layers]
            yield part
            filled += part.filled
        self.filled = filled

    def keep(self, rows: Sequence[int]) -> None:
        """Let go of all rows but these, which take its first places in this order; those that are there already are not touched."""
        for layer in self.layers:
            layer.memory.keep(rows, self.most)
        self.filled = [self.filled[row] for row in rows]

    def select(self, rows: Sequence[int], *, room: int | None = None) -> KVCache:
        """A cache of these rows, in this order; a row may come more than once (beams, samples, questions on one picture). It has the same
        room unless another is asked for."""
        chosen = KVCache(len(self.layers), room or self.room)
        chosen.filled = [self.filled[row] for row in rows]
        for mine, theirs in zip(self.layers, chosen.layers, strict=True):
            theirs.memory.copy([(mine.memory, rows)], chosen.most, chosen.room)
        return chosen

    @staticmethod
    def join(some: Sequence[KVCache], room: int) -> KVCache:
        """A cache of the rows of several, one after the other; the same one may come more than once."""
        joined = KVCache(len(some[0].layers), room)
        joined.filled = [positions for one in some for positions in one.filled]
        for number, layer in enumerate(joined.layers):
            own = [(one.layers[number].memory, range(len(one.filled))) for one in some]
            layer.memory.copy(own, joined.most, room)
        return joined


class LayerCache:
    """One layer's part (`nn.attention.Cache`): of all rows in its memory, or of some, where it has to know how many there are."""

    def __init__(self, whole: KVCache, memory: Memory, rows: slice = slice(None), of: int | None = None) -> None:
        self._whole, self.memory, self._rows, self._of = whole, memory, rows, of

    def extend(self, keys: Float[Tensor, "B G T E"], values: Float[Tensor, "B G T E"]) -> tuple[Tensor, Tensor]:
        """Store a chunk; give all keys and values up to the longest row's end, as views."""
        whole, new = self._whole, keys.shape[2]
        end = whole.most + new
        if end > whole.room:
            raise UsageError(f"{end} positions are needed, there is room for {whole.room}: ask for fewer tokens, or give more room")
        of_all = self.memory.reserve((keys, values), len(keys) if self._of is None else self._of, end, whole.room)
        mine_k, mine_v = (some[self._rows] for some in of_all)
        if whole.even:
            mine_k[:, :, whole.most : end], mine_v[:, :, whole.most : end] = keys, values
        else:
            rows = torch.arange(len(keys), device=keys.device)[:, None]
            places = whole.positions(len(keys), new, keys.device)
            mine_k[rows, :, places], mine_v[rows, :, places] = keys.transpose(1, 2), values.transpose(1, 2)
        return mine_k[:, :, :end], mine_v[:, :, :end]


class Memory:
    """Where keys and values of one layer lie, each [B, G, R, E]; nowhere at first."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, ...] = ()

    def reserve(self, like: Sequence[Tensor], rows: int, end: int, most: int) -> tuple[Tensor, ...]:
        """Keys and values with place for `end` positions: what there is, or twice as much; never for more than `most`."""
        had = self._kept[0].shape[2] if self._kept else 0
        if end > had:
            room = min(most, max(2 * had, end + AHEAD))
            self._kept, old = tuple(new_room(some, rows, had, room) for some in like), self._kept
            for to, some in zip(self._kept, old, strict=bool(old)):
                to[:, :, :had] = some
        return self._kept

    def copy(self, some: Sequence[tuple[Memory, Sequence[int]]], filled: int, most: int) -> None:
        """Take these rows of others, one after the other, as far as any of them is filled."""
        if not (like := some[0][0]._kept):
            return
        ends = [min(filled, memory._kept[0].shape[2]) for memory, _ in some]
        self._kept = tuple(new_room(one, sum(len(rows) for _, rows in some), min(ends), min(most, filled + AHEAD)) for one in like)
        first = 0
        for (memory, rows), end in zip(some, ends, strict=True):
            index = torch.tensor(rows, device=like[0].device)
            for to, one in zip(self._kept, memory._kept, strict=True):
                to[first : first + len(rows), :, :end] = one[:, :, :end].index_select(0, index)
            first += len(rows)

    def keep(self, rows: Sequence[int], filled: int) -> None:
        """Put these rows in the first places."""
        moved = [(to, row) for to, row in enumerate(rows) if to != row]
        if moved and self._kept:
            to, source = torch.tensor(moved, device=self._kept[0].device).T
            for some in self._kept:
                some[to, :, :filled] = some[source, :, :filled]
        self._kept = tuple(some[: len(rows)] for some in self._kept)


def new_room(like: Float[Tensor, "B G T E"], rows: int, filled: int, room: int) -> Float[Tensor, "rows G R E"]:
    """Room of which the first positions will be filled. The others are zeros, not what the memory held: a value of a masked key counts
    nothing only as long as it is finite."""
    made = like.new_empty(rows, like.shape[1], room, like.shape[3])
    made[:, :, filled:] = 0
    return made
