"""Our module on the named tensors of the reference's forward: how parity is measured, and how to look inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tonggan.hub.families import family_of_module
from tonggan.hub.read import read


def outputs(model: nn.Module | str | Path, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Run a module (or a directory's) on the tensors that the reference's forward takes: `input_ids` [B, L], `attention_mask`,
    `pixel_values` [B, 3, H, W], already normalised, and so on.

    Gives what the reference calls its outputs, as far as the inputs allow; which, each family says (`hub/convert`). Differentiable
    for a module. Raises `TongganError` for a model without a published format, `UsageError` for inputs that are not known.
    """
    if not isinstance(model, nn.Module):
        with torch.no_grad():
            return outputs(read(model).module, inputs)
    run = family_of_module(model).outputs
    assert run is not None, "every published format has a reference"
    return run(model, inputs)
