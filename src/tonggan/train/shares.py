"""Each stream's share of the gradient: which of several tasks is steering the weights that they share.

A loss's value says little about it: a small one may have the larger gradient. Measured is the norm of a stream's weighted gradient on
the parameters that at least two streams moved in this update, over the sum of all streams' norms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Shares:
    """Ask after each stream's backward pass; gradients are added up, so a stream's own is the difference to what was there before."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        self._before = self._now()
        self._norms: dict[str, list[float]] = {}

    @torch.no_grad()
    def add(self, name: str) -> None:
        """The stream `name` has just added its gradients."""
        now = self._now()
        self._norms[name] = [_norm(old, new) for old, new in zip(self._before, now, strict=True)]
        self._before = now

    def of_each(self) -> dict[str, float]:
        """Shares that sum to 1; none where no two streams moved a parameter together."""
        shared = [sum(norm > 0 for norm in norms) > 1 for norms in zip(*self._norms.values(), strict=True)]
        own = {name: math.hypot(*(norm for norm, both in zip(norms, shared, strict=True) if both)) for name, norms in self._norms.items()}
        total = sum(own.values())
        return {name: norm / total for name, norm in own.items()} if total else {}

    def _now(self) -> list[Tensor | None]:
        return [None if parameter.grad is None else parameter.grad.detach().clone() for parameter in self._parameters]


def _norm(old: Tensor | None, new: Tensor | None) -> float:
    """Of what was added."""
    return 0.0 if new is None else float((new if old is None else new - old).norm())
