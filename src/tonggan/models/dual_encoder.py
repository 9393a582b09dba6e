"""Two towers, one space (Radford et al. 2021): pictures and texts become unit vectors that are compared by a dot product.

Shape letters: B rows, D dim of the common space, Wi and Wt widths of the towers.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models import towers
from tonggan.models.conse import CentredHead, ConseConfig, ConseHead, ConseTower
from tonggan.models.ngram import BilingualText, BilingualTextConfig
from tonggan.models.towers import Pixels
from tonggan.tensors import Tokens

Projection: TypeAlias = Literal["linear", "mlp", "centred", "none"]
ImageTowerConfig: TypeAlias = Annotated[
    towers.ViTConfig | towers.ResNetConfig | towers.EfficientNetConfig | ConseConfig, Field(discriminator="kind")
]
TextTowerConfig: TypeAlias = Annotated[
    towers.TransformerTextConfig | towers.BertTextConfig | towers.RecurrentTextConfig | BilingualTextConfig, Field(discriminator="kind")
]
ImageTower: TypeAlias = towers.ImageTower | ConseTower
TextTower: TypeAlias = towers.TextTower | BilingualText


class DualEncoderConfig(Config):
    """Two towers and their heads. A sentence encoder is one with a text tower only, and no projection."""

    kind: Literal["dual_encoder"] = "dual_encoder"
    image: ImageTowerConfig | None = None
    text: TextTowerConfig | None = None
    dim: int = 512
    image_projection: Projection = "linear"
    text_projection: Projection = "linear"
    head_dropout: float = 0.0
    """On what enters a head: with frozen towers and little data the strongest cure for overfitting."""
    scale_init: float = math.log(1 / 0.07)
    """Logarithm of the initial scale of the cosines."""
    max_scale: float = 100.0
    bias_init: float | None = None
    """SigLIP's bias (-10 in the paper); None: no bias."""


class DualEncoder(nn.Module):
    """Towers, heads, and the learned scale (shape [1], so that it can be sharded like any other weight)."""

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__()
        self.config, self.dim = config, config.dim
        self.image: ImageTower | None = _image(config.image) if config.image is not None else None
        self.text: TextTower | None = _text(config.text) if config.text is not None else None
        self.image_head = _head(self.image, config.image_projection, config)
        self.text_head = _head(self.text, config.text_projection, config)
        self.log_scale = nn.Parameter(torch.tensor([config.scale_init]))
        self.bias = nn.Parameter(torch.tensor([config.bias_init])) if config.bias_init is not None else None

    def image_features(self, pixels: Pixels) -> Float[Tensor, "B Wi"]:
        """What the picture tower gives, before the head."""
        assert self.image is not None, "this model has no picture tower"
        return self.image(pixels)

    def text_features(self, tokens: Tokens) -> Float[Tensor, "B Wt"]:
        """What the text tower gives, before the head."""
        assert self.text is not None, "this model has no text tower"
        return self.text(tokens)

    def encode_image(self, pixels: Pixels | None = None, *, features: Float[Tensor, "B Wi"] | None = None) -> Float[Tensor, "B D"]:
        """Unit vectors of pictures, or of tower outputs that were computed before."""
        if features is None:
            assert pixels is not None, "give pixels or features"
            features = self.image_features(pixels)
        return F.normalize(self.image_head(features), dim=-1)

    def encode_text(self, tokens: Tokens | None = None, *, features: Float[Tensor, "B Wt"] | None = None) -> Float[Tensor, "B D"]:
        """Unit vectors of texts, or of tower outputs that were computed before; given both, the features are those of texts that a
        bilingual tower's BERT reads, and its n-grams read the others."""
        if tokens is not None and features is not None:
            assert isinstance(self.text, BilingualText), "tokens beside features: only a bilingual tower reads in two parts"
            features = self.text(tokens, features)
        elif features is None:
            assert tokens is not None, "give tokens or features"
            features = self.text_features(tokens)
        return F.normalize(self.text_head(features), dim=-1)


def _image(config: ImageTowerConfig) -> ImageTower:
    return ConseTower(config) if isinstance(config, ConseConfig) else towers.build_image(config)


def _text(config: TextTowerConfig) -> TextTower:
    return BilingualText(config) if isinstance(config, BilingualTextConfig) else towers.build_text(config)


def _head(tower: ImageTower | TextTower | None, projection: Projection, config: DualEncoderConfig) -> nn.Module:
    if tower is None or projection == "none":
        if tower is not None and tower.width != config.dim:
            raise ValueError(f"without a projection the tower's width {tower.width} must be dim {config.dim}")
        return nn.Identity()
    if projection == "centred":
        kind = ConseHead if isinstance(tower, ConseTower) else CentredHead
        return kind(tower.width, config.dim, config.head_dropout)
    first = nn.Linear(tower.width, config.dim, bias=False)
    nn.init.normal_(first.weight, std=tower.width**-0.5)
    drop = [nn.Dropout(config.head_dropout)] if config.head_dropout else []
    if projection == "linear":
        return nn.Sequential(*drop, first) if drop else first
    return nn.Sequential(*drop, nn.Linear(tower.width, 2 * config.dim), nn.GELU(), nn.Linear(2 * config.dim, config.dim))
