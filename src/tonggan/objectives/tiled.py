"""The same losses without the similarity matrix: one tile of rows at a time, with the gradient worked out by hand.

For InfoNCE with L = s·A·Bᵀ, positives P (symmetric), c_i positives in row i, and loss = ½[mean_i(lse_j L_ij - Σ_j P_ij L_ij / c_i)
+ the same over columns]:

    ∂loss/∂L_ij = (softmax over row i + softmax over column j - P_ij/c_i - P_ij/c_j) / 2N

(label smoothing mixes the constant 2/N into what is subtracted.)

Only both vectors of log-sum-exps are kept from the forward pass; backward computes each tile of L again. That is four matrix
products where the plain form needs six, and memory grows with N, not N². ∂loss/∂s = ⟨A, ∂loss/∂A⟩ / s comes for free.

Shape letters: N rows, D width, K kinds of key, t rows of a tile.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tonggan.objectives.positives import positives


class TiledInfoNCE(torch.autograd.Function):
    """(a [N, D], b [N, D], scale [1], keys [N, K], smoothing, tile) -> (loss, number of positives of each row [N])."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, scale: Tensor, keys: Tensor, smoothing: float, tile: int) -> tuple[Tensor, Tensor]:
        n = len(a)
        rows = torch.empty(n, dtype=a.dtype, device=a.device)
        columns = torch.full((n,), -torch.inf, dtype=a.dtype, device=a.device)
        counts = torch.empty(n, dtype=torch.long, device=a.device)
        by_row, by_column = a.new_zeros(n), a.new_zeros(n)
        total = a.new_zeros(())
        for start in range(0, n, tile):
            part = slice(start, start + tile)
            logits = scale * a[part] @ b.T
            rows[part] = logits.logsumexp(dim=1)
            # Each tile's column sums are taken around that column's own maximum: a fixed shift underflows where s = 100.
            columns = torch.logaddexp(columns, logits.logsumexp(dim=0))
            positive = positives(keys[part], keys)
            counts[part] = positive.sum(dim=1)
            logits_of_positives = logits * positive
            by_row[part] = logits_of_positives.sum(dim=1)
            by_column += logits_of_positives.sum(dim=0)
            if smoothing:
                total = total + logits.sum()
        aimed = (1 - smoothing) * ((by_row + by_column) / counts).sum() / 2 + smoothing / n * total
        ctx.save_for_backward(a, b, scale, keys, rows, columns, counts)
        ctx.smoothing, ctx.tile = smoothing, tile
        ctx.mark_non_differentiable(counts)
        return ((rows + columns).sum() / 2 - aimed) / n, counts

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        a, b, scale, keys, rows, columns, counts = ctx.saved_tensors
        n, smoothing = len(a), ctx.smoothing
        da, db = torch.empty_like(a), torch.zeros_like(b)
        factor = gradient / (2 * n)
        for start in range(0, n, ctx.tile):
            part = slice(start, start + ctx.tile)
            logits = scale * a[part] @ b.T
            weights = (logits - rows[part, None]).exp_()
            weights += logits.sub_(columns).exp_()
            positive = positives(keys[part], keys)
            weights -= positive * ((1 - smoothing) * (1 / counts[part, None] + 1 / counts))
            if smoothing:
                weights -= 2 * smoothing / n
            da[part] = weights @ b
            db += weights.T @ a[part]
        ds = (a * da).sum() * factor
        return da.mul_(scale * factor), db.mul_(scale * factor), ds.reshape(1), None, None, None


class TiledSigmoid(torch.autograd.Function):
    """(a [N, D], b [N, D], scale [1], bias [1], keys [N, K], tile) -> (loss, number of positive pairs).

    The loss is a sum over pairs, so the gradient is known in the forward pass already: nothing is computed twice.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, scale: Tensor, bias: Tensor, keys: Tensor, tile: int) -> tuple[Tensor, Tensor]:
        n = len(a)
        da, db = torch.empty_like(a), torch.zeros_like(b)
        dbias, loss = a.new_zeros(()), a.new_zeros(())
        count = torch.zeros((), dtype=torch.long, device=a.device)
        for start in range(0, n, tile):
            part = slice(start, start + tile)
            logits = scale * a[part] @ b.T + bias
            positive = positives(keys[part], keys)
            loss = loss - F.logsigmoid(-logits).sum() - (logits * positive).sum()
            weights = logits.sigmoid_().sub_(positive.to(a.dtype))
            da[part] = weights @ b
            db += weights.T @ a[part]
            dbias = dbias + weights.sum()
            count = count + positive.sum()
        ctx.save_for_backward(a, da, db, dbias, scale)
        ctx.mark_non_differentiable(count)
        return loss / n, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        a, da, db, dbias, scale = ctx.saved_tensors
        factor = gradient / len(a)
        ds = (a * da).sum() * factor
        return da * (scale * factor), db * (scale * factor), ds.reshape(1), (dbias * factor).reshape(1), None, None
