"""The first layer that diverges: outputs of our blocks and of the reference's layers, in the order in which they are computed.

Which layer is whose follows from the table of weights: a block of ours is the layer of theirs that has its parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from tonggan.hub.convert.table import KeyTable
from tonggan.verify.report import Divergence

Trace = dict[str, tuple[Tensor, Tensor]]
"""What entered a layer, and what it gave, at its first call; in the order of these calls."""


def pairs(ours: nn.Module, table: KeyTable, theirs: nn.Module, names: Mapping[str, str]) -> dict[str, str]:
    """Names of our blocks (the members of a `ModuleList`) and of the layers of theirs with the same weights.

    `names` are those of their parameters, by the names in the published file.
    """
    known = dict(theirs.named_modules())
    found: dict[str, str] = {}
    for name in _layers(ours):
        published = [table.theirs(f"{name}.{inner}") for inner, _ in ours.get_submodule(name).named_parameters()]
        parameters = [names[one] for one in published if one is not None and one in names]
        if not parameters:
            continue
        layer = _layer(_shared(parameters), known)
        # A layer with weights of more than our block (a convolution's norm) gives something else.
        if layer is not None and layer not in found.values() and _weights(layer, theirs) <= set(parameters):
            found[name] = layer
    return found


@contextmanager
def traced(module: nn.Module, names: Mapping[str, Any] | list[str]) -> Iterator[Trace]:
    """Keeps what the named layers take and give at their first call inside the block."""
    trace: Trace = {}

    def keep(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        entered = args[0] if args else kwargs.get("hidden_states")
        given = output[0] if isinstance(output, tuple) else output
        if name not in trace and isinstance(entered, Tensor) and isinstance(given, Tensor):
            trace[name] = (entered.detach(), given.detach())

    hooks = [
        module.get_submodule(name).register_forward_hook(
            lambda _, args, kwargs, output, name=name: keep(name, args, kwargs, output),
            with_kwargs=True,
        )
        for name in names
    ]
    try:
        yield trace
    finally:
        for hook in hooks:
            hook.remove()


def first_divergence(
    mine: Trace, reference: Trace, names: Mapping[str, str], tolerance: float, seen: Tensor | None
) -> tuple[int, Divergence | None]:
    """How many layers could be compared up to there, and the first that is off by more than `tolerance` of its largest value."""
    count = 0
    for ours, (entered, given) in mine.items():
        theirs = names[ours]
        if theirs not in reference or given.shape != reference[theirs][1].shape:
            continue
        count += 1
        for before, a, b in ((True, entered, reference[theirs][0]), (False, given, reference[theirs][1])):
            off, scale = (a - b).abs().double(), float(b.abs().max())
            if seen is not None and off.dim() == 3 and off.shape[:2] == seen.shape:
                off = off * seen[..., None]
            relative = float(off.max()) / scale if scale else float(off.max())
            # Not `>`: what is not a number has diverged.
            if not relative <= tolerance:
                place = tuple(int(i) for i in torch.unravel_index(off.nan_to_num(float("inf")).argmax(), off.shape))
                return count, Divergence(theirs, ours, place, float(a[place]), float(b[place]), relative, before)
    return count, None


def _layers(module: nn.Module) -> list[str]:
    """Members of lists of modules, the outermost only."""
    found: list[str] = []
    for name, inner in module.named_modules():
        if isinstance(inner, nn.ModuleList) and not any(name.startswith(f"{layer}.") for layer in found):
            found += [f"{name}.{child}" for child, _ in inner.named_children()]
    return found


def _weights(layer: str, module: nn.Module) -> set[str]:
    return {f"{layer}.{name}" for name, _ in module.get_submodule(layer).named_parameters()}


def _shared(names: list[str]) -> str:
    """The module that all these parameters lie in."""
    steps = takewhile(lambda step: len(set(step)) == 1, zip(*(name.split(".")[:-1] for name in names), strict=False))
    return ".".join(step[0] for step in steps)


def _layer(prefix: str, known: Mapping[str, nn.Module]) -> str | None:
    """The member of a list that a name is, or lies in."""
    while prefix:
        parent = prefix.rpartition(".")[0]
        if prefix in known and isinstance(known.get(parent), nn.ModuleList):
            return prefix
        prefix = parent
    return None
