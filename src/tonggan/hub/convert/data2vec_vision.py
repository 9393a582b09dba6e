"""data2vec's picture model (`Data2VecVisionModel`, Baevski et al. 2022), which is BEiT's encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tonggan.config import height_width
from tonggan.data.images import ImageProcessor
from tonggan.data.processor import Processor
from tonggan.hub.convert.fields import activation_in, activation_out, need
from tonggan.hub.convert.preprocessor import image_in, image_misfit, image_out, read_settings
from tonggan.hub.convert.table import Change, KeyTable, Rules, prefixed
from tonggan.hub.convert.tensors_in import only
from tonggan.hub.weights import write_json
from tonggan.models import Data2Vec, Data2VecConfig, ModelConfig
from tonggan.models.towers import Beit, BeitConfig
from tonggan.types import TongganError

MODEL_TYPES = ("data2vec-vision",)

TOKEN = Change(lambda t: t.reshape(-1), lambda t: t.reshape(1, 1, -1))
POSITIONS = Change(lambda t: t[0], lambda t: t[None])
LAYER: Rules = {
    "attention.attention.query.{p}": "attention.q.{p}",
    "attention.attention.key.{p}": "attention.k.{p}",
    "attention.attention.value.{p}": "attention.v.{p}",
    "attention.attention.relative_position_bias.relative_position_bias_table": "attention.bias.table",
    "attention.attention.relative_position_bias.relative_position_index": None,  # follows from the grid: older versions stored it
    "attention.output.dense.{p}": "attention.out.{p}",
    "layernorm_before.{p}": "norm1.{p}",
    "intermediate.dense.{p}": "feed_forward.up.{p}",
    "output.dense.{p}": "feed_forward.down.{p}",
    "layernorm_after.{p}": "norm2.{p}",
    "lambda_1": "scale1.factor",
    "lambda_2": "scale2.factor",
}
TABLE = KeyTable(
    "data2vec-vision",
    prefixed("", "image.", {
        "embeddings.cls_token": ("class_token", TOKEN),
        "embeddings.mask_token": ("mask_token", TOKEN),
        "embeddings.position_embeddings": ("positions.weight", POSITIONS),
        "embeddings.patch_embeddings.projection.{p}": "patches.{p}",
        "encoder.relative_position_bias.relative_position_bias_table": "distances.table",
        "encoder.relative_position_bias.relative_position_index": None,
        **prefixed("encoder.layer.{i}.", "transformer.blocks.{i}.", LAYER),
        "layernorm.{p}": "post_norm.{p}",
    }),
)  # fmt: skip


def table(config: ModelConfig) -> KeyTable:
    """data2vec's names."""
    return TABLE


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    where = str(directory / "config.json")
    need(raw, {"num_channels": 3}, where)
    size = raw.get("image_size", 224)
    high, wide = height_width(size if isinstance(size, int) else tuple(size))
    if high != wide:  # the library's own model takes its tables of places and of distances for those of a square
        raise TongganError(f"{where}: image_size={size}: pictures that are not square are not supported")
    processing = image_in(*read_settings(directory), "Beit")
    image = BeitConfig(
        image_size=high,
        mean=processing.mean,
        std=processing.std,
        patch_size=raw.get("patch_size", 16),
        width=raw.get("hidden_size", 768),
        layers=raw.get("num_hidden_layers", 12),
        heads=raw.get("num_attention_heads", 12),
        mlp_width=raw.get("intermediate_size", 3072),
        activation=activation_in(raw.get("hidden_act", "gelu"), where),
        eps=raw.get("layer_norm_eps", 1e-12),
        absolute=raw.get("use_absolute_position_embeddings", False),
        relative=_relative(raw, where),
        layer_scale=raw.get("layer_scale_init_value", 0.1) or None,
        mask_token=raw.get("use_mask_token", False),
        pooling="mean" if raw.get("use_mean_pooling", True) else "class",
    )
    return Data2VecConfig(image=image), Processor(image=ImageProcessor(processing))


def config_out(image: BeitConfig) -> dict[str, Any]:
    """Their config.json of ours."""
    return {
        "architectures": ["Data2VecVisionModel"],
        "model_type": "data2vec-vision",
        "dtype": "float32",
        "image_size": height_width(image.image_size)[0],
        "patch_size": image.patch_size,
        "num_channels": 3,
        "hidden_size": image.width,
        "num_hidden_layers": image.layers,
        "num_attention_heads": image.heads,
        "intermediate_size": image.mlp_width,
        "hidden_act": activation_out(image.activation),
        "layer_norm_eps": image.eps,
        "use_absolute_position_embeddings": image.absolute,
        "use_relative_position_bias": image.relative == "each",
        "use_shared_relative_position_bias": image.relative == "shared",
        "layer_scale_init_value": image.layer_scale or 0.0,
        "use_mask_token": image.mask_token,
        "use_mean_pooling": image.pooling == "mean",
    }


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json and preprocessor_config.json."""
    assert isinstance(config, Data2VecConfig) and config.image is not None and processor.image is not None
    write_json(directory / "config.json", config_out(config.image))
    write_json(directory / "preprocessor_config.json", image_out(processor.image.config) | {"image_processor_type": "BeitImageProcessor"})


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, Data2VecConfig) or config.image is None:
        return "it is not data2vec's for pictures"
    high, wide = height_width(config.image.image_size)
    if high != wide:
        return "its pictures are not square"
    if processor is None:
        return None
    return "it has no picture processor" if processor.image is None else image_misfit(processor.image.config)


def outputs(module: Data2Vec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`last_hidden_state` from `pixel_values` [B, 3, H, W], with those patches hidden that `bool_masked_pos` [B, P] says."""
    only(inputs, ("pixel_values", "bool_masked_pos"))
    tower = module.tower("image")
    assert isinstance(tower, Beit)
    hidden = inputs.get("bool_masked_pos")
    return {"last_hidden_state": tower.tokens(inputs["pixel_values"], hidden=None if hidden is None else hidden.bool()).states}


def _relative(raw: Mapping[str, Any], where: str) -> Literal["none", "each", "shared"]:
    each, shared = raw.get("use_relative_position_bias", False), raw.get("use_shared_relative_position_bias", False)
    if each and shared:
        raise TongganError(f"{where}: use_relative_position_bias and use_shared_relative_position_bias together are not supported")
    return "each" if each else "shared" if shared else "none"
