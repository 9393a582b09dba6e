"""Memory preflight: the largest batch once, before a night of training, with everything put back as it was."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from tonggan import devices
from tonggan.tensors import Batch
from tonggan.train import checkpoint
from tonggan.train.trainer import Stream, Trainer, compares
from tonggan.types import TongganError

ENOUGH = 0.9
"""Use at most this part of what is free."""
SETTLED = 5
"""Updates times momentum from which on less than a hundredth of the old running statistics is left."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes that one update of the largest batch adds, the optimiser's state included, and what is free; None where unknown."""

    needed: int
    available: int | None
    warnings: tuple[str, ...] = ()


def preflight(trainer: Trainer, stream: Stream, batch: Batch, kept: int = 0) -> Plan:
    """Forward and backward on `batch`, measured; buffers, gradients, modes and generators are as before, bit for bit.

    `kept`: bytes of memory that the stream will fill while it trains, with pictures that it keeps decoded.

    Raises `TongganError` with what should fit, a micro-batch or a smaller batch, when it does not fit into memory.
    """
    module, device = trainer.module, trainer.device
    gradients = [parameter.grad for parameter in module.parameters()]
    module.zero_grad(set_to_none=True)
    buffers = {name: buffer.detach().clone() for name, buffer in stream.step.named_buffers()}
    modes = {part: part.training for part in stream.step.modules()}
    tensors, plain = checkpoint.random_state(device)
    before = devices.start_measuring(device)
    available = devices.free(device)
    try:
        _forward_backward(trainer, stream, batch.to(device))
        needed = max(devices.peak(device) - before, 0)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
            raise
        raise TongganError(_too_large(trainer, stream, len(batch), str(error).splitlines()[0])) from None
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
    there = sum(value.numel() * value.element_size() for state in trainer.optimizer.state.values() for value in state.values())
    needed += max(0, 2 * sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad) - there)
    in_memory = 0 if device.type == "cuda" else kept
    if available is not None and needed + in_memory > ENOUGH * available:
        pictures = f", decoded pictures {in_memory / 1e9:.1f} GB" if in_memory else ""
        told = f"an update needs {needed / 1e9:.1f} GB{pictures}, {available / 1e9:.1f} GB are free"
        raise TongganError(_too_large(trainer, stream, len(batch), told))
    return Plan(needed, available, tuple(_warnings(trainer, stream, batch)))


def _forward_backward(trainer: Trainer, stream: Stream, batch: Batch) -> None:
    trainer.backward(stream, batch)


def _too_large(trainer: Trainer, stream: Stream, rows: int, why: str) -> str:
    smaller = max(1, min(trainer.train.micro_batch or rows, rows) // 4)
    remedy = f"set its loader.batch_size to {smaller}"
    if compares(stream.step):
        remedy = f"encode it in parts: train.micro_batch={smaller} (the gradient stays the same)"
    return f"stream {stream.name}: a batch of {rows} rows does not fit into memory ({why}); {remedy}"


def _warnings(trainer: Trainer, stream: Stream, batch: Batch) -> list[str]:
    live = [part for part in stream.step.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training]
    micro, steps = trainer.train.micro_batch, trainer.train.steps
    told = []
    if live and micro is not None and micro < len(batch):
        told += [f"BatchNorm sees parts of {micro} rows, not the batch of {len(batch)}: its statistics differ from those of a whole batch"]
    slow = min((part.momentum for part in live if part.momentum), default=None)
    if slow is not None and steps is not None and steps * slow < SETTLED:
        told += [
            f"BatchNorm's running statistics follow by {slow:g} an update: after {steps} updates they are still partly those of before, "
            "and evaluation, which uses them, may be far below training. Train longer, or let them follow faster (norm_momentum: 0.1)"
        ]
    return told
