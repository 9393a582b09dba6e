"""One directory as a checkpoint, whichever form the model in it has."""

from __future__ import annotations

from pathlib import Path

from tonggan import hub
from tonggan.backends.onnx import read_onnx
from tonggan.hub.atomic import settle
from tonggan.hub.copies import copy_in
from tonggan.hub.export_int8 import read_int8
from tonggan.hub.read import Checkpoint

READERS = {"int8": read_int8, "onnx": read_onnx}


def open_directory(directory: Path, *, name: str | None = None, unverified: bool = False) -> Checkpoint:
    """A model, or a copy of one in another form; a copy is admitted only when it was verified, but for the verifier (`unverified`)."""
    settle(directory.absolute())
    copy = copy_in(directory)
    return hub.read(directory, name=name) if copy is None else READERS[copy.form](directory, copy, name=name, unverified=unverified)
