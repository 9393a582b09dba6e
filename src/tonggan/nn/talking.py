"""What saying words one after another asks of a system, whatever it has read before: the seam between models and `generate`.

Shape letters: B rows, L tokens, D width, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tonggan.nn.attention import KeysValues
from tonggan.nn.cache import KVCache
from tonggan.tensors import Batch, Mask, Tokens
from tonggan.types import UsageError


@runtime_checkable
class Seen(Protocol):
    """What a system keeps of all that is not said word by word: features of pictures, an encoder's states. Computed once per input."""

    def select(self, rows: Sequence[int]) -> Seen:
        """Of these rows, in this order; a row may come more than once."""
        ...

    def join(self, others: Sequence[Any]) -> Seen:
        """Of these rows, and behind them those of others, which the same system has seen."""
        ...


@runtime_checkable
class Talker(Protocol):
    """Says words one after another, from what it has read.

    `read` once, then `say` in chunks with a cache, or all at once without (training). In a decoder alone the prompt is said too: what
    pictures and sounds make stands at their placeholders. An encoder-decoder reads its prompt, and says its answer from a start token on.
    """

    @property
    def context(self) -> int:
        """Most positions of what is said."""
        ...

    @property
    def reads_prompt(self) -> bool:
        """Whether the prompt is read (`batch.source`, by an encoder) rather than said."""
        ...

    def read(self, batch: Batch) -> Seen | None:
        """What is kept of a batch's pictures, sounds, clips and source text; None where there is nothing."""
        ...

    def say(self, tokens: Tokens, seen: Seen | None = None, *, cache: KVCache | None = None) -> Float[Tensor, "B L D"]:
        """States that tell the next word: `words(states)`. With a `cache` the tokens go on behind what it has."""
        ...

    @property
    def output(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, " V"] | None]:
        """Weight and bias of the map from states to words."""
        ...

    def cache(self, room: int) -> KVCache:
        """An empty cache for so many positions."""
        ...


@dataclass(frozen=True, slots=True)
class Remembered:
    """What an encoder made of its input, as the keys and values of every block that attends to it."""

    memory: tuple[KeysValues | None, ...]
    lengths: Tensor | None = None
    """Int[B]: behind them is padding; None: nowhere."""

    @property
    def mask(self) -> Mask | None:
        """What a word may see of it."""
        return None if self.lengths is None else Mask(lengths=self.lengths)

    def select(self, rows: Sequence[int]) -> Remembered:
        """Of these rows."""
        index = torch.tensor(rows)
        lengths = None if self.lengths is None else self.lengths[index.to(self.lengths.device)]
        return Remembered(tuple(part and part.select(index.to(part.keys.device)) for part in self.memory), lengths)

    def join(self, others: Sequence[Remembered]) -> Remembered:
        """Of these rows and those of others."""
        some = [self, *others]
        sizes = {part.keys.shape[2] for one in some for part in one.memory if part is not None}
        if any(one.lengths is None for one in some) and (len(sizes) > 1 or any(one.lengths is not None for one in some)):
            raise ValueError("what was read without lengths can only be joined to its like, of the same size")
        lengths = None if self.lengths is None else torch.cat([one.lengths for one in some if one.lengths is not None])
        memory = zip(*(one.memory for one in some), strict=True)
        return Remembered(tuple(parts[0] and parts[0].join(parts[1:]) for parts in memory), lengths)


def words(talker: Talker, states: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
    """Logits over the vocabulary."""
    weight, bias = talker.output
    return F.linear(states, weight, bias)


def standing(
    tokens: Tokens, cache: KVCache | None, *, packs: bool = False, places: int | None = None
) -> tuple[Mask | None, Int[Tensor, "B L"] | None]:
    """How a causal stack sees a chunk: its mask, and where its tokens stand (None: counted from 0).

    Padding on the right needs no mask, being behind all that is asked. On the left (input of others; without a cache only) it is hidden,
    and positions are counted from each row's first token. Texts packed into one row see nothing of each other, and each counts from 0:
    for systems that say so (`packs`), in which all that is seen stands among the words. Others, and a cache, raise `UsageError`. So does a
    token that stands behind the last of so many `places`, where each has a learned vector.
    """
    rows, length = tokens.ids.shape
    if places is not None and (farthest := _farthest(tokens, cache)) > places:
        raise UsageError(f"{farthest} positions were asked for, the table has {places}; shorten the text")
    if tokens.segments is not None:
        if cache is not None or not packs:
            why = "a cache has one text per row" if packs else "this system looks at what was read, which is a whole row's"
            raise UsageError(f"several texts are packed into a row, but {why}; give each a row of its own")
        return Mask(causal=True, segments=(tokens.segments, tokens.segments)), _within(tokens.segments)
    if cache is not None:
        return cache.mask(length, tokens.device), cache.positions(rows, length, tokens.device)
    if tokens.starts is None:
        return Mask(causal=True), None
    at = torch.arange(length, device=tokens.device) - tokens.starts[:, None]
    return Mask(causal=True, starts=tokens.starts), at.clamp(min=0)


def _farthest(tokens: Tokens, cache: KVCache | None) -> int:
    """How many positions the tokens reach to, of the row that reaches farthest."""
    length = tokens.ids.shape[1]
    if cache is not None:
        if length == 1:  # the step of a generation, which must not wait for a device
            return cache.most + 1
        lengths = tokens.lengths.tolist()
        return max((a + b for a, b in zip(cache.filled or [0] * len(lengths), lengths, strict=True)), default=0)
    if tokens.segments is not None:
        return int(_within(tokens.segments).max()) + 1
    return length if tokens.starts is None else int((tokens.lengths - tokens.starts).max())


def _within(segments: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """Places counted from the beginning of each run."""
    at = torch.arange(segments.shape[1], device=segments.device).expand(len(segments), -1)
    begins = F.pad(segments[:, 1:] != segments[:, :-1], (1, 0), value=True)
    return at - torch.where(begins, at, 0).cummax(dim=1).values
