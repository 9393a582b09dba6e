"""Systems, one readable file each, and the union of their configurations."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field
from torch import nn

from tonggan.config import ConfigError, one_of
from tonggan.models.bert import BertConfig, MaskedBert
from tonggan.models.captioner import Captioner, CaptionerConfig
from tonggan.models.chat import Chat, ChatConfig
from tonggan.models.classifier import Classifier, ClassifierConfig
from tonggan.models.coca import Coca, CocaConfig
from tonggan.models.cross import CoAttention, CoAttentionConfig, build_co_attention
from tonggan.models.data2vec import Data2Vec, Data2VecConfig
from tonggan.models.dual_encoder import DualEncoder, DualEncoderConfig
from tonggan.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tonggan.models.flamingo import Flamingo, FlamingoConfig
from tonggan.models.fusion import LateFusion, LateFusionConfig, build_late_fusion
from tonggan.models.git import Git, GitConfig
from tonggan.models.gpt import GPT, GPTConfig
from tonggan.models.presets import presets
from tonggan.models.vilt import SingleStream, SingleStreamConfig, build_single_stream
from tonggan.models.vlmo import VLMo, VLMoConfig

ModelConfig: TypeAlias = Annotated[
    DualEncoderConfig
    | ClassifierConfig
    | BertConfig
    | Data2VecConfig
    | VLMoConfig
    | SingleStreamConfig
    | CoAttentionConfig
    | LateFusionConfig
    | GPTConfig
    | FlamingoConfig
    | ChatConfig
    | CaptionerConfig
    | CocaConfig
    | GitConfig
    | EncoderDecoderConfig,
    Field(discriminator="kind"),
]
"""Any system's configuration; `kind` says which."""


def build(config: ModelConfig) -> nn.Module:
    """The module of a configuration, with random weights from torch's global generator.

    Raises `ConfigError` where sizes do not go together, such as a width that its heads do not divide.
    """
    try:
        return _built(config)
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"a {config.kind} of these sizes cannot be built: {error}") from None


def _built(config: ModelConfig) -> nn.Module:
    match config:
        case DualEncoderConfig():
            return DualEncoder(config)
        case ClassifierConfig():
            return Classifier(config)
        case BertConfig():
            return MaskedBert(config)
        case Data2VecConfig():
            return Data2Vec(config)
        case VLMoConfig():
            return VLMo(config)
        case SingleStreamConfig():
            return build_single_stream(config)
        case CoAttentionConfig():
            return build_co_attention(config)
        case LateFusionConfig():
            return build_late_fusion(config)
        case GPTConfig():
            return GPT(config)
        case FlamingoConfig():
            return Flamingo(config)
        case ChatConfig():
            return Chat(config)
        case CaptionerConfig():
            return Captioner(config)
        case CocaConfig():
            return Coca(config)
        case GitConfig():
            return Git(config)
        case EncoderDecoderConfig():
            return EncoderDecoder(config)


KINDS: dict[str, type[ModelConfig]] = {
    "dual_encoder": DualEncoderConfig,
    "classifier": ClassifierConfig,
    "bert": BertConfig,
    "data2vec": Data2VecConfig,
    "vlmo": VLMoConfig,
    "single_stream": SingleStreamConfig,
    "co_attention": CoAttentionConfig,
    "late_fusion": LateFusionConfig,
    "gpt": GPTConfig,
    "flamingo": FlamingoConfig,
    "chat": ChatConfig,
    "captioner": CaptionerConfig,
    "coca": CocaConfig,
    "git": GitConfig,
    "encoder_decoder": EncoderDecoderConfig,
}


def parse(data: object, where: str = "") -> ModelConfig:
    """A configuration out of plain data; raises `ConfigError` that names each wrong field."""
    kind = one_of(str(data.get("kind") if isinstance(data, dict) else None), KINDS, f"{where}: kind")
    return KINDS[kind].parse(data, where)


__all__ = [
    "GPT",
    "BertConfig",
    "Captioner",
    "CaptionerConfig",
    "Chat",
    "ChatConfig",
    "Classifier",
    "ClassifierConfig",
    "CoAttention",
    "CoAttentionConfig",
    "Coca",
    "CocaConfig",
    "Data2Vec",
    "Data2VecConfig",
    "DualEncoder",
    "DualEncoderConfig",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "Flamingo",
    "FlamingoConfig",
    "GPTConfig",
    "Git",
    "GitConfig",
    "LateFusion",
    "LateFusionConfig",
    "MaskedBert",
    "ModelConfig",
    "SingleStream",
    "SingleStreamConfig",
    "VLMo",
    "VLMoConfig",
    "build",
    "parse",
    "presets",
]
