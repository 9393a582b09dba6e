"""Tokenizers of GPT-2, Llama and Qwen as they are published: the same ids as the library's, on strings of every kind."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from awkward import awkward
from tonggan import hub
from tonggan.hub.convert.tokenizer import read_tokenizer
from tonggan.types import TongganError

END = "<|endoftext|>"
DIGITS = {"Llama 3": r"\p{N}{1,3}", "Qwen": r"\p{N}"}
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPECIAL = {
    "GPT-2": [END], "Llama 2": ["<unk>", "<s>", "</s>"], "Llama 3": ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
    "Qwen": [END, "<|im_start|>", "<|im_end|>"],
}  # fmt: skip
TOLD: dict[str, dict[str, Any]] = {
    "GPT-2": {},
    "Llama 2": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "Llama 3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    "Qwen": {"pad_token": END, "eos_token": "<|im_end|>", "bos_token": None},
}
CASES: dict[str, tuple[str, str, str | None, dict[str, Any]]] = {
    "GPT-2": ("GPT-2", "gpt2", "GPT2Tokenizer", {}),
    "GPT-2 of no class": ("GPT-2", "gpt2", None, {}),
    "GPT-2 whose first word is like any other": ("GPT-2", "gpt2", "GPT2Tokenizer", {"add_prefix_space": True, "add_bos_token": True}),
    "Llama 2": ("Llama 2", "llama", "LlamaTokenizer", {"legacy": False, "add_bos_token": False, "add_eos_token": True}),
    "Llama 2 as first published": ("Llama 2", "llama", "LlamaTokenizer", {"legacy": True}),
    "Llama 2 without a blank before the first word": ("Llama 2", "llama", "LlamaTokenizerFast", {"add_prefix_space": False}),
    "Llama 2 of no class": ("Llama 2", "llama", "PreTrainedTokenizerFast", {}),
    "Llama 2 within LLaVA": ("Llama 2", "llava", "LlamaTokenizer", {}),
    "Llama 3": ("Llama 3", "llama", "PreTrainedTokenizerFast", {}),
    "Llama 3 under Llama 2's class": ("Llama 3", "llama", "LlamaTokenizer", {}),
    "Qwen2": ("Qwen", "qwen2", "Qwen2Tokenizer", {}),
    "Qwen3": ("Qwen", "qwen3", "Qwen2Tokenizer", {}),
}


@cache
def learnt(kind: str) -> str:
    """A tokenizer.json of the kind, of a small vocabulary."""
    texts, special = awkward(200, seed=5), SPECIAL[kind]
    if kind == "Llama 2":
        backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        first = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
        backend.train_from_iterator(
            texts, trainers.BpeTrainer(vocab_size=600, special_tokens=first, limit_alphabet=150, show_progress=False)
        )
        spec = json.loads(backend.to_str())
        backend = Tokenizer.from_str(json.dumps(spec | {"added_tokens": spec["added_tokens"][:3]}))  # bytes are no special tokens
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        read = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        backend.decoder = decoders.Sequence(read)
        return str(backend.to_str())
    backend = Tokenizer(models.BPE())
    backend.decoder = decoders.ByteLevel()
    if kind == "GPT-2":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        splits = pre_tokenizers.Split(Regex(SPLIT % DIGITS[kind]), "isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.normalizer = normalizers.NFC() if kind == "Qwen" else None
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    if kind == "Llama 3":
        start = (special[0], backend.token_to_id(special[0]))
        backend.post_processor = processors.TemplateProcessing(single=f"{special[0]} $A", special_tokens=[start])
    return str(backend.to_str())


def published(directory: Path, kind: str, model: str, cls: str | None, settings: dict[str, Any], *, files: bool = False) -> None:
    """The files beside a model; `files`: the vocabulary of older releases in place of tokenizer.json."""
    (directory / "config.json").write_text(json.dumps({"model_type": model}))
    if cls is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": cls, **TOLD[kind], **settings}))
    if not files:
        (directory / "tokenizer.json").write_text(learnt(kind), "utf-8")
        return
    spec = json.loads(learnt(kind))
    vocab = spec["model"]["vocab"] | {token["content"]: token["id"] for token in spec["added_tokens"]}
    (directory / "vocab.json").write_text(json.dumps(vocab), "utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in spec["model"]["merges"]), ""]
    (directory / "merges.txt").write_text("\n".join(lines), "utf-8")


def same_ids(directory: Path, count: int = 400) -> None:
    """With special tokens and without, and what the ids are read as."""
    theirs = AutoTokenizer.from_pretrained(directory)
    ours = read_tokenizer(
        directory, max_length=4096, context=4096, pad="</s>" if theirs.eos_token is None else theirs.eos_token, decoder=True
    )
    texts = awkward(count)
    expected, found = theirs(texts).input_ids, ours.encode(texts)[0]
    wrong = [text for text, one, other in zip(texts, expected, found, strict=True) if one != other]
    assert not wrong, f"{len(wrong)} differ: {wrong[0]!r}"
    assert theirs(texts, add_special_tokens=False).input_ids == ours.pieces(texts)
    for ids in found[:100]:
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("name", CASES)
def test_ids_of_language_models_are_the_librarys(tmp_path: Path, name: str) -> None:
    published(tmp_path, *CASES[name])
    same_ids(tmp_path)


@pytest.mark.parametrize("settings", [{}, {"add_prefix_space": True, "pad_token": END}])
def test_gpt2s_vocabulary_of_older_files_gives_the_same_ids(tmp_path: Path, settings: dict[str, Any]) -> None:
    published(tmp_path, "GPT-2", "gpt2", "GPT2Tokenizer", settings, files=True)
    same_ids(tmp_path)
    published(tmp_path, "GPT-2", "gpt2", "GPT2Tokenizer", {"add_bos_token": True}, files=True)
    with pytest.raises(TongganError, match="add_bos_token=True"):
        read_tokenizer(tmp_path, max_length=40, context=40, pad=END)


def test_a_class_whose_vocabulary_alone_does_not_do_is_refused(tmp_path: Path) -> None:
    published(tmp_path, "Qwen", "qwen2", "Qwen2Tokenizer", {}, files=True)
    with pytest.raises(TongganError, match=r"tokenizer_class 'Qwen2Tokenizer' is not supported where there is no tokenizer\.json"):
        read_tokenizer(tmp_path, max_length=40, context=40, pad=END)


@pytest.mark.parametrize("files", [False, True])
def test_gpt2_as_published_names_no_special_tokens_and_is_read(tmp_path: Path, files: bool) -> None:
    """Beside weights, and from the directory that is saved back, by us and by the library."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    size = len(json.loads(learnt("GPT-2"))["model"]["vocab"]) + 1
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=6, n_layer=1, n_head=3, n_positions=900, eos_token_id=size - 1)).save_pretrained(
        theirs
    )
    settings = json.loads((theirs / "config.json").read_text())
    published(theirs, "GPT-2", "gpt2", "GPT2Tokenizer" if files else None, {}, files=files)
    (theirs / "config.json").write_text(json.dumps(settings))
    checkpoint = hub.read(theirs)
    assert checkpoint.processor.text is not None and checkpoint.processor.text.pad_id == size - 1
    hub.save(ours, checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    texts = awkward(100, seed=3)
    expected = AutoTokenizer.from_pretrained(theirs)(texts).input_ids
    again = hub.read(ours).processor.text
    assert again is not None and again.encode(texts)[0] == expected == AutoTokenizer.from_pretrained(ours)(texts).input_ids
