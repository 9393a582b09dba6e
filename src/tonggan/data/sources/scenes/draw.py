"""From a scene to pixels. Shapes are point sets around (0, 0) within the unit circle; drawing counts sample points per pixel.

Shape letters: H W pixels of the picture, h w pixels of the window around one thing, S samples per pixel side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, UInt8

from tonggan.data.sources.scenes.world import COLORS, Scene, Thing

Points = Float[np.ndarray, "..."]
SAMPLES = 4


def draw(scene: Scene, size: int = 96) -> UInt8[np.ndarray, "H W 3"]:
    """The picture of a scene on white, antialiased; `size` pixels a side (64-128 is what `read` is tested with)."""
    canvas = np.full((size, size, 3), 255.0)
    for thing in scene.things:
        rows, columns, alpha = coverage(thing, size)
        canvas[rows, columns] += alpha[..., None] * (np.array(COLORS[thing.color]) - canvas[rows, columns])
    return np.round(canvas).astype(np.uint8)


def coverage(thing: Thing, size: int) -> tuple[slice, slice, Float[np.ndarray, "h w"]]:
    """The window of pixels that a thing may touch, and how much of each pixel it covers (0..1)."""
    rows, columns = (slice(max(0, int((c - thing.r) * size) - 1), min(size, int((c + thing.r) * size) + 2)) for c in (thing.y, thing.x))
    v = (_sample_centres(rows) / size - thing.y) / thing.r
    u = (_sample_centres(columns) / size - thing.x) / thing.r
    inside = INSIDE[thing.shape](u[None, :], v[:, None])
    blocks = inside.reshape(rows.stop - rows.start, SAMPLES, columns.stop - columns.start, SAMPLES)
    return rows, columns, blocks.mean(axis=(1, 3))


def _sample_centres(pixels: slice) -> Points:
    n = (pixels.stop - pixels.start) * SAMPLES
    return pixels.start + (np.arange(n) + 0.5) / SAMPLES


# ------------------------------------------------------------------------------------------------ shapes


def _circle(u: Points, v: Points) -> Bool[np.ndarray, "..."]:
    return u**2 + v**2 <= 1


def _ring(u: Points, v: Points) -> Bool[np.ndarray, "..."]:
    return (u**2 + v**2 <= 1) & (u**2 + v**2 >= 0.55**2)


def _moon(u: Points, v: Points) -> Bool[np.ndarray, "..."]:
    return (u**2 + v**2 <= 1) & ((u - 0.5) ** 2 + v**2 >= 0.85**2)


def _square(u: Points, v: Points) -> Bool[np.ndarray, "..."]:
    return np.maximum(abs(u), abs(v)) <= np.sqrt(0.5)


def _diamond(u: Points, v: Points) -> Bool[np.ndarray, "..."]:
    return abs(u) / 0.62 + abs(v) <= 1


def _triangle(u: Points, v: Points) -> Bool[np.ndarray, "..."]:
    return (v <= 0.5) & (abs(u) * np.sqrt(3) - v <= 1)


def _cross(u: Points, v: Points) -> Bool[np.ndarray, "..."]:
    short, long = np.minimum(abs(u), abs(v)), np.maximum(abs(u), abs(v))
    return (short <= 0.3) & (long <= 0.95)


def _heart(u: Points, v: Points) -> Bool[np.ndarray, "..."]:
    x, y = 1.26 * u, 0.26 - 1.26 * v  # (x^2 + y^2 - 1)^3 = x^2 y^3, the best-known heart, scaled into the unit circle
    return (x**2 + y**2 - 1) ** 3 <= x**2 * y**3


def _star(u: Points, v: Points) -> Bool[np.ndarray, "..."]:
    """Five points: each fifth of the plane, folded onto its axis, is the half-plane below one edge."""
    inner, tip = 0.42, np.pi / 5
    angle = np.abs((np.arctan2(u, -v) + tip) % (2 * tip) - tip)
    r = np.hypot(u, v)
    along, aside = r * np.cos(angle), r * np.sin(angle)
    edge = np.array([inner * np.cos(tip), inner * np.sin(tip)])
    return aside * (1 - edge[0]) <= edge[1] * (1 - along)


INSIDE: dict[str, Callable[[Points, Points], Bool[np.ndarray, "..."]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "ring": _ring,
    "moon": _moon,
}


@dataclass(frozen=True, slots=True)
class Moments:
    """Area and centroid of a shape of radius 1: what recovers a thing's place and size from its pixels."""

    area: float
    u: float
    v: float


@cache
def moments(shape: str) -> Moments:
    """By counting points of a fine grid."""
    line = (np.arange(1000) + 0.5) / 500 - 1
    inside = INSIDE[shape](line[None, :], line[:, None])
    v, u = np.nonzero(inside)
    return Moments(float(inside.mean() * 4), float(line[u].mean()), float(line[v].mean()))
