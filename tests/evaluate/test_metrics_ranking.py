"""Average precision, reciprocal rank and nDCG of rankings against scikit-learn and torchmetrics; ties and RSUM by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from tonggan.evaluate.metrics.ranking import (
    average_precision,
    expected_average_precision,
    expected_ndcg,
    expected_reciprocal_rank,
    hits,
    ndcg,
    of_places,
    reciprocal_rank,
    rsum,
)
from tonggan.evaluate.metrics.ranks import places, ranks
from tonggan.types import UsageError


def ranked(seed: int, queries: int = 8, candidates: int = 15) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    grades = rng.integers(0, 4, (queries, candidates)) * (rng.random((queries, candidates)) < 0.5)
    grades[:, 0] = 1
    return rng.normal(size=(queries, candidates)), grades


@pytest.mark.parametrize("seed", range(4))
def test_scikit_learn(seed: int) -> None:
    scores, grades = ranked(seed)
    assert average_precision(scores, grades) == pytest.approx(
        [average_precision_score(g > 0, s) for g, s in zip(grades, scores, strict=True)], abs=1e-9
    )
    for k in (None, 1, 5, 100):
        assert ndcg(scores, grades, k).mean() == pytest.approx(ndcg_score(grades, scores, k=k), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_torchmetrics(seed: int) -> None:
    functional = pytest.importorskip("torchmetrics.functional.retrieval", reason="torchmetrics is not installed: scikit-learn stands in")
    import torch

    scores, grades = ranked(seed)
    for i, (s, g) in enumerate(zip(scores, grades, strict=True)):
        given_, right = torch.tensor(np.exp(s)), torch.tensor(g)  # it takes a right candidate with a score of 0 or less for wrong
        assert average_precision(scores, grades)[i] == pytest.approx(
            functional.retrieval_average_precision(given_, right > 0).item(), rel=1e-6
        )
        assert reciprocal_rank(scores, grades)[i] == pytest.approx(functional.retrieval_reciprocal_rank(given_, right > 0).item(), rel=1e-6)
        assert ndcg(scores, grades, 5)[i] == pytest.approx(functional.retrieval_normalized_dcg(given_, right, top_k=5).item(), rel=1e-6)


def test_first_k_by_hand() -> None:
    """Ranked: wrong, right, wrong, right, right."""
    scores, right = np.array([[5.0, 4, 3, 2, 1]]), np.array([[0, 1, 0, 1, 1]])
    assert average_precision(scores, right, 4) == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert average_precision(scores, right, 2) == pytest.approx((1 / 2) / 2)  # at most two can be among the first two
    assert reciprocal_rank(scores, right, 1) == 0
    assert reciprocal_rank(scores, right, 2) == pytest.approx(1 / 2)
    assert ndcg(scores, right, 2) == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))


def test_ties_and_nans_count_against_the_model() -> None:
    same, grades = np.zeros((1, 4)), np.array([[3, 0, 1, 0]])
    worst = np.array([[0.0, 3, 1, 2]])
    for metric in (average_precision, reciprocal_rank, ndcg):
        assert metric(same, grades) == pytest.approx(metric(worst, grades))
        assert metric(np.full((1, 4), np.nan), grades) == pytest.approx(metric(worst, grades))
    assert ndcg(same, grades)[0] < ndcg_score(grades, same)  # which averages over the orders of equal scores


def test_a_query_without_a_right_candidate_scores_0() -> None:
    for metric in (average_precision, reciprocal_rank, ndcg):
        assert metric(np.ones((1, 3)), np.zeros((1, 3))).tolist() == [0]


@settings(deadline=None)
@given(seed=st.integers(0, 1000))
def test_candidates_in_another_order_change_nothing(seed: int) -> None:
    scores, grades = ranked(seed, queries=2, candidates=6)
    scores = np.round(scores)  # with ties
    order = np.random.default_rng(seed).permutation(6)
    for metric in (average_precision, reciprocal_rank, ndcg):
        assert metric(scores[:, order], grades[:, order], 3) == pytest.approx(metric(scores, grades, 3))
        assert ((metric(scores, grades) > 0) & (metric(scores, grades) <= 1 + 1e-9)).all()


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 30), m=st.integers(1, 25), tile=st.integers(1, 40), broken=st.booleans())
def test_places_give_what_whole_rankings_give(seed: int, n: int, m: int, tile: int, broken: bool) -> None:
    """By counting in tiles as by sorting everything: ties, several right candidates, scores that are no numbers."""
    rng = np.random.default_rng(seed)
    q, c = np.round(rng.normal(size=(n, 3))), np.round(rng.normal(size=(m, 3)))  # small whole numbers: many ties, exact products
    if broken:
        c[rng.integers(m)] = np.nan
        q[rng.integers(n)] = np.nan
    right = rng.random((n, m)) < 0.3
    right[np.arange(n), rng.integers(m, size=n)] = True
    positives = [np.flatnonzero(row).tolist() for row in right]
    found = places(q, c, positives, tile)
    assert [len(p) for p in found] == [len(p) for p in positives] and all((np.diff(p) > 0).all() for p in found)
    assert [p[0] for p in found] == ranks(q, c, positives, tile).tolist()
    ranked, scores = of_places(found, 10), q @ c.T
    assert ranked.ap == pytest.approx(average_precision(scores, right))
    assert ranked.rr == pytest.approx(reciprocal_rank(scores, right))
    assert ranked.ndcg == pytest.approx(ndcg(scores, right, 10))


def test_places_against_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    q, c = rng.normal(size=(50, 8)), rng.normal(size=(40, 8))
    positives = [np.sort(rng.choice(40, size=rng.integers(1, 20), replace=False)).tolist() for _ in range(50)]
    right = np.zeros((50, 40))
    for i, some in enumerate(positives):
        right[i, some] = 1
    ranked = of_places(places(q, c, positives), 10)
    scores = q @ c.T
    assert ranked.ap == pytest.approx([average_precision_score(r, s) for r, s in zip(right, scores, strict=True)])
    assert ranked.ndcg == pytest.approx([ndcg_score(r[None], s[None], k=10) for r, s in zip(right, scores, strict=True)])


def test_places_by_hand() -> None:
    """Right at 2, 5 and 12: of the first ten two gain; a query with eleven right ones can place only ten."""
    ranked = of_places([np.array([2, 5, 12]), np.arange(1, 12)], 10)
    assert ranked.ap == pytest.approx([(1 / 2 + 2 / 5 + 3 / 12) / 3, 1])
    assert ranked.rr == pytest.approx([1 / 2, 1])
    assert ranked.ndcg == pytest.approx([(1 / np.log2(3) + 1 / np.log2(6)) / (1 + 1 / np.log2(3) + 1 / 2), 1])


@pytest.mark.parametrize(("candidates", "right"), [(1, 1), (5, 1), (5, 2), (5, 5), (6, 3)])
def test_chance_is_the_mean_over_all_orders(candidates: int, right: int) -> None:
    found = [np.sort(np.array(chosen)) + 1 for chosen in combinations(range(candidates), right)]
    ranked = of_places(found, 3)
    assert expected_average_precision(candidates, right) == pytest.approx(ranked.ap.mean())
    assert expected_reciprocal_rank(candidates, right) == pytest.approx(ranked.rr.mean())
    assert expected_ndcg(candidates, right, 3) == pytest.approx(ranked.ndcg.mean())


def test_a_direction_that_a_resample_has_not_drawn_does_not_halve_rsum() -> None:
    values = np.column_stack([[0, 0, 1], np.ones((3, 3))])
    assert rsum(values, np.array([[2.0, 1, 0], [0, 0, 3]])).tolist() == [600, 600]


def test_rsum_by_hand() -> None:
    """Text to picture: ranks 1, 2, 11; picture to text: ranks 1, 7."""
    direction = np.array([0, 0, 0, 1, 1])
    values = np.column_stack([direction, hits(np.array([1, 2, 11, 1, 7]))])
    assert rsum(values, np.ones((1, 5))) == pytest.approx(100 * (1 / 3 + 2 / 3 + 2 / 3 + 1 / 2 + 1 / 2 + 1))
    assert rsum(values, np.array([[1, 0, 0, 2, 0]])) == pytest.approx(600)


def test_shapes_and_grades_are_checked() -> None:
    with pytest.raises(UsageError, match=r"must both be \[queries, candidates\]"):
        ndcg(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(UsageError, match="0 or more"):
        ndcg(np.zeros((1, 2)), np.array([[-1, 1]]))
