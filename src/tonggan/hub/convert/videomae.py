"""VideoMAE's encoder (`VideoMAEModel`, Tong et al. 2022). Of a model as it was pre-trained the decoder, which draws pixels, is dropped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tonggan.config import height_width
from tonggan.data.processor import Processor
from tonggan.data.video import VideoProcessor
from tonggan.hub.convert.fields import activation_in, activation_out, need
from tonggan.hub.convert.preprocessor import read_settings
from tonggan.hub.convert.preprocessor_audio import video_in, video_misfit, video_out
from tonggan.hub.convert.table import KeyTable, Rules, prefixed
from tonggan.hub.convert.tensors_in import only
from tonggan.hub.weights import write_json
from tonggan.models import DualEncoder, DualEncoderConfig, ModelConfig
from tonggan.models.towers import TubeletConfig, Tubelets

MODEL_TYPES = ("videomae",)

LAYER: Rules = {
    "attention.attention.query.weight": "attention.q.weight",
    "attention.attention.key.weight": "attention.k.weight",
    "attention.attention.value.weight": "attention.v.weight",
    "attention.attention.q_bias": "attention.q.bias",
    "attention.attention.v_bias": "attention.v.bias",
    "attention.attention.query.bias": "attention.q.bias",  # as the newest library calls them in memory
    "attention.attention.value.bias": "attention.v.bias",
    "attention.output.dense.{p}": "attention.out.{p}",
    "layernorm_before.{p}": "norm1.{p}",
    "intermediate.dense.{p}": "feed_forward.up.{p}",
    "output.dense.{p}": "feed_forward.down.{p}",
    "layernorm_after.{p}": "norm2.{p}",
}
ENCODER: Rules = {
    "embeddings.patch_embeddings.projection.{p}": "tubelets.{p}",
    **prefixed("encoder.layer.{i}.", "transformer.blocks.{i}.", LAYER),
    "layernorm.{p}": "post_norm.{p}",
}
DECODER: Rules = dict.fromkeys([
    "encoder_to_decoder.weight", "mask_token", "decoder.norm.{p}", "decoder.head.{p}",
    *(f"decoder.decoder_layers.{{i}}.{name}" for name in LAYER),
])  # fmt: skip
TABLE = KeyTable(
    "VideoMAE",
    {**prefixed("", "video.", ENCODER), **prefixed("videomae.", "video.", ENCODER), **DECODER},
    ours_only=frozenset({"log_scale"}),  # one tower alone compares nothing
)


def table(config: ModelConfig) -> KeyTable:
    """VideoMAE's names."""
    return TABLE


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    where = str(directory / "config.json")
    need(raw, {"num_channels": 3, "qv_bias": True, "qkv_bias": True}, where)
    width, mean_pooling, size = raw.get("hidden_size", 768), raw.get("use_mean_pooling", True), raw.get("image_size", 224)
    processing = video_in(*read_settings(directory), frames=raw.get("num_frames", 16))
    video = TubeletConfig(
        image_size=size if isinstance(size, int) else tuple(size),
        mean=processing.image.mean,
        std=processing.image.std,
        frames=raw.get("num_frames", 16),
        tubelet=raw.get("tubelet_size", 2),
        patch_size=raw.get("patch_size", 16),
        width=width,
        layers=raw.get("num_hidden_layers", 12),
        heads=raw.get("num_attention_heads", 12),
        mlp_width=raw.get("intermediate_size", 3072),
        activation=activation_in(raw.get("hidden_act", "gelu"), where),
        eps=raw.get("layer_norm_eps", 1e-12),
        post_norm=not mean_pooling,
        pooling="mean" if mean_pooling else "first",
    )
    config = DualEncoderConfig(video=video, dim=width, video_projection="none")
    return config, Processor(video=VideoProcessor(processing))


def config_out(video: TubeletConfig) -> dict[str, Any]:
    """Their config.json of ours."""
    high, wide = height_width(video.image_size)
    return {
        "architectures": ["VideoMAEModel"],
        "model_type": "videomae",
        "dtype": "float32",
        "image_size": high if high == wide else [high, wide],
        "patch_size": video.patch_size,
        "num_channels": 3,
        "num_frames": video.frames,
        "tubelet_size": video.tubelet,
        "hidden_size": video.width,
        "num_hidden_layers": video.layers,
        "num_attention_heads": video.heads,
        "intermediate_size": video.mlp_width,
        "hidden_act": activation_out(video.activation),
        "layer_norm_eps": video.eps,
        "qkv_bias": True,
        "use_mean_pooling": video.pooling == "mean",
    }


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json and preprocessor_config.json."""
    assert isinstance(config, DualEncoderConfig) and isinstance(config.video, TubeletConfig) and processor.video is not None
    write_json(directory / "config.json", config_out(config.video))
    write_json(directory / "preprocessor_config.json", video_out(processor.video.config))


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if (
        not isinstance(config, DualEncoderConfig)
        or not isinstance(config.video, TubeletConfig)
        or config.image
        or config.text
        or config.audio
    ):
        return "it is not a VideoMAE"
    if config.video_projection != "none":
        return "it has a projection"
    if (config.video.pooling == "mean") == config.video.post_norm:
        return "it has a last norm before the mean, or none before its first state"
    if processor is None:
        return None
    return "it has no video processor" if processor.video is None else video_misfit(processor.video.config)


def outputs(module: DualEncoder, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`last_hidden_state` from `pixel_values` [B, T, 3, H, W]."""
    only(inputs, ("pixel_values",))
    assert isinstance(module.video, Tubelets)
    return {"last_hidden_state": module.video.tokens(inputs["pixel_values"]).states}
