"""Random changes to pictures while training, on whole batches of bytes at once.

Every row's changes are drawn from a generator seeded by (seed, epoch, row id): they depend neither on the batch nor on threads.

Shape letters: B pictures, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from tonggan.config import Config


class Augment(Config):
    """Ranges of the changes; 0 (or 1 for `min_scale`) switches one off."""

    min_scale: float = Field(default=0.6, gt=0, le=1)
    """Smallest part of the picture's area that a random crop keeps."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of mirroring left to right. Words and arrows do not survive it."""
    rotate: float = Field(default=10.0, ge=0, le=180)
    """Degrees, either way."""
    stretch: float = Field(default=0.15, ge=0)
    """Change of the aspect ratio, as a factor either way."""
    brightness: float = Field(default=0.3, ge=0, le=1)
    contrast: float = Field(default=0.3, ge=0, le=1)
    saturation: float = Field(default=0.3, ge=0, le=1)
    grey: float = Field(default=0.0, ge=0, le=1)
    """Probability of losing all colour. Captions that name colours do not survive it."""
    erase: float = Field(default=0.0, ge=0, le=1)
    """Probability of covering a random rectangle with the mean colour."""

    def draw(self, seeds: Sequence[Sequence[int]]) -> Float[Tensor, "B 12"]:
        """Twelve uniform numbers in [0, 1) per row from its own seeds."""
        return torch.from_numpy(np.stack([np.random.Generator(np.random.PCG64(list(seed))).random(12, dtype=np.float32) for seed in seeds]))


def augment(pixels: UInt8[Tensor, "B 3 H W"], config: Augment, random: Float[Tensor, "B 12"]) -> UInt8[Tensor, "B 3 H W"]:
    """Crop, mirror, turn and stretch in one resampling; then colours, then erasing. White shows where a turn uncovers the border."""
    x = pixels.float()
    b = len(x)
    scale = (config.min_scale + (1 - config.min_scale) * random[:, 0]).sqrt()
    ratio = (1 + config.stretch) ** (2 * random[:, 1] - 1)
    wide, high = scale * ratio.sqrt(), scale / ratio.sqrt()
    mirror = torch.where(random[:, 2] < config.flip, -1.0, 1.0)
    angle = (2 * random[:, 3] - 1) * math.radians(config.rotate)
    right, down = (2 * random[:, 4] - 1) * (1 - wide).clamp(min=0), (2 * random[:, 5] - 1) * (1 - high).clamp(min=0)
    theta = torch.stack(
        [
            torch.stack([wide * mirror * angle.cos(), -high * angle.sin(), right], dim=1),
            torch.stack([wide * mirror * angle.sin(), high * angle.cos(), down], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x - 255, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + 255
    weights = x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    brightness, contrast, saturation = (
        (1 + amount * (2 * random[:, i] - 1)).view(b, 1, 1, 1)
        for i, amount in ((6, config.brightness), (7, config.contrast), (8, config.saturation))
    )
    if config.grey:
        saturation = torch.where((random[:, 9] < config.grey).view(b, 1, 1, 1), 0.0, saturation)
    x = x * brightness
    grey = (x * weights).sum(dim=1, keepdim=True)
    x = grey + (x - grey) * saturation
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = mean + (x - mean) * contrast
    if config.erase:
        x = _erase(x, config.erase, random, mean)
    return x.round_().clamp_(0, 255).byte()


def _erase(x: Tensor, probability: float, random: Tensor, mean: Tensor) -> Tensor:
    b, _, h, w = x.shape
    side = 0.2 + 0.2 * random[:, 10]
    top, left = random[:, 11] * (1 - side), (random[:, 9] * 7919 % 1) * (1 - side)
    y, z = torch.arange(h).view(1, h, 1) / h, torch.arange(w).view(1, 1, w) / w
    inside = (y >= top.view(b, 1, 1)) & (y < (top + side).view(b, 1, 1)) & (z >= left.view(b, 1, 1)) & (z < (left + side).view(b, 1, 1))
    inside &= ((random[:, 10] * 104729 % 1) < probability).view(b, 1, 1)
    return torch.where(inside[:, None], mean, x)
