"""Fill in states rather than pixels or words: the targets and the loss of data2vec (Baevski et al. 2022, sections 3.3 and 3.4).

Shape letters: B rows, T positions, D width, K layers, N hidden places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tonggan.objectives.contrastive import Objective
from tonggan.objectives.precision import full_precision

Norm: TypeAlias = Literal["instance", "layer", "place", "none"]
"""Without weights: each channel over a row's own positions; each position over its channels; each channel over all positions of all rows,
when what the rows have in common at a position has been taken away; or none. `place` is not in the paper: where all inputs are short and
begin alike, states that tell of the position alone are the easiest to fill in, and both other norms let them pass."""


class Spread(NamedTuple):
    """Variance over hidden places, the mean over channels: where it falls to zero, every place is told the same."""

    targets: float
    predictions: float


def average_top(layers: Sequence[Float[Tensor, "B T D"]], top: int, norm: Norm, lengths: Int[Tensor, " B"] | None = None) -> Tensor:
    """The mean of the last `top` layers, each normalised first so that none outweighs the others: [B, T, D].

    Positions at or after a row's length have no part in `instance` and `place`, and are zero in what these give.
    """
    if not 1 <= top <= len(layers):
        raise ValueError(f"the mean of the top {top} of {len(layers)} layers cannot be taken")
    return torch.stack([normalised(layer, norm, lengths) for layer in layers[-top:]]).mean(dim=0)


@full_precision
def normalised(states: Float[Tensor, "B T D"], norm: Norm, lengths: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B T D"]:
    """States of mean 0 and variance 1 (biased, ε = 1e-5) as the norm says."""
    match norm:
        case "none":
            return states
        case "layer":
            return F.layer_norm(states, states.shape[-1:])
        case "instance":
            return _standardised(states, _own(states, lengths), over=(1,), spread_over=(1,))
        case "place":
            return _standardised(states, _own(states, lengths), over=(0,), spread_over=(0, 1))


def _own(states: Tensor, lengths: Tensor | None) -> Tensor:
    """1 where a position is a row's own, else 0: [B, T, 1]."""
    at = torch.arange(states.shape[1], device=states.device)
    return (at < (lengths[:, None] if lengths is not None else len(at)))[..., None].to(states.dtype).expand(len(states), -1, 1)


def _standardised(states: Tensor, own: Tensor, over: tuple[int, ...], spread_over: tuple[int, ...]) -> Tensor:
    """Without their mean over some dimensions, and with a variance of 1 over as many or more."""
    centred = (states - (states * own).sum(over, keepdim=True) / own.sum(over, keepdim=True).clamp(min=1)) * own
    variance = (centred**2).sum(spread_over, keepdim=True) / own.sum(spread_over, keepdim=True).clamp(min=1)
    return centred * (variance + 1e-5).rsqrt()


@full_precision
def regression(
    predictions: Float[Tensor, "N D"], targets: Float[Tensor, "N D"], *, beta: float, scale: float | None = None
) -> tuple[Objective, Spread]:
    """Smooth L1 (equation 4 of section 3.4): ½(ŷ-y)²/β where |ŷ-y| ≤ β, |ŷ-y| - ½β beyond; with β = 0 the squared error, as for speech.

    Summed over channels, multiplied by `scale` (None: 1/√D, as their code does for speech and text), and averaged over hidden places.
    The floor is 0; chance is what telling every place the mean target costs: the best that can be done without looking. A teacher that
    tells every place the same has a chance of 0, so the spread of targets is given too.
    """
    factor = predictions.shape[1] ** -0.5 if scale is None else scale
    if not len(targets):
        return Objective(predictions.sum() * 0, 0.0, 0.0), Spread(0.0, 0.0)

    def cost(guess: Tensor) -> Tensor:
        each = (guess - targets) ** 2 if beta == 0 else F.smooth_l1_loss(guess, targets, reduction="none", beta=beta)
        return each.sum(dim=1).mean() * factor

    with torch.no_grad():
        chance = float(cost(targets.mean(dim=0, keepdim=True).expand_as(targets)))
        spread = Spread(*(float(x.var(dim=0, correction=0).mean()) for x in (targets, predictions)))
    return Objective(cost(predictions), 0.0, chance), spread
