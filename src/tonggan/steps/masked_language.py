"""Train a model to say hidden words from the others (Devlin et al. 2019), and from the picture where it reads one (Kim et al. 2021)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from tonggan.config import Config
from tonggan.models.base import WordPredictor
from tonggan.nn.masking import derived_generator, hide_words
from tonggan.objectives.language import masked_cross_entropy
from tonggan.tensors import Batch, Modality, StepOutput, Vocabulary
from tonggan.types import UsageError


class MaskedLanguageConfig(Config):
    """How much is hidden, and what helps to find it."""

    kind: Literal["masked_language"] = "masked_language"
    share: float = Field(default=0.15, gt=0, le=1)
    """Of each text's tokens; at least one is hidden."""
    whole_words: bool = False
    """Hide all pieces of a word together. A Chinese word counts by its characters: there is no segmenter."""
    with_pictures: bool = False
    """Let the model see the picture of each text."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """What a batch needs to have."""
        return frozenset({"text", "image"} if self.with_pictures else {"text"})


class MaskedLanguageStep(nn.Module):
    """Hides words of the batch's texts and asks for them. Logits are computed where a word is hidden and nowhere else."""

    model: WordPredictor

    def __init__(self, model: WordPredictor, config: MaskedLanguageConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        if config.whole_words and not vocabulary.continues:
            raise UsageError("step.whole_words: this tokenizer has no pieces that go on with a word; leave whole_words out")
        self.model, self.config, self.vocabulary = model, config, vocabulary

    def forward(self, batch: Batch) -> StepOutput:
        """`word_top1` is the share of hidden words that are named right; `hidden` how many there are in this batch."""
        if batch.tokens is None or (self.config.with_pictures and batch.pixels is None):
            raise UsageError(f"step masked_language needs {' and '.join(sorted(self.config.modalities))} in the batch")
        hidden = hide_words(batch.tokens, self.vocabulary, self.config.share, derived_generator(), whole_words=self.config.whole_words)
        logits = self.model.words(hidden.tokens, batch.pixels if self.config.with_pictures else None, where=hidden.where)
        targets = batch.tokens.ids[hidden.where]
        found = masked_cross_entropy(logits, targets)
        right = (logits.detach().argmax(dim=1) == targets).sum() / max(len(targets), 1)
        report = {"loss": float(found.loss.detach()), "floor": found.floor, "chance": found.chance}
        return StepOutput(found.loss, report | {"word_top1": float(right), "hidden": float(len(targets))})
