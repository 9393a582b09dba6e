"""Memory preflight: the largest batch once, before a night of training, with everything put back as it was."""

from __future__ import annotations

import contextlib
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tonggan.tensors import Batch
from tonggan.train import checkpoint
from tonggan.train.trainer import Stream, Trainer
from tonggan.types import TongganError

ENOUGH = 0.9
"""Use at most this part of what is free."""
STATUS, GROUP = Path("/proc/self/status"), Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes that one update of the largest batch adds, the optimiser's state included, and what is free; None where unknown."""

    needed: int
    available: int | None
    warnings: tuple[str, ...] = ()


def preflight(trainer: Trainer, stream: Stream, batch: Batch) -> Plan:
    """Forward and backward on `batch`, measured; buffers, gradients, modes and generators are as before, bit for bit.

    Raises `TongganError` with a micro-batch that should fit when it does not fit into memory.
    """
    module, device = trainer.module, trainer.device
    gradients = [parameter.grad for parameter in module.parameters()]
    module.zero_grad(set_to_none=True)
    buffers = {name: buffer.detach().clone() for name, buffer in stream.step.named_buffers()}
    modes = {part: part.training for part in stream.step.modules()}
    tensors, plain = checkpoint.random_state(device)
    before = _used(device)
    available = _free(device)
    try:
        _forward_backward(trainer, stream, batch.to(device))
        needed = max(_peak(device) - before, 0)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
            raise
        raise TongganError(_too_large(len(batch), trainer.train.micro_batch, str(error).splitlines()[0])) from None
    finally:
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            parameter.grad = gradient
        with torch.no_grad():
            for name, buffer in stream.step.named_buffers():
                buffer.copy_(buffers[name])
        for part, mode in modes.items():
            part.training = mode
        checkpoint.restore_random(tensors, plain, device)
    # Fused AdamW keeps two numbers per weight, from its first update on.
    kept = sum(value.numel() * value.element_size() for state in trainer.optimizer.state.values() for value in state.values())
    state = max(0, 2 * sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad) - kept)
    if available is not None and needed + state > ENOUGH * available:
        told = f"an update needs {(needed + state) / 1e9:.1f} GB, {available / 1e9:.1f} GB are free"
        raise TongganError(_too_large(len(batch), trainer.train.micro_batch, told))
    return Plan(needed + state, available, tuple(_warnings(trainer, stream, batch)))


def _forward_backward(trainer: Trainer, stream: Stream, batch: Batch) -> None:
    trainer.backward(stream, batch)


def _too_large(rows: int, micro: int | None, why: str) -> str:
    smaller = max(1, (micro or rows) // 4)
    remedy = f"encode it in parts: train.micro_batch={smaller} (the gradient stays the same)"
    return f"a batch of {rows} rows does not fit into memory ({why}); {remedy}"


def _warnings(trainer: Trainer, stream: Stream, batch: Batch) -> list[str]:
    live = any(isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training for part in stream.step.modules())
    micro = trainer.train.micro_batch
    if live and micro is not None and micro < len(batch):
        return [f"BatchNorm sees parts of {micro} rows, not the batch of {len(batch)}: its statistics differ from those of a whole batch"]
    return []


def _used(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if not STATUS.exists():
        return _peak(device)
    with contextlib.suppress(OSError):
        # Linux: start the high-water mark anew, or what the process once needed for something else would be taken for this.
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():
        return _status("VmHWM")
    # The process's high-water mark: bytes on macOS, kilobytes elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(field: str) -> int:
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))


def _free(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    memory = Path("/proc/meminfo")
    if not memory.exists():
        return None
    fields = dict(line.split(":", 1) for line in memory.read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    # A container may be allowed less than the machine has.
    limit, used = (GROUP / name for name in ("memory.max", "memory.current"))
    if limit.exists() and used.exists() and (most := limit.read_text().strip()) != "max":
        free = min(free, max(0, int(most) - int(used.read_text())))
    return free
