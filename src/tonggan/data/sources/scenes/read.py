"""From pixels back to the scene: what a model draws is scored exactly, without another model as the judge.

Reading is analysis by synthesis: every connected patch is taken for each shape in turn, with the place and radius that its
area and centroid then imply; the shape whose redrawing fits best wins. A picture whose redrawing differs from it is outside
this world.

Shape letters: H W pixels, N pixels of one patch.
"""

from __future__ import annotations

import numpy as np
import PIL.Image
from jaxtyping import Bool, Float, Int, UInt8

from tonggan.data.media import load_image
from tonggan.data.sources.scenes.draw import coverage, draw, moments
from tonggan.data.sources.scenes.world import COLORS, RADII, SHAPES, Scene, Size, Thing
from tonggan.types import Image

_INK = 28
"""A pixel this far from white (largest channel) belongs to a thing."""
_COLOR_TOLERANCE = 60.0
_FIT = 0.8
"""Least overlap (intersection over union of the coverages) of a patch with its best shape."""
_RESIDUAL = 18.0
"""Largest mean difference (grey levels, over the inked pixels) between a picture and its redrawing."""
_MOST_THINGS = 12


def read(image: Image | PIL.Image.Image | UInt8[np.ndarray, "H W 3"]) -> Scene | None:
    """The things in a picture of at least 48 pixels a side, from left to right; None when it is outside this world.

    The kind of the scene (what its caption dwells on) is not in the pixels: it is `one` or `several`.
    """
    pixels = _square_pixels(image)
    if pixels is None:
        return None
    ink: Bool[np.ndarray, "H W"] = (255 - pixels.min(axis=2)) > _INK
    patches = _patches(ink)
    if not 1 <= len(patches) <= _MOST_THINGS:
        return None
    things = [_thing(pixels, rows, columns) for rows, columns in patches]
    if any(thing is None for thing in things):
        return None
    found = sorted((thing for thing in things if thing is not None), key=lambda thing: (thing.x, thing.y))
    scene = Scene(tuple(found), "one" if len(found) == 1 else "several")
    difference = np.abs(draw(scene, len(pixels)).astype(float) - pixels).mean(axis=2)
    return scene if difference.sum() / ink.sum() <= _RESIDUAL else None


def _square_pixels(image: Image | PIL.Image.Image | UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"] | None:
    picture = PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image
    pixels = np.asarray(load_image(picture))
    height, width = pixels.shape[:2]
    return pixels if height == width >= 48 else None


def _thing(pixels: UInt8[np.ndarray, "H W 3"], rows: Int[np.ndarray, "N"], columns: Int[np.ndarray, "N"]) -> Thing | None:
    """The best fitting thing for one patch of inked pixels, None when nothing of this world fits."""
    size = len(pixels)
    color = _color(pixels[rows, columns])
    if color is None:
        return None
    # The patch with a rim of two pixels: ink below the threshold counts towards area and centroid.
    window = tuple(slice(max(0, c.min() - 2), min(size, c.max() + 3)) for c in (rows, columns))
    alpha = _alpha(pixels[window], color)
    y, x = (np.arange(part.start, part.stop) + 0.5 for part in window)
    area = alpha.sum()
    centre_x, centre_y = float((alpha * x).sum() / area / size), float((alpha * y[:, None]).sum() / area / size)
    fits = []
    for shape in SHAPES:
        m = moments(shape)
        r = float(np.sqrt(area / m.area) / size)
        if not 0.9 * RADII["small"][0] <= r <= 1.1 * RADII["large"][1]:
            continue
        thing = Thing(shape, color, _size(r), round(centre_x - r * m.u, 4), round(centre_y - r * m.v, 4), round(r, 4))
        fits.append((_overlap(thing, size, window, alpha), thing))
    best, thing = max(fits, key=lambda fit: fit[0], default=(0.0, None))
    return thing if best >= _FIT else None


def _color(ink: UInt8[np.ndarray, "N 3"]) -> str | None:
    """The palette colour nearest to the most inked half of a patch (its border is mixed with white)."""
    darkness = 255 - ink.min(axis=1)
    core = np.median(ink[darkness >= np.median(darkness)], axis=0)
    distance, color = min((float(np.linalg.norm(core - rgb)), name) for name, rgb in COLORS.items())
    return color if distance <= _COLOR_TOLERANCE else None


def _alpha(pixels: UInt8[np.ndarray, "h w 3"], color: str) -> Float[np.ndarray, "h w"]:
    """How much of each pixel is covered, if what covers it has that colour and the ground is white."""
    towards = np.array(COLORS[color]) - 255.0
    return np.clip((pixels - 255.0) @ towards / (towards @ towards), 0, 1)


def _overlap(thing: Thing, size: int, window: tuple[slice, ...], alpha: Float[np.ndarray, "h w"]) -> float:
    """Intersection over union of a thing's coverage and the patch's, both 0..1 per pixel."""
    drawn, seen = np.zeros((size, size)), np.zeros((size, size))
    rows, columns, part = coverage(thing, size)
    drawn[rows, columns] = part
    seen[window] = alpha
    return float(np.minimum(drawn, seen).sum() / np.maximum(drawn, seen).sum())


def _size(r: float) -> Size:
    return "small" if r < (RADII["small"][1] + RADII["large"][0]) / 2 else "large"


def _patches(ink: Bool[np.ndarray, "H W"]) -> list[tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]]]:
    """Row and column numbers of each connected patch (eight neighbours), specks of fewer than 9 pixels left out."""
    labels = np.where(ink, np.arange(1, ink.size + 1).reshape(ink.shape), 0)
    while True:  # every pixel takes the largest label around it, until nothing changes
        padded = np.pad(labels, 1)
        spread = np.max([padded[i : i + len(ink), j : j + len(ink)] for i in range(3) for j in range(3)], axis=0)
        spread = np.where(ink, spread, 0)
        if (spread == labels).all():
            break
        labels = spread
    found = (np.nonzero(labels == label) for label in np.unique(labels[labels > 0]))
    return [(rows, columns) for rows, columns in found if len(rows) >= 9]
