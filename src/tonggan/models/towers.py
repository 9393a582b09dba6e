"""Towers: one modality in, one vector (and, where there is one, a sequence) out. Each is a configuration and a module.

Shape letters: B rows, L tokens, P patches, H W pixels, D width.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.nn.activations import Activation
from tonggan.nn.conv import SIZES, AttentionPool2d, EfficientNet, ResNet
from tonggan.nn.patches import Normalize, PatchEmbed, drop_patches
from tonggan.nn.positions import FixedPositions, LearnedPositions, sinusoids_2d
from tonggan.nn.recurrent import Recurrent
from tonggan.nn.resampler import Resampler
from tonggan.nn.transformer import Transformer, encoder_block, init_transformer
from tonggan.tensors import Hidden, Mask, Tokens

Pixels: TypeAlias = UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"]
Colour: TypeAlias = tuple[float, float, float]
CLIP_MEAN: Colour = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Colour = (0.26862954, 0.26130258, 0.27577711)

# --------------------------------------------------------------------------------------------- pictures


class ImageConfig(Config):
    """What every picture tower has: the size of its input, and the mean and deviation of each channel."""

    image_size: int = 224
    mean: Colour = CLIP_MEAN
    std: Colour = CLIP_STD


class ViTConfig(ImageConfig):
    """Vision Transformer (Dosovitskiy et al. 2021), as CLIP has it by default."""

    kind: Literal["vit"] = "vit"
    patch_size: int = 16
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    activation: Activation = "gelu"
    eps: float = 1e-5
    pre_norm: bool = True
    """A norm before the first block (CLIP has it)."""
    patch_bias: bool = False
    pooling: Literal["class", "mean", "attention"] = "class"
    positions: Literal["learned", "sinusoids"] = "learned"
    patch_keep: float = 1.0
    """Fraction of patches kept in training (FLIP); all are used for evaluation."""
    dropout: float = 0.0


class ResNetConfig(ImageConfig):
    """ResNet; with `bottleneck`, `deep` and `attention` it is CLIP's modified one."""

    kind: Literal["resnet"] = "resnet"
    layers: tuple[int, ...] = (3, 4, 6, 3)
    base: int = 64
    block: Literal["basic", "bottleneck"] = "bottleneck"
    stem: Literal["deep", "small"] = "deep"
    pooling: Literal["mean", "attention"] = "attention"
    heads: int = 32
    out_width: int | None = None
    """Width that attention pooling projects to; None: the channels of the last stage."""


class EfficientNetConfig(ImageConfig):
    """EfficientNet (Tan and Le 2019) B0 to B7 and Lite0 to Lite4, pooled by the mean."""

    kind: Literal["efficientnet"] = "efficientnet"
    variant: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "lite0", "lite1", "lite2", "lite3", "lite4"] = "lite0"
    dropout: float = 0.0


ImageTowerConfig: TypeAlias = Annotated[ViTConfig | ResNetConfig | EfficientNetConfig, Field(discriminator="kind")]


class ViT(nn.Module):
    """Patches, a class token where pooling needs it, positions, blocks."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        grid = config.image_size // config.patch_size
        self.config, self.width = config, config.width
        self.normalize = Normalize(config.mean, config.std)
        self.patches = PatchEmbed(config.patch_size, config.width, bias=config.patch_bias)
        classes = int(config.pooling == "class")
        self.class_token = nn.Parameter(torch.randn(config.width) * config.width**-0.5) if classes else None
        self.positions: LearnedPositions | FixedPositions
        if config.positions == "learned":
            self.positions = LearnedPositions(grid * grid + classes, config.width, std=config.width**-0.5)
        else:
            self.positions = FixedPositions(torch.cat([torch.zeros(classes, config.width), sinusoids_2d(grid, grid, config.width)]))
        self.pre_norm = nn.LayerNorm(config.width, eps=config.eps) if config.pre_norm else nn.Identity()
        self.transformer = Transformer(
            [
                encoder_block(config.width, config.heads, config.mlp_width, act=config.activation, eps=config.eps, dropout=config.dropout)
                for _ in range(config.layers)
            ]
        )
        init_transformer(self.transformer, config.width)
        self.post_norm = nn.LayerNorm(config.width, eps=config.eps)
        self.pool = Resampler(config.width, config.heads) if config.pooling == "attention" else None

    def tokens(self, pixels: Pixels) -> Hidden:
        """States of the last block [B, (class +) P, D], before the last norm."""
        x = self.patches(self.normalize(pixels))
        table = self.positions.weight
        classes = int(self.class_token is not None)
        if len(table) != x.shape[1] + classes:
            size = self.config.image_size
            raise ValueError(f"pictures of {tuple(pixels.shape[2:])} pixels give {x.shape[1]} patches; this tower reads {size} x {size}")
        x = x + table[classes:]
        if self.training and self.config.patch_keep < 1:
            x = drop_patches(x, self.config.patch_keep)
        if self.class_token is not None:
            x = torch.cat([(self.class_token + table[0]).expand(len(x), 1, -1), x], dim=1)
        return Hidden(self.transformer(self.pre_norm(x)))

    def forward(self, pixels: Pixels) -> Float[Tensor, "B D"]:
        states = self.tokens(pixels).states
        if self.class_token is not None:
            return self.post_norm(states[:, 0])
        states = self.post_norm(states)
        return states.mean(dim=1) if self.pool is None else self.pool(states)[:, 0]


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
                side = config.image_size // self.net.shrinks
                self.width = config.out_width or self.net.width
                self.pool = AttentionPool2d(side * side, self.net.width, config.heads, self.width)
            self.dropout = nn.Dropout(0.0)
        else:
            self.net = EfficientNet(config.variant)
            self.width = self.net.width
            self.dropout = nn.Dropout(config.dropout)

    def tokens(self, pixels: Pixels) -> Hidden:
        """Cells of the last feature map [B, P, D] in row-major order."""
        return Hidden(self.net(self.normalize(pixels)).flatten(2).transpose(1, 2))

    def forward(self, pixels: Pixels) -> Float[Tensor, "B D"]:
        maps = self.net(self.normalize(pixels))
        return self.dropout(maps.mean(dim=(2, 3)) if self.pool is None else self.pool(maps))


# ------------------------------------------------------------------------------------------------- text


class TransformerTextConfig(Config):
    """CLIP's text tower: causal, pooled at the end token, which is each row's last."""

    kind: Literal["transformer"] = "transformer"
    vocab_size: int = 49408
    context: int = 77
    width: int = 512
    layers: int = 12
    heads: int = 8
    mlp_width: int = 2048
    activation: Activation = "gelu"
    eps: float = 1e-5
    dropout: float = 0.0


class BertTextConfig(Config):
    """BERT (Devlin et al. 2019) as a sentence encoder, pooled by the mean or the first token."""

    kind: Literal["bert"] = "bert"
    vocab_size: int = 30522
    context: int = 512
    width: int = 384
    layers: int = 6
    heads: int = 12
    mlp_width: int = 1536
    activation: Activation = "gelu"
    eps: float = 1e-12
    type_vocab: int = 2
    pooling: Literal["mean", "first"] = "mean"
    dropout: float = 0.0


class RecurrentTextConfig(Config):
    """LSTM or GRU, pooled by the mean over the row's own tokens."""

    kind: Literal["recurrent"] = "recurrent"
    cell: Literal["lstm", "gru"] = "gru"
    vocab_size: int = 4096
    context: int = 77
    width: int = 256
    layers: int = 1
    bidirectional: bool = True
    dropout: float = 0.0


TextTowerConfig: TypeAlias = Annotated[TransformerTextConfig | BertTextConfig | RecurrentTextConfig, Field(discriminator="kind")]


class TransformerText(nn.Module):
    """Token and position embeddings, causal blocks, a norm; the end token's state is the text."""

    def __init__(self, config: TransformerTextConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.positions = LearnedPositions(config.context, config.width)
        self.transformer = Transformer(
            [
                encoder_block(config.width, config.heads, config.mlp_width, act=config.activation, eps=config.eps, dropout=config.dropout)
                for _ in range(config.layers)
            ]
        )
        init_transformer(self.transformer, config.width)
        self.post_norm = nn.LayerNorm(config.width, eps=config.eps)

    def tokens(self, tokens: Tokens) -> Hidden:
        """States [B, L, D] after the last norm."""
        x = self.embedding(tokens.ids) + self.positions(tokens.ids.shape[1])
        # Padding stands behind the end token, where nothing causal that is used looks: no length mask is needed.
        return Hidden(self.post_norm(self.transformer(x, mask=Mask(causal=True))), tokens.lengths)

    def forward(self, tokens: Tokens) -> Float[Tensor, "B D"]:
        states = self.tokens(tokens).states
        return states[torch.arange(len(states), device=states.device), tokens.lengths - 1]


class Bert(nn.Module):
    """Word, position and type embeddings under a norm, then post-norm blocks."""

    def __init__(self, config: BertTextConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = LearnedPositions(config.context, config.width, std=0.02)
        self.types = nn.Embedding(config.type_vocab, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(
            [
                encoder_block(
                    config.width,
                    config.heads,
                    config.mlp_width,
                    act=config.activation,
                    order="post",
                    eps=config.eps,
                    dropout=config.dropout,
                )
                for _ in range(config.layers)
            ]
        )
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)  # Devlin et al. 2019, as in their code
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def tokens(self, tokens: Tokens) -> Hidden:
        """States [B, L, D]; padding attends to nothing of its own worth, and is never attended to."""
        x = self.embedding(tokens.ids) + self.positions(tokens.ids.shape[1]) + self.types.weight[0]
        return Hidden(self.transformer(self.dropout(self.norm(x)), mask=Mask(lengths=tokens.lengths)), tokens.lengths)

    def forward(self, tokens: Tokens) -> Float[Tensor, "B D"]:
        states = self.tokens(tokens).states
        return states[:, 0] if self.config.pooling == "first" else _mean(states, tokens.lengths)


class RecurrentText(nn.Module):
    """Token embeddings through an LSTM or a GRU."""

    def __init__(self, config: RecurrentTextConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.rnn = Recurrent(config.cell, config.width, config.layers, bidirectional=config.bidirectional, dropout=config.dropout)
        self.width = self.rnn.width
        self.post_norm = nn.LayerNorm(self.width)

    def tokens(self, tokens: Tokens) -> Hidden:
        """States [B, L, D], zeros at padding."""
        return Hidden(self.rnn(self.embedding(tokens.ids), tokens.lengths), tokens.lengths)

    def forward(self, tokens: Tokens) -> Float[Tensor, "B D"]:
        return self.post_norm(_mean(self.tokens(tokens).states, tokens.lengths))


def _mean(states: Float[Tensor, "B L D"], lengths: Tensor) -> Float[Tensor, "B D"]:
    """The mean over each row's own tokens."""
    own = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
    return (states * own[:, :, None]).sum(dim=1) / lengths[:, None].clamp(min=1)


ImageTower: TypeAlias = ViT | ConvTower
TextTower: TypeAlias = TransformerText | Bert | RecurrentText


def build_image(config: ViTConfig | ResNetConfig | EfficientNetConfig) -> ImageTower:
    """The picture tower of a configuration; weights are random."""
    return ViT(config) if isinstance(config, ViTConfig) else ConvTower(config)


def build_text(config: TransformerTextConfig | BertTextConfig | RecurrentTextConfig) -> TextTower:
    """The text tower of a configuration; weights are random."""
    if isinstance(config, TransformerTextConfig):
        return TransformerText(config)
    return Bert(config) if isinstance(config, BertTextConfig) else RecurrentText(config)


def published_size(variant: str) -> int:
    """The picture size that an EfficientNet variant was trained with."""
    return SIZES[variant][2]
