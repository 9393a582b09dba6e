"""Train a model to say what follows: its language, or answers about what it sees and hears (Radford et al. 2018; Liu et al. 2023)."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import nn

from tonggan.config import Config
from tonggan.nn.talking import Talker
from tonggan.objectives.language import language_cross_entropy
from tonggan.tensors import Batch, Modality, StepOutput
from tonggan.types import UsageError


class LanguageConfig(Config):
    """Which words are asked for is in the batch's targets."""

    kind: Literal["language"] = "language"
    of: tuple[Literal["image", "audio", "video"], ...] | None = None
    """Which media of a row its captions and its question are about; the others are left out. None: all that it has."""
    pack: bool = False
    """Several conversations in a row, which see nothing of each other: no padding is computed."""
    room: PositiveInt | None = None
    """With `pack`: tokens of a row; None: of the batch's longest conversation."""
    shots: NonNegativeInt = 0
    """Up to so many rows of the batch stand before another in one conversation, so that a model learns to go by examples."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """No row needs to have anything: pictures, sounds and words come as its conversation has them."""
        return frozenset()

    @model_validator(mode="after")
    def _room_of_packs(self) -> LanguageConfig:
        if self.room is not None and not self.pack:
            raise ValueError("room is that of packed rows: set pack, or leave it out")
        return self


class LanguageStep(nn.Module):
    """Asks for the batch's targets. Logits are computed a few places at a time, and where no word is asked for not at all."""

    model: Talker

    def __init__(self, model: Talker, config: LanguageConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, batch: Batch) -> StepOutput:
        """`word_top1` is the share of words that are named right, each after the right ones before it; `words` how many are asked for."""
        tokens, targets = batch.tokens, batch.targets
        if tokens is None or targets is None:
            raise UsageError("step language needs tokens, and targets that say which of the words after them are asked for")
        if targets.shape != tokens.ids.shape:
            raise UsageError(f"step language: targets are {list(targets.shape)}, tokens {list(tokens.ids.shape)}: each token has one")
        states = self.model.say(tokens, self.model.read(batch))
        weight, bias = self.model.output
        found = language_cross_entropy(states.flatten(0, 1), weight, targets.flatten(), bias)
        report = {"loss": float(found.loss.detach()), "floor": found.floor, "chance": found.chance}
        right = float(found.right) / max(found.places, 1)
        return StepOutput(found.loss, report | {"word_top1": right, "words": float(found.places)})
