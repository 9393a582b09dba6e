"""Rows, formats, media, text, order and sources: everything between a user's files and a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tonggan.data.opening import open_data as open_data


def __getattr__(name: str) -> Any:
    if name == "open_data":
        from tonggan.data.opening import open_data

        return open_data
    raise AttributeError(f"module 'tonggan.data' has no attribute {name!r}")
