"""A model becomes a directory: families with a published format are saved in it, what we add goes into tonggan.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from tonggan.data.processor import Processor
from tonggan.hub.atomic import RECORD, new_directory
from tonggan.hub.convert.fields import labels_out
from tonggan.hub.families import OURS, agree, family_for
from tonggan.hub.identity import identity
from tonggan.hub.read import FORMAT
from tonggan.hub.weights import read_json, write_json, write_weights
from tonggan.models import ModelConfig
from tonggan.models.adapt import is_adapted
from tonggan.types import UsageError

Format = Literal["auto", "tonggan", "transformers"]


def save(
    directory: str | Path,
    module: nn.Module,
    config: ModelConfig,
    processor: Processor,
    *,
    format: Format = "auto",
    provenance: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    also: Callable[[Path], None] | None = None,
) -> None:
    """Write a checkpoint; the previous one in `directory` is replaced only when the new one is whole and on the disk.

    `format="auto"` takes the published format where the model has one (transformers then loads the directory),
    `"transformers"` insists on it, `"tonggan"` is ours. `also` may add files of its own to the new directory before it
    takes its place (the trainer's state, so that weights and state can never be of different steps). Raises
    `TongganError`, with the previous checkpoint intact, when the disk is full or the format has no place for the model.
    """
    if is_adapted(module):
        raise UsageError(
            f"{directory}: the model has an adapter; merge it first (tonggan merge), or save only the adapter (hub.adapters.save)"
        )
    if "copy" in (provenance or {}):
        raise UsageError(f"{directory}: the model is a copy in another form, without the weights of its original; take the original")
    agree(config, processor, str(directory))
    family = OURS if format == "tonggan" else family_for(config, processor, insist=format == "transformers")
    state = module.state_dict()
    found = identity(module, config, processor, labels)
    with new_directory(directory) as new:
        family.write(new, config, processor)
        write_weights(new / family.weights[0], family.table(config).export(state) if family.table else state)
        record: dict[str, Any] = {
            "format": FORMAT,
            "identity": {"preprocessing": dict(found.preprocessing), "weights": found.weights},
            "provenance": dict(provenance or {}),
        }
        if family is OURS:
            record["processor"] = processor.settings()
        if labels:
            record["labels"] = list(labels)
        if labels and family is not OURS:
            write_json(new / "config.json", read_json(new / "config.json") | labels_out(labels))
        write_json(new / RECORD, record)
        if also:
            also(new)
