"""Keys and values of what has been read, so that the next token costs one token (Pope et al. 2022, section 3).

Shape letters: B rows, G heads of keys and values, T new tokens, R room, E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tonggan.tensors import Mask
from tonggan.types import UsageError


class KVCache:
    """Keys and values of every layer, preallocated, and how many positions each row has filled.

    A chunk of new tokens is written behind what each row has; the key at index i stands at position i. A chunk may be padded on the right:
    what was written there is overwritten by the next one, and seen by nobody before. Whoever generates calls `advance` after each chunk.
    """

    def __init__(self, layers: int, room: int) -> None:
        self.room = room
        self.filled: list[int] = []
        """Positions of each row; none before the first chunk."""
        self.layers = [LayerCache(self) for _ in range(layers)]

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
        begun = self.lengths(device)[:, None] if self.filled else torch.zeros(rows, 1, dtype=torch.long, device=device)
        return begun + torch.arange(new, device=device)

    def advance(self, counts: Sequence[int]) -> None:
        """Count a chunk that every layer has stored: so many tokens of each row are its own, the rest were padding."""
        self.filled = [a + b for a, b in zip(self.filled or [0] * len(counts), counts, strict=True)]

    def select(self, rows: Sequence[int], *, room: int | None = None) -> KVCache:
        """A cache of these rows, in this order; a row may come more than once (beams, samples, questions on one picture). It has the same
        room unless another is asked for."""
        chosen = KVCache(len(self.layers), room or self.room)
        chosen.filled = [self.filled[row] for row in rows]
        for mine, theirs in zip(self.layers, chosen.layers, strict=True):
            mine.copy(rows, theirs, chosen.most)
        return chosen


class LayerCache:
    """One layer's part (`nn.attention.Cache`)."""

    def __init__(self, whole: KVCache) -> None:
        self._whole = whole
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extend(self, keys: Float[Tensor, "B G T E"], values: Float[Tensor, "B G T E"]) -> tuple[Tensor, Tensor]:
        """Store a chunk; give all keys and values up to the longest row's end, as views."""
        whole, new = self._whole, keys.shape[2]
        end = whole.most + new
        if end > whole.room:
            raise UsageError(f"{end} positions are needed, there is room for {whole.room}: ask for fewer tokens, or give more room")
        if self._keys is None or self._values is None:
            self._keys, self._values = (new_room(some, whole.room) for some in (keys, values))
        if whole.even:
            self._keys[:, :, whole.most : end], self._values[:, :, whole.most : end] = keys, values
        else:
            rows = torch.arange(len(keys), device=keys.device)[:, None]
            places = whole.positions(len(keys), new, keys.device)
            self._keys[rows, :, places], self._values[rows, :, places] = keys.transpose(1, 2), values.transpose(1, 2)
        return self._keys[:, :, :end], self._values[:, :, :end]

    def copy(self, rows: Sequence[int], other: LayerCache, most: int) -> None:
        """Give these rows to another cache, as far as any of them is filled."""
        if self._keys is None or self._values is None:
            return
        index = torch.tensor(rows, device=self._keys.device)
        kept = [some[:, :, :most].index_select(0, index) for some in (self._keys, self._values)]
        other._keys, other._values = (new_room(some, other._whole.room) for some in kept)
        other._keys[:, :, :most], other._values[:, :, :most] = kept


def new_room(like: Float[Tensor, "B G T E"], room: int) -> Float[Tensor, "B G R E"]:
    """Zeros, not what the memory held: a value of a masked key counts nothing only as long as it is finite."""
    return like.new_zeros(*like.shape[:2], room, like.shape[3])
