"""Captions against several references: BLEU, ROUGE-L and CIDEr-D, as `pycocoevalcap` computes them on tokenised text.

All three see tokens (`metrics.tokens`), never text: candidates [n] are token lists, references [n] are lists of token lists, at least one
per picture. The per-picture values that they return can be resampled by `evaluate.resample` and tested by `evaluate.significance`.
BLEU is a property of the corpus, not a mean: there each picture's counts are kept, and `bleu` is a statistic of them. Scores are
between 0 and 1, CIDEr-D between 0 and 10; papers print them times 100.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tonggan.evaluate.metrics.tokens import Tokenizer
from tonggan.evaluate.resample import Statistic
from tonggan.types import UsageError

Words: TypeAlias = Sequence[str]
Gram: TypeAlias = tuple[str, ...]
ORDER = 4
"""The longest n-gram of BLEU and CIDEr-D."""
BLEU = (
    "bleu/v1: corpus level, hits clipped at the largest count of a reference, closest reference length (tie: shorter), "
    "+1e-15 on hits, +1e-9 on totals"
)
ROUGE_L = "rouge-l/v1: largest precision and largest recall over the references, taken separately, beta 1.2, mean over pictures"
CIDER_D = (
    "cider-d/v1: n 1 to 4, sigma 6, lengths in bigrams, times 10, mean over pictures; "
    "document frequencies are those of the full set, also while pictures are resampled"
)


def protocol(metric: str, tokens: Tokenizer) -> str:
    """The protocol id of a score: one of `BLEU`, `ROUGE_L`, `CIDER_D` with the way in which the text was cut."""
    return f"{metric}; tokens {tokens.id}"


def ngrams(words: Words, longest: int = ORDER) -> Counter[Gram]:
    """How often each n-gram of 1 to `longest` tokens occurs."""
    return Counter(tuple(words[i : i + n]) for n in range(1, longest + 1) for i in range(len(words) - n + 1))


# ------------------------------------------------------------------------------------------------ BLEU


def bleu_counts(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> np.ndarray:
    """What BLEU (Papineni et al. 2002, section 2) needs of each picture, [n, 10]: for `bleu`.

    Columns: hits for n = 1 to 4 (each n-gram counted at most as often as in the reference that has most of it), n-grams for
    n = 1 to 4, the candidate's length, and the length of the reference nearest to it in length (of two, the shorter).
    """
    _check(candidates, references)
    found = np.zeros((len(candidates), 2 * ORDER + 2))
    for row, candidate, refs in zip(found, candidates, references, strict=True):
        most: Counter[Gram] = Counter()
        for reference in refs:
            most |= ngrams(reference)
        for gram, count in ngrams(candidate).items():
            row[len(gram) - 1] += min(count, most[gram])
        length = len(candidate)
        row[ORDER : 2 * ORDER] = [max(0, length - n) for n in range(ORDER)]
        row[2 * ORDER :] = length, min((abs(len(r) - length), len(r)) for r in refs)[1]
    return found


def bleu(order: int = ORDER) -> Statistic:
    """BLEU-`order` of `bleu_counts` [n, 10], of all pictures together; one picture's own BLEU is its value on that picture alone.

    The two small numbers are the reference's: they keep a picture without hits from making the product exactly 0.
    """

    def statistic(values: np.ndarray, times: np.ndarray) -> np.ndarray:
        totals = times @ values
        hits, guesses = totals[:, :order], totals[:, ORDER : ORDER + order]
        precision = np.prod((hits + 1e-15) / (guesses + 1e-9), axis=1) ** (1 / order)
        ratio = (totals[:, -2] + 1e-15) / (totals[:, -1] + 1e-9)
        found: np.ndarray = precision * np.exp(np.minimum(0, 1 - 1 / ratio))
        return found

    return statistic


# --------------------------------------------------------------------------------------------- ROUGE-L


def rouge_l(candidates: Sequence[Words], references: Sequence[Sequence[Words]], beta: float = 1.2) -> np.ndarray:
    """ROUGE-L (Lin 2004, section 3) of each picture [n]: F of the longest common subsequence.

    Precision and recall are the largest over the references each for itself, so they may come from different ones. No words at all
    count as one empty word, as in the reference: an empty candidate matches an empty reference.
    """
    _check(candidates, references)
    found = np.zeros(len(candidates))
    for i, (candidate, refs) in enumerate(zip(candidates, references, strict=True)):
        words = candidate or [""]
        common = [(_common(words, reference or [""]), max(len(reference), 1)) for reference in refs]
        precision = max(length for length, _ in common) / len(words)
        recall = max(length / size for length, size in common)
        if precision and recall:
            found[i] = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    return found


def _common(a: Words, b: Words) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, 1):
            above = row[j]
            row[j] = diagonal + 1 if word == other else max(above, row[j - 1])
            diagonal = above
    return row[-1]


# --------------------------------------------------------------------------------------------- CIDEr-D


@dataclass(frozen=True, slots=True)
class Frequencies:
    """In how many pictures' references an n-gram occurs, among how many pictures."""

    pictures: int
    of: Mapping[Gram, int]

    @classmethod
    def count(cls, references: Sequence[Sequence[Words]]) -> Frequencies:
        """Those of a full set; kept while pictures of it are scored or resampled."""
        of = Counter(gram for refs in references for gram in {g for reference in refs for g in ngrams(reference)})
        return cls(len(references), of)


@dataclass(frozen=True, slots=True)
class _Vector:
    """A caption as weights of its n-grams, the norm for each n, and its length in bigrams."""

    weights: Mapping[Gram, float]
    norms: Sequence[float]
    length: int


def cider_d(
    candidates: Sequence[Words], references: Sequence[Sequence[Words]], frequencies: Frequencies | None = None, sigma: float = 6.0
) -> np.ndarray:
    """CIDEr-D (Vedantam et al. 2015, sections 4 and 5.2) of each picture [n], between 0 and 10.

    n-grams are weighed by how often the caption has them, times ln(pictures) - ln(pictures whose references have them). For each n
    the similarity is a cosine in which no n-gram counts for more than in the reference, lowered by the Gaussian of the difference in
    length (in bigrams: a quirk of the reference). Mean over n and references, times 10. A single picture scores 0: with one document
    every weight is 0.

    Without `frequencies` they are counted in `references`: scores of a subset are then not comparable to those of the whole.
    """
    _check(candidates, references)
    known = frequencies or Frequencies.count(references)
    unseen = math.log(known.pictures) if known.pictures else 0.0
    rarity = {gram: unseen - math.log(count) for gram, count in known.of.items()}
    found = np.zeros(len(candidates))
    for i, (candidate, refs) in enumerate(zip(candidates, references, strict=True)):
        vector = _vector(candidate, rarity, unseen)
        found[i] = 10 * sum(_similarity(vector, _vector(r, rarity, unseen), sigma) for r in refs) / len(refs)
    return found


def _vector(words: Words, rarity: Mapping[Gram, float], unseen: float) -> _Vector:
    weights = {gram: count * rarity.get(gram, unseen) for gram, count in ngrams(words).items()}
    squares = [0.0] * ORDER
    for gram, weight in weights.items():
        squares[len(gram) - 1] += weight * weight
    return _Vector(weights, [math.sqrt(s) for s in squares], max(0, len(words) - 1))


def _similarity(candidate: _Vector, reference: _Vector, sigma: float) -> float:
    products = [0.0] * ORDER
    for gram, weight in candidate.weights.items():
        other = reference.weights.get(gram, 0.0)
        products[len(gram) - 1] += min(weight, other) * other
    norms = (a * b for a, b in zip(candidate.norms, reference.norms, strict=True))
    cosines = (product / norm if norm else 0.0 for product, norm in zip(products, norms, strict=True))
    return sum(cosines) / ORDER * math.exp(-((candidate.length - reference.length) ** 2) / (2 * sigma**2))


def _check(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    if len(candidates) != len(references):
        raise UsageError(f"{len(candidates)} captions but references of {len(references)} pictures; give one caption to each picture")
    if bare := [i for i, refs in enumerate(references) if not refs]:
        raise UsageError(
            f"picture {bare[0]} (counted from 0) has no reference caption; leave out pictures without one ({len(bare)} of them)"
        )
    if any(isinstance(words, str) for words in (*candidates, *(r for refs in references for r in refs))):
        raise UsageError("captions must be cut into tokens first: tonggan.evaluate.metrics.tokens.tokenizer('ptb').cut(text)")
