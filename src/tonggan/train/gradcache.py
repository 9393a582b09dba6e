"""Large contrastive batches in little memory (Gao et al. 2021, GradCache).

The loss couples all rows, so gradients cannot simply be accumulated over parts. Instead: encode the parts without a graph,
compute the loss once on all representations and keep *their* gradients, then encode each part again with a graph and
push its share of those gradients through. One more forward pass, and exactly the gradient of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from tonggan.tensors import Batch, StepOutput


class Coupled(Protocol):
    """The half of a step that GradCache needs (see `steps.base.CoupledStep`)."""

    def encode(self, batch: Batch) -> dict[str, Tensor]: ...
    def couple(self, reps: dict[str, Tensor], keys: Tensor | None) -> StepOutput: ...


def cached_backward(step: Coupled, batch: Batch, micro: int) -> StepOutput:
    """Gradients of `step` on the whole batch, added to `.grad`, with no more than `micro` rows' activations in memory.

    Dropout and any other randomness of the first encoding are replayed in the second. Parameters that the loss uses itself
    (the scale) get their gradient once, not once per part. Networks with live BatchNorm statistics are outside the promise: they
    see other batches in parts than whole.
    """
    parts = list(_parts(batch, micro))
    states = []
    pieces: list[dict[str, Tensor]] = []
    with torch.no_grad():
        for part in parts:
            states.append(_random_state(part))
            pieces.append(step.encode(part))
    reps = {name: torch.cat([piece[name] for piece in pieces]).requires_grad_() for name in pieces[0]}
    output = step.couple(reps, batch.keys)
    output.loss.backward()  # type: ignore[no-untyped-call]
    after = _random_state(batch)
    at = 0
    for part, state in zip(parts, states, strict=True):
        _restore(state)
        found = step.encode(part)
        surrogate = sum(
            (found[name] * rep.grad[at : at + len(part)]).sum()
            for name, rep in reps.items()
            if rep.grad is not None and found[name].requires_grad
        )
        if isinstance(surrogate, Tensor):
            surrogate.backward()  # type: ignore[no-untyped-call]
        at += len(part)
    _restore(after)
    return StepOutput(output.loss.detach(), output.report)


def _parts(batch: Batch, micro: int) -> Iterator[Batch]:
    for start in range(0, len(batch), micro):
        yield batch.slice(start, start + micro)


def _random_state(batch: Batch) -> tuple[Tensor, Tensor | None]:
    where = next((t.device for t in (batch.pixels, batch.image_features, batch.text_features, batch.keys) if t is not None), None)
    cuda = torch.cuda.get_rng_state(where) if where is not None and where.type == "cuda" else None
    return torch.get_rng_state(), cuda


def _restore(state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
