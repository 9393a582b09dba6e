"""A retention curve as one page in both languages."""

from __future__ import annotations

from collections.abc import Sequence

from tonggan.evaluate.resample import Estimate
from tonggan.evaluate.retention import Point, Retention
from tonggan.report import Page, Words, interval
from tonggan.report.page import Said
from tonggan.report.plots import path


def page(curve: Retention, notes: Sequence[Words] = ()) -> Page:
    """The chosen point, the curve with intervals on both axes, and every point as a table."""
    best, keep = curve.chosen, f"{100 * curve.keep:g}"
    made = Page(
        Words("What was gained, and what it cost", "学到了什么，忘掉了多少"),
        Words(
            f"Weights between {curve.untuned} (α = 0) and {curve.tuned} (α = 1): (1 − α) untuned + α tuned.",
            f"在 {curve.untuned}（α = 0）与 {curve.tuned}（α = 1）的权重之间插值：(1 − α) × 微调前 + α × 微调后。",
        ),
    )
    made.part(Words("Chosen", "选出的点"))
    made.text(
        Words(
            f"α = {best.alpha:g}. New skill {_change(best.new_change)} points, old skill {_change(best.old_change)} points against the "
            "untuned model.",
            f"α = {best.alpha:g}。与微调前相比，新能力 {_change(best.new_change)} 个百分点，旧能力 {_change(best.old_change)} 个百分点。",
        )
    )
    if best.alpha == 0:
        made.text(
            Words(
                f"No other point gains within the limit of {keep} points: the untuned model stays.",
                f"在下降不超过 {keep} 个百分点的范围内，没有别的点更好：保留微调前的模型。",
            )
        )
    made.text(
        Words(
            f"The rule: of the points whose old skill fell by at most {keep} points, the one with the best new skill; of equals the one "
            "nearest to the untuned model. "
            + (
                f"Here the whole 95 % interval of the loss is within {keep} points."
                if curve.surely_kept(best)
                else f"The 95 % interval of the loss reaches beyond {keep} points: on these items, a larger loss cannot be ruled out."
            ),
            f"规则：在旧能力下降不超过 {keep} 个百分点的点中，取新能力最好的；若有并列，取离微调前最近的。"
            + (
                f"这里，旧能力变化的整个 95 % 区间都没有超出 {keep} 个百分点的下降。"
                if curve.surely_kept(best)
                else f"旧能力变化的 95 % 区间超出了 {keep} 个百分点：就这些样本而言，不能排除下降更多。"
            ),
        )
    )
    made.text(
        Words(
            "The point was picked on these very items, so its numbers are a little too good; report it on items that took no part.",
            "这个点就是用这些样本选出来的，所以上面的数字略微偏高；要对外报告，请换一批没有参与选择的样本再测。",
        ),
        quiet=True,
    )
    made.part(Words("The curve", "曲线"))
    caption = Words(
        "Beside each point its α; bars are 95 % intervals; the chosen point is red.", "点旁数字为 α，线段为 95 % 区间，红点为选出的点。"
    )
    made.figure(*_figure(curve), caption)
    made.part(Words("Every point", "各点"))
    head: list[Said] = [
        "α",
        Words("new skill, %", "新能力，%"),
        Words("change (95 %)", "变化（95 %）"),
        Words("old skill, %", "旧能力，%"),
        Words("change (95 %)", "变化（95 %）"),
        Words("old kept", "旧能力保住"),
    ]
    made.table(head, [_row(curve, point) for point in curve.points], strong=curve.points.index(best))
    made.text(
        Words(
            f"Kept: it fell by at most {keep} points; surely: the whole interval of its change says so.",
            f"保住：下降不超过 {keep} 个百分点；“确定”：其变化的整个区间也都如此。",
        ),
        quiet=True,
    )
    for name, skill in ((Words("New skill", "新能力"), curve.new), (Words("Old skill", "旧能力"), curve.old)):
        text = f"{skill.metric}, {skill.data}; {skill.protocol}"
        made.text(Words(f"{name.en}: {text}", f"{name.zh}：{text}"), quiet=True)
    for note in notes:
        made.text(note, quiet=True)
    return made


def _figure(curve: Retention) -> tuple[str, str]:
    points = [(f"{point.alpha:g}", *_percent(point.old), *_percent(point.new)) for point in curve.points]
    least = 100 * (curve.points[0].old.value - curve.keep)
    return path(
        points,
        x=Words("old skill, %", "旧能力，%"),
        y=Words("new skill, %", "新能力，%"),
        chosen=curve.points.index(curve.chosen),
        least=(Words("least that is kept", "旧能力下限"), least),
    )


def _percent(e: Estimate) -> tuple[float, float, float]:
    return 100 * e.value, 100 * e.low, 100 * e.high


def _row(curve: Retention, point: Point) -> list[Said]:
    verdict = Words("no", "否")
    if curve.kept(point):
        verdict = Words("surely", "确定") if curve.surely_kept(point) else Words("yes", "是")
    both = [
        cell
        for e, change in ((point.new, point.new_change), (point.old, point.old_change))
        for cell in (f"{100 * e.value:.1f}", _change(change))
    ]
    return [f"{point.alpha:g}", *both, verdict]


def _change(e: Estimate) -> str:
    return interval(e.value, e.low, e.high, sign=True)
