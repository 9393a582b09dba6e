"""What saying words one after another asks of a system, whatever it has read before: the seam between models and `generate`.

Shape letters: B rows, L tokens, D width, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tonggan.nn.cache import KVCache
from tonggan.tensors import Batch, Mask, Tokens


class Seen(Protocol):
    """What a system keeps of all that is not said word by word: features of pictures, an encoder's states. Computed once per input."""

    def select(self, rows: Sequence[int]) -> Self:
        """Of these rows, in this order; a row may come more than once."""
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


def words(talker: Talker, states: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
    """Logits over the vocabulary."""
    weight, bias = talker.output
    return F.linear(states, weight, bias)


def standing(tokens: Tokens, cache: KVCache | None) -> tuple[Mask | None, Int[Tensor, "B L"] | None]:
    """How a causal stack sees a chunk: its mask, and where its tokens stand (None: counted from 0).

    Padding on the right needs no mask, being behind all that is asked. On the left (input of others; without a cache only) it is hidden,
    and positions are counted from each row's first token.
    """
    rows, length = tokens.ids.shape
    if cache is not None:
        return cache.mask(length, tokens.device), cache.positions(rows, length, tokens.device)
    if tokens.starts is None:
        return Mask(causal=True), None
    at = torch.arange(length, device=tokens.device) - tokens.starts[:, None]
    return Mask(causal=True, starts=tokens.starts), at.clamp(min=0)
