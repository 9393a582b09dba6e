"""Whether a difference between two models is more than chance: paired tests on the same items, drawn in clusters.

Questions on one picture are not independent, so whole pictures (clusters) are resampled, swapped or counted, never single items. The
bootstrap and the permutation test take any `Measure` of `evaluate.resample` that holds both models' values: a mean, BLEU, an error rate.
The exact test is for 0 and 1. A model against itself differs by exactly 0 with p = 1; swapping the models only changes the sign.

Which one? The permutation test holds its level also with few clusters; the bootstrap gives an interval as well; McNemar's needs no drawing.
Several tasks at once: `holm`. Before measuring, or beside a difference that was not found: `minimum_detectable`.

Shape letters: n items, g clusters, r resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from tonggan.evaluate.resample import CELLS, RESAMPLES, Measure
from tonggan.types import UsageError

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model minus another: the difference, its two-sided p under "no difference", and with the bootstrap its 95 % interval."""

    protocol: str
    difference: float
    p: float
    n: int
    clusters: int
    low: float = math.nan
    high: float = math.nan


def bootstrap_test(measure: Measure, clusters: Sequence[object], *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Paired bootstrap (Efron and Tibshirani 1993, section 16.4); `clusters` [n] names each item's picture.

    p is the share of resamples that differ from the observed difference by at least as much as that differs from 0. Resampled
    differences vary less than the true ones by (g - 1) / g, which is made up for. The interval is that of `evaluate.paired`.
    """
    member, count = _members(clusters)
    observed, generator = _observed(measure), np.random.default_rng(seed)

    def draw(rows: int) -> np.ndarray:
        return measure.of(generator.multinomial(count, np.full(count, 1 / count), size=rows).astype(np.float64)[:, member])

    found = np.concatenate(list(_in_parts(draw, resamples, len(member))))
    low, high = np.percentile(found, [2.5, 97.5])
    return Comparison(
        protocol=f"paired-bootstrap/v1: clusters resampled, two-sided, p by shift to no difference, resamples {resamples} seed {seed}",
        difference=observed,
        p=_p((found - observed) * math.sqrt(count / (count - 1)), observed),
        n=len(member),
        clusters=count,
        low=float(low),
        high=float(high),
    )


def permutation_test(measure: Measure, clusters: Sequence[object], *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Paired permutation test (Noreen 1989, chapter 2): were the models alike, their outcomes on a picture could be swapped.

    Each resample swaps the two models' values in about half of the clusters. With a statistic that ranks items against each other (average
    precision) the scores of both models must be on one scale; otherwise take the bootstrap.
    """
    member, count = _members(clusters)
    observed, generator = _observed(measure), np.random.default_rng(seed)
    both = np.concatenate([measure.values, _other(measure)])

    def draw(rows: int) -> np.ndarray:
        kept = generator.integers(0, 2, size=(rows, count)).astype(np.float64)[:, member]
        mine = np.concatenate([kept, 1 - kept], axis=1)
        return measure.statistic(both, mine) - measure.statistic(both, 1 - mine)

    found = np.concatenate(list(_in_parts(draw, resamples, 2 * len(member))))
    return Comparison(
        protocol=f"permutation/v1: clusters swapped, two-sided, resamples {resamples} seed {seed}",
        difference=observed,
        p=_p(found, observed),
        n=len(member),
        clusters=count,
    )


def mcnemar(one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray, clusters: Sequence[object]) -> Comparison:
    """McNemar's exact test (McNemar 1947; a sign test) of outcomes 0 and 1, each [n].

    A cluster votes once, for the model that is right on more of its items; pictures on which both do equally well have no vote. With one
    item per cluster this is McNemar's test. p is twice the smaller binomial tail of the votes, at most 1.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (one, other))
    if not np.isin(np.concatenate([a, b]), (0, 1)).all():
        raise UsageError("McNemar's test needs outcomes of 0 and 1; for graded scores take the permutation test or the bootstrap")
    member, count = _members(clusters)
    votes = np.bincount(member, weights=a - b, minlength=count)
    wins, losses = int((votes > 0).sum()), int((votes < 0).sum())
    return Comparison(
        protocol="mcnemar/v1: exact, two-sided, each cluster votes once",
        difference=float((a - b).mean()),
        p=_both_tails(min(wins, losses), wins + losses),
        n=len(member),
        clusters=count,
    )


def _both_tails(few: int, votes: int) -> float:
    """Twice the chance of at most `few` heads in `votes` throws of a fair coin, at most 1; in whole numbers, so exact."""
    tail, ways = 0, 1
    for k in range(few + 1):
        tail += ways
        ways = ways * (votes - k) // (k + 1)
    return min(1.0, 2 * tail / 2**votes)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p values adjusted for being several (Holm 1979): those at most alpha may be claimed together, with error alpha over all."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for i, name in enumerate(sorted(p, key=lambda name: p[name])):
        highest = max(highest, min(1.0, (len(p) - i) * p[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p}


# ------------------------------------------------------------------------------------------------ power


def standard_error(differences: Sequence[float] | np.ndarray, clusters: Sequence[object]) -> float:
    """Standard error of the mean of per-item differences [n], by clusters (Miller 2024, section 2.2, with g / (g - 1))."""
    d = np.asarray(differences, dtype=np.float64)
    member, count = _members(clusters)
    sums = np.bincount(member, weights=d - d.mean(), minlength=count)
    return float(np.sqrt((sums**2).sum() * count / (count - 1)) / len(d))


def expected_error(n: int, discordance: float, difference: float = 0.0) -> float:
    """Standard error of a difference of accuracies on `n` independent items, of which the share `discordance` only one model gets right."""
    if not abs(difference) <= discordance <= 1:
        raise UsageError(f"a discordance of {discordance} cannot hold a difference of {difference}: it lies between that and 1")
    return math.sqrt((discordance - difference**2) / n)


def power(difference: float, error: float, *, alpha: float = 0.05) -> float:
    """Chance that a true `difference` is found at level `alpha` (two-sided), given its standard `error`; normal approximation."""
    reach, away = -_NORMAL.inv_cdf(alpha / 2), abs(difference) / error
    return _NORMAL.cdf(away - reach) + _NORMAL.cdf(-away - reach)


def minimum_detectable(error: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The true difference that is found with the given power, from its standard `error` (Miller 2024, section 5)."""
    return (_NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(power)) * error


# ---------------------------------------------------------------------------------------------- drawing


def _members(clusters: Sequence[object]) -> tuple[np.ndarray, int]:
    """Each item's cluster as a number [n], and how many clusters there are."""
    number: dict[object, int] = {}
    member = np.array([number.setdefault(c, len(number)) for c in clusters], dtype=np.int64)
    if len(number) < 2:
        raise UsageError(f"a test needs items of two clusters (pictures) or more; there are {len(member)} items of {len(number)}")
    return member, len(number)


def _other(measure: Measure) -> np.ndarray:
    if measure.minus is None:
        raise UsageError("a test compares two models: give the other model's values of the same items as `minus`")
    if measure.minus.shape != measure.values.shape:
        raise UsageError(f"the models' values have shapes {measure.values.shape} and {measure.minus.shape}; they must be of the same items")
    return measure.minus


def _observed(measure: Measure) -> float:
    _other(measure)
    return float(measure.of(np.ones((1, len(measure.values))))[0])


def _in_parts(draw: Callable[[int], np.ndarray], resamples: int, width: int) -> Iterator[np.ndarray]:
    """Resamples a few at a time, so that their counts fit into memory."""
    step = max(1, CELLS // width)
    for start in range(0, resamples, step):
        yield draw(min(step, resamples - start))


def _p(found: np.ndarray, observed: float) -> float:
    """Share of `found` that is at least as far from 0 as `observed`, the observed one counted in (Phipson and Smyth 2010).

    What is equal but for rounding counts, and so does what is not a number: neither may make a difference look rarer than it is.
    """
    farther = ~(np.abs(found) < abs(observed) * (1 - 1e-9))
    return float((1 + farther.sum()) / (1 + len(found)))
