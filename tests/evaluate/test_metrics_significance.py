"""Paired tests: their level under no difference, their power for a planted one, what a model against itself gives, and scipy's values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from tonggan.evaluate.metrics.captioning import bleu, bleu_counts
from tonggan.evaluate.metrics.speech import error_rate
from tonggan.evaluate.resample import Measure, mean, mean_interval
from tonggan.evaluate.significance import (
    Comparison,
    bootstrap_test,
    expected_error,
    holm,
    mcnemar,
    minimum_detectable,
    permutation_test,
    power,
    standard_error,
)
from tonggan.types import UsageError

Test = Callable[[np.ndarray, np.ndarray, np.ndarray, int], Comparison]
TESTS: dict[str, Test] = {
    "bootstrap": lambda a, b, clusters, seed: bootstrap_test(Measure(mean, a, b), clusters, resamples=199, seed=seed),
    "permutation": lambda a, b, clusters, seed: permutation_test(Measure(mean, a, b), clusters, resamples=199, seed=seed),
    "mcnemar": lambda a, b, clusters, seed: mcnemar(a, b, clusters),
}


def equal_models(rng: np.random.Generator, pictures: int = 80, questions: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models that are right on 60 % each; each finds pictures of its own easy or hard, so questions on one go together."""
    outcomes = []
    for _ in range(2):
        chance = np.repeat(rng.choice([0.35, 0.85], size=pictures), questions)
        outcomes.append((rng.random(len(chance)) < chance).astype(float))
    return outcomes[0], outcomes[1], np.repeat(np.arange(pictures), questions)


@pytest.mark.parametrize("name", TESTS)
def test_equal_models_are_rarely_told_apart(name: str) -> None:
    rng = np.random.default_rng(0)
    rejected = sum(TESTS[name](*equal_models(rng), seed).p <= 0.05 for seed in range(200))
    assert rejected <= 20  # 10 are expected


def test_ignoring_the_pictures_tells_equal_models_apart() -> None:
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(200):
        a, b, _ = equal_models(rng)
        rejected += mcnemar(a, b, range(len(a))).p <= 0.05
    assert rejected > 20


@pytest.mark.parametrize("name", TESTS)
def test_a_planted_difference_is_found_as_often_as_computed(name: str) -> None:
    """5 points on 500 questions, of which 15 % only one model gets right: power 0.83 at level 0.05."""
    n, discordance, difference = 500, 0.15, 0.05
    expected = power(difference, expected_error(n, discordance, difference))
    assert expected == pytest.approx(0.829, abs=0.001)
    rng, found = np.random.default_rng(1), 0
    for seed in range(200):
        u = rng.random(n)
        only_one = (u < (discordance + difference) / 2, (u >= (discordance + difference) / 2) & (u < discordance))
        both = u > 0.5
        a, b = ((only | both).astype(float) for only in only_one)
        found += TESTS[name](a, b, np.arange(n) if name == "mcnemar" else np.arange(n) // 5, seed).p <= 0.05
    assert abs(found / 200 - expected) <= 3 * np.sqrt(expected * (1 - expected) / 200)


OUTCOMES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 4)), min_size=2, max_size=20).filter(
    lambda rows: len({row[2] for row in rows}) > 1
)


@pytest.mark.parametrize("name", TESTS)
@settings(deadline=None)
@given(rows=OUTCOMES)
def test_oneself_and_swapping(name: str, rows: list[tuple[int, int, int]]) -> None:
    a, b, clusters = np.array(rows, dtype=float).T
    same = TESTS[name](a, a, clusters, 0)
    assert (same.difference, same.p) == (0, 1)
    one, other = TESTS[name](a, b, clusters, 0), TESTS[name](b, a, clusters, 0)
    assert one.difference == -other.difference
    assert one.p == other.p


@pytest.mark.parametrize("test", [bootstrap_test, permutation_test])
def test_graded_scores_of_a_model_against_itself(test: Callable[..., Comparison]) -> None:
    """Thirds are not exact in floating point: what rounding leaves of 0 must not look like a difference."""
    values = np.random.default_rng(0).integers(0, 4, 31) / 3
    found = test(Measure(mean, values, values), np.arange(31) // 2, resamples=99)
    assert (found.difference, found.p) == (0, 1)


@pytest.mark.parametrize("test", [bootstrap_test, permutation_test])
def test_any_statistic_can_be_tested(test: Callable[..., Comparison]) -> None:
    references = [[["a", "dog", "runs", str(i)]] for i in range(30)]
    good = bleu_counts([refs[0] for refs in references], references)
    bad = bleu_counts([["a", "cat", "runs"] for _ in references], references)
    found = test(Measure(bleu(2), good, bad), range(30), resamples=199)
    assert found.difference > 0.5
    assert found.p == pytest.approx(1 / 200)
    fewer = np.stack([np.arange(30) % 3, np.full(30, 10)], axis=1).astype(float)
    worse = test(Measure(error_rate, fewer + np.array([1, 0]), fewer), range(30), resamples=199)
    assert worse.difference == pytest.approx(0.1)
    assert worse.p == pytest.approx(1 / 200)


def test_the_interval_is_that_of_paired_differences() -> None:
    a, b, clusters = equal_models(np.random.default_rng(2), pictures=20)
    found, plain = bootstrap_test(Measure(mean, a, b), clusters), mean_interval(a - b, clusters)
    assert (found.difference, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high))
    assert (found.n, found.clusters) == (100, 20)
    assert "resamples 2000 seed 0" in found.protocol


@pytest.mark.parametrize(("wins", "losses"), [(3, 10), (0, 5), (100, 130), (5000, 5200), (7, 7), (1, 0)])
def test_mcnemar_is_the_exact_binomial_test(wins: int, losses: int) -> None:
    a = np.concatenate([np.ones(wins), np.zeros(losses), [1, 0]])
    b = np.concatenate([np.zeros(wins), np.ones(losses), [1, 0]])
    found = mcnemar(a, b, range(len(a)))
    assert found.p == pytest.approx(binomtest(wins, wins + losses).pvalue, abs=1e-9)
    assert found.difference == pytest.approx((wins - losses) / len(a))


def test_a_picture_votes_once() -> None:
    """Picture 1: two to one for the first model; picture 2: a draw; pictures 3 and 4: one each for the second."""
    a, b = np.array([1, 1, 0, 1, 0, 0, 0]), np.array([0, 0, 1, 0, 1, 1, 1])
    assert mcnemar(a, b, [1, 1, 1, 2, 2, 3, 4]).p == pytest.approx(binomtest(1, 3).pvalue)


def test_few_clusters_can_never_be_significant() -> None:
    """Four pictures can be swapped in 16 ways, of which two are as far out: p is about 1/8, however many questions there are."""
    a, clusters = np.ones(400), np.arange(400) % 4
    assert permutation_test(Measure(mean, a, 0 * a), clusters).p == pytest.approx(1 / 8, abs=0.03)


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1, "b": 1}
    assert holm({}) == {}


@settings(deadline=None)
@given(st.dictionaries(st.integers(), st.floats(0, 1), max_size=6))
def test_holm_lies_between_plain_and_bonferroni(p: dict[str, float]) -> None:
    adjusted = holm(p)
    assert list(adjusted) == list(p)
    assert all(p[k] <= adjusted[k] <= min(1, len(p) * p[k]) + 1e-12 for k in p)
    assert sorted(p, key=lambda k: (p[k], adjusted[k])) == sorted(p, key=lambda k: (adjusted[k], p[k]))


def test_standard_errors() -> None:
    d = np.array([1.0, 0, -1, 1, 0, 0])
    assert standard_error(d, range(6)) == pytest.approx(d.std(ddof=1) / np.sqrt(6))
    # Every question asked twice carries no more information.
    assert standard_error(np.repeat(d, 2), np.repeat(np.arange(6), 2)) == pytest.approx(standard_error(d, range(6)))
    assert expected_error(1000, 0.3) == pytest.approx(np.sqrt(0.3 / 1000))
    with pytest.raises(UsageError, match="cannot hold a difference"):
        expected_error(100, 0.1, 0.2)


def test_power_and_the_smallest_difference_agree() -> None:
    error = expected_error(1000, 0.3)
    smallest = minimum_detectable(error)
    assert smallest == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) * error)
    assert power(smallest, error) == pytest.approx(0.8, abs=1e-4)
    assert power(0, error) == pytest.approx(0.05)


def test_errors_say_what_to_do() -> None:
    half = np.full(4, 0.5)
    with pytest.raises(UsageError, match="outcomes of 0 and 1"):
        mcnemar(half, half, range(4))
    with pytest.raises(UsageError, match="two clusters"):
        bootstrap_test(Measure(mean, half, half), [1, 1, 1, 1])
    with pytest.raises(UsageError, match="as `minus`"):
        permutation_test(Measure(mean, half), range(4))
    with pytest.raises(UsageError, match="same items"):
        permutation_test(Measure(mean, half, half[:2]), range(4))
