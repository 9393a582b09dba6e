"""What steps have beside the model is trained and survives a resume; each stream's share of the gradient is what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tonggan.tensors import Batch, StepOutput
from tonggan.train.optim import OptimConfig
from tonggan.train.shares import Shares
from tonggan.train.trainer import Stream, TrainConfig, Trainer
from tonggan.train.whole import Whole
from tonggan.types import UsageError


class Numbers:
    """Batches that depend on a counter, and can be taken up again."""

    batches_per_epoch = 4.0

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.at += 1
        generator = torch.Generator().manual_seed(self.at)
        return Batch(ids=(str(self.at),) * 8, image_features=torch.randn(8, 6, generator=generator))

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


class Following(nn.Module):
    """A head of its own, and a running average of it that moves after every update."""

    average: Tensor

    def __init__(self, model: nn.Module, sign: float = 1.0) -> None:
        super().__init__()
        self.model, self.sign = model, sign
        self.head = nn.Linear(4, 1)
        self.register_buffer("average", torch.zeros(1, 4))

    def forward(self, batch: Batch) -> StepOutput:
        assert batch.image_features is not None
        aim = self.sign * batch.image_features.sum(1, keepdim=True) + self.average.sum()
        loss = (self.head(self.model(batch.image_features)) - aim).square().mean()
        return StepOutput(loss, {"loss": float(loss.detach())})

    @torch.no_grad()
    def after_update(self) -> None:
        self.average.lerp_(self.head.weight, 0.1)


def make(run: Path, **train: Any) -> tuple[Trainer, nn.Module, list[Following]]:
    torch.manual_seed(3)
    model = nn.Linear(6, 4)
    steps = [Following(model), Following(model, -1.0)]

    def save(directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), directory / "model.safetensors")

    streams = [Stream(name, step, Numbers()) for name, step in zip(("one", "other"), steps, strict=True)]
    settings = TrainConfig(**({"steps": 12, "log_every": 1} | train))
    return Trainer(model, streams, settings, OptimConfig(lr=1e-2, warmup=2), run=run, save=save, quiet=True), model, steps


def test_heads_of_steps_are_trained_and_resumed_bit_for_bit(tmp_path: Path) -> None:
    trainer, model, steps = make(tmp_path / "whole")
    before = steps[0].head.weight.detach().clone()
    trainer.fit()
    assert not torch.equal(steps[0].head.weight, before)
    first, _, _ = make(tmp_path / "parts")
    first.progress = lambda: first.step / 12 if first.step < 5 else 1.0  # type: ignore[method-assign]
    first.fit()
    torch.manual_seed(99)
    second, again, resumed = make(tmp_path / "parts")
    second.fit(resume=True)
    assert torch.equal(again.weight, model.weight)  # type: ignore[arg-type]
    for one, other in zip(steps, resumed, strict=True):
        assert torch.equal(one.head.weight, other.head.weight)
        assert torch.equal(one.average, other.average)
    kept = load_file(tmp_path / "whole" / "last" / "trainer.safetensors")
    assert sorted(name for name in kept if name.startswith("steps/")) == [
        f"steps/{stream}.{name}" for stream in ("one", "other") for name in ("average", "head.bias", "head.weight")
    ], "the model itself is kept once"


def test_names_of_the_model_are_those_it_has_alone(tmp_path: Path) -> None:
    model = nn.Linear(6, 4)
    whole = Whole(model, {"one": Following(model)})
    assert [name for name, _ in whole.named_parameters()] == ["weight", "bias", "steps.one.head.weight", "steps.one.head.bias"]


def test_shares_of_the_gradient_are_those_of_each_stream_alone(tmp_path: Path) -> None:
    trainer, model, steps = make(tmp_path / "shares", shares_every=4, steps=9)
    norms: list[float] = []
    for step in steps:
        model.zero_grad()
        step(next(Numbers())).loss.backward()
        norms.append(float(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()))
    model.zero_grad()
    trainer.fit()
    lines = [json.loads(line) for line in (tmp_path / "shares" / "metrics.jsonl").read_text().splitlines()]
    told = {line["step"]: line.get("one/gradient_share") for line in lines}
    assert [step for step, share in told.items() if share is not None] == [1, 5, 9]
    assert told[1] == pytest.approx(norms[0] / sum(norms), rel=1e-5)
    assert lines[0]["one/gradient_share"] + lines[0]["other/gradient_share"] == pytest.approx(1)


def test_measuring_shares_changes_nothing(tmp_path: Path) -> None:
    plain, model, _ = make(tmp_path / "plain")
    plain.fit()
    measured, other, _ = make(tmp_path / "measured", shares_every=1)
    measured.fit()
    assert torch.equal(model.weight, other.weight)  # type: ignore[arg-type]


def test_only_what_two_streams_move_is_compared() -> None:
    shared, own = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    shares = Shares([shared, own])
    (3 * shared.sum() + 100 * own.sum()).backward()
    shares.add("a")
    shared.sum().backward()
    shares.add("b")
    assert shares.of_each() == pytest.approx({"a": 0.75, "b": 0.25})
    alone = Shares([own])
    own.sum().backward()
    alone.add("a")
    assert alone.of_each() == {}


def test_a_micro_batch_for_a_task_that_compares_no_rows_says_what_to_set(tmp_path: Path) -> None:
    trainer, _, _ = make(tmp_path / "micro", micro_batch=2)
    with pytest.raises(UsageError, match=r"set a smaller loader\.batch_size \(2\)"):
        trainer.fit()
