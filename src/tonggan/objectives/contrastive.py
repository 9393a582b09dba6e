"""Contrastive objectives in their plain form: the formulas as the papers have them, on whole similarity matrices.

All take unit vectors and compare by the dot product. Each returns, beside the loss, its `floor` on this very batch (several
positives or smoothed labels have entropy, below which no model can go) and `chance`, what embeddings that tell nothing
apart would give. A loss without these two numbers cannot be read.

`tile=` computes the same values and gradients without the matrix: see `objectives.tiled`. `group=` takes the rows of several
processes for one batch: see `objectives.gather`. All are computed in single precision at least, also under autocast.

Shape letters: N M rows, D width, K kinds of key.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tonggan.objectives.gather import Ranks
from tonggan.objectives.positives import positive_pairs, positives, target_entropy, targets
from tonggan.objectives.precision import full_precision
from tonggan.objectives.tiled import TiledByRows, TiledInfoNCE, one_way_rule, sigmoid_rule
from tonggan.types import TongganError


class Objective(NamedTuple):
    """A scalar to minimise, the lowest value it can take on this batch, and its value for embeddings that tell nothing."""

    loss: Tensor
    floor: float
    chance: float


def scale(log_scale: Float[Tensor, "1"], max_scale: float = 100.0) -> Float[Tensor, "1"]:
    """exp(log_scale), at most `max_scale` (Radford et al. 2021, section 2.5).

    Beyond the ceiling the gradient is that of the clamp: zero, so that the scale would come down only through weight decay or an
    optimiser's momentum. CLIP clamps the parameter itself after each update; `ContrastiveStep.after_update` does so too, a hair
    below the ceiling, where the gradient is whole.
    """
    return log_scale.exp().clamp(max=max_scale)


@full_precision
def info_nce(
    a: Float[Tensor, "N D"],
    b: Float[Tensor, "N D"],
    log_scale: Float[Tensor, "1"],
    *,
    keys: Int[Tensor, "N K"] | None = None,
    label_smoothing: float = 0.0,
    max_scale: float = 100.0,
    tile: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Objective:
    """CLIP's symmetric InfoNCE (Radford et al. 2021, figure 3): the mean of both directions' cross-entropy over s·a·bᵀ.

    Row i of `a` belongs to row i of `b`; rows that share a key are positives too, and the target is uniform over a row's
    positives (as ALBEF has it for retrieval, Li et al. 2021, section 3.2).
    """
    ranks = Ranks.of(a, group)
    n, keys = ranks.total, _on(keys, a.device)
    if tile is not None or group is not None:
        s, rows = scale(log_scale, max_scale), tile or len(a)
        loss, counts = TiledInfoNCE.apply(a, b, s, keys, label_smoothing, rows, ranks)  # type: ignore[no-untyped-call]
    else:
        mine = _keys(keys, n, a.device)
        positive = positives(mine, mine)
        aims = targets(positive, label_smoothing, a.dtype)
        logits = scale(log_scale, max_scale) * a @ b.T
        # Keys are the same on both sides, so the positives are symmetric and one matrix of targets serves both directions.
        loss = (F.cross_entropy(logits, aims) + F.cross_entropy(logits.T, aims)) / 2
        counts = positive.sum(dim=1)
    floor = float(ranks.sum(target_entropy(counts.to(a.dtype), n, label_smoothing).sum())) / n
    return Objective(loss, floor, math.log(n))


@full_precision
def sigmoid(
    a: Float[Tensor, "N D"],
    b: Float[Tensor, "N D"],
    log_scale: Float[Tensor, "1"],
    bias: Float[Tensor, "1"],
    *,
    keys: Int[Tensor, "N K"] | None = None,
    max_scale: float = 100.0,
    tile: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Objective:
    """SigLIP's pairwise sigmoid (Zhai et al. 2023, equation 1): every pair is its own yes-or-no question; summed, over N.

    Rows that share a key are labelled +1. Its floor is 0; chance is the best that a constant answer reaches.
    """
    ranks = Ranks.of(a, group)
    n, keys = ranks.total, _on(keys, a.device)
    if tile is not None or group is not None:
        s, rows = scale(log_scale, max_scale), tile or len(a)
        loss, counts = TiledByRows.apply(a, b, s, bias, keys, False, sigmoid_rule, rows, ranks)  # type: ignore[no-untyped-call]
    else:
        mine = _keys(keys, n, a.device)
        positive = positives(mine, mine)
        sign = positive.to(a.dtype) * 2 - 1
        loss = -F.logsigmoid(sign * (scale(log_scale, max_scale) * a @ b.T + bias)).sum() / n
        counts = positive.sum(dim=1)
    share = float(ranks.sum(counts.sum())) / (n * n)
    chance = 0.0 if share in (0.0, 1.0) else -n * (share * math.log(share) + (1 - share) * math.log(1 - share))
    return Objective(loss, 0.0, chance)


@full_precision
def one_way(
    anchors: Float[Tensor, "N D"],
    candidates: Float[Tensor, "N D"],
    log_scale: Float[Tensor, "1"],
    *,
    denominator: Literal["all", "negatives"] = "all",
    keys: Int[Tensor, "N K"] | None = None,
    max_scale: float = 100.0,
    tile: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Objective:
    """InfoNCE in one direction, averaged over each anchor's positives.

    `"all"` sums the denominator over the positive and all negatives (van den Oord et al. 2018, equation 4; the article's
    4.3). `"negatives"` leaves the positive out (the article's 4.2): that is the decoupled loss of Yeh et al. (2022), which
    goes below 0: for unit vectors down to ln(negatives) - 2 scale, its floor.
    """
    ranks = Ranks.of(anchors, group)
    n, keys, s = ranks.total, _on(keys, anchors.device), scale(log_scale, max_scale)
    if tile is not None or group is not None:
        rule, rows = partial(one_way_rule, denominator == "all"), tile or len(anchors)
        loss, counts = TiledByRows.apply(anchors, candidates, s, None, keys, False, rule, rows, ranks)  # type: ignore[no-untyped-call]
    else:
        mine = _keys(keys, n, anchors.device)
        loss, counts = _against_negatives(s * anchors @ candidates.T, positives(mine, mine), denominator)
    chance = _chance(n - counts, denominator, ranks)
    return Objective(loss, chance - 2 * float(s.detach()) if denominator == "negatives" else 0.0, chance)


@full_precision
def nt_xent(
    z1: Float[Tensor, "N D"],
    z2: Float[Tensor, "N D"],
    temperature: float | Float[Tensor, "1"] = 0.5,
    *,
    keys: Int[Tensor, "N K"] | None = None,
    tile: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Objective:
    """NT-Xent (Chen et al. 2020, SimCLR, equation 1): two views of N items, each view's candidates are the 2N - 1 others.

    Items that share a key are positives too: the loss is averaged over a view's positives, each against its negatives alone, as
    `one_way` has it. The two views may be two modalities: then a picture is told from other pictures as well as from their words.
    `temperature` is 1 over the scale of the other objectives.
    """
    items, device = Ranks.of(z1, group), z1.device
    ranks = Ranks(group, tuple(2 * count for count in items.counts), items.rank)
    z = torch.cat([z1, z2])
    s = 1 / (temperature if isinstance(temperature, Tensor) else z.new_tensor([temperature]))
    # The number of the item joins its two views; with keys the other views of what means the same.
    of_item = torch.arange(len(z1), device=device)[:, None] + (items.start + 1)
    views = (of_item if keys is None else torch.cat([of_item, keys.to(device)], dim=1)).repeat(2, 1)
    if tile is not None or group is not None:
        rule, rows = partial(one_way_rule, True), tile or len(z)
        loss, counts = TiledByRows.apply(z, z, s, None, views, True, rule, rows, ranks)  # type: ignore[no-untyped-call]
    else:
        oneself = torch.eye(len(z), dtype=torch.bool, device=device)
        logits = (s * z @ z.T).masked_fill(oneself, -math.inf)
        loss, counts = _against_negatives(logits, positives(views, views) & ~oneself, "all")
    return Objective(loss, 0.0, _chance(ranks.total - 1 - counts, "all", ranks))


@full_precision
def alignment(a: Float[Tensor, "N D"], b: Float[Tensor, "N D"], alpha: float = 2.0) -> Objective:
    """Mean distance of positive pairs to the power `alpha` (Wang and Isola 2020, section 4.1): the optional alignment term.

    Alone it collapses; it goes with a contrastive loss. Chance is for independent directions, where the squared distance is 2.
    """
    return Objective((a - b).norm(dim=1).pow(alpha).mean(), 0.0, 2.0 ** (alpha / 2))


@torch.no_grad()
@full_precision
def top1(
    a: Float[Tensor, "N D"], b: Float[Tensor, "N D"], *, keys: Int[Tensor, "N K"] | None = None, tile: int = 1024
) -> tuple[float, float]:
    """Share of rows of `a` whose nearest row of `b` is a positive, and of `b` whose nearest row of `a` is one.

    A tie with a negative is a miss: collapsed embeddings score 0, not 1.
    """
    n, keys = len(a), _on(keys, a.device)
    hits = torch.empty(n, dtype=torch.bool, device=a.device)
    positive_of_column, negative_of_column = a.new_full((2, n), -math.inf)
    for start in range(0, n, tile):
        part = slice(start, min(start + tile, n))
        cosines = a[part] @ b.T
        i, j = positive_pairs(keys, keys, part, 0, a.device)
        positive = a.new_full((len(cosines),), -math.inf).scatter_reduce(0, i, cosines[i, j], "amax")
        positive_of_column = positive_of_column.scatter_reduce(0, j, cosines[i, j], "amax")
        cosines[i, j] = -math.inf
        hits[part] = positive > cosines.amax(dim=1)
        negative_of_column = negative_of_column.maximum(cosines.amax(dim=0))
    return float(hits.float().mean()), float((positive_of_column > negative_of_column).float().mean())


def _against_negatives(
    logits: Float[Tensor, "N M"], positive: Bool[Tensor, "N M"], denominator: Literal["all", "negatives"]
) -> tuple[Float[Tensor, ""], Int[Tensor, "N"]]:
    """Mean over anchors and their positives of ln(denominator) - logit, and each anchor's number of positives."""
    negatives = logits.masked_fill(positive, -math.inf).logsumexp(dim=1, keepdim=True)
    bottom = negatives if denominator == "negatives" else torch.logaddexp(logits, negatives)
    counts = positive.sum(dim=1)
    return ((bottom - logits).masked_fill(~positive, 0.0).sum(dim=1) / counts).mean(), counts


def _chance(negatives: Int[Tensor, "n"], denominator: Literal["all", "negatives"], ranks: Ranks) -> float:
    """The mean over all anchors where every logit is equal. If any has no negative, every process raises `TongganError`, none waits."""
    everyone = ranks.gather(negatives)
    if bool((everyone == 0).any()):
        raise TongganError(
            "a row has no negative in this batch: every other row has its group, its picture or its caption, and this objective tells "
            "rows from their negatives only. Set step.objective to infonce or sigmoid, which do without, or make the batch larger "
            "(loader.batch_size); step.multi_positives=false takes such rows for negatives"
        )
    candidates = everyone if denominator == "negatives" else everyone + 1
    return float(candidates.cpu().double().log().mean())


def _on(keys: Tensor | None, device: torch.device) -> Tensor | None:
    return None if keys is None else keys.to(device)


def _keys(keys: Tensor | None, n: int, device: torch.device) -> Int[Tensor, "N K"]:
    """Keys with a column of row numbers in front, so that a row is always its own positive."""
    own = torch.arange(1, n + 1, device=device)[:, None]
    return own if keys is None else torch.cat([own, keys.to(device)], dim=1)
