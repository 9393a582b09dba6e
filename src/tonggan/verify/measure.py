"""How far two tensors are apart, in every way that somebody asks for, and which of them is held against a tolerance.

Shape letters: R rows that count, C the last dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

TOP = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """Two tensors of one name. `tolerance` is the most of `relative`, or the least of `cosine`; which, `by` says."""

    name: str
    absolute: float = math.nan
    """The largest |a - b|."""
    relative: float = math.nan
    """That, of the largest |b|."""
    cosine: float | None = None
    """The lowest of the rows; None where there are none."""
    argmax: float | None = None
    """Part of the rows whose largest entry is at the same place; for scores only."""
    top: float | None = None
    """Part of the `TOP` largest entries that both have, over all rows; for scores only."""
    by: Literal["relative", "cosine"] = "relative"
    tolerance: float = 0.0
    problem: str | None = None
    """Why they cannot be compared at all."""

    @property
    def passed(self) -> bool:
        """Whether the tolerance is kept; what is not a number never keeps it."""
        if self.problem is not None:
            return False
        if self.by == "cosine":
            return self.cosine is not None and self.cosine >= self.tolerance
        return self.relative <= self.tolerance


def compare(
    name: str,
    ours: Tensor,
    theirs: Tensor,
    tolerance: float,
    *,
    by: Literal["relative", "cosine"] = "relative",
    seen: Tensor | None = None,
    scores: bool = False,
    floor: float = 0.0,
) -> Difference:
    """`ours` against `theirs`, which is right by definition. `seen` [B, L], where it fits, says which places count; `floor` is the least
    size that differences are related to."""
    if ours.shape != theirs.shape:
        return Difference(name, by=by, tolerance=tolerance, problem=f"shapes {list(ours.shape)} and {list(theirs.shape)}")
    a, b = (t.detach().cpu().double() for t in (ours, theirs))
    if seen is not None and a.dim() >= 2 and a.shape[:2] == seen.shape:
        a, b = a[seen.bool().cpu()], b[seen.bool().cpu()]
    if not a.numel():
        return Difference(name, by=by, tolerance=tolerance, problem="nothing to compare")
    absolute, largest = float((a - b).abs().max()), max(float(b.abs().max()), floor)
    relative = absolute / largest if largest else (0.0 if absolute == 0 else math.inf)
    rows = (a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])) if a.dim() > 1 and a.shape[-1] > 1 else None
    cosine = None if rows is None else _cosine(*rows)
    argmax, top = _agreement(*rows) if rows is not None and scores else (None, None)
    return Difference(name, absolute, relative, cosine, argmax, top, by, tolerance)


def _cosine(a: Tensor, b: Tensor) -> float:
    """The lowest of the rows, however short they are; equal rows have 1, also where they are zero."""
    found = torch.nn.functional.cosine_similarity(a, b, dim=-1, eps=torch.finfo(a.dtype).tiny)
    return float(torch.where((a == b).all(dim=-1), 1.0, found).min())


def _agreement(a: Tensor, b: Tensor) -> tuple[float, float]:
    k = min(TOP, a.shape[1])
    mine, theirs = a.topk(k, dim=1).indices, b.topk(k, dim=1).indices
    shared = (mine[:, :, None] == theirs[:, None, :]).any(dim=2).double().mean()
    return float((a.argmax(1) == b.argmax(1)).double().mean()), float(shared)
