"""From items to metrics: worked out in one place, for one model as for the difference of two.

What an item holds says what is made of it: `R@K` and `accK` (0 or 1) are averaged; `rank` gives its median and mean; `acc1` beside
`truth` gives balanced accuracy, the mean of the classes' recalls. The `R@K` of all tasks together give the mean recall: the mean over
K and over tasks, each task (a direction in a language) with equal weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tonggan.evaluate.metrics.ranks import median_rank
from tonggan.evaluate.resample import RESAMPLES, Estimate, Measure, Statistic, intervals, mean, mean_of_groups

Item: TypeAlias = Mapping[str, Any]
Metric: TypeAlias = tuple[str, Statistic, Callable[[Sequence[Item]], np.ndarray]]
"""Its name, the statistic, and what reads the statistic's values off the items."""


def summary(
    items: Sequence[Item], *, minus: Sequence[Item] | None = None, chance: Mapping[str, float] | None = None, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """Every metric by name (`TASK METRIC`), with its interval over resampled clusters.

    `minus` holds another model's outcomes of the same items in the same order: then each metric is the difference, paired.
    `chance` gives what guessing would reach, by the metric's name; `resamples=0` leaves the intervals open (NaN).
    """
    tasks: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        tasks.setdefault(item["task"], []).append(i)
    parts = [(list(_of_task(task, items[which[0]])), which) for task, which in tasks.items()]
    if recalled := [i for i, item in enumerate(items) if _recalls(item)]:
        parts.append(([("mean recall", mean_of_groups, _grouped("task", _recalls(items[recalled[0]])))], recalled))
    found: dict[str, Estimate] = {}
    for metrics, which in parts:
        mine = [items[i] for i in which]
        theirs = None if minus is None else [minus[i] for i in which]
        measures = [
            Measure(statistic, read(mine), None if theirs is None else read(theirs), (chance or {}).get(name))
            for name, statistic, read in metrics
        ]
        estimates = intervals(measures, [item["cluster"] for item in mine], resamples=resamples)
        found |= {name: estimate for (name, _, _), estimate in zip(metrics, estimates, strict=True)}
    return found


def _of_task(task: str, item: Item) -> Iterator[Metric]:
    """The metrics of a task, one item of which is `item`."""
    for name in (*_recalls(item), *(name for name in item if name.startswith("acc"))):
        yield f"{task} {name}", mean, _column(name)
    if "rank" in item:
        yield f"{task} median rank", median_rank, _column("rank")
        yield f"{task} mean rank", mean, _column("rank")
    if "acc1" in item and "truth" in item:
        yield f"{task} balanced accuracy", mean_of_groups, _grouped("truth", ["acc1"])


def _recalls(item: Item) -> list[str]:
    return [name for name in item if name.startswith("R@")]


def _column(name: str) -> Callable[[Sequence[Item]], np.ndarray]:
    return lambda items: np.array([item[name] for item in items], dtype=np.float64)


def _grouped(by: str, names: Sequence[str]) -> Callable[[Sequence[Item]], np.ndarray]:
    """For `mean_of_groups`: which value of `by` each item has, as a number, and the mean of its columns `names`."""

    def read(items: Sequence[Item]) -> np.ndarray:
        group = np.unique([item[by] for item in items], return_inverse=True)[1]
        return np.stack([group, np.mean([[item[name] for name in names] for item in items], axis=1)], axis=1)

    return read
