"""What a comparison leaves behind: one page that opens offline, in both languages, and the same as Markdown and JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tonggan.compare.runner import Cell, Compared, gap, score_of
from tonggan.compare.tasks import Task
from tonggan.data.media import load_image
from tonggan.evaluate.resample import Estimate
from tonggan.evaluate.result import Result
from tonggan.report import Page, Picture, Words
from tonggan.report.page import Said
from tonggan.report.plots import bars
from tonggan.types import MediaError, Row

SHOWN = 12
"""Questions on which models differ that are shown per task."""
WAYS = {
    "embed": Words("nearest choice", "取最近的选项"),
    "chat": Words("asked in words", "用文字提问"),
    "logprob": Words("likeliest choice", "取概率最大的选项"),
    None: Words("retrieval", "检索"),
}


def write(told: Compared, out: str | Path, versions: Mapping[str, str]) -> Path:
    """Write report.html, report.md, results.json and manifest.json; gives the page's path."""
    where = Path(out)
    where.mkdir(parents=True, exist_ok=True)
    (where / "manifest.json").write_text(json.dumps(manifest(told, versions), ensure_ascii=False, indent=1), encoding="utf-8")
    (where / "results.json").write_text(json.dumps(plain(told), ensure_ascii=False, indent=1), encoding="utf-8")
    (where / "report.md").write_text(markdown(told), encoding="utf-8")
    return page(told).write(where / "report.html")


def page(told: Compared) -> Page:
    """The page: scores, differences, the languages' gap, and the questions on which models differ."""
    made = Page(
        Words("Models compared", "模型对比"),
        Words(
            "The same items for every model. In brackets: 95 % intervals, by resampling pictures with the gallery fixed. "
            "Scores of models that were asked in different ways stand in one table, but are not ranked against each other.",
            "所有模型使用相同的题目。括号内是 95 % 置信区间：图库固定，按图片重采样。提问方式不同的模型列在同一张表里，但不互相排名。",
        ),
    )
    for task in told.tasks:
        _task(made, told, task)
    _pairs(made, told)
    _gaps(made, told)
    return made


def _task(made: Page, told: Compared, task: Task) -> None:
    made.part(Words(task.name, task.name))
    check = (
        Words(" A synthetic check: not averaged with real pictures.", "合成检验，不与真实图片的结果取平均。")
        if task.synthetic
        else Words("", "")
    )
    made.text(
        Words(f"{task.about[0]}; {len(task.rows)} items.{check.en}", f"{task.about[1]}；共 {len(task.rows)} 项。{check.zh}"), quiet=True
    )
    head: list[Said] = [
        Words("model", "模型"),
        Words("asked", "提问方式"),
        Words("score, %", "得分，%"),
        Words("chance", "随机"),
        Words("without pictures", "不给图片"),
        Words("if unread ones were right", "未读出者全算对"),
        Words("not answered", "未作答"),
        Words("seconds", "秒"),
    ]
    made.table(head, [_row(model, told.cells[task.name, model]) for model in told.models])
    results = told.results(task.name)
    if results:
        series = {model: [_triple(score_of(result))] for model, result in results.items()}
        made.figure(*bars([task.name], series, y=Words("score, %", "得分，%")))
    if task.dropped:
        reasons = "; ".join(f"{one.where}: {one.reason}" for one in task.dropped[:10])
        made.text(Words(f"{len(task.dropped)} rows could not be used: {reasons}", f"{len(task.dropped)} 行无法使用：{reasons}"), quiet=True)
    _differ(made, task, results)


def _row(model: str, cell: Cell) -> list[Said]:
    if cell.result is None:
        why = (
            Words("cannot be asked this", "不具备这种能力")
            if cell.cannot
            else Words(f"failed: {cell.why[:120]}", f"失败：{cell.why[:120]}")
        )
        return [model, why, *["–"] * 6]
    result, score = cell.result, score_of(cell.result)
    lenient = [m.value for name, m in result.metrics.items() if name.endswith("acc lenient")]
    unanswered = sum(count for outcome, count in result.extra.get("outcomes", {}).items() if outcome != "answered")
    asked = sum(result.extra.get("outcomes", {}).values())
    return [
        model,
        WAYS[result.extra.get("way")],
        told_estimate(score),
        "–" if score.chance is None else f"{100 * score.chance:.1f}",
        told_estimate(score_of(cell.blind)) if cell.blind is not None else "–",
        f"{100 * sum(lenient) / len(lenient):.1f}" if lenient else "–",
        f"{unanswered} / {asked}" if asked else "–",
        f"{cell.seconds:.0f}" if cell.seconds else Words("before", "此前"),
    ]


def _differ(made: Page, task: Task, results: Mapping[str, Result]) -> None:
    """Questions that some models got right and others not, with what each said."""
    if task.kind != "choice" or len(results) < 2:
        return
    rows = {row.id: row for row in task.rows}
    by_item: dict[str, dict[str, Mapping[str, Any]]] = {}
    for model, result in results.items():
        for item in result.items:
            by_item.setdefault(str(item["id"]), {})[model] = item
    apart = [items for items in by_item.values() if len({item["acc"] for item in items.values()}) > 1][:SHOWN]
    if not apart:
        return
    pictures = []
    for items in apart:
        first = next(iter(items.values()))
        said = " · ".join(f"{'✓' if item['acc'] else '✗'} {model}: {str(item['said'][0])[:60]}" for model, item in items.items())
        pictures.append(Picture(_thumb(_row_of(rows, str(first["id"]))), f"{first['question']} ({first['right']}) {said}"))
    made.grid(pictures, title=Words("questions on which models differ", "各模型答案不一致的题目"))


def _row_of(rows: Mapping[str, Row], item: str) -> Row:
    return next(row for name, row in rows.items() if item.endswith(f" {name}"))


def _thumb(row: Row) -> bytes:
    try:
        picture = load_image(row.images[0])
    except (IndexError, MediaError):
        return b"\x89PNG\r\n\x1a\n"
    picture.thumbnail((360, 360))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _pairs(made: Page, told: Compared) -> None:
    if not told.pairs and not told.apart:
        return
    made.part(Words("Differences", "两两比较"))
    made.text(
        Words(
            "First minus second, paired on the same items. p: permutation test, pictures swapped; Holm: adjusted for all pairs and tasks "
            "on this page; McNemar: exact, where outcomes are right or wrong; detectable: the true difference that so many items would "
            "show with power 0.8.",
            "前者减后者，按相同题目配对。p：置换检验，以图片为单位交换；Holm：按本页所有模型对和任务校正；"
            "McNemar：精确检验，仅用于对错型结果；可检出：以这些题目的数量，功效为 0.8 时能检出的真实差异。",
        ),
        quiet=True,
    )
    head: list[Said] = [
        Words("pair", "模型对"),
        Words("task", "任务"),
        Words("difference, points", "差异，百分点"),
        "p",
        "Holm",
        "McNemar",
        Words("detectable", "可检出"),
    ]
    rows: list[list[Said]] = [
        [
            f"{pair.one} − {pair.other}",
            pair.task,
            told_estimate(pair.difference, sign=True),
            f"{pair.p:.4f}",
            f"{pair.adjusted:.4f}",
            "–" if pair.exact is None else f"{pair.exact:.4f}",
            f"{100 * pair.detectable:.1f}",
        ]
        for pair in told.pairs
    ]
    rows += [
        [f"{one} − {other}", task, Words("asked differently: not compared", "提问方式不同，不作比较"), *["–"] * 4]
        for task, one, other in told.apart
    ]
    made.table(head, rows)


def _gaps(made: Page, told: Compared) -> None:
    found = [(task.name, model, gap(result)) for task in told.tasks for model, result in told.results(task.name).items()]
    rows: list[list[Said]] = [[model, task, told_estimate(value, sign=True)] for task, model, value in found if value is not None]
    if not rows:
        return
    made.part(Words("Chinese and English", "中文与英文"))
    made.text(
        Words(
            "Chinese minus English. Questions of pages-zh-en are written in each language; captions of the other suites are translations.",
            "中文减英文。pages-zh-en 的题目由两种语言各自原生编写，其余各套的描述是译文。",
        ),
        quiet=True,
    )
    made.table([Words("model", "模型"), Words("task", "任务"), Words("gap, points", "差距，百分点")], rows)


def told_estimate(e: Estimate, *, sign: bool = False) -> str:
    """A share as per cent with its interval, the interval unbroken."""
    form = "+.1f" if sign else ".1f"
    return f"{100 * e.value:{form}} ({100 * e.low:{form}}\N{NO-BREAK SPACE}–\N{NO-BREAK SPACE}{100 * e.high:{form}})"


def _triple(e: Estimate) -> tuple[float, float, float]:
    return 100 * e.value, 100 * e.low, 100 * e.high


# -------------------------------------------------------------------------------------------- plain forms


def markdown(told: Compared) -> str:
    """The tables of scores and differences as Markdown."""
    lines = ["# Models compared · 模型对比", ""]
    for task in told.tasks:
        lines += [
            f"## {task.name}",
            "",
            f"{task.about[0]} · {task.about[1]}",
            "",
            "| model · 模型 | score · 得分 (95 %) | chance · 随机 |",
            "|---|---|---|",
        ]
        for model in told.models:
            cell = told.cells[task.name, model]
            if cell.result is None:
                lines.append(f"| {model} | – | {'cannot' if cell.cannot else cell.why.splitlines()[0]} |")
            else:
                score = score_of(cell.result)
                lines.append(f"| {model} | {told_estimate(score)} | {'–' if score.chance is None else f'{100 * score.chance:.1f}'} |")
        lines.append("")
    if told.pairs:
        lines += [
            "## Differences · 两两比较",
            "",
            "| pair · 模型对 | task · 任务 | difference · 差异 (95 %) | p | Holm |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {p.one} − {p.other} | {p.task} | {told_estimate(p.difference, sign=True)} | {p.p:.4f} | {p.adjusted:.4f} |"
            for p in told.pairs
        ]
        lines.append("")
    return "\n".join(lines)


def plain(told: Compared) -> dict[str, Any]:
    """Everything as plain data."""
    return {
        "scores": {task.name: {m: _score(r) for m, r in told.results(task.name).items()} for task in told.tasks},
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
            }
            for p in told.pairs
        ],
        "asked_differently": [list(one) for one in told.apart],
        "gaps": {
            task.name: {m: _plain(found) for m, r in told.results(task.name).items() if (found := gap(r)) is not None}
            for task in told.tasks
        },
    }


def manifest(told: Compared, versions: Mapping[str, str]) -> dict[str, Any]:
    """What was compared: items by fingerprint, models by weights, protocols, versions."""

    def items(task: Task) -> dict[str, Any]:
        return {"kind": task.kind, "items": len(task.rows), "fingerprint": task.fingerprint(), "synthetic": task.synthetic}

    def weights(model: str) -> list[str]:
        return sorted({r.weights[:12] for task in told.tasks for name, r in told.results(task.name).items() if name == model})

    return {
        "tasks": {task.name: items(task) for task in told.tasks},
        "models": {model: weights(model) for model in told.models},
        "protocols": {task.name: {m: r.protocol for m, r in told.results(task.name).items()} for task in told.tasks},
        "versions": dict(versions),
    }


def _score(result: Result) -> dict[str, Any]:
    score = score_of(result)
    return {**_plain(score), "chance": score.chance, "n": len(result.items), **{k: v for k, v in result.extra.items() if k != "classes"}}


def _plain(e: Estimate) -> dict[str, float]:
    return {"value": e.value, "low": e.low, "high": e.high}
