"""95 % intervals by resampling: queries are drawn with replacement in clusters (all queries of one picture together),
while the gallery stays what it was. Queries of one picture are not independent; treating them so makes intervals too narrow.

A statistic sees the values once and, per resample, how often each is counted. So a median over thousands of resamples is
one pass over a matrix of counts, and two models can be compared on the very same resamples.

Shape letters: n items, r resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

RESAMPLES = 2000
CELLS = 2_000_000
"""Counts held at a time: 16 MB."""
Statistic: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(values [n, ...], times each is counted [r, n]) -> its value in each resample [r]."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval over `n` items; `chance` is what guessing would give, None where undefined."""

    value: float
    low: float
    high: float
    n: int
    chance: float | None = None

    def told(self, *, sign: bool = False) -> str:
        """As per cent with its interval."""
        form = "+.1f" if sign else ".1f"
        return f"{100 * self.value:{form}} ({100 * self.low:{form}} – {100 * self.high:{form}})"

    def excludes(self, point: float = 0.0) -> bool:
        """Whether the interval leaves `point` out."""
        return self.low > point or self.high < point


@dataclass(frozen=True, slots=True)
class Measure:
    """A statistic of per-item values; with `minus`, another model's values of the same items, the difference of both (paired)."""

    statistic: Statistic
    values: np.ndarray
    minus: np.ndarray | None = None
    chance: float | None = None

    def of(self, times: np.ndarray) -> np.ndarray:
        """Its value in each resample [r], given how often each item is counted [r, n]."""
        found = self.statistic(self.values, times)
        return found if self.minus is None else found - self.statistic(self.minus, times)


def intervals(measures: Sequence[Measure], clusters: Sequence[object], *, resamples: int = RESAMPLES, seed: int = 0) -> list[Estimate]:
    """Each measure with its clustered percentile interval, all on the same resamples; `clusters` [n] names each item's cluster.

    Without resamples both ends are NaN.
    """
    n = len(clusters)
    if n == 0:
        return [Estimate(float("nan"), float("nan"), float("nan"), 0, measure.chance) for measure in measures]
    found: list[list[np.ndarray]] = [[] for _ in measures]
    for times in _times(clusters, resamples, seed):
        for parts, measure in zip(found, measures, strict=True):
            parts.append(measure.of(times))
    estimates = []
    for parts, measure in zip(found, measures, strict=True):
        drawn = np.concatenate(parts) if resamples else np.empty(0)
        defined = drawn[~np.isnan(drawn)]  # a resample in which there is nothing to count says nothing
        low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
        estimates.append(Estimate(float(measure.of(np.ones((1, n)))[0]), float(low), float(high), n, measure.chance))
    return estimates


def _times(clusters: Sequence[object], resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each resample counts each item [r, n], a few resamples at a time."""
    number: dict[object, int] = {}
    member = np.array([number.setdefault(c, len(number)) for c in clusters], dtype=np.int64)
    generator, count = np.random.default_rng(seed), len(number)
    step = max(1, CELLS // len(member))
    for start in range(0, resamples, step):
        draws = generator.multinomial(count, np.full(count, 1 / count), size=min(step, resamples - start))
        yield draws.astype(np.float64)[:, member]


def mean(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The mean of `values` [n]."""
    found: np.ndarray = times @ values / times.sum(axis=1)
    return found


def mean_of_groups(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The mean over groups of each group's mean; `values` [n, 2] holds the group's number and the value.

    A group of which a resample has drawn nothing is left out of that resample: counted as 0 it would pull the interval down.
    """
    order = np.argsort(values[:, 0], kind="stable")
    group, value = values[order].T
    starts = np.unique(group, return_index=True)[1]
    counted = times[:, order]
    counts = np.add.reduceat(counted, starts, axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0: not drawn
        means = np.add.reduceat(counted * value, starts, axis=1) / counts
        found: np.ndarray = np.nansum(means, axis=1) / np.count_nonzero(counts, axis=1)
    return found


def mean_interval(
    values: np.ndarray, clusters: Sequence[object], *, chance: float | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """The mean of per-item values [n] with its clustered percentile interval.

    Given differences of two models on the same items, this is the paired interval.
    """
    return statistic_interval(values, clusters, mean, chance=chance, resamples=resamples, seed=seed)


def statistic_interval(
    values: np.ndarray,
    clusters: Sequence[object],
    statistic: Statistic,
    *,
    chance: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Any statistic of per-item values (`metrics.ranks.median_rank`, say) with its clustered percentile interval."""
    measure = Measure(statistic, np.asarray(values, dtype=np.float64), chance=chance)
    return intervals([measure], clusters, resamples=resamples, seed=seed)[0]
