"""Where a clip is cut: its shots, from start to end, in seconds.

A cut is where one frame differs from the frame before much more than any other does within half a second (Yeo and Liu 1995, "Rapid scene
analysis on compressed video", IEEE Transactions on Circuits and Systems for Video Technology 5(6): the largest difference in a sliding
window, and so many times the next). So neither motion, nor noise, nor a flash, which differs twice, is a cut. As there, small frames are
compared, in which noise averages out; here in all of Y, Cb and Cr. (Hue, which others compare, is noise itself where there is little
colour.) Fades through black are cut in the middle of what is black, as PySceneDetect's ThresholdDetector does. Other slow transitions are
not found. The thresholds were chosen on two made films and measured on others (`benchmarks/moments.py`).

Shape letters: N frames, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import PIL.Image
from jaxtyping import Float32, Float64, UInt8
from pydantic import Field

from tonggan.config import Config
from tonggan.data.video import every_frame
from tonggan.types import Video

SIDE = 64
"""The longer side of the frames that are compared, in pixels."""


class Splitting(Config):
    """What counts as a cut. Differences are means over pixels and channels, 0 to 255."""

    least: float = Field(default=8.0, ge=0)
    """The smallest difference that is a cut: below it, a thing appears, or a camera starts to move."""
    times: float = Field(default=2.5, ge=1)
    """How many times the next largest difference nearby it must be."""
    dark: float = Field(default=12.0, ge=0)
    """Mean brightness below which a frame is black."""
    shortest: float = Field(default=0.5, gt=0)
    """Seconds that a shot lasts at least; also what `nearby` means."""
    longest: float = Field(default=10.0, gt=0)
    """Seconds that a shot lasts at most: one without a cut is divided into equal parts."""


@dataclass(frozen=True, slots=True)
class Course:
    """What happens in a clip, frame by frame."""

    edges: Float64[np.ndarray, "N+1"]
    """When each frame begins, and when the last one ends, in seconds."""
    changes: Float64[np.ndarray, "N"]
    """By how much each frame differs from the one before; the first by 0."""
    light: Float64[np.ndarray, "N"]
    """Mean brightness."""


def shots(video: Video, splitting: Splitting | None = None) -> list[tuple[float, float]]:
    """Start and end of every shot, each beginning where the one before ends: what `Video.stretch` takes.

    Decodes every frame. Raises `MediaError` for a clip that cannot be read or has no frames.
    """
    how = splitting or Splitting()
    course = watch(video)
    ends = [0, *cuts(course, how), len(course.changes)]
    found = []
    for first, last in pairwise(ends):
        start, end = float(course.edges[first]), float(course.edges[last])
        parts = max(1, math.ceil((end - start) / how.longest - 1e-6))
        marks = [round(start + (end - start) * i / parts, 3) for i in range(parts + 1)]
        found += list(pairwise(marks))
    return found


def watch(video: Video) -> Course:
    """Look at every frame once; only three numbers of each are kept."""
    starts, changes, light, end = [], [], [], 0.0
    before: Float32[np.ndarray, "H W 3"] | None = None
    for start, end, frame in every_frame(video, SIDE):  # noqa: B007 - the last end is kept
        seen = _luma_chroma(frame)
        starts.append(start)
        changes.append(0.0 if before is None else float(np.abs(seen - before).mean()))
        light.append(float(seen[:, :, 0].mean()))
        before = seen
    return Course(np.array([*starts, end]), np.array(changes), np.array(light))


def cuts(course: Course, splitting: Splitting) -> list[int]:
    """Numbers of the frames that begin a new shot, the first frame's not among them."""
    starts = course.edges[:-1]
    near = np.searchsorted(starts, starts - splitting.shortest, "left"), np.searchsorted(starts, starts + splitting.shortest, "right")
    found = []
    for number in np.flatnonzero(course.changes >= splitting.least):
        around = course.changes[near[0][number] : near[1][number]]
        others = np.delete(around, number - near[0][number])
        if course.changes[number] >= splitting.times * others.max(initial=0.0):
            found.append(int(number))
    for middle in _darkest(course.light < splitting.dark):
        if not _close(course, middle, found, splitting):
            found.append(middle)
    ends = [0, len(starts)]
    return [number for number in sorted(found) if not _close(course, number, ends, splitting)]


def _darkest(dark: np.ndarray) -> list[int]:
    """The middle of each run of black frames."""
    turns = np.flatnonzero(np.diff(np.concatenate([[False], dark, [False]]).astype(int))).reshape(-1, 2)
    return [int(first + last) // 2 for first, last in turns]


def _close(course: Course, number: int, others: list[int], splitting: Splitting) -> bool:
    return any(abs(course.edges[number] - course.edges[other]) < splitting.shortest - 1e-6 for other in others)


def _luma_chroma(frame: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W 3"]:
    return np.asarray(PIL.Image.fromarray(frame).convert("YCbCr"), np.float32)
