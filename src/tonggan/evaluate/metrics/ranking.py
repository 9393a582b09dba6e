"""Rankings of a gallery for each query: average precision, reciprocal rank, nDCG, and RSUM from hits.

`ranks` finds a query's best right candidate without sorting, for R@K and the median rank; here all right candidates matter, with grades
where there are any. Ties count against the model: of equal scores the less relevant comes first, and a score that is not a number helps
nobody. Scores per query [q] are averaged, and may be resampled.

Shape letters: q queries, c candidates, r resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    each = []
    directions = np.unique(values[:, 0])
    for direction in directions:
        mine = values[:, 0] == direction
        counted = times[:, mine]
        with np.errstate(invalid="ignore"):  # 0 / 0: a direction of which a resample has drawn nothing counts as the other
            each.append(100 * (counted @ values[mine, 1:]).sum(axis=1) / counted.sum(axis=1))
    found: np.ndarray = len(directions) * np.nanmean(each, axis=0)
    return found


@dataclass(frozen=True, slots=True)
class Ranked:
    """Average precision, reciprocal rank and binary nDCG of the first k, of each query: [q] each."""

    ap: np.ndarray
    rr: np.ndarray
    ndcg: np.ndarray


def of_places(places: Sequence[np.ndarray], k: int = 10) -> Ranked:
    """The same scores as below, without a matrix: `places[i]` holds at which places of its ranking query i has its right candidates,
    counted from 1 in ascending order (`metrics.ranks.places`), at least one.
    """
    sizes = np.array([len(some) for some in places])
    flat, starts = np.concatenate(places), np.cumsum(sizes) - sizes
    nth = 1 + np.arange(len(flat)) - np.repeat(starts, sizes)  # right candidates up to this one
    gain = np.where(flat <= k, 1 / np.log2(1 + flat), 0)
    best = np.cumsum(1 / np.log2(2 + np.arange(k)))
    return Ranked(
        ap=np.add.reduceat(nth / flat, starts) / sizes,
        rr=1 / flat[starts],
        ndcg=np.add.reduceat(gain, starts) / best[np.minimum(sizes, k) - 1],
    )


def expected_average_precision(candidates: int, right: int) -> float:
    """Mean average precision of a random order of the candidates, `right` of which are right."""
    harmonic = float((1 / np.arange(1, candidates + 1)).sum())
    more = (right - 1) / (candidates - 1) if candidates > 1 else 0.0
    return (harmonic + (candidates - harmonic) * more) / candidates


def expected_reciprocal_rank(candidates: int, right: int) -> float:
    """Mean of 1 / rank of the first right candidate over random orders."""
    found, none_yet = 0.0, 1.0
    for rank in range(1, candidates - right + 2):
        here = right / (candidates - rank + 1)
        found += none_yet * here / rank
        none_yet *= 1 - here
    return found


def expected_ndcg(candidates: int, right: int, k: int = 10) -> float:
    """Mean binary nDCG of the first `k` over random orders."""
    discount = 1 / np.log2(2 + np.arange(min(k, candidates)))
    return float(right / candidates * discount.sum() / discount[:right].sum())


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
