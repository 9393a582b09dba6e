"""A model's towers as ONNX graphs, for programs without torch: one graph per kind of input, of any number of rows and any length.

`image.onnx` takes `pixels` uint8 [B, 3, H, W] (normalising is part of the graph), `text.onnx` takes `ids` int64 [B, L], padded on the
right, and `lengths` int64 [B]. Both give `vectors` [B, D], of unit length, and `features` [B, W], before head and normalisation.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from tonggan.data.images import canonical_picture
from tonggan.data.processor import CANONICAL
from tonggan.hub.copies import write_copy
from tonggan.hub.read import Checkpoint
from tonggan.models.base import Embedder
from tonggan.tensors import Tokens
from tonggan.types import CannotError, MissingExtra

ONE_FILE = 2_000_000_000
"""Bytes of weights above which they go beside the graph: the format's own files end at 2 GB."""
OUTPUTS = ["vectors", "features"]


class _ImageGraph(nn.Module):
    def __init__(self, model: Embedder) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.features("image", pixels)
        return self.model.encode("image", features=features), features


class _TextGraph(nn.Module):
    def __init__(self, model: Embedder) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.features("text", Tokens(ids, lengths))
        return self.model.encode("text", features=features), features


def export_onnx(checkpoint: Checkpoint, directory: str | Path, *, one_file: int = ONE_FILE) -> None:
    """Write the graphs with processor files and the identity of what they come from; not admitted before `tonggan verify` has passed.

    Graphs with more than `one_file` bytes of weights keep them beside (`image.onnx.data`). Raises `MissingExtra` without the
    exporter, `CannotError` for a model that is not a two-tower one of pictures and text.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise MissingExtra("an ONNX export", "onnx") from None
    module = checkpoint.module
    if not isinstance(module, Embedder) or not module.modalities <= {"image", "text"}:
        raise CannotError(f"{checkpoint.name}: only models that embed pictures and text, each for itself, can become ONNX graphs")
    inputs = {kind: _example(checkpoint, kind) for kind in sorted(module.modalities)}
    graphs = {"image": _ImageGraph, "text": _TextGraph}
    device = module.log_scale.device
    checkpoint.module.cpu().eval()
    scale = {"log_scale": module.log_scale.tolist(), "max_scale": module.max_scale}
    bias = None if module.bias is None else module.bias.tolist()

    def fill(new: Path) -> None:
        for kind, (example, shapes) in inputs.items():
            graph = graphs[kind](module).eval()
            with _quiet(), torch.no_grad():
                program = torch.onnx.export(graph, example, dynamo=True, dynamic_shapes=shapes, output_names=OUTPUTS, verbose=False)
            assert program is not None, "the exporter that torch has had since 2.5 gives a program"
            size = sum(t.numel() * t.element_size() for t in graph.state_dict().values())
            program.save(new / f"{kind}.onnx", external_data=size > one_file)

    write_copy(directory, "onnx", checkpoint, fill, {"modalities": list(inputs), "dim": module.dim, "bias": bias, **scale})
    checkpoint.module.to(device)


def _example(checkpoint: Checkpoint, kind: str) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Two rows to trace with, and which of their sizes may be others later. A fixed length of text (SigLIP's) stays fixed."""
    processor = checkpoint.processor
    if kind == "image":
        return (processor.pixels([canonical_picture()] * 2),), {"pixels": {0: Dim.DYNAMIC}}
    assert processor.text is not None
    tokens = processor.tokens([CANONICAL["en"], CANONICAL["zh"]])
    length = {} if processor.text.config.pad_to is not None else {1: Dim.DYNAMIC}
    return (tokens.ids, tokens.lengths), {"ids": {0: Dim.DYNAMIC, **length}, "lengths": {0: Dim.DYNAMIC}}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on operators of packages that are not here, which are not ours to act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
