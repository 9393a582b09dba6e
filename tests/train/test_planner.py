"""The preflight finds out what does not fit, and leaves no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tonggan import devices
from tonggan.tensors import Batch, StepOutput
from tonggan.train import planner
from tonggan.train.optim import OptimConfig
from tonggan.train.planner import preflight
from tonggan.train.trainer import Stream, TrainConfig, Trainer
from tonggan.types import TongganError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Dropout(0.2), nn.Linear(64, 1))

    def forward(self, batch: Batch) -> StepOutput:
        return self.couple(self.encode(batch), None)

    def encode(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.image_features is not None
        return {"x": self.net(batch.image_features)}

    def couple(self, reps: dict[str, torch.Tensor], keys: torch.Tensor | None) -> StepOutput:
        return StepOutput(reps["x"].square().mean())


class Alone(nn.Module):
    """A task whose rows have nothing to do with each other."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(64, 1)

    def forward(self, batch: Batch) -> StepOutput:
        assert batch.image_features is not None
        return StepOutput(self.net(batch.image_features).square().mean())


def make(run: Path, step: nn.Module | None = None, **train: Any) -> tuple[Trainer, Stream, Batch]:
    step = step or Net()
    stream = Stream("only", step, None)  # type: ignore[arg-type]
    trainer = Trainer(step, [stream], TrainConfig(**({"steps": 100} | train)), OptimConfig(), run=run, save=lambda _: None)
    return trainer, stream, Batch(ids=("a",) * 32, image_features=torch.randn(32, 64))


def test_leaves_no_trace(tmp_path: Path) -> None:
    trainer, stream, batch = make(tmp_path)
    stream.step.eval()
    before = {name: value.clone() for name, value in stream.step.state_dict().items()}
    random = torch.get_rng_state()
    plan = preflight(trainer, stream, batch)
    assert plan.needed > 0
    assert all(torch.equal(value, before[name]) for name, value in stream.step.state_dict().items())
    assert all(p.grad is None for p in stream.step.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert not stream.step.training


def test_gradients_that_were_there_are_there_again(tmp_path: Path) -> None:
    trainer, stream, batch = make(tmp_path)
    trainer.backward(stream, batch)
    before = [p.grad for p in stream.step.parameters()]
    values = [g.clone() for g in before if g is not None]
    preflight(trainer, stream, batch)
    assert all(p.grad is g for p, g in zip(stream.step.parameters(), before, strict=True))
    assert all(torch.equal(p.grad, v) for p, v in zip(stream.step.parameters(), values, strict=True) if p.grad is not None)


@pytest.mark.skipif(not devices.STATUS.exists(), reason="only Linux tells a process its high-water mark anew")
def test_measures_the_update_and_nothing_else(tmp_path: Path) -> None:
    """Neither what the process once needed counts, nor is what the update needs missed."""
    trainer, stream, batch = make(tmp_path)
    once = torch.ones(100_000_000)  # 400 MB
    del once
    assert preflight(trainer, stream, batch).needed < 100e6

    class Hungry(Net):
        def encode(self, batch: Batch) -> dict[str, torch.Tensor]:
            torch.ones(50_000_000)  # 200 MB
            return super().encode(batch)

    stream = Stream("only", Hungry(), None)  # type: ignore[arg-type]
    assert preflight(trainer, stream, batch).needed > 190e6


def test_too_little_memory_names_a_micro_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, stream, batch = make(tmp_path)
    monkeypatch.setattr(devices, "free", lambda device: 1000)
    with pytest.raises(TongganError, match=r"stream only: a batch of 32 rows does not fit.*train\.micro_batch=8"):
        preflight(trainer, stream, batch)
    trainer, stream, batch = make(tmp_path, micro_batch=256)  # of more rows than the batch has: no part of it
    with pytest.raises(TongganError, match=r"train\.micro_batch=8 "):
        preflight(trainer, stream, batch)


def test_too_little_memory_names_a_smaller_batch_where_parts_would_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, stream, batch = make(tmp_path, Alone())
    monkeypatch.setattr(devices, "free", lambda device: 100)
    with pytest.raises(TongganError, match=r"set its loader\.batch_size to 8$"):
        preflight(trainer, stream, batch)


def test_pictures_that_are_kept_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, stream, batch = make(tmp_path)
    monkeypatch.setattr(devices, "free", lambda device: int(2e9))
    preflight(trainer, stream, batch, kept=1_000_000)
    with pytest.raises(TongganError, match=r"decoded pictures 2\.1 GB, 2\.0 GB are free"):
        preflight(trainer, stream, batch, kept=2**31)


def test_running_out_is_told_and_other_faults_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, stream, batch = make(tmp_path)

    def fail(text: str) -> Any:
        def forward(*_: Any) -> Any:
            raise RuntimeError(text)

        return forward

    monkeypatch.setattr(planner, "_forward_backward", fail("CUDA out of memory"))
    with pytest.raises(TongganError, match="does not fit into memory"):
        preflight(trainer, stream, batch)
    monkeypatch.setattr(planner, "_forward_backward", fail("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        preflight(trainer, stream, batch)


def test_batch_norm_in_parts_is_warned_about(tmp_path: Path) -> None:
    trainer, stream, batch = make(tmp_path, micro_batch=8)
    assert "BatchNorm sees parts of 8 rows" in preflight(trainer, stream, batch).warnings[0]
    trainer, stream, batch = make(tmp_path)
    assert preflight(trainer, stream, batch).warnings == ()


def test_running_statistics_that_lag_behind_are_warned_about(tmp_path: Path) -> None:
    trainer, stream, batch = make(tmp_path, steps=20)
    assert "follow by 0.1 an update: after 20 updates" in preflight(trainer, stream, batch).warnings[0]
    for part in stream.step.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.momentum = 0.5
    assert preflight(trainer, stream, batch).warnings == ()
