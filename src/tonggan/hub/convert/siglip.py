"""SigLIP (Zhai et al. 2023) as Hugging Face publishes it (`SiglipModel`), and SigLIP 2 of fixed picture size, published as the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tonggan.data.images import ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.sentencepiece import SentencePieceModel
from tonggan.data.text import TextProcessing, Tokenizer
from tonggan.hub.convert.clip import LAYER, given_or, stack_out, vision_in, vision_out, with_logits
from tonggan.hub.convert.clip import TEXT_DEFAULTS as CLIP_TEXT
from tonggan.hub.convert.clip import VISION_DEFAULTS as CLIP_VISION
from tonggan.hub.convert.fields import activation_in, need
from tonggan.hub.convert.preprocessor import image_in, image_misfit, image_out, read_settings
from tonggan.hub.convert.table import Change, KeyTable, Rules, Stacked, prefixed
from tonggan.hub.convert.tensors_in import only, tokens_in
from tonggan.hub.convert.tokenizer import (
    SETTINGS,
    check_added,
    content_of,
    pad_in,
    read_said,
    read_tokenizer,
    token_of,
    truncation_in,
    write_tokenizer,
)
from tonggan.hub.weights import write_json
from tonggan.models import DualEncoder, DualEncoderConfig, ModelConfig
from tonggan.models.towers import Colour, TransformerText, TransformerTextConfig, ViT, ViTConfig
from tonggan.types import TongganError

MODEL_TYPES = ("siglip",)
HEADS = ("SiglipModel",)

TEXT: Rules = {
    "embeddings.token_embedding.weight": "embedding.weight",
    "embeddings.position_embedding.weight": "positions.weight",
    "embeddings.position_ids": None,
    **prefixed("encoder.layers.{i}.", "transformer.blocks.{i}.", LAYER),
    "final_layer_norm.{p}": "post_norm.{p}",
}
HEAD: Rules = {
    "probe": ("queries", Change(lambda t: t.reshape(1, -1), lambda t: t.reshape(1, 1, -1))),
    "attention.in_proj_{p}": Stacked(("layers.0.attention.q.{p}", "layers.0.attention.k.{p}", "layers.0.attention.v.{p}")),
    "attention.out_proj.{p}": "layers.0.attention.out.{p}",
    "layernorm.{p}": "layers.0.norm2.{p}",
    "mlp.fc1.{p}": "layers.0.feed_forward.up.{p}",
    "mlp.fc2.{p}": "layers.0.feed_forward.down.{p}",
}
VISION: Rules = {
    "embeddings.patch_embedding.{p}": "patches.{p}",
    "embeddings.position_embedding.weight": "positions.weight",
    "embeddings.position_ids": None,
    **prefixed("encoder.layers.{i}.", "transformer.blocks.{i}.", LAYER),
    "post_layernorm.{p}": "post_norm.{p}",
    **prefixed("head.", "pool.", HEAD),
}
TEXT_DEFAULTS = CLIP_TEXT | {
    "vocab_size": 32000, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "max_position_embeddings": 64,
    "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "projection_size": None,
}  # fmt: skip
VISION_DEFAULTS = CLIP_VISION | {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "vision_use_head": True}


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours; dropout in front of a head shifts the head's place."""
    place = ".1" if isinstance(config, DualEncoderConfig) and config.head_dropout else ""
    return KeyTable(
        "SigLIP",
        {
            "text_model.head.{p}": f"text_head{place}.{{p}}",
            **prefixed("text_model.", "text.", TEXT),
            **prefixed("vision_model.", "image.", VISION),
            "logit_scale": "log_scale",
            "logit_bias": "bias",
        },
    )


def config_in(raw: Mapping[str, Any], where: str, mean: Colour, std: Colour) -> DualEncoderConfig:
    """Our configuration of their config.json; mean and deviation come from preprocessor_config.json."""
    text, vision = given_or(raw, "text", TEXT_DEFAULTS), given_or(raw, "vision", VISION_DEFAULTS)
    need(vision, {"vision_use_head": True}, f"{where}: vision_config")
    width, out = vision["hidden_size"], text["projection_size"] or text["hidden_size"]
    if out != width:
        raise TongganError(f"{where}: text vectors of {out} numbers (projection_size), picture vectors of {width} (hidden_size)")
    image = vision_in(vision, f"{where}: vision_config", mean, std)
    return DualEncoderConfig(
        image=image.model_copy(update={"pre_norm": False, "patch_bias": True, "pooling": "attention"}),
        text=TransformerTextConfig(
            vocab_size=text["vocab_size"],
            context=text["max_position_embeddings"],
            width=text["hidden_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            mlp_width=text["intermediate_size"],
            activation=activation_in(text["hidden_act"], f"{where}: text_config"),
            eps=text["layer_norm_eps"],
            causal=False,
            pooling="last",
        ),
        dim=width,
        image_projection="none",
        text_projection="affine",
        scale_init=math.log(10),
        max_scale=1000.0,  # there is no ceiling: the published base model stands at 118
        bias_init=-10.0,
    )


def config_out(config: ModelConfig, text: Tokenizer) -> dict[str, Any]:
    """Their config.json of ours."""
    assert isinstance(config, DualEncoderConfig) and isinstance(config.image, ViTConfig) and isinstance(config.text, TransformerTextConfig)
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "dtype": "float32",
        "text_config": {
            "model_type": "siglip_text_model",
            "vocab_size": config.text.vocab_size,
            "max_position_embeddings": config.text.context,
            "projection_size": config.dim,
            "pad_token_id": text.pad_id,
            "bos_token_id": None,
            "eos_token_id": None,
            **stack_out(config.text),
        },
        "vision_config": {"model_type": "siglip_vision_model", "vision_use_head": True, **vision_out(config.image)},
    }


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    image = image_in(*read_settings(directory), "Siglip")
    config = config_in(raw, str(directory / "config.json"), image.mean, image.std)
    assert config.text is not None
    return config, Processor(ImageProcessor(image), tokenizer_in(directory, config.text.context))


def tokenizer_in(directory: Path, context: int) -> Tokenizer:
    """SigLIP's SentencePiece, or SigLIP 2's tokenizer.json; every text is padded to the trained length.

    Padding is attended to, as in training, where the file says that its tokenizer gives no attention mask (`model_input_names`, as
    published); the library's own default is to give one.
    """
    said, where = read_said(directory), str(directory / SETTINGS)
    need(said, {"do_lower_case": True, "legacy": True, "sp_model_kwargs": {}}, where)
    length = min(said.get("model_max_length") or context, context)
    counts = "attention_mask" not in said.get("model_input_names", ("input_ids", "attention_mask"))
    if (directory / "spiece.model").is_file() and said["tokenizer_class"] in ("", "SiglipTokenizer"):
        need({"eos_token": content_of(said.get("eos_token")) or "</s>"}, {"eos_token": "</s>"}, where)
        side = truncation_in(said, where)
        model = SentencePieceModel.parse((directory / "spiece.model").read_bytes(), str(directory / "spiece.model"))
        text = Tokenizer.sentencepiece(model, "</s>", TextProcessing(cleaning="siglip", max_length=length, truncation_side=side))
        check_added(text, said, directory)
        pad_id = pad_in(text, said, directory, "</s>")
        return text.with_settings(pad_to=length, pad_counts=counts, pad_id=pad_id)
    text = read_tokenizer(directory, max_length=length, context=context, pad="<pad>")
    if said["tokenizer_class"] == "Siglip2Tokenizer":
        text = text.lowercased()
    return text.with_settings(pad_to=length, pad_counts=counts)


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, preprocessor_config.json and the tokenizer's files."""
    image, text = processor.image, processor.text
    assert image is not None and text is not None
    write_json(directory / "config.json", config_out(config, text))
    write_json(directory / "preprocessor_config.json", image_out(image.config, "Siglip"))
    names = ["input_ids"] if text.config.pad_counts else ["input_ids", "attention_mask"]
    if text.config.cleaning == "none":
        write_tokenizer(directory, text, "PreTrainedTokenizerFast", {}, model_input_names=names, padding_side="right")
        return
    spec = text.spec
    (directory / "spiece.model").write_bytes(SentencePieceModel.of_spec(spec).to_bytes())
    unknown = spec["model"]["vocab"][spec["model"]["unk_id"]][0]
    said = {"tokenizer_class": "SiglipTokenizer", "do_lower_case": True, "model_input_names": names}
    limits = {"model_max_length": text.config.max_length, "truncation_side": text.config.truncation_side}
    special = {"eos_token": "</s>", "unk_token": unknown, "pad_token": token_of(text, text.pad_id)}
    write_json(directory / SETTINGS, {**said, **limits, **special})


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, DualEncoderConfig) or config.audio is not None or config.video is not None:
        return "it is not a dual encoder of pictures and text"
    image, text = config.image, config.text
    if not isinstance(image, ViTConfig) or not isinstance(text, TransformerTextConfig):
        return "its towers are not ViT and Transformer"
    if (config.image_projection, config.text_projection) != ("none", "affine") or config.temperature or config.bias_init is None:
        return "its projections are not SigLIP's (pictures none, text affine), or it lacks the bias"
    if image.pooling != "attention" or image.pre_norm or not image.patch_bias or image.pooler or image.positions != "learned":
        return "its ViT is not SigLIP's (attention pooling, no norm before the blocks, learned positions, patches with bias)"
    if not isinstance(image.image_size, int) or not isinstance(image.patch_size, int):
        return "its pictures or patches are not square"
    if text.causal or text.pooling != "last":
        return "its text tower is causal, or is not pooled at the last position"
    if processor is None:
        return None
    if processor.image is None or processor.text is None:
        return "it has not both processors"
    settings = processor.text.config
    if settings.pad_to != settings.max_length or settings.cleaning == "openai":
        return f"its text is padded to {settings.pad_to} and cut at {settings.max_length}, or is cleaned as the library does not"
    return image_misfit(processor.image.config)


def outputs(module: DualEncoder, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`SiglipModel`'s `text_embeds`, `image_embeds`, `logits_per_image`, `logits_per_text`, `text_last_hidden_state`,
    `vision_last_hidden_state`, as far as the inputs allow."""
    only(inputs, ("input_ids", "attention_mask", "pixel_values"))
    assert isinstance(module.text, TransformerText) and isinstance(module.image, ViT)
    found: dict[str, Tensor] = {}
    if "input_ids" in inputs:
        words = module.text.tokens(tokens_in(inputs))
        found["text_last_hidden_state"] = words.states
        found["text_embeds"] = module.encode("text", features=module.text.summary(words))
    if "pixel_values" in inputs:
        patches = module.image.tokens(inputs["pixel_values"])
        found["vision_last_hidden_state"] = module.image.post_norm(patches.states)
        found["image_embeds"] = module.encode("image", features=module.image.summary(patches))
    return with_logits(module, found)
