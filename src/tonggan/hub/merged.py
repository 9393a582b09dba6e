"""A model with an adapter as a plain one."""

from __future__ import annotations

from dataclasses import replace

from tonggan.hub.read import Checkpoint
from tonggan.models.adapt import is_adapted, merge
from tonggan.types import UsageError


def merged(checkpoint: Checkpoint) -> Checkpoint:
    """The adapter's weights taken up by the base's; raises `UsageError` for a model without an adapter, or one that cannot be merged, or
    one that has nothing to merge (a probe: its parts stand in the places of the base's already)."""
    if not is_adapted(checkpoint.module):
        if any(name.startswith("adapter.") for name in checkpoint.identity.preprocessing):
            raise UsageError(
                f"{checkpoint.name} is an adapter that learnt whole parts (a probe) and adds no layers: it is a plain model already, "
                "there is nothing to merge"
            )
        raise UsageError(f"{checkpoint.name} has no adapter that could be merged")
    return replace(checkpoint, module=merge(checkpoint.module))
