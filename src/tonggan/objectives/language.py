"""Which word stands here: cross-entropy over a vocabulary.

Shape letters: N places, V words of the vocabulary, D width, C supervised places of a chunk.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tonggan.objectives.contrastive import Objective
from tonggan.objectives.precision import full_precision
from tonggan.tensors import IGNORE


@full_precision
def masked_cross_entropy(logits: Float[Tensor, "N V"], targets: Int[Tensor, "N"]) -> Objective:
    """Mean cross-entropy in nats over the masked places only (Devlin et al. 2019, section 3.1).

    Only their logits are given: at 15 % masked, the largest matrix of the model is a seventh of its size. The floor is 0, since every
    place has one right word (how well it can be known is not in the batch); chance is log V, all words alike. Without any place the
    loss is 0 and has a gradient of 0.
    """
    loss = F.cross_entropy(logits, targets, reduction="sum") / max(len(targets), 1)
    return Objective(loss, 0.0, math.log(logits.shape[1]))


class Spoken(NamedTuple):
    """An `Objective`, and what came by the way."""

    loss: Tensor
    floor: float
    chance: float
    right: Tensor
    """How many words were the likeliest of all."""
    places: int
    """How many were asked for."""


@full_precision
def language_cross_entropy(
    states: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, "N"],
    bias: Float[Tensor, " V"] | None = None,
    *,
    chunk: int = 128,
) -> Spoken:
    """Mean cross-entropy in nats of the words that follow, over the places whose target is not `IGNORE`.

    The same as `F.cross_entropy(states @ weight.T + bias, targets, ignore_index=IGNORE)`, but ignored places cost nothing, and the
    logits of `chunk` places at a time are turned into their gradient at once: [N, V] never exists, and there are three matrix products in
    all (Hsu et al. 2024, Liger Kernel, section 3.2). Floor and chance as in `masked_cross_entropy`. Without any place the loss is 0
    and has a gradient of 0. It has no second derivative.
    """
    asked = targets != IGNORE
    states, targets = states[asked], targets[asked]
    loss, right = _Chunked.apply(states, weight, bias, targets, chunk, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return Spoken(loss, 0.0, math.log(len(weight)), right, len(targets))


class _Chunked(torch.autograd.Function):
    """(states [N, D], weight [V, D], bias [V] or None, targets [N], chunk, whether gradients are wanted) -> (mean loss, right words)."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk: int, grad: bool
    ) -> tuple[Tensor, Tensor]:
        of_states, of_weight, of_bias = (grad and needed for needed in ctx.needs_input_grad[:3])
        grads = [
            torch.empty_like(states) if of_states else None,
            torch.zeros_like(weight) if of_weight else None,
            torch.zeros_like(bias) if of_bias and bias is not None else None,
        ]
        total, right = states.new_zeros(()), targets.new_zeros(())
        for start in range(0, len(states), chunk):
            part = slice(start, start + chunk)
            words = targets[part, None]
            logits = F.linear(states[part], weight, bias)
            most, likeliest = logits.max(dim=1, keepdim=True)
            right += (likeliest == words).sum()
            logits -= most
            said = logits.gather(1, words)
            sums = logits.exp_().sum(dim=1, keepdim=True)
            total += (sums.log() - said).sum()
            if not (of_states or of_weight or of_bias):
                continue
            # From here on it is the gradient: softmax less the word itself, per place of the mean.
            logits /= sums * len(states)
            logits.scatter_add_(1, words, logits.new_full(words.shape, -1 / len(states)))
            if grads[0] is not None:
                torch.mm(logits, weight, out=grads[0][part])
            if grads[1] is not None:
                grads[1].addmm_(logits.T, states[part])
            if grads[2] is not None:
                grads[2] += logits.sum(dim=0)
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(right)
        return total / max(len(states), 1), right

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        return *(grad if grad is None else grad * upstream for grad in ctx.saved_tensors), None, None, None
