"""Tensors on disk: safetensors (one file or shards with an index), and others' `.bin` files without running their code."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tonggan.types import TongganError

CONFIGS = ("config.json", "open_clip_config.json")
"""Files by which a directory says what model is in it, by preference."""
WHOLE = ("model.safetensors", "pytorch_model.bin")
"""Weights files by preference; a sharded one has an `.index.json` beside it."""


def read_weights(directory: Path, names: tuple[str, ...] = WHOLE) -> dict[str, Tensor]:
    """All tensors of a directory, on the CPU. A damaged, missing or unsafe file raises `TongganError` naming it."""
    for name in names:
        if (directory / name).is_file():
            return read_tensors(directory / name)
        index = directory / f"{name}.index.json"
        if index.is_file():
            return _read_shards(index)
    raise TongganError(f"{directory}: no weights here; expected {' or '.join(names)} (or their .index.json with shards)")


def tensor_names(directory: Path) -> frozenset[str]:
    """Names of all tensors of a directory; of a safetensors file only the head is read."""
    whole = directory / WHOLE[0]
    if not whole.is_file():
        return frozenset(read_weights(directory))
    try:
        with safe_open(whole, "pt") as file:
            return frozenset(file.keys())
    except SafetensorError as error:
        raise TongganError(f"{whole}: damaged or incomplete, fetch it again ({_first_line(error)})") from None


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


def write_weights(file: Path, state: Mapping[str, Tensor], *, max_shard_bytes: int = 5 * 10**9) -> None:
    """Write safetensors; every tensor gets memory of its own, tied ones are stored twice rather than lost.

    More than `max_shard_bytes` become shards, `model-00001-of-00003.safetensors`, with an index beside them, as transformers names
    them; only a tensor that is larger by itself makes a larger shard.
    """
    shards = _divide(state, max_shard_bytes)
    if len(shards) == 1:
        _save(file, shards[0])
        return
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"{file.stem}-{number:05}-of-{len(shards):05}{file.suffix}"
        _save(file.with_name(name), shard)
        where |= dict.fromkeys(shard, name)
    size = sum(tensor.nbytes for tensor in state.values())
    write_json(file.with_name(f"{file.name}.index.json"), {"metadata": {"total_size": size}, "weight_map": where})


def _divide(state: Mapping[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    """In the order of the state; at least one shard, though it be empty."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in state.items():
        if shards[-1] and size + tensor.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _save(file: Path, state: Mapping[str, Tensor]) -> None:
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
    if not isinstance(where, dict) or not where or not all(isinstance(name, str) for name in where.values()):
        raise TongganError(f"{index}: has no weight_map from tensors to files")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(where.values())):
        if Path(name).name != name or name == "..":
            raise TongganError(f"{index}: names a file outside this directory: {name}")
        tensors |= read_tensors(index.parent / name)
    lost = sorted(set(where) - set(tensors))
    if lost:
        raise TongganError(f"{index}: the shards lack {', '.join(lost[:5])}")
    return tensors


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
