"""What makes a directory of a BERT a sentence encoder, in the layout of sentence-transformers: `modules.json`, `1_Pooling`, perhaps
`2_Normalize`, and the maximum length.

Our `embed` always gives unit vectors, so a missing `2_Normalize` changes the length of their vectors, not the direction of ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tonggan.data.text import Tokenizer
from tonggan.hub.weights import read_json, write_json
from tonggan.types import TongganError

Pooling: TypeAlias = Literal["mean", "first"]
POOLINGS: dict[str, Pooling] = {"mean": "mean", "mean_tokens": "mean", "cls": "first", "cls_token": "first"}
LISTED, SETTINGS, PROMPTS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"


def pooling_in(directory: Path) -> Pooling:
    """What `modules.json` and the pooling's config.json say; a bare encoder is pooled by the mean, as the library does."""
    listed = directory / LISTED
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


def length_in(directory: Path) -> int | None:
    """The maximum length that the layout names, None where it names none."""
    file = directory / SETTINGS
    said: int | None = read_json(file).get("max_seq_length") if file.is_file() else None
    return said


def check_case(directory: Path, tokenizer: Tokenizer) -> None:
    """Raise `TongganError` where the layout asks for lower case and the tokenizer keeps capitals: nothing of ours would do it."""
    file = directory / SETTINGS
    if file.is_file() and read_json(file).get("do_lower_case") and not (tokenizer.spec["normalizer"] or {}).get("lowercase"):
        raise TongganError(f"{file}: do_lower_case=true is not supported where the tokenizer itself keeps capitals")


def check_prompt(directory: Path) -> None:
    """Raise `TongganError` where the layout asks for words before every text; prompts that are only on offer are the user's to write."""
    file = directory / PROMPTS
    said = read_json(file) if file.is_file() else {}
    name = said.get("default_prompt_name")
    if name is not None and (prompt := (said.get("prompts") or {}).get(name)):
        raise TongganError(
            f"{file}: default_prompt_name={name!r} puts {prompt!r} before every text, which is not done here; "
            "set it to null, and write the prompt before your texts"
        )


def write_layout(directory: Path, width: int, pooling: Pooling, max_length: int) -> None:
    """The files beside an encoder's own."""
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(parts)
    ]
    (directory / LISTED).write_text(json.dumps(modules, indent=2) + "\n", "utf-8")
    for path in ("1_Pooling", "2_Normalize"):
        (directory / path).mkdir()
    mean = pooling == "mean"
    write_json(
        directory / "1_Pooling" / "config.json",
        {"word_embedding_dimension": width, "pooling_mode_cls_token": not mean, "pooling_mode_mean_tokens": mean,
         "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False},
    )  # fmt: skip
    write_json(directory / SETTINGS, {"max_seq_length": max_length, "do_lower_case": False})


def _list(file: Path) -> list[dict[str, Any]]:
    try:
        value = json.loads(file.read_text("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TongganError(f"{file}: not readable as JSON ({error})") from None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise TongganError(f"{file}: expected a list of modules")
    return value
