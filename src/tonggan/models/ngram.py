"""Texts as sums of what their single tokens and pairs of neighbours mean; and two text towers that share one vocabulary.

For a language of which only a few thousand captions are at hand, a table of n-grams learns what a Transformer cannot: 红狐狸 is near 红色
and 狐狸 because it is made of them (Wieting et al. 2016, CHARAGRAM; Bojanowski et al. 2017).

Shape letters: B rows, L tokens, G n-grams of a row, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.towers import Bert, BertTextConfig
from tonggan.tensors import Hidden, Tokens

log = logging.getLogger("tonggan")


class NgramText(nn.Module):
    """A table with a row per token and per (hashed) pair of neighbours; a text is the sum of its rows, rare ones counting more.

    The first and the last token (the special ones) do not count. The sum gives a direction; the text is the point of the unit
    sphere that lies in it, seen from `origin`. With the centre of a teacher's sentence vectors as origin, a centred head sees
    that direction exactly.
    """

    weight_of: Tensor
    origin: Tensor
    decayed = ("table",)

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.width = width
        # Near zero, not zero: the direction of a zero vector has no gradient that an optimiser could use.
        self.table = nn.Parameter(torch.randn(rows, width) * 1e-4)
        self.register_buffer("weight_of", torch.ones(rows))
        self.register_buffer("origin", torch.zeros(width))

    def grams(self, tokens: Tokens) -> tuple[Int[Tensor, "B G"], Bool[Tensor, "B G"]]:
        """Table rows of every n-gram, and which of them are real (not padding, not special)."""
        rows = len(self.table)
        ids, last = tokens.ids[:, 1:], tokens.lengths[:, None] - 2
        at = torch.arange(ids.shape[1], device=ids.device)
        single = (ids * 2654435761 + 97) % rows
        pair = (ids[:, :-1] * 2654435761 + ids[:, 1:] * 40503 + 131071) % rows
        return torch.cat([single, pair], dim=1), torch.cat([at < last, at[:-1] < last - 1], dim=1)

    @torch.no_grad()
    def fit_rarity(self, tokens: Tokens) -> None:
        """Inverse document frequency of each n-gram in a set of texts: ln((1 + N)/(1 + df)) + 1."""
        found, real = self.grams(tokens)
        at = torch.arange(len(found), device=found.device)[:, None]
        once = torch.unique((at * len(self.table) + found)[real])  # an n-gram twice in a text is in one text
        seen = torch.bincount(once % len(self.table), minlength=len(self.table))
        self.weight_of.copy_(((1 + len(found)) / (1 + seen)).log() + 1)

    def forward(self, tokens: Tokens) -> Float[Tensor, "B D"]:
        found, real = self.grams(tokens)
        weights = self.weight_of[found] * real
        weights = weights / weights.norm(dim=1, keepdim=True).clamp(min=1e-6)
        way = F.normalize(F.embedding_bag(found, self.table, per_sample_weights=weights, mode="sum"), dim=1)
        along = way @ self.origin
        reach = (along.square() + 1 - self.origin.square().sum()).clamp(min=0).sqrt() - along
        return self.origin + reach[:, None] * way

    @torch.no_grad()
    def solve(self, tokens: Tokens, aims: Float[Tensor, "N D"], ridge: float, weights: Float[Tensor, "N"], tolerance: float = 1e-4) -> None:
        """Set the table by ridge regression from n-grams to the directions `aims`; pairs count by their `weights`.

        Solves (XᵀWX + ridge) table = XᵀW aims, X being sparse, by conjugate gradients down to `tolerance` of the right side's
        length. Unlike an adaptive optimiser, which moves a row seen once as far as one seen a hundred times, this shares what is
        explained among n-grams.
        """
        found, real = self.grams(tokens)
        values = self.weight_of[found] * real
        values = values / values.norm(dim=1, keepdim=True).clamp(min=1e-6)
        used, column = torch.unique(found[real], return_inverse=True)
        row = torch.arange(len(found), device=found.device)[:, None].expand_as(found)[real]
        x = torch.sparse_coo_tensor(torch.stack([row, column]), values[real], (len(found), len(used)), check_invariants=False).coalesce()
        scaled = x.values() * weights[x.indices()[0]]
        weighted = torch.sparse_coo_tensor(x.indices().flip(0), scaled, (len(used), len(found)), check_invariants=False).coalesce()

        def normal(table: Tensor) -> Tensor:
            return torch.sparse.mm(weighted, torch.sparse.mm(x, table)) + ridge * table

        diagonal = torch.zeros(len(used), dtype=aims.dtype, device=aims.device)
        diagonal.index_add_(0, x.indices()[1], x.values().square() * weights[x.indices()[0]]).add_(ridge)
        found_table = conjugate_gradients(normal, torch.sparse.mm(weighted, aims), diagonal[:, None], tolerance)
        self.table.zero_().index_copy_(0, used, found_table)


def conjugate_gradients(
    normal: Callable[[Tensor], Tensor], right: Float[Tensor, "N D"], diagonal: Float[Tensor, "N 1"], tolerance: float, steps: int = 500
) -> Float[Tensor, "N D"]:
    """The solution of `normal(x) = right`, `normal` linear, symmetric and positive; each column is a problem of its own.

    Hestenes and Stiefel 1952, preconditioned by the diagonal; ends when every column's residual is below
    `tolerance` of its right side, or after so many `steps`.
    """
    x, residual = torch.zeros_like(right), right.clone()
    scaled = residual / diagonal
    way = scaled.clone()
    along = (residual * scaled).sum(0)
    enough = right.square().sum(0) * tolerance**2
    for _ in range(steps):
        if bool((residual.square().sum(0) <= enough).all()):
            break
        image = normal(way)
        stride = along / (way * image).sum(0).clamp(min=torch.finfo(right.dtype).tiny)
        x.addcmul_(stride, way)
        residual.addcmul_(stride, image, value=-1)
        scaled = residual / diagonal
        before, along = along, (residual * scaled).sum(0)
        way = scaled.addcmul_(along / before.clamp(min=torch.finfo(right.dtype).tiny), way)
    else:
        log.warning("the regression was stopped after %d steps, before it came within %g of its solution", steps, tolerance)
    return x


class BilingualTextConfig(Config):
    """A BERT for the language it knows, n-grams for texts with Han characters, over one vocabulary."""

    kind: Literal["bilingual"] = "bilingual"
    bert: BertTextConfig = BertTextConfig()
    vocab_size: PositiveInt = 30522
    """The BERT's words and, behind them, the characters that it lacks."""
    ngrams: PositiveInt = 65536

    @property
    def context(self) -> int:
        """Longest text in tokens."""
        return self.bert.context


class BilingualText(nn.Module):
    """Sends each text to the tower that reads it: one with any Han character to the n-grams, any other to the BERT."""

    is_han: Tensor

    def __init__(self, config: BilingualTextConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.bert.width
        self.bert = Bert(config.bert)
        self.ngrams = NgramText(config.ngrams, self.width)
        self.register_buffer("is_han", torch.zeros(config.vocab_size, dtype=torch.bool))

    def routes(self, tokens: Tokens) -> Bool[Tensor, "B"]:
        """True for texts with a Han character."""
        own = torch.arange(tokens.ids.shape[1], device=tokens.ids.device) < tokens.lengths[:, None]
        return (self.is_han[tokens.ids] & own).any(dim=1)

    def tokens(self, tokens: Tokens) -> Hidden:
        """The BERT's states; n-grams have no sequence."""
        return self.bert.tokens(tokens)

    def forward(self, tokens: Tokens, read: Float[Tensor, "B D"] | None = None) -> Float[Tensor, "B D"]:
        """`read`: what this gave before for the texts that the BERT reads, where that is frozen; its other rows are not looked at."""
        han = self.routes(tokens)
        out = tokens.ids.new_zeros(len(han), self.width, dtype=self.ngrams.table.dtype)
        if bool(han.any()):
            out[han] = self.ngrams(Tokens(tokens.ids[han], tokens.lengths[han]))
        if read is not None:
            out[~han] = read[~han].to(out.dtype)
        elif not bool(han.all()):
            lengths = tokens.lengths[~han]
            # Characters that only the n-grams know cannot occur here; cut to this group's own longest.
            out[~han] = F.normalize(self.bert(Tokens(tokens.ids[~han][:, : int(lengths.max())], lengths)), dim=1)
        return out
