"""Whisper's encoder (`WhisperModel`, Radford et al. 2023): read out of a whole model, whose decoder is dropped.

What is left hears but says nothing, so it cannot be saved as Whisper again; it is saved in our own format.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tonggan.data.audio import AudioProcessor
from tonggan.data.processor import Processor
from tonggan.hub.convert.fields import activation_in
from tonggan.hub.convert.preprocessor import read_settings
from tonggan.hub.convert.preprocessor_audio import audio_in
from tonggan.hub.convert.table import KeyTable, Rules, prefixed
from tonggan.hub.convert.tensors_in import only
from tonggan.models import DualEncoder, DualEncoderConfig, ModelConfig
from tonggan.models.towers import LogMel, LogMelConfig
from tonggan.tensors import Sounds
from tonggan.types import TongganError

MODEL_TYPES = ("whisper",)

LAYER: Rules = {
    "self_attn.q_proj.{p}": "attention.q.{p}",
    "self_attn.k_proj.{p}": "attention.k.{p}",
    "self_attn.v_proj.{p}": "attention.v.{p}",
    "self_attn.out_proj.{p}": "attention.out.{p}",
    "self_attn_layer_norm.{p}": "norm1.{p}",
    "fc1.{p}": "feed_forward.up.{p}",
    "fc2.{p}": "feed_forward.down.{p}",
    "final_layer_norm.{p}": "norm2.{p}",
}
ENCODER: Rules = {
    "conv1.{p}": "stem.conv1.{p}",
    "conv2.{p}": "stem.conv2.{p}",
    "embed_positions.weight": "positions.weight",
    **prefixed("layers.{i}.", "transformer.blocks.{i}.", LAYER),
    "layer_norm.{p}": "post_norm.{p}",
}
DECODER: Rules = dict.fromkeys([
    "embed_tokens.weight", "embed_positions.weight", "layer_norm.{p}", *(f"layers.{{i}}.{name}" for name in LAYER),
    *(f"layers.{{i}}.encoder_attn.{name}_proj.{{p}}" for name in ("q", "k", "v", "out")), "layers.{i}.encoder_attn_layer_norm.{p}",
])  # fmt: skip
TABLE = KeyTable(
    "Whisper",
    {
        **prefixed("model.encoder.", "audio.", ENCODER),
        **prefixed("model.decoder.", "", DECODER),
        "proj_out.weight": None,
        # `WhisperModel`, without the head that says words, has no prefix.
        **prefixed("encoder.", "audio.", ENCODER),
        **prefixed("decoder.", "", DECODER),
    },
    ours_only=frozenset({"log_scale"}),  # one tower alone compares nothing
)


def table(config: ModelConfig) -> KeyTable:
    """Whisper's names."""
    return TABLE


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    width = raw.get("d_model", 384)
    audio = LogMelConfig(
        bins=raw.get("num_mel_bins", 80),
        context=raw.get("max_source_positions", 1500),
        width=width,
        layers=raw.get("encoder_layers", 4),
        heads=raw.get("encoder_attention_heads", 6),
        mlp_width=raw.get("encoder_ffn_dim", 1536),
        activation=activation_in(raw.get("activation_function", "gelu"), str(directory / "config.json")),
        padding="seen",
    )
    processing = audio_in(*read_settings(directory, "feature_extractor"))
    return DualEncoderConfig(audio=audio, dim=width, audio_projection="none"), Processor(audio=AudioProcessor(processing))


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """Never called: `misfit` refuses every model that comes with a processor."""
    raise TongganError(f"{directory}: {misfit(config, processor)}")


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None for what was an encoder of this format, as long as it is not to be written."""
    if (
        not isinstance(config, DualEncoderConfig)
        or not isinstance(config.audio, LogMelConfig)
        or config.image
        or config.text
        or config.video
    ):
        return "it is not a Whisper"
    if config.audio_projection != "none" or config.audio.padding != "seen":
        return "its encoder has a projection, or hears a sound without the silence behind it"
    return None if processor is None else "it is the encoder alone, and the format wants a decoder"


def outputs(module: DualEncoder, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`last_hidden_state` of the reference's encoder, from `input_features` [B, M, F]. As there, an `attention_mask` hides nothing."""
    only(inputs, ("input_features", "attention_mask"))
    assert isinstance(module.audio, LogMel)
    mels = inputs["input_features"]
    frames = torch.full((len(mels),), mels.shape[2], device=mels.device)
    return {"last_hidden_state": module.audio.tokens(Sounds(mels, frames)).states}
