"""The same losses without the similarity matrix: one tile of rows at a time, with the gradient worked out by hand.

A loss that couples columns too has to see the matrix twice. For symmetric InfoNCE with L = s·A·Bᵀ, positives P (symmetric), c_i
positives in row i, and loss = ½[mean_i(lse_j L_ij - Σ_j P_ij L_ij / c_i) + the same over columns]:

    ∂loss/∂L_ij = (softmax over row i + softmax over column j - P_ij/c_i - P_ij/c_j) / 2N

(label smoothing mixes the constant 2/N into what is subtracted.)

Only both vectors of log-sum-exps are kept from the forward pass; backward computes each tile of L again. That is four matrix
products where the plain form needs six, and memory grows with N, not N². ∂loss/∂s = ⟨A, ∂loss/∂A⟩ / s comes for free.

All the others are sums over rows (`TiledByRows`) and differ only in what one tile of logits costs, with its gradient: a rule.

With several processes (`objectives.gather`) each has its own rows of A and all of B: a strip of L. Its row sums are complete; the
column sums, one number per column, are joined over processes, and so are the gradients of B, each sent to its owner only.

Shape letters: n rows of this process, N rows of all (N = n on one), D width, K kinds of key, t rows of a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from tonggan.objectives.gather import Ranks
from tonggan.objectives.positives import positive_pairs
from tonggan.objectives.precision import full_precision


class TiledInfoNCE(torch.autograd.Function):
    """(a [n, D], b [n, D], scale [1], keys [n, K] or None, smoothing, tile, ranks) -> (loss of all rows, positives of each own row [n])."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, scale: Tensor, keys: Tensor | None, smoothing: float, tile: int, ranks: Ranks
    ) -> tuple[Tensor, Tensor]:
        n, candidates = len(a), ranks.total
        others, their_keys = ranks.gather(b), None if keys is None else ranks.gather(keys)
        rows, columns = a.new_empty(n), a.new_full((candidates,), -torch.inf)
        counts = torch.empty(n, dtype=torch.long, device=a.device)
        by_row, by_column = a.new_zeros(n), a.new_zeros(candidates)  # sums of the positives' logits
        total = a.new_zeros(())
        for start in range(0, n, tile):
            part = slice(start, min(start + tile, n))
            logits = scale * a[part] @ others.T
            rows[part] = logits.logsumexp(dim=1)
            # Each tile's column sums are taken around that column's own maximum: a fixed shift underflows where s = 100.
            columns = torch.logaddexp(columns, logits.logsumexp(dim=0))
            i, j = positive_pairs(keys, their_keys, part, ranks.start, a.device)
            counts[part] = i.bincount(minlength=len(logits))
            by_row[part] = a.new_zeros(len(logits)).index_add_(0, i, logits[i, j])
            by_column.index_add_(0, j, logits[i, j])
            if smoothing:
                total = total + logits.sum()
        columns, their_counts = ranks.logsumexp(columns), ranks.gather(counts)
        aimed = (1 - smoothing) * ((by_row / counts).sum() + (by_column / their_counts).sum()) / 2 + smoothing / candidates * total
        ctx.save_for_backward(a, others, scale, keys, their_keys, rows, columns, counts, their_counts)
        ctx.smoothing, ctx.tile, ctx.ranks = smoothing, tile, ranks
        ctx.mark_non_differentiable(counts)
        return ranks.sum((rows + columns[ranks.own]).sum() / 2 - aimed) / candidates, counts

    @staticmethod
    @full_precision
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        a, others, scale, keys, their_keys, rows, columns, counts, their_counts = ctx.saved_tensors
        n, smoothing, ranks = len(a), ctx.smoothing, ctx.ranks
        da, db = torch.empty_like(a), torch.zeros_like(others)
        for start in range(0, n, ctx.tile):
            part = slice(start, min(start + ctx.tile, n))
            logits = scale * a[part] @ others.T
            weights = (logits - rows[part, None]).exp_()
            weights += logits.sub_(columns).exp_()
            i, j = positive_pairs(keys, their_keys, part, ranks.start, a.device)
            weights[i, j] -= (1 - smoothing) * (1 / counts[part][i] + 1 / their_counts[j]).to(a.dtype)
            if smoothing:
                weights -= 2 * smoothing / ranks.total
            da[part] = weights @ others
            db.addmm_(weights.T, a[part])
        factor = gradient * ranks.world / (2 * ranks.total)
        ds = (a * da).sum() * factor
        return da.mul_(scale * factor), ranks.sum_of_own(db).mul_(scale * factor), ds.reshape(1), None, None, None, None


Rule: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(logits [t, N], positive pairs i, j) -> (sum of the rows' losses, its gradient by the logits [t, N]); may write into the logits."""


class TiledByRows(torch.autograd.Function):
    """Any loss that is a sum over rows, each of which needs its own logits only: SigLIP, one-way InfoNCE, NT-Xent.

    (a [n, D], b [n, D], scale [1], bias [1] or None, keys [n, K] or None, itself, rule, tile, ranks) -> (mean loss of all rows,
    positives of each own row [n]). `itself`: a and b are the same rows, of which none is its own candidate.

    A tile's rows are complete, so the gradient is known in the forward pass already: nothing is computed twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        keys: Tensor | None,
        itself: bool,
        rule: Rule,
        tile: int,
        ranks: Ranks,
    ) -> tuple[Tensor, Tensor]:
        n = len(a)
        others, their_keys = ranks.gather(b), None if keys is None else ranks.gather(keys)
        da, db = torch.empty_like(a), torch.zeros_like(others)
        dbias, loss = a.new_zeros(()), a.new_zeros(())
        counts = torch.empty(n, dtype=torch.long, device=a.device)
        for start in range(0, n, tile):
            part = slice(start, min(start + tile, n))
            logits = scale * a[part] @ others.T
            if bias is not None:
                logits += bias
            if itself:
                logits.diagonal(ranks.start + start).fill_(-torch.inf)
            i, j = positive_pairs(keys, their_keys, part, ranks.start, a.device, itself=itself)
            counts[part] = i.bincount(minlength=len(logits))
            value, weights = rule(logits, i, j)
            loss = loss + value
            da[part] = weights @ others
            db.addmm_(weights.T, a[part])
            if bias is not None:
                dbias = dbias + weights.sum()
        ctx.save_for_backward(a, da, ranks.sum_of_own(db), dbias, scale)
        ctx.ranks, ctx.biased = ranks, bias is not None
        ctx.mark_non_differentiable(counts)
        return ranks.sum(loss) / ranks.total, counts

    @staticmethod
    @full_precision
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        a, da, db, dbias, scale = ctx.saved_tensors
        factor = gradient * ctx.ranks.world / ctx.ranks.total
        ds = (a * da).sum() * factor
        by_bias = (dbias * factor).reshape(1) if ctx.biased else None
        return da * (scale * factor), db * (scale * factor), ds.reshape(1), by_bias, None, None, None, None, None


def sigmoid_rule(logits: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
    """SigLIP: every pair is a question of its own."""
    loss = -F.logsigmoid(-logits).sum() - logits[i, j].sum()
    weights = logits.sigmoid_()
    weights[i, j] -= 1
    return loss, weights


def one_way_rule(positive_below: bool, logits: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE from rows to columns: each positive against the row's negatives, averaged over its positives.

    With E_i = ln Σ exp L_ij over the negatives of row i, a positive p costs softplus(E_i - L_ip) / c_i where it stands in its own
    denominator (`positive_below`), else (E_i - L_ip) / c_i. So p is pulled by sigmoid(E_i - L_ip) / c_i, else by 1 / c_i, and the
    negatives are pushed by as much in all, each by its share of their softmax.
    """
    at = logits[i, j]
    logits[i, j] = -torch.inf
    negatives = logits.logsumexp(dim=1)
    behind = negatives[i] - at
    share = 1 / i.bincount(minlength=len(logits)).to(at.dtype)[i]
    pull = share * behind.sigmoid() if positive_below else share
    weights = logits.sub_(negatives[:, None]).exp_().mul_(at.new_zeros(len(logits)).index_add_(0, i, pull)[:, None])
    weights[i, j] = -pull
    return ((-F.logsigmoid(-behind) if positive_below else behind) * share).sum(), weights
