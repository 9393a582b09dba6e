"""Where the time of a training step goes, and how much of the machine's matrix speed it uses.

Useful work is counted, not guessed: the multiplications and additions of matrix products, convolutions and attention in one
real step, as torch's flop counter sees them (each product of an m x k by a k x n matrix counts 2mkn). The yardstick is a
2048-cubed product of fp32 matrices, run between the steps of the same process, so that whatever else the machine does slows both.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tonggan.recipes.run import Run
from tonggan.train.trainer import Trainer

SIZE = 2048


@dataclass(frozen=True, slots=True)
class Profile:
    """Medians over the measured steps, in seconds; rates in useful operations per second."""

    rows: int
    step_seconds: float
    parts: dict[str, float]
    flops: float
    yardstick: float
    """Operations per second of the 2048-cubed product."""

    @property
    def share(self) -> float:
        """Useful operations per second of the whole step, over the yardstick's."""
        return self.flops / self.step_seconds / self.yardstick

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rows": self.rows,
            "step_seconds": self.step_seconds,
            "parts": self.parts,
            "gflop_per_step": self.flops / 1e9,
            "gflops": self.flops / self.step_seconds / 1e9,
            "yardstick_gflops": self.yardstick / 1e9,
            "share": self.share,
        }

    def text(self) -> str:
        """A few lines for people."""
        spent = ", ".join(f"{name} {100 * seconds / self.step_seconds:.0f} %" for name, seconds in self.parts.items())
        lines = [
            f"{self.rows} rows a step, {self.step_seconds * 1e3:.0f} ms, {self.rows / self.step_seconds:.0f} rows/s",
            f"useful: {self.flops / 1e9:.1f} GFLOP a step, {self.flops / self.step_seconds / 1e9:.1f} GFLOP/s",
            f"a {SIZE}³ matrix product between the steps: {self.yardstick / 1e9:.1f} GFLOP/s",
            f"share of it that the whole step uses: {self.share:.2f}",
            f"where the time goes: {spent}",
        ]
        return "\n".join(lines)


def profile_run(run: Run, steps: int = 8) -> Profile:
    """Measure the first stage's step. The run is not changed on disk; the model in memory is trained a little."""
    stage = run.config.stages[0]
    run.prepare(stage)
    trainer = run.trainer(0, stage)
    stream = trainer.streams[0]
    for _ in range(2):
        trainer.update()
    batch = next(stream.batches)
    with FlopCounterMode(display=False) as counter:
        _forward_backward(trainer, batch)
    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    taken: dict[str, list[float]] = {"data": [], "forward": [], "backward": [], "optimizer": []}
    yard = []
    for _ in range(steps):
        start = time.perf_counter()
        batch = next(stream.batches).to(trainer.device)
        taken["data"].append(time.perf_counter() - start)
        forward, backward = _forward_backward(trainer, batch)
        taken["forward"].append(forward)
        taken["backward"].append(backward)
        start = time.perf_counter()
        if trainer.optim.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([p for p in trainer.module.parameters() if p.grad is not None], trainer.optim.clip_norm)
        trainer.optimizer.step()
        if trainer.average is not None:
            trainer.average.update(1)
        taken["optimizer"].append(time.perf_counter() - start)
        start = time.perf_counter()
        a @ b
        yard.append(time.perf_counter() - start)
    parts = {name: median(values) for name, values in taken.items()}
    whole = median(sum(values) for values in zip(*taken.values(), strict=True))
    return Profile(len(batch), whole, parts, float(counter.get_total_flops()), 2 * SIZE**3 / median(yard))


def _forward_backward(trainer: Trainer, batch: Any) -> tuple[float, float]:
    trainer.optimizer.zero_grad(set_to_none=True)
    step = trainer.streams[0].step.train()
    start = time.perf_counter()
    loss = step(batch).loss
    middle = time.perf_counter()
    loss.backward()
    return middle - start, time.perf_counter() - middle
