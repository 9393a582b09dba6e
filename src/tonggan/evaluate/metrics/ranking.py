"""Rankings of a gallery for each query: average precision, reciprocal rank, nDCG, and RSUM from hits.

`ranks` finds a query's best right candidate without sorting, for R@K and the median rank; here all right candidates matter, with grades
where there are any. Ties count against the model: of equal scores the less relevant comes first, and a score that is not a number helps
nobody. Scores per query [q] are averaged, and may be resampled.

Shape letters: q queries, c candidates, r resamples.
"""

from __future__ import annotations

import numpy as np

from tonggan.types import UsageError

MAP = "map/v1: precision at each right candidate by min(k, right candidates), ties pessimistic, mean; a query without any scores 0"
MRR = "mrr/v1: 1 / rank of the first right candidate, ties pessimistic, mean"
NDCG = "ndcg/v1: gain is the grade, discount 1 / log2(1 + rank), ties pessimistic, mean; a query without gain scores 0"
RSUM = "rsum/v1: sum of R@1, R@5 and R@10 of both directions in percent"
AT = (1, 5, 10)


def hits(ranks: np.ndarray) -> np.ndarray:
    """Whether each query's rank is among the first 1, 5 and 10: [q, 3] of 0 and 1."""
    return (np.asarray(ranks)[:, None] <= np.array(AT)).astype(np.float64)


def rsum(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """RSUM, between 0 and 600: the statistic of values [q, 4], the direction as a number (0 or 1) and `hits`."""
    found = np.zeros(len(times))
    for direction in np.unique(values[:, 0]):
        mine = values[:, 0] == direction
        counted = times[:, mine]
        found += 100 * (counted @ values[mine, 1:]).sum(axis=1) / counted.sum(axis=1)
    return found


def average_precision(scores: np.ndarray, relevance: np.ndarray, k: int | None = None) -> np.ndarray:
    """Mean of the precision at each right candidate (of the first `k`), by all of them or by k if that is less: [q].

    `scores` and `relevance` are [q, c]; a grade above 0 is right.
    """
    right = _ranked(scores, relevance) > 0
    precision = np.cumsum(right, axis=1) / np.arange(1, right.shape[1] + 1)
    among = right.sum(axis=1) if k is None else np.minimum(right.sum(axis=1), k)
    found: np.ndarray = (precision * right)[:, :k].sum(axis=1) / np.maximum(among, 1)
    return found


def reciprocal_rank(scores: np.ndarray, relevance: np.ndarray, k: int | None = None) -> np.ndarray:
    """1 / rank of the first right candidate, 0 where none is among the first `k`: [q]."""
    right = _ranked(scores, relevance)[:, :k] > 0
    return np.where(right.any(axis=1), 1 / (1 + right.argmax(axis=1)), 0.0)


def ndcg(scores: np.ndarray, relevance: np.ndarray, k: int | None = None) -> np.ndarray:
    """Normalised discounted cumulative gain of the first `k` (Järvelin and Kekäläinen 2002, section 2), linear in the grade: [q]."""
    ranked = _ranked(scores, relevance)[:, :k]
    discount = 1 / np.log2(2 + np.arange(ranked.shape[1]))
    best = -np.sort(-np.asarray(relevance, dtype=np.float64), axis=1)[:, :k] @ discount
    return np.where(best > 0, ranked @ discount / np.where(best > 0, best, 1), 0.0)


def _ranked(scores: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Grades from the highest score down, [q, c]."""
    grades = np.asarray(relevance, dtype=np.float64)
    if np.shape(scores) != grades.shape or grades.ndim != 2:
        raise UsageError(f"scores {np.shape(scores)} and relevance {grades.shape} must both be [queries, candidates]")
    if (grades < 0).any():
        raise UsageError(f"grades of relevance must be 0 or more; the smallest is {grades.min():g}")
    height = np.where(np.isnan(scores), np.where(grades > 0, -np.inf, np.inf), scores)
    return np.take_along_axis(grades, np.lexsort((grades, -height)), axis=1)
