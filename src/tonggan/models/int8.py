"""Weights of one byte: a smaller, quicker copy of a model for the CPU, nearly equal and never trained.

Linear layers: weights symmetric per output channel; what enters is quantised per row as it comes, so that the product is one of integers
(dynamic quantisation; Jacob et al. 2018, section 2, with zero points of 0). Embeddings: symmetric per row, dequantised as they are looked
up. Everything else (norms, convolutions, positions) stays as it was.

Shape letters: N rows, I and O widths in and out, V words, D width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor, nn

from tonggan.types import TongganError

LEVELS = 127
"""Of either sign: -128 is not used, so that a weight and its negative are equally far from 0."""


class Int8Linear(nn.Module):
    """A linear layer's integer form; `weight` [O, I] gives the weights that it stands for."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        values, scale = quantized(linear.weight.detach())
        self.values: Int8[Tensor, "O I"]
        self.scale: Float[Tensor, "O"]
        self.register_buffer("values", values)
        self.register_buffer("scale", scale)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone())

    @property
    def weight(self) -> Float[Tensor, "O I"]:
        return self.values * self.scale[:, None]

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        if self.training:
            raise TongganError("an int8 copy computes but does not learn; train the model that it was made from")
        rows, scale = quantized(x.reshape(-1, self.in_features))
        found = integer_product(rows, self.values) * scale[:, None] * self.scale
        return (found if self.bias is None else found + self.bias).view(*x.shape[:-1], self.out_features)


class Int8Embedding(nn.Module):
    """A table's integer form; `weight` [V, D] gives the table that it stands for."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        values, scale = quantized(embedding.weight.detach())
        self.values: Int8[Tensor, "V D"]
        self.scale: Float[Tensor, "V"]
        self.register_buffer("values", values)
        self.register_buffer("scale", scale)

    @property
    def weight(self) -> Float[Tensor, "V D"]:
        return self.values * self.scale[:, None]

    def forward(self, ids: Int[Tensor, "*N"]) -> Float[Tensor, "*N D"]:
        return self.values[ids] * self.scale[ids][..., None]


def quantized(x: Float[Tensor, "N I"]) -> tuple[Int8[Tensor, "N I"], Float[Tensor, "N"]]:
    """Each row as whole numbers and the factor that brings them back; the row's largest value is exactly 127 factors."""
    scale = x.abs().amax(dim=1).float().clamp(min=torch.finfo(torch.float32).tiny) / LEVELS
    return (x / scale[:, None]).round().to(torch.int8), scale


def integer_product(a: Int8[Tensor, "N I"], b: Int8[Tensor, "O I"]) -> Float[Tensor, "N O"]:
    """a bᵀ. Integer arithmetic exists for every size on the CPU only; elsewhere the same whole numbers are multiplied as floats."""
    return torch._int_mm(a, b.T).float() if a.device.type == "cpu" else a.float() @ b.float().T


def to_int8(module: nn.Module) -> nn.Module:
    """Replace every linear layer and embedding inside `module` by its integer form, in place; gives the module, in evaluation mode."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            # Subclasses compute something else with their weights, so the exact class is meant.
            if type(child) is nn.Linear:
                setattr(parent, name, Int8Linear(child))
            elif type(child) is nn.Embedding:
                setattr(parent, name, Int8Embedding(child))
    return module.eval()
