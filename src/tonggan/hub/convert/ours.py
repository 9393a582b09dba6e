"""Our own format: config.json is the model's configuration, tonggan.json has the processor's settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tonggan import models
from tonggan.data.processor import Processor
from tonggan.hub.weights import read_json, write_json
from tonggan.models import ModelConfig
from tonggan.types import TongganError

RECORD = "tonggan.json"
SYSTEMS = {f"tonggan-{kind.replace('_', '-')}": kind for kind in models.KINDS}
"""Their `model_type`, and the `kind` of our configuration."""
MODEL_TYPES = tuple(SYSTEMS)


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    plain = {name: value for name, value in raw.items() if name != "model_type"}
    config = models.parse({"kind": SYSTEMS[raw["model_type"]], **plain}, str(directory / "config.json"))
    settings = read_json(directory / RECORD).get("processor")
    if not isinstance(settings, dict):
        raise TongganError(f"{directory / RECORD}: has no processor; the directory is incomplete")
    return config, Processor.read(directory, settings)


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json and tokenizer.json; the processor's settings are the caller's, for tonggan.json."""
    kind = next(name for name, ours in SYSTEMS.items() if ours == config.kind)
    write_json(directory / "config.json", {"model_type": kind, **config.model_dump(mode="json", exclude={"kind"})})
    processor.save(directory)
