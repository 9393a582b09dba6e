"""Between two sets of weights of one shape (Wortsman et al. 2022, WiSE-FT, section 3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tonggan.types import UsageError


def interpolate(a: Mapping[str, Tensor], b: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) a + alpha b for every tensor of two state dicts; at 0 and at 1 the very bits of `a` and of `b`.

    Whole numbers (counts) are those of the nearer end. Statistics of batch norms are interpolated as they stand, although they are
    not linear in the weights: between the ends they are an approximation. Raises `UsageError` naming what differs in name or shape.
    """
    wrong = [f"{name}: only in {'the first' if name in a else 'the second'}" for name in sorted(a.keys() ^ b.keys())]
    wrong += [f"{name}: {list(t.shape)} and {list(b[name].shape)}" for name, t in a.items() if name in b and t.shape != b[name].shape]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UsageError(f"weights of two shapes cannot be interpolated: {'; '.join(wrong[:5])}{more}")
    return {name: _between(tensor, b[name].to(tensor.device), alpha) for name, tensor in a.items()}


def _between(a: Tensor, b: Tensor, alpha: float) -> Tensor:
    if not a.is_floating_point() or alpha in (0, 1):
        return (a if alpha < 0.5 else b).clone()
    wide = torch.promote_types(a.dtype, torch.float32)
    return torch.lerp(a.to(wide), b.to(wide), alpha).to(a.dtype)
