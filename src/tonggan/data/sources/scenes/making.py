"""What all rows of scenes share: their record, their media, and their splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8

from tonggan.config import one_of
from tonggan.data.media import encode_png
from tonggan.data.sources.scenes.motion import FPS, encode_frames
from tonggan.data.sources.scenes.sound import RATE, encode_wav
from tonggan.data.sources.scenes.words import Said
from tonggan.data.sources.splits import by_concept, concepts, look_alikes
from tonggan.data.splits import SPARE
from tonggan.types import Audio, Image, Message, Row, Text, UsageError, Video

LICENCE = "Apache-2.0"
LANGS = ("en", "zh")
Turn: TypeAlias = tuple[Said, Said]
"""A question and its answer."""


def meta(scene: str, kind: str) -> dict[str, str]:
    """What every row says of itself: where it comes from, its scene as JSON, what it is about, and that it is synthetic."""
    return {"source": "scenes", "licence": LICENCE, "scene": scene, "kind": kind, "synthetic": "yes"}


def picture(pixels: UInt8[np.ndarray, "H W 3"]) -> Image:
    """As a PNG file."""
    return Image(data=encode_png(pixels))


def clip(frames: UInt8[np.ndarray, "T H W 3"]) -> Video:
    """As an animated WebP file."""
    return Video(data=encode_frames(frames), fps=FPS)


def sound(samples: Float32[np.ndarray, "S"]) -> Audio:
    """As a WAV file."""
    return Audio(data=encode_wav(samples), rate=RATE)


def talk(seen: Image, turns: Sequence[Turn], lang: str) -> tuple[Message, ...]:
    """What is asked about a picture, and answered, one after the other."""
    said: list[Message] = []
    for number, (question, answer) in enumerate(turns):
        said.append(Message("user", (*([seen] if number == 0 else []), Text(question.in_(lang), lang))))
        said.append(Message("assistant", (Text(answer.in_(lang), lang),)))
    return tuple(said)


def in_splits(rows: Sequence[Row], held_out: Sequence[bool]) -> list[Row]:
    """Rows on sides that share no group, no caption and no picture that looks alike.

    Those with a combination kept apart are `combination`, or `spare` where they look like one without.
    """
    alike = look_alikes(rows)
    number = concepts(rows, alike)
    shown = {number[i] for i, apart in enumerate(held_out) if not apart}
    sides = {i: SPARE if number[i] in shown else "combination" for i, apart in enumerate(held_out) if apart}
    return [row.with_(split=sides.get(i, row.split)) for i, row in enumerate(by_concept(rows, alike=alike))]


def checked_langs(langs: Sequence[str]) -> tuple[str, ...]:
    """Languages that this world speaks, at least one."""
    if not langs:
        raise UsageError(f"no language given; there are {', '.join(LANGS)}")
    for lang in langs:
        one_of(lang, LANGS, "language")
    return tuple(langs)


def one_lang(langs: Sequence[str], rng: np.random.Generator) -> str:
    """One of them, each equally often."""
    return langs[int(rng.integers(len(langs)))]
