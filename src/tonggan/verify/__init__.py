"""A model held against its reference, or against itself in another form."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import tempfile
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from tonggan.backends import LocalModel
from tonggan.backends.directories import open_directory
from tonggan.backends.names import directory_of, find, inside_run
from tonggan.hub.adapters import is_adapter
from tonggan.hub.copies import FORMS, copy_in, record_verify
from tonggan.hub.export_int8 import export_int8
from tonggan.hub.export_onnx import export_onnx
from tonggan.hub.merged import merged
from tonggan.hub.read import Checkpoint
from tonggan.types import TongganError, UsageError
from tonggan.verify.copies import against_endpoint, against_model
from tonggan.verify.measure import Difference, compare
from tonggan.verify.published import against_transformers
from tonggan.verify.report import Divergence, Report, Section

__all__ = ["AGAINST", "Difference", "Divergence", "Report", "Section", "compare", "verify"]

AGAINST = ("transformers", "onnx", "int8", "merged")
COUNT = 8
EXPORTERS = {"onnx": export_onnx, "int8": export_int8}
PACKAGES = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "int8": ()}


def verify(
    model: str | Path, against: str, *, copy: str | Path | None = None, count: int = COUNT, seed: int = 0, backward: bool = False
) -> Report:
    """Compare a model with `transformers`, with itself as `onnx` or `int8`, with its adapter `merged`, or with a server at a URL.

    `copy` is the directory of an exported copy; when it passes, that is written into its record, and from then on it is loaded. Without
    it a copy is made, checked and thrown away. A directory that passes against `transformers` keeps that in its record too. `count`
    items of each kind are compared, `seed` draws those that are not canonical; `backward` compares gradients as well (transformers).
    Raises `TongganError` when something cannot be opened, or is not what was saved.
    """
    if copy is not None and against not in FORMS:
        raise UsageError(f"a copy is checked against onnx or int8, not {against}")
    if backward and against != "transformers":
        raise UsageError(f"gradients can be compared with transformers only, not with {against}")
    if against == "transformers":
        return _transformers(model, count=count, seed=seed, backward=backward)
    original = find(model)
    if against.startswith(("http://", "https://")):
        report = against_endpoint(LocalModel(original, "cpu"), against, count=count, seed=seed)
        return _versioned(report)
    if against == "merged":
        other = LocalModel(merged(original), "cpu")
        return _versioned(against_model(LocalModel(original, "cpu"), other, "merged", count=count, seed=seed, versions={}))
    if against not in FORMS:
        raise UsageError(f"--against {against}: there are {', '.join(AGAINST)}, or the URL of a server (http://HOST:PORT/v1)")
    if copy is not None:
        return _copy(original, Path(copy).expanduser(), against, count=count, seed=seed)
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / against
        EXPORTERS[against](original, made)
        return _copy(original, made, against, count=count, seed=seed)


def _transformers(model: str | Path, *, count: int, seed: int, backward: bool) -> Report:
    directory = _place(model)
    if directory is None:
        raise UsageError(f"{model}: transformers opens directories, so the model must be one (or on a hub: hf:OWNER/NAME)")
    if copy_in(directory) is not None:
        raise UsageError(f"{model} is a copy in another form; check what it was made from against transformers, and the copy against that")
    if is_adapter(directory):
        raise UsageError(
            f"{model} is an adapter, and transformers is held against whole models. Compare it with its merged form: tonggan verify "
            f"{quote(str(model))} --against merged; or write that and check it: tonggan merge {quote(str(model))} OUT, then "
            "tonggan verify OUT --against transformers"
        )
    checkpoint = find(model)
    report = against_transformers(checkpoint, directory, count=count, seed=seed, backward=backward)
    return _kept(report, directory, checkpoint)


def _copy(original: Checkpoint, directory: Path, form: str, *, count: int, seed: int) -> Report:
    copy = copy_in(directory)
    if copy is None or copy.form != form:
        raise UsageError(f"{directory}: not an {form} copy; make one with: tonggan export {original.name} {directory} --to {form}")
    if wrong := original.identity.difference(copy.identity):
        shown = "\n".join(f"  {line}" for line in wrong[:12])
        raise TongganError(f"{directory}: a copy of {copy.origin}, which is not {original.name} (it != the copy's origin):\n{shown}")
    other = open_directory(directory, unverified=True)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES[form]}
    report = against_model(LocalModel(original, "cpu"), LocalModel(other, "cpu"), copy.form, count=count, seed=seed, versions=versions)
    return _kept(report, directory, other)


def _place(model: str | Path) -> Path | None:
    """The directory that a model is read from; None where it comes from elsewhere."""
    directory = directory_of(model)
    return inside_run(directory) if directory.is_dir() else None


def _versioned(report: Report) -> Report:
    own = {"tonggan": importlib.metadata.version("tonggan"), "torch": torch.__version__, "python": platform.python_version()}
    report.versions = {**own, **report.versions}
    return report


def _kept(report: Report, directory: Path, checkpoint: Checkpoint) -> Report:
    """The report, complete with versions; written into the directory's record when it passed."""
    _versioned(report)
    if report.passed:
        worst = report.worst
        by, value, tolerance = worst.judged
        entry: dict[str, Any] = {
            "against": report.against,
            "versions": dict(report.versions),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "worst": {"what": worst.name, "by": by, "value": value, "tolerance": tolerance},
        }
        if report.verbs:
            entry["verbs"] = list(report.verbs)
        try:
            record_verify(directory, checkpoint, entry)
        except OSError as error:
            report.notes.append(f"not written into the record of {directory}: {error.strerror or error}")
    return report
