"""Which pairs are positives of each other, and the targets that follow.

Shape letters: N anchors, M candidates, K kinds of key.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def positives(a: Int[Tensor, "N K"], b: Int[Tensor, "M K"]) -> Bool[Tensor, "N M"]:
    """A pair is positive when any column of its keys is equal and not 0."""
    found = torch.zeros(len(a), len(b), dtype=torch.bool, device=a.device)
    for column in range(a.shape[1]):  # one column at a time: no [N, M, K]
        left, right = a[:, column, None], b[None, :, column]
        found |= (left == right) & (left != 0)
    return found


def positive_pairs(
    keys: Int[Tensor, "N K"] | None,
    others: Int[Tensor, "M K"] | None,
    part: slice,
    start: int,
    device: torch.device,
    *,
    itself: bool = False,
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """Indices (i, j) of the positive pairs of the rows `part`, i counted from the first of them.

    Row i's own candidate is `start + i`, a positive with or without keys; without keys it is the only one, and nothing is compared.
    Where that candidate is the row `itself` (views of one batch among each other), it is no positive of its own.
    """
    own = torch.arange(part.stop - part.start, device=device)
    if keys is None or others is None:
        return own, own + (start + part.start)
    found = positives(keys[part], others)
    found[own, own + (start + part.start)] = not itself
    i, j = found.nonzero(as_tuple=True)
    return i, j


def targets(positive: Bool[Tensor, "N M"], smoothing: float = 0.0, dtype: torch.dtype = torch.float32) -> Float[Tensor, "N M"]:
    """Each row's probabilities: uniform over its positives, of which the part `smoothing` is spread over all candidates."""
    mass = positive.to(dtype)
    mass = mass / mass.sum(dim=1, keepdim=True)
    return mass * (1 - smoothing) + smoothing / positive.shape[1] if smoothing else mass


def target_entropy(counts: Float[Tensor, "N"], candidates: int, smoothing: float = 0.0) -> Float[Tensor, "N"]:
    """Entropy of rows of `targets` with `counts` positives each: cross-entropy cannot fall below it."""
    on = (1 - smoothing) / counts + smoothing / candidates
    off = torch.full_like(on, smoothing / candidates)
    return -(counts * torch.xlogy(on, on) + (candidates - counts) * torch.xlogy(off, off))
