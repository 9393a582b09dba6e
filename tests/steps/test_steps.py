"""Steps: cached features equal pixels, the scale is held, the teacher stays out of the student."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from tonggan.models import DualEncoder, presets
from tonggan.steps.base import CoupledStep
from tonggan.steps.contrastive import ContrastiveConfig, ContrastiveStep
from tonggan.steps.transfer import TextTransferStep, TransferConfig
from tonggan.tensors import Batch, pad


@pytest.fixture
def model() -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(presets()["mini"]).eval()


def batch(n: int = 6) -> Batch:
    return Batch(
        ids=tuple(map(str, range(n))),
        pixels=torch.randint(0, 256, (n, 3, 64, 64), dtype=torch.uint8),
        tokens=pad([[1, *range(5, 6 + i), 2] for i in range(n)]),
        keys=torch.tensor([[1], [2], [1], [3], [4], [5]][:n]),
    )


def test_features_stand_in_for_pixels_and_tokens(model: DualEncoder) -> None:
    step, data = ContrastiveStep(model, ContrastiveConfig()), batch()
    assert isinstance(step, CoupledStep)
    with torch.no_grad():
        assert data.pixels is not None and data.tokens is not None
        cached = Batch(
            ids=data.ids, image_features=model.image_features(data.pixels), text_features=model.text_features(data.tokens), keys=data.keys
        )
    assert float(step(cached).loss) == pytest.approx(float(step(data).loss), abs=1e-6)


def test_report_has_what_is_needed_to_read_the_loss(model: DualEncoder) -> None:
    report = ContrastiveStep(model, ContrastiveConfig(alignment=0.5))(batch()).report
    assert report["chance"] == pytest.approx(math.log(6))
    assert report["floor"] == pytest.approx(2 * math.log(2) / 6)
    assert report["scale"] == pytest.approx(1 / 0.07, rel=1e-4)
    assert {"loss", "alignment"} <= set(report)


def test_without_multi_positives_keys_are_ignored(model: DualEncoder) -> None:
    data = batch()
    off = ContrastiveStep(model, ContrastiveConfig(multi_positives=False))
    assert off(data).report["floor"] == 0


def test_the_scale_is_held_and_can_come_down_again(model: DualEncoder) -> None:
    step = ContrastiveStep(model, ContrastiveConfig())
    with torch.no_grad():
        model.log_scale.fill_(9.0)
    step.after_update()
    assert float(model.log_scale.exp()) <= 100.0
    step(batch()).loss.backward()
    assert model.log_scale.grad is not None and float(model.log_scale.grad.abs()) > 0


def test_sigmoid_needs_its_bias(model: DualEncoder) -> None:
    with pytest.raises(ValueError, match="bias_init"):
        ContrastiveStep(model, ContrastiveConfig(objective="sigmoid"))
    with_bias = DualEncoder(presets()["mini"].model_copy(update={"bias_init": -10.0})).eval()
    ContrastiveStep(with_bias, ContrastiveConfig(objective="sigmoid"))(batch()).loss.backward()
    assert with_bias.bias is not None and with_bias.bias.grad is not None


def test_transfer_draws_the_student_to_the_teacher(model: DualEncoder) -> None:
    torch.manual_seed(1)
    student, teacher = DualEncoder(presets()["mini"]), copy.deepcopy(model)
    step = TextTransferStep(student, teacher, TransferConfig())
    assert not any("teacher" in name for name, _ in step.named_parameters())
    data = batch()
    assert data.tokens is not None
    with torch.no_grad():
        data = Batch(ids=data.ids, tokens=data.tokens, text_features=teacher.text_features(data.tokens))
    adam = torch.optim.AdamW([p for p in step.parameters() if p.requires_grad], lr=1e-3)
    first = step(data).report["cosine"]
    for _ in range(25):
        adam.zero_grad()
        step(data).loss.backward()
        adam.step()
    assert step(data).report["cosine"] > max(0.9, first)
    assert all(p.grad is None for p in teacher.parameters())
