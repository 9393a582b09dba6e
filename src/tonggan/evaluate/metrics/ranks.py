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
    at least one. A score that is not a number counts against the model: as ahead of everything where the candidate is wrong,
    as behind everything where it is right.
    """
    found = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), tile):
        block = slice(start, min(start + tile, len(queries)))
        scores = queries[block] @ candidates.T
        rows = positives[block.start : block.stop]
        at = np.repeat(np.arange(len(rows)), [len(p) for p in rows])
        right = np.concatenate([np.asarray(p, dtype=np.int64) for p in rows])
        best = np.full(len(rows), -np.inf, dtype=scores.dtype)
        np.fmax.at(best, at, scores[at, right])  # fmax passes over what is not a number
        ahead = ~(scores < best[:, None])  # also where either is not a number
        ahead[at, right] = False  # right candidates never push each other down
        found[block] = 1 + ahead.sum(axis=1)
    return found


def places(queries: np.ndarray, candidates: np.ndarray, positives: Sequence[Sequence[int]], tile: int = 512) -> list[np.ndarray]:
    """At which places of its ranking each query has its right candidates: int64, counted from 1, ascending; the first one is its rank.

    As `ranks`, by counting: before a right candidate stand the wrong ones that score at least as high, and the better right ones.
    """
    found: list[np.ndarray] = []
    for start in range(0, len(queries), tile):
        block = slice(start, min(start + tile, len(queries)))
        scores = queries[block] @ candidates.T
        rows = positives[block.start : block.stop]
        sizes = np.array([len(p) for p in rows])
        at = np.repeat(np.arange(len(rows)), sizes)
        right = np.concatenate([np.asarray(p, dtype=np.int64) for p in rows])
        height = scores[at, right]
        height[np.isnan(height)] = -np.inf
        scores[np.isnan(scores)] = np.inf
        scores[at, right] = -np.inf  # only the wrong ones are counted
        order = np.lexsort((-height, at))  # of each query the highest first
        height = height[order]
        nth = np.arange(len(at)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        before = np.empty(len(at), dtype=np.int64)
        for n in range(sizes.max()):
            which = nth == n
            before[which] = (scores[at[which]] >= height[which, None]).sum(axis=1)
        lowest = np.isneginf(height)  # there the right ones themselves have been counted
        before[lowest] -= sizes[at[lowest]]
        found += np.split(1 + nth + before, np.cumsum(sizes)[:-1])
    return found


def chance_at(k: int, candidates: int, positives: int) -> float:
    """Probability that at least one of `positives` lies among the first k of a random order."""
    miss = 1.0
    for i in range(min(k, candidates)):
        miss *= max(candidates - positives - i, 0) / (candidates - i)
    return 1.0 - miss


def expected_rank(candidates: int, positives: int) -> float:
    """Mean rank, over random orders of the candidates, of the first of `positives` right ones."""
    return (candidates + 1) / (positives + 1)


def median_rank(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """floor(median of zero-based ranks) + 1, as open_clip reports it, of `values` [n] each counted `times` [r, n]: [r]."""
    order = np.argsort(values, kind="stable")
    upto = times[:, order].cumsum(axis=1)
    total = upto[:, -1]
    # What stands at the two middle places (one, where the number of queries is odd) once each is repeated as often as it counts.
    lower, upper = (values[order][(upto <= place[:, None]).sum(axis=1)] for place in ((total - 1) // 2, total // 2))
    median: np.ndarray = np.floor((lower + upper) / 2 - 1) + 1
    return median
