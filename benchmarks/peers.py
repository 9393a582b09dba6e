"""Peers that are not installed with the tests, loaded where they are there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType


def open_clip_losses() -> ModuleType | None:
    """open_clip's `loss.py` alone, None when `open_clip_torch` is not installed.

    The package itself needs torchvision, its losses only torch: `pip install --no-deps open_clip_torch` is enough.
    """
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        return None
    file = Path(package.origin).with_name("loss.py")
    spec = importlib.util.spec_from_file_location("open_clip_loss", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
