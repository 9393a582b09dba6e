"""BERT-family sentence encoders in the layout of sentence-transformers: encoder, `1_Pooling`, perhaps `2_Normalize`.

Our `embed` always gives unit vectors, so a missing `2_Normalize` changes the length of their vectors, not the direction of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tonggan.data.processor import Processor
from tonggan.hub.convert.fields import activation_in, activation_out, need
from tonggan.hub.convert.table import KeyTable, Rules, prefixed
from tonggan.hub.convert.tensors_in import only, tokens_in
from tonggan.hub.convert.tokenizer import read_tokenizer, write_tokenizer
from tonggan.hub.weights import read_json, write_json
from tonggan.models import DualEncoder, DualEncoderConfig, ModelConfig
from tonggan.models.towers import Bert, BertTextConfig
from tonggan.types import TongganError

MODEL_TYPES = ("bert",)

LAYER: Rules = {
    "attention.self.query.{p}": "attention.q.{p}",
    "attention.self.key.{p}": "attention.k.{p}",
    "attention.self.value.{p}": "attention.v.{p}",
    "attention.output.dense.{p}": "attention.out.{p}",
    "attention.output.LayerNorm.{p}": "norm1.{p}",
    "intermediate.dense.{p}": "feed_forward.up.{p}",
    "output.dense.{p}": "feed_forward.down.{p}",
    "output.LayerNorm.{p}": "norm2.{p}",
}
TABLE = KeyTable(
    "BERT",
    {
        "embeddings.word_embeddings.weight": "text.embedding.weight",
        "embeddings.position_embeddings.weight": "text.positions.weight",
        "embeddings.token_type_embeddings.weight": "text.types.weight",
        "embeddings.LayerNorm.{p}": "text.norm.{p}",
        "embeddings.position_ids": None,  # 0, 1, 2, ...: older versions stored it
        **prefixed("encoder.layer.{i}.", "text.transformer.blocks.{i}.", LAYER),
        "pooler.dense.{p}": None,  # BERT's own pooling, which sentence encoders do not use
    },
    ours_only=frozenset({"log_scale"}),  # one tower alone compares nothing
)

Pooling = Literal["mean", "first"]
POOLINGS: dict[str, Pooling] = {"mean": "mean", "mean_tokens": "mean", "cls": "first", "cls_token": "first"}


def config_in(raw: Mapping[str, Any], directory: Path) -> DualEncoderConfig:
    """Our configuration of config.json and the pooling beside it."""
    where = str(directory / "config.json")
    need(raw, {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}, where)
    width = raw.get("hidden_size", 768)
    text = BertTextConfig(
        vocab_size=raw.get("vocab_size", 30522),
        context=raw.get("max_position_embeddings", 512),
        width=width,
        layers=raw.get("num_hidden_layers", 12),
        heads=raw.get("num_attention_heads", 12),
        mlp_width=raw.get("intermediate_size", 3072),
        activation=activation_in(raw.get("hidden_act", "gelu"), where),
        eps=raw.get("layer_norm_eps", 1e-12),
        type_vocab=raw.get("type_vocab_size", 2),
        pooling=pooling_in(directory),
    )
    return DualEncoderConfig(text=text, dim=width, text_projection="none")


def config_out(config: ModelConfig, pad: int) -> dict[str, Any]:
    """Their config.json of ours."""
    assert isinstance(config, DualEncoderConfig) and isinstance(config.text, BertTextConfig)
    text = config.text
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "dtype": "float32",
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context,
        "hidden_size": text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "intermediate_size": text.mlp_width,
        "hidden_act": activation_out(text.activation),
        "layer_norm_eps": text.eps,
        "type_vocab_size": text.type_vocab,
        "position_embedding_type": "absolute",
        "pad_token_id": pad,
    }


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    config = config_in(raw, directory)
    assert config.text is not None
    file = directory / "sentence_bert_config.json"
    said = read_json(file) if file.is_file() else {}
    text = read_tokenizer(directory, max_length=said.get("max_seq_length"), context=config.text.context, pad="[PAD]")
    if said.get("do_lower_case") and not (text.spec["normalizer"] or {}).get("lowercase"):
        raise TongganError(f"{file}: do_lower_case=true is not supported where the tokenizer itself keeps capitals")
    return config, Processor(text=text)


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, the tokenizer's files, and what makes a BERT a sentence encoder."""
    assert processor.text is not None
    write_json(directory / "config.json", config_out(config, processor.text.pad_id))
    _write_layout(directory, config, processor.text.config.max_length)
    special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    present = {name: token for name, token in special.items() if processor.text.id_of(token) is not None}
    rules = processor.text.spec["normalizer"] or {}
    if processor.text.spec["model"]["type"] == "WordPiece" and rules.get("type") == "BertNormalizer":
        settings = {
            "do_lower_case": rules["lowercase"],
            "strip_accents": rules["strip_accents"],
            "tokenize_chinese_chars": rules["handle_chinese_chars"],
        }
        write_tokenizer(directory, processor.text, "BertTokenizer", present, **settings)
    else:
        write_tokenizer(directory, processor.text, "PreTrainedTokenizerFast", present)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, DualEncoderConfig) or config.image is not None or not isinstance(config.text, BertTextConfig):
        return "it is not a BERT alone"
    if config.text_projection != "none":
        return "it has a projection"
    if processor is None:
        return None
    if processor.text is None or processor.text.config.cleaning != "none" or processor.text.config.pad_to is not None:
        return "its text is cleaned or padded as the library does not"
    return None


def outputs(module: DualEncoder, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`BertModel`'s `last_hidden_state`, and the `sentence_embedding` of unit length."""
    only(inputs, ("input_ids", "attention_mask", "token_type_ids"))
    assert isinstance(module.text, Bert)
    tokens = tokens_in(inputs)
    return {"last_hidden_state": module.text.tokens(tokens).states, "sentence_embedding": module.encode("text", tokens)}


def pooling_in(directory: Path) -> Pooling:
    """What `modules.json` and the pooling's config.json say; a bare BERT directory is pooled by the mean, as the library does."""
    listed = directory / "modules.json"
    if not listed.is_file():
        return "mean"
    modules = _list(listed)
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise TongganError(f"{listed}: {' + '.join(kinds)} is not supported; supported is Transformer + Pooling (+ Normalize)")
    file = directory / str(modules[1].get("path", "1_Pooling")) / "config.json"
    settings = read_json(file)
    if "pooling_mode" in settings:
        modes = settings["pooling_mode"]
        chosen = [modes] if isinstance(modes, str) else list(modes)
    else:
        chosen = [name.removeprefix("pooling_mode_") for name, on in settings.items() if name.startswith("pooling_mode_") and on]
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        raise TongganError(f"{file}: pooling {' + '.join(chosen) or 'none'} is not supported; supported is mean or cls")
    return POOLINGS[chosen[0]]


def _write_layout(directory: Path, config: ModelConfig, max_length: int) -> None:
    """The files beside the weights that make a BERT a sentence encoder: modules.json, pooling, maximum length."""
    assert isinstance(config, DualEncoderConfig) and isinstance(config.text, BertTextConfig)
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(parts)
    ]
    (directory / "modules.json").write_text(json.dumps(listed, indent=2) + "\n", "utf-8")
    for path in ("1_Pooling", "2_Normalize"):
        (directory / path).mkdir()
    mean = config.text.pooling == "mean"
    write_json(
        directory / "1_Pooling" / "config.json",
        {"word_embedding_dimension": config.text.width, "pooling_mode_cls_token": not mean, "pooling_mode_mean_tokens": mean,
         "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False},
    )  # fmt: skip
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})


def _list(file: Path) -> list[dict[str, Any]]:
    try:
        value = json.loads(file.read_text("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TongganError(f"{file}: not readable as JSON ({error})") from None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise TongganError(f"{file}: expected a list of modules")
    return value
