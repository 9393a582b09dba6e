"""Exactly what a model is: how it sees its input, how it computes, and its weights.

A model that silently squashes pictures another way, or uses the other GELU, still gives plausible vectors. So the
record of every setting is kept with the weights and compared field by field whenever they are loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.data.processor import Processor
from tonggan.types import Identity, TongganError

TRAINING_ONLY = frozenset(
    {
        "scale_init",
        "max_scale",
        "bias_init",
        "dropout",
        "head_dropout",
        "patch_keep",
        "drop_connect",
        "norm_momentum",
        "padding_id",
    }
)
"""Settings that change how weights were found, not what they compute."""


def identity(module: nn.Module, config: Config, processor: Processor | None) -> Identity:
    """The identity of a model in memory.

    `preprocessing` has flat names: `image.*` and `text.*` from the processor, `model.*` from the configuration
    (activation, pooling, heads: whatever the weights alone do not show).
    """
    record = dict(flat(processor.record())) if processor is not None else {}
    record |= {name: value for name, value in flat(config.model_dump(mode="json"), "model.") if name.split(".")[-1] not in TRAINING_ONLY}
    return Identity(preprocessing=record, weights=weights_hash(module.state_dict()))


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names in order, with dtype, shape and bytes of each tensor."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        # A view as bytes: numpy has no bfloat16, and a scalar has no last dimension to view through.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def recorded_as(recorded: Mapping[str, Any], config: Config, processor: Processor) -> Identity:
    """The identity in a record. A setting that was added after it was written had no other value then than its default."""
    later: dict[str, Any] = {}
    parts: list[tuple[str, Config]] = [("model", config), *((kind, part.config) for kind, part in processor.parts().items())]
    for prefix, part in parts:
        every = dict(flat(part.model_dump(mode="json"), f"{prefix}."))
        chosen = dict(flat(part.model_dump(mode="json", exclude_defaults=True), f"{prefix}."))
        later |= {name: value for name, value in every.items() if name not in chosen and name.split(".")[-1] not in TRAINING_ONLY}
    return Identity(later | recorded.get("preprocessing", {}), recorded.get("weights", ""))


def check(found: Identity, saved: Identity, where: str) -> None:
    """Raise `TongganError` naming each field in which what was loaded differs from what was saved, with both values."""
    differences = found.difference(saved)
    if differences:
        shown = "\n".join(f"  {line}" for line in differences[:12])
        more = f"\n  and {len(differences) - 12} more" if len(differences) > 12 else ""
        raise TongganError(
            f"{where}: this is not the model that was saved here (found != recorded):\n{shown}{more}\n"
            "Restore the changed file, or take `identity` out of tonggan.json to load the directory as it is now, unverified."
        )


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as dotted names; tuples become lists, so that a record read back from JSON is equal."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(inner) if isinstance(inner, tuple) else inner
