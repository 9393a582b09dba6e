"""Which word stands here: cross-entropy over a vocabulary.

Shape letters: N supervised places, V words of the vocabulary.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tonggan.objectives.contrastive import Objective
from tonggan.objectives.precision import full_precision


@full_precision
def masked_cross_entropy(logits: Float[Tensor, "N V"], targets: Int[Tensor, "N"]) -> Objective:
    """Mean cross-entropy in nats over the masked places only (Devlin et al. 2019, section 3.1).

    Only their logits are given: at 15 % masked, the largest matrix of the model is a seventh of its size. The floor is 0, since every
    place has one right word (how well it can be known is not in the batch); chance is log V, all words alike. Without any place the
    loss is 0 and has a gradient of 0.
    """
    loss = F.cross_entropy(logits, targets, reduction="sum") / max(len(targets), 1)
    return Objective(loss, 0.0, math.log(logits.shape[1]))
