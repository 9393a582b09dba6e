"""Towers that ONNX Runtime computes, for a `LocalModel` like any other.

Shape letters: B rows, D dim of the common space, W width of a tower.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tonggan.hub.copies import Copy, read_copy
from tonggan.hub.read import Checkpoint
from tonggan.tensors import MODALITIES, Modality
from tonggan.types import MissingExtra, TongganError, UsageError


class OnnxTowers(nn.Module):
    """What `hub.export_onnx` wrote, as an `Embedder` that computes on the CPU and is never trained."""

    def __init__(self, directory: Path, copy: Copy) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtra("an ONNX copy", "onnx") from None
        said = copy.details
        self.modalities: frozenset[Modality] = frozenset(kind for kind in MODALITIES if kind in said["modalities"])
        self.dim, self.max_scale = int(said["dim"]), float(said["max_scale"])
        self.log_scale: Tensor
        self.register_buffer("log_scale", torch.tensor(said["log_scale"]))
        self.bias: Tensor | None
        self.register_buffer("bias", None if said["bias"] is None else torch.tensor(said["bias"]))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._sessions = {
                kind: onnxruntime.InferenceSession(directory / f"{kind}.onnx", options, providers=["CPUExecutionProvider"])
                for kind in self.modalities
            }
        except Exception as error:  # the library has no error of its own that all its readers raise
            raise TongganError(f"{directory}: ONNX Runtime cannot open it: {str(error).splitlines()[0][:200]}") from None

    def features(self, kind: Modality, inputs: Any) -> Tensor:
        """[B, W]"""
        return self._run(kind, inputs)[1]

    def encode(self, kind: Modality, inputs: Any = None, *, features: Tensor | None = None) -> Tensor:
        """Unit vectors [B, D] of inputs; a graph begins at its inputs, so features computed before are of no use to it."""
        if features is not None:
            raise UsageError("an ONNX copy takes pictures and texts, not features that were computed before")
        return self._run(kind, inputs)[0]

    def _run(self, kind: Modality, inputs: Any) -> tuple[Tensor, Tensor]:
        given = {"pixels": inputs} if kind == "image" else {"ids": inputs.ids, "lengths": inputs.lengths}
        vectors, features = self._sessions[kind].run(["vectors", "features"], {name: np.asarray(t.cpu()) for name, t in given.items()})
        return torch.from_numpy(vectors), torch.from_numpy(features)


def read_onnx(directory: Path, copy: Copy, *, name: str | None = None, unverified: bool = False) -> Checkpoint:
    """The checkpoint of a copy; raises `TongganError` for one that is not verified, or not what was verified."""
    return read_copy(directory, copy, lambda _: OnnxTowers(directory, copy), name=name, unverified=unverified)
