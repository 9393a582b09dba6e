"""From items to metrics: worked out in one place, for one model as for the difference of two.

What an item holds says what is made of it:

- `R@K`, `acc…`, `vqa`, `anls`, `relaxed`, `rouge-l`, `cider-d`, `clipscore`, `ap`, `ndcg`, `rr`, `ranked`: a number per item, averaged;
- `rank`: its median and mean;
- `acc1` beside `truth`: balanced accuracy, the mean of the classes' recalls;
- `errors` ([errors, units], see `metrics.speech`): the error rate of all items together;
- `bleu` (the counts of `metrics.captioning.bleu_counts`): BLEU of all items together.

Each metric is given per task (`TASK METRIC`: a direction in a language, say). Beside them stand the numbers over all tasks: of `R@K` the
mean recall (the mean over K and over tasks, each task with equal weight), of answers and captions the same metric over all items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tonggan.config import did_you_mean
from tonggan.evaluate.metrics.captioning import bleu
from tonggan.evaluate.metrics.ranks import median_rank
from tonggan.evaluate.metrics.speech import error_rate
from tonggan.evaluate.resample import RESAMPLES, Estimate, Measure, Statistic, intervals, mean, mean_of_groups
from tonggan.types import UsageError

Item: TypeAlias = Mapping[str, Any]


class Metric(NamedTuple):
    """Its name, the statistic, and what reads the statistic's values off the items."""

    name: str
    statistic: Statistic
    read: Callable[[Sequence[Item]], np.ndarray]


TOGETHER: dict[str, tuple[str, Statistic]] = {
    "acc": ("acc", mean),
    "acc lenient": ("acc lenient", mean),
    "vqa": ("vqa", mean),
    "vqa-evalai": ("vqa-evalai", mean),
    "anls": ("anls", mean),
    "relaxed": ("relaxed", mean),
    "rouge-l": ("rouge-l", mean),
    "cider-d": ("cider-d", mean),
    "clipscore": ("clipscore", mean),
    "errors": ("error rate", error_rate),
    "bleu": ("bleu-4", bleu(4)),
}
"""By an item's key: the metric's name and statistic. These are given over all tasks as well."""
APART = ("acc1", "acc5", "ap", "ndcg", "rr", "ranked")
"""Keys of items whose mean is given per task only."""


def summary(
    items: Sequence[Item], *, minus: Sequence[Item] | None = None, chance: Mapping[str, float] | None = None, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """Every metric by name, with its interval over resampled clusters.

    `minus` holds another model's outcomes of the same items in the same order: then each metric is the difference, paired. Items that a
    request failed for (of either model) are left out: no answer is neither right nor wrong.
    `chance` gives what guessing would reach, by the metric's name; `resamples=0` leaves the intervals open (NaN).
    """
    found: dict[str, Estimate] = {}
    for metrics, which in _parts(items, minus):
        mine = [items[i] for i in which]
        theirs = None if minus is None else [minus[i] for i in which]
        measures = [
            Measure(statistic, read(mine), None if theirs is None else read(theirs), (chance or {}).get(name))
            for name, statistic, read in metrics
        ]
        estimates = intervals(measures, [item["cluster"] for item in mine], resamples=resamples)
        found |= {metric.name: estimate for metric, estimate in zip(metrics, estimates, strict=True)}
    return found


def metric(items: Sequence[Item], name: str, minus: Sequence[Item] | None = None) -> tuple[Metric, list[int]]:
    """The metric of that name, and the places of the items that it is made of, for tests and intervals of one's own."""
    known = {metric.name: (metric, which) for metrics, which in _parts(items, minus) for metric in metrics}
    if name not in known:
        raise UsageError(f"no metric {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)}")
    return known[name]


def smaller_is_better(name: str) -> bool:
    """Whether a low value of this metric is a good one."""
    return name.endswith((" rank", "error rate"))


def failed(item: Item) -> bool:
    """Whether a request for this item failed, or the judge's about it: no answer, so neither right nor wrong, and to be asked again."""
    return "error" in item.get("outcome", ()) or bool(item.get("judge failed"))


def _parts(items: Sequence[Item], minus: Sequence[Item] | None) -> list[tuple[list[Metric], list[int]]]:
    """Metrics, and which items each is made of."""
    tasks: dict[str, list[int]] = {}
    whole = [i for i, item in enumerate(items) if not failed(item) and (minus is None or not failed(minus[i]))]
    for i in whole:
        item = items[i]
        tasks.setdefault(item["task"], []).append(i)
    parts = [(list(_of_task(task, items[which[0]])), which) for task, which in tasks.items()]
    if recalled := [i for i in whole if _recalls(items[i])]:
        parts.append(([Metric("mean recall", mean_of_groups, _grouped("task", _recalls(items[recalled[0]])))], recalled))
    for key, (name, statistic) in TOGETHER.items():
        if which := [i for i in whole if key in items[i]]:
            parts.append(([Metric(name, statistic, _column(key))], which))
    return [(metrics, which) for metrics, which in parts if metrics]


def _of_task(task: str, item: Item) -> Iterator[Metric]:
    """The metrics of a task, one item of which is `item`."""
    for name in (*_recalls(item), *(name for name in APART if name in item)):
        yield Metric(f"{task} {name}", mean, _column(name))
    for key, (name, statistic) in TOGETHER.items():
        if key in item:
            yield Metric(f"{task} {name}", statistic, _column(key))
    if "rank" in item:
        yield Metric(f"{task} median rank", median_rank, _column("rank"))
        yield Metric(f"{task} mean rank", mean, _column("rank"))
    if "acc1" in item and "truth" in item:
        yield Metric(f"{task} balanced accuracy", mean_of_groups, _grouped("truth", ["acc1"]))


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
