"""The same items, a named protocol, every answer on file: models measured one after another, and held against each other in pairs.

    out/results/TASK/MODEL.json, MODEL.items.jsonl     every number and every answer
    out/answers.db                                     replies of endpoints, not asked for twice
    out/manifest.json                                  what was compared, by which versions

What is there already is not measured again; a model that fails costs its own cells only.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from tonggan.compare.tasks import Task
from tonggan.evaluate.resample import Estimate, Measure, intervals, mean_of_groups, statistic_interval
from tonggan.evaluate.result import Result, paired
from tonggan.evaluate.significance import holm, mcnemar, minimum_detectable, permutation_test, standard_error
from tonggan.evaluate.tasks.choice import MAX_TOKENS, choice, order_of, prompt
from tonggan.evaluate.tasks.retrieval import retrieval
from tonggan.types import CannotError, ChatOptions, Model, TongganError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cell:
    """One model on one task: its result, or why there is none; and the same without pictures, where that can be asked."""

    result: Result | None = None
    why: str = ""
    cannot: bool = False
    """It lacks the verb; not a failure."""
    blind: Result | None = None
    seconds: float = 0.0


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
    detectable: float
    """The true difference that would be found with power 0.8 on so many items."""


@dataclass
class Compared:
    """All that came out."""

    tasks: list[Task]
    models: list[str]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    apart: list[tuple[str, str, str]] = field(default_factory=list)
    """(task, one, other) that were asked in different ways, so that their scores are not compared."""

    def results(self, task: str) -> dict[str, Result]:
        """Each model's result on a task, of those that have one."""
        return {model: cell.result for (name, model), cell in self.cells.items() if name == task and cell.result is not None}


def compare(
    models: Sequence[str], tasks: Sequence[Task], out: str | Path, *, load: Callable[[str], Model], circular: bool = False, say: Say = print
) -> Compared:
    """Measure every model on every task, and test every pair; `load` opens a model by its name."""
    where = Path(out)
    where.mkdir(parents=True, exist_ok=True)
    told = Compared(list(tasks), list(models))
    prints = {one.name: one.fingerprint() for one in tasks}
    for name in models:
        opened: Model | TongganError | None = None
        for one in tasks:
            place, data = where / "results" / _slug(one.name), f"{one.name}: {len(one.rows)} items, {prints[one.name]}"
            known = _known(place, name, data, circular)
            if known is not None:
                told.cells[one.name, name] = known
                say(f"{name} on {one.name}: measured before")
                continue
            if opened is None:
                try:
                    opened = load(name)
                except TongganError as error:
                    opened = error
            cell = _measure(opened, one, data, circular) if not isinstance(opened, TongganError) else Cell(why=str(opened))
            told.cells[one.name, name] = cell
            # The result itself last: where it is, everything is.
            for kind, result in ((".blind", cell.blind), ("", cell.result)):
                if result is not None:
                    result.write(place, f"{_slug(name)}{_turned(circular)}{kind}")
            say(f"{name} on {one.name}: {_line(cell)}")
    _pair_up(told)
    return told


def preview(model: Model, task: Task, *, circular: bool = False) -> dict[str, object]:
    """What would be sent to an endpoint for a task: requests, those whose answer is kept already, and bytes. Nothing is sent."""
    planned = {"model": model.name, "task": task.name, "requests": 0, "kept": 0, "bytes": 0}
    size = getattr(model, "size", None)
    if size is None or task.kind != "choice":
        return planned
    for row in task.rows:
        for turn in range(len(row.choices) if circular else 1):
            for blind in (False, True):
                kept, count = size(prompt(row, order_of(row, turn), blind=blind), ChatOptions(max_tokens=MAX_TOKENS))
                planned["kept" if kept else "requests"] += 1  # type: ignore[operator]
                planned["bytes"] += 0 if kept else count  # type: ignore[operator]
    return planned


def score_of(result: Result) -> Estimate:
    """The one number of a task: mean recall of retrieval, accuracy over all questions."""
    if result.primary in result.metrics and "acc" not in result.primary:
        return result.metrics[result.primary]
    values = np.array([item["acc"] for item in result.items], dtype=np.float64)
    chance = [m.chance for name, m in result.metrics.items() if name.endswith(" acc") and m.chance is not None]
    counts = [sum(item["task"] == name.removesuffix(" acc") for item in result.items) for name in result.metrics if name.endswith(" acc")]
    by_chance = float(np.average(chance, weights=counts)) if chance and len(chance) == len(counts) else None
    grouped = np.stack([np.zeros(len(values)), values], axis=1)
    return statistic_interval(grouped, [item["cluster"] for item in result.items], mean_of_groups, chance=by_chance)


def gap(result: Result) -> Estimate | None:
    """Chinese minus English, with an interval: on native questions two sets of items, in retrieval the same pictures. None without both."""
    lang = np.array([_lang(item["task"]) for item in result.items])
    if not {"zh", "en"} <= set(lang):
        return None
    values = np.stack([(lang == "zh").astype(float), (lang == "en").astype(float), _values(result)[:, 1]], axis=1)

    def difference(values: np.ndarray, times: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            zh, en = ((times @ (values[:, k] * values[:, 2])) / (times @ values[:, k]) for k in (0, 1))
        return np.nan_to_num(zh - en)

    return statistic_interval(values, [item["cluster"] for item in result.items], difference)


def _lang(task: str) -> str:
    return task.rsplit(" ", 1)[-1]


def _values(result: Result) -> np.ndarray:
    """Each item's task (as a number) and its score between 0 and 1: [n, 2]."""
    number = {name: i for i, name in enumerate(dict.fromkeys(item["task"] for item in result.items))}

    def score(item: dict[str, float]) -> float:
        recalls = [value for name, value in item.items() if name.startswith("R@")]
        return float(np.mean(recalls)) if recalls else float(item["acc"])

    return np.array([[number[item["task"]] if "acc" not in item else 0, score(dict(item))] for item in result.items], dtype=np.float64)


def _measure(model: Model, task: Task, data: str, circular: bool) -> Cell:
    begun = time.monotonic()
    try:
        if task.kind == "retrieval":
            return Cell(retrieval(model, task.rows, langs=task.langs, data=data), seconds=time.monotonic() - begun)
        turned = circular and "chat" in model.can
        if hasattr(model, "size"):  # an endpoint: one question first, before a thousand fail for the same reason
            (first,) = choice(model, task.rows[:1], data=data).items
            if "error" in first["outcome"]:
                return Cell(why=f"the first question was not answered: {first['said'][0]}")
        result = choice(model, task.rows, circular=turned, data=data)
        blind = choice(model, task.rows, circular=turned, blind=True, data=data) if result.extra["way"] != "embed" else None
        if blind is not None and set(blind.extra["outcomes"]) == {"error"}:
            blind = None  # a model that answers nothing without a picture
        return Cell(result, blind=blind, seconds=time.monotonic() - begun)
    except CannotError as error:
        return Cell(why=str(error), cannot=True)
    except TongganError as error:
        return Cell(why=str(error))


def _known(place: Path, model: str, data: str, circular: bool) -> Cell | None:
    """What was measured on these very items before; None where it was not, or where requests failed: those are made again."""
    whole, without = (place / f"{_slug(model)}{_turned(circular)}{kind}.json" for kind in ("", ".blind"))
    if not whole.is_file():
        return None
    try:
        result = Result.read(whole)
        blind = Result.read(without) if without.is_file() else None
    except TongganError:
        return None
    if blind is not None and blind.data != data:
        blind = None
    failed = any("error" in item.get("outcome", ()) for item in (*result.items, *(blind.items if blind else ())))
    return Cell(result, blind=blind) if result.data == data and not failed else None


def _pair_up(told: Compared) -> None:
    found: list[tuple[str, str, str, Estimate, float, float | None, float]] = []
    for task in told.tasks:
        results = told.results(task.name)
        for one, other in combinations(results, 2):
            mine, theirs = results[one], results[other]
            if mine.protocol != theirs.protocol:
                told.apart.append((task.name, one, other))
                continue
            paired(mine, theirs)  # refuses anything but the same items under one protocol
            clusters = [item["cluster"] for item in mine.items]
            order = {item["id"]: i for i, item in enumerate(theirs.items)}
            a, b = _values(mine), _values(theirs)[[order[item["id"]] for item in mine.items]]
            measure = Measure(mean_of_groups, a, b)
            test = permutation_test(measure, clusters)
            (interval,) = intervals([measure], clusters)
            exact = mcnemar(a[:, 1], b[:, 1], clusters).p if set(np.unique([a[:, 1], b[:, 1]])) <= {0.0, 1.0} else None
            found.append((task.name, one, other, interval, test.p, exact, minimum_detectable(standard_error(a[:, 1] - b[:, 1], clusters))))
    adjusted = holm({f"{t}\0{a}\0{b}": p for t, a, b, _, p, _, _ in found})
    told.pairs = [Pair(t, a, b, d, p, adjusted[f"{t}\0{a}\0{b}"], exact, least) for t, a, b, d, p, exact, least in found]


def _line(cell: Cell) -> str:
    if cell.result is None:
        return cell.why
    score = score_of(cell.result)
    return f"{100 * score.value:.1f} ({100 * score.low:.1f} – {100 * score.high:.1f}) in {cell.seconds:.0f} s"


def _turned(circular: bool) -> str:
    return ".circular" if circular else ""


def _slug(name: str) -> str:
    """A file name for a model or a file: readable, and different for different names."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.")[-60:]
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
