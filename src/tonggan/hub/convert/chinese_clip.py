"""Chinese-CLIP (Yang et al. 2022) as Hugging Face publishes it (`ChineseCLIPModel`): CLIP's ViT and a BERT pooled at its first token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tonggan.data.images import ImageProcessor
from tonggan.data.processor import Processor
from tonggan.hub.convert import bert
from tonggan.hub.convert.clip import VISION, VISION_DEFAULTS, given_or, vision_in, vision_misfit, vision_out, with_logits
from tonggan.hub.convert.preprocessor import image_in, image_misfit, image_out, read_settings
from tonggan.hub.convert.table import SCALAR_TO_VECTOR, KeyTable, prefixed
from tonggan.hub.convert.tensors_in import only
from tonggan.hub.convert.tokenizer import read_tokenizer
from tonggan.hub.weights import write_json
from tonggan.models import DualEncoder, DualEncoderConfig, ModelConfig
from tonggan.models.towers import Bert, BertTextConfig, ViT, ViTConfig

MODEL_TYPES = ("chinese_clip",)
TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours; dropout in front of a head shifts the head's place."""
    place = ".1" if isinstance(config, DualEncoderConfig) and config.head_dropout else ""
    return KeyTable(
        "Chinese-CLIP",
        {
            **prefixed("text_model.", "text.", bert.TOWER),
            **prefixed("vision_model.", "image.", VISION),
            "text_projection.weight": f"text_head{place}.weight",
            "visual_projection.weight": f"image_head{place}.weight",
            "logit_scale": ("log_scale", SCALAR_TO_VECTOR),
        },
    )


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    image = image_in(*read_settings(directory), "ChineseCLIP")
    words = (raw.get("text_config") or {}) | (raw.get("text_config_dict") or {})
    vision = given_or(raw, "vision", VISION_DEFAULTS)
    config = DualEncoderConfig(
        image=vision_in(vision, f"{directory / 'config.json'}: vision_config", image.mean, image.std),
        text=bert.tower_in(words, directory, pooling="first"),
        dim=raw.get("projection_dim", 512),
        scale_init=raw.get("logit_scale_init_value", 2.6592),
    )
    assert config.text is not None
    text = read_tokenizer(directory, max_length=None, context=config.text.context, pad="[PAD]")
    return config, Processor(ImageProcessor(image), text)


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, preprocessor_config.json and the tokenizer's files."""
    assert isinstance(config, DualEncoderConfig) and isinstance(config.image, ViTConfig) and isinstance(config.text, BertTextConfig)
    assert processor.image is not None and processor.text is not None
    raw = {
        "architectures": ["ChineseCLIPModel"],
        "model_type": "chinese_clip",
        "dtype": "float32",
        "projection_dim": config.dim,
        "logit_scale_init_value": config.scale_init,
        "text_config": {"model_type": "chinese_clip_text_model", **bert.tower_out(config.text, processor.text.pad_id)},
        "vision_config": {"model_type": "chinese_clip_vision_model", "projection_dim": config.dim, **vision_out(config.image)},
    }
    write_json(directory / "config.json", raw)
    write_json(directory / "preprocessor_config.json", image_out(processor.image.config, "ChineseCLIP"))
    bert.write_words(directory, processor.text)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, DualEncoderConfig) or config.audio is not None or config.video is not None:
        return "it is not a dual encoder of pictures and text"
    if not isinstance(config.image, ViTConfig) or not isinstance(config.text, BertTextConfig):
        return "its towers are not ViT and BERT"
    if (config.image_projection, config.text_projection) != ("linear", "linear") or config.bias_init is not None or config.temperature:
        return "its projections are not linear, or it has SigLIP's bias or ALIGN's temperature"
    return vision_misfit(config.image) or words_misfit(config.text, processor)


def words_misfit(text: BertTextConfig, processor: Processor | None) -> str | None:
    """Why a two-tower format with a BERT has no place for this one, or for the processors beside it."""
    if text.pooling != "first" or text.position_offset is not None:
        return "its text tower is not a BERT pooled at its first token"
    if processor is None:
        return None
    if processor.image is None or processor.text is None:
        return "it has not both processors"
    if processor.text.config.cleaning != "none" or processor.text.config.pad_to is not None:
        return "its text is cleaned or padded as the library does not"
    return image_misfit(processor.image.config)


def outputs(module: DualEncoder, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`ChineseCLIPModel`'s `text_embeds`, `image_embeds`, `logits_per_image`, `logits_per_text`, `text_last_hidden_state`,
    `vision_last_hidden_state`, as far as the inputs allow."""
    only(inputs, (*TEXT_INPUTS, "pixel_values"))
    assert isinstance(module.image, ViT)
    found = words_out(module, inputs)
    if "pixel_values" in inputs:
        patches = module.image.tokens(inputs["pixel_values"])
        found["vision_last_hidden_state"] = patches.states
        found["image_embeds"] = module.encode("image", features=module.image.summary(patches))
    return with_logits(module, found)


def words_out(module: DualEncoder, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """States and vector of the texts among the inputs, by a BERT that is pooled at its first token: at the first position, as in the
    reference, also where padding stands there. (A sentence encoder's library looks for the first token that is not padding.)"""
    if "input_ids" not in inputs:
        return {}
    assert isinstance(module.text, Bert)
    states, _ = bert.states_of(module.text, {name: tensor for name, tensor in inputs.items() if name in TEXT_INPUTS})
    return {"text_last_hidden_state": states, "text_embeds": module.encode("text", features=states[:, 0])}
