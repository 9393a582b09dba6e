"""A model with an adapter as a plain one."""

from __future__ import annotations

from dataclasses import replace

from tonggan.hub.read import Checkpoint
from tonggan.models.adapt import is_adapted, merge
from tonggan.types import UsageError


def merged(checkpoint: Checkpoint) -> Checkpoint:
    """The adapter's weights taken up by the base's; raises `UsageError` for a model without an adapter, or one that cannot be merged."""
    if not is_adapted(checkpoint.module):
        raise UsageError(f"{checkpoint.name} has no adapter that could be merged")
    return replace(checkpoint, module=merge(checkpoint.module))
