"""Feed-forwards of which each token takes one, by the modality it comes from (Bao et al. 2022, VLMo, section 3.2).

Shape letters: B rows, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

Route: TypeAlias = tuple[tuple[str, int], ...]
"""Kinds of token, and how many of each stand in a row, in their order: `(("text", 12), ("image", 197))`. Known without looking at tensors,
so that a device is never waited for."""

FUSED = "fused"
"""The expert that takes a whole row in which several kinds meet."""


class Experts(nn.ModuleDict):
    """A feed-forward per kind of token. Where there is one called `fused`, it takes the rows in which kinds are mixed as a whole."""

    def __init__(self, experts: Mapping[str, nn.Module]) -> None:
        super().__init__(experts)

    def forward(self, x: Float[Tensor, "B T D"], route: Route) -> Float[Tensor, "B T D"]:
        """Each token through its expert; raises `ValueError` when the route is not as long as the rows."""
        if (length := sum(count for _, count in route)) != x.shape[1]:
            raise ValueError(f"the route is for {length} tokens, the rows have {x.shape[1]}")
        if len(route) == 1:
            return self[route[0][0]](x)
        if FUSED in self:
            return self[FUSED](x)
        parts = torch.split_with_sizes(x, [count for _, count in route], dim=1)
        return torch.cat([self[kind](part) for (kind, _), part in zip(route, parts, strict=True)], dim=1)
