"""The trainer's state on disk: tensors in safetensors, the rest in JSON, never pickle.

A checkpoint is written beside its place and renamed into it, so that a full disk, a killed process or a power cut leaves
the previous one as it was.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tonggan.types import TongganError

STATE, TENSORS = "trainer.json", "trainer.safetensors"


def _aside(directory: Path) -> Path:
    """Where the previous checkpoint stands between the two renames: the name that the hub, too, looks for and puts back."""
    return directory.with_name(f".{directory.name}.previous")


def write(directory: Path, save_model: Callable[[Path], None], tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Replace `directory` by a checkpoint of the model (written by `save_model`) and the trainer's state, or leave it untouched."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = directory.with_name(f".{directory.name}.new"), _aside(directory)
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        save_model(fresh)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, fresh / TENSORS)
        (fresh / STATE).write_text(json.dumps(state), encoding="utf-8")
        for file in fresh.iterdir():
            _sync(file)
        _sync(fresh)
    except (OSError, SafetensorError, TongganError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        kept = f"the previous one in {directory} is intact" if directory.exists() else "there was none before"
        raise TongganError(f"{directory}: the checkpoint could not be written ({error}); {kept}") from None
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    _sync(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def settle(directory: Path) -> None:
    """Finish what a kill interrupted between the two renames: the old one is still whole, so it comes back."""
    old = _aside(directory)
    if old.exists() and not directory.exists():
        old.rename(directory)
    shutil.rmtree(directory.with_name(f".{directory.name}.new"), ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def read(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state that `write` left; raises `TongganError` when there is nothing to resume from, or it is damaged."""
    settle(directory)
    if not (directory / STATE).is_file():
        raise TongganError(f"{directory}: nothing to resume from (no {STATE})")
    try:
        return load_file(directory / TENSORS), json.loads((directory / STATE).read_text("utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise TongganError(f"{directory}: the checkpoint is damaged: {error}") from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ------------------------------------------------------------------------------------------ what is kept


def optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by parameter name: `optimizer/NAME/exp_avg`, …"""
    names = {id(p): name for name, p in module.named_parameters()}
    return {
        f"optimizer/{names[id(p)]}/{key}": value
        for p, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(module: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put `optimizer_tensors` back."""
    parameters = dict(module.named_parameters())
    for full, value in tensors.items():
        if full.startswith("optimizer/"):
            name, _, key = full.removeprefix("optimizer/").rpartition("/")
            # The fused optimiser counts its steps on the device of the parameter.
            optimizer.state[parameters[name]][key] = value.to(parameters[name].device, copy=True)


def random_state(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Every global generator: torch's, also that of `device`, as tensors, Python's and numpy's as plain data.

    What concerns GPUs has not been run on one.
    """
    tensors = {"random/torch": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        tensors["random/mps"] = torch.mps.get_rng_state()
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    plain = {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }
    return tensors, plain


def restore_random(tensors: dict[str, Tensor], plain: dict[str, Any], device: torch.device) -> None:
    """Put `random_state` back; the state of another kind of device than `device` is left aside."""
    torch.set_rng_state(tensors["random/torch"])
    if "random/cuda" in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random/cuda"], device)
    if "random/mps" in tensors and device.type == "mps":
        torch.mps.set_rng_state(tensors["random/mps"])
    version, numbers, gauss = plain["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = plain["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))


def environment(device: torch.device) -> dict[str, Any]:
    """What bit-for-bit equality depends on."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
