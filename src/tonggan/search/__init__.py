"""Search by text or picture over vectors that are bound to one model."""

from tonggan.search.index import Changes, Index
from tonggan.search.store import Hit

__all__ = ["Changes", "Hit", "Index"]
