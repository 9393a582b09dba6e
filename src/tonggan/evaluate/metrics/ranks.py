"""Ranks by counting, and what is read off them.

The rank of a query is 1 + the number of *wrong* candidates that score at least as high as its best right one. Ties
count against the model: under a tie rule that favours it, embeddings that have collapsed to one point score 100 %.
Counting needs no sorting and no [queries, candidates] matrix, only one tile of it at a time.

R@K here is the fraction of queries with a right candidate among the first K (as in the CLIP, ALBEF and Chinese-CLIP
papers), not classical recall over all right candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def ranks(queries: np.ndarray, candidates: np.ndarray, positives: Sequence[Sequence[int]], tile: int = 512) -> np.ndarray:
    """Pessimistic rank of each query's best right candidate, int64 [queries], starting at 1.

    `queries` [Q, D] and `candidates` [C, D] are unit vectors; `positives[i]` lists the right candidates of query i,
    at least one. A candidate that is not a number counts as ahead of everything.
    """
    found = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), tile):
        block = slice(start, min(start + tile, len(queries)))
        scores = queries[block] @ candidates.T
        scores[np.isnan(scores)] = np.inf
        rows = positives[block.start : block.stop]
        at = np.repeat(np.arange(len(rows)), [len(p) for p in rows])
        right = np.concatenate([np.asarray(p, dtype=np.int64) for p in rows])
        best = np.full(len(rows), -np.inf, dtype=scores.dtype)
        np.maximum.at(best, at, scores[at, right])
        scores[at, right] = -np.inf  # right candidates never push each other down
        found[block] = 1 + (scores >= best[:, None]).sum(axis=1)
    return found


def chance_at(k: int, candidates: int, positives: int) -> float:
    """Probability that at least one of `positives` lies among the first k of a random order."""
    miss = 1.0
    for i in range(min(k, candidates)):
        miss *= max(candidates - positives - i, 0) / (candidates - i)
    return 1.0 - miss


def median_rank(values: np.ndarray) -> float:
    """floor(median of zero-based ranks) + 1, as open_clip reports it."""
    return float(np.floor(np.median(values - 1)) + 1)
