"""95 % intervals by resampling: queries are drawn with replacement in clusters (all queries of one picture together),
while the gallery stays what it was. Queries of one picture are not independent; treating them so makes intervals too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval over `n` items; `chance` is what guessing would give, None where undefined."""

    value: float
    low: float
    high: float
    n: int
    chance: float | None = None

    def excludes(self, point: float = 0.0) -> bool:
        """Whether the interval leaves `point` out."""
        return self.low > point or self.high < point


def _weights(clusters: Sequence[object], resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster number of each item [n], and how often each resample draws each cluster [resamples, clusters]."""
    number: dict[object, int] = {}
    member = np.array([number.setdefault(c, len(number)) for c in clusters], dtype=np.int64)
    count = len(number)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return member, draws


def mean_interval(
    values: np.ndarray, clusters: Sequence[object], *, chance: float | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """The mean of per-item values [n] with its clustered percentile interval.

    Given differences of two models on the same items, this is the paired interval.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0, chance)
    member, draws = _weights(clusters, resamples, seed)
    sums = np.bincount(member, weights=values)
    sizes = np.bincount(member)
    means = (draws @ sums) / (draws @ sizes)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high), len(values), chance)


def mean_of_means(tasks: Sequence[tuple[np.ndarray, Sequence[object]]], *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean over tasks of each task's mean, with one interval: all tasks see the same resampled clusters."""
    names = sorted({str(c) for _, clusters in tasks for c in clusters})
    _, draws = _weights(names, resamples, seed)
    number = {name: i for i, name in enumerate(names)}
    means = np.zeros(resamples)
    value = 0.0
    for values, clusters in tasks:
        member = np.array([number[str(c)] for c in clusters])
        sums = np.bincount(member, weights=np.asarray(values, dtype=np.float64), minlength=len(names))
        sizes = np.bincount(member, minlength=len(names))
        means += (draws @ sums) / np.maximum(draws @ sizes, 1) / len(tasks)
        value += float(np.mean(values)) / len(tasks)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(value, float(low), float(high), sum(len(v) for v, _ in tasks))


def statistic_interval(
    values: np.ndarray,
    clusters: Sequence[object],
    statistic: Callable[[np.ndarray], float],
    *,
    chance: float | None = None,
    resamples: int = 400,
    seed: int = 0,
) -> Estimate:
    """Any statistic of per-item values (a median, say) with its clustered percentile interval."""
    member, draws = _weights(clusters, resamples, seed)
    order = np.argsort(member, kind="stable")
    ordered = np.asarray(values)[order]
    per_item = draws[:, member[order]]
    found = [statistic(np.repeat(ordered, times, axis=0)) for times in per_item]
    low, high = np.percentile(found, [2.5, 97.5])
    return Estimate(float(statistic(np.asarray(values))), float(low), float(high), len(values), chance)
