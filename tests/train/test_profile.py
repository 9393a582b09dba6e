"""The profile counts what it says it counts, over the batches that it timed, and its parts add up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tonggan.tensors import Batch, StepOutput
from tonggan.train.optim import OptimConfig
from tonggan.train.profile import profile, useful_flops
from tonggan.train.trainer import Stream, TrainConfig, Trainer


class Growing:
    """Batches of 1, 2, 3, … rows, so that every step has its own amount of work."""

    batches_per_epoch = 100.0

    def __init__(self, wait: float = 0.0) -> None:
        self.at, self.wait = 0, wait

    def __next__(self) -> Batch:
        self.at += 1
        time.sleep(self.wait)
        return Batch(ids=("x",) * self.at, image_features=torch.ones(self.at, 6))

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


class Product(nn.Module):
    """One linear layer, 6 to 5, encoded and coupled apart as GradCache wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5, bias=False)

    def forward(self, batch: Batch) -> StepOutput:
        return self.couple(self.encode(batch), None)

    def encode(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.image_features is not None
        return {"x": self.layer(batch.image_features)}

    def couple(self, reps: dict[str, torch.Tensor], keys: torch.Tensor | None) -> StepOutput:
        return StepOutput(reps["x"].square().mean())


def make(run: Path, step: nn.Module, wait: float = 0.0, **train: Any) -> Trainer:
    streams = [Stream("only", step, Growing(wait))]
    return Trainer(step, streams, TrainConfig(steps=100, **train), OptimConfig(ema=0.9), run=run, save=lambda _: None, quiet=True)


@pytest.mark.parametrize("micro", [None, 2])
def test_counts_the_batches_that_were_timed(tmp_path: Path, micro: int | None) -> None:
    """Forward and the weight's gradient, 2 x rows x 6 x 5 each, of batches with 2, 3 and 4 rows; in parts no more than whole."""
    found = profile(make(tmp_path, Product(), micro_batch=micro), steps=3, warm=1)
    assert found.gflop * 1e9 == pytest.approx(2 * (2 * 3 * 6 * 5))
    assert found.rows == 3
    assert not list(tmp_path.iterdir())


def test_attention_counts_on_a_cpu_and_only_streams_that_are_due(tmp_path: Path) -> None:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(6))

        def forward(self, batch: Batch) -> StepOutput:
            assert batch.image_features is not None
            x = (batch.image_features * self.weight).view(1, 1, -1, 6)
            return StepOutput(F.scaled_dot_product_attention(x, x, x).mean())

    trainer = make(tmp_path, Attend())
    trainer.streams.append(Stream("rare", trainer.streams[0].step, Growing(), every=2))
    one = 3 * 2 * (2 * 6)  # forward's two products and backward's four, per pair of rows
    assert useful_flops(trainer, 1) == one * 1
    assert useful_flops(trainer, 2) == one * (4 + 1)
    assert all(p.grad is None for p in trainer.module.parameters())


def test_parts_add_up_and_waiting_is_seen(tmp_path: Path) -> None:
    found = profile(make(tmp_path, Product(), wait=0.02), steps=3, warm=1)
    assert set(found.parts) == {"data", "forward", "backward", "optimizer", "other"}
    assert found.parts["data"] > 0.5 * sum(found.parts.values())
    assert found.seconds > 0.02
    assert 0 < found.share < 1
    assert "where the time goes: data" in found.text()
    assert found.to_dict()["parts"] == found.parts
