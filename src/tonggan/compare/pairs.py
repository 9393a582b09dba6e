"""What is made of the results of several models: differences in pairs, the gap between two languages, slices, coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from tonggan.compare.tasks import Task
from tonggan.evaluate.metrics.summary import failed, metric
from tonggan.evaluate.resample import Estimate, Measure, intervals, mean, mean_of_groups, statistic_interval
from tonggan.evaluate.result import Result, paired
from tonggan.evaluate.significance import holm, mcnemar, minimum_detectable, permutation_test, standard_error
from tonggan.types import UsageError


@dataclass(frozen=True)
class Pair:
    """`one` minus `other` on a task: the difference with its interval, p of the permutation test, and adjusted for all pairs and tasks."""

    task: str
    one: str
    other: str
    difference: Estimate
    p: float
    adjusted: float
    exact: float | None
    """McNemar's p where outcomes are 0 and 1."""
    detectable: float | None
    """The true difference that would be found with power 0.8 on so many items; None where the score is not a mean over items."""
    left_out: int = 0
    """Items that a request of either model failed for: both are compared on the others."""


class Apart(NamedTuple):
    """Two models whose scores on a task are not compared, and why."""

    task: str
    one: str
    other: str
    why: str


def score_of(result: Result) -> Estimate:
    """The one number of a task."""
    return result.metrics[result.primary]


def pair_up(results: Mapping[str, Mapping[str, Result]]) -> tuple[list[Pair], list[Apart]]:
    """Every pair of models on every task; `results` is by task and model. Only what was measured by one protocol on one set of items is
    compared."""
    found: dict[tuple[str, str, str], tuple[Measure, list[object], int, float]] = {}
    apart: list[Apart] = []
    for task, of in results.items():
        for one, other in combinations(of, 2):
            try:
                difference, drawn, left_out = _measure(of[one], of[other])
                p = permutation_test(difference, drawn).p
            except UsageError as error:
                apart.append(Apart(task, one, other, "asked differently" if of[one].protocol != of[other].protocol else str(error)))
                continue
            found[task, one, other] = difference, drawn, left_out, p
    adjusted = holm({"\0".join(key): p for key, (_, _, _, p) in found.items()})
    pairs = []
    for key, (measure, clusters, left_out, p) in found.items():
        (interval,) = intervals([measure], clusters)
        pairs.append(Pair(*key, interval, p, adjusted["\0".join(key)], *_exact(measure, clusters), left_out))
    return pairs, apart


def _measure(mine: Result, theirs: Result) -> tuple[Measure, list[object], int]:
    """The difference of the primary metric on the same items in the same order, and how many items it leaves out; `UsageError` for
    anything else."""
    paired(mine, theirs)  # refuses anything but the same items under one protocol
    by_id = {item["id"]: item for item in theirs.items}
    other = [by_id[item["id"]] for item in mine.items]
    one, which = metric(mine.items, mine.primary, other)
    items = [mine.items[i] for i in which]
    difference = Measure(one.statistic, one.read(items), one.read([other[i] for i in which]))
    lost = sum(failed(a) or failed(b) for a, b in zip(mine.items, other, strict=True))
    return difference, [item["cluster"] for item in items], lost


def _exact(measure: Measure, clusters: Sequence[object]) -> tuple[float | None, float | None]:
    """McNemar's p of right and wrong, and the detectable difference, where the score is a mean over items."""
    assert measure.minus is not None
    if measure.statistic is mean:
        a, b = measure.values, measure.minus
    elif measure.statistic is mean_of_groups:
        a, b = measure.values[:, 1], measure.minus[:, 1]
    else:
        return None, None
    binary = set(np.unique([a, b])) <= {0.0, 1.0}
    return mcnemar(a, b, clusters).p if binary else None, minimum_detectable(standard_error(a - b, clusters))


def gap(result: Result) -> Estimate | None:
    """Chinese minus English, with an interval: on native questions two sets of items, in retrieval the same pictures. None without both."""
    one, which = metric(result.items, result.primary)
    items = [result.items[i] for i in which]
    lang = np.array([_lang(item) for item in items])
    if not {"zh", "en"} <= set(lang):
        return None
    zh, en = lang == "zh", lang == "en"

    def difference(values: np.ndarray, times: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample without one of the languages has no gap
            return one.statistic(values[zh], times[:, zh]) - one.statistic(values[en], times[:, en])

    return statistic_interval(one.read(items), [item["cluster"] for item in items], difference)


def _lang(item: Mapping[str, Any]) -> str:
    return str(item["task"]).rsplit(" ", 1)[-1]


class Slice(NamedTuple):
    """The score of some of the items, and of how many pictures (clusters) they are."""

    score: Estimate
    pictures: int


def slices(result: Result, task: Task, column: str) -> dict[str, Slice]:
    """The score of the items of each value of a column; the gallery stays the whole one."""
    values = {row.id: row.meta.get(column, "") for row in task.rows}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for item in result.items:
        if failed(item):
            continue
        found.setdefault(values.get(str(item.get("row", item["cluster"])), ""), []).append(item)
    scored = {}
    for value, items in sorted(found.items()):
        one, which = metric(items, result.primary)
        some = [items[i] for i in which]
        clusters = [item["cluster"] for item in some]
        scored[value or "–"] = Slice(statistic_interval(one.read(some), clusters, one.statistic), len(set(clusters)))
    return scored


def answered_only(result: Result) -> Estimate | None:
    """The score among the questions that were answered: refusals, filtered and cut ones left out (failed ones are in no score). None where
    all were answered or none."""
    items = [item for item in result.items if "outcome" in item and not failed(item)]
    whole = [item for item in items if set(item["outcome"]) <= {"answered"}]
    if not whole or len(whole) == len(items):
        return None
    one, which = metric(whole, result.primary)
    some = [whole[i] for i in which]
    return statistic_interval(one.read(some), [item["cluster"] for item in some], one.statistic)
