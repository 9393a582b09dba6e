"""Cross-entropy over words."""

from __future__ import annotations

import math

import pytest
import torch

from tonggan.objectives.language import masked_cross_entropy


def test_is_the_mean_of_minus_log_probabilities() -> None:
    logits, targets = torch.randn(7, 13, dtype=torch.float64, requires_grad=True), torch.randint(0, 13, (7,))
    found = masked_cross_entropy(logits, targets)
    plain = -(logits.exp() / logits.exp().sum(1, keepdim=True))[torch.arange(7), targets].log().mean()
    assert float(found.loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-12)
    ours, theirs = (torch.autograd.grad(loss, logits)[0] for loss in (found.loss, plain))
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_floor_and_chance() -> None:
    targets = torch.arange(5)
    certain = torch.full((5, 9), -1e4).scatter(1, targets[:, None], 1e4)
    found = masked_cross_entropy(certain, targets)
    assert float(found.loss) == found.floor == 0
    assert float(masked_cross_entropy(torch.zeros(5, 9), targets).loss) == pytest.approx(found.chance) == pytest.approx(math.log(9))


def test_no_place_at_all_is_no_loss() -> None:
    logits = torch.zeros(0, 9, requires_grad=True)
    found = masked_cross_entropy(logits, torch.zeros(0, dtype=torch.long))
    assert float(found.loss.detach()) == 0
    found.loss.backward()
    assert logits.grad is not None


def test_half_precision_is_computed_in_single() -> None:
    logits, targets = torch.randn(64, 500).bfloat16(), torch.randint(0, 500, (64,))
    found = masked_cross_entropy(logits, targets).loss
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(masked_cross_entropy(logits.float(), targets).loss), rel=1e-6)
