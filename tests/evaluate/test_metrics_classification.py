"""Balanced accuracy, average precision and F1 against scikit-learn, with resampling as its sample weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, precision_score, recall_score

from tonggan.evaluate.metrics.classification import (
    average_precision,
    average_precision_11,
    balanced_accuracy,
    class_hits,
    f1,
    mean_over_classes,
    precision,
    recall,
)
from tonggan.types import UsageError


def once(n: int) -> np.ndarray:
    return np.ones((1, n))


def scored(seed: int, n: int = 40) -> tuple[np.random.Generator, np.ndarray]:
    """Scores rounded so that ties happen, and whether each is positive."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    positive[0] = True
    return rng, np.stack([np.round(rng.normal(size=n) + positive, 1), positive], axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_scikit_learns(seed: int) -> None:
    rng, values = scored(seed)
    times = rng.multinomial(40, np.full(40, 1 / 40), size=6)
    times[:, 0] += 1  # one positive at least
    found = average_precision(values, times)
    assert average_precision(values, once(40)) == pytest.approx(average_precision_score(values[:, 1], values[:, 0]), abs=1e-9)
    assert found == pytest.approx([average_precision_score(values[:, 1], values[:, 0], sample_weight=row) for row in times], abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_mean_average_precision(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.stack([np.round(rng.normal(size=(30, 4)), 1), rng.random((30, 4)) < 0.4], axis=2)
    expected = average_precision_score(values[:, :, 1], values[:, :, 0], average="macro")
    assert mean_over_classes(average_precision)(values, once(30)) == pytest.approx(expected, abs=1e-9)
    values[:, 2, 1] = 0  # a class without positives is left out
    rest = average_precision_score(values[:, [0, 1, 3], 1], values[:, [0, 1, 3], 0], average="macro")
    assert mean_over_classes(average_precision)(values, once(30)) == pytest.approx(rest, abs=1e-9)


def test_torchmetrics_average_precision() -> None:
    functional: Any = pytest.importorskip(
        "torchmetrics.functional.classification", reason="torchmetrics is not installed: scikit-learn stands in"
    )
    import torch

    _, values = scored(9)
    expected = functional.binary_average_precision(torch.tensor(values[:, 0]), torch.tensor(values[:, 1].astype(int)), thresholds=None)
    assert average_precision(values, once(40)) == pytest.approx(expected.item(), rel=1e-6)


def test_eleven_points_by_hand() -> None:
    """Right, wrong, right, wrong: precision 1 up to recall 0.5, then 2/3."""
    values = np.array([[4, 1], [3, 0], [2, 1], [1, 0]])
    assert average_precision_11(values, once(4)) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert average_precision(values, once(4)) == pytest.approx((1 + 2 / 3) / 2)
    # 3 of 10 reach a recall of 0.3, although 3 * 0.1 is a little more in floating point.
    ten = np.stack([np.arange(13)[::-1], [1, 1, 1, 0, 0, 0, *[1] * 7]], axis=1)
    assert average_precision_11(ten, once(13)) == pytest.approx((4 * 1 + 7 * 10 / 13) / 11)


def test_a_score_that_is_not_a_number_helps_nobody() -> None:
    values = np.array([[2.0, 1], [1.0, 0]])
    for i, expected in ((0, 1 / 2), (1, 1 / 2)):
        broken = values.copy()
        broken[i, 0] = np.nan
        assert average_precision(broken, once(2)) == pytest.approx(expected)


def test_no_positive_has_no_average_precision() -> None:
    values = np.array([[1.0, 0], [2.0, 0]])
    assert np.isnan(average_precision(values, once(2))).all()
    assert np.isnan(average_precision_11(values, once(2))).all()


@settings(deadline=None)
@given(seed=st.integers(0, 1000))
def test_average_precision_does_not_see_the_order_and_not_the_scale(seed: int) -> None:
    rng, values = scored(seed, n=15)
    shuffled = rng.permutation(values)
    shuffled[:, 0] = 3 * shuffled[:, 0] - 7
    for statistic in (average_precision, average_precision_11):
        assert statistic(shuffled, once(15)) == pytest.approx(statistic(values, once(15)))
        assert statistic(np.repeat(values, 2, axis=0), once(30)) == pytest.approx(statistic(values, 2 * once(15)))
        assert 0 < statistic(values, once(15))[0] <= 1


@pytest.mark.parametrize("seed", range(4))
def test_balanced_accuracy_and_f1_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, guess = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    assert balanced_accuracy(class_hits(truth.tolist(), guess.tolist()), once(50)) == pytest.approx(
        balanced_accuracy_score(truth, guess), abs=1e-9
    )
    yes = np.stack([guess > 1, truth > 1], axis=1).astype(float)
    times = rng.multinomial(50, np.full(50, 1 / 50), size=4)
    for ours, theirs in ((f1, f1_score), (precision, precision_score), (recall, recall_score)):
        assert ours(yes, once(50)) == pytest.approx(theirs(yes[:, 1], yes[:, 0]), abs=1e-9)
        assert ours(yes, times) == pytest.approx([theirs(yes[:, 1], yes[:, 0], sample_weight=row) for row in times], abs=1e-9)


def test_no_yes_at_all_scores_0() -> None:
    values = np.zeros((3, 2))
    assert [statistic(values, once(3))[0] for statistic in (precision, recall, f1)] == [0, 0, 0]


def test_labels_must_pair() -> None:
    with pytest.raises(UsageError, match="one to each item"):
        class_hits(["cat"], [])
