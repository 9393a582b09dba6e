"""BERT: sentence encoders (`convert/sentence.py`), bare encoders, which are read as such, and masked language models with their head.

The parts that RoBERTa and its relatives share with it are here too; they differ in prefixes, positions and tokenizers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tonggan.data.processor import Processor
from tonggan.data.text import END, MASK, START, Tokenizer
from tonggan.hub.convert import sentence
from tonggan.hub.convert.fields import activation_in, activation_out, need
from tonggan.hub.convert.table import KeyTable, Rules, Target, prefixed
from tonggan.hub.convert.tensors_in import only, tokens_in
from tonggan.hub.convert.tokenizer import read_tokenizer, write_tokenizer
from tonggan.hub.weights import write_json
from tonggan.models import BertConfig, DualEncoder, DualEncoderConfig, MaskedBert, ModelConfig
from tonggan.models.towers import Bert, BertTextConfig
from tonggan.tensors import MODALITIES, Tokens
from tonggan.types import UsageError

MODEL_TYPES = ("bert",)
MASKED = ("BertForMaskedLM", "BertForPreTraining")
"""Architectures with a head that says words; the second also has one for the next sentence, which is dropped."""


SPECIAL = {
    "unk_token": ("[UNK]", "<unk>"), "cls_token": ("[CLS]", "<s>", START), "sep_token": ("[SEP]", "</s>", END),
    "mask_token": ("[MASK]", "<mask>", MASK),
}  # fmt: skip
"""How vocabularies spell them: BERT's own, those of other publishers' tokenizers, ours."""


def norm_rules(theirs: str, ours: str) -> dict[str, Target]:
    """A layer norm's. The oldest files call its weights gamma and beta; what is written has today's names, which come first."""
    words = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
    return {f"{theirs}.{word}": f"{ours}.{word_of_ours}" for word, word_of_ours in words.items()}


LAYER: Rules = {
    "attention.self.query.{p}": "attention.q.{p}",
    "attention.self.key.{p}": "attention.k.{p}",
    "attention.self.value.{p}": "attention.v.{p}",
    "attention.output.dense.{p}": "attention.out.{p}",
    **norm_rules("attention.output.LayerNorm", "norm1"),
    "intermediate.dense.{p}": "feed_forward.up.{p}",
    "output.dense.{p}": "feed_forward.down.{p}",
    **norm_rules("output.LayerNorm", "norm2"),
}
TOWER: Rules = {
    "embeddings.word_embeddings.weight": "embedding.weight",
    "embeddings.position_embeddings.weight": "positions.weight",
    "embeddings.token_type_embeddings.weight": "types.weight",
    **norm_rules("embeddings.LayerNorm", "norm"),
    "embeddings.position_ids": None,  # 0, 1, 2, ...: older versions stored it
    "embeddings.token_type_ids": None,  # zeros
    **prefixed("encoder.layer.{i}.", "transformer.blocks.{i}.", LAYER),
    "pooler.dense.{p}": None,  # BERT's own pooling, trained to tell the next sentence: nothing of ours uses it
}
HEAD: Rules = {
    "cls.predictions.transform.dense.{p}": "head.dense.{p}",
    **norm_rules("cls.predictions.transform.LayerNorm", "head.norm"),
    "cls.predictions.bias": "head.bias",
    "cls.predictions.decoder.weight": "text.embedding.weight",  # the word embeddings and the bias once more
    "cls.predictions.decoder.bias": "head.bias",
    "cls.seq_relationship.{p}": None,  # the head that tells the next sentence
}


def table_of(family: str, prefix: str, head: Rules, config: ModelConfig) -> KeyTable:
    """The names of a masked language model, whose encoder has a prefix, or of an encoder alone, which may have been one."""
    if isinstance(config, BertConfig):
        return KeyTable(family, {**prefixed(prefix, "text.", TOWER), **head})
    alone = {**prefixed("", "text.", TOWER), **prefixed(prefix, "text.", TOWER), **dict.fromkeys(head)}
    return KeyTable(family, alone, ours_only=frozenset({"log_scale"}))  # one tower alone compares nothing


def table(config: ModelConfig) -> KeyTable:
    """BERT's names."""
    return table_of("BERT", "bert.", HEAD, config)


def tower_in(raw: Mapping[str, Any], directory: Path, **changes: Any) -> BertTextConfig:
    """Our tower of their config.json and the pooling beside it; `changes` are what relatives have otherwise."""
    where = str(directory / "config.json")
    need(raw, {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}, where)
    plain = {
        "vocab_size": raw.get("vocab_size", 30522),
        "context": raw.get("max_position_embeddings", 512),
        "width": raw.get("hidden_size", 768),
        "layers": raw.get("num_hidden_layers", 12),
        "heads": raw.get("num_attention_heads", 12),
        "mlp_width": raw.get("intermediate_size", 3072),
        "activation": activation_in(raw.get("hidden_act", "gelu"), where),
        "eps": raw.get("layer_norm_eps", 1e-12),
        "type_vocab": raw.get("type_vocab_size", 2),
        "padding_id": raw.get("pad_token_id", 0),
        "pooling": sentence.pooling_in(directory),
    }
    return BertTextConfig(**{**plain, **changes})


def tower_out(text: BertTextConfig, pad: int) -> dict[str, Any]:
    """Their config.json of our tower; `pad` is what the tokenizer pads with, for models that care about it nowhere."""
    padding = text.padding_id if text.position_offset is None else text.position_offset - 1
    return {
        "dtype": "float32",
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context + (text.position_offset or 0),
        "hidden_size": text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "intermediate_size": text.mlp_width,
        "hidden_act": activation_out(text.activation),
        "layer_norm_eps": text.eps,
        "type_vocab_size": text.type_vocab,
        "position_embedding_type": "absolute",
        "pad_token_id": pad if padding is None else padding,
    }


def encoder(text: BertTextConfig) -> DualEncoderConfig:
    """A sentence encoder with this tower."""
    return DualEncoderConfig(text=text, dim=text.width, text_projection="none")


def is_masked(raw: Mapping[str, Any], directory: Path, architectures: tuple[str, ...]) -> bool:
    """Whether a directory is a masked language model: it was one, and was not made a sentence encoder since."""
    if (directory / sentence.LISTED).is_file() or not set(raw.get("architectures") or ()) & set(architectures):
        return False
    need(raw, {"tie_word_embeddings": True}, str(directory / "config.json"))
    return True


def processor_in(directory: Path, text: BertTextConfig, pad: str) -> Processor:
    """The tokenizer, under the length of the sentence encoder's layout where there is one."""
    tokenizer = read_tokenizer(directory, max_length=sentence.length_in(directory), context=text.context, pad=pad)
    sentence.check_case(directory, tokenizer)
    sentence.check_prompt(directory)
    return Processor(text=tokenizer)


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    text = tower_in(raw, directory)
    config = BertConfig(text=text, head_activation=text.activation) if is_masked(raw, directory, MASKED) else encoder(text)
    return config, processor_in(directory, text, "[PAD]")


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, the tokenizer's files, and what makes a BERT a sentence encoder."""
    text, masked = tower(config), isinstance(config, BertConfig)
    assert processor.text is not None and text is not None
    described = {"architectures": [MASKED[0] if masked else "BertModel"], "model_type": "bert"}
    write_json(directory / "config.json", {**described, **tower_out(text, processor.text.pad_id)})
    if not masked:
        sentence.write_layout(directory, text.width, text.pooling, processor.text.config.max_length)
    write_words(directory, processor.text)


def write_words(directory: Path, tokenizer: Tokenizer) -> None:
    """The files of BERT's tokenizer, or of another that stands in its place."""
    present = present_tokens(tokenizer, SPECIAL)
    rules = tokenizer.spec["normalizer"] or {}
    if tokenizer.spec["model"]["type"] == "WordPiece" and rules.get("type") == "BertNormalizer":
        settings = {
            "do_lower_case": rules["lowercase"],
            "strip_accents": rules["strip_accents"],
            "tokenize_chinese_chars": rules["handle_chinese_chars"],
        }
        write_tokenizer(directory, tokenizer, "BertTokenizer", present, **settings)
    else:
        write_tokenizer(directory, tokenizer, "PreTrainedTokenizerFast", present)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if (text := tower(config)) is None or text.position_offset is not None:
        return "it is not a BERT alone"
    if isinstance(config, BertConfig) and (config.published_as != "bert" or config.head_activation != text.activation):
        return "its head is not BERT's"
    return misfit_of_kind(config, processor)


def misfit_of_kind(config: ModelConfig, processor: Processor | None) -> str | None:
    """What neither BERT's nor its relatives' format has a place for."""
    if isinstance(config, DualEncoderConfig) and config.text_projection != "none":
        return "it has a projection"
    if isinstance(config, BertConfig) and config.text.pooling != "mean":
        return "a masked language model has no place for its pooling"
    if processor is None:
        return None
    if processor.text is None or processor.text.config.cleaning != "none" or processor.text.config.pad_to is not None:
        return "its text is cleaned or padded as the library does not"
    return None


def outputs(module: DualEncoder | MaskedBert, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`last_hidden_state`; a masked language model's `logits`, a sentence encoder's `sentence_embedding` of unit length.

    Pairs of sentences are told apart by `token_type_ids`, as in the reference.
    """
    assert isinstance(module.text, Bert)
    states, tokens = states_of(module.text, inputs)
    if isinstance(module, MaskedBert):
        return {"last_hidden_state": states, "logits": module.head(states, module.text.embedding.weight)}
    return {"last_hidden_state": states, "sentence_embedding": F.normalize(module.text.pool(states, tokens), dim=-1)}


def states_of(tower: Bert, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tokens]:
    """A tower's states [B, L, D] of the reference's inputs, and these as ours."""
    only(inputs, ("input_ids", "attention_mask", "token_type_ids"))
    types = inputs.get("token_type_ids")
    if types is not None and int(types.max()) >= tower.config.type_vocab:
        raise UsageError(f"token_type_ids go up to {int(types.max())}; this model tells {tower.config.type_vocab} apart, from 0")
    tokens = tokens_in({name: tensor for name, tensor in inputs.items() if name != "token_type_ids"})
    return tower.tokens(tokens, types).states, tokens


def tower(config: ModelConfig) -> BertTextConfig | None:
    """The tower of a model that is nothing but one, with or without a head."""
    if isinstance(config, BertConfig):
        return config.text
    if isinstance(config, DualEncoderConfig) and isinstance(config.text, BertTextConfig):
        return config.text if all(getattr(config, kind, None) is None for kind in MODALITIES if kind != "text") else None
    return None


def present_tokens(tokenizer: Tokenizer, special: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Those special tokens that the vocabulary has, as it spells them."""
    found = {name: next((token for token in spelt if tokenizer.id_of(token) is not None), None) for name, spelt in special.items()}
    return {name: token for name, token in found.items() if token is not None}
