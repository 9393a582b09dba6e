"""Pictures and clips into tokens.

Shape letters: B pictures or clips, T frames, H W pixels, P patches, D width.
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

    Kept as a convolution's weight [D, 3, height, width], so that published ones fit, but computed as a matrix product: on a CPU
    that is faster, and it is the same sum.
    """

    def __init__(self, size: int | tuple[int, int], width: int, *, bias: bool = False) -> None:
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else size
        self.weight = nn.Parameter(torch.empty(width, 3, *self.size))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        nn.init.normal_(self.weight, std=(3 * self.size[0] * self.size[1]) ** -0.5)

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B P D"]:
        """Patches in row-major order. As by a convolution, what is left over to the right and below is not read: SigLIP's So400m reads
        378 of 384 pixels."""
        b, (high, wide) = len(pixels), self.size
        rows, columns = pixels.shape[2] // high, pixels.shape[3] // wide
        if not rows or not columns:
            raise ValueError(f"pictures of {pixels.shape[2]} x {pixels.shape[3]} pixels hold no patch of {high} x {wide}")
        whole = pixels[:, :, : rows * high, : columns * wide]
        patches = whole.reshape(b, 3, rows, high, columns, wide).permute(0, 2, 4, 1, 3, 5)
        return nn.functional.linear(patches.reshape(b, rows * columns, -1), self.weight.flatten(1), self.bias)


class TubeletEmbed(nn.Module):
    """Non-overlapping blocks of `frames` x `size` x `size` pixels through one linear map (Arnab et al. 2021, ViViT, section 3.2).

    Kept as a convolution's weight [D, 3, frames, size, size] and computed as a matrix product, like `PatchEmbed`.
    """

    def __init__(self, frames: int, size: int, width: int) -> None:
        super().__init__()
        self.frames, self.size = frames, size
        self.weight = nn.Parameter(torch.empty(width, 3, frames, size, size))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.weight, std=(3 * frames * size * size) ** -0.5)

    def forward(self, clips: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B P D"]:
        """Tubelets by time, then in row-major order; frames, height and width must be multiples."""
        b, t, _, h, w = clips.shape
        if t % self.frames or h % self.size or w % self.size:
            raise ValueError(f"clips of {t} x {h} x {w} cannot be cut into tubelets of {self.frames} x {self.size} x {self.size}")
        times, rows, columns = t // self.frames, h // self.size, w // self.size
        cut = clips.reshape(b, times, self.frames, 3, rows, self.size, columns, self.size).permute(0, 1, 4, 6, 3, 2, 5, 7)
        return nn.functional.linear(cut.reshape(b, times * rows * columns, -1), self.weight.flatten(1), self.bias)


def drop_patches(tokens: Float[Tensor, "B P D"], keep: float, generator: torch.Generator | None = None) -> Float[Tensor, "B kept D"]:
    """Keep a random fraction of each picture's patches, before the first block (Li et al. 2023, FLIP, section 3.1)."""
    b, patches, width = tokens.shape
    kept = max(1, round(patches * keep))
    order = torch.rand(b, patches, generator=generator, device=tokens.device).argsort(dim=1)[:, :kept]
    return tokens.gather(1, order[:, :, None].expand(-1, -1, width))
