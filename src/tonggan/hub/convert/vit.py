"""ViT (Dosovitskiy et al. 2021) as Hugging Face publishes it: `ViTForImageClassification`, and `ViTModel` as a picture tower."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tonggan.data.images import ImageProcessor
from tonggan.data.processor import Processor
from tonggan.hub.convert.efficientnet_hf import pictures_misfit
from tonggan.hub.convert.fields import activation_in, activation_out, classes_in, need
from tonggan.hub.convert.preprocessor import image_in, image_out, read_settings
from tonggan.hub.convert.table import Change, KeyTable, Rules, prefixed
from tonggan.hub.convert.tensors_in import only
from tonggan.hub.weights import tensor_names, write_json
from tonggan.models import Classifier, ClassifierConfig, DualEncoder, DualEncoderConfig, ModelConfig
from tonggan.models.towers import Colour, ViT, ViTConfig

MODEL_TYPES = ("vit",)
HEADS = CLASSIFIER, TOWER_ALONE = "ViTForImageClassification", "ViTModel"

LAYER: Rules = {
    "attention.attention.query.{p}": "attention.q.{p}",
    "attention.attention.key.{p}": "attention.k.{p}",
    "attention.attention.value.{p}": "attention.v.{p}",
    "attention.output.dense.{p}": "attention.out.{p}",
    "layernorm_before.{p}": "norm1.{p}",
    "intermediate.dense.{p}": "feed_forward.up.{p}",
    "output.dense.{p}": "feed_forward.down.{p}",
    "layernorm_after.{p}": "norm2.{p}",
}
TOWER: Rules = {
    "embeddings.cls_token": ("class_token", Change(lambda t: t.reshape(-1), lambda t: t.reshape(1, 1, -1))),
    "embeddings.position_embeddings": ("positions.weight", Change(lambda t: t.squeeze(0), lambda t: t.unsqueeze(0))),
    "embeddings.patch_embeddings.projection.{p}": "patches.{p}",
    "embeddings.mask_token": None,  # of training by masked pictures
    **prefixed("encoder.layer.{i}.", "transformer.blocks.{i}.", LAYER),
    "layernorm.{p}": "post_norm.{p}",
    "pooler.dense.{p}": "pooler.{p}",
}


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours."""
    if isinstance(config, ClassifierConfig):
        return KeyTable("ViT", {**prefixed("vit.", "image.", TOWER), "classifier.{p}": "head.{p}"})
    return KeyTable("ViT", prefixed("", "image.", TOWER), ours_only=frozenset({"log_scale"}))  # one tower alone compares nothing


def tower_in(raw: Mapping[str, Any], where: str, mean: Colour, std: Colour, *, pooler: bool) -> ViTConfig:
    """Our tower of their config.json."""
    width = raw.get("hidden_size", 768)
    need(raw, {"num_channels": 3, "qkv_bias": True}, where)
    if pooler:
        need(raw, {"pooler_act": "tanh", "pooler_output_size": width}, where)
    return ViTConfig.parse(
        {
            "image_size": raw.get("image_size", 224),
            "mean": mean,
            "std": std,
            "patch_size": raw.get("patch_size", 16),
            "width": width,
            "layers": raw.get("num_hidden_layers", 12),
            "heads": raw.get("num_attention_heads", 12),
            "mlp_width": raw.get("intermediate_size", 3072),
            "activation": activation_in(raw.get("hidden_act", "gelu"), where),
            "eps": raw.get("layer_norm_eps", 1e-12),
            "pre_norm": False,
            "patch_bias": True,
            "pooler": pooler,
            "dropout": raw.get("hidden_dropout_prob", 0.0),
        },
        where,
    )


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    where = str(directory / "config.json")
    image = image_in(*read_settings(directory), "ViT")
    classifies = CLASSIFIER in raw["architectures"]
    pooler = not classifies and "pooler.dense.weight" in tensor_names(directory)
    tower = tower_in(raw, where, image.mean, image.std, pooler=pooler)
    config: ModelConfig
    if classifies:
        config = ClassifierConfig(image=tower, classes=classes_in(raw, where))
    else:
        config = DualEncoderConfig(image=tower, dim=tower.width, image_projection="none")
    return config, Processor(ImageProcessor(image))


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json and preprocessor_config.json."""
    assert isinstance(config, ClassifierConfig | DualEncoderConfig) and isinstance(config.image, ViTConfig) and processor.image is not None
    image, many = config.image, isinstance(config, ClassifierConfig)
    raw = {
        "architectures": [CLASSIFIER if many else TOWER_ALONE],
        "model_type": "vit",
        "dtype": "float32",
        "image_size": image.image_size,
        "patch_size": image.patch_size,
        "num_channels": 3,
        "hidden_size": image.width,
        "num_hidden_layers": image.layers,
        "num_attention_heads": image.heads,
        "intermediate_size": image.mlp_width,
        "hidden_act": activation_out(image.activation),
        "layer_norm_eps": image.eps,
        "hidden_dropout_prob": image.dropout,
        "qkv_bias": True,
        **({"num_labels": config.classes} if isinstance(config, ClassifierConfig) else {}),
    }
    write_json(directory / "config.json", raw)
    write_json(directory / "preprocessor_config.json", image_out(processor.image.config, "ViT"))


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    image = getattr(config, "image", None)
    if not isinstance(image, ViTConfig):
        return "its picture tower is not a ViT"
    if image.pooling != "class" or image.pre_norm or not image.patch_bias or image.positions != "learned":
        return "its ViT is not the original (class token, no norm before the blocks, learned positions, patches with bias)"
    if image.pooler and isinstance(config, ClassifierConfig):
        return "a classifier has no place for a pooler"
    return pictures_misfit(config, processor)


def outputs(module: DualEncoder | Classifier, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`last_hidden_state`; a tower's `pooler_output`, where it has a pooler; a classifier's `logits`."""
    only(inputs, ("pixel_values",))
    assert isinstance(module.image, ViT)
    hidden = module.image.tokens(inputs["pixel_values"])
    found = {"last_hidden_state": module.image.post_norm(hidden.states)}
    pooled = module.image.summary(hidden)
    if isinstance(module, Classifier):
        return {**found, "logits": module.head(pooled)}
    return {**found, "pooler_output": pooled} if module.image.pooler is not None else found
