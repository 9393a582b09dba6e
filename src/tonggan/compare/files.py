"""What a comparison leaves on disk: the page, and the same as Markdown, JSON and one Parquet table of every item."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tonggan.compare.about import About, reading_of, spent
from tonggan.compare.pairs import answered_only, gap, score_of, slices
from tonggan.compare.report import page
from tonggan.compare.runner import Compared
from tonggan.compare.tasks import Task
from tonggan.evaluate.metrics.summary import failed
from tonggan.evaluate.resample import Estimate
from tonggan.evaluate.result import Result

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("task", "model", "id", "row", "cluster", "lang", "question", "right")),
        *((name, pa.list_(pa.string())) for name in ("said", "read", "outcome")),
        ("seconds", pa.list_(pa.float64())),
        ("input_tokens", pa.list_(pa.int64())),
        ("output_tokens", pa.list_(pa.int64())),
        ("shown", pa.list_(pa.list_(pa.string()))),
        ("blind", pa.bool_()),
        ("scores", pa.map_(pa.string(), pa.float64())),
    ]
)
"""Columns of items.parquet; lists have an entry per turn (per rotation of a question's choices); `shown` holds the choices in the order
of their letters."""


def write(told: Compared, out: str | Path, versions: Mapping[str, str], about: Mapping[str, About] | None = None) -> Path:
    """Write report.html, report.md, results.json, items.parquet and manifest.json; gives the page's path."""
    where, known = Path(out), about or {}
    where.mkdir(parents=True, exist_ok=True)
    (where / "manifest.json").write_text(json.dumps(manifest(told, versions), ensure_ascii=False, indent=1), encoding="utf-8")
    (where / "results.json").write_text(json.dumps(plain(told, known), ensure_ascii=False, indent=1), encoding="utf-8")
    (where / "report.md").write_text(markdown(told), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(list(_items(told)), schema=SCHEMA), where / "items.parquet")
    return page(told, known).write(where / "report.html")


def _items(told: Compared) -> Iterator[dict[str, Any]]:
    """Every item of every result, runs without pictures included."""
    for (task, model), cell in told.cells.items():
        for result, blind in ((cell.result, False), (cell.blind, True)):
            for item in result.items if result is not None else ():
                tokens = item.get("tokens") or []
                yield {
                    "task": task,
                    "model": model,
                    "id": item["id"],
                    "row": item.get("row", item["cluster"]),
                    "cluster": item["cluster"],
                    "lang": str(item["task"]).rsplit(" ", 1)[-1],
                    "question": item.get("question", item.get("query")),
                    "right": str(item.get("right", item.get("truth", ""))),
                    **{name: item.get(name) for name in ("read", "outcome", "seconds", "shown")},
                    "said": item.get("said", [str(item["guess"])] if "guess" in item else None),
                    "input_tokens": [pair[0] for pair in tokens],
                    "output_tokens": [pair[1] for pair in tokens],
                    "blind": blind,
                    "scores": _numbers(item),
                }


def _numbers(item: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Every number of an item by its name; of an error rate the errors and the units that they are of."""
    facts = ("candidates", "unsent", "judge failed")  # of the question and of how asking ended, not of the answer
    found = [(name, float(v)) for name, v in item.items() if isinstance(v, int | float) and name not in facts]
    return found + list(zip(("errors", "units"), map(float, item.get("errors", ())), strict=False))


def markdown(told: Compared) -> str:
    """The tables of scores and differences as Markdown."""
    lines = ["# Models compared · 模型对比", ""]
    for task in told.tasks:
        results = told.results(task.name)
        measured = next(iter(results.values())).primary if results else "score"
        lower = " (less is better)" if told.smaller_is_better(task.name) else ""
        lines += [
            f"## {task.name}",
            "",
            f"{task.about[0]} · {task.about[1]}",
            "",
            f"| model · 模型 | asked · 提问方式 | {measured}{lower}, % (95 %) | chance · 随机 "
            "| without pictures · 不给图片 | not answered · 未作答 | n |",
            "|---|---|---|---|---|---|---|",
        ]
        for model in told.models:
            cell = told.cells[task.name, model]
            if cell.result is None:
                why = "cannot be asked this · 不具备这种能力" if cell.cannot else cell.why.splitlines()[0]
                lines.append(f"| {model} | {why} | – | – | – | – | – |")
                continue
            score, outcomes = score_of(cell.result), cell.result.extra.get("outcomes", {})
            blind = "–" if cell.blind is None else score_of(cell.blind).told()
            chance = "–" if score.chance is None else f"{100 * score.chance:.1f}"
            lost = sum(failed(item) for item in cell.result.items)
            ended = ", ".join(f"{name} {count}" for name, count in outcomes.items() if name not in ("answered", "error"))
            ended = ", ".join(filter(None, [ended, f"failed {lost}" if lost else ""])) or "–"
            way = cell.result.extra.get("way") or "vectors"
            lines.append(f"| {model} | {way} | {score.told()} | {chance} | {blind} | {ended} | {score.n} |")
        lines.append("")
        unused = [f"- {one.where}: {one.reason}" for one in task.dropped]
        unused += [f"- {model}: {one.where}: {one.reason}" for model, result in results.items() for one in result.dropped]
        said = [f"- {model}: {note}" for model, result in results.items() for note in result.notes]
        lines += [*said, *unused[:20], *([f"- … {len(unused) - 20}"] if len(unused) > 20 else [])]
        lines += [""] * bool(said or unused)
    if told.pairs:
        lines += [
            "## Differences · 两两比较",
            "",
            "| pair · 模型对 | task · 任务 | difference · 差异 (95 %) | p | Holm |",
            "|---|---|---|---|---|",
        ]
        for p in told.pairs:
            left = f", {p.left_out} failed items left out" if p.left_out else ""
            lines.append(f"| {p.one} − {p.other} | {p.task} | {p.difference.told(sign=True)}{left} | {p.p:.4f} | {p.adjusted:.4f} |")
        lines.append("")
    lines += [f"- {one.one} − {one.other}, {one.task}: not compared · 不作比较 ({one.why})" for one in told.apart]
    gaps = [(m, task.name, found) for task in told.tasks for m, r in told.results(task.name).items() if (found := gap(r)) is not None]
    if gaps:
        lines += [
            "",
            "## Chinese minus English · 中文减英文",
            "",
            "| model · 模型 | task · 任务 | points · 百分点 (95 %) |",
            "|---|---|---|",
        ]
        lines += [f"| {model} | {name} | {found.told(sign=True)} |" for model, name, found in gaps]
    return "\n".join(lines)


def plain(told: Compared, about: Mapping[str, About] | None = None) -> dict[str, Any]:
    """Everything as plain data."""
    known = about or {}
    whole: dict[str, Any] = {
        "scores": {task.name: {m: _score(told, task, m, r, known) for m, r in told.results(task.name).items()} for task in told.tasks},
        "missing": [{"task": t, "model": m, "why": c.why, "cannot": c.cannot} for (t, m), c in told.cells.items() if c.result is None],
        "pairs": [
            {
                "task": p.task,
                "one": p.one,
                "other": p.other,
                **_plain(p.difference),
                "p": p.p,
                "p_holm": p.adjusted,
                "p_mcnemar": p.exact,
                "detectable": p.detectable,
                "left_out": p.left_out,
            }
            for p in told.pairs
        ],
        "not_compared": [one._asdict() for one in told.apart],
        "gaps": {
            task.name: {m: _plain(found) for m, r in told.results(task.name).items() if (found := gap(r)) is not None}
            for task in told.tasks
        },
        "models": {model: _about(known[model]) for model in told.models if model in known},
    }
    return {name: _defined(part) for name, part in whole.items()}


def _score(told: Compared, task: Task, model: str, result: Result, about: Mapping[str, About]) -> dict[str, Any]:
    cell, score, answered = told.cells[task.name, model], score_of(result), answered_only(result)
    took = spent(cell, about.get(model, About()).price)
    return {
        "metric": result.primary,
        **_plain(score),
        "chance": score.chance,
        "n": score.n,
        "failed": sum(failed(item) for item in result.items),
        "without_pictures": None if cell.blind is None else _plain(score_of(cell.blind)),
        "answered_only": None if answered is None else _plain(answered),
        "metrics": {name: _plain(one) for name, one in result.metrics.items()},
        "took": {name: getattr(took, name) for name in ("seconds", "slow", "rate", "memory", "parameters", "tokens", "cost")},
        "reading": reading_of(cell),
        "slices": {column: _slices(result, task, column) for column in task.config.by},
        **{name: value for name, value in result.extra.items() if name not in ("classes", "footprint", "text", "metrics", "identity")},
    }


def _slices(result: Result, task: Task, column: str) -> dict[str, Any]:
    return {value: _plain(e) | {"n": e.n, "pictures": pictures} for value, (e, pictures) in slices(result, task, column).items()}


def _about(one: About) -> dict[str, Any]:
    release = one.release
    return {
        "release": None if release is None else release.id,
        "origin": "unknown" if release is None else release.origin,
        "released": None if release is None else release.released,
        "licence": None if release is None else release.licence,
        "data_goes_to": one.data,
        "price": None if one.price is None else [one.price.input, one.price.output, one.price.currency],
    }


def manifest(told: Compared, versions: Mapping[str, str]) -> dict[str, Any]:
    """What was compared: items by fingerprint, models by weights and preprocessing, protocols with their prompts, judge, versions."""

    def items(task: Task) -> dict[str, Any]:
        facts = {"kind": task.kind, "items": len(task.rows), "fingerprint": task.fingerprint(), "synthetic": task.synthetic}
        return facts | {"settings": task.config.model_dump(mode="json", exclude_defaults=True)}

    def weights(model: str) -> list[str]:
        return sorted({r.weights[:12] for task in told.tasks for name, r in told.results(task.name).items() if name == model})

    def resolved(model: str) -> list[str]:
        """What an endpoint said that it answered as: a name may stand for another snapshot every week."""
        found = (r.extra.get("resolved", {}) for task in told.tasks for name, r in told.results(task.name).items() if name == model)
        return sorted({name for names in found for name in names})

    return {
        "tasks": {task.name: items(task) for task in told.tasks},
        "models": {model: {"weights": weights(model), "answered_as": resolved(model)} for model in told.models},
        "pictures": {model: told.pictures[model] for model in told.models if model in told.pictures},
        "judge": told.how.judge.id if told.how.judge else None,
        "clipscore_by": told.how.scorer.name if told.how.scorer else None,
        "circular": told.how.circular,
        "protocols": {task.name: {m: r.protocol for m, r in told.results(task.name).items()} for task in told.tasks},
        "versions": dict(versions),
    }


def _defined(value: Any) -> Any:
    """The same with null for what is not a number: JSON has no word for it."""
    if isinstance(value, dict):
        return {name: _defined(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(e: Estimate) -> dict[str, float]:
    return {"value": e.value, "low": e.low, "high": e.high}
