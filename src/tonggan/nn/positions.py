"""Where a token stands: learned tables and sinusoids, in one and two dimensions.

Shape letters: T positions, D width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LearnedPositions(nn.Module):
    """A learned vector per position; longer input than the table is an error, never silently cut."""

    def __init__(self, length: int, width: int, std: float = 0.01) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.weight, std=std)

    def forward(self, length: int) -> Float[Tensor, "T D"]:
        """The first `length` vectors."""
        if length > len(self.weight):
            raise ValueError(f"{length} positions were asked for, the table has {len(self.weight)}")
        return self.weight[:length]


class FixedPositions(nn.Module):
    """A table that is computed, not learned, and so not saved."""

    weight: Tensor

    def __init__(self, table: Float[Tensor, "T D"]) -> None:
        super().__init__()
        self.register_buffer("weight", table, persistent=False)


def sinusoids(length: int, width: int, base: float = 10_000.0) -> Float[Tensor, "T D"]:
    """Sines in the first half of the channels, cosines in the second (Vaswani et al. 2017, section 3.5, up to channel order)."""
    if width % 2:
        raise ValueError(f"sinusoids need an even width, not {width}")
    rates = base ** (-torch.arange(width // 2) / (width // 2))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sinusoids_2d(rows: int, columns: int, width: int) -> Float[Tensor, "T D"]:
    """Half of the channels tell the row, half the column, in row-major order (as in MAE and MoCo v3)."""
    if width % 4:
        raise ValueError(f"two-dimensional sinusoids need a width divisible by 4, not {width}")
    down, across = sinusoids(rows, width // 2), sinusoids(columns, width // 2)
    return torch.cat([down.repeat_interleave(columns, dim=0), across.repeat(rows, 1)], dim=1)
