"""data2vec's text model (Baevski et al. 2022): RoBERTa's shape and tokenizer under names of its own.

An encoder alone is a student that can be trained on. As a sentence encoder it is saved as RoBERTa, which computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tonggan.data.processor import Processor
from tonggan.hub.convert import bert, roberta, sentence
from tonggan.hub.convert.table import KeyTable
from tonggan.models import BertConfig, Data2Vec, Data2VecConfig, MaskedBert, ModelConfig

MODEL_TYPES = ("data2vec-text",)
MASKED = ("Data2VecTextForMaskedLM",)
PREFIX = "data2vec_text."


def table(config: ModelConfig) -> KeyTable:
    """data2vec's names."""
    return bert.table_of("data2vec-text", PREFIX, roberta.HEAD, config)


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    text = roberta.tower_in(raw, directory)
    config: ModelConfig
    if bert.is_masked(raw, directory, MASKED):
        config = BertConfig(text=text, published_as="data2vec-text")
    else:
        config = bert.encoder(text) if (directory / sentence.LISTED).is_file() else Data2VecConfig(text=text)
    return config, bert.processor_in(directory, text, "<pad>")


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json and the tokenizer's files."""
    assert isinstance(config, BertConfig | Data2VecConfig) and config.text is not None and processor.text is not None
    architecture = MASKED[0] if isinstance(config, BertConfig) else "Data2VecTextModel"
    roberta.write_named(directory, config.text, processor.text, MODEL_TYPES[0], architecture)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, BertConfig | Data2VecConfig) or config.text is None:
        return "it is not data2vec's for text"
    if config.text.pooling != "mean":
        return "there is no place for its pooling"
    return roberta.misfit_of(config.text, config, "data2vec-text") or bert.misfit_of_kind(config, processor)


def outputs(module: Data2Vec | MaskedBert, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`last_hidden_state`, and a masked language model's `logits`."""
    if isinstance(module, MaskedBert):
        return bert.outputs(module, inputs)
    assert module.text is not None
    return {"last_hidden_state": bert.states_of(module.text, inputs)[0]}
