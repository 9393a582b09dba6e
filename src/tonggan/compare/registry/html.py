"""The registry's facts as one page that opens offline, its tables sortable, in both languages."""

from __future__ import annotations

from tonggan.compare.registry.facts import PARADIGMS
from tonggan.compare.registry.loading import AS_OF, load
from tonggan.compare.registry.said import UNKNOWN, rules, said
from tonggan.compare.registry.store import Registry
from tonggan.report import Page, Words
from tonggan.report.page import Said


def facts_page(registry: Registry | None = None) -> Page:
    """Every model by paradigm and date; the shipped tables unless others are given."""
    known = registry or load()
    models = list(known.models.values())
    count = {origin: sum(model.origin == origin for model in models) for origin in ("CN", "foreign", "unknown")}
    made = Page(
        Words("Domestic and foreign multimodal models", "国内外多模态模型对比"),
        Words(
            f"Facts as of {AS_OF}: {len(models)} releases ({count['CN']} domestic, {count['foreign']} foreign, {count['unknown']} of "
            f"unknown origin), {len(known.results)} published results. Sources and results: tonggan models show MODEL.",
            f"数据截至 {AS_OF}：共 {len(models)} 个模型系列（国内 {count['CN']} 个，国外 {count['foreign']} 个，国别未知 "
            f"{count['unknown']} 个）、{len(known.results)} 条公开结果。出处和结果见 tonggan models show 模型名。",
        ),
    )
    head: list[Said] = [
        Words("Model", "模型"),
        Words("Origin", "国别"),
        Words("Released", "发布"),
        Words("Billion parameters", "参数量（B）"),
        Words("Licence", "许可证"),
        Words("Commercial use", "商用"),
        Words("Your data", "数据去向"),
    ]
    for paradigm in PARADIGMS:
        its = sorted((m for m in models if m.family == paradigm), key=lambda m: (m.released or "9999", m.name.lower()))
        rows: list[list[Said]] = [
            [
                Words(model.name, f"{model.name}（{model.name_zh}）" if model.name_zh else model.name),
                said(model.country or "unknown"),
                model.released or UNKNOWN,
                ", ".join(f"{size:g}" for size in model.sizes) or UNKNOWN,
                model.licence or UNKNOWN,
                said(model.commercial),
                said(model.data_goes),
            ]
            for model in its
        ]
        if rows:
            made.part(said(paradigm))
            made.table(head, rows)
    made.part(Words("How to read it", "阅读说明"))
    for rule in rules(known.missing):
        made.text(rule, quiet=True)
    return made
