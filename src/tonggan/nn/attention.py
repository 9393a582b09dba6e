"""The one attention of the house, and the one place where a `Mask` becomes what a kernel wants.

Shape letters: B rows, Tq queries, Tk keys, D width, C width of the context, H heads, G heads of keys and values, E width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tonggan.tensors import Mask

Bias: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Additive bias: (query positions [Tq], key positions [Tk]) -> [H, Tq, Tk]."""


@runtime_checkable
class Cache(Protocol):
    """What one attention has computed before, owned by whoever generates. The key at index i stands at position i."""

    def extend(self, keys: Float[Tensor, "B G T E"], values: Float[Tensor, "B G T E"]) -> tuple[Tensor, Tensor]:
        """Store the new keys and values; give all so far, each [B, G, Tk, E] (a preallocated one may give room not yet filled)."""
        ...


class KeysValues(NamedTuple):
    """Keys and values of a context, each [B, G, Tk, E]: computed once, attended to by any number of chunks."""

    keys: Tensor
    values: Tensor

    def select(self, rows: Int[Tensor, " N"]) -> KeysValues:
        """Of these rows, in this order; a row may come more than once."""
        return KeysValues(self.keys[rows], self.values[rows])

    def join(self, others: Sequence[KeysValues]) -> KeysValues:
        """Of these rows and those of others; where there are fewer keys, zeros stand behind them, to be masked."""
        some = [self, *others]
        most = max(one.keys.shape[2] for one in some)
        keys, values = (torch.cat([F.pad(part, (0, 0, 0, most - part.shape[2])) for part in parts]) for parts in zip(*some, strict=True))
        return KeysValues(keys, values)


Context: TypeAlias = Tensor | KeysValues
"""What cross-attention attends to: states [B, Tk, C], or what it once made of them."""

Rotation: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Positions by rotation: (queries or keys [B, H, T, E], where they stand, Int[rows, T]) -> the same shape (`nn.positions.Rotary`)."""


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2).

    softmax(Q Kᵀ / √E) V per head, heads concatenated and projected. Queries come from `x`; keys and values from `context`
    (cross-attention, of width `context_width`) or from `x`. q, k and v are separate so that each can be replaced or adapted.
    A key's bias shifts all scores of a query alike, so softmax does not see it: BEiT, VideoMAE and Whisper have none (`key_bias`).
    With fewer `kv_heads`, as many neighbouring heads share a key and a value (Ainslie et al. 2023, grouped-query attention).
    `qk_norms` act on each head's query and key, `rotary` on what they leave; `scale` in place of 1/√E (T5: 1).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        context_width: int | None = None,
        head_width: int | None = None,
        out_width: int | None = None,
        kv_heads: int | None = None,
        linear_bias: bool = True,
        key_bias: bool = True,
        out_bias: bool = True,
        qk_norms: tuple[nn.Module, nn.Module] | None = None,
        rotary: Rotation | None = None,
        bias: Bias | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if head_width is None and width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads; give head_width")
        if kv_heads is not None and heads % kv_heads:
            raise ValueError(f"{heads} heads cannot share {kv_heads} heads of keys and values evenly")
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.head_width = head_width or width // heads
        inner, shared = heads * self.head_width, self.kv_heads * self.head_width
        source = context_width or width
        self.q = nn.Linear(width, inner, bias=linear_bias)
        self.k = nn.Linear(source, shared, bias=linear_bias and key_bias)
        self.v = nn.Linear(source, shared, bias=linear_bias)
        self.out = nn.Linear(inner, out_width or width, bias=linear_bias and out_bias)
        self.q_norm, self.k_norm = qk_norms or (nn.Identity(), nn.Identity())
        self.rotary, self.bias = rotary, bias
        self.scale, self.dropout = scale, dropout

    def forward(
        self,
        x: Float[Tensor, "B Tq D"],
        *,
        mask: Mask | None = None,
        context: Float[Tensor, "B Tk C"] | KeysValues | None = None,
        positions: Int[Tensor, "B Tq"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B Tq Out"]:
        """Attend. Queries that may see no key at all (rows of padding only) give zeros before the output projection.

        `positions` are what rotation and bias are told where they are not simply counted (packed texts each start at 0). With a `cache`
        the queries are a chunk: `mask.offset` says where each row's begins, unless it is the first.
        """
        q = self.q_norm(self._split(self.q(x)))
        k, v = context if isinstance(context, KeysValues) else self.keys_values(x if context is None else context)
        if self.rotary is not None and context is None:
            at = _standing(mask, positions, q.shape[2], x.device)
            turned = self.rotary(torch.cat([q, k], dim=1), at)  # together: the angles once
            q, k = turned[:, : q.shape[1]], turned[:, q.shape[1] :]
        if cache is not None:
            k, v = cache.extend(k, v)
            if k.shape[2] != q.shape[2] and mask is not None and mask.offset is None and (mask.causal or mask.window is not None):
                raise ValueError("a cached chunk needs mask.offset: without it its queries would count as the first ones")
        allowed, causal = lower(mask, q.shape[2], k.shape[2], x.device)
        if self.bias is not None:
            at_q, at_k = _positions(mask, positions, q.shape[2], k.shape[2], x.device, own=context is None and cache is None)
            added = torch.stack([self.bias(row_q, row_k) for row_q, row_k in zip(at_q, at_k, strict=True)])
            allowed, causal = _with_bias(added.to(q.dtype), allowed, causal), False
        dropout, grouped = self.dropout if self.training else 0.0, self.kv_heads != self.heads
        attended = F.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, is_causal=causal, dropout_p=dropout, scale=self.scale, enable_gqa=grouped
        )
        return self.out(attended.transpose(1, 2).flatten(2))

    def keys_values(self, source: Float[Tensor, "B Tk C"]) -> KeysValues:
        """What queries meet of these states, before any rotation."""
        return KeysValues(self.k_norm(self._split(self.k(source))), self._split(self.v(source)))

    def _split(self, x: Float[Tensor, "B T HE"]) -> Float[Tensor, "B H T E"]:
        return x.view(*x.shape[:2], -1, self.head_width).transpose(1, 2)


def lower(mask: Mask | None, queries: int, keys: int, device: torch.device) -> tuple[Tensor | None, bool]:
    """A `Mask` for SDPA: a boolean tensor broadcastable to [B, H, Tq, Tk] (True: may attend) or None, and `is_causal`.

    `is_causal` keeps the fast kernels eligible, but SDPA aligns it to the upper left: it is right only for a square without
    an offset. Everything else is spelled out.
    """
    if mask is None or mask == Mask():
        return None, False
    rest = (mask.lengths, mask.starts, mask.segments, mask.window, mask.prefix, mask.allowed)
    plain = all(condition is None for condition in rest)
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
    if mask.starts is not None:
        allowed = allowed & (at_k >= mask.starts.to(device)[:, None, None])
    if mask.allowed is not None:
        allowed = allowed & mask.allowed
    return allowed[:, None], False


def _standing(mask: Mask | None, given: Tensor | None, queries: int, device: torch.device) -> Int[Tensor, "rows Tq"]:
    """Where the queries stand; one row where all are alike."""
    if given is not None:
        return given
    at_q = torch.arange(queries, device=device)[None]
    return at_q if mask is None or mask.offset is None else at_q + mask.offset.to(device)[:, None]


def _positions(
    mask: Mask | None, given: Tensor | None, queries: int, keys: int, device: torch.device, *, own: bool
) -> tuple[Int[Tensor, "rows Tq"], Int[Tensor, "rows Tk"]]:
    """Positions for the bias; one row where all are alike. `own`: the keys are the queries' own tokens, and stand where these do."""
    at_q = _standing(mask, given, queries, device)
    if given is not None and own:
        return at_q, at_q
    return at_q, torch.arange(keys, device=device).expand(len(at_q), -1)


def _with_bias(bias: Float[Tensor, "rows H Tq Tk"], allowed: Tensor | None, causal: bool) -> Tensor:
    if causal:
        queries, keys = bias.shape[-2:]
        allowed = torch.ones(queries, keys, dtype=torch.bool, device=bias.device).tril()[None, None]
    return bias if allowed is None else torch.where(allowed, bias, float("-inf"))
