"""A fixed number of learned queries read a sequence: attention pooling with one query, a Perceiver resampler with several.

Shape letters: B rows, T positions, D width, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tonggan.nn.activations import Activation
from tonggan.nn.attention import Attention
from tonggan.nn.transformer import FeedForward
from tonggan.tensors import Mask


class Reading(nn.Module):
    """Queries attend to a source, then pass a feed-forward.

    With a `norm` they are normalised before they attend, and what they read is added to them; without one it takes their place.
    """

    def __init__(self, attention: Attention, feed_forward: nn.Module, norm: nn.Module | None, norm2: nn.Module) -> None:
        super().__init__()
        self.attention, self.feed_forward, self.norm, self.norm2 = attention, feed_forward, norm, norm2

    def forward(self, state: Float[Tensor, "B Q D"], source: Float[Tensor, "B T D"], *, mask: Mask | None = None) -> Float[Tensor, "B Q D"]:
        if self.norm is None:
            state = self.attention(state, context=source, mask=mask)
        else:
            state = state + self.attention(self.norm(state), context=source, mask=mask)
        return state + self.feed_forward(self.norm2(state))


class Resampler(nn.Module):
    """Learned queries go through layers that read one input; `norm` is applied to that input first."""

    def __init__(self, queries: int, width: int, layers: Sequence[Reading], norm: nn.Module) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * width**-0.5)
        self.norm_input = norm
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None) -> Float[Tensor, "B Q D"]:
        """What the queries read; `mask` says which positions are padding."""
        source = self.norm_input(x)
        state = self.queries.expand(len(x), -1, -1)
        for layer in self.layers:
            state = layer(state, source, mask=mask)
        return state


def perceiver(width: int, heads: int, queries: int = 1, layers: int = 1, *, inner: int | None = None, eps: float = 1e-5) -> Resampler:
    """Queries attend to the normalised input alone (Jaegle et al. 2021, section 3.1); Flamingo's also attend to themselves."""

    def norm() -> nn.LayerNorm:
        return nn.LayerNorm(width, eps=eps)

    made = [Reading(Attention(width, heads), FeedForward(width, inner or 4 * width), norm(), norm()) for _ in range(layers)]
    return Resampler(queries, width, made, norm())


def attention_pool(width: int, heads: int, inner: int, *, act: Activation = "gelu", eps: float = 1e-5) -> Resampler:
    """One query reads the input as it is (Lee et al. 2019, section 3.2), in the form of SigLIP's head (Zhai et al. 2022, MAP)."""
    reading = Reading(Attention(width, heads), FeedForward(width, inner, act), None, nn.LayerNorm(width, eps=eps))
    return Resampler(1, width, [reading], nn.Identity())
