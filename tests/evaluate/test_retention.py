"""The retention curve and the rule that picks a point of it, on outcomes whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tonggan.evaluate.metrics.summary import summary
from tonggan.evaluate.result import Result
from tonggan.evaluate.retention import Retention, retention
from tonggan.evaluate.retention_page import page
from tonggan.types import UsageError


def result(data: str, right: Sequence[int]) -> Result:
    """One item per outcome, each a picture of its own."""
    items = [{"id": str(i), "cluster": i, "task": "zero-shot", "truth": i % 2, "acc1": one} for i, one in enumerate(right)]
    return Result("test/v1", "m", "w", data, "zero-shot acc1", summary(items), items)


def of(hits: int, n: int) -> list[int]:
    return [int(i < hits) for i in range(n)]


def curve(new: Sequence[int], old: Sequence[int], *, keep: float, n: int = 100) -> Retention:
    measured = [
        (number / (len(new) - 1), result("birds", of(a, n)), result("scenes", of(b, n)))
        for number, (a, b) in enumerate(zip(new, old, strict=True))
    ]
    return retention(list(reversed(measured)), untuned="before", tuned="after", keep=keep)


def test_the_rule_takes_the_best_new_skill_of_those_that_keep_the_old() -> None:
    made = curve([20, 40, 60, 70, 80], [90, 90, 89, 85, 40], keep=0.01)
    assert [point.alpha for point in made.points] == [0, 0.25, 0.5, 0.75, 1]
    assert made.chosen.alpha == 0.5
    assert made.chosen.new_change.value == pytest.approx(0.4)
    assert made.chosen.old_change.value == pytest.approx(-0.01)
    assert curve([20, 40, 60, 70, 80], [90, 90, 89, 85, 40], keep=0.05).chosen.alpha == 0.75
    assert curve([20, 40, 60, 70, 80], [90, 90, 89, 85, 40], keep=1).chosen.alpha == 1
    assert curve([20, 40, 60], [90, 50, 10], keep=0).chosen.alpha == 0


def test_of_equals_the_one_nearest_to_the_untuned_model() -> None:
    assert curve([20, 50, 50], [90, 90, 90], keep=0.01).chosen.alpha == 0.5
    assert curve([50, 50, 20], [90, 90, 90], keep=0.01).chosen.alpha == 0


def test_a_gain_in_the_old_skill_is_no_loss_and_the_interval_is_told_apart() -> None:
    made = curve([20, 60, 80], [80, 95, 79], keep=0.01)
    assert made.chosen.alpha == 1
    assert made.kept(made.chosen)
    assert not made.surely_kept(made.chosen)  # one item in a hundred: its interval reaches further down
    assert made.surely_kept(made.points[1])
    assert made.surely_kept(made.points[0])  # the untuned model against itself: exactly nothing
    assert made.points[0].old_change.low == made.points[0].old_change.high == 0


def test_intervals_are_those_of_the_paired_items() -> None:
    """Both models fail on the same 10 of 100: each accuracy is uncertain, their difference is not."""
    made = curve([20, 30], [90, 90], keep=0)
    assert made.points[1].old.high - made.points[1].old.low > 0.05
    assert made.points[1].old_change.low == made.points[1].old_change.high == 0
    assert 0 < made.points[1].new_change.low < 0.1 < made.points[1].new_change.high


def test_what_is_no_curve_is_refused() -> None:
    one, other = result("birds", [1, 0]), result("scenes", [1, 0])
    for measured in ([], [(0.5, one, other)], [(0.0, one, other), (0.0, one, other)]):
        with pytest.raises(UsageError, match="begins with the untuned model"):
            retention(measured, untuned="a", tuned="b")
    with pytest.raises(UsageError, match=r"keep is -0\.1"):
        retention([(0.0, one, other)], untuned="a", tuned="b", keep=-0.1)
    with pytest.raises(UsageError, match="not comparable"):
        retention([(0.0, one, other), (1.0, one, result("scenes", [1, 0, 1]))], untuned="a", tuned="b")


def test_json_and_page_say_what_was_measured(tmp_path: Path) -> None:
    made = curve([20, 40, 60], [90, 90, 60], keep=0.01)
    told = json.loads(made.write(tmp_path / "wise.json").read_text("utf-8"))
    assert told["chosen"] == 0.5
    assert told["rule"].startswith("retention/v1: best new skill")
    assert told["points"][2]["old_change"]["value"] == pytest.approx(-0.3)
    assert told["new"] == {"data": "birds", "metric": "zero-shot acc1", "protocol": "test/v1"}
    text = page(made).html()
    assert text.count('lang="zh"') == text.count('lang="en"') - 1
    assert "α = 0.5. New skill +20.0" in text
    assert "在旧能力下降不超过 1 个百分点的点中" in text
    assert text.count('class="strong"') == 1
    for label in ("old skill, %", "旧能力，%", "least that is kept", "旧能力下限"):
        assert label in text
