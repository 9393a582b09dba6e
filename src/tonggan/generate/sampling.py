"""Which word comes next: the likeliest, or one that is drawn.

Shape letters: V words of the vocabulary.
"""

from __future__ import annotations

from typing import Self

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from tonggan.config import Config


class Sampling(Config):
    """How one request is answered. As it stands: the likeliest word each time, until an end."""

    max_tokens: PositiveInt | None = None
    """Longest answer; None: as long as the model has room."""
    temperature: float = Field(default=0.0, ge=0)
    """0: the likeliest word. Otherwise scores are divided by it before one is drawn."""
    top_k: PositiveInt | None = None
    """Draw among the so many likeliest."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Draw among the fewest that have this probability together (Holtzman et al. 2020)."""
    min_p: float | None = Field(default=None, gt=0, le=1)
    """Draw among those that have at least this share of the likeliest one's probability (Nguyen et al. 2024)."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Scores of words that stand in prompt or answer are divided by it where positive, multiplied where negative (Keskar et al. 2019)."""
    beams: PositiveInt = 1
    length_penalty: float = 1.0
    """With beams: a finished answer's log-probability is divided by its length to this power."""
    samples: PositiveInt = 1
    """How many answers; with beams the best ones."""
    seed: int | None = None
    """Of the draws; the same whatever else is answered beside it. None: another one each time."""
    stop: tuple[str, ...] = ()
    """Texts at which an answer ends; they do not belong to it."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.beams > 1 and self.temperature:
            raise ValueError("beams look for the likeliest answer, a temperature draws one: leave one of them out")
        if self.samples > self.beams > 1:
            raise ValueError(f"{self.samples} answers of {self.beams} beams: there are as many as beams at most")
        if self.beams > 1 and self.stop:
            raise ValueError("stop ends an answer by its text, beams compare answers by their tokens: leave one of them out")
        if self.samples > 1 and self.beams == 1 and not self.temperature:
            raise ValueError("several answers at temperature 0 are all the same: set a temperature, or beams")
        if "" in self.stop:
            raise ValueError("an empty stop would end every answer at once")
        return self


def penalised(scores: Float[Tensor, " V"], used: set[int], sampling: Sampling) -> Float[Tensor, " V"]:
    """Scores in which words that were used count less."""
    if sampling.repetition_penalty == 1 or not used:
        return scores
    index = torch.tensor(sorted(used), device=scores.device)
    there = scores[index]
    changed = torch.where(there < 0, there * sampling.repetition_penalty, there / sampling.repetition_penalty)
    return scores.index_copy(0, index, changed)


def pick(scores: Float[Tensor, " V"], sampling: Sampling, generator: torch.Generator | None) -> int:
    """The likeliest word, or one that is drawn from what temperature, top_k, top_p and min_p leave, in this order."""
    if generator is None:
        return int(scores.argmax())
    # The best at 0, and no division by less than there is: a temperature near 0 makes the others hopeless, no sum infinite.
    scores = (scores - scores.max()) / max(sampling.temperature, torch.finfo(scores.dtype).tiny)
    if sampling.top_k is not None and sampling.top_k < len(scores):
        scores = scores.masked_fill(scores < scores.topk(sampling.top_k).values[-1], float("-inf"))
    if sampling.top_p is not None:
        ordered, places = scores.sort(descending=True)
        chances = ordered.softmax(dim=0)
        # What is likelier than this word has the share already: the word is beyond it. The first always stays.
        beyond = chances.cumsum(dim=0) - chances >= sampling.top_p
        scores = scores.masked_fill(torch.zeros_like(beyond).scatter(0, places, beyond), float("-inf"))
    chances = scores.softmax(dim=0)
    if sampling.min_p is not None:
        chances = chances.masked_fill(chances < sampling.min_p * chances.max(), 0.0)
    return int(torch.multinomial(chances.cpu(), 1, generator=generator))
