"""One small module per training task: `forward(batch)` computes the loss, the trainer knows nothing else of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, TypeAlias

from pydantic import Field
from torch import nn

from tonggan.models import DualEncoder
from tonggan.models.base import Embedder, Labeller, LatentLearner, Matcher, WordPredictor
from tonggan.nn.talking import Talker
from tonggan.steps.classification import ClassificationConfig, ClassificationStep
from tonggan.steps.contrastive import ContrastiveConfig, ContrastiveStep
from tonggan.steps.language import LanguageConfig, LanguageStep
from tonggan.steps.latent import LatentConfig, LatentStep
from tonggan.steps.masked_language import MaskedLanguageConfig, MaskedLanguageStep
from tonggan.steps.matching import MatchingConfig, MatchingStep
from tonggan.steps.transfer import TextTransferStep, TransferConfig
from tonggan.tensors import Vocabulary
from tonggan.types import UsageError

StepConfig: TypeAlias = Annotated[
    ContrastiveConfig | TransferConfig | MaskedLanguageConfig | MatchingConfig | ClassificationConfig | LatentConfig | LanguageConfig,
    Field(discriminator="kind"),
]


def build(
    model: nn.Module,
    config: StepConfig,
    *,
    teacher: DualEncoder | None = None,
    vocabulary: Vocabulary | None = None,
    others: Collection[int] = (),
) -> nn.Module:
    """The step of a configuration; `teacher` is for those that learn from a frozen model, `vocabulary` for those that hide words, `others`
    (classes of other columns) for those that classify.

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
        case MatchingConfig():
            if not isinstance(model, Matcher):
                raise UsageError(f"step matching: {type(model).__name__} does not read a picture and a text together")
            return MatchingStep(model, config)
        case ClassificationConfig():
            if not isinstance(model, Labeller):
                raise UsageError(f"step classification: {type(model).__name__} has no classifier")
            return ClassificationStep(model, config, others=others)
        case LatentConfig():
            if not isinstance(model, LatentLearner):
                raise UsageError(f"step latent: {type(model).__name__} cannot fill in its own states; data2vec models can")
            return LatentStep(model, config, vocabulary)
        case LanguageConfig():
            if not isinstance(model, Talker):
                raise UsageError(f"step language: {type(model).__name__} says nothing word by word; it needs a model that talks")
            return LanguageStep(model, config)


def hides_words(config: StepConfig) -> bool:
    """Whether a step hides words of its texts, for which the tokenizer needs a mask token."""
    return isinstance(config, MaskedLanguageConfig) or (isinstance(config, LatentConfig) and config.modality == "text")


__all__ = ["StepConfig", "build", "hides_words"]
