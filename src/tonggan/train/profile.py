"""Where the time of a training step goes, and how much of the machine's matrix speed it uses.

Useful work is counted, not guessed: multiplications and additions (a product of an m x k by a k x n matrix counts 2mkn) of matrix
products, convolutions and attention, as torch's flop counter sees them in a plain forward and backward pass over *the very
batches that are timed*. What is computed twice (GradCache's second forward pass, attention's recomputation) counts once: it is time
spent, not work done. Recurrent layers and everything elementwise count nothing.

The yardstick is a 2048-cubed product of fp32 matrices after every step of the same process, so that whatever else the machine
does slows both alike.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tonggan.train.trainer import Trainer

SIZE = 2048


@dataclass(frozen=True, slots=True)
class Profile:
    """What was measured; every number is of one training step."""

    rows: float
    seconds: float
    """Median of the whole step, from asking for the batch to the moved average of weights."""
    parts: dict[str, float]
    """Mean seconds: data (waiting for the batch), forward, backward, optimizer (clipping and averaging too), other."""
    gflop: float
    """Useful operations, in thousands of millions."""
    gflops: float
    """Useful operations per second of the whole step."""
    yardstick_gflops: float
    """Operations per second of the matrix product."""
    share: float
    """Median of the steps' rate over that of the product that followed each."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def text(self) -> str:
        """A few lines for people."""
        whole = sum(self.parts.values())
        spent = ", ".join(f"{name} {100 * seconds / whole:.0f} %" for name, seconds in self.parts.items())
        return "\n".join(
            [
                f"{self.rows:.0f} rows a step, {self.seconds * 1e3:.0f} ms, {self.rows / self.seconds:.0f} rows/s",
                f"useful: {self.gflop:.1f} GFLOP a step, {self.gflops:.1f} GFLOP/s (matrix products, convolutions, attention; once each)",
                f"a {SIZE}³ fp32 matrix product between the steps: {self.yardstick_gflops:.1f} GFLOP/s",
                f"share of it that the whole step uses: {self.share:.2f}",
                f"where the time goes: {spent}",
            ]
        )


def profile(trainer: Trainer, steps: int = 10, warm: int = 3) -> Profile:
    """Measure `steps` updates after `warm` others. The model in memory is trained by them; nothing is written."""
    clock = trainer.clock
    clock.exact = True
    a, b = (torch.randn(SIZE, SIZE, device=trainer.device) for _ in range(2))
    for _ in range(warm):
        trainer.update()
        torch.mm(a, b)
    first, states = trainer.step, [stream.batches.state_dict() for stream in trainer.streams]
    clock.seconds.clear()
    taken, yard, rows = [], [], []
    for _ in range(steps):
        begun = clock.now()
        rows.append(trainer.update()[1])
        middle = clock.now()
        torch.mm(a, b)
        yard.append(clock.now() - middle)
        taken.append(middle - begun)
    parts = {name: seconds / steps for name, seconds in clock.seconds.items()}
    parts["other"] = max(0.0, fmean(taken) - sum(parts.values()))
    for stream, state in zip(trainer.streams, states, strict=True):
        stream.batches.load_state_dict(state)
    flops = [useful_flops(trainer, first + k) for k in range(steps)]
    product = 2 * SIZE**3
    return Profile(
        rows=fmean(rows),
        seconds=median(taken),
        parts=parts,
        gflop=fmean(flops) / 1e9,
        gflops=median(f / t for f, t in zip(flops, taken, strict=True)) / 1e9,
        yardstick_gflops=product / median(yard) / 1e9,
        share=median(f / t / (product / y) for f, t, y in zip(flops, taken, yard, strict=True)),
    )


def useful_flops(trainer: Trainer, step: int) -> int:
    """Operations of the update number `step` (from 0) on the next batches; no weight is changed."""
    total = 0
    for stream in trainer.due(step):
        batch = next(stream.batches).to(trainer.device)
        trainer.prepare_step(stream)
        with FlopCounterMode(display=False, custom_mapping=_ON_CPU) as counter:
            stream.step(batch).loss.backward()
        total += counter.get_total_flops()
    trainer.optimizer.zero_grad(set_to_none=True)
    return total


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    *batch, queries, width = query
    return 2 * math.prod(batch) * queries * key[-2] * (width + value[-1])


def _attention_backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
    return 2 * _attention(query, key, value)  # four products, forward has two


# torch counts attention on a GPU only. The counter calls these with shapes in place of tensors.
_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
