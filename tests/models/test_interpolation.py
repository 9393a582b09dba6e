"""Weights between two models: exact at both ends, linear between, and only of one shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tonggan.models.interpolation import interpolate
from tonggan.types import UsageError


def state(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(7, 3)).train()
    net[1](torch.randn(4 + seed, 5, 3, 3))
    for _ in range(seed):
        net[1](torch.randn(4, 5, 3, 3))
    return {**net.state_dict(), "half": torch.randn(9).to(torch.bfloat16), "none": torch.tensor([float("nan"), 1.0])}


def test_the_ends_are_the_models_themselves_bit_for_bit() -> None:
    a, b = state(1), state(2)
    for alpha, end in ((0.0, a), (1.0, b)):
        found = interpolate(a, b, alpha)
        assert found.keys() == end.keys()
        assert all(torch.equal(found[name].nan_to_num(7), tensor.nan_to_num(7)) for name, tensor in end.items())
        assert all(found[name].data_ptr() != end[name].data_ptr() for name in end)


@pytest.mark.parametrize("alpha", [0.3, 0.75])
def test_between_it_is_linear(alpha: float) -> None:
    a, b = state(1), state(2)
    found = interpolate(a, b, alpha)
    for name in ("0.weight", "1.running_var", "3.bias"):
        expected = (1 - alpha) * a[name].double() + alpha * b[name].double()
        assert float((found[name] - expected).abs().max()) <= 1e-6 * float(expected.abs().max())
    expected = (1 - alpha) * a["half"].double() + alpha * b["half"].double()
    assert found["half"].dtype == torch.bfloat16
    assert torch.equal(found["half"], expected.to(torch.bfloat16))
    counts = found["1.num_batches_tracked"]
    assert counts.dtype == torch.int64
    assert int(counts) == (2 if alpha < 0.5 else 3)


def test_weights_of_another_shape_are_refused_by_name() -> None:
    a, b = state(1), state(2)
    b["3.weight"] = torch.zeros(3, 8)
    b["new"] = b.pop("half")
    with pytest.raises(UsageError, match=r"half: only in the first; new: only in the second; 3\.weight: \[3, 7\] and \[3, 8\]"):
        interpolate(a, b, 0.5)
