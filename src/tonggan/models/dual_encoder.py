"""Two towers, one space (Radford et al. 2021): pictures and texts become unit vectors that are compared by a dot product.

Shape letters: B rows, D dim of the common space, W width of a tower.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models import towers
from tonggan.models.conse import CentredHead, ConseConfig, ConseHead, ConseTower
from tonggan.models.ngram import BilingualText, BilingualTextConfig
from tonggan.tensors import MODALITIES, Modality
from tonggan.types import UsageError

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
        self.config, self.dim, self.max_scale = config, config.dim, config.max_scale
        self.image: ImageTower | None = _image(config.image) if config.image is not None else None
        self.text: TextTower | None = _text(config.text) if config.text is not None else None
        self.image_head = _head(self.image, config.image_projection, config)
        self.text_head = _head(self.text, config.text_projection, config)
        self.log_scale = nn.Parameter(torch.tensor([config.scale_init]))
        self.bias = nn.Parameter(torch.tensor([config.bias_init])) if config.bias_init is not None else None

    @property
    def modalities(self) -> frozenset[Modality]:
        """Kinds that it has a tower for."""
        return frozenset(kind for kind in MODALITIES if getattr(self, kind, None) is not None)

    def tower(self, kind: Modality) -> nn.Module:
        """The tower for a kind of input; raises `UsageError` when there is none."""
        if kind not in self.modalities:
            raise UsageError(f"this model has no tower for {kind}; it has: {', '.join(sorted(self.modalities))}")
        found: nn.Module = getattr(self, kind)
        return found

    def features(self, kind: Modality, inputs: Any) -> Float[Tensor, "B W"]:
        """What a tower gives, before the head."""
        pooled: Tensor = self.tower(kind)(inputs)
        return pooled

    def encode(self, kind: Modality, inputs: Any = None, *, features: Float[Tensor, "B W"] | None = None) -> Float[Tensor, "B D"]:
        """Unit vectors of inputs, or of tower outputs that were computed before.

        Given both tokens and features, the features are those of texts that a bilingual tower's BERT reads; its n-grams read the others.
        """
        if features is None:
            features = self.features(kind, inputs)
        elif inputs is not None and kind == "text":
            assert isinstance(self.text, BilingualText), "tokens beside features: only a bilingual tower reads in two parts"
            features = self.text(inputs, features)
        return F.normalize(getattr(self, f"{kind}_head")(features), dim=-1)


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
