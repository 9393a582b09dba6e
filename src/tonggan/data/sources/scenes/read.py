"""From pixels back to the scene: what a model draws is scored exactly, without another model as the judge.

Reading is analysis by synthesis: every connected patch is taken for each shape in turn, with the place and radius that its
area and centroid then imply; the shape whose redrawing fits best wins. A picture whose redrawing differs from it is outside
this world.

Shape letters: H W pixels, N pixels of one patch.
"""

from __future__ import annotations

import numpy as np
import PIL.Image
from jaxtyping import Bool, Float, Shaped, UInt8

from tonggan.data.media import load_image
from tonggan.data.sources.scenes.draw import coverage, draw, moments
from tonggan.data.sources.scenes.world import COLORS, RADII, SHAPES, Scene, Size, Thing
from tonggan.types import Image

_INK = 40
"""A pixel this far from white (largest channel) belongs to a thing."""
_COLOR_TOLERANCE = 60.0
_FIT = 0.8
"""Least overlap (intersection over union of the coverages) of a patch with its best shape."""
_RESIDUAL = 35.0
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
    things = [_thing(pixels, patch, ink & ~patch) for patch in patches]
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


def _thing(pixels: UInt8[np.ndarray, "H W 3"], patch: Bool[np.ndarray, "H W"], others: Bool[np.ndarray, "H W"]) -> Thing | None:
    """The best fitting thing for one patch of inked pixels, None when nothing of this world fits."""
    size = len(pixels)
    color = _color(pixels[patch])
    if color is None:
        return None
    # With a rim of two pixels (ink too thin to be noticed counts towards area and centroid), without its neighbours.
    alpha = np.where(_grow(_grow(patch)) & ~others, _alpha(pixels, color), 0.0)
    pixel_centres = np.arange(size) + 0.5
    area = alpha.sum()
    centre_x = float((alpha.sum(axis=0) * pixel_centres).sum() / area / size)
    centre_y = float((alpha.sum(axis=1) * pixel_centres).sum() / area / size)
    fits: list[tuple[float, Thing]] = []
    for shape in SHAPES:
        m = moments(shape)
        r = float(np.sqrt(area / m.area) / size)
        if not 0.9 * RADII["small"][0] <= r <= 1.1 * RADII["large"][1]:
            continue
        thing = Thing(shape, color, _size(r), round(centre_x - r * m.u, 4), round(centre_y - r * m.v, 4), round(r, 4))
        fits.append((_overlap(thing, alpha), thing))
    overlap, best = max(fits, key=lambda fit: fit[0], default=(0.0, None))
    return best if overlap >= _FIT else None


def _color(ink: UInt8[np.ndarray, "N 3"]) -> str | None:
    """The palette colour nearest to the most inked half of a patch (its border is mixed with white)."""
    darkness = 255 - ink.min(axis=1)
    core = np.median(ink[darkness >= np.median(darkness)], axis=0)
    distance, color = min((float(np.linalg.norm(core - rgb)), name) for name, rgb in COLORS.items())
    return color if distance <= _COLOR_TOLERANCE else None


def _alpha(pixels: UInt8[np.ndarray, "H W 3"], color: str) -> Float[np.ndarray, "H W"]:
    """How much of each pixel is covered, if what covers it has that colour and the ground is white."""
    towards = np.array(COLORS[color]) - 255.0
    return np.clip((pixels - 255.0) @ towards / (towards @ towards), 0, 1)


def _overlap(thing: Thing, alpha: Float[np.ndarray, "H W"]) -> float:
    """Intersection over union of a thing's coverage and a patch's, both 0..1 per pixel."""
    drawn = np.zeros_like(alpha)
    rows, columns, part = coverage(thing, len(alpha))
    drawn[rows, columns] = part
    return float(np.minimum(drawn, alpha).sum() / np.maximum(drawn, alpha).sum())


def _size(r: float) -> Size:
    return "small" if r < (RADII["small"][1] + RADII["large"][0]) / 2 else "large"


def _patches(ink: Bool[np.ndarray, "H W"]) -> list[Bool[np.ndarray, "H W"]]:
    """Each connected patch (eight neighbours); specks of fewer than 9 pixels are left out."""
    labels = np.where(ink, np.arange(1, ink.size + 1).reshape(ink.shape), 0)
    while True:  # every pixel takes the largest label around it, until nothing changes
        spread = np.where(ink, _largest_around(labels), 0)
        if (spread == labels).all():
            break
        labels = spread
    found, pixels = np.unique(labels[labels > 0], return_counts=True)
    return [labels == label for label in found[pixels >= 9]]


def _grow(patch: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The patch and every pixel that touches it."""
    return _largest_around(patch)


def _largest_around(values: Shaped[np.ndarray, "H W"]) -> Shaped[np.ndarray, "H W"]:
    """For each pixel the largest value of itself and its eight neighbours."""
    height, width = values.shape
    padded = np.pad(values, 1)
    return np.max([padded[i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=0)
