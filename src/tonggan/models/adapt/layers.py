"""What an adapter puts in a layer's place. Each keeps the layer's own weights, under their own names, and adds its own beside them.

Shape letters: B rows, T tokens, P prompt tokens, L layers, D width, N M width in and out, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tonggan.models.adapt.config import BottleneckConfig, DoraConfig, LoraConfig
from tonggan.nn.attention import Attention, Cache
from tonggan.nn.experts import Route
from tonggan.nn.transformer import FeedForward, Memory, Trace, Transformer
from tonggan.tensors import Mask
from tonggan.types import UsageError


class LowRank(nn.Module):
    """The two narrow matrices of LoRA, and DoRA's magnitudes; at the start their product is zero."""

    decayed = ("a", "b")

    def __init__(self, base: nn.Linear, rank: int, dropout: float, *, magnitude: bool) -> None:
        super().__init__()
        self.a = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # as the authors' code
        self.b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        self.magnitude = nn.Parameter(torch.linalg.norm(base.weight.detach(), dim=1)) if magnitude else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "*B N"]) -> Float[Tensor, "*B M"]:
        return F.linear(F.linear(self.dropout(x), self.a), self.b)


class LoraLinear(nn.Linear):
    """W x + s B A x (Hu et al. 2022, section 4.1); with magnitudes m every row of W + s B A is brought to length m (Liu et al. 2024,
    section 4).

    The rows' lengths are constants for the gradient (their section 4.3).
    """

    def __init__(self, base: nn.Linear, config: LoraConfig | DoraConfig) -> None:
        _adopt(self, base)
        self.scale = config.scale
        self.lora = LowRank(base, config.rank, config.dropout, magnitude=isinstance(config, DoraConfig))

    def forward(self, x: Float[Tensor, "*B N"]) -> Float[Tensor, "*B M"]:
        if self.lora.magnitude is None:
            return F.linear(x, self.weight, self.bias) + self.scale * self.lora(x)
        rows = F.linear(x, self.weight) + self.scale * self.lora(x)
        with torch.no_grad():
            lengths = torch.linalg.norm(self.weight + self.scale * self.lora.b @ self.lora.a, dim=1)
        rows = self.lora.magnitude / lengths * rows
        return rows if self.bias is None else rows + self.bias

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer that computes the same."""
        weight = self.weight + self.scale * self.lora.b @ self.lora.a
        if self.lora.magnitude is not None:
            weight = (self.lora.magnitude / torch.linalg.norm(weight, dim=1))[:, None] * weight
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device=weight.device, dtype=weight.dtype)
        plain.weight.copy_(weight)
        if self.bias is not None:
            plain.bias.copy_(self.bias)
        return plain.train(self.training)


class Bottleneck(nn.Module):
    """Down, GELU, up; `up` starts at zero, so that the model starts as it was."""

    def __init__(self, width_in: int, width_out: int, like: Tensor, config: BottleneckConfig) -> None:
        super().__init__()
        self.down = nn.Linear(width_in, config.width, device=like.device, dtype=like.dtype)
        self.up = nn.Linear(config.width, width_out, device=like.device, dtype=like.dtype)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.scale = config.scale

    def forward(self, x: Float[Tensor, "*B N"]) -> Float[Tensor, "*B M"]:
        return self.scale * self.up(F.gelu(self.down(x)))


class BottleneckLinear(nn.Linear):
    """A linear layer and a bottleneck behind it, with a sum around it (Houlsby et al. 2019, section 2.1)."""

    def __init__(self, base: nn.Linear, config: BottleneckConfig) -> None:
        _adopt(self, base)
        self.bottleneck = Bottleneck(base.out_features, base.out_features, base.weight, config)

    def forward(self, x: Float[Tensor, "*B N"]) -> Float[Tensor, "*B M"]:
        y = F.linear(x, self.weight, self.bias)
        return y + self.bottleneck(y)


class BottleneckFeedForward(FeedForward):
    """A feed-forward and a bottleneck that reads what it reads (He et al. 2022, section 3.3)."""

    def __init__(self, base: FeedForward, config: BottleneckConfig) -> None:
        nn.Module.__init__(self)
        self.up, self.gate, self.down, self.act, self.dropout = base.up, base.gate, base.down, base.act, base.dropout
        self.bottleneck = Bottleneck(base.up.in_features, base.down.out_features, base.up.weight, config)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return super().forward(x) + self.bottleneck(x)


class PromptedTransformer(Transformer):
    """Blocks that see learnt tokens in front of the input's own; these are taken away again at the end, so that nothing else moves.

    With tokens for each block these take the places of what the block before has made of its own (VPT-deep). They have no position,
    and all of the input sees them, also under a causal mask. CoOp (Zhou et al. 2022) puts its words behind the start token; here
    they stand before it, and a text keeps its whole context.
    """

    def __init__(self, base: Transformer, length: int, *, deep: bool) -> None:
        nn.Module.__init__(self)
        self.blocks = base.blocks
        first = next(module for module in base.modules() if isinstance(module, Attention)).q
        self.prompts = nn.Parameter(first.weight.new_empty(len(base.blocks) if deep else 1, length, first.in_features))
        nn.init.normal_(self.prompts, std=0.02)

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
        if positions is not None or caches is not None or before is not None or isinstance(route, Tensor):
            raise UsageError("prompts have no place in packed or cached input, between gated blocks, nor where tokens are routed singly")
        length = self.prompts.shape[1]
        mask = _behind(mask, length)
        if route is not None:  # they take the expert of what they stand before
            (kind, count), *others = route
            route = ((kind, count + length), *others)
        for number, (block, seen) in enumerate(zip(self.blocks, self.contexts(context), strict=True)):
            if number < len(self.prompts):
                own = x if number == 0 else x[:, length:]
                x = torch.cat([self.prompts[number].expand(len(x), -1, -1), own], dim=1)
            x = block(x, mask=mask, context=seen, context_mask=context_mask, cond=cond, route=route, trace=trace)
        if trace is not None:
            trace.blocks[:] = [states[:, length:] for states in trace.blocks]
            trace.feed_forwards[:] = [states[:, length:] for states in trace.feed_forwards]
        return x[:, length:]


def _behind(mask: Mask | None, length: int) -> Mask | None:
    """The mask of an input that stands behind `length` tokens that all see."""
    if mask is None:
        return None
    segments = mask.segments
    packed = segments is not None and segments[0].shape[1] > 1
    if mask.starts is not None or packed or mask.offset is not None or mask.window is not None or mask.allowed is not None:
        raise UsageError("prompts have no place in input that is padded on the left, packed, cached or windowed")
    if segments is not None:  # one segment for all queries, so that padding may stand anywhere: theirs too
        segments = (segments[0], torch.cat([segments[0].expand(-1, length), segments[1]], dim=1))
    lengths, prefix = (None if value is None else value + length for value in (mask.lengths, mask.prefix))
    return replace(mask, lengths=lengths, prefix=prefix, segments=segments)


def _adopt(layer: nn.Linear, base: nn.Linear) -> None:
    """Make `layer` a linear layer of the very weights of `base`."""
    nn.Module.__init__(layer)
    layer.in_features, layer.out_features = base.in_features, base.out_features
    layer.weight = base.weight
    layer.register_parameter("bias", base.bias)
    layer.train(base.training)
