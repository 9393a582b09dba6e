"""Runs: one YAML says all of it. Shipped recipes are found, shown and copied by name."""

from __future__ import annotations

import shutil
from pathlib import Path

from tonggan.config import one_of
from tonggan.types import UsageError

_HERE = Path(__file__).parent


def names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(file.stem for file in _HERE.glob("*.yaml"))


def path(name: str) -> Path:
    """The file of a shipped recipe, or of one's own YAML."""
    own = Path(name)
    if own.suffix in {".yaml", ".yml"}:
        if not own.is_file():
            raise UsageError(f"{name}: no such file; shipped recipes are named without an ending: {', '.join(names())}")
        return own
    return _HERE / f"{one_of(name, names(), 'recipe')}.yaml"


def show(name: str) -> str:
    """The text of a recipe."""
    return path(name).read_text("utf-8")


def about(name: str) -> str:
    """The first line of a recipe: what it does."""
    return path(name).read_text("utf-8").splitlines()[0].removeprefix("#").strip()


def copy(name: str, to: str | Path) -> Path:
    """A copy to edit; an existing file is never overwritten."""
    target = Path(to)
    if target.is_dir():
        target = target / f"{name}.yaml"
    if target.exists():
        raise UsageError(f"{target}: exists already; name another file")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path(name), target)
    return target
