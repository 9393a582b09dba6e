"""Tiny random BERTs and RoBERTas of odd sizes, and tokenizers with vocabularies of each kind."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from sentencepiece import sentencepiece_model_pb2
from tokenizers import pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    Data2VecTextConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaTokenizer,
    XLMRobertaConfig,
    XLMRobertaTokenizer,
)

SHAPE = {"hidden_size": 33, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 47}
CONFIGS = {"bert": BertConfig, "roberta": RobertaConfig, "xlm-roberta": XLMRobertaConfig, "data2vec-text": Data2VecTextConfig}
MERGES = ["Ġ t", "h e", "Ġt he", "r e", "re d", "Ġ red", "b i", "bi r", "bir d", "ä ¸", "ä¸ Ģ", "ç º"]
CORPUS = ["a red bird sings", "the red birds", "一只红色的鸟", "红色的鸟在树上", "don't stop the birds", "co-operate with 2024 birds!"] * 20


def wordpiece(directory: Path, **settings: Any) -> BertTokenizer:
    """Single letters, Han characters and a few words; `vocab.txt` beside tokenizer.json."""
    letters = [chr(c) for c in range(33, 127)] + list("éïßłøабвšöäü一只红色的鸟中文繁體字㐀〇かなカタ한국")
    words = [
        "[PAD]",
        "[unused0]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{c}" for c in letters),
        "bird",
        "red",
        "##ing",
        "caf",
        "##fé",
    ]
    directory.mkdir(exist_ok=True)
    (directory / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    made = BertTokenizer.from_pretrained(directory, model_max_length=40, **settings)
    made.save_pretrained(directory)
    return made


def byte_level(directory: Path, **settings: Any) -> RobertaTokenizer:
    """All bytes and a dozen merges; `vocab.json` and `merges.txt` beside tokenizer.json."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "<pad>", "</s>", "<unk>", *letters, *(merge.replace(" ", "") for merge in MERGES), "<mask>"]
    directory.mkdir(exist_ok=True)
    (directory / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), "utf-8")
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), "utf-8")
    made = RobertaTokenizer.from_pretrained(directory, model_max_length=40, **settings)
    made.save_pretrained(directory)
    return made


def unigram(directory: Path) -> XLMRobertaTokenizer:
    """A sentencepiece model of 120 pieces under its NFKC rules, its ids moved as XLM-RoBERTa moves them."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=written, vocab_size=120, hard_vocab_limit=False, num_threads=1, minloglevel=3
    )
    proto = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue())
    pieces = [(piece.piece, piece.score) for piece in proto.pieces][3:]
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces, ("<mask>", 0.0)]
    made = XLMRobertaTokenizer(vocab=vocab, _spm_precompiled_charsmap=proto.normalizer_spec.precompiled_charsmap, model_max_length=40)
    made.save_pretrained(directory)
    return made


TOKENIZERS = {"bert": wordpiece, "roberta": byte_level, "xlm-roberta": unigram, "data2vec-text": byte_level}


def tiny(directory: Path, kind: str, cls: type[PreTrainedModel] = BertForMaskedLM, **settings: Any) -> PreTrainedModel:
    """A random model saved with a tokenizer of its kind. Weights are large: fresh ones are near zero, where the two GELUs agree."""
    tokenizer = TOKENIZERS[kind](directory)
    own = {"type_vocab_size": 3} if kind == "bert" else {"type_vocab_size": 1}
    limit = 40 if kind == "bert" else 42
    torch.manual_seed(0)
    config = CONFIGS[kind](
        **{**SHAPE, **own, "vocab_size": len(tokenizer), "max_position_embeddings": limit, "layer_norm_eps": 1e-5, **settings}
    )
    model = cls(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=1.0 if name.lower().endswith("norm.weight") else 0.0, std=0.3)
    model.save_pretrained(directory)
    return model
