"""Directories that are either whole or not there: written beside, flushed to the disk, then renamed.

A full disk, Ctrl-C or a crash at any moment leaves the previous directory as it was. Renaming cannot replace a
directory that has files, so the previous one steps aside for an instant; `settle` puts it back if the crash fell into
that instant. No pickle anywhere: weights are safetensors, everything else is JSON.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tonggan.types import TongganError, UsageError

RECORD = "tonggan.json"
"""The file that says a directory is ours (and so may be replaced)."""


@contextmanager
def new_directory(target: str | Path) -> Iterator[Path]:
    """Gives an empty directory to fill; when the block ends well it becomes `target`, otherwise it vanishes.

    Refuses to replace a directory that has files but is not a checkpoint of ours, and reports a full disk as a
    `TongganError` that says the previous checkpoint is intact.
    """
    target = Path(target).expanduser().absolute()
    settle(target)
    if target.exists() and not (target.is_dir() and ((target / RECORD).is_file() or not any(target.iterdir()))):
        raise UsageError(f"{target}: exists and is not a checkpoint of ours; it is not overwritten. Choose another directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    # One fixed name, so that what a killed process left behind is cleared by the next one.
    temporary = target.with_name(f".{target.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        for file in sorted(temporary.rglob("*")):
            _flush(file)
        _flush(temporary)
        _swap(temporary, target)
    except OSError as error:
        intact = "; the previous one is intact" if target.exists() else ""
        raise TongganError(f"{target}: could not be written ({error.strerror or error}){intact}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def settle(target: Path) -> None:
    """Undo a replacement that a crash interrupted between its two renames."""
    aside = _aside(target)
    if aside.exists() and not target.exists():
        aside.rename(target)


def _swap(new: Path, target: Path) -> None:
    aside = _aside(target)
    shutil.rmtree(aside, ignore_errors=True)
    if target.exists():
        target.rename(aside)
    new.rename(target)
    _flush(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
