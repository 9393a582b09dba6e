"""A copy of a model with weights of one byte (`models.int8`): about a quarter of the size, written and read."""

from __future__ import annotations

import copy as copy_
from functools import partial
from pathlib import Path

from torch import nn

from tonggan import models
from tonggan.hub.copies import Copy, read_copy, write_copy
from tonggan.hub.read import Checkpoint
from tonggan.hub.weights import read_weights, write_weights
from tonggan.models import ModelConfig
from tonggan.models.adapt import is_adapted, merge
from tonggan.models.base import Embedder
from tonggan.models.int8 import to_int8
from tonggan.types import TongganError


def export_int8(checkpoint: Checkpoint, directory: str | Path) -> None:
    """Write the copy, an adapter merged into it; the checkpoint stays as it is. It is not admitted before `tonggan verify` has passed."""

    def fill(new: Path) -> None:
        plain = merge(checkpoint.module) if is_adapted(checkpoint.module) else copy_.deepcopy(checkpoint.module)
        write_weights(new / "model.safetensors", to_int8(plain.cpu()).state_dict())

    # The scale and the bias of its cosines are among the weights; the scale's ceiling is in config.json, which no file's hash covers.
    details = {"max_scale": checkpoint.module.max_scale} if isinstance(checkpoint.module, Embedder) else {}
    write_copy(directory, "int8", checkpoint, fill, details)


def read_int8(directory: Path, copy: Copy, *, name: str | None = None, unverified: bool = False) -> Checkpoint:
    """The checkpoint of a copy; raises `TongganError` for one that is not verified, or not what was verified."""
    return read_copy(directory, copy, partial(_module, directory, copy), name=name, unverified=unverified)


def _module(directory: Path, copy: Copy, config: ModelConfig) -> nn.Module:
    module, state = to_int8(models.build(config)), read_weights(directory)
    if isinstance(module, Embedder) and module.max_scale != (exported := copy.details["max_scale"]):
        raise TongganError(f"{directory}/config.json: max_scale {module.max_scale} != {exported}, which was exported; export it again")
    expected = module.state_dict()
    if set(state) != set(expected):
        wrong = sorted(set(state) ^ set(expected))
        raise TongganError(f"{directory}: weights and config.json do not fit: {', '.join(wrong[:5])}")
    module.load_state_dict(state)
    return module
