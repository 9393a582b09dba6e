"""Activations by name, as configurations spell them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn


class QuickGELU(nn.Module):
    """x·sigmoid(1.702 x), the approximation that OpenAI's CLIP was trained with. Not interchangeable with GELU: the
    difference of up to 0.02 per unit grows through twelve layers into other embeddings."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


Activation: TypeAlias = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]


def activation(name: Activation) -> nn.Module:
    """The module of that name."""
    match name:
        case "gelu":
            return nn.GELU()
        case "gelu_tanh":
            return nn.GELU(approximate="tanh")
        case "quick_gelu":
            return QuickGELU()
        case "relu":
            return nn.ReLU()
        case "silu":
            return nn.SiLU()
