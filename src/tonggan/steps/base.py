"""What the trainer asks of a step."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from tonggan.tensors import Batch, StepOutput


@runtime_checkable
class Step(Protocol):
    """A training task: one scalar per batch, the mean over its rows."""

    def __call__(self, batch: Batch) -> StepOutput:
        """Loss and report of one batch."""
        ...


@runtime_checkable
class CoupledStep(Step, Protocol):
    """A task whose loss couples all rows of a batch (every contrastive one). Split in two so that GradCache can encode in parts."""

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Representations by name, each [B, D]: all that the loss needs of the rows."""
        ...

    def couple(self, reps: dict[str, Tensor], keys: Tensor | None) -> StepOutput:
        """The loss over all rows' representations, `keys` [B, K] saying which are positives of each other."""
        ...
