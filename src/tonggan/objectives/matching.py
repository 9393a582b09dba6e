"""Does this text belong to this picture? A two-way cross-entropy, and the choice of wrong pairs to ask about (Li et al. 2021, section 3.2).

Shape letters: N rows, M candidates, D width, K kinds of key.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tonggan.objectives.contrastive import Objective
from tonggan.objectives.positives import positives
from tonggan.objectives.precision import full_precision


@full_precision
def matching(logits: Float[Tensor, "N 2"], labels: Int[Tensor, "N"]) -> Objective:
    """Mean cross-entropy of no (0) and yes (1). Its floor is 0; chance is the best that a constant answer reaches on these labels."""
    share = float(labels.float().mean())
    chance = 0.0 if share in (0.0, 1.0) else -(share * math.log(share) + (1 - share) * math.log(1 - share))
    return Objective(F.cross_entropy(logits, labels), 0.0, chance)


class Negatives(NamedTuple):
    """Wrong pairs: which anchors, and the candidate drawn for each."""

    anchors: Int[Tensor, "n"]
    candidates: Int[Tensor, "n"]


@torch.no_grad()
@full_precision
def draw_negatives(
    similarity: Float[Tensor, "N N"], keys: Int[Tensor, "N K"] | None = None, generator: torch.Generator | None = None
) -> Negatives:
    """One candidate per anchor that is no positive of it, with probability proportional to the softmax of its row of `similarity`.

    With the model's scaled cosines these are hard negatives; with zeros every negative is as likely as any other. Row i's own candidate
    is i, and rows that share a key are positives too; an anchor with positives only has no wrong pair and is left out. The draw is on the
    generator's device (the CPU's global one when None).
    """
    own = torch.arange(1, len(similarity) + 1, device=similarity.device)[:, None]
    mine = own if keys is None else torch.cat([own, keys.to(similarity.device)], dim=1)
    positive = positives(mine, mine)
    anchors = (~positive).any(dim=1).nonzero().squeeze(1)
    if len(anchors) == 0:
        return Negatives(anchors, anchors)
    odds = similarity.masked_fill(positive, -math.inf)[anchors].softmax(dim=1)
    drawn = torch.multinomial(odds.to("cpu" if generator is None else generator.device), 1, generator=generator)
    return Negatives(anchors, drawn.squeeze(1).to(anchors.device))
