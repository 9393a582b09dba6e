"""What makes a page hard to read: small, skewed, noisy, busy (level 2); blurred, stained or scribbled over (level 3)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageChops
import PIL.ImageDraw
import PIL.ImageFilter

from tonggan.data.sources.pages.asking import Ask, Draft
from tonggan.data.sources.pages.canvas import Box, Mark, write

SMALL = (0.5, 0.62)
"""Between which sides a small page is of its full one."""
SHOWN = 0.55
"""How much of what tells an answer from a wrong choice stays to be seen when something lies on it."""
CLEAR = 0.06
"""How much of the box of a string may be covered that is needed whole."""


def spoil(draft: Draft, asks: Sequence[Ask], level: int, style: str, rng: random.Random) -> PIL.Image.Image:
    """The picture of a page at a difficulty; `asks` are the questions whose answers must stay readable."""
    picture = draft.canvas.picture
    if level == 1:
        return picture
    if level == 3:
        if style == "occluded":
            picture = occluded(picture, draft.canvas.marks, asks, rng)
        elif style == "blurred":
            picture = picture.filter(PIL.ImageFilter.GaussianBlur(rng.uniform(0.06, 0.085) * _smallest(asks)))
        return _noisy(_skewed(_scaled(picture, rng.uniform(0.72, 0.85)), rng, 1.5), rng, 5)
    ways = rng.sample([_busy, _noisy_much, _skewed_much], 2)
    picture = _scaled(picture, rng.uniform(*SMALL))
    for way in ways:
        picture = way(picture, rng)
    return picture


def _smallest(asks: Sequence[Ask]) -> int:
    return min((mark.type.size for ask in asks for mark in ask.evidence), default=24)


def _scaled(picture: PIL.Image.Image, by: float) -> PIL.Image.Image:
    return picture.resize((round(picture.width * by), round(picture.height * by)), PIL.Image.Resampling.LANCZOS)


def _skewed(picture: PIL.Image.Image, rng: random.Random, most: float) -> PIL.Image.Image:
    """Turned by some degrees on a desk; the sheet grows so that no corner is lost."""
    angle = rng.uniform(most / 2, most) * rng.choice([-1, 1])
    desk = rng.choice([(96, 84, 72), (120, 126, 132), (60, 66, 74), (176, 160, 138)])
    return picture.rotate(angle, PIL.Image.Resampling.BICUBIC, expand=True, fillcolor=desk)


def _skewed_much(picture: PIL.Image.Image, rng: random.Random) -> PIL.Image.Image:
    return _skewed(picture, rng, 4)


def _noisy(picture: PIL.Image.Image, rng: random.Random, deviation: float) -> PIL.Image.Image:
    """Grain as of a dim photograph, one value for all three colours."""
    grain = np.random.default_rng(rng.getrandbits(64)).normal(0, deviation, (picture.height, picture.width, 1))
    # In steps of four levels: as hard to the eye, and the file is half as large.
    return PIL.Image.fromarray(np.clip(np.asarray(picture, np.int16) + 4 * np.round(grain / 4).astype(np.int16), 0, 255).astype(np.uint8))


def _noisy_much(picture: PIL.Image.Image, rng: random.Random) -> PIL.Image.Image:
    return _noisy(picture, rng, rng.uniform(12, 20))


def _busy(picture: PIL.Image.Image, rng: random.Random) -> PIL.Image.Image:
    """Wavy security print over the sheet, half transparent."""
    waves = PIL.Image.new("L", picture.size, 0)
    pen = PIL.ImageDraw.Draw(waves)
    length, swing, gap = rng.uniform(40, 110), rng.uniform(6, 16), rng.randint(8, 13)
    for y in range(-20, picture.height + 20, gap):
        pen.line([(x, y + swing * math.sin(x / length + y / 37)) for x in range(0, picture.width + 8, 8)], rng.randint(70, 130), 2)
    tint = rng.choice([(40, 140, 190), (210, 90, 90), (90, 160, 90), (150, 110, 190)])
    return PIL.Image.composite(PIL.Image.new("RGB", picture.size, tint), picture, waves)


# --------------------------------------------------------------------------------------------- occlusion


def occluded(picture: PIL.Image.Image, marks: Sequence[Mark], asks: Sequence[Ask], rng: random.Random) -> PIL.Image.Image:
    """Stains, tape and scribbles over the strings that answer, as far as the answer can still be told from the wrong choices."""
    covered = PIL.Image.new("L", picture.size, 0)
    color = rng.choice([(92, 66, 44), (36, 40, 48), (232, 226, 206), (70, 96, 140)])
    targets = [(mark.box, mark.vertical) for ask in asks if ask.rule == "read" for mark in ask.evidence[:1]]
    # Wherever else something lies, it is a nuisance only.
    targets += [(mark.box, mark.vertical) for mark in rng.sample(marks, min(3, len(marks)))]
    for box, vertical in targets:
        for _ in range(10):
            more = PIL.Image.new("L", picture.size, 0)
            _cover(PIL.ImageDraw.Draw(more), box, vertical, rng)
            tried = PIL.ImageChops.lighter(covered, more)
            if all(readable(other, tried) for other in asks):
                covered = tried
                break
    return PIL.Image.composite(PIL.Image.new("RGB", picture.size, color), picture, covered)


def _cover(pen: PIL.ImageDraw.ImageDraw, box: Box, vertical: bool, rng: random.Random) -> None:
    """Something over a part of a box: a blot, a strip along the foot or the head of a line, or strokes across."""
    left, top, right, bottom = box
    height = right - left if vertical else bottom - top
    kind = "blot" if vertical else rng.choice(["blot", "strip", "strokes"])
    if kind == "blot":
        x, y = rng.uniform(left, right), rng.uniform(top, bottom)
        for _ in range(6):
            r = height * rng.uniform(0.25, 0.55)
            dx, dy = rng.uniform(-0.4, 0.4) * height, rng.uniform(-0.3, 0.3) * height
            pen.ellipse((x + dx - r, y + dy - r, x + dx + r, y + dy + r), 255)
    elif kind == "strip":
        deep = height * rng.uniform(0.3, 0.5)
        y = bottom - deep if rng.random() < 0.6 else top - 4
        tilt = rng.uniform(-0.06, 0.06) * height
        pen.polygon(
            [(left - 12, y - tilt), (right + 12, y + tilt), (right + 12, y + deep + tilt + 4), (left - 12, y + deep - tilt + 4)], 255
        )
    else:
        for _ in range(rng.randint(3, 5)):
            x = rng.uniform(left - height, right)
            pen.line((x, bottom + 6, x + rng.uniform(0.5, 1.6) * height, top - 6), 255, max(3, round(height * 0.17)))


def readable(ask: Ask, covered: PIL.Image.Image) -> bool:
    """Whether a question can still be answered under a cover ([0, 255] where something lies).

    A string that is read may lose what its wrong choices do not differ in; every other string must be all but clear.
    """
    if ask.rule == "absent":
        return True  # nothing covered is ever gone: it is told from a missing string by what stays of it
    if ask.shape is not None and _share(covered, ask.shape.box) > CLEAR:
        return False
    if ask.rule != "read":
        return all(_share(covered, mark.box) <= CLEAR for mark in ask.evidence)
    read, *by = ask.evidence
    if any(_share(covered, mark.box) > CLEAR for mark in by):
        return False
    if _share(covered, read.box) == 0:
        return True
    return all(_told_apart(read, ask.printed(wrong), covered) for wrong in ask.wrong)


def _share(covered: PIL.Image.Image, box: Box) -> float:
    place = (math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3]))
    return float(np.asarray(covered.crop(place), np.float32).mean() / 255)


def _told_apart(mark: Mark, wrong: str, covered: PIL.Image.Image) -> bool:
    left, top, right, bottom = mark.box
    window = (math.floor(left) - 40, math.floor(top) - 8, math.ceil(right) + 40, math.ceil(bottom) + 8)
    differing = np.abs(ink(mark.text, mark, window) - ink(wrong, mark, window))
    seen = differing * (1 - np.asarray(covered.crop(window), np.float32) / 255)
    return bool(seen.sum() >= SHOWN * differing.sum())


def ink(text: str, mark: Mark, window: tuple[int, int, int, int]) -> np.ndarray:
    """How much ink [0, 1] a line of text laid where a mark is would leave on each pixel of a window [height, width]."""
    sheet = PIL.Image.new("L", (window[2] - window[0], window[3] - window[1]), 0)
    write(PIL.ImageDraw.Draw(sheet), mark, text, 255, (-window[0], -window[1]))
    return np.asarray(sheet, np.float32) / 255
