"""Which of a repository's files make a model: configuration, tokenizer, weights; never a pickle where there are safetensors, never code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from tonggan.hub.weights import CONFIGS
from tonggan.types import TongganError

WEIGHTS = (
    ("model.safetensors", r"model-\d+-of-\d+\.safetensors"),
    ("adapter_model.safetensors", r"adapter_model-\d+-of-\d+\.safetensors"),
    ("pytorch_model.bin", r"pytorch_model-\d+-of-\d+\.bin"),
    ("open_clip_model.safetensors", r"open_clip_model-\d+-of-\d+\.safetensors"),
    ("open_clip_pytorch_model.bin", r"open_clip_pytorch_model-\d+-of-\d+\.bin"),
)
"""Weights by preference, in one file or as shards with an `.index.json`: the first that a directory has is fetched, no other."""
BESIDE = re.compile(r"(?!.*\.index\.json$).+\.(?:json|jinja|model)|vocab\.txt|merges\.txt")
"""Configuration, templates, sentencepiece models and vocabularies."""
MODULE = re.compile(r"\d+_\w+")
"""Directories inside one that belong to the model: `1_Pooling`."""


def wanted(files: Iterable[str], where: str) -> list[str]:
    """Those of a repository's files that are read; raises `TongganError` when they are no model."""
    names = sorted(files)
    if not {*CONFIGS, "adapter_config.json"} & set(names):
        raise TongganError(f"{where}: not a model's directory, it has no config.json; it has: {some(names)}")
    if not _weights(names):
        raise TongganError(f"{where}: no weights that are read ({', '.join(whole for whole, _ in WEIGHTS)}); it has: {some(names)}")
    modules = {name.split("/")[0] for name in names if "/" in name}
    chosen: list[str] = []
    for directory in ["", *sorted(f"{module}/" for module in modules if MODULE.fullmatch(module))]:
        here = [name.removeprefix(directory) for name in names if name.startswith(directory)]
        here = [name for name in here if "/" not in name]
        chosen += [directory + name for name in (*filter(BESIDE.fullmatch, here), *_weights(here))]
    return chosen


def sha256(file: Path) -> str:
    """The checksum that hubs state for large files."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def some(names: Iterable[str], limit: int = 6) -> str:
    """Names for a message."""
    listed = list(names)
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "") or "nothing"


def _weights(names: list[str]) -> list[str]:
    for whole, shard in WEIGHTS:
        if whole in names:
            return [whole]
        if f"{whole}.index.json" in names:
            return [f"{whole}.index.json", *(name for name in names if re.fullmatch(shard, name))]
    return []
