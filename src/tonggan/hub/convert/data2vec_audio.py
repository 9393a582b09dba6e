"""data2vec's speech model (`Data2VecAudioModel`, Baevski et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tonggan.data.audio import AudioProcessor
from tonggan.data.processor import Processor
from tonggan.hub.convert.fields import activation_in, activation_out, need
from tonggan.hub.convert.preprocessor import read_settings
from tonggan.hub.convert.preprocessor_audio import audio_in, audio_misfit, audio_out
from tonggan.hub.convert.table import KeyTable, Rules, prefixed
from tonggan.hub.convert.tensors_in import only, sounds_in
from tonggan.hub.weights import write_json
from tonggan.models import Data2Vec, Data2VecConfig, ModelConfig
from tonggan.models.towers import Waveform, WaveformConfig

MODEL_TYPES = ("data2vec-audio",)

LAYER: Rules = {
    "attention.q_proj.{p}": "attention.q.{p}",
    "attention.k_proj.{p}": "attention.k.{p}",
    "attention.v_proj.{p}": "attention.v.{p}",
    "attention.out_proj.{p}": "attention.out.{p}",
    "layer_norm.{p}": "norm1.{p}",
    "feed_forward.intermediate_dense.{p}": "feed_forward.up.{p}",
    "feed_forward.output_dense.{p}": "feed_forward.down.{p}",
    "final_layer_norm.{p}": "norm2.{p}",
}
TABLE = KeyTable(
    "data2vec-audio",
    prefixed("", "audio.", {
        "feature_extractor.conv_layers.{i}.conv.{p}": "stem.convs.{i}.{p}",
        "feature_extractor.conv_layers.{i}.layer_norm.{p}": "stem.norms.{i}.{p}",
        "feature_projection.layer_norm.{p}": "stem_norm.{p}",
        "feature_projection.projection.{p}": "projection.{p}",
        "masked_spec_embed": "mask_token",
        "encoder.pos_conv_embed.layers.{i}.conv.{p}": "positions.convs.{i}.{p}",
        "encoder.layer_norm.{p}": "norm.{p}",
        **prefixed("encoder.layers.{i}.", "transformer.blocks.{i}.", LAYER),
    }),
)  # fmt: skip
CONVOLUTIONS = {"conv_dim": (512,) * 7, "conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}


def table(config: ModelConfig) -> KeyTable:
    """data2vec's names."""
    return TABLE


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    where = str(directory / "config.json")
    need(raw, {"add_adapter": False}, where)
    channels, kernels, strides = (tuple(raw.get(name, default)) for name, default in CONVOLUTIONS.items())
    audio = WaveformConfig(
        channels=channels,
        kernels=kernels,
        strides=strides,
        stem_bias=raw.get("conv_bias", False),
        stem_activation=activation_in(raw.get("feat_extract_activation", "gelu"), where),
        width=raw.get("hidden_size", 768),
        layers=raw.get("num_hidden_layers", 12),
        heads=raw.get("num_attention_heads", 12),
        mlp_width=raw.get("intermediate_size", 3072),
        activation=activation_in(raw.get("hidden_act", "gelu"), where),
        eps=raw.get("layer_norm_eps", 1e-5),
        position_layers=raw.get("num_conv_pos_embeddings", 5),
        position_kernel=raw.get("conv_pos_kernel_size", 19),
        position_groups=raw.get("num_conv_pos_embedding_groups", 16),
        # The library's model has the vector when it would hide anything in training.
        mask_token=raw.get("mask_time_prob", 0.05) > 0 or raw.get("mask_feature_prob", 0.0) > 0,
    )
    processing = audio_in(*read_settings(directory, "feature_extractor"))
    return Data2VecConfig(audio=audio), Processor(audio=AudioProcessor(processing))


def config_out(audio: WaveformConfig) -> dict[str, Any]:
    """Their config.json of ours."""
    return {
        "architectures": ["Data2VecAudioModel"],
        "model_type": "data2vec-audio",
        "dtype": "float32",
        "conv_dim": list(audio.channels),
        "conv_kernel": list(audio.kernels),
        "conv_stride": list(audio.strides),
        "conv_bias": audio.stem_bias,
        "feat_extract_activation": activation_out(audio.stem_activation),
        "hidden_size": audio.width,
        "num_hidden_layers": audio.layers,
        "num_attention_heads": audio.heads,
        "intermediate_size": audio.mlp_width,
        "hidden_act": activation_out(audio.activation),
        "layer_norm_eps": audio.eps,
        "num_conv_pos_embeddings": audio.position_layers,
        "conv_pos_kernel_size": audio.position_kernel,
        "num_conv_pos_embedding_groups": audio.position_groups,
        "mask_time_prob": 0.05 if audio.mask_token else 0.0,
        "mask_feature_prob": 0.0,
        "add_adapter": False,
    }


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json and preprocessor_config.json."""
    assert isinstance(config, Data2VecConfig) and isinstance(config.audio, WaveformConfig) and processor.audio is not None
    write_json(directory / "config.json", config_out(config.audio))
    write_json(directory / "preprocessor_config.json", audio_out(processor.audio.config))


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, Data2VecConfig) or config.audio is None:
        return "it is not data2vec's for speech"
    if not isinstance(config.audio, WaveformConfig):
        return "it reads spectrograms; the format has a place for waveforms"
    if processor is None:
        return None
    return "it has no sound processor" if processor.audio is None else audio_misfit(processor.audio.config)


def outputs(module: Data2Vec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`last_hidden_state` and `extract_features` from `input_values` [B, S] and `attention_mask`, padded on the right, with those frames
    hidden that `mask_time_indices` [B, T] says."""
    only(inputs, ("input_values", "attention_mask", "mask_time_indices"))
    tower = module.tower("audio")
    assert isinstance(tower, Waveform)
    sounds, hidden = sounds_in(inputs, "input_values"), inputs.get("mask_time_indices")
    states = tower.tokens(sounds, hidden=None if hidden is None else hidden.bool(), padding="seen").states
    return {"last_hidden_state": states, "extract_features": tower.stem_norm(tower.stem(sounds.values))}
