"""The matching and classification steps: what they ask, what they report, what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tonggan.models import build as build_model
from tonggan.models import presets
from tonggan.steps import build
from tonggan.steps.classification import ClassificationConfig
from tonggan.steps.matching import MatchingConfig, MatchingStep
from tonggan.tensors import Batch, Tokens, pad
from tonggan.types import UsageError


class Oracle(nn.Module):
    """Knows the right pairs (a picture's first byte is its text's second token), and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int]] = []

    def match(self, pixels: Tensor, tokens: Tokens) -> Tensor:
        pictures, texts = pixels[:, 0, 0, 0].long(), tokens.ids[:, 1]
        self.asked += zip(pictures.tolist(), texts.tolist(), strict=True)
        right = (pictures == texts).float()
        return torch.stack([-20 * right, 20 * right - 10], dim=1)


def batch(n: int = 6, keys: Any = None) -> Batch:
    pixels = torch.zeros(n, 3, 8, 8, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(n, dtype=torch.uint8) + 10
    return Batch(tuple(map(str, range(n))), pixels=pixels, tokens=pad([[1, 10 + i, *range(5, 5 + i), 2] for i in range(n)]), keys=keys)


def test_right_pairs_and_as_many_wrong_ones_from_either_side() -> None:
    oracle = Oracle()
    out = MatchingStep(oracle, MatchingConfig())(batch())
    right, wrong = oracle.asked[:6], oracle.asked[6:]
    assert right == [(i, i) for i in range(10, 16)]
    assert len(wrong) == 12 and all(picture != text for picture, text in wrong)
    assert {picture for picture, _ in wrong[:6]} == {text for _, text in wrong[6:]} == set(range(10, 16))
    assert out.report["accuracy"] == out.report["right"] == out.report["wrong"] == 1
    assert float(out.loss) < 1e-3
    assert out.report["chance"] == pytest.approx(-(1 / 3) * math.log(1 / 3) - (2 / 3) * math.log(2 / 3), abs=1e-6)


def test_rows_of_one_group_are_not_asked_about() -> None:
    oracle = Oracle()
    MatchingStep(oracle, MatchingConfig())(batch(3, torch.tensor([[1], [1], [2]])))
    assert {(10, 11), (11, 10)}.isdisjoint(oracle.asked)
    MatchingStep(oracle, MatchingConfig())(batch(2, torch.tensor([[1], [1]])))
    assert oracle.asked[-2:] == [(10, 10), (11, 11)], "nothing but right pairs"


def test_hard_negatives_follow_the_models_own_similarities_without_gradient() -> None:
    model: Any = build_model(presets()["mini-albef"]).eval()
    step, data = build(model, MatchingConfig(negatives="hard")), batch()
    data = Batch(data.ids, pixels=torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8), tokens=data.tokens)
    step(data).loss.backward()
    assert model.match_head.weight.grad is not None
    assert model.text_head.weight.grad is None and model.log_scale.grad is None
    with pytest.raises(UsageError, match="embeds nothing"):
        MatchingStep(Oracle(), MatchingConfig(negatives="hard"))


def test_draws_are_repeated_with_the_global_generator() -> None:
    asked = []
    for _ in range(2):
        torch.manual_seed(3)
        oracle = Oracle()
        MatchingStep(oracle, MatchingConfig())(batch())
        asked.append(oracle.asked)
    assert asked[0] == asked[1]


def test_models_that_cannot_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="DualEncoder does not read a picture and a text together"):
        build(build_model(presets()["mini"]), MatchingConfig())
    with pytest.raises(UsageError, match="set classes in its shape"):
        build(build_model(presets()["mini-vlmo"]), ClassificationConfig())
    with pytest.raises(UsageError, match="needs pictures and texts themselves"):
        MatchingStep(Oracle(), MatchingConfig())(Batch(("a",), image_features=torch.zeros(1, 4), tokens=pad([[1, 2]])))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_classification_learns_labels_down_to_its_floor(smoothing: float) -> None:
    """VLMo's first stage: pictures with labels."""
    model = build_model(presets()["mini-vlmo"].model_copy(update={"classes": 4}))
    step = build(model, ClassificationConfig(label_smoothing=smoothing))
    data = Batch(tuple("abcdefgh"), pixels=torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8), labels=torch.arange(8) % 4)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(60):
        out = step(data)
        if out.report["loss"] < out.report["floor"] + 0.05:
            break
        adam.zero_grad()
        out.loss.backward()
        adam.step()
    assert out.report["floor"] <= out.report["loss"] < out.report["floor"] + 0.05
    assert out.report["chance"] == pytest.approx(math.log(4)) and out.report["accuracy"] == 1


def test_labels_beyond_the_classes_name_both_numbers() -> None:
    model = build_model(presets()["mini-vlmo"].model_copy(update={"classes": 4}))
    data = Batch(("a", "b"), pixels=torch.zeros(2, 3, 64, 64, dtype=torch.uint8), labels=torch.tensor([1, 4]))
    with pytest.raises(UsageError, match=r"from 1 to 4.*from 0 to 3"):
        build(model, ClassificationConfig())(data)
