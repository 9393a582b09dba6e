"""The one attention of the house, and the one place where a `Mask` becomes what a kernel wants.

Shape letters: B rows, Tq queries, Tk keys, D width, H heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tonggan.tensors import Mask

Bias: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Additive bias: (query positions [Tq], key positions [Tk]) -> [H, Tq, Tk]."""


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2).

    softmax(Q Kᵀ / √E) V per head, heads concatenated and projected. Queries come from `x`; keys and values from `context`
    (cross-attention, of width `context_width`) or from `x`. q, k and v are separate so that each can be replaced or adapted.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        context_width: int | None = None,
        head_width: int | None = None,
        out_width: int | None = None,
        linear_bias: bool = True,
        bias: Bias | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if head_width is None and width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads; give head_width")
        self.heads = heads
        self.head_width = head_width or width // heads
        inner = heads * self.head_width
        source = context_width or width
        self.q = nn.Linear(width, inner, bias=linear_bias)
        self.k = nn.Linear(source, inner, bias=linear_bias)
        self.v = nn.Linear(source, inner, bias=linear_bias)
        self.out = nn.Linear(inner, out_width or width, bias=linear_bias)
        self.bias = bias
        self.dropout = dropout

    def forward(
        self, x: Float[Tensor, "B Tq D"], *, mask: Mask | None = None, context: Float[Tensor, "B Tk C"] | None = None
    ) -> Float[Tensor, "B Tq Out"]:
        """Attend. Queries that may see no key at all (rows of padding only) give zeros before the output projection."""
        source = x if context is None else context
        q, k, v = self._split(self.q(x)), self._split(self.k(source)), self._split(self.v(source))
        allowed, causal = lower(mask, q.shape[2], k.shape[2], x.device)
        if self.bias is not None:
            added = self.bias(torch.arange(q.shape[2], device=x.device), torch.arange(k.shape[2], device=x.device))
            allowed, causal = _with_bias(added.to(q.dtype), allowed, causal), False
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=causal, dropout_p=dropout)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Float[Tensor, "B T HE"]) -> Float[Tensor, "B H T E"]:
        return x.view(*x.shape[:2], self.heads, self.head_width).transpose(1, 2)


def lower(mask: Mask | None, queries: int, keys: int, device: torch.device) -> tuple[Tensor | None, bool]:
    """A `Mask` for SDPA: a boolean tensor broadcastable to [B, H, Tq, Tk] (True: may attend) or None, and `is_causal`.

    `is_causal` keeps the fast kernels eligible, but SDPA aligns it to the upper left: it is right only for a square without
    an offset. Everything else is spelled out.
    """
    if mask is None or mask == Mask():
        return None, False
    plain = mask.lengths is None and mask.segments is None and mask.window is None and mask.prefix is None
    if mask.causal and plain and mask.offset is None and queries == keys:
        return None, True
    at_k = torch.arange(keys, device=device)
    at_q = torch.arange(queries, device=device)[None, :, None]
    if mask.offset is not None:
        at_q = at_q + mask.offset.to(device)[:, None, None]
    allowed = torch.ones(1, 1, keys, dtype=torch.bool, device=device)
    if mask.causal:
        seen = at_k <= at_q
        if mask.prefix is not None:
            seen = seen | (at_k < mask.prefix.to(device)[:, None, None])
        allowed = allowed & seen
    if mask.window is not None:
        allowed = allowed & (at_k > at_q - mask.window)
    if mask.segments is not None:
        of_q, of_k = mask.segments
        allowed = allowed & (of_q[:, :, None] == of_k[:, None, :])
    if mask.lengths is not None:
        allowed = allowed & (at_k < mask.lengths.to(device)[:, None, None])
    return allowed[:, None], False


def _with_bias(bias: Float[Tensor, "H Tq Tk"], allowed: Tensor | None, causal: bool) -> Tensor:
    if causal:
        queries, keys = bias.shape[-2:]
        allowed = torch.ones(queries, keys, dtype=torch.bool, device=bias.device).tril()[None, None]
    return bias[None] if allowed is None else bias[None].masked_fill(~allowed, float("-inf"))
