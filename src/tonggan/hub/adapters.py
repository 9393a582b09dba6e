"""Adapters as directories: only what was learnt, and which base it belongs to.

LoRA and DoRA are kept as the library `peft` keeps them, under the names of the base's published format, so that
`PeftModel.from_pretrained(base, directory)` opens them, and what it saved opens here. Other kinds, and layers that the published format
keeps in another form or not at all, have our own names. In either case
`tonggan.json` records the exact base and the adapter's own hash; both are checked at load. It also records where the base lies as
seen from the adapter, so that a run, or a folder of runs, may be moved.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.hub.atomic import RECORD, new_directory, settle
from tonggan.hub.convert import peft
from tonggan.hub.convert.table import KeyTable
from tonggan.hub.families import OURS, family_for
from tonggan.hub.identity import TRAINING_ONLY, flat, labels_hash, recorded_as, weights_hash
from tonggan.hub.read import FORMAT, Checkpoint
from tonggan.hub.weights import read_json, read_tensors, write_json, write_weights
from tonggan.models import adapt
from tonggan.models.adapt import AdaptConfig, DoraConfig, LoraConfig
from tonggan.types import Identity, TongganError, UsageError

CONFIG, WEIGHTS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")


class _Kept(Config):
    adapter: AdaptConfig


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds an adapter."""
    settle(directory.absolute())
    return any((directory / name).is_file() for name in WEIGHTS)


def base_of(directory: Path) -> str:
    """The name of the base that an adapter was made for; an adapter that is not ours names one on a hub by its bare OWNER/NAME.

    A directory is looked for where it lay as seen from the adapter, as both may have been moved, and then where it was.
    """
    file = directory / (CONFIG if (directory / CONFIG).is_file() else RECORD)
    kept = _record(directory).get("base", {})
    name = read_json(file).get("base_model_name_or_path") if file.name == CONFIG else kept.get("name")
    if not name:
        raise TongganError(f"{file}: does not say what base the adapter is for; write its directory or name there")
    if name == kept.get("name") and "path" in kept:  # else someone has written another name, and means it
        moved = Path(os.path.normpath(directory.absolute() / kept["path"]))
        name = str(moved) if moved.is_dir() else name
    bare = re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not Path(name).is_dir()
    return f"hf:{name}" if bare and not (directory / RECORD).is_file() else str(name)


def save(
    directory: str | Path,
    view: nn.Module,
    base: Checkpoint,
    config: AdaptConfig,
    *,
    provenance: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    also: Callable[[Path], None] | None = None,
) -> None:
    """Write what `view` (see `models.adapt.attach`) has beside `base`; `also` may add files before the directory takes its place.

    `labels` are names of classes that a classifier learnt beside the adapter, where they are others than the base's.

    Raises `TongganError` when something of the base has changed that an adapter does not keep.
    """
    own = adapt.own(view, base.module, config)
    now, before = view.state_dict(), base.module.state_dict()
    if moved := [name for name in before if name not in own and not torch.equal(now[name].cpu(), before[name].cpu())]:
        raise TongganError(
            f"{directory}: {', '.join(moved[:3])} changed beside the adapter, which keeps only its own; batch norms of the base must "
            "stay in evaluation mode (models.adapt.still)"
        )
    if weights_hash(base.module.state_dict()) != base.identity.weights:  # the view shares them, so they would change for both
        raise TongganError(
            f"{directory}: weights of the base {base.name} itself have changed, which an adapter does not keep; let only the adapter "
            "learn, or name the part in `whole`"
        )
    # A directory is told in full, so that the adapter can be opened from anywhere, and as seen from here, so that both can be moved.
    here = Path(base.name).is_dir()
    name = str(Path(base.name).absolute()) if here else base.name
    path = {"path": os.path.relpath(name, Path(directory).expanduser().absolute())} if here else {}
    with new_directory(directory) as new:
        kept: AdaptConfig = config
        if isinstance(config, LoraConfig | DoraConfig):
            names = _published(base)
            names = names if names.have(own) else _ours(base)
            theirs = peft.export(own, names)
            raw = peft.config_out(config, theirs, name)
            write_json(new / CONFIG, raw)
            write_weights(new / WEIGHTS[0], theirs)
            kept = peft.config_in(raw, theirs, names, str(new / CONFIG))
        else:
            names = _ours(base)
            write_weights(new / WEIGHTS[0], own)
        learnt = list(labels) if labels and tuple(labels) != base.labels else None
        record = {
            "format": FORMAT,
            "adapter": kept.model_dump(mode="json"),
            "weights": weights_hash(own),
            "labels_hash": labels_hash(learnt),
            "names": names.table.family,
            "base": {"name": name, **path, "preprocessing": dict(base.identity.preprocessing), "weights": base.identity.weights},
            "provenance": dict(provenance or {}),
        }
        if learnt:
            record["labels"] = learnt
        write_json(new / RECORD, record)
        if also:
            also(new)


def read(directory: str | Path | Sequence[str | Path], base: Checkpoint) -> Checkpoint:
    """`base` with the adapter of a directory, or with several that go into different parts (one for pictures, one for text).

    The result shares the base's weights and leaves it as it is, so any number of adapters may be opened on one base. Raises
    `TongganError` when the adapter was made for another base or has changed since, naming each field with both values.
    """
    if form := base.provenance.get("copy"):
        raise UsageError(f"{base.name}: an {form} copy, whose weights are in another form and take no adapter; open its original")
    places = [directory] if isinstance(directory, str | Path) else list(directory)
    found = base
    taken: dict[str, Path] = {}
    for place in map(Path, places):
        found = _put(found, place, base, taken)
    return replace(found, name="+".join(map(str, places)))


def _put(on: Checkpoint, directory: Path, base: Checkpoint, taken: dict[str, Path]) -> Checkpoint:
    record = _record(directory)
    if "base" in record:
        made_for = recorded_as(record["base"], base.config, base.processor, base.labels)
        if wrong := base.identity.difference(made_for):
            shown = "\n".join(f"  {line}" for line in wrong[:12])
            raise TongganError(
                f"{directory}: made for the base {record['base']['name']}; {base.name} is another (found != recorded):\n{shown}"
            )
    config, tensors = _content(directory, base, record)
    view = adapt.attach(on.module, config)
    own = adapt.own(view, on.module, config)
    if both := [name for name in own if name in taken]:  # a part learnt whole by each: the later would take the earlier's place
        raise TongganError(
            f"{directory}: has {both[0]} of its own, and so has {taken[both[0]]}; two adapters on one base cannot share a part"
        )
    taken |= dict.fromkeys(own, directory)
    wrong = [f"unknown: {name}" for name in tensors if name not in own] + [f"missing: {name}" for name in own if name not in tensors]
    wrong += [
        f"{n}: {list(t.shape)} in the file, {list(own[n].shape)} here" for n, t in tensors.items() if n in own and t.shape != own[n].shape
    ]
    if wrong:
        raise TongganError(f"{directory}: the adapter does not fit {base.name}: {'; '.join(wrong[:5])}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    # Adapters that were saved before the hash of their labels was kept have only the labels, which are believed.
    hashes = {"weights": (weights_hash(own), "weights"), "labels": (labels_hash(record.get("labels")), "labels_hash")}
    for what, (hashed, field) in hashes.items():
        if field in record and hashed != record[field]:
            found, saved = (value[:12] if value else "(none)" for value in (hashed, record[field]))
            raise TongganError(f"{directory}: this is not the adapter that was saved here: {what}: {found} != {saved}")
    # After those that the base already has.
    number = len({field.split(".")[1] for field in on.identity.preprocessing if field.startswith("adapter.")})
    settings = {name: value for name, value in flat(config.model_dump(mode="json"), f"adapter.{number}.") if _computes(name)}
    labels = tuple(record.get("labels") or ()) or on.labels
    identity = Identity(
        {**on.identity.preprocessing, **settings, "labels": labels_hash(labels)},
        weights_hash(view.state_dict()),
        on.identity.verified and "weights" in record,
    )
    return replace(on, module=view.eval(), identity=identity, provenance=record.get("provenance", {}), labels=labels)


def _content(directory: Path, base: Checkpoint, record: Mapping[str, Any]) -> tuple[AdaptConfig, dict[str, Tensor]]:
    """An adapter's configuration, and its tensors under our names."""
    tensors = read_tensors(next(directory / name for name in WEIGHTS if (directory / name).is_file()))
    said = _Kept.parse({"adapter": record["adapter"]}, str(directory / RECORD)).adapter if "adapter" in record else None
    if said is not None and not isinstance(said, LoraConfig | DoraConfig):
        return said, tensors
    names = _ours(base) if record.get("names") == OURS.name else _published(base)
    config = peft.config_in(read_json(directory / CONFIG), tensors, names, str(directory / CONFIG))
    if said is not None and said != config:
        mine, kept = config.model_dump(), said.model_dump()
        changed = [f"{name}: {mine.get(name)!r} != {kept.get(name)!r}" for name in kept if mine.get(name) != kept[name]]
        raise TongganError(f"{directory / CONFIG}: not as it was saved (found != recorded): {'; '.join(changed)}")
    return config, peft.import_(tensors, names, str(directory))


def _published(base: Checkpoint) -> peft.Names:
    """Names of the base's published format, or ours where it has none."""
    family = family_for(base.config, base.processor, insist=False)
    return peft.Names(base.module.state_dict(), family.table(base.config)) if family.table else _ours(base)


def _ours(base: Checkpoint) -> peft.Names:
    state = base.module.state_dict()
    return peft.Names(state, KeyTable(OURS.name, {name: name for name in state}))


def _record(directory: Path) -> dict[str, Any]:
    return read_json(directory / RECORD) if (directory / RECORD).is_file() else {}


def _computes(name: str) -> bool:
    return name.rsplit(".", 1)[-1] not in TRAINING_ONLY
