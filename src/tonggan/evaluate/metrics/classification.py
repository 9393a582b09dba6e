"""Statistics of classified items: balanced accuracy, average precision, and precision, recall and F1 of one answer.

Each is a `Statistic` of `evaluate.resample`: it sees the items' values once and how often each resample counts them, so that one
function gives the number, its interval and its test. Plainly: `statistic(values, np.ones((1, n)))[0]`.

Shape letters: n items, c classes, r resamples.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from tonggan.evaluate.resample import Statistic, mean_of_groups
from tonggan.types import UsageError

BALANCED = "balanced-accuracy/v1: mean over the classes that occur of each class's recall"
AP = "average-precision/v1: precision at each positive in order of score (all-point), equal scores taken together, mean over classes"
AP_11 = "average-precision-11/v1: largest precision at recall 0, 0.1 … 1 or more (VOC 2007), equal scores taken together, mean over classes"
F1 = "f1/v1: of the answer yes; what could not be read is not a yes"


def class_hits(truth: Sequence[Hashable], guess: Sequence[Hashable]) -> np.ndarray:
    """Each item's class as a number, and whether it was guessed: [n, 2], the values of `balanced_accuracy`."""
    if len(truth) != len(guess):
        raise UsageError(f"{len(truth)} labels but {len(guess)} guesses; give one to each item")
    number: dict[Hashable, int] = {}
    found = [(number.setdefault(t, len(number)), t == g) for t, g in zip(truth, guess, strict=True)]
    return np.array(found, dtype=np.float64).reshape(-1, 2)


balanced_accuracy = mean_of_groups
"""Mean recall of the classes, of `class_hits` [n, 2]."""


def average_precision(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """All-point average precision (Everingham et al. 2015, section 3.2.1, without interpolation) of one class: [r].

    `values` [n, 2] holds each item's score and whether it is of the class (0 or 1). Items with equal scores have one threshold between
    them, as in scikit-learn. NaN where there is no positive.
    """
    found, precision = _curve(values, times)
    with np.errstate(invalid="ignore"):
        area: np.ndarray = (np.diff(found, axis=1, prepend=0) * precision).sum(axis=1) / found[:, -1]
    return area


def average_precision_11(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """11-point average precision (Everingham et al. 2010, section 4.2), which VOC 2007 and the CLIP paper use: [r].

    The mean, over recalls 0, 0.1 … 1, of the largest precision at that recall or a higher one.
    """
    found, precision = _curve(values, times)
    total = found[:, -1:]
    # In whole numbers: in floating point 3 of 10 would not reach a recall of 3 * 0.1.
    points = [np.where(10 * found >= tenth * total, precision, 0).max(axis=1) for tenth in range(11)]
    return np.where(total[:, 0] > 0, np.mean(points, axis=0), np.nan)


def mean_over_classes(statistic: Statistic) -> Statistic:
    """Mean average precision: of values [n, c, 2] the mean of the classes' `statistic`; a class without a positive is left out."""

    def statistic_of_all(values: np.ndarray, times: np.ndarray) -> np.ndarray:
        each = np.stack([statistic(values[:, c], times) for c in range(values.shape[1])])
        found: np.ndarray = np.nanmean(each, axis=0)
        return found

    return statistic_of_all


def _curve(values: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives found, and precision, at each threshold from the highest score down: [r, thresholds]."""
    # A score that is not a number helps nobody: the wrong item stands first, the right one last.
    height = np.where(np.isnan(values[:, 0]), np.where(values[:, 1] > 0, -np.inf, np.inf), values[:, 0])
    order = np.argsort(-height, kind="stable")
    score, positive = height[order], values[order, 1]
    counted = times[:, order]
    ends = np.append(score[1:] != score[:-1], True)
    found, seen = np.cumsum(counted * positive, axis=1)[:, ends], np.cumsum(counted, axis=1)[:, ends]
    return found, found / np.maximum(seen, 1)  # seen nothing, found nothing


def precision(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Of values [n, 2] (answered yes, is yes): how many yeses are right: [r]. 0 where none was given."""
    right, said, _ = _yeses(values, times)
    return right / np.maximum(said, 1)


def recall(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Of values [n, 2] (answered yes, is yes): how many of the yeses were found: [r]. 0 where there is none."""
    right, _, true = _yeses(values, times)
    return right / np.maximum(true, 1)


def f1(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Of values [n, 2] (answered yes, is yes): the harmonic mean of precision and recall, POPE's overall score: [r]."""
    right, said, true = _yeses(values, times)
    return 2 * right / np.maximum(said + true, 1)


def _yeses(values: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Yeses that are right, that were said, that are true; each [r]."""
    said, true = values.T
    return times @ (said * true), times @ said, times @ true
