"""Tensors on disk: safetensors (one file or shards with an index), and others' `.bin` files without running their code."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tonggan.types import TongganError

WHOLE = ("model.safetensors", "pytorch_model.bin")
"""Weights files by preference; a sharded one has an `.index.json` beside it."""


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All tensors of a directory, on the CPU. A damaged, missing or unsafe file raises `TongganError` naming it."""
    for name in WHOLE:
        if (directory / name).is_file():
            return read_tensors(directory / name)
        index = directory / f"{name}.index.json"
        if index.is_file():
            return _read_shards(index)
    raise TongganError(f"{directory}: no weights here; expected {' or '.join(WHOLE)} (or their .index.json with shards)")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of one file; anything but safetensors goes through `torch.load(weights_only=True)`, which runs no code."""
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        found = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TongganError(f"{file}: no such file, although the index names it") from None
    except pickle.UnpicklingError as error:
        raise TongganError(f"{file}: not plain weights, loading it would run code; it is refused ({_first_line(error)})") from None
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise TongganError(f"{file}: damaged or incomplete, fetch it again ({_first_line(error)})") from None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise TongganError(f"{file}: not a plain dictionary of tensors")
    return found


def write_weights(file: Path, state: Mapping[str, Tensor]) -> None:
    """Write safetensors; every tensor gets memory of its own, tied ones are stored twice rather than lost."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:  # the library wraps the system's own error, a full disk for one
        raise OSError(0, _first_line(error)) from error


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file; raises `TongganError` naming the file when it is absent or not JSON."""
    try:
        value = json.loads(file.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise TongganError(f"{file}: no such file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TongganError(f"{file}: not readable as JSON ({error})") from None
    if not isinstance(value, dict):
        raise TongganError(f"{file}: expected an object, found {type(value).__name__}")
    return value


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _read_shards(index: Path) -> dict[str, Tensor]:
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict):
        raise TongganError(f"{index}: has no weight_map")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(where.values())):
        if Path(name).name != name:
            raise TongganError(f"{index}: names a file outside this directory: {name}")
        tensors |= read_tensors(index.parent / name)
    lost = sorted(set(where) - set(tensors))
    if lost:
        raise TongganError(f"{index}: the shards lack {', '.join(lost[:5])}")
    return tensors


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
