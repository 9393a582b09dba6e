"""Small pictures that no two seeds have in common, for tests of data."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Coarse coloured patches: as unlike each other as photographs, and smooth enough for JPEG."""
    patches = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def encoded(seed: int, kind: str = "JPEG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, kind, **how)
    return buffer.getvalue()


def saved(path: Path, seed: int, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path, **how)
    return path
