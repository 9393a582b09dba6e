"""Exactly what a model is: how it sees its input, how it computes, and its weights.

A model that silently squashes pictures another way, or uses the other GELU, still gives plausible vectors. So the
record of every setting is kept with the weights and compared field by field whenever they are loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.data.processor import Processor
from tonggan.types import Identity, TongganError

TRAINING_ONLY = frozenset(
    {
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
SCALE = frozenset({"scale_init", "max_scale"})
"""Where the scale of cosines is learnt, these are training's alone, because the scale itself is among the weights. One that stays as it
starts is in no weights: there they are the scale."""


def identity(module: nn.Module, config: Config, processor: Processor | None, labels: Sequence[str] | None = None) -> Identity:
    """The identity of a model in memory.

    `preprocessing` has flat names: `image.*` and `text.*` from the processor, `model.*` from the configuration
    (activation, pooling, heads: whatever the weights alone do not show), and `labels`, a hash of a classifier's class names in their
    order: in another order they are another model's answers.
    """
    record = dict(flat(processor.record())) if processor is not None else {}
    record |= computing(config, "model.") | {"labels": labels_hash(labels)}
    return Identity(preprocessing=record, weights=weights_hash(module.state_dict()))


def computing(config: Config, prefix: str) -> dict[str, Any]:
    """The settings of a configuration that act on what is computed, under flat names."""
    idle = TRAINING_ONLY | (SCALE if getattr(config, "scale_learned", True) else set())
    return {name: value for name, value in flat(config.model_dump(mode="json"), prefix) if name.rsplit(".", 1)[-1] not in idle}


def labels_hash(labels: Sequence[str] | None) -> str | None:
    """SHA-256 of the names as a JSON list; None where there are none."""
    return hashlib.sha256(json.dumps(list(labels), ensure_ascii=True).encode()).hexdigest() if labels else None


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names in order, with dtype, shape and bytes of each tensor."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        # A view as bytes: numpy has no bfloat16, and a scalar has no last dimension to view through.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def recorded_as(recorded: Mapping[str, Any], config: Config, processor: Processor, labels: Sequence[str] | None = None) -> Identity:
    """The identity in a record. A setting that was added after it was written had no other value then than its default.

    Three things were always in a directory's own files before they were in its record, so there the files are believed: the scale that
    is not learnt, the `labels`, and the tokenizer.
    """
    later: dict[str, Any] = {"labels": labels_hash(labels)}
    if processor.text is not None:
        later["text.tokenizer"] = processor.text.fingerprint
    parts: list[tuple[str, Config]] = [("model", config), *((kind, part.config) for kind, part in processor.parts().items())]
    for prefix, part in parts:
        chosen = dict(flat(part.model_dump(mode="json", exclude_defaults=True), f"{prefix}."))
        every = computing(part, f"{prefix}.")
        later |= {name: value for name, value in every.items() if name not in chosen or name.rsplit(".", 1)[-1] in SCALE}
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
