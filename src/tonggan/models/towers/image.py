"""Picture towers: pixels in, one vector (and a sequence) out. Each is a configuration and a module.

Shape letters: B pictures, P patches or cells, H W pixels, D width.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import torch
from jaxtyping import Float, UInt8
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from tonggan.config import Config, PictureSize, height_width
from tonggan.nn.activations import Activation
from tonggan.nn.conv import SIZES, AttentionPool2d, EfficientNet, ResNet, channels
from tonggan.nn.patches import Normalize, PatchEmbed, drop_patches
from tonggan.nn.positions import FixedPositions, LearnedPositions, sinusoids_2d
from tonggan.nn.resampler import attention_pool
from tonggan.nn.transformer import Transformer, encoder_block, init_transformer
from tonggan.tensors import Hidden

Pixels: TypeAlias = UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"]
Colour: TypeAlias = tuple[float, float, float]
CLIP_MEAN: Colour = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Colour = (0.26862954, 0.26130258, 0.27577711)


class ImageConfig(Config):
    """What every picture tower has: the size of its input, and the mean and deviation of each channel."""

    image_size: PictureSize = 224
    mean: Colour = CLIP_MEAN
    std: Colour = CLIP_STD


class ViTConfig(ImageConfig):
    """Vision Transformer (Dosovitskiy et al. 2021), as CLIP has it by default."""

    kind: Literal["vit"] = "vit"
    patch_size: PictureSize = 16
    width: PositiveInt = 768
    layers: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_width: PositiveInt = 3072
    activation: Activation = "gelu"
    eps: float = 1e-5
    pre_norm: bool = True
    """A norm before the first block (CLIP has it)."""
    patch_bias: bool = False
    pooling: Literal["class", "mean", "attention"] = "class"
    """`attention` is SigLIP's head: one learned query, then a feed-forward."""
    pooler: bool = False
    """A linear map and tanh on what was pooled (ViT's as it was trained on ImageNet-21k, and BERT's)."""
    positions: Literal["learned", "sinusoids"] = "learned"
    patch_keep: float = Field(default=1.0, gt=0, le=1)
    """Fraction of patches kept in training (FLIP); all are used for evaluation."""
    dropout: float = 0.0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        (height, width), (high, wide) = height_width(self.image_size), height_width(self.patch_size)
        return height // high, width // wide


class ResNetConfig(ImageConfig):
    """ResNet; with `bottleneck`, `deep` and `attention` it is CLIP's modified one."""

    kind: Literal["resnet"] = "resnet"
    layers: tuple[PositiveInt, ...] = Field(default=(3, 4, 6, 3), min_length=1)
    base: PositiveInt = 64
    block: Literal["basic", "bottleneck"] = "bottleneck"
    stem: Literal["deep", "small"] = "deep"
    pooling: Literal["mean", "attention"] = "attention"
    heads: PositiveInt = 32
    out_width: PositiveInt | None = None
    """Width that attention pooling projects to; None: the channels of the last stage."""


class EfficientNetConfig(ImageConfig):
    """EfficientNet (Tan and Le 2019) B0 to B7 and Lite0 to Lite4, pooled by the mean."""

    kind: Literal["efficientnet"] = "efficientnet"
    variant: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "lite0", "lite1", "lite2", "lite3", "lite4"] = "lite0"
    factors: tuple[float, float] | None = None
    """Of width and of depth, for a size between those that have a name."""
    odd: tuple[int, ...] | None = None
    """Blocks whose strided convolution pads as for input of odd size, stem and others as for even size, whatever the picture's size:
    how Keras freezes TensorFlow's rule into a checkpoint. None: by the size that the input has."""
    head: bool = True
    """The last convolution, of 1 x 1; ALIGN's tower ends before it."""
    dropout: float = 0.0
    drop_connect: float = 0.0
    """Share of pictures for which the last block leaves its branch out in training; earlier blocks less often (section 3.3 of Huang et
    al. 2016, stochastic depth)."""
    norm_momentum: float = 0.01
    """How fast the running statistics follow in training. The published value is for many thousands of updates: after a few hundred, the
    statistics are still those of the untrained network, and evaluation means nothing. Then take 0.1."""

    @property
    def scaled_by(self) -> tuple[float, float]:
        """Factors of width and depth."""
        return self.factors or published_factors(self.variant)

    @property
    def width(self) -> int:
        """How many numbers the tower makes of a picture."""
        if not self.head:
            return channels(320, self.scaled_by[0])
        return 1280 if self.variant.startswith("lite") else channels(1280, self.scaled_by[0])


ImageTowerConfig: TypeAlias = Annotated[ViTConfig | ResNetConfig | EfficientNetConfig, Field(discriminator="kind")]


class ViT(nn.Module):
    """Patches, a class token where pooling needs it, positions, blocks."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        rows, columns = config.grid
        self.config, self.width = config, config.width
        self.normalize = Normalize(config.mean, config.std)
        self.patches = PatchEmbed(config.patch_size, config.width, bias=config.patch_bias)
        classes = int(config.pooling == "class")
        self.class_token = nn.Parameter(torch.randn(config.width) * config.width**-0.5) if classes else None
        self.positions: LearnedPositions | FixedPositions
        if config.positions == "learned":
            self.positions = LearnedPositions(rows * columns + classes, config.width, std=config.width**-0.5)
        else:
            self.positions = FixedPositions(torch.cat([torch.zeros(classes, config.width), sinusoids_2d(rows, columns, config.width)]))
        self.pre_norm = nn.LayerNorm(config.width, eps=config.eps) if config.pre_norm else nn.Identity()
        self.transformer = Transformer(
            [
                encoder_block(config.width, config.heads, config.mlp_width, act=config.activation, eps=config.eps, dropout=config.dropout)
                for _ in range(config.layers)
            ]
        )
        init_transformer(self.transformer, config.width)
        self.post_norm = nn.LayerNorm(config.width, eps=config.eps)
        self.pool = None
        if config.pooling == "attention":
            self.pool = attention_pool(config.width, config.heads, config.mlp_width, act=config.activation, eps=config.eps)
        self.pooler = nn.Linear(config.width, config.width) if config.pooler else None

    def tokens(self, pixels: Pixels) -> Hidden:
        """States of the last block [B, (class +) P, D], before the last norm."""
        return Hidden(self.transformer(self.enter(pixels)))

    def enter(self, pixels: Pixels) -> Float[Tensor, "B T D"]:
        """What the first block reads."""
        height, width = height_width(self.config.image_size)
        if tuple(pixels.shape[2:]) != (height, width):
            raise ValueError(f"pictures of {pixels.shape[2]} x {pixels.shape[3]} pixels; this tower reads {height} x {width}")
        x = self.patches(self.normalize(pixels))
        table = self.positions.weight
        classes = int(self.class_token is not None)
        x = x + table[classes:]
        if self.training and self.config.patch_keep < 1:
            x = drop_patches(x, self.config.patch_keep)
        if self.class_token is not None:
            x = torch.cat([(self.class_token + table[0]).expand(len(x), 1, -1), x], dim=1)
        return self.pre_norm(x)

    def forward(self, pixels: Pixels) -> Float[Tensor, "B D"]:
        return self.summary(self.tokens(pixels))

    def summary(self, hidden: Hidden) -> Float[Tensor, "B D"]:
        """What `forward` gives, out of what `tokens` gave."""
        states = hidden.states
        if self.class_token is not None:
            pooled = self.post_norm(states[:, 0])
        else:
            states = self.post_norm(states)
            pooled = states.mean(dim=1) if self.pool is None else self.pool(states)[:, 0]
        return pooled if self.pooler is None else self.pooler(pooled).tanh()


class ConvTower(nn.Module):
    """A convolutional network and its pooling; `tokens` gives the last feature map's cells."""

    def __init__(self, config: ResNetConfig | EfficientNetConfig) -> None:
        super().__init__()
        self.config = config
        self.normalize = Normalize(config.mean, config.std)
        self.pool: AttentionPool2d | None = None
        if isinstance(config, ResNetConfig):
            self.net: ResNet | EfficientNet = ResNet(config.layers, config.base, block=config.block, stem=config.stem)
            self.width = self.net.width
            if config.pooling == "attention":
                height, width = height_width(config.image_size)
                self.width = config.out_width or self.net.width
                self.pool = AttentionPool2d(
                    (height // self.net.shrinks) * (width // self.net.shrinks), self.net.width, config.heads, self.width
                )
            self.dropout = nn.Dropout(0.0)
        else:
            self.net = EfficientNet(
                config.variant,
                factors=config.factors,
                odd=config.odd,
                head=config.head,
                drop_connect=config.drop_connect,
                momentum=config.norm_momentum,
            )
            self.width = self.net.width
            self.dropout = nn.Dropout(config.dropout)

    def maps(self, pixels: Pixels) -> Float[Tensor, "B C H2 W2"]:
        """The last feature map."""
        return self.net(self.normalize(pixels))

    def tokens(self, pixels: Pixels) -> Hidden:
        """Cells of the last feature map [B, P, D] in row-major order."""
        return Hidden(self.maps(pixels).flatten(2).transpose(1, 2))

    def forward(self, pixels: Pixels) -> Float[Tensor, "B D"]:
        return self.summary(self.maps(pixels))

    def summary(self, maps: Float[Tensor, "B C H2 W2"]) -> Float[Tensor, "B D"]:
        """What `forward` gives, out of what `maps` gave."""
        return self.dropout(maps.mean(dim=(2, 3)) if self.pool is None else self.pool(maps))


ImageTower: TypeAlias = ViT | ConvTower


def build_image(config: ViTConfig | ResNetConfig | EfficientNetConfig) -> ImageTower:
    """The picture tower of a configuration; weights are random."""
    return ViT(config) if isinstance(config, ViTConfig) else ConvTower(config)


def published_factors(variant: str) -> tuple[float, float]:
    """By which an EfficientNet variant is wider and deeper than B0."""
    return SIZES[variant][:2]


def published_size(variant: str) -> int:
    """The picture size that an EfficientNet variant was trained with."""
    return SIZES[variant][2]
