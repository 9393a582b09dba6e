"""Late fusion: a tower per modality, their features brought to one width and fused, and one head on top.

Shape letters: B rows, M modalities, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.towers import (
    AudioTowerConfig,
    ImageTowerConfig,
    Pixels,
    TextTowerConfig,
    VideoTowerConfig,
    build_audio,
    build_image,
    build_text,
    build_video,
)
from tonggan.nn.resampler import perceiver
from tonggan.tensors import MODALITIES, Modality, Tokens
from tonggan.types import UsageError


class LateFusionConfig(Config):
    """Two towers or more, how their features are fused, and what the head says."""

    kind: Literal["late_fusion"] = "late_fusion"
    image: ImageTowerConfig | None = None
    text: TextTowerConfig | None = None
    audio: AudioTowerConfig | None = None
    video: VideoTowerConfig | None = None
    fusion: Literal["concatenation", "attention", "mlp"] = "mlp"
    """`concatenation`: side by side, straight to the head; `attention`: a learned query attends to them; `mlp`: side by side through a
    hidden layer."""
    width: PositiveInt = 256
    heads: PositiveInt = 4
    """Of the attention."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    task: Literal["matching", "classification"] = "matching"
    classes: PositiveInt = 2

    @model_validator(mode="after")
    def _can_be_learnt(self) -> LateFusionConfig:
        given = [kind for kind in MODALITIES if getattr(self, kind) is not None]
        if len(given) < 2:
            raise ValueError(f"fusion needs two towers at least, of {', '.join(MODALITIES)}; got {', '.join(given) or 'none'}")
        if self.task == "matching" and (given != ["image", "text"] or self.classes != 2):
            raise ValueError("matching is of a picture with a text, and has two classes, no and yes; take task classification")
        if self.task == "matching" and self.fusion == "concatenation":
            raise ValueError(
                "a linear head on concatenated features adds what each says alone, and whether two things match is in neither; "
                "take fusion mlp or attention"
            )
        return self


class LateFusion(nn.Module):
    """Classes of what the towers read together."""

    def __init__(self, config: LateFusionConfig) -> None:
        super().__init__()
        self.config, self.classes = config, config.classes
        self.image = build_image(config.image) if config.image is not None else None
        self.text = build_text(config.text) if config.text is not None else None
        self.audio = build_audio(config.audio) if config.audio is not None else None
        self.video = build_video(config.video) if config.video is not None else None
        towers = {kind: tower for kind in MODALITIES if (tower := getattr(self, kind)) is not None}
        self.modalities: frozenset[Modality] = frozenset(towers)
        self.into = nn.ModuleDict(
            {kind: nn.Sequential(nn.Linear(tower.width, config.width), nn.LayerNorm(config.width)) for kind, tower in towers.items()}
        )
        self.fusion, wide = _fusion(config, len(towers))
        self.head = nn.Linear(wide, config.classes)

    def features(self, kind: Modality, inputs: Any) -> Float[Tensor, "B D"]:
        """What one tower gives."""
        if kind not in self.modalities:
            raise UsageError(f"this model has no tower for {kind}; it has: {', '.join(sorted(self.modalities))}")
        found: Tensor = getattr(self, kind)(inputs)
        return found

    def classify(self, inputs: Mapping[Modality, Any]) -> Float[Tensor, "B C"]:
        """Logits of the classes; every modality must be there."""
        if absent := sorted(self.modalities - set(inputs)):
            raise UsageError(f"late fusion reads all of {', '.join(sorted(self.modalities))}; {' and '.join(absent)} is not given")
        brought = [self.into[kind](self.features(kind, inputs[kind])) for kind in MODALITIES if kind in self.modalities]
        return self.head(self.fusion(torch.stack(brought, dim=1)))


class LateMatcher(LateFusion):
    """The same with two classes: no and yes."""

    def match(self, pixels: Pixels, tokens: Tokens) -> Float[Tensor, "B 2"]:
        """How well picture and text match."""
        return self.classify({"image": pixels, "text": tokens})


class Attend(nn.Module):
    """One learned query reads the modalities as a short sequence."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query = perceiver(width, heads)

    def forward(self, x: Float[Tensor, "B M D"]) -> Float[Tensor, "B D"]:
        return self.query(x)[:, 0]


def build_late_fusion(config: LateFusionConfig) -> LateFusion:
    """The class that does the task."""
    return LateMatcher(config) if config.task == "matching" else LateFusion(config)


def _fusion(config: LateFusionConfig, modalities: int) -> tuple[nn.Module, int]:
    """From [B, M, D] to one vector, and how wide that is."""
    width, wide = config.width, modalities * config.width
    match config.fusion:
        case "concatenation":
            return nn.Sequential(nn.Flatten(), nn.Dropout(config.dropout)), wide
        case "attention":
            return nn.Sequential(Attend(width, config.heads), nn.Dropout(config.dropout)), width
        case "mlp":
            return nn.Sequential(nn.Flatten(), nn.Linear(wide, 2 * width), nn.GELU(), nn.Dropout(config.dropout)), 2 * width
