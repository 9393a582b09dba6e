"""A moment of a clip as people write it: `12.4-17.9`, `1:02-1:07.5`, `12.4-`."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

from tonggan.cli.shared import open_media
from tonggan.types import UsageError, Video

_CLOCK = r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)\s*s?"
_MOMENT = re.compile(rf"\s*{_CLOCK}\s*[-–]\s*(?:{_CLOCK})?\s*")


def moment(file: Path, at: str) -> Video:
    """A stretch of a clip; animated pictures have moments, too. Whether the clip is so long is known when it is read."""
    from tonggan.data.formats.clips import ANIMATED, CLIP_SUFFIXES

    if file.suffix.lower() not in CLIP_SUFFIXES | ANIMATED:
        raise UsageError(f"--at names a moment of a clip; {file.name} is none")
    found = _MOMENT.fullmatch(at)
    if found is None:
        raise UsageError(f"--at {at}: expected seconds, as 12.4-17.9, or minutes and seconds, as 1:02-1:07.5; 12.4- is up to the end")
    start, end = _seconds(found.groups()[:3]), _seconds(found.groups()[3:]) if found[6] is not None else math.inf
    return replace(open_media(Video, file), stretch=(start, end))


def _seconds(clock: tuple[str | None, ...]) -> float:
    hours, minutes, seconds = (float(one or 0) for one in clock)
    return 3600 * hours + 60 * minutes + seconds
