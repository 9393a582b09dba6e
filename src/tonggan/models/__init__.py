"""Systems, one readable file each, and the union of their configurations."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field
from torch import nn

from tonggan.config import one_of
from tonggan.models.bert import BertConfig, MaskedBert
from tonggan.models.classifier import Classifier, ClassifierConfig
from tonggan.models.dual_encoder import DualEncoder, DualEncoderConfig
from tonggan.models.presets import presets

ModelConfig: TypeAlias = Annotated[
    DualEncoderConfig | ClassifierConfig | BertConfig,
    Field(discriminator="kind"),
]
"""Any system's configuration; `kind` says which."""


def build(config: ModelConfig) -> nn.Module:
    """The module of a configuration, with random weights from torch's global generator."""
    match config:
        case DualEncoderConfig():
            return DualEncoder(config)
        case ClassifierConfig():
            return Classifier(config)
        case BertConfig():
            return MaskedBert(config)


KINDS: dict[str, type[ModelConfig]] = {
    "dual_encoder": DualEncoderConfig,
    "classifier": ClassifierConfig,
    "bert": BertConfig,
}


def parse(data: object, where: str = "") -> ModelConfig:
    """A configuration out of plain data; raises `ConfigError` that names each wrong field."""
    kind = one_of(str(data.get("kind") if isinstance(data, dict) else None), KINDS, f"{where}: kind")
    return KINDS[kind].parse(data, where)


__all__ = [
    "BertConfig",
    "Classifier",
    "ClassifierConfig",
    "DualEncoder",
    "DualEncoderConfig",
    "MaskedBert",
    "ModelConfig",
    "build",
    "parse",
    "presets",
]
