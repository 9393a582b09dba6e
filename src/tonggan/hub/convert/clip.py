"""CLIP as Hugging Face publishes it (`CLIPModel`): names of tensors, and config.json both ways."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tonggan.data.images import ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import END, START, Tokenizer
from tonggan.hub.convert.fields import activation_in, activation_out, need
from tonggan.hub.convert.preprocessor import image_in, image_misfit, image_out, read_settings
from tonggan.hub.convert.table import SCALAR_TO_VECTOR, KeyTable, Rules, prefixed
from tonggan.hub.convert.tensors_in import only, tokens_in
from tonggan.hub.convert.tokenizer import read_tokenizer, write_tokenizer
from tonggan.hub.weights import write_json
from tonggan.models import DualEncoder, DualEncoderConfig, ModelConfig
from tonggan.models.towers import Colour, TransformerText, TransformerTextConfig, ViT, ViTConfig
from tonggan.types import TongganError

MODEL_TYPES = ("clip",)

LAYER: Rules = {
    "self_attn.q_proj.{p}": "attention.q.{p}",
    "self_attn.k_proj.{p}": "attention.k.{p}",
    "self_attn.v_proj.{p}": "attention.v.{p}",
    "self_attn.out_proj.{p}": "attention.out.{p}",
    "layer_norm1.{p}": "norm1.{p}",
    "mlp.fc1.{p}": "feed_forward.up.{p}",
    "mlp.fc2.{p}": "feed_forward.down.{p}",
    "layer_norm2.{p}": "norm2.{p}",
}
TEXT: Rules = {
    "embeddings.token_embedding.weight": "embedding.weight",
    "embeddings.position_embedding.weight": "positions.weight",
    "embeddings.position_ids": None,  # 0, 1, 2, ...: older versions stored it
    **prefixed("encoder.layers.{i}.", "transformer.blocks.{i}.", LAYER),
    "final_layer_norm.{p}": "post_norm.{p}",
}
VISION: Rules = {
    "embeddings.class_embedding": "class_token",
    "embeddings.patch_embedding.weight": "patches.weight",
    "embeddings.position_embedding.weight": "positions.weight",
    "embeddings.position_ids": None,
    "pre_layrnorm.{p}": "pre_norm.{p}",  # sic
    **prefixed("encoder.layers.{i}.", "transformer.blocks.{i}.", LAYER),
    "post_layernorm.{p}": "post_norm.{p}",
}


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours. Dropout in front of a head shifts the head's place, so the table follows the configuration."""
    place = ".1" if isinstance(config, DualEncoderConfig) and config.head_dropout else ""
    return KeyTable(
        "CLIP",
        {
            **prefixed("text_model.", "text.", TEXT),
            **prefixed("vision_model.", "image.", VISION),
            "text_projection.weight": f"text_head{place}.weight",
            "visual_projection.weight": f"image_head{place}.weight",
            "logit_scale": ("log_scale", SCALAR_TO_VECTOR),
        },
    )


def config_in(raw: Mapping[str, Any], where: str, mean: Colour, std: Colour) -> DualEncoderConfig:
    """Our configuration of their config.json; mean and deviation come from preprocessor_config.json."""
    text = given_or(raw, "text", TEXT_DEFAULTS)
    return DualEncoderConfig(
        image=vision_in(given_or(raw, "vision", VISION_DEFAULTS), f"{where}: vision_config", mean, std),
        text=TransformerTextConfig(
            vocab_size=text["vocab_size"],
            context=text["max_position_embeddings"],
            width=text["hidden_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            mlp_width=text["intermediate_size"],
            activation=activation_in(text["hidden_act"], f"{where}: text_config"),
            eps=text["layer_norm_eps"],
        ),
        dim=raw.get("projection_dim", 512),
        scale_init=raw.get("logit_scale_init_value", 2.6592),
    )


def vision_in(vision: Mapping[str, Any], where: str, mean: Colour, std: Colour) -> ViTConfig:
    """Our tower of their vision_config."""
    need(vision, {"num_channels": 3}, where)
    if not isinstance(vision["image_size"], int) or not isinstance(vision["patch_size"], int):
        raise TongganError(f"{where}: pictures or patches that are not square are not supported")
    return ViTConfig(
        image_size=vision["image_size"],
        mean=mean,
        std=std,
        patch_size=vision["patch_size"],
        width=vision["hidden_size"],
        layers=vision["num_hidden_layers"],
        heads=vision["num_attention_heads"],
        mlp_width=vision["intermediate_size"],
        activation=activation_in(vision["hidden_act"], where),
        eps=vision["layer_norm_eps"],
    )


def vision_out(image: ViTConfig) -> dict[str, Any]:
    """Their vision_config of our tower, but for its name."""
    return {"image_size": image.image_size, "patch_size": image.patch_size, "num_channels": 3, **stack_out(image)}


def config_out(config: ModelConfig, *, start: int | None, end: int | None, pad: int) -> dict[str, Any]:
    """Their config.json of ours. The three ids are the tokenizer's: `end` is where transformers looks for the text."""
    assert isinstance(config, DualEncoderConfig)
    image, text = config.image, config.text
    assert isinstance(image, ViTConfig) and isinstance(text, TransformerTextConfig)
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",
        "projection_dim": config.dim,
        "logit_scale_init_value": config.scale_init,
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context,
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": pad,
            "projection_dim": config.dim,
            **stack_out(text),
        },
        "vision_config": {"model_type": "clip_vision_model", "projection_dim": config.dim, **vision_out(image)},
    }


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    image = image_in(*read_settings(directory))
    config = config_in(raw, str(directory / "config.json"), image.mean, image.std)
    assert config.text is not None
    text = read_tokenizer(directory, max_length=None, context=config.text.context, pad=END)
    _check_end(raw, text, str(directory / "config.json"))
    return config, Processor(ImageProcessor(image), text)


def _check_end(raw: Mapping[str, Any], text: Tokenizer, where: str) -> None:
    """Raise `TongganError` where the library would not look for the text at the token that closes it."""
    end = given_or(raw, "text", {"eos_token_id": None})["eos_token_id"]
    closing = text.encode([""])[0][0][-1]
    # The first releases looked for the highest id of a row, whatever their files called the end token: they said 2, or nothing.
    if end in (None, 2):
        if (highest := text.vocab_size - 1) > closing:
            raise TongganError(
                f"{where}: text_config.eos_token_id={end} means that a text is read at its highest id; the tokenizer closes it with "
                f"{closing}, and its ids go up to {highest}: set eos_token_id to {closing} if that is where the model was trained to look"
            )
    elif end != closing:
        raise TongganError(
            f"{where}: text_config.eos_token_id={end}, but the tokenizer closes a text with {closing}; "
            "set it to that, or take the tokenizer that the model was trained with"
        )


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, preprocessor_config.json and the tokenizer's files."""
    assert processor.image is not None and processor.text is not None
    ids = {name: processor.text.id_of(token) for name, token in (("start", START), ("end", END))}
    write_json(directory / "config.json", config_out(config, start=ids["start"], end=ids["end"], pad=processor.text.pad_id))
    write_json(directory / "preprocessor_config.json", image_out(processor.image.config))
    special = {"bos_token": START, "eos_token": END, "unk_token": END}
    write_tokenizer(directory, processor.text, "CLIPTokenizer", special)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, DualEncoderConfig) or config.audio is not None or config.video is not None:
        return "it is not a dual encoder of pictures and text"
    image, text = config.image, config.text
    if not isinstance(image, ViTConfig) or not isinstance(text, TransformerTextConfig):
        return "its towers are not ViT and Transformer"
    if (config.image_projection, config.text_projection) != ("linear", "linear"):
        return "its projections are not linear"
    if config.bias_init is not None or config.temperature:
        return "it has SigLIP's bias or ALIGN's temperature"
    if not text.causal or text.pooling != "end":
        return "its text tower looks both ways, or is not pooled at the end token"
    if reason := vision_misfit(image):
        return reason
    if processor is None:
        return None
    if processor.image is None or processor.text is None:
        return "it has not both processors"
    return image_misfit(processor.image.config) or _tokenizer_misfit(processor.text)


def vision_misfit(image: ViTConfig) -> str | None:
    """Why a ViT is not CLIP's; None when it is."""
    if image.pooling != "class" or not image.pre_norm or image.patch_bias or image.pooler or image.positions != "learned":
        return "its ViT is not CLIP's (class token, norm before the blocks, learned positions, patches without bias)"
    if not isinstance(image.image_size, int) or not isinstance(image.patch_size, int):
        return "its pictures or patches are not square"
    return None


def outputs(module: DualEncoder, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`CLIPModel`'s `text_embeds`, `image_embeds`, `logits_per_image`, `logits_per_text`, `text_last_hidden_state`,
    `vision_last_hidden_state`, as far as the inputs allow. States come from a pass of their own."""
    only(inputs, ("input_ids", "attention_mask", "pixel_values"))
    assert isinstance(module.text, TransformerText) and isinstance(module.image, ViT)
    found: dict[str, Tensor] = {}
    if "input_ids" in inputs:
        tokens = tokens_in(inputs, ends=True)
        found["text_last_hidden_state"] = module.text.tokens(tokens).states
        found["text_embeds"] = module.encode("text", tokens)
    if "pixel_values" in inputs:
        found["vision_last_hidden_state"] = module.image.tokens(inputs["pixel_values"]).states
        found["image_embeds"] = module.encode("image", inputs["pixel_values"])
    return with_logits(module, found)


def with_logits(module: DualEncoder, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """What was found and, where there are vectors of both kinds, the logits in both directions."""
    if "text_embeds" not in found or "image_embeds" not in found:
        return found
    logits = found["text_embeds"] @ found["image_embeds"].T * module.log_scale.exp()
    logits = logits if module.bias is None else logits + module.bias
    return {**found, "logits_per_text": logits, "logits_per_image": logits.T}


def _tokenizer_misfit(text: Tokenizer) -> str | None:
    """The library rebuilds CLIP's tokenizer from its vocabulary, so only one with CLIP's rules survives."""
    spec = text.spec
    rules = [step.get("type") for step in (spec["normalizer"] or {}).get("normalizers", [])]
    if spec["model"]["type"] != "BPE" or spec["model"].get("end_of_word_suffix") != "</w>" or rules != ["NFC", "Replace", "Lowercase"]:
        return "its tokenizer is not CLIP's"
    if text.config.cleaning != "none" or text.config.pad_to is not None:
        return "its text is cleaned or padded as the library does not"
    return None


TEXT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
    "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
VISION_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "num_channels": 3,
    "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip


def given_or(raw: Mapping[str, Any], kind: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A tower's settings. Files leave out what is default; early ones repeat a tower under `*_config_dict`, which then counts."""
    given = (raw.get(f"{kind}_config") or {}) | (raw.get(f"{kind}_config_dict") or {})
    return {name: given.get(name, default) for name, default in defaults.items()}


def stack_out(tower: ViTConfig | TransformerTextConfig) -> dict[str, Any]:
    """What both of their towers call alike."""
    return {
        "hidden_size": tower.width,
        "intermediate_size": tower.mlp_width,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "hidden_act": activation_out(tower.activation),
        "layer_norm_eps": tower.eps,
    }
