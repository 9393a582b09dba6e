"""How far two tensors are apart, in every way that somebody asks for, and which of them is held against a tolerance.

Shape letters: R rows that count, C the last dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

TOP = 5
LEAD = 1.0
"""Deviations of a row by which a first place is clear. Rows of cosine 0.98 are a fifth of their length apart, so by a fifth of a deviation
in each number: rounding does not take a lead away that is five times as long, whatever the deviation of single numbers."""
EXACT = 1e-9
"""Of the largest value, in double precision. Its rounding is 5e8 times less than that of single precision, so 1e-5 of rounding there are
2e-14 here, and even 1e-3 far below; a weight or a setting that is wrong is wrong here by as much as there."""
WORSE = 100.0
"""How many times further from the value in double precision ours may be than the reference is. Two orders of the same operations round
alike, but a single number may be right by luck; an unstable formula is off by orders more."""
ROUNDING = 1e-2
"""The most of the largest value that is taken for rounding, however far the reference is rounded: beyond it neither side's numbers are of
use, and where both are lost nothing is known of ours."""


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
    clear: float | None = None
    """Part of the rows with a clear first place (`LEAD`) where it is the same one; for scores only, None where there are no such rows."""
    length: float | None = None
    """How many times as long as its original the row is whose length is furthest off; None where there are no rows."""
    by: Literal["relative", "cosine"] = "relative"
    tolerance: float = 0.0
    double: float | None = None
    """`relative` in double precision, where in single precision it is beyond the tolerance: up to `exact` that was rounding."""
    exact: float = EXACT
    """The most of `double`."""
    worse: float | None = None
    """How many times further ours is from the value in double precision than the reference, both in single precision."""
    problem: str | None = None
    """Why they cannot be compared at all."""

    @property
    def passed(self) -> bool:
        """Whether the tolerance is kept; what is not a number never keeps it."""
        if self.problem is not None:
            return False
        if self.by == "cosine":
            return self.cosine is not None and self.cosine >= self.tolerance and self.reason is None
        return self.relative <= self.tolerance or self.rounded

    @property
    def apart(self) -> float:
        """The most that a length may be off, where rows are judged by cosine: how far unit vectors of the least cosine are apart."""
        return math.sqrt(2 * (1 - self.tolerance))

    @property
    def reason(self) -> str | None:
        """Why what looks near is not all the same: a cosine sees no length, and hardly a single number among many; what agrees in double
        precision may be rounded too far in single."""
        if self.problem is not None:
            return None
        return self._unlike if self.by == "cosine" else self._too_far

    @property
    def _unlike(self) -> str | None:
        if self.length is not None and not abs(self.length - 1) <= self.apart:
            return f"{self.length:.3g} times as long"
        if self.clear is not None and self.clear < 1:
            return f"only {100 * self.clear:.0f} % of the clear first places are the same"
        return None

    @property
    def judged(self) -> tuple[str, float | None, float]:
        """What is held against which tolerance: its name and both numbers."""
        if self.double is not None:
            return "relative in double precision", self.double, self.exact
        return self.by, self.cosine if self.by == "cosine" else self.relative, self.tolerance

    @property
    def rounded(self) -> bool:
        """Whether what is beyond the tolerance in single precision is rounding, and no more of it than the reference has."""
        return self.double is not None and self.worse is not None and self.double <= self.exact and self._too_far is None

    @property
    def _too_far(self) -> str | None:
        if self.double is None or self.worse is None or not self.double <= self.exact:
            return None  # what is wrong in double precision too is no matter of rounding
        if not self.worse <= WORSE:
            return f"rounds {self.worse:.3g} times as far as the reference"
        return None if self.relative <= ROUNDING else f"rounds by more than {ROUNDING:g}"


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
    """`ours` against `theirs`, which is right by definition. `seen` [B, L] says which places of a tensor [B, L, ...] count; `floor` is the
    least size that differences are related to."""
    if ours.shape != theirs.shape:
        return Difference(name, by=by, tolerance=tolerance, problem=f"shapes {list(ours.shape)} and {list(theirs.shape)}")
    a, b = (t.detach().cpu().double() for t in (ours, theirs))
    if seen is not None and a.dim() > 2 and a.shape[:2] == seen.shape:
        a, b = a[seen.bool().cpu()], b[seen.bool().cpu()]
    if not a.numel():
        return Difference(name, by=by, tolerance=tolerance, problem="nothing to compare")
    absolute, largest = float((a - b).abs().max()), max(float(b.abs().max()), floor)
    relative = absolute / largest if largest else (0.0 if absolute == 0 else math.inf)
    rows = (a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])) if a.dim() > 1 and a.shape[-1] > 1 else None
    if rows is None:
        return Difference(name, absolute, relative, by=by, tolerance=tolerance)
    argmax, top, clear = _agreement(*rows) if scores else (None, None, None)
    return Difference(name, absolute, relative, _cosine(*rows), argmax, top, clear, _length(*rows), by, tolerance)


def repeated(
    one: Difference,
    single: tuple[Tensor, Tensor],
    double: tuple[Tensor, Tensor],
    *,
    seen: Tensor | None = None,
    floor: float = 0.0,
    exact: float = EXACT,
) -> Difference:
    """`one`, with what the same two (ours, theirs) are in double precision, where they may be `exact` of the largest value apart."""

    def off(a: Tensor, b: Tensor) -> float:
        return compare(one.name, a, b, EXACT, seen=seen, floor=floor).relative

    mine, reference = (off(tensor, double[1]) for tensor in single)
    return replace(one, double=off(*double), exact=exact, worse=mine / max(reference, torch.finfo(torch.float32).eps))


def _cosine(a: Tensor, b: Tensor) -> float:
    """The lowest of the rows, however short they are; equal rows have 1, also where they are zero."""
    found = torch.nn.functional.cosine_similarity(a, b, dim=-1, eps=torch.finfo(a.dtype).tiny)
    return float(torch.where((a == b).all(dim=-1), 1.0, found).min())


def _length(a: Tensor, b: Tensor) -> float:
    """That of the row of `a` which is furthest off, in lengths of its row of `b`; equal rows have 1, also where they are zero."""
    found = torch.where((a == b).all(dim=-1), 1.0, a.norm(dim=-1) / b.norm(dim=-1))
    return float(found[(found - 1).abs().nan_to_num(math.inf).argmax()])


def _agreement(a: Tensor, b: Tensor) -> tuple[float, float, float | None]:
    """Of all first places, of all first `TOP`, and of those first places that are clear."""
    k = min(TOP, a.shape[1])
    mine, theirs = a.topk(k, dim=1).indices, b.topk(k, dim=1).indices
    shared = (mine[:, :, None] == theirs[:, None, :]).any(dim=2).double().mean()
    same = (a.argmax(1) == b.argmax(1)).double()
    best = b.topk(2, dim=1).values
    ahead = best[:, 0] - best[:, 1] > LEAD * b.std(dim=1, correction=0)
    return float(same.mean()), float(shared), float(same[ahead].mean()) if ahead.any() else None
