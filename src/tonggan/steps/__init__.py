"""One small module per training task: `forward(batch)` computes the loss, the trainer knows nothing else of it."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field
from torch import nn

from tonggan.models import DualEncoder
from tonggan.models.base import Embedder, WordPredictor
from tonggan.steps.contrastive import ContrastiveConfig, ContrastiveStep
from tonggan.steps.masked_language import MaskedLanguageConfig, MaskedLanguageStep
from tonggan.steps.transfer import TextTransferStep, TransferConfig
from tonggan.tensors import Vocabulary
from tonggan.types import UsageError

StepConfig: TypeAlias = Annotated[ContrastiveConfig | TransferConfig | MaskedLanguageConfig, Field(discriminator="kind")]


def build(
    model: nn.Module, config: StepConfig, *, teacher: DualEncoder | None = None, vocabulary: Vocabulary | None = None
) -> nn.Module:
    """The step of a configuration; `teacher` is for those that learn from a frozen model, `vocabulary` for those that hide words.

    Raises `UsageError` when the model cannot do what the step trains.
    """
    match config:
        case ContrastiveConfig():
            if not isinstance(model, Embedder):
                raise UsageError(f"step contrastive: {type(model).__name__} has no common space; it needs a model that can embed")
            return ContrastiveStep(model, config)
        case TransferConfig():
            if teacher is None or not isinstance(model, DualEncoder):
                raise UsageError("step transfer: needs a two-tower model, and its frozen teacher")
            return TextTransferStep(model, teacher, config)
        case MaskedLanguageConfig():
            if vocabulary is None or not isinstance(model, WordPredictor):
                raise UsageError("step masked_language: needs a model that says words, and its tokenizer's vocabulary")
            return MaskedLanguageStep(model, config, vocabulary)


__all__ = ["StepConfig", "build"]
