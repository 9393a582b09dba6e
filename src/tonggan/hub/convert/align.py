"""ALIGN (Jia et al. 2021) as Hugging Face publishes it (`AlignModel`): an EfficientNet without its last convolution, and a BERT pooled at
its first token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tonggan.data.images import ImageProcessor
from tonggan.data.processor import Processor
from tonggan.hub.convert import bert, efficientnet_hf
from tonggan.hub.convert.chinese_clip import TEXT_INPUTS, words_misfit, words_out
from tonggan.hub.convert.clip import with_logits
from tonggan.hub.convert.preprocessor import image_in, image_out, read_settings
from tonggan.hub.convert.table import SCALAR_TO_VECTOR, KeyTable, prefixed
from tonggan.hub.convert.tensors_in import only
from tonggan.hub.convert.tokenizer import read_tokenizer
from tonggan.hub.weights import write_json
from tonggan.models import DualEncoder, DualEncoderConfig, ModelConfig
from tonggan.models.towers import BertTextConfig, ConvTower, EfficientNetConfig
from tonggan.types import TongganError

MODEL_TYPES = ("align",)


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours; dropout in front of a head shifts the head's place."""
    place = ".1" if isinstance(config, DualEncoderConfig) and config.head_dropout else ""
    return KeyTable(
        "ALIGN",
        {
            **prefixed("text_model.", "text.", bert.TOWER),
            **prefixed("vision_model.", "image.", efficientnet_hf.TOWER),
            "text_projection.{p}": f"text_head{place}.{{p}}",
            "temperature": ("parametrizations.log_scale.original", SCALAR_TO_VECTOR),
        },
    )


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    where = str(directory / "config.json")
    image = image_in(*read_settings(directory), "EfficientNet")
    # The published file speaks of the pictures of the network it was taken from; what this one reads, its processor says.
    vision = {**(raw.get("vision_config") or {}), "image_size": image.side}
    tower = efficientnet_hf.tower_in(vision, f"{where}: vision_config", image.mean, image.std, head=False)
    dim, width = raw.get("projection_dim", 640), tower.width
    if dim != width:
        raise TongganError(f"{where}: text vectors of {dim} numbers (projection_dim), picture vectors of {width} (width_coefficient)")
    config = DualEncoderConfig(
        image=tower,
        text=bert.tower_in(raw.get("text_config") or {}, directory, pooling="first"),
        dim=dim,
        image_projection="none",
        text_projection="affine",
        scale_init=-math.log(raw.get("temperature_init_value", 1.0)),
        max_scale=1000.0,  # there is no ceiling
        temperature=True,
    )
    assert config.text is not None
    text = read_tokenizer(directory, max_length=None, context=config.text.context, pad="[PAD]")
    return config, Processor(ImageProcessor(image), text)


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, preprocessor_config.json and the tokenizer's files."""
    assert (
        isinstance(config, DualEncoderConfig) and isinstance(config.image, EfficientNetConfig) and isinstance(config.text, BertTextConfig)
    )
    assert processor.image is not None and processor.text is not None
    raw = {
        "architectures": ["AlignModel"],
        "model_type": "align",
        "dtype": "float32",
        "projection_dim": config.dim,
        "temperature_init_value": math.exp(-config.scale_init),
        "text_config": {"model_type": "align_text_model", **bert.tower_out(config.text, processor.text.pad_id)},
        "vision_config": {"model_type": "align_vision_model", **efficientnet_hf.tower_out(config.image)},
    }
    write_json(directory / "config.json", raw)
    write_json(directory / "preprocessor_config.json", image_out(processor.image.config, "EfficientNet"))
    bert.write_words(directory, processor.text)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, DualEncoderConfig) or config.audio is not None or config.video is not None:
        return "it is not a dual encoder of pictures and text"
    if not isinstance(config.text, BertTextConfig):
        return "its text tower is not a BERT"
    if (config.image_projection, config.text_projection) != ("none", "affine") or config.bias_init is not None or not config.temperature:
        return "its projections are not ALIGN's (pictures none, text affine), or it does not learn a temperature"
    if isinstance(config.image, EfficientNetConfig) and config.image.head:
        return "its EfficientNet has a head"
    return efficientnet_hf.tower_misfit(config.image) or words_misfit(config.text, processor)


def outputs(module: DualEncoder, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`AlignModel`'s `text_embeds`, `image_embeds`, `logits_per_image`, `logits_per_text`, `text_last_hidden_state` and
    `vision_last_hidden_state` [B, D, H, W], as far as the inputs allow."""
    only(inputs, (*TEXT_INPUTS, "pixel_values"))
    assert isinstance(module.image, ConvTower)
    found = words_out(module, inputs)
    if "pixel_values" in inputs:
        maps = module.image.maps(inputs["pixel_values"])
        found["vision_last_hidden_state"] = maps
        found["image_embeds"] = module.encode("image", features=module.image.summary(maps))
    return with_logits(module, found)
