"""Where a token stands: learned tables and sinusoids, in one and two dimensions, and biases by distance.

Shape letters: T positions, D width, H heads, E width of a head, half of it, Tq queries, Tk keys, R rows and C columns of a grid.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
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

    def at(self, positions: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """The vectors of these positions. Padding of a chunk may stand behind the table's end, and has its last: whoever gives positions
        has seen to it that no row's own do."""
        return self.weight[positions.clamp(max=len(self.weight) - 1)]


def resized(table: Float[Tensor, "T D"], old: tuple[int, int], new: tuple[int, int]) -> Float[Tensor, "T2 D"]:
    """A table for `old` rows and columns of patches, interpolated (bicubic) for `new` ones; a class token's before them stays.

    As Dosovitskiy et al. 2021 (section 3.2) do it for finer pictures, with the arithmetic of `transformers`.
    """
    classes = len(table) - old[0] * old[1]
    grid = table[classes:].T.reshape(1, -1, *old)
    made = nn.functional.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return torch.cat([table[:classes], made[0].flatten(1).T])


class FixedPositions(nn.Module):
    """A table that is computed, not learned, and so not saved; `saved` is for formats that publish theirs."""

    weight: Tensor

    def __init__(self, table: Float[Tensor, "T D"], *, saved: bool = False) -> None:
        super().__init__()
        self.register_buffer("weight", table, persistent=saved)


def sinusoids(length: int, width: int, base: float = 10_000.0) -> Float[Tensor, "T D"]:
    """Sines in the first half of the channels, cosines in the second (Vaswani et al. 2017, section 3.5, up to channel order)."""
    if width % 2:
        raise ValueError(f"sinusoids need an even width, not {width}")
    # In double precision: the angle of position 1500 in single would be off by 1e-4 already.
    rates = base ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(torch.get_default_dtype())


def sinusoids_2d(rows: int, columns: int, width: int) -> Float[Tensor, "T D"]:
    """Half of the channels tell the row, half the column, in row-major order (as in MAE and MoCo v3)."""
    if width % 4:
        raise ValueError(f"two-dimensional sinusoids need a width divisible by 4, not {width}")
    down, across = sinusoids(rows, width // 2), sinusoids(columns, width // 2)
    return torch.cat([down.repeat_interleave(columns, dim=0), across.repeat(rows, 1)], dim=1)


class Rotary(nn.Module):
    """Positions by rotation (Su et al. 2021, RoPE, section 3.2.2): channels i and i + E/2 of a query or key are turned by position times
    rate i, so that their product knows the distance alone. In this order of channels as GPT-NeoX and Llama's published weights have it.
    """

    rates: Tensor

    def __init__(self, rates: Float[Tensor, " half"]) -> None:
        super().__init__()
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, x: Float[Tensor, "B H T E"], at: Int[Tensor, "rows T"]) -> Float[Tensor, "B H T E"]:
        """The same, turned to where they stand; `at` has a row for each or one for all."""
        # Angles in single precision whatever the model computes in, as the weights were trained: a half has no positions beyond 2048.
        angles = at[:, None, :, None].float() * self.rates.float()
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        left, right = x.chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def rotary_rates(width: int, base: float = 10_000.0) -> Float[Tensor, " half"]:
    """Radians per position of each pair of channels: base^(-2i/E)."""
    if width % 2:
        raise ValueError(f"rotation turns pairs of channels: the width of a head must be even, not {width}")
    return base ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)


def stretched(
    rates: Float[Tensor, " half"], factor: float, *, original: int | None = None, low: float = 1.0, high: float = 4.0
) -> Float[Tensor, " half"]:
    """Slower rates, for texts `factor` times as long as those that were learnt from.

    Without an `original` length all alike (Chen et al. 2023, position interpolation, section 3.2). With one, what turns less than `low`
    times in it is slowed, what turns more than `high` times stays, and between them it goes over (Llama 3.1; Peng et al. 2023, YaRN,
    section 3.2, equations 18 and 19).
    """
    if original is None:
        return rates / factor
    stays = ((original * rates / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
    return rates * (stays + (1 - stays) / factor)


class GridBias(nn.Module):
    """A learned bias on attention's scores by distance on a grid, for a class token followed by R x C patches (Bao et al. 2022, BEiT).

    One number per head for each of the (2R-1)(2C-1) displacements, and three more: from the class token to a patch, from a patch to the
    class token, and from the class token to itself. As Swin has it (Liu et al. 2021, section 3.2, equation 4), with the class token added.
    """

    index: Tensor

    def __init__(self, rows: int, columns: int, heads: int) -> None:
        super().__init__()
        displacements = (2 * rows - 1) * (2 * columns - 1)
        self.table = nn.Parameter(torch.zeros(displacements + 3, heads))
        row, column = torch.arange(rows).repeat_interleave(columns), torch.arange(columns).repeat(rows)
        down, across = (at[:, None] - at[None, :] for at in (row, column))
        index = torch.full((rows * columns + 1,) * 2, displacements)
        index[1:, 1:] = (down + rows - 1) * (2 * columns - 1) + across + columns - 1
        index[1:, 0] = displacements + 1
        index[0, 0] = displacements + 2
        self.register_buffer("index", index, persistent=False)

    def forward(self, at_q: Int[Tensor, " Tq"], at_k: Int[Tensor, " Tk"]) -> Float[Tensor, "H Tq Tk"]:
        """The bias between queries and keys at these places, the class token being at 0."""
        return self.table[self.index[at_q[:, None], at_k[None, :]]].permute(2, 0, 1)


class RelativeBias(nn.Module):
    """A learned bias on attention's scores by distance, one number per head and bucket (Raffel et al. 2020, T5, section 2.1).

    Half of the buckets hold one distance each, the others ever more, up to `farthest` and all beyond. `both`: half of all are for keys
    behind the query; else the query looks back only, and what is ahead counts as at no distance.
    """

    def __init__(self, buckets: int, farthest: int, heads: int, *, both: bool) -> None:
        super().__init__()
        self.farthest, self.both = farthest, both
        self.table = nn.Parameter(torch.zeros(buckets, heads))

    def forward(self, at_q: Int[Tensor, " Tq"], at_k: Int[Tensor, " Tk"]) -> Float[Tensor, "H Tq Tk"]:
        """The bias between queries and keys at these places."""
        ahead = at_k[None, :] - at_q[:, None]
        return self.table[self.bucket(ahead)].permute(2, 0, 1)

    def bucket(self, ahead: Int[Tensor, "Tq Tk"]) -> Int[Tensor, "Tq Tk"]:
        """Which bucket a key is in that stands so far ahead of its query."""
        count = len(self.table) // 2 if self.both else len(self.table)
        side = (ahead > 0) * count if self.both else 0
        distance = ahead.abs() if self.both else (-ahead).clamp(min=0)
        exact = count // 2
        # In single precision whatever the model computes in, and in this order, as the weights were trained: borders lie on whole numbers.
        grown = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.farthest / exact) * (count - exact)
        return side + torch.where(distance < exact, distance, (exact + grown.long()).clamp(max=count - 1))
