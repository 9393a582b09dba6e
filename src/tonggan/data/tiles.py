"""Pictures of any resolution: the whole made small, and tiles of it as large as what a tower reads (Li et al. 2024, LLaVA-OneVision,
section 3.2, after Liu et al. 2024, LLaVA-NeXT)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import PIL.Image

from tonggan.config import height_width
from tonggan.data.images import FILTERS, ImageProcessor
from tonggan.tensors import Tiles
from tonggan.types import Image


class TileProcessor:
    """Calls give the pieces of a picture, uint8 [N, 3, side, side], and how they are cut.

    `image` squeezes whole pictures to what the tower reads. A picture is fitted in its own shape into one of the `grids` (rows and columns
    of tiles), with black around it.
    """

    def __init__(self, image: ImageProcessor, grids: Sequence[tuple[int, int]]) -> None:
        self.image, self.grids = image, tuple(grids)
        self.side, _ = height_width(image.config.side)

    def __call__(self, picture: Image | PIL.Image.Image) -> tuple[np.ndarray, Tiles]:
        """A picture that stands alone in its text."""
        whole = self.image.open(picture)
        width, height = whole.size
        cut = best_grid((height, width), self.grids, self.side)
        high, wide = cut.rows * self.side, cut.columns * self.side
        large = PIL.Image.new("RGB", (wide, high))
        fitted = whole.resize(_fitted(width, height, wide, high), FILTERS[self.image.config.interpolation])
        large.paste(fitted, ((wide - fitted.width) // 2, (high - fitted.height) // 2))
        corners = [(column * self.side, row * self.side) for row in range(cut.rows) for column in range(cut.columns)]
        tiles = [large.crop((left, top, left + self.side, top + self.side)) for left, top in corners]
        return np.stack([_planes(piece) for piece in (self.image.fit(whole), *tiles)]), cut

    def among_others(self, picture: Image | PIL.Image.Image) -> tuple[np.ndarray, Tiles]:
        """A picture that is one of several in its text: not cut, but made square by margins of the mean colour."""
        whole = self.image.open(picture)
        longest = max(whole.size)
        red, green, blue = (int(value * 255) for value in self.image.config.mean)
        square = PIL.Image.new("RGB", (longest, longest), (red, green, blue))
        square.paste(whole, ((longest - whole.width) // 2, (longest - whole.height) // 2))
        return _planes(self.image.fit(square))[None], Tiles(size=(whole.height, whole.width))


def best_grid(size: tuple[int, int], grids: Sequence[tuple[int, int]], side: int) -> Tiles:
    """The grid in which a picture (height, width) keeps most of its pixels; among equals the one with least padding, then the first."""
    height, width = size

    def worth(grid: tuple[int, int]) -> tuple[int, int]:
        high, wide = grid[0] * side, grid[1] * side
        scale = min(wide / width, high / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - high * wide

    rows, columns = max(grids, key=worth)  # the first of equals
    return Tiles(rows, columns, size)


def _fitted(width: int, height: int, wide: int, high: int) -> tuple[int, int]:
    """Width and height of a picture that is to be as large as it can be in this room."""
    across, down = wide / width, high / height
    if across < down:
        return wide, min(math.ceil(height * across), high)
    return min(math.ceil(width * down), wide), high


def _planes(picture: PIL.Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))
