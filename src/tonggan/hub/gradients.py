"""Gradients of our module under the names that the reference gives its parameters: the other half of parity."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from tonggan.hub.families import family_of_module
from tonggan.hub.outputs import outputs
from tonggan.types import TongganError


def gradients(model: nn.Module, inputs: Mapping[str, Tensor], loss: Callable[[dict[str, Tensor]], Tensor]) -> dict[str, Tensor]:
    """What `loss`, a scalar of the named outputs (see `hub.outputs`), asks each parameter to do, by the reference's names and shapes.

    Parameters that the loss does not reach are left out, as those are whose gradient is None in the reference. The module's own
    `.grad` fields are not touched. Raises `TongganError` for a model without a published format, or a loss that reaches nothing.
    """
    family = family_of_module(model)
    value = loss(outputs(model, inputs))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not value.requires_grad or value.dim() > 0:
        raise TongganError(f"the loss must be a scalar that depends on parameters; it is {list(value.shape)} and depends on none")
    found = torch.autograd.grad(value, list(trained.values()), allow_unused=True)
    if family.table is None:
        return {name: gradient for name, gradient in zip(trained, found, strict=True) if gradient is not None}
    table = family.table(getattr(model, "config"))  # noqa: B009
    reached = {table.theirs(name) for name, gradient in zip(trained, found, strict=True) if gradient is not None}
    # A format may have several of our tensors in one (q, k and v); a part of it that is not reached, or frozen, counts as zero.
    zeros = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    whole = zeros | {name: gradient for name, gradient in zip(trained, found, strict=True) if gradient is not None}
    return {name: gradient for name, gradient in table.export(whole).items() if name in reached}
