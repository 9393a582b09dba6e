"""The page that a comparison leaves behind: it opens offline, in both languages."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from tonggan.compare.about import PLACES, About, reading_of
from tonggan.compare.pairs import Pair, gap
from tonggan.compare.registry.facts import months
from tonggan.compare.registry.said import said
from tonggan.compare.report_tasks import DASH, MODEL, TASK, task_part, told_estimate
from tonggan.compare.runner import Compared
from tonggan.report import Page, Words
from tonggan.report.page import Said


def page(told: Compared, about: Mapping[str, About] | None = None) -> Page:
    """Scores, what they took, slices, differences, the languages' gap, and the questions on which models differ."""
    known = about or {}
    made = Page(
        Words("Models compared", "模型对比"),
        Words(
            "The same items for every model. In brackets: 95 % intervals, by resampling pictures with the gallery fixed. "
            "Scores of models that were asked in different ways stand in one table, but are not ranked against each other.",
            "所有模型使用相同的题目。括号内是 95 % 置信区间：图库固定，按图片重采样。提问方式不同的模型列在同一张表里，但不互相排名。",
        ),
    )
    if any(one.release is not None or one.data in ("mainland", "abroad") for one in known.values()):
        _models(made, told, known)
    for task in told.tasks:
        task_part(made, told, task, known)
    _pairs(made, told)
    _languages(made, told)
    return made


# ------------------------------------------------------------------------------------------------ models


def _models(made: Page, told: Compared, about: Mapping[str, About]) -> None:
    """Who made each model and when: origin groups named models, it is no score of its own."""
    made.part(Words("The models", "参评模型"))
    head: list[Said] = [
        MODEL,
        Words("origin", "国别"),
        Words("developer", "开发者"),
        Words("released", "发布"),
        Words("licence", "许可证"),
        Words("commercial use", "可否商用"),
        Words("data goes to", "数据去向"),
    ]
    rows: list[list[Said]] = []
    for model in sorted(told.models, key=lambda name: _when(about.get(name, About()))):
        one = about.get(model, About())
        release = one.release
        unknown: Said = PLACES["unknown"]
        rows.append(
            [
                model,
                one.origin,
                unknown if release is None or release.developer is None else release.developer,
                unknown if release is None or release.released is None else _released(release.released, one.moving),
                unknown if release is None or release.licence is None else release.licence,
                unknown if release is None else said(release.commercial),
                PLACES[one.data],
            ]
        )
    made.table(head, rows)
    dates = {
        origin: [
            months(one.release.released) for one in about.values() if one.release and one.release.released and one.release.origin == origin
        ]
        for origin in ("CN", "foreign")
    }
    if all(dates.values()):
        apart = abs(statistics.median(dates["CN"]) - statistics.median(dates["foreign"]))
        made.text(
            Words(
                f"Origin groups these named models and is not averaged: their median release dates are {apart:.0f} months apart.",
                f"国别只用于给这些具名模型分组，不作平均：两组发布日期的中位数相差 {apart:.0f} 个月。",
            ),
            quiet=True,
        )


def _released(date: str, moving: bool) -> Said:
    """A name without a date of its own stands for a newer snapshot every few months."""
    return Words(f"{date} or later", f"{date} 或更晚") if moving else date


def _when(one: About) -> tuple[str, str]:
    release = one.release
    return (release.origin if release else "unknown", (release.released if release else None) or "9999")


# ------------------------------------------------------------------------------------- across the tasks


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
        TASK,
        Words("difference, points", "差异，百分点"),
        "p",
        "Holm",
        "McNemar",
        Words("detectable", "可检出"),
    ]
    rows: list[list[Said]] = [
        [
            f"{told.label(pair.one)} − {told.label(pair.other)}",
            pair.task,
            _difference(pair),
            f"{pair.p:.4f}",
            f"{pair.adjusted:.4f}",
            DASH if pair.exact is None else f"{pair.exact:.4f}",
            DASH if pair.detectable is None else f"{100 * pair.detectable:.1f}",
        ]
        for pair in told.pairs
    ]
    for one in told.apart:
        why = (
            Words("asked differently: not compared", "提问方式不同，不作比较")
            if one.why == "asked differently"
            else Words(one.why, f"不作比较：{one.why}")
        )
        rows.append([f"{told.label(one.one)} − {told.label(one.other)}", one.task, why, *[DASH] * 4])
    made.table(head, rows)


def _difference(pair: Pair) -> Said:
    told = told_estimate(pair.difference, sign=True)
    left = pair.left_out
    return Words(f"{told}, {left} failed items left out", f"{told}，{left} 道请求失败的题未计入") if left else told


def _languages(made: Page, told: Compared) -> None:
    """Chinese beside English: scores, tokens per character, texts that were cut."""
    rows: list[list[Said]] = []
    for task in told.tasks:
        for model, result in told.results(task.name).items():
            difference, read = gap(result), reading_of(told.cells[task.name, model])
            if difference is None and not {"zh", "en"} <= set(read):
                continue
            texts = [read.get(lang, {}) for lang in ("zh", "en")]
            rows.append(
                [
                    told.label(model),
                    task.name,
                    Words("native", "原生") if task.native else Words("translated or unknown", "译文或未知"),
                    DASH if difference is None else told_estimate(difference, sign=True),
                    *(f"{one['per character']:.2f}" if one else DASH for one in texts),
                    *(f"{one['cut']} / {one['texts']}" if one.get("cut") is not None else DASH for one in texts),
                ]
            )
    if not rows:
        return
    made.part(Words("Chinese and English", "中文与英文"))
    made.text(
        Words(
            "Chinese minus English. Questions of pages-zh-en are written in each language, neither is a translation, and some kinds "
            "of page are in one language only (vertical text in Chinese, notes in English); captions of the other suites are "
            "translations. Tokens per character: how finely a model's tokenizer cuts each language (of chat models with the words "
            "around a question).",
            "中文减英文。pages-zh-en 的题目由两种语言各自原生编写，互不为译文，个别类型只有一种语言（竖排文字只有中文，便条只有英文）；"
            "其余各套的描述是译文。每字符词元数：模型的分词器把每种语言切得多细（对话模型含问题前后的固定用语）。",
        ),
        quiet=True,
    )
    head: list[Said] = [
        MODEL,
        TASK,
        Words("items", "题目"),
        Words("gap, points", "差距，百分点"),
        Words("tokens per character, zh", "每字符词元数，中文"),
        Words("en", "英文"),
        Words("texts cut, zh", "被截断的文本，中文"),
        Words("en", "英文"),
    ]
    made.table(head, rows)
