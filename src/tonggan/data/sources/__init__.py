"""Data that is always at hand: each source says in one line how to get it, under which licence, and works offline then.

    from tonggan.data import sources
    stamps = sources.load("stamps", split="test")

No source is part of this package; `get(name).fetch()` runs the machine's own package client.
"""

from __future__ import annotations

from typing import Any

from tonggan.config import one_of
from tonggan.data.rows import Dataset
from tonggan.data.sources.artists import EmojiArtists
from tonggan.data.sources.base import Source, cache_home
from tonggan.data.sources.cedict import Cedict
from tonggan.data.sources.openclipart import OpenClipart
from tonggan.data.sources.openmoji import OpenMoji
from tonggan.data.sources.pages import Pages
from tonggan.data.sources.scenes import Scenes
from tonggan.data.sources.splits import by_artist, by_concept, held_out_captions
from tonggan.data.sources.stamps import Stamps

__all__ = ["SOURCES", "Source", "by_artist", "by_concept", "cache_home", "describe", "get", "held_out_captions", "load"]

SOURCES: dict[str, Source] = {
    source.name: source for source in (OpenMoji(), Stamps(), EmojiArtists(), OpenClipart(), Scenes(), Pages(), Cedict())
}
"""Every source by name."""


def get(name: str) -> Source:
    """The source of that name; an unknown name raises `UsageError` with the nearest spelling."""
    return SOURCES[one_of(name, SOURCES, "source")]


def load(name: str, split: str | None = None, **options: Any) -> Dataset:
    """The rows of a source, or of one of its splits. Pictures are drawn once and cached.

    `options` go to the source's own `rows` (for example `size=64`). An absent source raises with the one line that gets it,
    an unknown split with those there are.
    """
    rows = get(name).rows(**options)
    return rows if split is None else rows.split(split)


def describe() -> list[dict[str, str | int | bool]]:
    """One record per source for a table: name, about (en, zh), available, real, licence, attribution, megabytes, how."""
    return [
        {
            "name": source.name,
            "about": source.about,
            "about_zh": source.about_zh,
            "available": source.available(),
            "real": source.real,
            "licence": source.licence,
            "attribution": source.attribution,
            "megabytes": source.megabytes,
            "how": source.how,
        }
        for source in SOURCES.values()
    ]
