"""Logistic regression against scikit-learn's, and the search for its penalty against trying every value."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tonggan.evaluate.logistic import Logistic, _peak, first, fit, sweep, value_of
from tonggan.types import UsageError


def drawn(seed: int, n: int = 90, d: int = 7, classes: int = 4) -> tuple[np.ndarray, list[str]]:
    """Overlapping classes around points of their own, on features of very different size."""
    rng = np.random.default_rng(seed)
    number = np.arange(n) % classes
    x = rng.normal(size=(classes, d))[number] + rng.normal(size=(n, d))
    return x * np.geomspace(0.5, 2, d) + 2, [f"k{i}" for i in number]


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_weights_and_probabilities_are_scikit_learns(c: float, classes: int) -> None:
    x, y = drawn(1, classes=classes)
    mine = fit(x, y, c=c)
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, y)
    assert mine.converged and list(mine.classes) == theirs.classes_.tolist()
    assert mine.probabilities(x) == pytest.approx(theirs.predict_proba(x), abs=1e-4)
    # Two classes have one vector there: ours are told apart by the difference of two.
    weights, intercept = (mine.weights, mine.intercept) if classes > 2 else (np.diff(mine.weights, axis=0), np.diff(mine.intercept))
    assert weights == pytest.approx(theirs.coef_, abs=1e-4)
    assert intercept - intercept.mean() == pytest.approx(theirs.intercept_ - theirs.intercept_.mean(), abs=1e-3)


@pytest.mark.parametrize("c", [1e-6, 1e-3])
def test_a_strong_penalty_is_no_obstacle(c: float) -> None:
    x, y = drawn(2, n=200)
    mine, theirs = fit(x, y, c=c), LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, y)
    assert mine.converged and mine.iterations < 100
    assert mine.weights == pytest.approx(theirs.coef_, rel=1e-3, abs=1e-8)


def test_more_features_than_rows() -> None:
    x, y = drawn(3, n=12, d=60, classes=3)
    mine = fit(x, y, c=0.1)
    assert mine.weights == pytest.approx(LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(x, y).coef_, abs=1e-4)


def test_the_order_of_rows_does_not_matter() -> None:
    x, y = drawn(4, n=40, d=3)
    order = np.random.default_rng(0).permutation(len(y))
    one, other = fit(x, y), fit(x[order], [y[i] for i in order])
    assert one.scores(x) == pytest.approx(other.scores(x), abs=1e-6)
    assert sweep(x, y, x, y) == sweep(x[order], [y[i] for i in order], x, y)


def test_the_order_of_classes_is_as_asked() -> None:
    x, y = drawn(5)
    turned = fit(x, y, classes=["k3", "k2", "k1", "k0"])
    assert turned.scores(x)[:, ::-1] == pytest.approx(fit(x, y).scores(x), abs=1e-3)


def test_an_outer_no_grad_does_not_stop_it() -> None:
    import torch

    x, y = drawn(6)
    with torch.no_grad():
        assert fit(x, y).converged


def test_a_weak_penalty_ends_after_its_iterations_and_says_so() -> None:
    x, y = drawn(7)
    assert not fit(x, y, c=1e6, iterations=3).converged
    assert fit(x, y, c=1e6, iterations=3).iterations == 3


def test_what_cannot_be_fitted_is_told() -> None:
    x, y = drawn(8, n=6, classes=2)
    with pytest.raises(UsageError, match="class 'bird' has no row to learn from"):
        fit(x, y, classes=["bird", "k0", "k1"])
    with pytest.raises(UsageError, match="label 'k1' is not among the classes"):
        fit(x, y, classes=["k0"])
    with pytest.raises(UsageError, match=r"one class only \(k0\)"):
        fit(x, ["k0"] * 6)
    with pytest.raises(UsageError, match="one label to each row"):
        fit(x, y[:-1])
    with pytest.raises(UsageError, match="C is 0"):
        fit(x, y, c=0)
    x[3, 2] = np.nan
    with pytest.raises(UsageError, match="features of row 3"):
        fit(x, y)


# ------------------------------------------------------------------------------------------- choosing C


def test_the_search_finds_the_peak_of_a_hill() -> None:
    """Any place of one hill is found with 15 trials, not 97."""
    for top in range(-48, 49):
        tried: list[int] = []

        def quality(place: int, top: int = top, tried: list[int] = tried) -> tuple[float, float]:
            tried.append(place)
            return -abs(place - top), 0.0

        assert _peak(quality) == top
        assert len(tried) <= 15 and all(-48 <= place <= 48 for place in tried)


def test_equal_ones_are_told_apart_by_cross_entropy_then_the_smaller_c() -> None:
    assert _peak(lambda place: (1.0, -abs(place - 5.0))) == 5
    assert _peak(lambda place: (1.0, 0.0)) == -48
    assert value_of(-48) == pytest.approx(1e-6) and value_of(0) == 1 and value_of(48) == pytest.approx(1e6)


def test_the_chosen_c_is_as_good_as_the_powers_of_a_hundred() -> None:
    x, y = drawn(9, n=60, d=30)
    val, truth = drawn(9, n=160, d=30)
    val = val + np.random.default_rng(1).normal(size=val.shape)
    chosen = fit(x, y, c=sweep(x, y, val, truth)).quality(val, truth)
    assert chosen >= max(fit(x, y, c=10.0**power).quality(val, truth) for power in range(-6, 7, 2))


def test_quality_is_accuracy_and_cross_entropy() -> None:
    from sklearn.metrics import accuracy_score, log_loss

    x, y = drawn(10)
    fitted = fit(x, y)
    accuracy, likelihood = fitted.quality(x, y)
    assert accuracy == pytest.approx(accuracy_score(y, np.array(fitted.classes)[fitted.scores(x).argmax(axis=1)]))
    assert -likelihood == pytest.approx(log_loss(y, fitted.probabilities(x)))


def test_a_tie_counts_against_the_classifier() -> None:
    same = Logistic(("a", "b"), np.zeros((2, 3)), np.zeros(2), 1.0, 0, True)
    assert same.quality(np.ones((4, 3)), ["a", "b", "a", "b"])[0] == 0
    assert first(np.array([[1.0, 1.0], [2.0, 1.0]]), np.array([0, 0])).tolist() == [False, True]


def test_validation_rows_are_checked() -> None:
    x, y = drawn(11)
    with pytest.raises(UsageError, match="'new' is among the validation rows"):
        sweep(x, y, x[:1], ["new"])
    with pytest.raises(UsageError, match="there are none"):
        sweep(x, y, x[:0], [])
