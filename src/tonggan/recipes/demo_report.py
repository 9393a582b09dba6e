"""The demo's page: what was measured, pictures of answers and mistakes, and how to go on."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tonggan.data.media import load_image
from tonggan.evaluate import Estimate, Result
from tonggan.report import Page, Picture, Words, interval
from tonggan.report.plots import bars, lines, matrix
from tonggan.search import Hit
from tonggan.types import Row


@dataclass
class Demo:
    """All that the report tells."""

    source: str
    rows: list[Row]
    used: list[str] = field(default_factory=list)
    """Every source that was learnt from."""
    results: dict[str, Result] = field(default_factory=dict)
    differences: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    first: list[tuple[Row, str, float]] = field(default_factory=list)
    """Pictures, the class that the published classifier sees, and how sure it is."""
    answers: list[tuple[str, Row | None, list[Hit]]] = field(default_factory=list)
    """Query words or picture, and what was found."""
    similarity: tuple[list[list[float]], list[str], list[Row]] | None = None
    attribution: str = ""
    onwards: list[str] = field(default_factory=list)
    """Exact commands to go on with."""


NAMES = {
    "adapted": Words("parts, adapted (2 linear heads)", "部件，已适配（两个线性头）"),
    "unadapted": Words("the same parts, unadapted (ConSE)", "同样的部件，未适配（ConSE）"),
    "from scratch": Words("mini model from scratch, same time", "从零训练的小模型，用时相同"),
}


STEPS = {
    "What a published classifier sees": "已发布的分类器看到了什么",
    "The parts as they are": "部件原样使用",
    "Adapting them": "适配：先训练英文头，再学中文",
    "The adapted model": "适配后的模型",
    "A small model from scratch": "从零训练的小模型",
    "An index of all pictures": "为全部图片建索引并搜索",
    "Its models compared": "以上模型的中英文对比",
    "all": "合计",
}
"""How each step of the demo, by the beginning of its English name, is called in Chinese."""


def write_report(told: Demo, where: Path) -> Path:
    """Write `report.html`; gives its path."""
    page = Page(
        Words("Tonggan: what the demo measured", "通感：演示的实测结果"),
        Words(
            f"Pictures and words from {told.source}; {len(told.rows)} concepts that nothing here was trained on. {told.attribution}",
            f"图片和文字来自 {told.source}；{len(told.rows)} 个概念没有参与任何训练。{told.attribution}",
        ),
    )
    _numbers(page, told)
    _search(page, told)
    _mistakes(page, told)
    _training(page, told, where)
    _onwards(page, told)
    return page.write(where / "report.html")


def _numbers(page: Page, told: Demo) -> None:
    page.part(Words("Held-out concepts", "未见过的概念"))
    page.text(
        Words(
            "R@K: the share of queries whose right answer is among the first K. In brackets: 95 % intervals, by resampling pictures "
            "with the gallery fixed. Ties count against the model.",
            "R@K：正确答案排在前 K 名之内的查询所占的比例。括号内是 95 % 置信区间：图库固定，按图片重采样；并列时取对模型最不利的名次。",
        ),
        quiet=True,
    )
    head = [
        Words("model", "模型"),
        *(
            Words(f"{way} R@{k}", f"{zh} R@{k}")
            for way, zh in (("text → picture", "文搜图"), ("picture → text", "图搜文"))
            for k in (1, 5, 10)
        ),
    ]
    rows: list[list[Words | str]] = []
    for name, label in NAMES.items():
        rows.append([label, *_cells(told.results[name], "en")])
    rows.append([Words("adapted, Chinese captions", "已适配，中文描述"), *_cells(told.results["adapted zh"], "zh")])
    chance = told.results["adapted"].metrics
    rows.append([Words("chance", "随机"), *(_percent(chance[f"{d} en R@{k}"].chance or 0) for d in ("t2i", "i2t") for k in (1, 5, 10))])
    page.table(head, rows, strong=0)
    learnt = Words("Chinese was learnt from captions in both languages", "中文是从中英对照的描述中学来的")
    if "cedict" in told.used:
        learnt = Words(
            "Chinese was learnt from captions in both languages and from a dictionary; it knows the words, but has seen no picture",
            "中文是从中英对照的描述和一部词典中学来的；词典认识这些词，但没有见过任何图片",
        )
    page.text(Words(f"{learnt.en}.", f"{learnt.zh}。"), quiet=True)
    head = [Words("adapted minus …, paired", "已适配减去……（配对）"), *head[1:]]
    rows = [
        [NAMES[other], *(_estimate(told.differences[other][f"{d} en R@{k}"], sign=True) for d in ("t2i", "i2t") for k in (1, 5, 10))]
        for other in ("unadapted", "from scratch")
    ]
    page.table(head, rows)
    groups = [f"R@{k}" for k in (1, 5, 10)]
    series: dict[Words, list[tuple[float, float, float]]] = {
        NAMES[name]: [_triple(told.results[name].metrics[f"t2i en R@{k}"]) for k in (1, 5, 10)] for name in NAMES
    }
    page.figure(*bars(groups, series, y=Words("text → picture, %", "文搜图，%")))


def _search(page: Page, told: Demo) -> None:
    page.part(Words("Searches", "搜索"))
    for query, picture, hits in told.answers:
        found = [Picture(hit.thumbnail, f"{hit.title} · {hit.score:.2f}") for hit in hits]
        if picture is None:
            page.grid(found, title=f"“{query}”")
        else:
            page.grid(found, title=Words("by a picture", "以图搜图"), query=Picture(_thumb(picture), picture.texts[0].text))


def _mistakes(page: Page, told: Demo) -> None:
    page.part(Words("Right and wrong", "对与错"))
    result = told.results["adapted"]
    by_id = {row.id: row for row in told.rows}
    items = [item for item in result.items if item["task"] == "t2i en"]
    good = [item for item in items if item["rank"] == 1][:8]
    bad = sorted((item for item in items if item["rank"] > 5), key=lambda item: -item["rank"])[:8]
    page.grid([_shown(by_id, item, True) for item in good], title=Words("found first", "排在第一"))
    page.grid(
        [_shown(by_id, item, False) for item in bad],
        title=Words("worst mistakes: the right picture, its words, its rank", "错得最远的：正确的图片、描述和它的名次"),
    )
    if told.similarity is not None:
        values, captions, some = told.similarity
        short = [c if len(c) <= 34 else c[:33] + "…" for c in captions]
        numbers = [f"{i + 1}" for i in range(len(some))]
        page.figure(
            *matrix(values, short, numbers),
            caption=Words(
                "Cosine of captions (rows) and their pictures 1 to 8 (columns)", "描述（行）与第 1 至 8 张图片（列）的余弦相似度"
            ),
        )


def _shown(by_id: dict[str, Row], item: Mapping[str, Any], right: bool) -> Picture:
    rank = item["rank"]
    return Picture(_thumb(by_id[str(item["cluster"])]), f"{item['query']} · {rank}", right=right)


def _training(page: Page, told: Demo, where: Path) -> None:
    page.part(Words("Training", "训练"))
    english = where / "stages" / "english" / "metrics.jsonl"
    curves = [
        (english, "loss", Words("adapting: English heads", "适配：英文头")),
        (where / "mini" / "metrics.jsonl", "loss", Words("from scratch", "从零训练")),
    ]
    series: dict[Words, tuple[list[float], list[float]]] = {}
    chance = 0.0
    for file, key, label in curves:
        records = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
        points = [(r["seconds"], r[key]) for r in records if key in r]
        chance = max([chance, *(r["chance"] for r in records if "chance" in r)])
        if points:
            series[label] = ([p[0] for p in points], [p[1] for p in points])
    if series:
        page.figure(*lines(series, x=Words("seconds", "秒"), y=Words("loss", "损失"), levels={Words("chance", "随机"): chance}))
    page.table(
        [Words("what", "步骤"), Words("seconds", "秒")],
        [[_step(name), f"{seconds:.0f}"] for name, seconds in told.seconds.items()],
        caption=Words("On this machine, this time", "在本机上，本次运行"),
    )


def _step(name: str) -> Words:
    return Words(name, next((zh for beginning, zh in STEPS.items() if name.startswith(beginning)), name))


def _onwards(page: Page, told: Demo) -> None:
    page.part(Words("Go on", "接下来"))
    page.links(
        [
            (Words("These models compared, in both languages", "以上模型的中英文对比"), "compare/report.html"),
            (Words("Domestic and foreign models: published facts", "国内外模型：公开资料"), "models.html"),
        ]
    )
    page.commands(told.onwards)


def _cells(result: Result, lang: str) -> list[Words | str]:
    return [_estimate(result.metrics[f"{d} {lang} R@{k}"]) for d in ("t2i", "i2t") for k in (1, 5, 10)]


def _estimate(e: Estimate, sign: bool = False) -> str:
    return interval(e.value, e.low, e.high, sign=sign)


def _triple(e: Estimate) -> tuple[float, float, float]:
    return 100 * e.value, 100 * e.low, 100 * e.high


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _thumb(row: Row) -> bytes:
    picture = load_image(row.images[0])
    picture.thumbnail((160, 160))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=82)
    return out.getvalue()
