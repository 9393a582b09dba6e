"""A small picture that stands for what was found: of a picture itself, of a clip its middle frame, of a sound its waveform.

Shape letters: S samples, H W pixels.
"""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
from jaxtyping import Float32

from tonggan.data.audio import load_audio
from tonggan.data.media import load_image
from tonggan.data.video import load_frames
from tonggan.types import Audio, Image, Media, Video

SIDE = 160
"""Of the square that it fits into, in pixels."""
RATE, SECONDS = 16_000, 30.0
"""How much of a sound is drawn; nobody reads more off a picture of this size."""
INK, PAPER = (70, 90, 130), (255, 255, 255)


def thumbnail(part: Media) -> bytes:
    """A JPEG file of at most `SIDE` by `SIDE` pixels; raises `MediaError` for what cannot be read."""
    picture = _picture(part)
    picture.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return out.getvalue()


def _picture(part: Media) -> PIL.Image.Image:
    if isinstance(part, Audio):
        return _waveform(load_audio(part, RATE, seconds=SECONDS))
    if isinstance(part, Video):
        return PIL.Image.fromarray(load_frames(part, 1)[0])
    assert isinstance(part, Image)
    return load_image(part, decode="fast", size_hint=SIDE)


def _waveform(samples: Float32[np.ndarray, "S"]) -> PIL.Image.Image:
    """The loudest sample of each column, above and below the middle; the loudest of all fills the height."""
    loud = np.maximum.reduceat(np.abs(samples), np.linspace(0, len(samples) - 1, SIDE).astype(int))
    half = SIDE // 4
    reach = half * loud / max(float(loud.max()), 1e-9)
    inked = np.abs(np.arange(2 * half) - half + 0.5)[:, None] <= np.maximum(reach, 0.5)
    return PIL.Image.fromarray(np.where(inked[:, :, None], INK, PAPER).astype(np.uint8))
