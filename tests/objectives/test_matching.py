"""Matching: the loss by hand, and which wrong pairs are drawn how often."""

from __future__ import annotations

import math

import pytest
import torch

from tonggan.objectives.matching import draw_negatives, matching


def test_the_loss_is_the_mean_of_minus_log_odds() -> None:
    logits, labels = torch.tensor([[0.5, -1.0], [0.2, 0.1], [3.0, -2.0]], dtype=torch.float64), torch.tensor([1, 0, 0])
    expected = [
        -math.log(math.exp(x[y]) / (math.exp(x[0]) + math.exp(x[1]))) for x, y in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    found = matching(logits, labels)
    assert float(found.loss) == pytest.approx(sum(expected) / 3, abs=1e-12)
    assert found.floor == 0


def test_chance_is_the_best_constant_answer() -> None:
    labels = torch.tensor([1, 0, 0, 0, 1])
    constants = [float(matching(torch.tensor([[0.0, x]]).expand(5, 2), labels).loss) for x in torch.linspace(-3, 3, 601)]
    assert matching(torch.zeros(5, 2), labels).chance == pytest.approx(min(constants), abs=1e-4)
    assert matching(torch.zeros(2, 2), torch.ones(2, dtype=torch.long)).chance == 0


def test_it_is_computed_in_single_precision_under_autocast() -> None:
    logits = torch.randn(4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert matching(logits.bfloat16(), torch.tensor([0, 1, 1, 0])).loss.dtype == torch.float32


def test_negatives_are_drawn_in_proportion_to_the_softmax_of_their_similarity() -> None:
    """Frequencies of 4,000 draws, within four standard deviations of the odds."""
    similarity = torch.tensor([[9.0, 1.0, 0.0, -1.0], [2.0, 9.0, 0.5, 0.0], [0.0, 0.0, 9.0, 0.0], [1.0, 3.0, 2.0, 9.0]])
    generator, draws = torch.Generator().manual_seed(0), 4000
    counts = torch.zeros(4, 4)
    for _ in range(draws):
        anchors, candidates = draw_negatives(similarity, generator=generator)
        assert anchors.tolist() == [0, 1, 2, 3]
        counts[anchors, candidates] += 1
    odds = similarity.masked_fill(torch.eye(4, dtype=torch.bool), -math.inf).softmax(dim=1)
    assert not counts.diagonal().any()
    assert bool(((counts / draws - odds).abs() <= 4 * (odds * (1 - odds) / draws).sqrt()).all())


def test_rows_that_share_a_key_are_never_negatives() -> None:
    keys = torch.tensor([[7, 0], [7, 5], [0, 5], [0, 0]])
    generator = torch.Generator().manual_seed(0)
    drawn: set[tuple[int, int]] = set()
    for _ in range(200):
        drawn |= set(zip(*(part.tolist() for part in draw_negatives(torch.zeros(4, 4), keys, generator)), strict=True))
    assert drawn == {(0, 2), (0, 3), (1, 3), (2, 0), (2, 3), (3, 0), (3, 1), (3, 2)}


def test_a_row_without_any_wrong_pair_is_left_out() -> None:
    keys = torch.tensor([[1, 0, 0], [1, 2, 0], [0, 2, 0]])  # the middle row means what either of the others means
    assert draw_negatives(torch.zeros(3, 3), keys).anchors.tolist() == [0, 2]
    assert len(draw_negatives(torch.zeros(2, 2), torch.tensor([[1], [1]])).anchors) == 0


def test_very_different_similarities_leave_no_row_without_odds() -> None:
    """At a scale of 100 all negatives of a row may underflow beside its positive."""
    similarity = torch.full((3, 3), -1e4) + 2e4 * torch.eye(3)
    assert draw_negatives(similarity).anchors.tolist() == [0, 1, 2]
