"""The same modules in double precision: where rounding is told from what was computed otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from tonggan.data.audio import AudioProcessor
from tonggan.data.processor import Processor
from tonggan.tensors import Sounds


@contextmanager
def in_double(*modules: nn.Module) -> Iterator[None]:
    """All parameters and buffers of the modules in double precision inside the block; behind it the very tensors there were before.

    Attention of the library that asks for its softmax in single precision, whatever comes, gets it in double here.
    """
    tensors = chain.from_iterable(chain(module.parameters(), module.buffers()) for module in modules)
    kept = {id(tensor): (tensor, tensor.data) for tensor in tensors if tensor.is_floating_point()}  # parts may be shared
    softmax = nn.functional.softmax

    def wide(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
        return softmax(input, dim, _stacklevel, None if input.dtype == torch.float64 else dtype)

    nn.functional.softmax = wide
    try:
        for tensor, data in kept.values():
            tensor.data = data.double()
        yield
    finally:
        nn.functional.softmax = softmax
        for tensor, data in kept.values():
            tensor.data = data


def doubled(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Numbers in double precision; ids and masks as they are."""
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}


class _WideSounds(AudioProcessor):
    def collate(self, sounds: Sequence[np.ndarray]) -> Sounds:
        made = super().collate(sounds)
        return Sounds(made.values.double(), made.lengths)


def widened(processor: Processor) -> Processor:
    """A processor of the same settings for a module in double precision. Pictures are bytes, and become numbers inside of it."""
    audio = processor.audio
    wide = None if audio is None else _WideSounds(audio.config, audio.shortest)
    return Processor(processor.image, processor.text, wide, processor.video)


def own_memory(module: nn.Module) -> None:
    """Copy parameters and buffers out of the file that they are mapped from.

    There they lie wherever the file has them, and for addresses that are not aligned torch takes other kernels, which sum in another
    order: a deep network of convolutions is then off by 1e-5 of the largest value with equal weights and operations.
    """
    for tensor in chain(module.parameters(), module.buffers()):
        tensor.data = tensor.data.clone()
