"""Recognised speech against its transcript: word and character error rate.

The rate is that of the corpus: all errors by all reference units (as in jiwer and torchmetrics), not the mean of the utterances' rates.
So each utterance keeps its errors and its length, and `error_rate` is a statistic of them. It can be above 1.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from tonggan.types import UsageError

WER = "wer/v1: words between spaces, as they are written; errors of all utterances by words of all references"
CER = "cer/v1: characters as they are written, spaces inside count, those around do not; errors by characters of all references"
CER_ZH = "cer-zh/v1: characters after NFKC and lower case, without spaces and punctuation; errors by characters of all references"


def words(text: str) -> list[str]:
    """The units of `WER`."""
    return text.split()


def characters(text: str) -> list[str]:
    """The units of `CER`."""
    return list(text.strip())


def zh_characters(text: str) -> list[str]:
    """The units of `CER_ZH`: full-width forms as half-width ones, no punctuation (Unicode P, so `%` goes too), no white space."""
    return [c for c in unicodedata.normalize("NFKC", text).lower() if not c.isspace() and not unicodedata.category(c).startswith("P")]


def errors(references: Sequence[str], hypotheses: Sequence[str], units: Callable[[str], Sequence[Hashable]] = words) -> np.ndarray:
    """Each utterance's errors (substitutions, deletions and insertions) and the length of its reference, both in `units`: [n, 2]."""
    if len(references) != len(hypotheses):
        raise UsageError(f"{len(references)} transcripts but {len(hypotheses)} recognised texts; give one to each utterance")
    found = [(edit_distance(cut, units(said)), len(cut)) for cut, said in zip(map(units, references), hypotheses, strict=True)]
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def error_rate(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Errors by reference units, of `errors` [n, 2]: the statistic for `evaluate.resample`.

    NaN where nothing at all was to be recognised (jiwer 4 gives the number of errors there, which is no rate).
    """
    wrong, length = (times @ values).T
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = np.where(length > 0, wrong / length, np.nan)
    return found


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Levenshtein's: the fewest substitutions, deletions and insertions that turn `a` into `b`."""
    number: dict[Hashable, int] = {}
    one, other = (np.array([number.setdefault(unit, len(number)) for unit in units], dtype=np.int64) for units in (a, b))
    steps = np.arange(len(other) + 1)
    row = steps
    for i, unit in enumerate(one, 1):
        above = np.minimum(row[1:] + 1, row[:-1] + (other != unit))
        # An insertion comes from the cell to the left, at one more for each step: a running minimum once the steps are taken off.
        row = np.minimum.accumulate(np.concatenate([[i], above]) - steps) + steps
    return int(row[-1])
