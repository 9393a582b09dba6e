"""EfficientNet B0 to B7 as Hugging Face publishes it: `EfficientNetForImageClassification`, and `EfficientNetModel` as a picture tower.

Theirs hands TensorFlow's batch-norm momentum, 0.99 of the old, to a framework that counts the new: running statistics would be those of
the last batch. Ours train with 0.01; evaluation is the same. Theirs also drops single numbers of a block's branch where the original drops
whole pictures' branches, as ours do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from tonggan.data.images import ImageProcessor
from tonggan.data.processor import Processor
from tonggan.hub.convert.fields import classes_in, need
from tonggan.hub.convert.preprocessor import image_in, image_misfit, image_out, read_settings
from tonggan.hub.convert.table import KeyTable, Rules, prefixed
from tonggan.hub.convert.tensors_in import only
from tonggan.hub.weights import write_json
from tonggan.models import Classifier, ClassifierConfig, DualEncoder, DualEncoderConfig, ModelConfig
from tonggan.models.towers import Colour, ConvTower, EfficientNetConfig, published_factors
from tonggan.types import TongganError

MODEL_TYPES = ("efficientnet",)
CLASSIFIER = "EfficientNetForImageClassification"

BLOCK: Rules = {
    "expansion.expand_conv.weight": "expand.weight",
    "expansion.expand_bn.{p}": "norm0.{p}",
    "depthwise_conv.depthwise_conv.weight": "depthwise.weight",
    "depthwise_conv.depthwise_norm.{p}": "norm1.{p}",
    "squeeze_excite.reduce.{p}": "squeeze.reduce.{p}",
    "squeeze_excite.expand.{p}": "squeeze.expand.{p}",
    "projection.project_conv.weight": "project.weight",
    "projection.project_bn.{p}": "norm2.{p}",
}
TOWER: Rules = {
    "embeddings.convolution.weight": "net.stem.weight",
    "embeddings.batchnorm.{p}": "net.norm0.{p}",
    **prefixed("encoder.blocks.{i}.", "net.blocks.{i}.", BLOCK),
    "encoder.top_conv.weight": "net.head.weight",
    "encoder.top_bn.{p}": "net.norm1.{p}",
}
FIXED: dict[str, Any] = {
    "num_channels": 3, "depth_divisor": 8, "kernel_sizes": [3, 3, 5, 3, 5, 5, 3], "in_channels": [32, 16, 24, 40, 80, 112, 192],
    "out_channels": [16, 24, 40, 80, 112, 192, 320], "strides": [1, 2, 2, 2, 1, 2, 1], "num_block_repeats": [1, 2, 2, 3, 3, 4, 1],
    "expand_ratios": [1, 6, 6, 6, 6, 6, 6], "squeeze_expansion_ratio": 0.25, "hidden_act": "swish", "pooling_type": "mean",
    "batch_norm_eps": 0.001,
}  # fmt: skip
"""Of the network that the factors scale (Tan and Le 2019, table 1): all published ones have it."""


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours; a tower alone may come from a classifier, and leaves its head."""
    if isinstance(config, ClassifierConfig):
        return KeyTable("EfficientNet", {**prefixed("efficientnet.", "image.", TOWER), "classifier.{p}": "head.{p}"})
    return KeyTable("EfficientNet", prefixed("", "image.", TOWER), ours_only=frozenset({"log_scale"}))


def tower_in(raw: Mapping[str, Any], where: str, mean: Colour, std: Colour, *, head: bool = True) -> EfficientNetConfig:
    """Our tower of their config.json (or of ALIGN's vision_config, which has no head)."""
    need(raw, FIXED, where)
    size, factors = raw.get("image_size", 600), (float(raw.get("width_coefficient", 2.0)), float(raw.get("depth_coefficient", 3.1)))
    named = next((name for name in NAMES if published_factors(name) == factors), None)
    made = EfficientNetConfig.parse(
        {
            "image_size": size,
            "mean": mean,
            "std": std,
            "variant": named or "b0",
            "factors": None if named else factors,
            "odd": raw.get("depthwise_padding", []),
            "head": head,
            "dropout": raw.get("dropout_rate", 0.0),
            "drop_connect": raw.get("drop_connect_rate", 0.2),
        },
        where,
    )
    if head and (width := raw.get("hidden_dim", 2560)) != made.width:
        raise TongganError(f"{where}: hidden_dim is {width}, but a width_coefficient of {factors[0]} makes {made.width}")
    return made


NAMES = tuple(name for name in get_args(EfficientNetConfig.model_fields["variant"].annotation) if name.startswith("b"))


def tower_out(image: EfficientNetConfig) -> dict[str, Any]:
    """Their settings of our tower."""
    wide, deep = image.scaled_by
    return {
        **FIXED,
        "image_size": image.image_size,
        "width_coefficient": wide,
        "depth_coefficient": deep,
        "hidden_dim": image.model_copy(update={"head": True}).width,  # without a head it says nothing
        "depthwise_padding": list(image.odd or ()),
        "drop_connect_rate": image.drop_connect,
    }


def tower_misfit(image: object) -> str | None:
    """Why a picture tower is not one of theirs; None when it is."""
    if not isinstance(image, EfficientNetConfig) or image.variant not in NAMES:
        return "its picture tower is not an EfficientNet B0 to B7"
    if image.odd is None:
        return "its convolutions pad by the picture's size, where the format names the blocks"
    return None


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    where = str(directory / "config.json")
    image = image_in(*read_settings(directory), "EfficientNet")
    # Of pictures' sizes the processor's counts: a network of convolutions reads any.
    tower = tower_in({"dropout_rate": 0.5, **raw, "image_size": image.side}, where, image.mean, image.std)
    config: ModelConfig
    if CLASSIFIER in raw.get("architectures", ()):
        config = ClassifierConfig(image=tower, classes=classes_in(raw, where))
    else:
        config = DualEncoderConfig(image=tower, dim=tower.width, image_projection="none")
    return config, Processor(ImageProcessor(image))


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json and preprocessor_config.json."""
    assert isinstance(config, ClassifierConfig | DualEncoderConfig) and isinstance(config.image, EfficientNetConfig)
    assert processor.image is not None
    raw = {
        "architectures": [CLASSIFIER if isinstance(config, ClassifierConfig) else "EfficientNetModel"],
        "model_type": "efficientnet",
        "dtype": "float32",
        "dropout_rate": config.image.dropout,
        **tower_out(config.image),
        **({"num_labels": config.classes} if isinstance(config, ClassifierConfig) else {}),
    }
    write_json(directory / "config.json", raw)
    write_json(directory / "preprocessor_config.json", image_out(processor.image.config, "EfficientNet"))


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    image = getattr(config, "image", None)
    if isinstance(image, EfficientNetConfig) and not image.head:
        return "its EfficientNet has no head"
    return pictures_misfit(config, processor) or tower_misfit(image)


def pictures_misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why a model is not a classifier of pictures, nor a picture tower alone, with a processor that the library has."""
    if isinstance(config, DualEncoderConfig):
        if config.image is None or any(kind is not None for kind in (config.text, config.audio, config.video)):
            return "it is not a picture tower alone"
        if config.image_projection != "none" or config.bias_init is not None or config.temperature:
            return "it has a projection, SigLIP's bias or ALIGN's temperature"
    elif not isinstance(config, ClassifierConfig):
        return "it is neither a classifier nor a picture tower"
    if processor is None:
        return None
    return "it has no picture processor" if processor.image is None else image_misfit(processor.image.config)


def outputs(module: DualEncoder | Classifier, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`last_hidden_state` [B, D, H, W] and `pooler_output` [B, D]; a classifier's `logits`."""
    only(inputs, ("pixel_values",))
    assert isinstance(module.image, ConvTower)
    maps = module.image.maps(inputs["pixel_values"])
    pooled = module.image.summary(maps)
    found = {"last_hidden_state": maps, "pooler_output": pooled}
    return {**found, "logits": module.head(pooled)} if isinstance(module, Classifier) else found
