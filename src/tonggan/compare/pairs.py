"""What is made of the results of several models: differences in pairs, the gap between two languages, slices, coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from tonggan.compare.tasks import Task
from tonggan.evaluate.metrics.summary import metric
from tonggan.evaluate.resample import Estimate, Measure, intervals, mean_interval, statistic_interval
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
    found: list[tuple[str, str, str, Measure, list[object]]] = []
    apart: list[Apart] = []
    for task, of in results.items():
        for one, other in combinations(of, 2):
            try:
                difference, drawn = _measure(of[one], of[other])
            except UsageError as error:
                apart.append(Apart(task, one, other, "asked differently" if of[one].protocol != of[other].protocol else str(error)))
                continue
            found.append((task, one, other, difference, drawn))
    tests = {(task, one, other): permutation_test(measure, clusters).p for task, one, other, measure, clusters in found}
    adjusted = holm({"\0".join(key): p for key, p in tests.items()})
    pairs = []
    for task, one, other, measure, clusters in found:
        (interval,) = intervals([measure], clusters)
        exact, least = _exact(measure, clusters)
        key = (task, one, other)
        pairs.append(Pair(task, one, other, interval, tests[key], adjusted["\0".join(key)], exact, least))
    return pairs, apart


def _measure(mine: Result, theirs: Result) -> tuple[Measure, list[object]]:
    """The difference of the primary metric, on the same items in the same order; `UsageError` for anything else."""
    paired(mine, theirs)  # refuses anything but the same items under one protocol
    one, which = metric(mine.items, mine.primary)
    by_id = {item["id"]: item for item in theirs.items}
    items = [mine.items[i] for i in which]
    values, minus = one.read(items), one.read([by_id[item["id"]] for item in items])
    return Measure(one.statistic, values, minus), [item["cluster"] for item in items]


def _exact(measure: Measure, clusters: Sequence[object]) -> tuple[float | None, float | None]:
    """McNemar's p of right and wrong, and the detectable difference, where the score is a mean over items."""
    assert measure.minus is not None
    a, b = (values[:, 1] if values.ndim == 2 and values.shape[1] == 2 else values for values in (measure.values, measure.minus))
    one = np.ones((1, len(a)))
    if a.ndim != 1 or abs(float(measure.of(one)[0]) - float((a - b).mean())) > 1e-9:
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
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.nan_to_num(one.statistic(values[zh], times[:, zh]) - one.statistic(values[en], times[:, en]))

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
        found.setdefault(values.get(str(item.get("row", item["cluster"])), ""), []).append(item)
    scored = {}
    for value, items in sorted(found.items()):
        one, which = metric(items, result.primary)
        some = [items[i] for i in which]
        clusters = [item["cluster"] for item in some]
        scored[value or "–"] = Slice(statistic_interval(one.read(some), clusters, one.statistic), len(set(clusters)))
    return scored


def answered_only(result: Result) -> Estimate | None:
    """Accuracy among the questions that were answered: refusals, filtered, cut and failed ones left out. None where all were, or there is
    no accuracy."""
    items = [item for item in result.items if "acc" in item]
    whole = [item for item in items if set(item.get("outcome", ())) <= {"answered"}]
    if not whole or len(whole) == len(items):
        return None
    return mean_interval(np.array([item["acc"] for item in whole], dtype=np.float64), [item["cluster"] for item in whole])
