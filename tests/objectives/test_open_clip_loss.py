"""open_clip's own values and gradients, plain and tiled (`golden/open_clip_loss.py`)."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from objectives.golden.open_clip_loss import BIAS, CASES, FILE, embeddings
from tonggan.objectives.contrastive import info_nce, sigmoid

GOLDEN = json.loads(FILE.read_text())


def test_every_case_has_its_golden_values() -> None:
    kept = [(case["loss"], case["rows"], case["width"], case["scale"]) for case in GOLDEN]
    assert kept == [(name, *case) for name, cases in CASES.items() for case in cases]


@pytest.mark.parametrize("tile", [None, 4])
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['loss']}-{case['rows']}")
def test_loss_and_gradients(case: dict[str, Any], tile: int | None) -> None:
    a, b = embeddings(case["rows"], case["width"])
    given = [a, b, torch.tensor([math.log(case["scale"])], dtype=torch.float64)]
    if case["loss"] == "SigLipLoss":
        given.append(torch.tensor([BIAS], dtype=torch.float64))
    given = [x.requires_grad_() for x in given]
    # Above CLIP's ceiling of 100, which exp(ln 100) would touch by rounding: there the gradient of the scale ends.
    loss = (sigmoid if case["loss"] == "SigLipLoss" else info_nce)(*given, max_scale=1000.0, tile=tile).loss  # type: ignore[operator]
    loss.backward()
    assert loss.item() == pytest.approx(case["value"], rel=1e-10)
    for x, expected in zip(given, case["gradients"], strict=True):
        assert x.grad is not None
        assert x.grad.flatten().tolist() == pytest.approx(expected, rel=1e-8, abs=1e-10)
