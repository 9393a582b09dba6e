"""Beam search: the so many likeliest beginnings go on, finished answers are compared by their length-penalised log-probability.

The arithmetic and the rule of when to stop are those of `transformers` with `early_stopping=False`: a request ends once its best beginning,
at the length it has, is worse than its worst kept answer.

Shape letters: K beams, V words of the vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from operator import itemgetter

import torch
from jaxtyping import Float
from torch import Tensor

from tonggan.generate.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Beam:
    """A beginning: its log-probability, tokens, and each token's own log-probability."""

    score: float
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


@dataclass(slots=True)
class BeamSearch:
    """One request's."""

    row: int
    sampling: Sampling
    limit: int
    used: set[int]
    running: list[Beam] = field(default_factory=lambda: [Beam(0.0)])
    kept: list[tuple[float, Beam, bool]] = field(default_factory=list)
    """Finished: penalised score, answer, whether it came to an end token."""
    over: bool = False

    def step(self, scores: Float[Tensor, "K V"], logprobs: Float[Tensor, "K V"], ends: frozenset[int]) -> list[int]:
        """Take the next word of each beginning; gives for each that goes on which one it comes from.

        `scores` are log-probabilities under the request's settings, `logprobs` the model's own.
        """
        width, words = self.sampling.beams, scores.shape[1]
        before = torch.tensor([beam.score for beam in self.running], dtype=scores.dtype, device=scores.device)
        total = (scores + before[:, None]).flatten()
        # So many that as many remain as there are beams, even if the likeliest words are all ends.
        best = total.topk(min(max(2, 1 + len(ends)) * width, len(total)))
        length = len(self.running[0].ids) + 1
        going: list[tuple[int, Beam]] = []
        for place, (score, at) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            if score == -math.inf:
                break  # words that cannot come, where there are fewer than beams that can
            parent, word = divmod(at, words)
            old = self.running[parent]
            beam = Beam(score, (*old.ids, word), (*old.logprobs, float(logprobs[parent, word])))
            if word not in ends and length < self.limit:
                going.append((parent, beam))
            elif place < width:
                self.kept.append((score / length**self.sampling.length_penalty, beam, word in ends))
        self.kept = sorted(self.kept, key=itemgetter(0), reverse=True)[:width]
        self.running = [beam for _, beam in going[:width]]
        if not going:
            self.over = True
        elif len(self.kept) == width:
            self.over = self.running[0].score / length**self.sampling.length_penalty <= self.kept[-1][0]
        return [parent for parent, _ in going[:width]]
