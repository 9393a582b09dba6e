"""What the pages say in English and in Chinese: names of classes, and how to read a page."""

from __future__ import annotations

from collections.abc import Mapping

from tonggan.compare.registry.columns import APART, LEAST
from tonggan.report.page import Words

UNKNOWN = Words("unknown", "未知")

_SAID: dict[str, Words] = {
    "CN": Words("CN", "国内"),
    "US": Words("US", "美国"),
    "EU": Words("EU", "欧盟"),
    "UK": Words("UK", "英国"),
    "KR": Words("KR", "韩国"),
    "SG": Words("SG", "新加坡"),
    "SA": Words("SA", "沙特"),
    "IL": Words("IL", "以色列"),
    "SG/US": Words("SG/US", "新加坡／美国"),
    "community": Words("community", "社区"),
    "unknown": UNKNOWN,
    "yes": Words("yes", "可以"),
    "conditions": Words("on conditions", "有条件"),
    "no": Words("no", "不可以"),
    "stays with you": Words("stays with you", "不外传"),
    "in mainland China": Words("in mainland China", "境内"),
    "abroad": Words("abroad", "境外"),
    "two-tower": Words("Two-tower", "双塔"),
    "fusion": Words("Fusion or encoder-decoder", "融合编码器、编码器-解码器"),
    "projector": Words("Projector + LLM", "投影层 + 大语言模型"),
    "cross-attention": Words("Cross-attention LLM", "交叉注意力大语言模型"),
    "unified": Words("Unified or omni", "统一模型、全模态模型"),
    "generation": Words("Diffusion and other generation", "扩散模型及其他生成模型"),
    "api": Words("Closed API", "闭源 API"),
    "other": Words("Other", "其他"),
    "self-reported": Words("self-reported", "自报"),
    "other-vendor-table": Words("another vendor's table", "其他厂商的表格"),
    "uniform-harness": Words("one harness for all", "用同一工具统一评测"),
    "benchmark-authors": Words("the benchmark's authors", "基准作者评测"),
    "independent-arena": Words("independent arena", "独立竞技场"),
    "points/1000": Words("points of 1000", "满分 1000"),
    "score 0-1": Words("0 to 1", "0–1 分"),
    "Elo-like rating": Words("Elo-like rating", "类 Elo 评分"),
}


def said(word: str) -> Words:
    """A word of the tables, or of our classifications, in both languages; an unlisted one stays as it is."""
    return _SAID.get(word, Words(word, word))


def rules(missing: Mapping[str, int]) -> list[Words]:
    """How to read a page, a point each; `missing` counts the unknown `date`, `size`, `licence` and `where`."""
    date, size, licence, where = (missing[what] for what in ("date", "size", "licence", "where"))
    return [
        Words(
            "A domestic model is one whose developer is in mainland China. Origin is a grouping of named models, not a cause of anything: "
            "there is no total for a country.",
            "“国内”指开发者在中国大陆。国内、国外只是对具体模型的分组，不代表任何因果关系；本页不为任何国家计算总分。",
        ),
        Words(
            f"What no source says is unknown and stays so: {date} release dates, {size} sizes, {licence} licences, {where} places where "
            "data goes.",
            f"没有出处的一律写“未知”，不作推测：发布日期未知的有 {date} 个，参数量未知的有 {size} 个，许可证未知的有 {licence} 个，"
            f"数据去向未知的有 {where} 个。",
        ),
        Words(
            "Sizes are in billions of parameters, as the source names them. Active parameters and numbers in brackets are left out.",
            "参数量以十亿（B）为单位，取自出处中的写法；激活参数量和括号里的数字不计入。",
        ),
        Words(
            "Paradigm, commercial use and where data goes are classifications of ours, made by fixed rules from the words of the tables; "
            "read the licence itself before you rely on them. A licence that is stated for the code only leaves that of the weights "
            "unknown. “On conditions” also stands for licences that differ by size. For closed models the contract with the vendor "
            "counts, which is not in the tables: unknown.",
            "范式、能否商用、数据去向是我们按固定规则从表中文字归类的，使用前请阅读许可证原文。只写明代码许可证的，权重的许可证视为未知。"
            "“有条件”也包括不同规格许可证不同的情况。闭源模型能否商用取决于与厂商的合同，表中没有，因此写“未知”。",
        ),
        Words(
            "Where data goes: a model with open weights can run on your own machines, and nothing leaves them. A closed model sends your "
            "data to its vendor: in mainland China at the domestic endpoints of domestic vendors, abroad otherwise. Many domestic vendors "
            "have international endpoints too; the address you call decides.",
            "数据去向：权重公开的模型可以自行部署，数据不外传。使用闭源模型时，数据会发送给厂商：国内厂商的国内端点在境内，其余在境外。"
            "不少国内厂商另有国际端点，以实际调用的地址为准。",
        ),
        Words(
            "Published values share a line only when benchmark, unit, setting and kind of evidence are the same. Where no setting is "
            "stated, only values of one source share a line. Nothing is averaged over benchmarks, settings or kinds of evidence.",
            "只有基准、单位、评测设置和证据类别都相同的结果才放在同一行；未说明设置的，只有同一出处的才放在同一行。"
            "不跨基准、设置或证据类别求平均。",
        ),
        Words(
            f"Medians by origin are given within one line only, when each side has at least {LEAST} releases of known date and the median "
            f"release dates are at most {APART} months apart; otherwise the line says why not. Which models stand in a line was its "
            "publisher's choice, and their sizes differ.",
            f"国内、国外的中位数只在同一行内计算，并且要求双方都至少有 {LEAST} 个发布日期已知的模型系列，发布日期的中位数相差不超过"
            f" {APART} 个月；否则写明不计算的原因。一行里有哪些模型由发布者选择，规模也各不相同。",
        ),
    ]
