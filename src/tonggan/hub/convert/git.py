"""GIT (Wang et al. 2022) as Hugging Face publishes it (`GitForCausalLM`): CLIP's picture tower, BERT's blocks and tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tonggan.data.images import ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.video import VideoProcessing, VideoProcessor
from tonggan.hub.convert import bert, clip
from tonggan.hub.convert.decoder import ends_out, ends_said
from tonggan.hub.convert.fields import activation_in, activation_out, need
from tonggan.hub.convert.preprocessor import image_in, image_misfit, image_out, read_settings
from tonggan.hub.convert.table import KeyTable, Rules, prefixed
from tonggan.hub.convert.tensors_in import only, tokens_in
from tonggan.hub.convert.tokenizer import read_tokenizer
from tonggan.hub.convert.vilt import TOKEN
from tonggan.hub.weights import write_json
from tonggan.models import Git, GitConfig, ModelConfig
from tonggan.models.git import GitWordsConfig
from tonggan.tensors import Batch

MODEL_TYPES = ("git",)
HEADS = ("GitForCausalLM",)

RULES: Rules = {
    "git.embeddings.word_embeddings.weight": "text.embedding.weight",
    "git.embeddings.position_embeddings.weight": "text.positions.weight",
    "git.embeddings.LayerNorm.{p}": "text.norm.{p}",
    "git.embeddings.position_ids": None,  # 0, 1, 2, ...: older versions stored it
    **prefixed("git.image_encoder.vision_model.", "image.", clip.VISION),
    **prefixed("git.encoder.layer.{i}.", "transformer.blocks.{i}.", bert.LAYER),
    "git.visual_projection.visual_projection.0.{p}": "projection.{p}",
    "git.visual_projection.visual_projection.1.{p}": "projection_norm.{p}",
    "git.img_temporal_embedding.{i}": ("times.{i}", TOKEN),
    "output.bias": "bias",
}
VISION_DEFAULTS = {**clip.VISION_DEFAULTS, "patch_size": 16}


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours. A table that words are both read and told with is stored twice by some versions."""
    tied = isinstance(config, GitConfig) and config.tied
    return KeyTable("GIT", {**RULES, "output.weight": "text.embedding.weight" if tied else "head.weight"})


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    where = str(directory / "config.json")
    need(raw, {"position_embedding_type": "absolute"}, where)
    image = image_in(*read_settings(directory))
    words = GitWordsConfig(
        vocab_size=raw.get("vocab_size", 30522),
        context=raw.get("max_position_embeddings", 1024),
        width=raw.get("hidden_size", 768),
        layers=raw.get("num_hidden_layers", 6),
        heads=raw.get("num_attention_heads", 12),
        mlp_width=raw.get("intermediate_size", 3072),
        activation=activation_in(raw.get("hidden_act", "gelu"), where),
        eps=raw.get("layer_norm_eps", 1e-12),
        padding_id=raw.get("pad_token_id", 0),
    )
    config = GitConfig(
        image=clip.vision_in(clip.given_or(raw, "vision", VISION_DEFAULTS), f"{where}: vision_config", image.mean, image.std),
        text=words,
        frames=raw.get("num_image_with_embedding") or 0,
        tied=raw.get("tie_word_embeddings", False),
        start=(raw.get("bos_token_id", 101),),
        ends=ends_said(raw.get("eos_token_id", 102), directory),
    )
    text = read_tokenizer(directory, max_length=None, context=words.context, pad="[PAD]")
    clips = VideoProcessor(VideoProcessing(frames=config.frames, image=image)) if config.frames else None
    return config, Processor(ImageProcessor(image), text, None, clips)


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, preprocessor_config.json and the tokenizer's files."""
    assert isinstance(config, GitConfig) and processor.image is not None and processor.text is not None
    text = config.text
    raw = {
        "architectures": list(HEADS),
        "model_type": "git",
        "dtype": "float32",
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context,
        "hidden_size": text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "intermediate_size": text.mlp_width,
        "hidden_act": activation_out(text.activation),
        "layer_norm_eps": text.eps,
        "num_image_with_embedding": config.frames or None,
        "tie_word_embeddings": config.tied,
        "bos_token_id": config.start[0],
        "eos_token_id": ends_out(config.ends),
        "pad_token_id": text.padding_id,
        "vision_config": {"model_type": "git_vision_model", **clip.vision_out(config.image)},
    }
    write_json(directory / "config.json", raw)
    write_json(directory / "preprocessor_config.json", image_out(processor.image.config))
    bert.write_words(directory, processor.text)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, GitConfig):
        return "it is not GIT"
    if config.text.type_vocab or len(config.start) != 1 or not config.ends:
        return "its text is not GIT's (no types, one token to begin with and one or more that end)"
    if reason := clip.vision_misfit(config.image):
        return reason
    if processor is None:
        return None
    if processor.image is None or processor.text is None:
        return "it has not both processors"
    if processor.text.config.cleaning != "none" or processor.text.config.pad_to is not None:
        return "its text is cleaned or padded as the library does not"
    plain = VideoProcessing(frames=max(1, config.frames), image=processor.image.config)
    if processor.video is not None and (not config.frames or processor.video.config != plain):
        return "its clips are not taken as its pictures are, as many frames as it has embeddings for"
    return image_misfit(processor.image.config)


def outputs(module: Git, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`last_hidden_state` and `logits`, of the picture's places and of the words behind them. `pixel_values` are pictures [B, 3, H, W] or
    the frames of clips [B, T, 3, H, W]; `input_ids` are padded on the right."""
    only(inputs, ("pixel_values", "input_ids", "attention_mask"))
    tokens, pixels = tokens_in(inputs), inputs["pixel_values"]
    ids = ("",) * len(tokens.ids)
    states = module.together(tokens, module.read(Batch(ids, clips=pixels) if pixels.dim() == 5 else Batch(ids, pixels=pixels)))
    return {"last_hidden_state": states, "logits": F.linear(states, *module.output)}
