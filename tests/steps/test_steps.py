"""Steps: cached features equal pixels, the scale is held, the teacher stays out of the student."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from tonggan.config import ConfigError
from tonggan.models import DualEncoder, presets
from tonggan.objectives.contrastive import nt_xent
from tonggan.steps.base import CoupledStep
from tonggan.steps.contrastive import ContrastiveConfig, ContrastiveStep
from tonggan.steps.transfer import TextTransferStep, TransferConfig
from tonggan.tensors import Batch, pad
from tonggan.train.gradcache import cached_backward
from tonggan.types import UsageError


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
            ids=data.ids,
            image_features=model.features("image", data.pixels),
            text_features=model.features("text", data.tokens),
            keys=data.keys,
        )
    assert float(step(cached).loss) == pytest.approx(float(step(data).loss), abs=1e-6)


def test_report_has_what_is_needed_to_read_the_loss(model: DualEncoder) -> None:
    data = batch()
    plain, report = (ContrastiveStep(model, ContrastiveConfig(alignment=weight))(data).report for weight in (0.0, 0.5))
    assert "objective" not in plain
    assert report["objective"] == plain["loss"], "what floor and chance belong to"
    assert report["loss"] == pytest.approx(report["objective"] + 0.5 * report["alignment"])
    assert report["chance"] == pytest.approx(math.log(6))
    assert report["floor"] == pytest.approx(2 * math.log(2) / 6)
    assert report["scale"] == pytest.approx(1 / 0.07, rel=1e-4)
    assert 0 <= report["i2t_top1"] <= 1
    assert 0 <= report["t2i_top1"] <= 1


def test_one_batch_is_learnt_by_heart(model: DualEncoder) -> None:
    """On towers' outputs, so that only the heads learn; to the floor that two rows of one group leave."""
    assert model.image is not None and model.text is not None
    keys = batch().keys
    data = Batch(
        ids=tuple("abcdef"), image_features=torch.randn(6, model.image.width), text_features=torch.randn(6, model.text.width), keys=keys
    )
    step = ContrastiveStep(model, ContrastiveConfig())
    adam = torch.optim.Adam([*model.image_head.parameters(), *model.text_head.parameters(), model.log_scale], lr=1e-2)
    for _ in range(25):
        adam.zero_grad()
        step(data).loss.backward()
        adam.step()
    report = step(data).report
    assert report["floor"] <= report["loss"] < report["floor"] + 0.05
    assert report["i2t_top1"] == report["t2i_top1"] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"objective": "sigmoid", "label_smoothing": 0.1},
        {"denominator": "negatives"},
        {"objective": "nt_xent", "denominator": "negatives"},
        {"objective": "nt_xent", "label_smoothing": 0.1},
        {"label_smoothing": 1.0},
        {"tile": 0},
        {"alignment": -1.0},
    ],
)
def test_a_setting_without_effect_or_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=list(wrong)[-1]):
        ContrastiveConfig.parse(wrong)


@pytest.mark.parametrize("objective", ["infonce", "sigmoid", "one_way", "nt_xent"])
def test_every_objective_by_name_and_in_tiles(objective: str) -> None:
    torch.manual_seed(0)
    model, keys = DualEncoder(presets()["mini"].model_copy(update={"bias_init": -10.0})), batch().keys
    reps = dict(zip(("image", "text"), torch.nn.functional.normalize(torch.randn(2, 6, model.dim), dim=-1), strict=True))
    plain, tiled = (ContrastiveStep(model, ContrastiveConfig.parse({"objective": objective, "tile": tile})) for tile in (None, 4))
    whole, parts = plain.couple(reps, keys), tiled.couple(reps, keys)
    assert float(parts.loss) == pytest.approx(float(whole.loss), rel=1e-5)
    gradients = [torch.autograd.grad(output.loss, model.log_scale)[0] for output in (whole, parts)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)
    assert float(gradients[0].abs()) > 0


def test_nt_xent_sees_both_sides_of_the_batch(model: DualEncoder) -> None:
    """12 anchors, each with 11 others; rows 0 and 2 mean the same, so that their four views are positives of each other."""
    data = batch()
    step = ContrastiveStep(model, ContrastiveConfig(objective="nt_xent"))
    output = step(data)
    reps = step.encode(data)
    expected = nt_xent(reps["image"], reps["text"], 1 / float(model.log_scale.detach().exp()), keys=data.keys)
    assert float(output.loss.detach()) == pytest.approx(float(expected.loss.detach()), rel=1e-5)
    assert output.report["chance"] == pytest.approx((4 * math.log(9) + 8 * math.log(11)) / 12)


@pytest.mark.parametrize(
    "config", [{"tile": 4}, {"objective": "one_way", "denominator": "negatives", "alignment": 1.0}, {"objective": "nt_xent", "tile": 5}]
)
def test_gradcache_gives_the_plain_gradient_of_a_real_model(model: DualEncoder, config: dict[str, object]) -> None:
    step, data = ContrastiveStep(model, ContrastiveConfig.parse(config)), batch()
    step(data).loss.backward()
    plain = {name: p.grad.clone() for name, p in step.named_parameters() if p.grad is not None}
    step.zero_grad()
    cached_backward(step, data, 4)
    for name, p in step.named_parameters():
        if name in plain:
            assert p.grad is not None, name
            torch.testing.assert_close(p.grad, plain[name], atol=1e-5, rtol=1e-4)


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
    with pytest.raises(UsageError, match=r"step\.objective: sigmoid needs a bias.*bias_init"):
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
        data = Batch(ids=data.ids, tokens=data.tokens, text_features=teacher.features("text", data.tokens))
    adam = torch.optim.AdamW([p for p in step.parameters() if p.requires_grad], lr=1e-3)
    first = step(data).report["cosine"]
    for _ in range(25):
        adam.zero_grad()
        step(data).loss.backward()
        adam.step()
    assert step(data).report["cosine"] > max(0.9, first)
    assert all(p.grad is None for p in teacher.parameters())


def test_transfer_with_contrast_to_teacher_and_pictures(model: DualEncoder) -> None:
    student, data = DualEncoder(presets()["mini"]), batch()
    assert data.tokens is not None and data.pixels is not None
    with torch.no_grad():
        seen, read = model.features("image", data.pixels), model.features("text", data.tokens)
    whole = Batch(ids=data.ids, tokens=data.tokens, text_features=read, image_features=seen, keys=data.keys)
    step = TextTransferStep(student, model, TransferConfig(contrast_teacher=0.5, contrast_pictures=2.0))
    report = step(whole).report
    distance = (2 - 2 * report["cosine"]) / student.dim
    assert report["loss"] == pytest.approx(distance + 0.5 * report["contrast_teacher"] + 2 * report["contrast_image"], rel=1e-5)
    # Rows 0 and 2 are of one group: both contrastive terms leave what their targets' entropy is.
    assert report["floor"] == pytest.approx(2.5 * 2 * math.log(2) / 6)
    cached_backward(step, whole, 4)
    assert student.log_scale.grad is not None and float(student.log_scale.grad.abs()) > 0
    with pytest.raises(ValueError, match="pictures"):
        step(Batch(ids=data.ids, tokens=data.tokens, text_features=read))


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_distance_to_the_teacher(model: DualEncoder, distance: str) -> None:
    """AltCLIP's mean squared error over the vector's elements, and 1 - cos."""
    text, aim = torch.nn.functional.normalize(torch.randn(2, 5, model.dim), dim=-1)
    step = TextTransferStep(DualEncoder(presets()["mini"]), model, TransferConfig.parse({"distance": distance}))
    expected = torch.nn.functional.mse_loss(text, aim) if distance == "mse" else 1 - torch.nn.functional.cosine_similarity(text, aim).mean()
    assert float(step.couple({"text": text, "teacher": aim}, None).loss) == pytest.approx(float(expected), rel=1e-5)
