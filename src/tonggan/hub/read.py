"""A directory (or one weights file) becomes a checkpoint: module, configuration, processor, and proof of what it is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from tonggan import models
from tonggan.config import ConfigError
from tonggan.data.audio import AudioProcessor
from tonggan.data.labels import imagenet
from tonggan.data.processor import Processor
from tonggan.hub.atomic import RECORD, settle
from tonggan.hub.convert import efficientnet
from tonggan.hub.convert.fields import labels_in
from tonggan.hub.convert.table import KeyTable
from tonggan.hub.families import agree, described, family_of
from tonggan.hub.identity import check, identity, recorded_as
from tonggan.hub.weights import read_json, read_tensors, read_weights
from tonggan.models import ModelConfig
from tonggan.models.towers import WaveformConfig
from tonggan.types import Identity, TongganError

log = logging.getLogger("tonggan")
FORMAT = 1
"""Of tonggan.json; a directory with a higher number was written by a later version."""


@dataclass(frozen=True)
class Checkpoint:
    """A model with everything needed to use it, to train on and to save it again."""

    module: nn.Module
    config: ModelConfig
    processor: Processor
    identity: Identity
    name: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    """A classifier's classes, when they are known."""
    dropped: tuple[str, ...] = ()
    """Tensors of the files that were left out on purpose."""


def read(path: str | Path, *, name: str | None = None) -> Checkpoint:
    """Read a checkpoint of ours, a directory of a published format (`hub.families`), or an EfficientNet-Lite `.pth`.

    Weights and every setting are checked against the record in tonggan.json; a directory without one is taken as it is,
    and its identity says `verified=False`. Raises `TongganError` naming the file, field or key that is wrong.
    """
    path = Path(path).expanduser()
    settle(path.absolute())
    if path.is_file():
        return _read_file(path, name or str(path))
    if not path.is_dir():
        raise TongganError(f"{path}: no such directory")
    raw, file = described(path)
    record = read_json(path / RECORD) if (path / RECORD).is_file() else {}
    if record.get("format", FORMAT) > FORMAT:
        raise TongganError(f"{path}: written by a later version of Tonggan (format {record['format']}); this one knows {FORMAT}")
    if "copy" in record:
        raise TongganError(f"{path}: a copy of {record['copy'].get('origin')} in another form, for use only: open it with tonggan.load")
    family = family_of(raw, str(file))
    try:
        config, processor = family.read(raw, path)
    except (ValueError, TypeError) as error:  # pydantic's too: a setting of a foreign directory is of the wrong kind
        raise TongganError(f"{path}: its configuration cannot be read: {error}") from None
    if untaken := _untaken(path):
        log.warning("%s/generation_config.json: not taken, so answers may differ from generate's: %s", path, ", ".join(untaken))
    agree(config, processor, str(path))
    processor = with_shortest(config, processor)
    table, theirs = family.table and family.table(config), read_weights(path, family.weights)
    module = build_with(config, table, theirs, str(path))
    # What config.json names is what other programs read, so it is what counts; only our own format has no place for it there.
    labels, dropped = labels_in(raw) or tuple(record.get("labels") or ()) or None, tuple(table.dropped(theirs)) if table else ()
    found = identity(module, config, processor, labels)
    if "identity" in record:
        check(found, recorded_as(record["identity"], config, processor, labels), str(path))
    else:
        found = Identity(found.preprocessing, found.weights, verified=False)
    return Checkpoint(module, config, processor, found, name or str(path), record.get("provenance", {}), labels, dropped)


def _untaken(directory: Path) -> list[str]:
    """What generation_config.json says of how answers are searched for, beyond the likeliest word each time until an end. That is the
    caller's to say here (`ChatOptions`), or cannot be said."""
    file = directory / "generation_config.json"
    said = read_json(file) if file.is_file() else {}
    off: dict[str, tuple[Any, ...]] = {
        **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "num_beams"), (None, 1)),
        **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens"), (None, 0)),
        **dict.fromkeys(("bad_words_ids", "force_words_ids", "sequence_bias"), (None, [])),
    }
    return [f"{name}={said[name]!r}" for name, values in off.items() if said.get(name) not in values]


def with_shortest(config: ModelConfig, processor: Processor) -> Processor:
    """The processor of a model that hears waveforms, which refuses those that are too short for one frame of its tower."""
    tower = getattr(config, "audio", None)
    if processor.audio is None or not isinstance(tower, WaveformConfig):
        return processor
    hears = AudioProcessor(processor.audio.config, tower.shortest)
    made = Processor(processor.image, processor.text, hears, processor.video)
    return made.with_chat(processor.chat.config if processor.chat is not None else None)


def build_with(config: ModelConfig, table: KeyTable | None, theirs: Mapping[str, Any], where: str) -> nn.Module:
    """A module of this configuration with these weights, in evaluation mode; without a table the names are ours."""
    try:
        module = models.build(config)
    except ConfigError as error:
        raise TongganError(f"{where}: config.json describes no model: {error}") from None
    expected = module.state_dict()
    try:
        state = (table or KeyTable("tonggan", {name: name for name in expected})).import_(theirs, expected)
    except TongganError as error:
        raise TongganError(f"{where}: {error}") from None
    wrong = [
        f"{table.theirs(key) if table else key}: {list(tensor.shape)} in the file, {list(expected[key].shape)} by config.json"
        for key, tensor in state.items()
        if tensor.shape != expected[key].shape
    ]
    if wrong:
        raise TongganError(f"{where}: weights and config.json do not fit: {'; '.join(wrong[:5])}")
    module.load_state_dict(expected | state)
    return module.eval()


def _read_file(file: Path, name: str) -> Checkpoint:
    """EfficientNet-Lite travels as a bare weights file; which one, its name says."""
    config = efficientnet.config_of(file)
    processor = efficientnet.processor_of(config)
    module = build_with(config, efficientnet.TABLE, read_tensors(file), str(file))
    labels = tuple(label.name for label in imagenet())
    found = identity(module, config, processor, labels)
    return Checkpoint(module, config, processor, Identity(found.preprocessing, found.weights, verified=False), name, labels=labels)
