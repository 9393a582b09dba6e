"""Large contrastive batches in little memory (Gao et al. 2021, GradCache).

The loss couples all rows, so gradients cannot simply be accumulated over parts. Instead: encode the parts without a graph,
compute the loss once on all representations and keep *their* gradients, then encode each part again with a graph and
push its share of those gradients through. One more forward pass, and exactly the gradient of the whole batch.

Accumulation that computes the loss once per part, against all other parts' representations (as open_clip's `--accum-freq A`
does), gives the scale A times its gradient, and draws new dropout masks in the second pass. Here the loss is computed once, and the
random numbers are replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from tonggan.tensors import Batch, StepOutput


class Coupled(Protocol):
    """The half of a step that GradCache needs (see `steps.base.CoupledStep`)."""

    def encode(self, batch: Batch, /) -> dict[str, Tensor]: ...
    def couple(self, reps: dict[str, Tensor], keys: Tensor | None, /) -> StepOutput: ...


def cached_backward(
    step: Coupled, batch: Batch, micro: int, *, weight: float = 1.0, quiet: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> StepOutput:
    """Gradients of `step` on the whole batch, added to `.grad`, with no more than `micro` rows' activations in memory.

    The gradients are those of `weight` times the loss; what is returned is the step's own output.

    Dropout and any other randomness of the first encoding are replayed in the second. Parameters that the loss uses itself
    (the scale) get their gradient once, together with the last part's. Networks with live BatchNorm statistics are outside the
    promise: they see other batches in parts than whole.

    Over several processes, `quiet` is what keeps a wrapper from averaging gradients: DDP's `no_sync`. All parts but the last are
    encoded and sent back inside it, so that gradients are averaged once.
    """
    if micro < 1:
        raise ValueError(f"micro must be at least 1, got {micro}")
    parts = list(_parts(batch, micro))
    states = []
    pieces: list[dict[str, Tensor]] = []
    with torch.no_grad():
        for part in parts:
            states.append(_random_state(part))
            pieces.append(step.encode(part))
    reps = {name: torch.cat([piece[name] for piece in pieces]).requires_grad_() for name in pieces[0]}
    output = step.couple(reps, batch.keys)
    gradients, own = _gradients(output.loss * weight, reps)
    after = _random_state(batch)
    at = 0
    for number, (part, state) in enumerate(zip(parts, states, strict=True), start=1):
        last = number == len(parts)
        with nullcontext() if last else quiet():
            _restore(state)
            found = step.encode(part)
            share = [(found[name], whole[at : at + len(part)]) for name, whole in gradients.items() if found[name].requires_grad]
            _backward(share + own if last else share)
        at += len(part)
    _restore(after)
    return StepOutput(output.loss.detach(), output.report)


def _gradients(loss: Tensor, reps: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
    """Gradients of the representations by name, and of each parameter that the loss uses itself."""
    leaves = _leaves(loss)
    with torch.autocast(loss.device.type, enabled=False):
        found = dict(zip(leaves, torch.autograd.grad(loss, leaves), strict=True))  # tensors hash by identity
    gradients = {name: found.pop(rep) for name, rep in reps.items() if rep in found}
    return gradients, list(found.items())


def _leaves(loss: Tensor) -> list[Tensor]:
    """The tensors at which the loss's graph ends: what its gradient is taken for."""
    leaves, seen, todo = [], set(), [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        todo += [following for following, _ in node.next_functions]
    return leaves


def _backward(share: list[tuple[Tensor, Tensor]]) -> None:
    if share:
        with torch.autocast(share[0][0].device.type, enabled=False):
            torch.autograd.backward([x for x, _ in share], [gradient for _, gradient in share])


def _parts(batch: Batch, micro: int) -> Iterator[Batch]:
    for start in range(0, len(batch), micro):
        yield batch.slice(start, start + micro)


Random: TypeAlias = tuple[Tensor, tuple[Tensor, torch.device] | None]
"""The CPU's generator and, where the batch is on a GPU, that GPU's. (The second has not been run on a GPU.)"""


def _random_state(batch: Batch) -> Random:
    where = batch.device
    cuda = (torch.cuda.get_rng_state(where), where) if where is not None and where.type == "cuda" else None
    return torch.get_rng_state(), cuda


def _restore(state: Random) -> None:
    cpu, cuda = state
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state(*cuda)
