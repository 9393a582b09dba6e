"""BART directories (Lewis et al. 2020): `BartForConditionalGeneration`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tonggan.data.processor import Processor
from tonggan.hub.convert import t5
from tonggan.hub.convert.bert import present_tokens
from tonggan.hub.convert.fields import activation_in, activation_out, need
from tonggan.hub.convert.roberta import SPECIAL
from tonggan.hub.convert.saying import Saying, ends_out
from tonggan.hub.convert.table import Change, KeyTable, Rules, prefixed
from tonggan.hub.convert.tokenizer import read_tokenizer, write_tokenizer
from tonggan.hub.convert.whisper import CROSS, LAYER
from tonggan.hub.weights import tensor_names, write_json
from tonggan.models import EncoderDecoder, EncoderDecoderConfig, ModelConfig
from tonggan.models.encoder_decoder import ReaderConfig, SpeakerConfig

MODEL_TYPES = ("bart",)
HEADS = ("BartForConditionalGeneration", "BartModel")
"""The second is what the first published models call themselves: the same without a constant for each word."""
EPS = 1e-5
"""Of every norm; the format has no word for another."""
ROW = Change(lambda t: t.reshape(-1), lambda t: t.reshape(1, -1))
ONLY = {
    "tie_word_embeddings": True, "normalize_before": False, "normalize_embedding": True, "add_final_layer_norm": False,
    "static_position_embeddings": False, "extra_pos_embeddings": 2,
}  # fmt: skip
"""What older files say, of relatives that are built otherwise."""


def _stack(theirs: str, ours: str, layer: Rules) -> Rules:
    return {
        f"{theirs}embed_positions.weight": f"{ours}positions.weight",
        f"{theirs}layernorm_embedding.{{p}}": f"{ours}word_norm.{{p}}",
        **prefixed(f"{theirs}layers.{{i}}.", f"{ours}transformer.blocks.{{i}}.", layer),
    }


def _both(outer: str) -> Rules:
    return {
        f"{outer}shared.weight": "embedding.weight",
        f"{outer}encoder.embed_tokens.weight": "embedding.weight",  # the same three times more, in older files
        f"{outer}decoder.embed_tokens.weight": "embedding.weight",
        **_stack(f"{outer}encoder.", "reader.", LAYER),
        **_stack(f"{outer}decoder.", "speaker.", {**LAYER, **CROSS}),
    }


TABLE = KeyTable(
    "BART",
    {**_both("model."), **_both(""), "lm_head.weight": "embedding.weight", "final_logits_bias": ("word_bias", ROW)},
)


def table(config: ModelConfig) -> KeyTable:
    """BART's names."""
    return TABLE


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    given, where = {**DEFAULTS, **raw}, str(directory / "config.json")
    need(raw, ONLY, where)
    context, pad = given["max_position_embeddings"], given["pad_token_id"]
    config = EncoderDecoderConfig(
        source=ReaderConfig(
            context=context,
            layers=given["encoder_layers"],
            heads=given["encoder_attention_heads"],
            mlp_width=given["encoder_ffn_dim"],
        ),
        text=SpeakerConfig(
            style="bart",
            vocab_size=given["vocab_size"],
            context=context,
            width=given["d_model"],
            layers=given["decoder_layers"],
            heads=given["decoder_attention_heads"],
            mlp_width=given["decoder_ffn_dim"],
            activation=activation_in(given["activation_function"], where),
            scaled_words=given["scale_embedding"],
            padding_id=pad,
            eps=EPS,
        ),
        word_bias="final_logits_bias" in tensor_names(directory),
        **Saying.read({"forced_eos_token_id": 2, **raw}, directory, start=2, end=2).fields,
    )
    return config, Processor(text=read_tokenizer(directory, max_length=None, context=context, pad="<pad>"))


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, generation_config.json and the tokenizer's files."""
    assert isinstance(config, EncoderDecoderConfig) and isinstance(config.source, ReaderConfig) and processor.text is not None
    source, text, tokenizer = config.source, config.text, processor.text
    ids = {"bos_token_id": tokenizer.id_of("<s>"), "pad_token_id": text.padding_id}
    raw = {
        "architectures": [HEADS[0]],
        "model_type": MODEL_TYPES[0],
        "dtype": "float32",
        "is_encoder_decoder": True,
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context,
        "d_model": text.width,
        "encoder_layers": source.layers,
        "encoder_attention_heads": source.heads,
        "encoder_ffn_dim": source.mlp_width,
        "decoder_layers": text.layers,
        "decoder_attention_heads": text.heads,
        "decoder_ffn_dim": text.mlp_width,
        "activation_function": activation_out(text.activation),
        "scale_embedding": text.scaled_words,
        "tie_word_embeddings": True,
        "decoder_start_token_id": config.start[0],
        "eos_token_id": ends_out(config.ends),
        "forced_eos_token_id": config.last,
    }
    write_json(directory / "config.json", raw | ids)
    write_json(directory / "generation_config.json", {"forced_eos_token_id": None} | Saying.of(config).written() | ids)
    kind = "BartTokenizer" if tokenizer.spec["model"]["type"] == "BPE" else "PreTrainedTokenizerFast"
    write_tokenizer(directory, tokenizer, kind, present_tokens(tokenizer, SPECIAL))


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, EncoderDecoderConfig) or not isinstance(config.source, ReaderConfig) or config.text.style != "bart":
        return "it is not a BART"
    if config.source.context != config.text.context:
        return "its encoder's context is not its decoder's"
    if not config.tied or config.scaled_output:
        return "its words are told by another table than they are read with, or of states made smaller"
    if config.text.eps != EPS or config.text.padding_id is None:
        return f"its norms have another eps than {EPS}, or it has no id for padding"
    if processor is not None and (processor.text is None or processor.text.pad_id != config.text.padding_id):
        return "it has no tokenizer, or one whose padding is another's"
    return Saying.of(config).misfit()


def outputs(module: EncoderDecoder, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`encoder_last_hidden_state` and `logits`, which have the names of T5's."""
    return t5.outputs(module, inputs)


DEFAULTS: dict[str, Any] = {
    "vocab_size": 50265, "max_position_embeddings": 1024, "encoder_layers": 12, "encoder_ffn_dim": 4096, "encoder_attention_heads": 16,
    "decoder_layers": 12, "decoder_ffn_dim": 4096, "decoder_attention_heads": 16, "activation_function": "gelu", "d_model": 1024,
    "scale_embedding": False, "pad_token_id": 1,
}  # fmt: skip
