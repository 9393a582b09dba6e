"""The optimiser, its parameter groups by what a parameter *is*, the schedule, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tonggan.config import Config


class OptimConfig(Config):
    """AdamW with warm-up and a cosine (Loshchilov and Hutter 2019); the defaults are CLIP's, for training from scratch."""

    lr: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.2
    warmup: int = 100
    """Updates over which the rate rises from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final: float = 0.0
    """Fraction of the rate that is left at the end."""
    clip_norm: float | None = 1.0
    ema: float | None = None
    """Decay per update of the moving average of weights, which is then what is evaluated and saved."""


DECAYED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.LSTM, nn.GRU)


def groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups. Matrices of linear, convolutional and recurrent layers decay (and whatever a module
    names in its own `decayed`); biases, norms, embeddings, positions, tokens and scales do not. Decided by the owner's type:
    names lie."""
    seen: set[int] = set()
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            named = name in getattr(owner, "decayed", ())
            (decayed if named or (isinstance(owner, DECAYED) and parameter.dim() >= 2) else plain).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Fused AdamW: one pass over memory per parameter instead of eight."""
    found = [group for group in groups(module, config.weight_decay) if group["params"]]
    if not found:
        raise ValueError("nothing to train: every parameter is frozen")
    return torch.optim.AdamW(found, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def rate(progress: float, update: int, config: OptimConfig) -> float:
    """Factor of the learning rate at `update` (from 0), when the fraction `progress` of training is done."""
    if update < config.warmup:
        return (update + 1) / config.warmup
    match config.schedule:
        case "constant":
            left = 1.0
        case "linear":
            left = 1 - progress
        case "cosine":
            left = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return config.final + (1 - config.final) * left


class Average:
    """Exponential moving average of a module's weights; buffers are taken as they are."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self.weights = [p.detach().clone() for p in module.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After update number `step` (from 1). Young averages follow faster, so that they forget the random start."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.weights, [p.detach() for p in self._module.parameters()], 1 - decay)

    def __enter__(self) -> None:
        """Put the average in the module's place."""
        self._swap()

    def __exit__(self, *exception: object) -> None:
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for mine, theirs in zip(self.weights, self._module.parameters(), strict=True):
            kept = mine.clone()
            mine.copy_(theirs)
            theirs.copy_(kept)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors."""
        return zip((name for name, _ in self._module.named_parameters()), self.weights, strict=True)
