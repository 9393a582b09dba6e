"""Tokenizer files as published beside weights, both ways: tokenizer.json, tokenizer_config.json, and the older vocabularies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tonggan.data.text import END, START, TextProcessing, Tokenizer
from tonggan.hub.weights import read_json, write_json
from tonggan.types import TongganError


def read_tokenizer(directory: Path, *, max_length: int | None, context: int, pad: str) -> Tokenizer:
    """The tokenizer of a directory, cutting at `max_length`, else at what its own file says, never beyond `context` positions.

    `pad` is the padding token where tokenizer_config.json does not name one.
    """
    file = directory / "tokenizer_config.json"
    said = read_json(file) if file.is_file() else {}
    if max_length is None:
        max_length = int(min(said.get("model_max_length") or context, context))  # "no limit" is written as 10^30
    config = TextProcessing(max_length=min(max_length, context))
    try:
        tokenizer = _open(directory, said, config)
    except TongganError:
        raise
    except Exception as error:  # what the tokenizers library raises on damaged files has no class of its own
        raise TongganError(f"{directory}: its tokenizer cannot be read: {error}") from None
    pad_id = tokenizer.id_of(_content(said.get("pad_token")) or pad)
    return tokenizer.with_settings(pad_id=pad_id or 0)


def write_tokenizer(directory: Path, tokenizer: Tokenizer, kind: str, special: Mapping[str, str], **settings: Any) -> None:
    """tokenizer.json, tokenizer_config.json and special_tokens_map.json, and the vocabulary files that older versions want."""
    tokenizer.save(directory / "tokenizer.json")
    special = {**special, "pad_token": token_of(tokenizer, tokenizer.pad_id)}
    write_json(directory / "special_tokens_map.json", special)
    said = {"tokenizer_class": kind, "model_max_length": tokenizer.config.max_length, **special, **settings}
    write_json(directory / "tokenizer_config.json", said)
    model = tokenizer.spec["model"]
    if model["type"] == "BPE":
        write_json(directory / "vocab.json", model["vocab"])
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
    elif model["type"] == "WordPiece":
        words = sorted(model["vocab"], key=model["vocab"].__getitem__)
        (directory / "vocab.txt").write_text("".join(f"{word}\n" for word in words), "utf-8")


def token_of(tokenizer: Tokenizer, number: int) -> str:
    """How the vocabulary spells an id."""
    spec = tokenizer.spec
    added = {token["id"]: token["content"] for token in spec.get("added_tokens", [])}
    if number in added:
        return str(added[number])
    vocab = spec["model"]["vocab"]
    # Unigram lists pieces with their scores; an id is a place in the list.
    return str(vocab[number][0]) if isinstance(vocab, list) else next(word for word, i in vocab.items() if i == number)


def _open(directory: Path, said: Mapping[str, Any], config: TextProcessing) -> Tokenizer:
    if (directory / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(directory / "tokenizer.json", config)
        return _as_its_class_has_it(tokenizer, said)
    if (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        lines = (directory / "merges.txt").read_text("utf-8").splitlines()
        merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines if line and not line.startswith("#version"))]
        vocab = read_json(directory / "vocab.json")
        if START in vocab and END in vocab:
            return Tokenizer.clip(vocab, merges, config)
        if "<s>" in vocab and "</s>" in vocab:
            mask = said.get("mask_token")
            strips = isinstance(mask, dict) and bool(mask.get("lstrip"))
            return Tokenizer.roberta(vocab, merges, config, prefix_space=bool(said.get("add_prefix_space", False)), mask_strips=strips)
        raise TongganError(f"{directory / 'vocab.json'}: neither CLIP's vocabulary ({START}, {END}) nor RoBERTa's (<s>, </s>)")
    if (directory / "vocab.txt").is_file():
        return Tokenizer.wordpiece(
            directory / "vocab.txt",
            config,
            lowercase=bool(said.get("do_lower_case", True)),
            strip_accents=said.get("strip_accents"),
            split_han=bool(said.get("tokenize_chinese_chars", True)),
        )
    raise TongganError(f"{directory}: no tokenizer here; expected tokenizer.json, vocab.json with merges.txt, or vocab.txt")


def _as_its_class_has_it(tokenizer: Tokenizer, said: Mapping[str, Any]) -> Tokenizer:
    """BERT's and RoBERTa's tokenizers under the settings of tokenizer_config.json, defaults included.

    transformers builds these classes anew from vocabulary and settings, so where tokenizer.json says otherwise it is not heard.
    """
    spec, kind = tokenizer.spec, str(said.get("tokenizer_class") or "").removesuffix("Fast")
    rules, splits = spec["normalizer"] or {}, spec["pre_tokenizer"] or {}
    asked: dict[str, Any] = {}
    if rules.get("type") == "BertNormalizer" and kind in ("", "BertTokenizer"):
        lowercase, han = said.get("do_lower_case", True), said.get("tokenize_chinese_chars", True)
        asked = {"lowercase": lowercase, "handle_chinese_chars": han, "strip_accents": said.get("strip_accents")}
        spec["normalizer"] = {**rules, **asked}
    if splits.get("type") == "ByteLevel" and kind == "RobertaTokenizer":
        asked = {"add_prefix_space": said.get("add_prefix_space", False)}
        spec["pre_tokenizer"] = {**splits, **asked}
    found = {**rules, **splits}
    changed = any(found.get(name) != value for name, value in asked.items())
    return Tokenizer.from_spec(spec, tokenizer.config) if changed else tokenizer


def _content(token: Any) -> str | None:
    """A special token is written as its text or as an object with it."""
    return token.get("content") if isinstance(token, dict) else token
