"""RoBERTa (Liu et al. 2019) and XLM-RoBERTa (Conneau et al. 2020): BERT's shape, positions counted from the first real token, one type.

The two differ in their tokenizers only, byte-level BPE and Unigram.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tonggan.data.processor import Processor
from tonggan.data.text import Tokenizer
from tonggan.hub.convert import bert, sentence
from tonggan.hub.convert.table import KeyTable, Rules
from tonggan.hub.convert.tokenizer import write_tokenizer
from tonggan.hub.weights import write_json
from tonggan.models import BertConfig, DualEncoder, MaskedBert, ModelConfig
from tonggan.models.towers import BertTextConfig

MODEL_TYPES = ("roberta", "xlm-roberta")
MASKED = ("RobertaForMaskedLM", "XLMRobertaForMaskedLM")
HEAD: Rules = {
    "lm_head.dense.{p}": "head.dense.{p}",
    "lm_head.layer_norm.{p}": "head.norm.{p}",
    "lm_head.bias": "head.bias",
    "lm_head.decoder.weight": "text.embedding.weight",  # the word embeddings and the bias once more
    "lm_head.decoder.bias": "head.bias",
}
SPECIAL = {
    "bos_token": ("<s>",), "eos_token": ("</s>",), "unk_token": ("<unk>",), "sep_token": ("</s>",), "cls_token": ("<s>",),
    "mask_token": ("<mask>",),
}  # fmt: skip


def table(config: ModelConfig) -> KeyTable:
    """RoBERTa's names."""
    return bert.table_of("RoBERTa", "roberta.", HEAD, config)


def tower_in(raw: Mapping[str, Any], directory: Path) -> BertTextConfig:
    """Our tower of their config.json. The table of positions begins with rows that only padding, or nothing, is at."""
    pad = raw.get("pad_token_id", 1)
    context = raw.get("max_position_embeddings", 512) - pad - 1
    return bert.tower_in(raw, directory, context=context, position_offset=pad + 1, padding_id=pad)


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    text = tower_in(raw, directory)
    masked = bert.is_masked(raw, directory, MASKED)
    config = BertConfig(text=text, published_as="roberta") if masked else bert.encoder(text)
    return config, bert.processor_in(directory, text, "<pad>")


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, the tokenizer's files, and what makes an encoder a sentence encoder."""
    text, masked = bert.tower(config), isinstance(config, BertConfig)
    assert processor.text is not None and text is not None
    unigram = processor.text.spec["model"]["type"] == "Unigram"
    model_type, name = ("xlm-roberta", "XLMRoberta") if unigram else ("roberta", "Roberta")
    write_named(directory, text, processor.text, model_type, f"{name}{'ForMaskedLM' if masked else 'Model'}")
    if not masked:
        sentence.write_layout(directory, text.width, text.pooling, processor.text.config.max_length)


def write_named(directory: Path, text: BertTextConfig, tokenizer: Tokenizer, model_type: str, architecture: str) -> None:
    """config.json and the tokenizer's files of a relative of that name."""
    described = {"architectures": [architecture], "model_type": model_type}
    ends = {"bos_token_id": tokenizer.id_of("<s>"), "eos_token_id": tokenizer.id_of("</s>")}
    write_json(directory / "config.json", {**described, **bert.tower_out(text, tokenizer.pad_id), **ends})
    classes = {"BPE": "RobertaTokenizer", "Unigram": "XLMRobertaTokenizer"}
    kind = classes.get(tokenizer.spec["model"]["type"], "PreTrainedTokenizerFast")
    write_tokenizer(directory, tokenizer, kind, bert.present_tokens(tokenizer, SPECIAL))


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    text = bert.tower(config)
    if text is None:
        return "it is not a RoBERTa alone"
    return misfit_of(text, config, "roberta") or bert.misfit_of_kind(config, processor)


def outputs(module: DualEncoder | MaskedBert, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`RobertaModel`'s and `RobertaForMaskedLM`'s, which have the names of BERT's."""
    return bert.outputs(module, inputs)


def misfit_of(text: BertTextConfig, config: ModelConfig, published_as: str) -> str | None:
    """What the format of that name has no place for in a tower or a head."""
    if text.position_offset is None:
        return "its positions are BERT's"
    if text.padding_id not in (None, text.position_offset - 1):
        return f"padding's id {text.padding_id} is not the one below position_offset {text.position_offset}"
    if isinstance(config, BertConfig) and (config.published_as != published_as or config.head_activation != "gelu"):
        return "its head is another's"
    return None
