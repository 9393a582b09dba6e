"""Copies of a model in another form (ONNX graphs, weights of one byte) and how they are admitted.

A copy's numbers are not the original's, only near them, so it may speak in the original's name (in an index, in a server) only after
somebody has measured how near. Its tonggan.json holds what it was made from, the SHA-256 of every file and of every number that it
computes with, and, once `tonggan verify` has passed, that check. Without it, or with another file or number, the copy is not opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from torch import nn

from tonggan.hub.answers import offers
from tonggan.hub.atomic import RECORD, new_directory
from tonggan.hub.convert import ours
from tonggan.hub.identity import identity, recorded_as
from tonggan.hub.read import FORMAT, Checkpoint, with_shortest
from tonggan.hub.weights import read_json, write_json
from tonggan.models import ModelConfig
from tonggan.types import Identity, TongganError

Form: TypeAlias = Literal["onnx", "int8"]
FORMS: tuple[Form, ...] = get_args(Form)
COMPUTES = frozenset({".onnx", ".data", ".safetensors"})
"""Files that a copy computes with; the others are settings, which are compared by name."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What tonggan.json says of a copy."""

    form: Form
    origin: str
    """What it was made from, as it was called then."""
    identity: Identity
    """Of what it was made from."""
    files: Mapping[str, str]
    """SHA-256 of every file that it computes with."""
    details: Mapping[str, Any]
    """What a form needs besides."""
    hashes: Mapping[str, str]
    """SHA-256 of each of the details."""


def write_copy(directory: str | Path, form: Form, checkpoint: Checkpoint, fill: Callable[[Path], None], details: Mapping[str, Any]) -> None:
    """A directory with the model's settings, what `fill` writes into it, and the record of where it comes from; not verified yet.

    Raises `TongganError` for what is a copy already, and as `new_directory` does.
    """
    if "copy" in checkpoint.provenance:
        raise TongganError(f"{checkpoint.name} is itself {_a(checkpoint.provenance['copy'])} copy; make the copy from the original")
    found = checkpoint.identity
    with new_directory(directory) as new:
        ours.write(new, checkpoint.config, checkpoint.processor)
        fill(new)
        record: dict[str, Any] = {
            "format": FORMAT,
            "identity": {"preprocessing": dict(found.preprocessing), "weights": found.weights},
            "copy": {
                "form": form,
                "origin": checkpoint.name,
                "files": _hashes(new),
                "details": dict(details),
                "hashes": {name: _sha256_of(value) for name, value in details.items()},
            },
            "processor": checkpoint.processor.settings(),
            "provenance": dict(checkpoint.provenance),
        }
        if checkpoint.labels:
            record["labels"] = list(checkpoint.labels)
        write_json(new / RECORD, record)


def copy_in(directory: Path) -> Copy | None:
    """The copy that a directory holds, as its record says; None when it holds none."""
    if not (directory / RECORD).is_file():
        return None
    record = read_json(directory / RECORD)
    if "copy" not in record:
        return None
    said, recorded = record["copy"], record.get("identity", {})
    try:
        if said["form"] not in FORMS:
            raise TongganError(f"{directory / RECORD}: form {said['form']!r} of a copy is not known; known are {', '.join(FORMS)}")
        origin = Identity(recorded["preprocessing"], recorded["weights"])
        return Copy(said["form"], said["origin"], origin, said["files"], said["details"], said["hashes"])
    except (KeyError, TypeError) as error:
        raise TongganError(f"{directory / RECORD}: its record of a copy is incomplete ({error!r}); export it again") from None


def read_copy(directory: Path, copy: Copy, build: Callable[[ModelConfig], nn.Module], *, name: str | None, unverified: bool) -> Checkpoint:
    """The copy as a checkpoint under the identity of what it was made from; `build` makes the module that computes.

    Raises `TongganError` as `admit` does, before anything is built, and for a copy that would answer what no check compared.
    """
    config, processor = ours.read(read_json(directory / "config.json"), directory)
    record = read_json(directory / RECORD)
    labels = tuple(record.get("labels") or ()) or None
    copy = replace(copy, identity=recorded_as(record["identity"], config, processor, labels))
    admit(directory, copy, identity(nn.Identity(), config, processor, labels), unverified=unverified)
    found = Identity(copy.identity.preprocessing, copy.identity.weights, verified=bool(record.get("verified")))
    origin = {**record.get("provenance", {}), "copy": copy.form, "origin": copy.origin}
    module = build(config)
    if not unverified:
        _all_compared(directory, copy, module, record["verified"])
    return Checkpoint(module, config, with_shortest(config, processor), found, name or str(directory), origin, labels)


def admit(directory: Path, copy: Copy, found: Identity, *, unverified: bool) -> None:
    """Raise `TongganError` unless the copy is the one that passed: every file, detail and setting, each named where it differs.

    `found` are the settings as they are now. `unverified` is for the one who is about to verify: then only what changed is refused.
    """
    what = f"{directory}: {_a(copy.form)} copy of {copy.origin}"
    for name, hashed in _hashes(directory).items() | {(name, "") for name in copy.files if not (directory / name).is_file()}:
        if copy.files.get(name) != hashed:
            was = (
                "is missing"
                if not hashed
                else f"is not the file that was exported (SHA-256 {hashed[:12]} != {copy.files.get(name, '')[:12]})"
            )
            raise TongganError(f"{what}: {name} {was}; export and verify it again")
    for name in sorted(copy.details.keys() | copy.hashes.keys()):
        if name not in copy.details or copy.hashes.get(name) != _sha256_of(copy.details[name]):
            now = f"is {copy.details[name]!r}, which was not exported" if name in copy.details else "is missing"
            raise TongganError(f"{what}: copy.details.{name} in {RECORD} {now}; export and verify it again")
    # An adapter is merged into the copy's weights, so its settings are no longer there to be compared.
    exported = {name: value for name, value in copy.identity.preprocessing.items() if not name.startswith("adapter.")}
    if differences := Identity(found.preprocessing, "").difference(Identity(exported, "")):
        shown = "\n".join(f"  {line}" for line in differences[:12])
        raise TongganError(f"{what}: its settings are not those that were exported (found != recorded):\n{shown}\nExport it again.")
    if not unverified and not read_json(directory / RECORD).get("verified"):
        raise TongganError(
            f"{what} was never verified, so nobody knows how near it is; it is not loaded. "
            f"Check it first: tonggan verify {copy.origin} --against {copy.form} --copy {directory}"
        )


def _all_compared(directory: Path, copy: Copy, module: nn.Module, verified: Sequence[Mapping[str, Any]]) -> None:
    compared = {verb for check in verified if check.get("against") == copy.form for verb in check.get("verbs", ())}
    if unseen := sorted(offers(module) - compared):
        raise TongganError(
            f"{directory}: {_a(copy.form)} copy of {copy.origin} that answers what its check did not compare: {', '.join(unseen)}. "
            f"Check it again: tonggan verify {copy.origin} --against {copy.form} --copy {directory}"
        )


def record_verify(directory: Path, checkpoint: Checkpoint, entry: Mapping[str, Any]) -> None:
    """Keep a passed check in tonggan.json (`against`, `versions`, `date`, `worst`, of a copy `verbs`) in place of an earlier one.

    A directory without a record gets one, and from then on is what was checked: any change is refused when it is loaded.
    """
    file = directory / RECORD
    found = asdict(checkpoint.identity)
    new = {"format": FORMAT, "identity": {name: found[name] for name in ("preprocessing", "weights")}, "provenance": {}}
    record = read_json(file) if file.is_file() else {}
    kept: list[dict[str, Any]] = record.get("verified", [])
    others = [one for one in kept if one.get("against") != entry["against"]]
    temporary = file.with_name(f".{RECORD}.new")
    write_json(temporary, {**new, **record, "verified": [*others, dict(entry)]})
    temporary.replace(file)


def _hashes(directory: Path) -> dict[str, str]:
    files = (file for file in sorted(directory.iterdir()) if file.suffix in COMPUTES)
    return {file.name: _sha256(file) for file in files}


def _sha256_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _a(form: str) -> str:
    return f"an {form}"
