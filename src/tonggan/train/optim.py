"""The optimiser, its parameter groups by what a parameter *is*, the schedule, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn

from tonggan.config import Config, did_you_mean
from tonggan.types import UsageError

Beta: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


class OptimConfig(Config):
    """AdamW with warm-up and a cosine (Loshchilov and Hutter 2019); the defaults are CLIP's, for training from scratch."""

    lr: float = Field(default=5e-4, ge=0)
    parts: dict[str, float] = Field(default_factory=dict)
    """Rates of parts as multiples of `lr`, e.g. {image: 0.1, image_head: 1}; of nested parts the inner one counts."""
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    """Factor of the rate from each block to the one below it (Clark et al. 2020; 0.65 to 0.9 for fine-tuning), besides `parts`. What feeds
    a stack of blocks counts as below the lowest; what follows it, heads for one, has the full rate. None: one rate for all."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: float = Field(default=1e-6, gt=0)
    weight_decay: float = Field(default=0.2, ge=0)
    warmup: int = Field(default=100, ge=0)
    """Updates over which the rate rises from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final: float = 0.0
    """Fraction of the rate that is left at the end."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    ema: float | None = Field(default=None, ge=0, lt=1)
    """Decay per update of the moving average of weights, which is then what is evaluated and saved."""


DECAYED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.LSTM, nn.GRU)


def groups(
    module: nn.Module, weight_decay: float, parts: Mapping[str, float] | None = None, layer_decay: float | None = None
) -> list[dict[str, Any]]:
    """Trainable parameters, those that decay and those that do not; two groups for each `factor` of the rate.

    Matrices of linear, convolutional and recurrent layers decay (and whatever a module names in its own `decayed`); biases, norms,
    embeddings, positions, tokens and scales do not. Decided by the owner's type: names lie.
    """
    factors = _factors(module, parts or {})
    depths = {} if layer_decay is None else _depths(module)
    found: dict[float, tuple[list[nn.Parameter], list[nn.Parameter]]] = {}
    seen: set[int] = set()
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            factor = factors.get(id(owner), 1.0) * (layer_decay or 1.0) ** depths.get(id(parameter), 0)
            named = name in getattr(owner, "decayed", ())
            decayed, plain = found.setdefault(factor, ([], []))
            (decayed if named or (isinstance(owner, DECAYED) and parameter.dim() >= 2) else plain).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "factor": factor}
        for factor, (decayed, plain) in found.items()
        for parameters, decay in ((decayed, weight_decay), (plain, 0.0))
    ]


def _factors(module: nn.Module, parts: Mapping[str, float]) -> dict[int, float]:
    """Factor of the rate by module; outer parts first, so that inner ones have the last word."""
    factors: dict[int, float] = {}
    for name in sorted(parts, key=lambda name: name.count(".")):
        try:
            part = module.get_submodule(name)
        except AttributeError:
            known = [n for n, _ in module.named_modules() if n and n.count(".") <= 1]
            there = ", ".join(part for part in known if "." not in part)
            raise UsageError(f"optim.parts: no part {name!r}{did_you_mean(name, known)}; there are: {there}, and parts of these") from None
        factors |= {id(inner): parts[name] for inner in part.modules()}
    return factors


def _depths(module: nn.Module) -> dict[int, int]:
    """How far below its stack's top each parameter lies, 1 for the uppermost block; parameters that are not named lie above or apart.

    A stack is an outermost `ModuleList` of blocks: modules of one class that are made of others. Each is counted by itself. What feeds
    one is in the module that holds it, by itself or in a Transformer: the children before it that have no stack of their own, and the
    module's own parameters (class token, positions) but for single numbers, such as a scale of cosines. Another tower feeds nothing.
    """
    if _is_stack(module):
        blocks = list(module.children())
        return {id(p): len(blocks) - place for place, block in enumerate(blocks) for p in block.parameters()}
    children = list(module.children())
    inside = [_depths(child) for child in children]
    found = {number: depth for depths in inside for number, depth in depths.items()}
    held = (place for place, child in enumerate(children) if _is_stack(child) or any(map(_is_stack, child.children())))
    if first := next(held, 0):
        fed = [p for child, depths in zip(children[:first], inside, strict=False) if not depths for p in child.parameters()]
        fed += [p for p in module.parameters(recurse=False) if p.numel() > 1]
        found |= dict.fromkeys(map(id, fed), max(inside[first].values()) + 1)
    return found


def _is_stack(module: nn.Module) -> bool:
    blocks = list(module) if isinstance(module, nn.ModuleList) else []
    return len({type(block) for block in blocks}) == 1 and any(True for _ in blocks[0].children())


def optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Fused AdamW: one pass over memory per parameter instead of eight."""
    found = [group for group in groups(module, config.weight_decay, config.parts, config.layer_decay) if group["params"]]
    if not found:
        raise UsageError("nothing to train: every parameter of the model is frozen; freeze less, or with an adapter name parts in `whole`")
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
    """Exponential moving average of the weights that a module trains; frozen ones and buffers are taken as they are."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._decay = decay
        self.weights = [p.detach().clone() for p in self._live.values()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After update number `step` (from 1). Young averages follow faster, so that they forget the random start."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.weights, [p.detach() for p in self._live.values()], 1 - decay)

    def __enter__(self) -> None:
        """Put the average in the module's place."""
        self._swap()

    def __exit__(self, *exception: object) -> None:
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for mine, theirs in zip(self.weights, self._live.values(), strict=True):
            kept = mine.clone()
            mine.copy_(theirs)
            theirs.copy_(kept)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors."""
        return zip(self._live, self.weights, strict=True)
