"""ViLT (Kim et al. 2021) as Hugging Face publishes it: the stream alone, with a head for masked words, or with one for retrieval.

`ViltForQuestionAnswering` and the heads for two pictures are not read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tonggan.data.images import ImageProcessor
from tonggan.data.processor import Processor
from tonggan.hub.convert import bert
from tonggan.hub.convert.fields import activation_in, activation_out, need
from tonggan.hub.convert.preprocessor import image_in, image_misfit, image_out, read_settings
from tonggan.hub.convert.table import Change, KeyTable, Rules, prefixed
from tonggan.hub.convert.tensors_in import only, tokens_in
from tonggan.hub.convert.tokenizer import read_tokenizer
from tonggan.hub.weights import write_json
from tonggan.models import ModelConfig, SingleStream, SingleStreamConfig
from tonggan.models.streams import PatchesConfig, WordsConfig
from tonggan.models.towers import Colour
from tonggan.models.vilt import StreamMatcher, StreamWords
from tonggan.types import TongganError, UsageError

MODEL_TYPES = ("vilt",)
HEADS = ("ViltModel", "ViltForMaskedLM", "ViltForImageAndTextRetrieval")

TOKEN = Change(lambda t: t.reshape(-1), lambda t: t.reshape(1, 1, -1))
ONE_OF_ONE = Change(lambda t: t[0], lambda t: t[None])
"""Theirs has a batch in front, of one."""

LAYER: Rules = {
    "attention.attention.query.{p}": "attention.q.{p}",
    "attention.attention.key.{p}": "attention.k.{p}",
    "attention.attention.value.{p}": "attention.v.{p}",
    "attention.output.dense.{p}": "attention.out.{p}",
    "layernorm_before.{p}": "norm1.{p}",
    "layernorm_after.{p}": "norm2.{p}",
    "intermediate.dense.{p}": "feed_forward.up.{p}",
    "output.dense.{p}": "feed_forward.down.{p}",
}
STREAM: Rules = {
    "embeddings.text_embeddings.word_embeddings.weight": "text.embedding.weight",
    "embeddings.text_embeddings.position_embeddings.weight": "text.positions.weight",
    "embeddings.text_embeddings.token_type_embeddings.weight": "text.types.weight",
    "embeddings.text_embeddings.LayerNorm.{p}": "text.norm.{p}",
    "embeddings.text_embeddings.position_ids": None,  # 0, 1, 2, ...: older versions stored it
    "embeddings.cls_token": ("image.class_token", TOKEN),
    "embeddings.patch_embeddings.projection.{p}": "image.patches.{p}",
    "embeddings.position_embeddings": ("image.positions.weight", ONE_OF_ONE),
    "embeddings.token_type_embeddings.weight": "kinds.weight",
    **prefixed("encoder.layer.{i}.", "transformer.blocks.{i}.", LAYER),
    "layernorm.{p}": "norm.{p}",
    "pooler.dense.{p}": "pooler.dense.{p}",
}
WORDS: Rules = {
    "mlm_score.transform.dense.{p}": "word_head.dense.{p}",
    "mlm_score.transform.LayerNorm.{p}": "word_head.norm.{p}",
    "mlm_score.decoder.bias": "word_head.bias",
    "mlm_score.bias": "word_head.bias",  # of older versions, which stored it under either name or both
    "mlm_score.decoder.weight": "text.embedding.weight",  # the word embeddings once more
}


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours: with a head the stream has a prefix."""
    assert isinstance(config, SingleStreamConfig)
    if config.words:
        return KeyTable("ViLT", {**prefixed("vilt.", "", STREAM), **WORDS})
    if config.matching == "one":
        return KeyTable("ViLT", {**prefixed("vilt.", "", STREAM), "rank_output.{p}": "match_head.{p}"})
    return KeyTable("ViLT", STREAM)


def config_in(raw: Mapping[str, Any], where: str, mean: Colour, std: Colour) -> SingleStreamConfig:
    """Our configuration of their config.json; mean and deviation come from preprocessor_config.json."""
    need(raw, {"num_channels": 3, "qkv_bias": True, "tie_word_embeddings": True, "position_embedding_type": "absolute"}, where)
    if (most := raw.get("max_image_length", -1)) is not None and most >= 0:
        # Patches beyond that are drawn by lot, also when the model is used: no two runs would agree.
        raise TongganError(f"{where}: max_image_length {most} is not supported, only -1: all patches are read")
    size, patch = raw.get("image_size", 384), raw.get("patch_size", 32)
    if not isinstance(size, int) or not isinstance(patch, int):
        raise TongganError(f"{where}: a table of positions or patches that are not square are not supported")
    head = next(iter(raw.get("architectures") or ()), "ViltModel")
    matching: Literal["one", "none"] = "one" if head == "ViltForImageAndTextRetrieval" else "none"
    return SingleStreamConfig(
        image=PatchesConfig(image_size=size, patch_size=patch, mean=mean, std=std),
        text=WordsConfig(
            vocab_size=raw.get("vocab_size", 30522),
            context=raw.get("max_position_embeddings", 40),
            type_vocab=raw.get("type_vocab_size", 2),
        ),
        width=raw.get("hidden_size", 768),
        layers=raw.get("num_hidden_layers", 12),
        heads=raw.get("num_attention_heads", 12),
        mlp_width=raw.get("intermediate_size", 3072),
        activation=activation_in(raw.get("hidden_act", "gelu"), where),
        eps=raw.get("layer_norm_eps", 1e-12),
        kinds=raw.get("modality_type_vocab_size", 2),
        matching=matching,
        words=head == "ViltForMaskedLM",
    )


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    image = image_in(*read_settings(directory), "Vilt")
    config = config_in(raw, str(directory / "config.json"), image.mean, image.std)
    text = read_tokenizer(directory, max_length=None, context=config.text.context, pad="[PAD]")
    return config, Processor(ImageProcessor(image), text)


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, preprocessor_config.json and the tokenizer's files."""
    assert isinstance(config, SingleStreamConfig) and processor.image is not None and processor.text is not None
    head = "ViltForMaskedLM" if config.words else "ViltForImageAndTextRetrieval" if config.matching == "one" else "ViltModel"
    raw = {
        "architectures": [head],
        "model_type": "vilt",
        "dtype": "float32",
        "vocab_size": config.text.vocab_size,
        "type_vocab_size": config.text.type_vocab,
        "modality_type_vocab_size": config.kinds,
        "max_position_embeddings": config.text.context,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "hidden_act": activation_out(config.activation),
        "layer_norm_eps": config.eps,
        "image_size": config.image.image_size,
        "patch_size": config.image.patch_size,
        "num_channels": 3,
        "qkv_bias": True,
        "max_image_length": -1,
        "pad_token_id": processor.text.pad_id,
    }
    write_json(directory / "config.json", raw)
    write_json(directory / "preprocessor_config.json", image_out(processor.image.config, "Vilt"))
    bert.write_words(directory, processor.text)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, SingleStreamConfig):
        return "it is not a single stream"
    if config.matching == "two" or (config.words and config.matching != "none"):
        return "it has heads that ViLT is not published with: two logits for matching, or words and matching in one"
    if not config.text.type_vocab:
        return "its text has no table of types"
    if processor is None:
        return None
    if processor.image is None or processor.text is None:
        return "it has not both processors"
    if processor.text.config.cleaning != "none" or processor.text.config.pad_to is not None:
        return "its text is cleaned or padded as the library does not"
    return image_misfit(processor.image.config, "Vilt")


def outputs(module: SingleStream, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`last_hidden_state` [B, L + 1 + P, D], `pooler_output`, and a head's `logits`.

    Patches are in row-major order, those outside of a picture among them; the reference gives those of a picture in an order drawn by lot.
    """
    only(inputs, ("input_ids", "attention_mask", "token_type_ids", "pixel_values", "pixel_mask"))
    tokens, pixels, mask = tokens_in(inputs), inputs["pixel_values"], inputs.get("pixel_mask")
    if mask is not None and mask.shape[1:] != pixels.shape[2:]:
        raise UsageError(f"pixel_mask is for {tuple(mask.shape[1:])} pixels, pixel_values have {tuple(pixels.shape[2:])}")
    states = module.states(tokens, pixels, None if mask is None else mask > 0)
    found = {"last_hidden_state": states, "pooler_output": module.pooler(states)}
    if isinstance(module, StreamWords):
        found["logits"] = module.word_head(states[:, : tokens.ids.shape[1]], module.text.embedding.weight)
    elif isinstance(module, StreamMatcher):
        found["logits"] = module.match_head(found["pooler_output"])
    return found
