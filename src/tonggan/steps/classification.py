"""Train a model with a classifier on labelled rows: pictures, texts, or both together.

Shape letters: B rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from tonggan.config import Config
from tonggan.models.base import Labeller
from tonggan.tensors import Batch, Modality, StepOutput
from tonggan.types import UsageError


class ClassificationConfig(Config):
    """What is classified."""

    kind: Literal["classification"] = "classification"
    of: tuple[Modality, ...] = Field(default=("image",), min_length=1)
    """Kinds of input that the model is shown together."""
    among: Literal["all", "column"] = "all"
    """Which classes compete: all that the model learns, or those of the stream's own column, so that one picture can be learnt as red from
    one column and as a star from another."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @property
    def modalities(self) -> frozenset[Modality]:
        """What a batch needs to have."""
        return frozenset(self.of)


class ClassificationStep(nn.Module):
    """Cross-entropy over `Batch.labels`. `others` are classes of other columns, which take no part."""

    model: Labeller

    def __init__(self, model: Labeller, config: ClassificationConfig, *, others: Collection[int] = ()) -> None:
        super().__init__()
        if model.classes is None:
            raise UsageError("step classification: this model has no classifier; set classes in its shape (model.config.classes)")
        self.model, self.config, self.classes = model, config, model.classes
        self._others = torch.zeros(model.classes, dtype=torch.bool)
        self._others[sorted(others)] = True

    def forward(self, batch: Batch) -> StepOutput:
        """`accuracy` is the share of rows whose likeliest class is their label; `floor` is the entropy that smoothing leaves."""
        labels, classes, smooth = batch.labels, self.classes, self.config.label_smoothing
        if labels is None:
            raise UsageError("step classification needs labelled rows, and this batch has no labels")
        if (highest := int(labels.max())) >= classes or int(labels.min()) < 0:
            raise UsageError(f"labels go from {int(labels.min())} to {highest}, the model's classes from 0 to {classes - 1}")
        asked = ~self._others.to(labels.device)
        if wrong := labels[~asked[labels]].tolist():
            raise UsageError(f"label {wrong[0]} is one of the classes of other columns, which take no part")
        logits = self.model.classify({kind: batch.input(kind) for kind in self.config.of}).float()[:, asked]
        labels = (asked.cumsum(0) - 1)[labels]
        loss = F.cross_entropy(logits, labels, label_smoothing=smooth)
        report = {
            "loss": float(loss.detach()),
            "floor": _entropy(logits.shape[1], smooth),
            "chance": math.log(logits.shape[1]),
            "accuracy": float((logits.detach().argmax(dim=1) == labels).float().mean()),
        }
        return StepOutput(loss, report)


def _entropy(classes: int, smoothing: float) -> float:
    """Of a smoothed label: cross-entropy cannot fall below it."""
    off = smoothing / classes
    odds = [1 - smoothing + off] + [off] * (classes - 1)
    return -sum(p * math.log(p) for p in odds if p > 0)
