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


class JointReading(nn.Module):
    """Queries attend to a source and to themselves at once, each under its own norm (Alayrac et al. 2022, section 2.1 and figure 5)."""

    def __init__(self, attention: Attention, feed_forward: nn.Module, norm_source: nn.Module, norm: nn.Module, norm2: nn.Module) -> None:
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.norm_source, self.norm, self.norm2 = norm_source, norm, norm2

    def forward(self, state: Float[Tensor, "B Q D"], source: Float[Tensor, "B T D"], *, mask: Mask | None = None) -> Float[Tensor, "B Q D"]:
        if mask is not None:
            raise ValueError("queries that read themselves as well know no padding: give inputs of one length without a mask")
        asking = self.norm(state)
        state = state + self.attention(asking, context=torch.cat([self.norm_source(source), asking], dim=1))
        return state + self.feed_forward(self.norm2(state))


class Resampler(nn.Module):
    """Learned queries go through layers that read one input; `norm` is applied to that input first, `norm_out` to what they have read."""

    def __init__(
        self, queries: int, width: int, layers: Sequence[Reading | JointReading], norm: nn.Module, norm_out: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * width**-0.5)
        self.norm_input = norm
        self.layers = nn.ModuleList(layers)
        self.norm_out = norm_out or nn.Identity()

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None) -> Float[Tensor, "B Q D"]:
        """What the queries read; `mask` says which positions are padding."""
        source = self.norm_input(x)
        state = self.queries.expand(len(x), -1, -1)
        for layer in self.layers:
            state = layer(state, source, mask=mask)
        return self.norm_out(state)


def perceiver(width: int, heads: int, queries: int = 1, layers: int = 1, *, inner: int | None = None, eps: float = 1e-5) -> Resampler:
    """Queries attend to the normalised input alone (Jaegle et al. 2021, section 3.1); Flamingo's also attend to themselves."""

    def norm() -> nn.LayerNorm:
        return nn.LayerNorm(width, eps=eps)

    made = [Reading(Attention(width, heads), FeedForward(width, inner or 4 * width), norm(), norm()) for _ in range(layers)]
    return Resampler(queries, width, made, norm())


def joint_perceiver(
    width: int, heads: int, queries: int, layers: int, *, head_width: int | None = None, qk_norm: bool = False
) -> Resampler:
    """Flamingo's (Alayrac et al. 2022, section 2.1), in the form of Idefics: no biases but in norms, ReLU, a norm behind the last layer."""

    def layer() -> JointReading:
        of_head = head_width or width // heads
        norms = (nn.LayerNorm(of_head), nn.LayerNorm(of_head)) if qk_norm else None
        attention = Attention(width, heads, head_width=head_width, linear_bias=False, qk_norms=norms)
        feed_forward = FeedForward(width, 4 * width, "relu", bias=False)
        return JointReading(attention, feed_forward, nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width))

    return Resampler(queries, width, [layer() for _ in range(layers)], nn.Identity(), nn.LayerNorm(width))


def attention_pool(width: int, heads: int, inner: int, *, act: Activation = "gelu", eps: float = 1e-5) -> Resampler:
    """One query reads the input as it is (Lee et al. 2019, section 3.2), in the form of SigLIP's head (Zhai et al. 2022, MAP)."""
    reading = Reading(Attention(width, heads), FeedForward(width, inner, act), None, nn.LayerNorm(width, eps=eps))
    return Resampler(1, width, [reading], nn.Identity())
