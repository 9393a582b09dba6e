"""Sounds and clips that tests of sound and video share."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tonggan.types import Audio


def tones(samples: int, seed: int = 0, rate: int = 16_000) -> np.ndarray:
    """A few tones and a little noise, float32 [samples]."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / rate
    found = sum(np.sin(2 * np.pi * f * time + p) for f, p in rng.uniform((80, 0), (rate * 0.45, 6), (5, 2)))
    return np.asarray(0.1 * found + 0.01 * rng.standard_normal(samples), np.float32)


def sound_file(samples: np.ndarray, rate: int = 16_000, *, format: str = "WAV", subtype: str | None = None) -> bytes:
    """An encoded file; `samples` is [S] or [S, C]."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def sound(samples: int, seed: int = 0, role: str | None = None) -> Audio:
    """A WAV file in memory."""
    return Audio(data=sound_file(tones(samples, seed)), role=role)


def frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Each frame is of a grey of its own, with a white corner on the upper left; uint8 [count, height, width, 3]."""
    made = np.stack([np.full((height, width, 3), 10 + 200 * i // max(1, count - 1), np.uint8) for i in range(count)])
    made[:, : height // 3, : width // 3] = 255
    return made


def video_file(pictures: np.ndarray, *, format: str = "mp4", codec: str = "libx264", rotation: int = 0, **options: str) -> bytes:
    """An encoded clip of ten frames per second, without sound; `rotation` in degrees against the clock, as telephones note it."""
    import av

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "clip"
        coding = {name: options.pop(name) for name in ("g", "bf") if name in options}
        with av.open(str(path), "w", format=format, options=options) as file:
            track: Any = file.add_stream(codec, rate=10)
            track.height, track.width, track.pix_fmt = *pictures.shape[1:3], "yuv420p"
            track.bit_rate = 4_000_000
            track.options = coding
            if rotation:
                track.set_display_rotation(rotation)
            for picture in pictures:
                file.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(track.encode())
        return path.read_bytes()
