"""Data by name: a source that is always at hand, or a file or folder of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tonggan.config import did_you_mean
from tonggan.data import formats, sources
from tonggan.data.rows import Dataset
from tonggan.types import UsageError


def open_data(
    name: str,
    *,
    image_col: str | None = None,
    text_col: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """The rows of a source (`stamps`) or of a path; `options` go to the source. Rows that could not be used are in `dropped`."""
    if name in sources.SOURCES:
        found = sources.load(name, **(options or {}))
    elif (path := _path(name)).exists() or any(c in name for c in "{:"):
        found = formats.read(path, image_col=image_col, text_col=text_col)
    else:
        raise UsageError(
            f"{name!r} is neither a file nor a source{did_you_mean(name, sources.SOURCES)}; sources: {', '.join(sources.SOURCES)}"
        )
    dropped = found.dropped
    if split is not None:
        found = found.split(split)
    if limit is not None:
        found = found[:limit]
    found.dropped = dropped
    return found


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~nobody
        return Path(name)
