"""Pictures into tokens.

Shape letters: B pictures, H W pixels, P patches, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn


class Normalize(nn.Module):
    """uint8 pixels to (x/255 - mean)/std per channel, on the device the pixels are on.

    Batches travel as bytes: a quarter of what floats would take. Pictures that are floats already are taken as normalised.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # Not saved with the weights: they are settings, and live in the configuration.
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        if pixels.dtype != torch.uint8:
            return pixels
        return (pixels.to(self.mean.dtype) / 255 - self.mean) / self.std


class PatchEmbed(nn.Module):
    """Non-overlapping patches through one linear map (Dosovitskiy et al. 2021, equation 1).

    Kept as a convolution's weight [D, 3, size, size], so that published ones fit, but computed as a matrix product: on a CPU
    that is faster, and it is the same sum.
    """

    def __init__(self, size: int, width: int, *, bias: bool = False) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(width, 3, size, size))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        nn.init.normal_(self.weight, std=(3 * size * size) ** -0.5)

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B P D"]:
        """Patches in row-major order; height and width must be multiples of the patch."""
        b, _, h, w = pixels.shape
        if h % self.size or w % self.size:
            raise ValueError(f"pictures of {h} x {w} pixels cannot be cut into patches of {self.size}")
        rows, columns = h // self.size, w // self.size
        patches = pixels.reshape(b, 3, rows, self.size, columns, self.size).permute(0, 2, 4, 1, 3, 5)
        return nn.functional.linear(patches.reshape(b, rows * columns, -1), self.weight.flatten(1), self.bias)


def drop_patches(tokens: Float[Tensor, "B P D"], keep: float, generator: torch.Generator | None = None) -> Float[Tensor, "B kept D"]:
    """Keep a random fraction of each picture's patches, before the first block (Li et al. 2023, FLIP, section 3.1)."""
    b, patches, width = tokens.shape
    kept = max(1, round(patches * keep))
    order = torch.rand(b, patches, generator=generator, device=tokens.device).argsort(dim=1)[:, :kept]
    return tokens.gather(1, order[:, :, None].expand(-1, -1, width))
