"""Systems, one readable file each, and the union of their configurations."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from tonggan.config import one_of
from tonggan.models.classifier import Classifier, ClassifierConfig
from tonggan.models.dual_encoder import DualEncoder, DualEncoderConfig
from tonggan.models.presets import presets

ModelConfig: TypeAlias = Annotated[DualEncoderConfig | ClassifierConfig, Field(discriminator="kind")]


def build(config: DualEncoderConfig | ClassifierConfig) -> DualEncoder | Classifier:
    """The module of a configuration, with random weights from torch's global generator."""
    return DualEncoder(config) if isinstance(config, DualEncoderConfig) else Classifier(config)


def parse(data: object, where: str = "") -> DualEncoderConfig | ClassifierConfig:
    """A configuration out of plain data; raises `ConfigError` that names each wrong field."""
    kind = data.get("kind") if isinstance(data, dict) else None
    one_of(str(kind), ("dual_encoder", "classifier"), f"{where}: kind")
    return DualEncoderConfig.parse(data, where) if kind == "dual_encoder" else ClassifierConfig.parse(data, where)


__all__ = ["Classifier", "ClassifierConfig", "DualEncoder", "DualEncoderConfig", "ModelConfig", "build", "parse", "presets"]
