"""A task's section of the page: scores, what they took, slices, how answers were read, and the questions on which models differ."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tonggan.compare.about import About, spent
from tonggan.compare.measure import Cell
from tonggan.compare.pairs import Slice, answered_only, score_of, slices
from tonggan.compare.runner import Compared
from tonggan.compare.tasks import Task
from tonggan.data.media import load_image
from tonggan.evaluate.metrics.reading import read_choice
from tonggan.evaluate.metrics.summary import failed
from tonggan.evaluate.resample import Estimate
from tonggan.evaluate.result import Result
from tonggan.report import Page, Picture, Words, interval
from tonggan.report.page import Said, words
from tonggan.report.plots import bars, scatter
from tonggan.types import MediaError, Row

SHOWN = 12
"""Questions on which models differ that are shown per task."""
WAYS = {
    "embed": Words("nearest choice", "取最近的选项"),
    "chat": Words("asked in words", "用文字提问"),
    "logprob": Words("likeliest choice", "取概率最大的选项"),
    None: Words("by vectors", "向量比对"),
}
MARKS = {"embed": "s", "chat": "o", "logprob": "^", None: "D"}
OUTCOMES = {
    "answered": Words("answered", "已作答"),
    "refused": Words("refused", "拒答"),
    "filtered": Words("filtered", "被内容过滤"),
    "truncated": Words("cut at the limit", "超长截断"),
    "error": Words("failed", "请求失败"),
}
READ = {
    "whole": Words("as it stands", "按原文计分"),
    "exact": Words("exact", "完全一致"),
    "letter": Words("by its letter", "按选项字母"),
    "text": Words("by its text", "按文字匹配"),
    "judge": Words("by the judge", "由裁判模型"),
    "unparsed": Words("not read", "未能读出"),
}
MEASURES = {
    "acc": Words("accuracy", "准确率"),
    "mean recall": Words("mean recall", "平均召回率"),
    "error rate": Words("error rate", "错误率"),
    "vqa": Words("VQA accuracy", "VQA 准确率"),
    "vqa-evalai": Words("VQA accuracy (EvalAI)", "VQA 准确率（EvalAI）"),
    "relaxed": Words("relaxed accuracy", "宽松准确率"),
    "anls": Words("ANLS", "ANLS"),
    "cider-d": Words("CIDEr-D", "CIDEr-D"),
}
COLUMNS: dict[str, Said] = {"kind": Words("kind", "类型"), "difficulty": Words("difficulty", "难度")}
VALUES: dict[str, Said] = {
    "invoice": Words("invoice", "发票"),
    "menu": Words("menu", "菜单"),
    "timetable": Words("timetable", "时刻表"),
    "calendar": Words("calendar", "月历"),
    "sign": Words("sign", "标识"),
    "table": Words("table", "表格"),
    "chart": Words("chart", "图表"),
    "vertical": Words("vertical", "竖排文字"),
    "note": Words("note", "便条"),
}
"""Columns of our own suites and their values."""
FEW = 10
"""Of fewer pictures a slice's score is given without an interval: resampling so few says nothing."""
DASH = "–"
MODEL, TASK = Words("model", "模型"), Words("task", "任务")


def task_part(made: Page, told: Compared, task: Task, about: Mapping[str, About]) -> None:
    """A section of the page: one task on all models."""
    made.part(Words(task.name, task.name))
    check = (
        Words(" A synthetic check: not averaged with real pictures.", "合成检验，不与真实图片的结果取平均。")
        if task.synthetic
        else Words("", "")
    )
    made.text(
        Words(f"{task.about[0]}; {len(task.rows)} items.{check.en}", f"{task.about[1]}；共 {len(task.rows)} 项。{check.zh}"), quiet=True
    )
    results = told.results(task.name)
    measured = next(iter(results.values())).primary if results else "score"
    lower = told.smaller_is_better(task.name)
    called = MEASURES.get(measured, Words(measured, measured))
    score = Words(f"{called.en}, %{' (less is better)' if lower else ''}", f"{called.zh}，%{'（越低越好）' if lower else ''}")
    head: list[Said] = [
        MODEL,
        Words("asked", "提问方式"),
        score,
        Words("chance", "随机"),
        Words("without pictures", "不给图片"),
        Words("of those answered", "仅计已作答"),
        Words("at most", "上界"),
        Words("not answered", "未作答"),
        Words("items", "题数"),
    ]
    made.table(head, [_row(told.label(model), told.cells[task.name, model]) for model in told.models])
    if results:
        made.figure(*bars([task.name], {told.label(model): [_triple(score_of(result))] for model, result in results.items()}, y=score))
    made.text(
        Words(
            "At most: with replies counted as right that could not be read, or that hold the right answer among other words. Failed "
            "requests are in no score.",
            "上界：把读不出的回答，以及答案夹在其他文字中的回答都算对。请求失败的题不计入任何得分。",
        ),
        quiet=True,
    )
    for model, result in results.items():
        lines = [*result.notes, *(f"{one.where}: {one.reason}" for one in result.dropped[:5])]
        if (f := result.extra.get("f1 of yes")) is not None:
            lines.append(f"F1 (yes) {interval(f['value'], f['low'], f['high'])}; yes {100 * f['said yes']:.1f} %")
        if (more := len(result.dropped) - 5) > 0:
            lines.append(f"… {more}")
        if lines:
            made.text(f"{told.label(model)}: {'; '.join(lines)}", quiet=True)
    _further(made, told, results)
    _took(made, told, task, about, score)
    for column in task.config.by:
        _sliced(made, told, task, results, column)
    _audit(made, told, results)
    if task.notes:
        made.text("; ".join(task.notes), quiet=True)
    if task.dropped:
        reasons = "; ".join(f"{one.where}: {one.reason}" for one in task.dropped[:10])
        made.text(Words(f"{len(task.dropped)} rows could not be used: {reasons}", f"{len(task.dropped)} 行无法使用：{reasons}"), quiet=True)
    _differ(made, told, task, results)


def _row(model: str, cell: Cell) -> list[Said]:
    if cell.result is None:
        why = (
            Words("cannot be asked this", "不具备这种能力")
            if cell.cannot
            else Words(f"failed: {cell.why[:120]}", f"失败：{cell.why[:120]}")
        )
        return [model, why, *[DASH] * 7]
    result, score = cell.result, score_of(cell.result)
    lenient, answered = result.metrics.get(f"{result.primary} lenient"), answered_only(result)
    outcomes = result.extra.get("outcomes", {})
    asked = sum(outcomes.values())
    return [
        model,
        WAYS[result.extra.get("way")],
        told_estimate(score),
        DASH if score.chance is None else f"{100 * score.chance:.1f}",
        told_estimate(score_of(cell.blind)) if cell.blind is not None else DASH,
        DASH if answered is None else told_estimate(answered),
        DASH if lenient is None else f"{100 * lenient.value:.1f}",
        _unanswered(outcomes) if asked else DASH,
        str(score.n),
    ]


def _unanswered(outcomes: Mapping[str, int]) -> Said:
    """How many were refused, filtered, cut; and how many requests failed, which are in no score."""
    asked, failures = sum(outcomes.values()), outcomes.get("error", 0)
    told = f"{asked - outcomes.get('answered', 0) - failures} / {asked}"
    return Words(f"{told}, {failures} failed", f"{told}，{failures} 次请求失败") if failures else told


def _further(made: Page, told: Compared, results: Mapping[str, Result]) -> None:
    """The metrics besides the score: one row each, one column per model."""
    names = list(
        dict.fromkeys(name for result in results.values() for name in result.metrics if name not in (result.primary, "acc lenient"))
    )
    if not names:
        return
    rows: list[list[Said]] = []
    for name in names:
        scale = 1 if name.endswith(" rank") else 100
        cells = [result.metrics.get(name) for result in results.values()]
        rows.append([name, *(DASH if e is None else f"{scale * e.value:.1f}" for e in cells)])
    made.fold(Words("every metric", "全部指标"), [Words("metric", "指标"), *map(told.label, results)], rows)


def _took(made: Page, told: Compared, task: Task, about: Mapping[str, About], score: Words) -> None:
    """Latency, throughput, memory, tokens, cost; and quality against each."""
    results = told.results(task.name)
    took = {model: spent(told.cells[task.name, model], about.get(model, About()).price) for model in results}
    currencies = {model: price.currency for model in results if (price := about.get(model, About()).price) is not None}
    head: list[Said] = [
        MODEL,
        Words("seconds per item", "每题秒数"),
        Words("95th percentile", "第 95 百分位"),
        Words("items per second", "每秒题数"),
        Words("memory, MB", "内存，MB"),
        Words("parameters, M", "参数，百万"),
        Words("tokens in / out per item", "每题词元：输入 / 输出"),
        Words("cost of both runs", "费用（含不给图片）"),
    ]
    rows: list[list[Said]] = [
        [
            told.label(model),
            _number(one.seconds, ".3f"),
            _number(one.slow, ".3f"),
            _number(one.rate, ".1f"),
            _number(None if one.memory is None else one.memory / 1e6, ".0f"),
            _number(None if one.parameters is None else one.parameters / 1e6, ".1f"),
            DASH if one.tokens is None else f"{one.tokens[0]:.0f} / {one.tokens[1]:.0f}",
            DASH if one.cost is None else f"{one.cost:.4g} {currencies[model]}",
        ]
        for model, one in took.items()
    ]
    if not rows:
        return
    made.table(head, rows, caption=Words("what it took", "开销"))
    up = not told.smaller_is_better(task.name)
    marks = {told.label(model): MARKS[result.extra.get("way")] for model, result in results.items()}
    currency = next(iter(currencies.values()), "")
    sides: list[tuple[Words, dict[str, float | None]]] = [
        (Words("seconds per item", "每题秒数"), {model: one.seconds for model, one in took.items()}),
        (
            Words("parameters, M", "参数，百万"),
            {model: None if one.parameters is None else one.parameters / 1e6 for model, one in took.items()},
        ),
    ]
    if len(set(currencies.values())) == 1:
        sides.append((Words(f"cost, {currency}", f"费用，{currency}"), {model: one.cost for model, one in took.items()}))
    for x, values in sides:
        points = {told.label(model): (value, *_triple(score_of(results[model]))) for model, value in values.items() if value is not None}
        if len(points) > 1:
            caption = Words(
                "Joined: what no other model of the same mark beats in both. Models of different marks were asked in different ways.",
                "虚线连接的是没有被同类标记的其他模型在两方面同时超过的模型。标记形状不同，表示提问方式不同，不互相比较。",
            )
            made.figure(*scatter(points, x=x, y=score, up=up, marks=marks), caption=caption)


def _sliced(made: Page, told: Compared, task: Task, results: Mapping[str, Result], column: str) -> None:
    found = {model: slices(result, task, column) for model, result in results.items()}
    values = list(dict.fromkeys(value for of in found.values() for value in of))
    if not values:
        return
    counts = {value: max(of[value].score.n for of in found.values() if value in of) for value in values}
    rows: list[list[Said]] = [
        [VALUES.get(value, value), str(counts[value]), *(_slice(of.get(value)) for of in found.values())] for value in values
    ]
    made.table(
        [COLUMNS.get(column, column), Words("items", "题数"), *map(told.label, found)],
        rows,
        caption=Words(
            f"by {column}; intervals from {FEW} pictures on",
            f"按{words(COLUMNS.get(column, column)).zh}划分；不少于 {FEW} 张图片时给出区间",
        ),
    )


def _slice(e: Slice | None) -> str:
    return DASH if e is None else told_estimate(e.score) if e.pictures >= FEW else f"{100 * e.score.value:.1f}"


def _audit(made: Page, told: Compared, results: Mapping[str, Result]) -> None:
    """How every answer was read, and how asking ended."""
    read_of = {
        told.label(model): result.extra for model, result in results.items() if result.extra.get("read") and result.extra["way"] == "chat"
    }
    if not read_of:
        return
    read = [how for how in READ if any(how in extra["read"] for extra in read_of.values())]
    ended = [one for one in OUTCOMES if any(one in extra["outcomes"] for extra in read_of.values())]
    rows: list[list[Said]] = [
        [model, *(str(extra["read"].get(how, 0)) for how in read), *(str(extra["outcomes"].get(one, 0)) for one in ended)]
        for model, extra in read_of.items()
    ]
    made.table(
        [MODEL, *(READ[how] for how in read), *(OUTCOMES[one] for one in ended)],
        rows,
        caption=Words("how answers were read, and how asking ended", "答案如何读出，提问如何结束"),
    )


def _differ(made: Page, told: Compared, task: Task, results: Mapping[str, Result]) -> None:
    """Questions that some models got right and others not, with what each said."""
    asked_ = {told.label(model): result for model, result in results.items() if result.extra.get("way") is not None}
    if len(asked_) < 2:
        return
    rows = {row.id: row for row in task.rows}
    by_item: dict[str, dict[str, Mapping[str, Any]]] = {}
    for model, result in asked_.items():
        for item in result.items:
            by_item.setdefault(str(item["id"]), {})[model] = item
    marks = {
        name: {model: _mark(item, asked_[model].primary) for model, item in items.items()}
        for name, items in by_item.items()
        if len(items) == len(asked_) and not any(failed(item) for item in items.values())
    }
    spread = {name: max(of.values()) - min(of.values()) for name, of in marks.items()}
    apart = sorted((name for name, wide in spread.items() if wide > 0), key=lambda name: -spread[name])
    pictures = []
    cluster = {name: str(next(iter(items.values()))["cluster"]) for name, items in by_item.items()}
    for name in _one_of_each(apart, cluster)[:SHOWN]:
        items = by_item[name]
        first = next(iter(items.values()))
        lines = [
            f"{'✓' if marks[name][model] > 0.5 else '✗'} {model}: {str(item['said'][0]).strip()[:60] or DASH}"
            for model, item in items.items()
        ]
        asked = f"{first['question']} " if first.get("question") else ""
        pictures.append(Picture(_thumb(rows[str(first["row"])]), "\n".join([f"{asked}({first['right']})", *lines])))
    if pictures:
        made.grid(pictures, title=Words("questions on which models differ", "各模型答案不一致的题目"), large=True)


def _reply(item: Mapping[str, Any]) -> str:
    """What was said; of a choice the text behind the letter, because letters are drawn anew for each question."""
    said, shown = str(item["said"][0]).strip(), item.get("shown")
    chosen = read_choice(said, shown[0]).choice if shown and said else None
    return f"{said[:20]} ({shown[0][chosen]})" if shown and chosen is not None and len(said) <= 2 else said


def _one_of_each(names: Sequence[str], cluster: Mapping[str, str]) -> list[str]:
    """One question about each picture before a second about any."""
    before: Counter[str] = Counter()
    turn: dict[str, int] = {}
    for name in names:
        turn[name] = before[cluster[name]]
        before[cluster[name]] += 1
    return sorted(names, key=turn.__getitem__)


def _mark(item: Mapping[str, Any], primary: str) -> float:
    """An item's mark between 0 and 1, for finding where models differ."""
    if primary == "error rate":
        wrong, length = item["errors"]
        return float(1 - min(1.0, wrong / max(length, 1)))
    return float(item[primary]) / (10 if primary == "cider-d" else 1)


def _thumb(row: Row) -> bytes:
    try:
        picture = load_image(row.images[0])
    except (IndexError, MediaError):
        return b""
    picture.thumbnail((360, 360))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def told_estimate(e: Estimate, *, sign: bool = False) -> str:
    """A share as per cent with its interval."""
    return interval(e.value, e.low, e.high, sign=sign)


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else f"{value:{form}}"


def _triple(e: Estimate) -> tuple[float, float, float]:
    return 100 * e.value, 100 * e.low, 100 * e.high
