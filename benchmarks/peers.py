"""Peers that are not installed with the tests, loaded where they are there."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


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


def open_clip_coca() -> Any:
    """open_clip's `coca_model.py` with all that it needs, in an environment of its own (`constraints/open_clip.txt`).

    Where there is no torchvision for this torch, the model is imported without the rest of the package, which needs it; of torchvision
    the models' files name one layer, of ResNets.
    """
    if importlib.util.find_spec("torchvision") is None:
        found = importlib.util.find_spec("open_clip")
        assert found is not None and found.submodule_search_locations, "open_clip_torch is not installed"
        package, layers = ModuleType("open_clip"), ModuleType("torchvision.ops.misc")
        package.__path__ = list(found.submodule_search_locations)
        layers.FrozenBatchNorm2d = type("FrozenBatchNorm2d", (), {})  # type: ignore[attr-defined]
        sys.modules |= {"open_clip": package, layers.__name__: layers}
    return importlib.import_module("open_clip.coca_model")
