"""Convolutional picture networks: ResNet (plain, and as CLIP modified it) and EfficientNet (with its Lite variants).

Shape letters: B pictures, C channels, H W pixels or cells, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tonggan.nn.attention import Attention
from tonggan.nn.positions import LearnedPositions

# ---------------------------------------------------------------------------------------------- ResNet


def _conv_norm(into: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions on a residual (He et al. 2016, figure 5 left)."""

    expansion = 1

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv_norm(into, width, 3, stride), _conv_norm(width, width, 3)
        self.shortcut = _conv_norm(into, width, 1, stride) if stride > 1 or into != width else nn.Identity()

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 on a residual, shrinking by average pooling, not by stride (He et al. 2019, ResNet-D; CLIP, section 2.4)."""

    expansion = 4

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * self.expansion
        self.conv1, self.conv2, self.conv3 = _conv_norm(into, width, 1), _conv_norm(width, width, 3), _conv_norm(width, out, 1)
        self.shrink = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.shortcut = nn.Sequential(self.shrink, _conv_norm(into, out, 1)) if stride > 1 or into != out else nn.Identity()

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        h = F.relu(self.conv2(F.relu(self.conv1(x))))
        return F.relu(self.conv3(self.shrink(h)) + self.shortcut(x))


class AttentionPool2d(nn.Module):
    """CLIP's pooling (Radford et al. 2021, section 2.4): the mean of all cells queries the cells, itself included."""

    def __init__(self, cells: int, width: int, heads: int, out_width: int) -> None:
        super().__init__()
        self.positions = LearnedPositions(cells + 1, width, std=width**-0.5)
        self.attention = Attention(width, heads, out_width=out_width)
        for linear in (self.attention.q, self.attention.k, self.attention.v, self.attention.out):
            nn.init.normal_(linear.weight, std=width**-0.5)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        cells = x.flatten(2).transpose(1, 2)
        cells = torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1)
        cells = cells + self.positions(cells.shape[1])
        return self.attention(cells[:, :1], context=cells)[:, 0]


class ResNet(nn.Module):
    """Four stages (or as many as `layers` has), each halving the picture but the first. `.width` is the output's channels.

    `stem="deep"` is CLIP's three convolutions and average pooling (a quarter of the size); `"small"` one convolution that
    halves it, for pictures of 64 pixels.
    """

    def __init__(
        self, layers: tuple[int, ...], base: int, *, block: Literal["basic", "bottleneck"], stem: Literal["deep", "small"]
    ) -> None:
        super().__init__()
        kind: type[BasicBlock] | type[Bottleneck] = BasicBlock if block == "basic" else Bottleneck
        if stem == "deep":
            half = base // 2
            parts: list[nn.Module] = [_conv_norm(3, half, 3, 2), nn.ReLU(), _conv_norm(half, half, 3), nn.ReLU(), _conv_norm(half, base, 3)]
            parts += [nn.ReLU(), nn.AvgPool2d(2)]
        else:
            parts = [_conv_norm(3, base, 3, 2), nn.ReLU()]
        self.stem = nn.Sequential(*parts)
        stages, into = [], base
        for i, count in enumerate(layers):
            width = base * 2**i
            blocks = []
            for j in range(count):
                blocks.append(kind(into, width, 2 if i > 0 and j == 0 else 1))
                into = width * kind.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.width = into
        self.shrinks = (4 if stem == "deep" else 2) * 2 ** (len(layers) - 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                norm = module.conv3[1]
                assert isinstance(norm, nn.BatchNorm2d)
                nn.init.zeros_(norm.weight)  # each branch starts at nothing, as in CLIP's code

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H2 W2"]:
        return self.stages(self.stem(pixels))


# ---------------------------------------------------------------------------------------- EfficientNet


@dataclass(frozen=True, slots=True)
class _Stage:
    repeats: int
    kernel: int
    stride: int
    expand: int
    out: int


B0 = [
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
]
"""Tan and Le 2019, table 1."""
SIZES: dict[str, tuple[float, float, int]] = {
    "b0": (1.0, 1.0, 224),
    "b1": (1.0, 1.1, 240),
    "b2": (1.1, 1.2, 260),
    "b3": (1.2, 1.4, 300),
    "b4": (1.4, 1.8, 380),
    "b5": (1.6, 2.2, 456),
    "b6": (1.8, 2.6, 528),
    "b7": (2.0, 3.1, 600),
    "lite0": (1.0, 1.0, 224),
    "lite1": (1.0, 1.1, 240),
    "lite2": (1.1, 1.2, 260),
    "lite3": (1.2, 1.4, 280),
    "lite4": (1.4, 1.8, 300),
}
"""Width factor, depth factor and picture size of each published variant (Tan and Le 2019, table 8; the Lite release notes)."""


class SameConv2d(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME: the output is ceil(size / stride), an odd padding goes to the lower right.

    `odd` says once and for all whether sizes are odd, as Keras does where it builds a network before it sees a picture; None: look.
    """

    def __init__(
        self, into: int, out: int, kernel: int, stride: int = 1, *, groups: int = 1, bias: bool = False, odd: bool | None = None
    ) -> None:
        super().__init__(into, out, kernel, stride, groups=groups, bias=bias)
        self.odd = odd

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        pads: list[int] = []
        for size, kernel, stride in zip(reversed(x.shape[2:]), reversed(self.kernel_size), reversed(self.stride), strict=True):
            if self.odd is not None and stride > 1:
                size = size // 2 * 2 + self.odd  # only whether it is odd counts below
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        left, right, top, bottom = pads
        if left == right and top == bottom:  # symmetric: the convolution pads by itself, without a copy
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), self.dilation, self.groups)
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole picture says (Hu et al. 2018)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return x * self.expand(F.silu(self.reduce(x.mean((2, 3), keepdim=True)))).sigmoid()


class MBConv(nn.Module):
    """Inverted residual (Sandler et al. 2018): expand, depthwise, (squeeze), project; a shortcut but in a stage's first block.

    In training the branch is left out for a share `drop` of the pictures (Huang et al. 2016, stochastic depth).
    """

    def __init__(self, into: int, stage: _Stage, out: int, *, first: bool, lite: bool, odd: bool | None = None, drop: float = 0.0) -> None:
        super().__init__()
        inner = into * stage.expand
        self.expand = SameConv2d(into, inner, 1) if stage.expand > 1 else None
        self.norm0 = _norm(inner) if stage.expand > 1 else None
        self.depthwise = SameConv2d(inner, inner, stage.kernel, stage.stride if first else 1, groups=inner, odd=odd)
        self.norm1 = _norm(inner)
        self.squeeze = None if lite else SqueezeExcite(inner, max(1, into // 4))
        self.project = SameConv2d(inner, out, 1)
        self.norm2 = _norm(out)
        self.act: Callable[[Tensor], Tensor] = F.relu6 if lite else F.silu
        self.residual, self.drop = not first, drop

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        h = x
        if self.expand is not None and self.norm0 is not None:
            h = self.act(self.norm0(self.expand(h)))
        h = self.act(self.norm1(self.depthwise(h)))
        if self.squeeze is not None:
            h = self.squeeze(h)
        h = self.norm2(self.project(h))
        if self.residual and self.training and self.drop:
            kept = torch.rand(len(h), 1, 1, 1, device=h.device) >= self.drop
            h = h * kept / (1 - self.drop)
        return x + h if self.residual else h


class EfficientNet(nn.Module):
    """EfficientNet by its variant's name. Lite (2020) has no squeeze, ReLU6, and does not scale stem, head, first and last stage.

    `factors` of width and depth may replace the variant's; `odd` are the blocks that pad as for input of odd size, stem and others as
    for even size (None: by what comes); without a `head` the last block is the end, as in ALIGN. By `momentum` running statistics follow
    (TensorFlow's 0.99 of the old is 0.01 here). `.width` is the output's channels (with
    a head 1280 for b0 and all Lite).
    """

    def __init__(
        self,
        variant: str,
        *,
        factors: tuple[float, float] | None = None,
        odd: Sequence[int] | None = None,
        head: bool = True,
        drop_connect: float = 0.0,
        momentum: float = 0.01,
    ) -> None:
        super().__init__()
        wide, deep = factors or SIZES[variant][:2]
        lite = variant.startswith("lite")
        stem = 32 if lite else channels(32, wide)
        self.stem, self.norm0 = SameConv2d(3, stem, 3, 2, odd=None if odd is None else False), _norm(stem)
        plans = list(_plan(stem, wide, deep, lite=lite))
        if beyond := [i for i in odd or () if not 0 <= i < len(plans)]:
            raise ValueError(f"odd: no block {beyond[0]}; {variant} has {len(plans)}, counted from 0")
        self.blocks = nn.ModuleList(
            MBConv(into, stage, out, first=first, lite=lite, odd=None if odd is None else i in odd, drop=drop_connect * i / len(plans))
            for i, (into, stage, out, first) in enumerate(plans)
        )
        last = plans[-1][2]
        self.width = last if not head else 1280 if lite else channels(1280, wide)
        self.head = SameConv2d(last, self.width, 1) if head else None
        self.norm1 = _norm(self.width) if head else None
        self.act: Callable[[Tensor], Tensor] = F.relu6 if lite else F.silu
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H2 W2"]:
        x = self.act(self.norm0(self.stem(pixels)))
        for block in self.blocks:
            x = block(x)
        return x if self.head is None or self.norm1 is None else self.act(self.norm1(self.head(x)))


def _plan(into: int, wide: float, deep: float, *, lite: bool) -> Iterator[tuple[int, _Stage, int, bool]]:
    """Every block's channels in, stage, channels out, and whether it is the first of its stage."""
    for i, stage in enumerate(B0):
        out = channels(stage.out, wide)
        fixed = lite and i in (0, len(B0) - 1)
        for j in range(stage.repeats if fixed else math.ceil(stage.repeats * deep)):
            yield into, stage, out, j == 0
            into = out


def channels(count: int, wide: float) -> int:
    """Scaled, rounded to a multiple of 8, never down by more than a tenth."""
    scaled = count * wide
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)  # TensorFlow's
