"""`docs/comparison.md` and `docs/zh/comparison.md`, written from the shipped tables: `python -m tonggan.compare.registry.pages docs`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from tonggan.compare.registry.columns import Medians, Shown, columns
from tonggan.compare.registry.facts import PARADIGMS, ModelFacts
from tonggan.compare.registry.loading import AS_OF, load
from tonggan.compare.registry.said import UNKNOWN, rules, said
from tonggan.compare.registry.store import Registry
from tonggan.report.page import Words

Language: TypeAlias = Literal["en", "zh"]
Say: TypeAlias = Callable[[Words], str]

BENCHMARKS = (
    "MMMU val", "MathVista testmini", "OCRBench", "HallusionBench avg", "MMBench-CN test", "VCR ZH easy",
    "LMArena Vision rating (all)", "LMArena Vision rating (zh)", "Multilingual MSCOCO T2I R@1 (zh)", "GenEval overall", "VBench total",
)  # fmt: skip
"""Shown on the pages: understanding, reading, hallucination, Chinese, preference, retrieval, drawing, video."""
_COLUMNS_SHOWN = 3
_EACH = 2
"""Models that each origin must have in a column that is shown."""

_COMMA = Words(", ", "、")


def page(language: Language, registry: Registry | None = None) -> str:
    """The whole page in one language, from the shipped tables unless others are given."""
    known = registry or load()
    en = language == "en"

    def say(words: Words) -> str:
        return words.en if en else words.zh

    parts = [_head(known, say), _by_date(known, say), _by_paradigm(known, say), _results(known, say)]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def write(docs: Path) -> list[Path]:
    """Write both pages into the directory of the documents; gives their paths."""
    files: dict[Language, Path] = {"en": docs / "comparison.md", "zh": docs / "zh" / "comparison.md"}
    for language, file in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page(language), encoding="utf-8")
    return list(files.values())


def _head(known: Registry, say: Say) -> list[str]:
    models = list(known.models.values())
    count = {origin: sum(model.origin == origin for model in models) for origin in ("CN", "foreign", "unknown")}
    missing = known.missing
    return [
        say(Words("# Domestic and foreign multimodal models", "# 国内外多模态模型对比")),
        "",
        say(
            Words(
                f"Facts as of {AS_OF}: {len(models)} releases ({count['CN']} domestic, {count['foreign']} foreign, {count['unknown']} of "
                f"unknown origin) and {len(known.results)} published results. This page is generated from "
                "`src/tonggan/compare/registry/models.tsv` and `src/tonggan/compare/registry/benchmarks.tsv`; "
                "there every line has its source.",
                f"数据截至 {AS_OF}：共 {len(models)} 个模型系列（国内 {count['CN']} 个，国外 {count['foreign']} 个，"
                f"国别未知 {count['unknown']} 个）、{len(known.results)} 条公开结果。本页由 `src/tonggan/compare/registry/models.tsv` 和 "
                "`src/tonggan/compare/registry/benchmarks.tsv` 自动生成，表中每一行都注明出处。",
            )
        ),
        "",
        say(Words("[中文](zh/comparison.md)", "[English](../comparison.md)")),
        "",
        say(Words("## How to read it", "## 阅读说明")),
        "",
        *(f"- {say(words)}" for words in rules(missing)),
        "",
        say(Words("Ask the same facts on the command line:", "在命令行中查询同样的内容：")),
        "",
        "```bash",
        "tonggan models ls --origin CN --licence permissive --largest 10 --capability watch",
        "tonggan models show qwen2.5-vl",
        'tonggan models compare qwen2.5-vl gpt-4o --benchmark "MMMU val"',
        "tonggan models add my-newer-rows.tsv",
        "```",
        "",
    ]


def _by_date(known: Registry, say: Say) -> list[str]:
    dated = [model for model in known.models.values() if model.released]
    halves = sorted({_half(model) for model in dated})
    out = [
        say(Words("## By date", "## 按发布日期")),
        "",
        say(
            Words(
                "Half-years of release; within them by month. Models without a known date are in the tables by paradigm.",
                "按半年排列，半年之内按月份排列。发布日期未知的模型见下面按范式的表格。",
            )
        ),
        "",
        *_table_head(say, Words("Released", "发布时间"), Words("Domestic", "国内"), Words("Foreign", "国外"), Words("Unknown", "国别未知")),
    ]
    for half in halves:
        its = sorted((model for model in dated if _half(model) == half), key=lambda m: (m.released or "", m.name.lower()))
        sides = (say(_COMMA).join(_name(model, say) for model in its if model.origin == origin) for origin in ("CN", "foreign", "unknown"))
        year, number = half
        name = Words(f"{year}, {'first' if number == 1 else 'second'} half", f"{year} 年{'上' if number == 1 else '下'}半年")
        out.append(_row([say(name), *sides]))
    return [*out, ""]


def _by_paradigm(known: Registry, say: Say) -> list[str]:
    out = [
        say(Words("## By paradigm", "## 按范式")),
        "",
        say(
            Words(
                "The newest last, those of unknown date at the end. “Licence” is in the words of the source.",
                "按发布日期从早到晚排列，日期未知的放在最后。“许可证”一栏保留出处的原文。",
            )
        ),
        "",
    ]
    heads = (
        Words("Model", "模型"), Words("Origin", "国别"), Words("Released", "发布"), Words("Billion parameters", "参数量（B）"),
        Words("Licence", "许可证"), Words("Commercial use", "商用"), Words("Your data", "数据去向"),
    )  # fmt: skip
    for paradigm in PARADIGMS:
        its = [model for model in known.models.values() if model.family == paradigm]
        if its:
            out += [f"### {say(said(paradigm))}", "", *_table_head(say, *heads)]
            out += [_model_row(model, say) for model in sorted(its, key=lambda m: (m.released or "9999", m.name.lower()))]
            out.append("")
    return out


def _model_row(model: ModelFacts, say: Say) -> str:
    unknown = say(UNKNOWN)
    return _row(
        [
            _name(model, say),
            say(said(model.country or "unknown")),
            model.released or unknown,
            ", ".join(f"{size:g}" for size in model.sizes) or unknown,
            model.licence or unknown,
            say(said(model.commercial)),
            say(said(model.data_goes)),
        ]
    )


def _results(known: Registry, say: Say) -> list[str]:
    out = [
        say(Words("## Published results side by side", "## 公开结果对照")),
        "",
        say(
            Words(
                f"Of each benchmark at most {_COLUMNS_SHOWN} lines are shown: those with most models, among the lines in which each side "
                f"has {_EACH} models or more. All lines, with the source of every value: `tonggan models compare --benchmark NAME`. A gap "
                "of one or two points is within the sampling error of most benchmarks.",
                f"每个基准最多列出 {_COLUMNS_SHOWN} 行：在双方都至少有 {_EACH} 个模型的行中，取模型最多的几行。全部结果及每个数值的出处见 "
                "`tonggan models compare --benchmark 名称`。对大多数基准来说，一两分的差距在抽样误差之内。",
            )
        ),
        "",
    ]
    heads = (
        Words("Setting, evidence, source", "设置、证据类别、出处"),
        Words("Domestic", "国内"),
        Words("Foreign", "国外"),
        Words("Medians", "中位数"),
    )
    for benchmark in BENCHMARKS:
        shown = [one for one in columns((r for r in known.results if r.benchmark == benchmark), known.models) if _both(one, known)]
        if not shown:
            continue
        out += [f"### {benchmark} · {say(said(shown[0].column.unit))}", ""]
        out += [*_table_head(say, *heads), *(_result_row(one, known, say) for one in shown[:_COLUMNS_SHOWN]), ""]
    return out


def _both(shown: Shown, known: Registry) -> bool:
    origins = [known.models[name.partition("/")[0]].origin for name in shown.models]
    return min(origins.count("CN"), origins.count("foreign")) >= _EACH


def _result_row(shown: Shown, known: Registry, say: Say) -> str:
    column = shown.column
    sources = list(dict.fromkeys(_short(result.source) for result in shown.results))
    setting = column.setting or say(Words("setting not stated", "未说明设置"))
    origin = {result.model: known.models[result.release].origin for result in shown.results}
    sides = (
        "<br>".join(dict.fromkeys(f"{result.model} {result.written}" for result in shown.results if origin[result.model] == side))
        for side in ("CN", "foreign")
    )
    found = shown.medians
    if isinstance(found, Medians):
        apart = abs(found.months_apart)
        told = Words(
            f"domestic {found.domestic:g} ({found.models[0]} models of known date), foreign {found.foreign:g} ({found.models[1]}); "
            f"median dates {apart:g} month{'s' * (apart != 1)} apart",
            f"国内 {found.domestic:g}（{found.models[0]} 个日期已知的模型），国外 {found.foreign:g}（{found.models[1]} 个）；"
            f"发布日期的中位数相差 {apart:g} 个月",
        )
    else:
        told = found
    return _row(["<br>".join([setting, say(said(column.evidence)), *sources]), *sides, say(told)])


def _half(model: ModelFacts) -> tuple[int, int]:
    released = model.released or ""
    return int(released[:4]), 1 if released[5:7] <= "06" else 2


def _name(model: ModelFacts, say: Say) -> str:
    return say(Words(model.name, f"{model.name}（{model.name_zh}）" if model.name_zh else model.name))


def _short(source: str) -> str:
    return re.sub(r"^github\.com/", "", source)


def _table_head(say: Say, *heads: Words) -> list[str]:
    return [_row([say(head) for head in heads]), "|" + "---|" * len(heads)]


def _row(cells: Iterable[str]) -> str:
    # A bar would end the cell; stars, tildes and underscores in pairs would format it.
    return "| " + " | ".join(re.sub(r"([|*~_`])", r"\\\1", cell) for cell in cells) + " |"


def main(arguments: Sequence[str]) -> None:
    """Write the pages into the directory named (`docs`)."""
    for file in write(Path(arguments[0] if arguments else "docs")):
        sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
