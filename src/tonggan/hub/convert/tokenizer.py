"""Tokenizer files as published beside weights, both ways: tokenizer.json, tokenizer_config.json, and the older vocabularies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tonggan.data.text import END, START, TextProcessing, Tokenizer
from tonggan.hub.convert.fields import need
from tonggan.hub.weights import read_json, write_json
from tonggan.types import TongganError

SETTINGS, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
PADS_LEFT = frozenset({"GemmaTokenizer", "Siglip2Tokenizer"})
"""Classes that pad on the left where no file says otherwise."""
CLASSES = {"gpt2": "GPT2Tokenizer", "qwen2": "Qwen2Tokenizer", "qwen3": "Qwen2Tokenizer"}
"""The class that the library takes for a model where no file names one, by model_type."""
ENDS = {
    "GPT2Tokenizer": {"bos_token": END, "eos_token": END},
    "Qwen2Tokenizer": {"eos_token": END, "pad_token": END},
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>"},
}
"""The special tokens that a class has where no file names others."""
AS_WRITTEN = frozenset({"llava"})
"""Models of which the library takes tokenizer.json as it stands, whatever class is named."""


def read_tokenizer(directory: Path, *, max_length: int | None, context: int, pad: str, decoder: bool = False) -> Tokenizer:
    """The tokenizer of a directory, cutting at `max_length`, else at what its own file says, never beyond `context` positions.

    `pad` is the padding token where no file names one; to a `decoder`, which counts from each row's first token, the side of padding is
    all one. Raises `TongganError` for a directory without a tokenizer, and for settings that would change ids and that we do not have.
    """
    said = read_said(directory)
    if max_length is None:
        max_length = int(min(said.get("model_max_length") or context, context))  # "no limit" is written as 10^30
    config = TextProcessing(max_length=min(max_length, context), truncation_side=truncation_in(said, str(directory / SETTINGS), decoder))
    try:
        tokenizer = _open(directory, said, config)
    except TongganError:
        raise
    except Exception as error:  # what the tokenizers library raises on damaged files has no class of its own
        raise TongganError(f"{directory}: its tokenizer cannot be read: {error}") from None
    check_added(tokenizer, said, directory)
    return tokenizer.with_settings(pad_id=pad_in(tokenizer, said, directory, pad))


def read_said(directory: Path) -> dict[str, Any]:
    """What tokenizer_config.json says, with what stands in other files: the class in older ones' config.json, the special tokens
    and those that were added to a vocabulary in files of their own, padding and cutting in tokenizer.json.
    """

    def content(name: str) -> dict[str, Any]:
        return read_json(directory / name) if (directory / name).is_file() else {}

    said = {name: value for name, value in content(SETTINGS).items() if value is not None}
    model = content("config.json")
    kind = model.get("tokenizer_class") or CLASSES.get(model.get("model_type", ""))
    file = content("tokenizer.json")
    cuts, pads = file.get("truncation") or {}, file.get("padding") or {}
    defaults = {
        "tokenizer_class": kind,
        "truncation_side": str(cuts.get("direction", "right")).lower(),
        "padding_side": str(pads["direction"]).lower() if "direction" in pads else None,
        "pad_token": pads.get("pad_token"),
    }
    if "added_tokens_decoder" not in said:  # which is how the library tells the files of older releases, whose others count as well
        said |= {name: value for name, value in content(SPECIAL).items() if value is not None}
        said["added_tokens_decoder"] = {str(number): {"content": token} for token, number in content(ADDED).items()}
    said = {**{name: value for name, value in defaults.items() if value is not None}, **said}
    kind = str(said.get("tokenizer_class") or "").removesuffix("Fast")
    return {**ENDS.get(kind, {}), **said, "tokenizer_class": "" if model.get("model_type") in AS_WRITTEN else kind}


def truncation_in(said: Mapping[str, Any], where: str, decoder: bool = False) -> Literal["right", "left"]:
    """Where longer texts are cut; raises `TongganError` for texts padded on the left, which move with the batch they are in."""
    cut, padded = said["truncation_side"], said.get("padding_side") or ("left" if said["tokenizer_class"] in PADS_LEFT else "right")
    if padded != "right" and not decoder:
        unsaid = "" if "padding_side" in said else f", which is what a {said['tokenizer_class']} does where no file says otherwise,"
        raise TongganError(
            f"{where}: padding_side={padded!r}{unsaid} is not supported: a text's vector would depend on the longest of its batch; "
            "if the model was trained with padding on the right, set padding_side to 'right'"
        )
    if cut not in ("right", "left"):
        raise TongganError(f"{where}: truncation_side={cut!r} is not supported; supported are 'right' and 'left'")
    return "left" if cut == "left" else "right"


def pad_in(tokenizer: Tokenizer, said: Mapping[str, Any], directory: Path, default: str) -> int:
    """The id of the padding token; raises `TongganError` for one that the vocabulary does not have."""
    named = content_of(said.get("pad_token"))
    found = tokenizer.id_of(named or default)
    if found is None:
        whose = "pad_token" if named else "no pad_token is named, and the usual"
        raise TongganError(
            f"{directory / SETTINGS}: {whose} {named or default!r} is not among the {tokenizer.vocab_size} tokens of the vocabulary; "
            "name one that is, as pad_token"
        )
    return found


def check_added(tokenizer: Tokenizer, said: Mapping[str, Any], directory: Path) -> None:
    """Raise `TongganError` for tokens that the settings add and the vocabulary lacks or has elsewhere."""
    for number, token in said["added_tokens_decoder"].items():
        if (found := tokenizer.id_of(str(content_of(token)))) != int(number):
            stands = "lacks it" if found is None else f"has it at {found}"
            raise TongganError(
                f"{directory}: the settings add token {content_of(token)!r} at {number}, the vocabulary {stands}; "
                f"save the tokenizer anew, so that tokenizer.json has what {SETTINGS} or {ADDED} add"
            )


def write_tokenizer(directory: Path, tokenizer: Tokenizer, kind: str, special: Mapping[str, str], **settings: Any) -> None:
    """tokenizer.json, tokenizer_config.json and special_tokens_map.json, and the vocabulary files that older versions want."""
    tokenizer.save(directory / "tokenizer.json")
    special = {**special, "pad_token": token_of(tokenizer, tokenizer.pad_id)}
    write_json(directory / SPECIAL, special)
    limits = {"model_max_length": tokenizer.config.max_length, "truncation_side": tokenizer.config.truncation_side}
    write_json(directory / SETTINGS, {"tokenizer_class": kind, **limits, **special, **settings})
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
            _need_class(said, "CLIPTokenizer", {"bos_token": START, "eos_token": END, "unk_token": END}, directory)
            return Tokenizer.clip(vocab, merges, config)
        if "<s>" in vocab and "</s>" in vocab:
            _need_class(said, "RobertaTokenizer", {"cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}, directory)
            mask = said.get("mask_token")
            strips = isinstance(mask, dict) and bool(mask.get("lstrip"))
            return Tokenizer.roberta(vocab, merges, config, prefix_space=bool(said.get("add_prefix_space", False)), mask_strips=strips)
        if END in vocab:
            _need_class(said, "GPT2Tokenizer", {"bos_token": END, "eos_token": END, "unk_token": END}, directory)
            need(said, {"add_bos_token": False}, str(directory / SETTINGS))
            pad = content_of(said.get("pad_token"))
            special = dict.fromkeys((END, pad) if pad in vocab else (END,))
            return Tokenizer.gpt2(vocab, merges, config, special=special, prefix_space=bool(said.get("add_prefix_space", False)))
        raise TongganError(
            f"{directory / 'vocab.json'}: neither CLIP's vocabulary ({START}, {END}) nor RoBERTa's (<s>, </s>) nor GPT-2's ({END}); "
            "of others tokenizer.json is needed"
        )
    if (directory / "vocab.txt").is_file():
        _need_class(said, "BertTokenizer", {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}, directory)
        return Tokenizer.wordpiece(
            directory / "vocab.txt",
            config,
            lowercase=bool(said.get("do_lower_case", True)),
            strip_accents=said.get("strip_accents"),
            split_han=bool(said.get("tokenize_chinese_chars", True)),
        )
    raise TongganError(f"{directory}: no tokenizer here; expected tokenizer.json, vocab.json with merges.txt, or vocab.txt")


def _need_class(said: Mapping[str, Any], kind: str, tokens: Mapping[str, str], directory: Path) -> None:
    """Raise `TongganError` where a vocabulary without a tokenizer.json is for another class, or has other special tokens, than `kind`'s."""
    where = str(directory / SETTINGS)
    if said["tokenizer_class"] not in ("", kind):
        raise TongganError(
            f"{where}: tokenizer_class {said['tokenizer_class']!r} is not supported where there is no tokenizer.json; "
            f"supported with this vocabulary is {kind}"
        )
    need({name: content_of(said[name]) for name in tokens if name in said}, tokens, where)


def _as_its_class_has_it(tokenizer: Tokenizer, said: Mapping[str, Any]) -> Tokenizer:
    """BERT's, RoBERTa's, GPT-2's and Llama's tokenizers under the settings of tokenizer_config.json, defaults included.

    transformers builds these classes anew from vocabulary and settings, so where tokenizer.json says otherwise it is not heard.
    """
    spec, kind = tokenizer.spec, said["tokenizer_class"]
    rules, splits = spec["normalizer"] or {}, spec["pre_tokenizer"] or {}
    asked: dict[str, Any] = {}
    if rules.get("type") == "BertNormalizer" and kind in ("", "BertTokenizer"):
        lowercase, han = said.get("do_lower_case", True), said.get("tokenize_chinese_chars", True)
        asked = {"lowercase": lowercase, "handle_chinese_chars": han, "strip_accents": said.get("strip_accents")}
        spec["normalizer"] = {**rules, **asked}
    if kind == "LlamaTokenizer" and spec["model"]["type"] == "BPE" and '"ByteLevel"' not in json.dumps({**spec, "model": None}):
        return Tokenizer.from_spec({**spec, **_of_llama(said, spec["model"])}, tokenizer.config)
    if splits.get("type") == "ByteLevel" and kind in ("RobertaTokenizer", "GPT2Tokenizer"):
        asked = {"add_prefix_space": said.get("add_prefix_space", False)}
        spec["pre_tokenizer"] = {**splits, **asked}
    found = {**rules, **splits}
    changed = any(found.get(name) != value for name, value in asked.items())
    return Tokenizer.from_spec(spec, tokenizer.config) if changed else tokenizer


def _of_llama(said: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """The rules of Llama's SentencePiece-like BPE: blanks are spelled ▁, one stands before the first word, in `legacy` files also before
    what follows a special token; unknown letters are told by their bytes."""
    spaced = bool(said.get("add_prefix_space", True))
    scheme = "never" if not spaced else "always" if said.get("legacy", False) else "first"
    undone: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False},
        "decoder": {
            "type": "Sequence",
            "decoders": [*undone, *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if spaced else [])],
        },
        "model": {**model, "unk_token": None, "fuse_unk": True, "byte_fallback": True},
    }


def content_of(token: Any) -> str | None:
    """A special token is written as its text or as an object with it."""
    return token.get("content") if isinstance(token, dict) else token
