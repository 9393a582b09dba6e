"""BLIP's matching model (Li et al. 2022) as Hugging Face publishes it (`BlipForImageTextRetrieval`), and what it shares with the models
that say words (`convert/blip.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tonggan.data.images import ImageProcessor
from tonggan.data.processor import Processor
from tonggan.hub.convert import bert
from tonggan.hub.convert.fields import activation_in, activation_out, need
from tonggan.hub.convert.preprocessor import image_in, image_misfit, image_out, read_settings
from tonggan.hub.convert.table import KeyTable, Rules, Stacked, prefixed
from tonggan.hub.convert.tensors_in import only, tokens_in
from tonggan.hub.convert.tokenizer import read_tokenizer
from tonggan.hub.convert.vilt import ONE_OF_ONE, TOKEN
from tonggan.hub.weights import write_json
from tonggan.models import CoAttention, CoAttentionConfig, ModelConfig
from tonggan.models.cross import CrossTextConfig
from tonggan.models.towers import Colour, ViTConfig
from tonggan.types import TongganError

MODEL_TYPES = ("blip",)
HEADS = ("BlipForImageTextRetrieval",)

VISION: Rules = {
    "self_attn.qkv.{p}": Stacked(("attention.q.{p}", "attention.k.{p}", "attention.v.{p}")),
    "self_attn.projection.{p}": "attention.out.{p}",
    "layer_norm1.{p}": "norm1.{p}",
    "mlp.fc1.{p}": "feed_forward.up.{p}",
    "mlp.fc2.{p}": "feed_forward.down.{p}",
    "layer_norm2.{p}": "norm2.{p}",
}
CROSS: Rules = {
    "crossattention.self.query.{p}": "cross.q.{p}",
    "crossattention.self.key.{p}": "cross.k.{p}",
    "crossattention.self.value.{p}": "cross.v.{p}",
    "crossattention.output.dense.{p}": "cross.out.{p}",
    "crossattention.output.LayerNorm.{p}": "cross_norm.{p}",
}
SEES: Rules = {
    "vision_model.embeddings.class_embedding": ("image.class_token", TOKEN),
    "vision_model.embeddings.position_embedding": ("image.positions.weight", ONE_OF_ONE),
    "vision_model.embeddings.patch_embedding.{p}": "image.patches.{p}",
    **prefixed("vision_model.encoder.layers.{i}.", "image.transformer.blocks.{i}.", VISION),
    "vision_model.post_layernorm.{p}": "image.post_norm.{p}",
}


def reads(theirs: str, embeddings: str, blocks: str) -> Rules:
    """A BERT with cross-attention under their prefix; its embeddings and its blocks under ours."""
    return {
        f"{theirs}embeddings.word_embeddings.weight": f"{embeddings}embedding.weight",
        f"{theirs}embeddings.position_embeddings.weight": f"{embeddings}positions.weight",
        f"{theirs}embeddings.LayerNorm.{{p}}": f"{embeddings}norm.{{p}}",
        f"{theirs}embeddings.position_ids": None,  # 0, 1, 2, ...: older versions stored it
        **prefixed(f"{theirs}encoder.layer.{{i}}.", f"{blocks}blocks.{{i}}.", {**bert.LAYER, **CROSS}),
    }


TABLE = KeyTable(
    "BLIP",
    {
        **SEES,
        **reads("text_encoder.", "text.", "transformer."),
        "vision_proj.{p}": "image_head.{p}",
        "text_proj.{p}": "text_head.{p}",
        "itm_head.{p}": "match_head.{p}",
    },
)


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours."""
    return TABLE


def vision_in(raw: Mapping[str, Any], where: str, mean: Colour, std: Colour) -> ViTConfig:
    """Our picture tower of their config.json; mean and deviation come from preprocessor_config.json."""
    vision = raw.get("vision_config") or {}
    size, patch = vision.get("image_size", 384), vision.get("patch_size", 16)
    if not isinstance(size, int) or not isinstance(patch, int):
        raise TongganError(f"{where}: vision_config: pictures or patches that are not square are not supported")
    return ViTConfig(
        image_size=size,
        patch_size=patch,
        mean=mean,
        std=std,
        width=vision.get("hidden_size", 768),
        layers=vision.get("num_hidden_layers", 12),
        heads=vision.get("num_attention_heads", 12),
        mlp_width=vision.get("intermediate_size", 3072),
        activation=activation_in(vision.get("hidden_act", "gelu"), f"{where}: vision_config"),
        eps=vision.get("layer_norm_eps", 1e-5),
        pre_norm=False,
        patch_bias=True,
    )


def text_in(raw: Mapping[str, Any], where: str) -> CrossTextConfig:
    """Our reader of their config.json."""
    text = raw.get("text_config") or {}
    # A decoder is what its layers have their cross-attention as; whether it looks both ways its head says.
    need(text, {"is_decoder": True, "position_embedding_type": "absolute"}, f"{where}: text_config")
    return CrossTextConfig(
        vocab_size=text.get("vocab_size", 30524),
        context=text.get("max_position_embeddings", 512),
        width=text.get("hidden_size", 768),
        layers=text.get("num_hidden_layers", 12),
        heads=text.get("num_attention_heads", 8),
        mlp_width=text.get("intermediate_size", 3072),
        activation=activation_in(text.get("hidden_act", "gelu"), f"{where}: text_config"),
        eps=text.get("layer_norm_eps", 1e-12),
        cross_from=0,
    )


def config_in(raw: Mapping[str, Any], where: str, mean: Colour, std: Colour) -> CoAttentionConfig:
    """Our configuration of their config.json."""
    return CoAttentionConfig(
        image=vision_in(raw, where, mean, std),
        text=text_in(raw, where),
        dim=raw.get("image_text_hidden_size", 256),
        scale_init=raw.get("logit_scale_init_value", 2.6592),
        scale_learned=False,
    )


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    image = image_in(*read_settings(directory), "Blip")
    config = config_in(raw, str(directory / "config.json"), image.mean, image.std)
    text = read_tokenizer(directory, max_length=None, context=config.text.context, pad="[PAD]")
    return config, Processor(ImageProcessor(image), text)


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, preprocessor_config.json and the tokenizer's files."""
    assert isinstance(config, CoAttentionConfig) and processor.image is not None and processor.text is not None
    words = processor.text
    ids = {f"{name}_token_id": words.id_of(token) for name, token in (("bos", "[CLS]"), ("eos", "[SEP]"), ("sep", "[SEP]"))}
    raw = {
        "architectures": list(HEADS),
        "model_type": "blip",
        "dtype": "float32",
        "image_text_hidden_size": config.dim,
        "logit_scale_init_value": config.scale_init,
        "text_config": text_out(config.text, config.image.width) | {"pad_token_id": words.pad_id, **ids},
        "vision_config": vision_out(config.image),
    }
    write_json(directory / "config.json", raw)
    write_json(directory / "preprocessor_config.json", image_out(processor.image.config, "Blip"))
    bert.write_words(directory, words)


def text_out(text: CrossTextConfig, seen_width: int) -> dict[str, Any]:
    """Their text_config of ours, but for the ids of special tokens."""
    return {
        "model_type": "blip_text_model",
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context,
        "hidden_size": text.width,
        "encoder_hidden_size": seen_width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "intermediate_size": text.mlp_width,
        "hidden_act": activation_out(text.activation),
        "layer_norm_eps": text.eps,
        "is_decoder": True,
    }


def vision_out(image: ViTConfig) -> dict[str, Any]:
    """Their vision_config of ours."""
    return {
        "model_type": "blip_vision_model",
        "image_size": image.image_size,
        "patch_size": image.patch_size,
        "hidden_size": image.width,
        "num_hidden_layers": image.layers,
        "num_attention_heads": image.heads,
        "intermediate_size": image.mlp_width,
        "hidden_act": activation_out(image.activation),
        "layer_norm_eps": image.eps,
    }


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, CoAttentionConfig):
        return "it has no co-attention"
    if config.text.cross_from != 0 or config.text.type_vocab or config.words:
        return "its text is not BLIP's (cross-attention in every block, no types, no head for words)"
    if config.scale_learned:
        return "its scale is learnt"
    return misfit_of_parts(config.image, processor)


def misfit_of_parts(image: ViTConfig, processor: Processor | None) -> str | None:
    """What none of BLIP's models has a place for."""
    plain = ViTConfig(pre_norm=False, patch_bias=True)
    if any(getattr(image, name) != getattr(plain, name) for name in ("pre_norm", "patch_bias", "pooling", "pooler", "positions")):
        return "its ViT is not BLIP's (class token, no norm before the blocks, learned positions, patches with bias)"
    if not isinstance(image.image_size, int) or not isinstance(image.patch_size, int):
        return "its pictures or patches are not square"
    if processor is None:
        return None
    if processor.image is None or processor.text is None:
        return "it has not both processors"
    if processor.text.config.cleaning != "none" or processor.text.config.pad_to is not None:
        return "its text is cleaned or padded as the library does not"
    return image_misfit(processor.image.config, "Blip")


def outputs(module: CoAttention, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`itm_score` [B, 2], `question_embeds` (states of the text with its picture in view), `last_hidden_state` (of the pictures).

    What the reference gives in their place with `use_itm_head=False` is `itc_score` [pictures, texts] and `text_last_hidden_state`.
    """
    only(inputs, ("input_ids", "attention_mask", "pixel_values"))
    tokens = tokens_in(inputs)
    pictures = module.pictures(inputs["pixel_values"])
    together, alone = module.texts(tokens, pictures), module.texts(tokens)
    image, text = module.encode("image", features=pictures[:, 0]), module.encode("text", features=alone[:, 0])
    return {
        "itm_score": module.match_head(together[:, 0]),
        "question_embeds": together,
        "last_hidden_state": pictures,
        "itc_score": image @ text.T,
        "text_last_hidden_state": alone,
    }
