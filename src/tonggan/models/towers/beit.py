"""BEiT's picture tower (Bao et al. 2022), which data2vec trains too: patches that can be hidden, and positions as distances.

Shape letters: B pictures, P patches, T positions, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn

from tonggan.config import height_width
from tonggan.models.towers.image import ImageConfig, Pixels
from tonggan.nn.activations import Activation
from tonggan.nn.attention import Bias
from tonggan.nn.patches import Normalize, PatchEmbed
from tonggan.nn.positions import GridBias, LearnedPositions
from tonggan.nn.transformer import Trace, Transformer, encoder_block, init_transformer
from tonggan.tensors import Hidden
from tonggan.types import UsageError


class BeitConfig(ImageConfig):
    """A ViT with a class token, layer scale and keys without bias."""

    kind: Literal["beit"] = "beit"
    patch_size: PositiveInt = 16
    width: PositiveInt = 768
    layers: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_width: PositiveInt = 3072
    activation: Activation = "gelu"
    eps: float = 1e-12
    absolute: bool = False
    """A learned vector per place, added to the patches."""
    relative: Literal["none", "each", "shared"] = "each"
    """A learned bias per distance on the attention scores: none, each block its own, or one for all."""
    layer_scale: float | None = 0.1
    """What the learned factors on each branch start at; None: no factors."""
    mask_token: bool = False
    """A learned vector that stands for hidden patches, for training by filling in."""
    pooling: Literal["mean", "class"] = "mean"
    """The mean of the patches' states, which no norm follows, or the class token's state after a norm."""
    dropout: float = 0.0


class Beit(nn.Module):
    """Patches, a class token, blocks that know distances."""

    def __init__(self, config: BeitConfig) -> None:
        super().__init__()
        high, wide = height_width(config.image_size)
        self.config, self.width = config, config.width
        self.grid = (high // config.patch_size, wide // config.patch_size)
        self.normalize = Normalize(config.mean, config.std)
        self.patches = PatchEmbed(config.patch_size, config.width, bias=True)
        self.class_token = nn.Parameter(torch.randn(config.width) * 0.02)
        self.mask_token = nn.Parameter(torch.randn(config.width) * 0.02) if config.mask_token else None
        self.positions = LearnedPositions(self.grid[0] * self.grid[1] + 1, config.width, std=0.02) if config.absolute else None
        self.distances = GridBias(*self.grid, config.heads) if config.relative == "shared" else None
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(
            [
                encoder_block(
                    config.width,
                    config.heads,
                    config.mlp_width,
                    act=config.activation,
                    eps=config.eps,
                    dropout=config.dropout,
                    layer_scale=config.layer_scale,
                    key_bias=False,
                    bias=self._bias(),
                )
                for _ in range(config.layers)
            ]
        )
        init_transformer(self.transformer, config.width)
        self.post_norm = nn.LayerNorm(config.width, eps=config.eps) if config.pooling == "class" else nn.Identity()

    def _bias(self) -> Bias | None:
        """What a block adds to its scores."""
        if self.config.relative == "each":
            return GridBias(*self.grid, self.config.heads)
        # The method, not the module: a shared table is one weight of the tower, not one of every block.
        return None if self.distances is None else self.distances.forward

    def tokens(self, pixels: Pixels, *, hidden: Bool[Tensor, "B P"] | None = None, trace: Trace | None = None) -> Hidden:
        """States [B, 1 + P, D], the class token first; after the last norm where there is one. `hidden` patches are replaced by the
        mask token."""
        x = self.patches(self.normalize(pixels))
        if x.shape[1] != self.grid[0] * self.grid[1]:
            raise ValueError(
                f"pictures of {tuple(pixels.shape[2:])} pixels give {x.shape[1]} patches; this tower reads {self.config.image_size}"
            )
        if hidden is not None:
            if self.mask_token is None:
                raise UsageError("hiding patches needs a mask token, and this tower has none; set model.config.image.mask_token: true")
            x = torch.where(hidden[:, :, None], self.mask_token, x)
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1)
        if self.positions is not None:
            x = x + self.positions.weight
        return Hidden(self.post_norm(self.transformer(self.dropout(x), trace=trace)))

    def forward(self, pixels: Pixels) -> Float[Tensor, "B D"]:
        states = self.tokens(pixels).states
        return states[:, 0] if self.config.pooling == "class" else states[:, 1:].mean(dim=1)
