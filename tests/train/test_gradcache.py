"""GradCache gives exactly the gradient of the whole batch, dropout included, in the memory of its parts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonggan.objectives.contrastive import info_nce
from tonggan.tensors import Batch, StepOutput
from tonggan.train.gradcache import cached_backward


class Toy(nn.Module):
    """Two little towers with dropout, a learned scale, and a record of how many rows each encoding saw."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 5))
        self.b = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 5))
        self.log_scale = nn.Parameter(torch.tensor([math.log(10.0)]))
        self.seen: list[int] = []

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        self.seen.append(len(batch))
        assert batch.image_features is not None and batch.text_features is not None
        return {"a": F.normalize(self.a(batch.image_features), dim=1), "b": F.normalize(self.b(batch.text_features), dim=1)}

    def couple(self, reps: dict[str, Tensor], keys: Tensor | None) -> StepOutput:
        found = info_nce(reps["a"], reps["b"], self.log_scale, keys=keys)
        return StepOutput(found.loss, {"loss": float(found.loss.detach())})


def batch(n: int = 23) -> Batch:
    return Batch(
        ids=tuple(map(str, range(n))),
        image_features=torch.randn(n, 6),
        text_features=torch.randn(n, 4),
        keys=torch.randint(0, 9, (n, 2)),
    )


@pytest.fixture(autouse=True)
def _double() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("micro", [1, 5, 8, 22])
def test_equals_the_plain_gradient(micro: int) -> None:
    step, data = Toy(dropout=0.0), batch()
    plain = step.couple(step.encode(data), data.keys)
    plain.loss.backward()
    expected = {name: p.grad.clone() for name, p in step.named_parameters() if p.grad is not None}
    step.zero_grad()
    cached = cached_backward(step, data, micro)
    assert float(cached.loss) == pytest.approx(float(plain.loss), abs=1e-12)
    for name, p in step.named_parameters():
        assert p.grad is not None
        # The scale too: accumulation that repeats the loss per part makes its gradient as many times too large.
        assert torch.allclose(p.grad, expected[name], atol=1e-12, rtol=0), name


def test_dropout_is_replayed() -> None:
    step, data = Toy(dropout=0.5), batch()
    torch.manual_seed(7)
    cached_backward(step, data, 5)
    got = {name: p.grad.clone() for name, p in step.named_parameters() if p.grad is not None}
    after = torch.get_rng_state()
    step.zero_grad()
    torch.manual_seed(7)
    parts = [step.encode(data.slice(i, i + 5)) for i in range(0, 23, 5)]
    step.couple({k: torch.cat([p[k] for p in parts]) for k in parts[0]}, data.keys).loss.backward()
    for name, p in step.named_parameters():
        assert p.grad is not None
        assert torch.allclose(got[name], p.grad, atol=1e-12, rtol=0), name
    assert torch.equal(after, torch.get_rng_state()), "the generator stands where one encoding leaves it"


def test_never_encodes_more_than_a_part() -> None:
    step = Toy()
    cached_backward(step, batch(), 6)
    assert max(step.seen) == 6
    assert sum(step.seen) == 2 * 23


def test_gradients_add_up() -> None:
    step, data = Toy(dropout=0.0), batch()
    cached_backward(step, data, 6)
    once = step.log_scale.grad.clone()  # type: ignore[union-attr]
    cached_backward(step, data, 6)
    assert torch.allclose(step.log_scale.grad, 2 * once)  # type: ignore[arg-type]
