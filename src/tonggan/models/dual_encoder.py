"""Two towers, one space (Radford et al. 2021): pictures and texts become unit vectors that are compared by a dot product.

Shape letters: B rows, D dim of the common space, W width of a tower.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from tonggan.config import Config
from tonggan.models import towers
from tonggan.models.conse import CentredHead, ConseConfig, ConseHead, ConseTower
from tonggan.models.ngram import BilingualText, BilingualTextConfig
from tonggan.tensors import MODALITIES, Modality
from tonggan.types import UsageError

Projection: TypeAlias = Literal["linear", "affine", "mlp", "centred", "none"]
"""`linear` has no bias, `affine` has one."""
ImageTowerConfig: TypeAlias = Annotated[
    towers.ViTConfig | towers.BeitConfig | towers.ResNetConfig | towers.EfficientNetConfig | ConseConfig, Field(discriminator="kind")
]
TextTowerConfig: TypeAlias = Annotated[
    towers.TransformerTextConfig | towers.BertTextConfig | towers.RecurrentTextConfig | BilingualTextConfig, Field(discriminator="kind")
]
ImageTower: TypeAlias = towers.ImageTower | towers.Beit | ConseTower
TextTower: TypeAlias = towers.TextTower | BilingualText
Tower: TypeAlias = ImageTower | TextTower | towers.AudioTower | towers.VideoTower


class DualEncoderConfig(Config):
    """Towers and their heads: two of the four kinds, or more. A sentence encoder is one with a text tower only, and no projection."""

    kind: Literal["dual_encoder"] = "dual_encoder"
    image: ImageTowerConfig | None = None
    text: TextTowerConfig | None = None
    audio: towers.AudioTowerConfig | None = None
    video: towers.VideoTowerConfig | None = None
    dim: PositiveInt = 512
    image_projection: Projection = "linear"
    text_projection: Projection = "linear"
    audio_projection: Projection = "linear"
    video_projection: Projection = "linear"
    head_dropout: float = 0.0
    """On what enters a head: with frozen towers and little data the strongest cure for overfitting."""
    scale_init: float = math.log(1 / 0.07)
    """Logarithm of the initial scale of the cosines."""
    max_scale: float = 100.0
    bias_init: float | None = None
    """SigLIP's bias (-10 in the paper); None: no bias."""
    temperature: bool = False
    """Learn the temperature itself, as ALIGN does (Jia et al. 2021, section 4.1), not the logarithm of its inverse."""


class DualEncoder(nn.Module):
    """Towers, heads, and the learned scale (shape [1], so that it can be sharded like any other weight)."""

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__()
        self.config, self.dim, self.max_scale = config, config.dim, config.max_scale
        self.image: ImageTower | None = _image(config.image) if config.image is not None else None
        self.text: TextTower | None = _text(config.text) if config.text is not None else None
        self.image_head = _head(self.image, config.image_projection, config)
        self.text_head = _head(self.text, config.text_projection, config)
        self.audio: towers.AudioTower | None = towers.build_audio(config.audio) if config.audio is not None else None
        self.video: towers.VideoTower | None = towers.build_video(config.video) if config.video is not None else None
        self.audio_head = _head(self.audio, config.audio_projection, config)
        self.video_head = _head(self.video, config.video_projection, config)
        self.log_scale = nn.Parameter(torch.tensor([config.scale_init]))
        if config.temperature:
            register_parametrization(self, "log_scale", Temperature())
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


class Temperature(nn.Module):
    """The logarithm of a scale whose inverse is what is learnt (`torch.nn.utils.parametrize`)."""

    def forward(self, temperature: Float[Tensor, "1"]) -> Float[Tensor, "1"]:
        return -temperature.log()

    def right_inverse(self, log_scale: Float[Tensor, "1"]) -> Float[Tensor, "1"]:
        """The temperature of a scale."""
        return (-log_scale).exp()


def _image(config: ImageTowerConfig) -> ImageTower:
    if isinstance(config, ConseConfig):
        return ConseTower(config)
    return towers.Beit(config) if isinstance(config, towers.BeitConfig) else towers.build_image(config)


def _text(config: TextTowerConfig) -> TextTower:
    return BilingualText(config) if isinstance(config, BilingualTextConfig) else towers.build_text(config)


def _head(tower: Tower | None, projection: Projection, config: DualEncoderConfig) -> nn.Module:
    if tower is None or projection == "none":
        if tower is not None and tower.width != config.dim:
            raise ValueError(f"without a projection the tower's width {tower.width} must be dim {config.dim}")
        return nn.Identity()
    if projection == "centred":
        kind = ConseHead if isinstance(tower, ConseTower) else CentredHead
        return kind(tower.width, config.dim, config.head_dropout)
    first = nn.Linear(tower.width, config.dim, bias=projection == "affine")
    nn.init.normal_(first.weight, std=tower.width**-0.5)
    if first.bias is not None:
        nn.init.zeros_(first.bias)
    drop = [nn.Dropout(config.head_dropout)] if config.head_dropout else []
    if projection in ("linear", "affine"):
        return nn.Sequential(*drop, first) if drop else first
    return nn.Sequential(*drop, nn.Linear(tower.width, 2 * config.dim), nn.GELU(), nn.Linear(2 * config.dim, config.dim))
