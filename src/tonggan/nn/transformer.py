"""The Transformer block and a stack of it (Vaswani et al. 2017; residual orders as in Xiong et al. 2020).

Shape letters: B rows, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tonggan.nn.activations import Activation, activation
from tonggan.nn.attention import Attention, Bias, Cache, Context, KeysValues
from tonggan.nn.experts import Route
from tonggan.tensors import Mask


class FeedForward(nn.Module):
    """Two linear layers around an activation; `gated` multiplies by a third (Shazeer 2020, GLU variants)."""

    def __init__(
        self, width: int, inner: int, act: Activation = "gelu", *, gated: bool = False, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner, bias=bias)
        self.gate = nn.Linear(width, inner, bias=bias) if gated else None
        self.down = nn.Linear(inner, width, bias=bias)
        self.act = activation(act)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        hidden = self.act(self.up(x)) if self.gate is None else self.act(self.gate(x)) * self.up(x)
        return self.down(self.dropout(hidden))


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch, starting small (Touvron et al. 2021, CaiT, section 2)."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return x * self.factor


@dataclass
class Trace:
    """What each block made on the way, in order: filled by a forward pass that is given one."""

    blocks: list[Tensor] = field(default_factory=list)
    """The stream after each block, [B, T, D]."""
    feed_forwards: list[Tensor] = field(default_factory=list)
    """What each feed-forward adds to the stream, [B, T, D]."""


class Block(nn.Module):
    """Attention and feed-forward on a residual stream, out of built parts.

    `order="pre"` normalises what enters a branch (CLIP, ViT, GPT), `"post"` what leaves the sum (BERT, the original).
    `cross`, where given, attends to `context` between the two, under its own norm; `cross_optional` blocks leave it out where no context
    is given (BLIP's text encoder), others then raise `ValueError`. Parts that want more than the stream get it:
    norms `cond` (what adaptive ones are conditioned on), the feed-forward `route` (which expert takes which token).
    """

    def __init__(
        self,
        attention: Attention,
        feed_forward: nn.Module,
        norms: tuple[nn.Module, nn.Module],
        *,
        order: Literal["pre", "post"] = "pre",
        cross: Attention | None = None,
        cross_norm: nn.Module | None = None,
        cross_optional: bool = False,
        scales: tuple[nn.Module, nn.Module] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.norm1, self.norm2 = norms
        self.cross, self.cross_norm, self.cross_optional = cross, cross_norm, cross_optional
        self.scale1, self.scale2 = scales or (nn.Identity(), nn.Identity())
        self.dropout = nn.Dropout(dropout)
        self.order = order

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Mask | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        context: Context | None = None,
        context_mask: Mask | None = None,
        cond: Tensor | None = None,
        route: Tensor | Route | None = None,
        cache: Cache | None = None,
        trace: Trace | None = None,
    ) -> Float[Tensor, "B T D"]:
        extra = () if cond is None else (cond,)
        routed = () if route is None else (route,)

        def attend(h: Tensor) -> Tensor:
            return self.scale1(self.attention(h, mask=mask, positions=positions, cache=cache))

        x = self._residual(x, self.norm1, attend, extra)
        if self.cross is not None and self.cross_norm is not None and not (context is None and self.cross_optional):
            if context is None:
                raise ValueError("this block attends to a context; give one")
            cross = self.cross
            x = self._residual(x, self.cross_norm, lambda h: cross(h, context=context, mask=context_mask), extra)

        def feed(h: Tensor) -> Tensor:
            added: Tensor = self.scale2(self.feed_forward(h, *routed))
            if trace is not None:
                trace.feed_forwards.append(added)
            return added

        x = self._residual(x, self.norm2, feed, extra)
        if trace is not None:
            trace.blocks.append(x)
        return x

    def _residual(self, x: Tensor, norm: nn.Module, branch: Callable[[Tensor], Tensor], extra: tuple[Tensor, ...]) -> Tensor:
        if self.order == "pre":
            return x + self.dropout(branch(norm(x, *extra)))
        return norm(x + self.dropout(branch(x)), *extra)


def encoder_block(
    width: int,
    heads: int,
    inner: int,
    *,
    act: Activation = "gelu",
    order: Literal["pre", "post"] = "pre",
    eps: float = 1e-5,
    dropout: float = 0.0,
    layer_scale: float | None = None,
    key_bias: bool = True,
    bias: Bias | None = None,
) -> Block:
    """The ordinary self-attention block, as ViT, CLIP and BERT have it."""
    return Block(
        Attention(width, heads, key_bias=key_bias, bias=bias, dropout=dropout),
        FeedForward(width, inner, act),
        (nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)),
        order=order,
        dropout=dropout,
        scales=None if layer_scale is None else (LayerScale(width, layer_scale), LayerScale(width, layer_scale)),
    )


Memory: TypeAlias = Sequence[KeysValues | None]
"""What the blocks of a stack once made of a context, one entry per block; None where a block has no cross-attention."""


class Transformer(nn.Module):
    """Blocks in a row; all get the same arguments, but each its own cache and its own part of a memory."""

    def __init__(self, blocks: list[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Mask | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        context: Float[Tensor, "B Tk C"] | Memory | None = None,
        context_mask: Mask | None = None,
        cond: Tensor | None = None,
        route: Tensor | Route | None = None,
        caches: Sequence[Cache] | None = None,
        before: Sequence[Callable[[Tensor], Tensor] | None] | None = None,
        trace: Trace | None = None,
    ) -> Float[Tensor, "B T D"]:
        """`before` has for each block what is done to the stream in front of it, if anything (Flamingo's gated cross-attention)."""
        none: list[None] = [None] * len(self.blocks)
        own = none if caches is None else caches
        for block, cache, seen, change in zip(self.blocks, own, self.contexts(context), before or none, strict=True):
            x = x if change is None else change(x)
            x = block(
                x,
                mask=mask,
                positions=positions,
                context=seen,
                context_mask=context_mask,
                cond=cond,
                route=route,
                cache=cache,
                trace=trace,
            )
        return x

    def contexts(self, context: Tensor | Memory | None) -> Sequence[Context | None]:
        """What each block attends to: the same states, or its own part of a memory."""
        return [context] * len(self.blocks) if context is None or isinstance(context, Tensor) else context

    def remember(self, context: Float[Tensor, "B Tk C"]) -> tuple[KeysValues | None, ...]:
        """Keys and values of a context for every block, computed once: to be given as `context` for every chunk of a generation."""
        crosses = [block.cross for block in self.blocks if isinstance(block, Block)]
        return tuple(None if cross is None else cross.keys_values(context) for cross in crosses)


def init_transformer(transformer: Transformer, width: int) -> None:
    """CLIP's initialisation (Radford et al. 2021, as in their code): the deeper the stack, the smaller what each branch adds.

    Attention inputs have standard deviation width^-½, branch outputs width^-½ (2·layers)^-½, the feed-forward's first layer (2·width)^-½.
    """
    layers = len(transformer.blocks)
    into, out_of, up = width**-0.5, width**-0.5 * (2 * layers) ** -0.5, (2 * width) ** -0.5
    for module in transformer.modules():
        if isinstance(module, Attention):
            for linear, std in ((module.q, into), (module.k, into), (module.v, into), (module.out, out_of)):
                _normal(linear, std)
        elif isinstance(module, FeedForward):
            _normal(module.up, up)
            _normal(module.down, out_of)
            if module.gate is not None:
                _normal(module.gate, up)


def _normal(linear: nn.Linear, std: float) -> None:
    nn.init.normal_(linear.weight, std=std)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
