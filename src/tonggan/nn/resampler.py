"""A fixed number of learned queries read a sequence: attention pooling with one query, a Perceiver resampler with several.

Shape letters: B rows, T positions, D width, Q queries.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tonggan.nn.attention import Attention
from tonggan.nn.transformer import FeedForward
from tonggan.tensors import Mask


class Resampler(nn.Module):
    """Learned queries attend to the input, then pass a feed-forward, `layers` times (Jaegle et al. 2021, section 3.1).

    With one query and one layer it is attention pooling (Lee et al. 2019). Queries attend to the input alone, as in the Perceiver;
    Flamingo's also attend to themselves, and SigLIP's head has neither the first norm nor the first residual.
    """

    def __init__(self, width: int, heads: int, queries: int = 1, layers: int = 1, *, inner: int | None = None, eps: float = 1e-5) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * width**-0.5)
        self.norm_input = nn.LayerNorm(width, eps=eps)
        self.attentions = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=eps) for _ in range(layers))
        self.feed_forwards = nn.ModuleList(FeedForward(width, inner or 4 * width) for _ in range(layers))
        self.norms2 = nn.ModuleList(nn.LayerNorm(width, eps=eps) for _ in range(layers))

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None) -> Float[Tensor, "B Q D"]:
        """What the queries read; `mask` says which positions are padding."""
        source = self.norm_input(x)
        state = self.queries.expand(len(x), -1, -1)
        for attention, norm, feed_forward, norm2 in zip(self.attentions, self.norms, self.feed_forwards, self.norms2, strict=True):
            state = state + attention(norm(state), context=source, mask=mask)
            state = state + feed_forward(norm2(state))
        return state
