"""Train a model that reads a picture and a text together to tell right pairs from wrong ones.

Shape letters: B rows, K kinds of key.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.base import Embedder, Matcher
from tonggan.objectives.contrastive import scale
from tonggan.objectives.matching import draw_negatives, matching
from tonggan.tensors import Batch, Modality, StepOutput, Tokens
from tonggan.types import UsageError


class MatchingConfig(Config):
    """How wrong pairs are chosen."""

    kind: Literal["matching"] = "matching"
    negatives: Literal["hard", "random"] = "random"
    """`hard`: in proportion to the softmax of the model's own similarities (Li et al. 2021, ALBEF, section 3.2), for models that also embed
    pictures and texts apart; `random`: any row of the batch that is no positive."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """What a batch needs to have."""
        return frozenset({"image", "text"})


class MatchingStep(nn.Module):
    """Every picture with its own text, with a wrong text, and every text with a wrong picture."""

    model: Matcher

    def __init__(self, model: Matcher, config: MatchingConfig) -> None:
        super().__init__()
        if config.negatives == "hard" and not isinstance(model, Embedder):
            raise UsageError(
                f"step.negatives: hard ones are chosen by the model's own similarities, and {type(model).__name__} embeds nothing; "
                "take random"
            )
        self.model, self.config = model, config

    def forward(self, batch: Batch) -> StepOutput:
        """Cross-entropy of right and wrong pairs. `accuracy` is over all of them, `right` and `wrong` over each kind alone.

        Wrong pairs come from the rows at hand: of one process, and of one part where an update is accumulated from several.
        """
        pixels, tokens = batch.pixels, batch.tokens
        if pixels is None or tokens is None:
            raise UsageError("step matching needs pictures and texts themselves: a model that reads both together has no frozen features")
        similarity = self._similarity(pixels, tokens)
        texts = draw_negatives(similarity, batch.keys)
        pictures = draw_negatives(similarity.T, batch.keys)
        own = torch.arange(len(pixels), device=pixels.device)
        which_picture = torch.cat([own, texts.anchors, pictures.candidates])
        which_text = torch.cat([own, texts.candidates, pictures.anchors])
        labels = (torch.arange(len(which_picture), device=pixels.device) < len(own)).long()
        logits = self.model.match(pixels[which_picture], _take(tokens, which_text))
        found = matching(logits, labels)
        correct = (logits.detach().argmax(dim=1) == labels).float()
        report = {"loss": float(found.loss.detach()), "floor": found.floor, "chance": found.chance, "accuracy": float(correct.mean())}
        report["right"] = float(correct[: len(own)].mean())
        if len(labels) > len(own):
            report["wrong"] = float(correct[len(own) :].mean())
        return StepOutput(found.loss, report)

    @torch.no_grad()
    def _similarity(self, pixels: Tensor, tokens: Tokens) -> Tensor:
        """Scaled cosines [B, B] of pictures with texts, without gradient; zeros where any wrong pair will do."""
        model = self.model
        if self.config.negatives == "random" or not isinstance(model, Embedder):
            return torch.zeros(len(pixels), len(pixels), device=pixels.device)
        cosines = model.encode("image", pixels) @ model.encode("text", tokens).T
        return scale(model.log_scale, model.max_scale) * cosines


def _take(tokens: Tokens, rows: Tensor) -> Tokens:
    return Tokens(tokens.ids[rows], tokens.lengths[rows], None if tokens.starts is None else tokens.starts[rows])
