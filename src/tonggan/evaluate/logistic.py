"""Multinomial logistic regression with an L2 penalty, by L-BFGS in float64, and the search for its penalty.

The objective is that of scikit-learn's `LogisticRegression(C)`: C times the summed cross-entropy plus half the squared weights; the
intercept is not penalised. Two classes are told apart by one vector there, so that the penalty of our two counts double. Features are
taken as they are, not scaled, and C is searched for as in the CLIP paper (Radford et al. 2021, appendix A.3).

Shape letters: n rows, d features, c classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from tonggan.types import UsageError

MAX_ITERATIONS = 1000
TOLERANCE = 1e-7
"""The search ends where no entry of the gradient of the mean loss is larger, or where the loss does not change any more. (scikit-learn's
default is 1e-4, with which the weaker penalties are not told apart: the search ends before they have had a say.)"""
LOGISTIC = f"logistic regression, L2, L-BFGS float64, gradient at most {TOLERANCE:g}, at most {MAX_ITERATIONS} iterations"
SWEEP = "C of 1e-6 … 1e6, 8 steps a decade, coarse to fine by accuracy, equal ones by cross-entropy"
PER_DECADE = 8
DECADES = 6
"""Powers of ten on either side of 1."""


@dataclass(frozen=True, slots=True)
class Logistic:
    """A fitted classifier: `weights` [c, d] and `intercept` [c] in the order of `classes`, and how the fitting ended: by itself
    (`converged`), or because its iterations were used up."""

    classes: tuple[str, ...]
    weights: np.ndarray
    intercept: np.ndarray
    c: float
    iterations: int
    converged: bool

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Logits [n, c] of features [n, d]."""
        found: np.ndarray = np.asarray(features, dtype=np.float64) @ self.weights.T + self.intercept
        return found

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Softmax of the scores, [n, c]."""
        scores = self.scores(features)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        found: np.ndarray = odds / odds.sum(axis=1, keepdims=True)
        return found

    def quality(self, features: np.ndarray, labels: Sequence[str]) -> tuple[float, float]:
        """(accuracy, minus the mean cross-entropy) on rows of known classes: larger is better. Ties count against the classifier."""
        scores = self.scores(features)
        truth = np.array([self.classes.index(label) for label in labels])
        right = scores[np.arange(len(truth)), truth]
        top = scores.max(axis=1)
        loss = top - right + np.log(np.exp(scores - top[:, None]).sum(axis=1))
        return float(first(scores, truth).mean()), -float(loss.mean())


def first(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether the true class (its number [n]) scores higher than every other, [n]; a tie does not."""
    others = scores.copy()
    others[np.arange(len(truth)), truth] = -np.inf
    found: np.ndarray = scores[np.arange(len(truth)), truth] > others.max(axis=1)
    return found


def fit(
    features: np.ndarray,
    labels: Sequence[str],
    *,
    c: float = 1.0,
    classes: Sequence[str] | None = None,
    tolerance: float = TOLERANCE,
    iterations: int = MAX_ITERATIONS,
) -> Logistic:
    """The classifier of features [n, d] with these labels [n]; a small `c` is a strong penalty.

    `classes` gives the order of the scores; each must occur among the labels, and no other may. The order of the rows has no influence
    beyond rounding.
    """
    known = _classes(features, labels, classes)
    if not c > 0:
        raise UsageError(f"C is {c}; it must be above 0")
    # About their mean, the features are searched through quicker; as the intercept is not penalised, the classifier is the same.
    middle = np.asarray(features, dtype=np.float64).mean(axis=0)
    centred = features - middle
    # Weights outside of the space that the rows span are 0; with few rows, the search goes on within it.
    basis = np.linalg.qr(centred.T)[0] if centred.shape[1] > len(centred) else None
    x = torch.from_numpy(centred if basis is None else centred @ basis)
    y = torch.tensor([known.index(label) for label in labels])
    intercept = torch.zeros(len(known), dtype=torch.float64, requires_grad=True)
    penalty = (2 if len(known) == 2 else 1) / (2 * c * len(y))
    # In units in which a strong penalty is no steeper than 1; otherwise rounding stops the search far from its end.
    unit = min(1.0, (2 * penalty) ** -0.5)
    free = torch.zeros(len(known), x.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [free, intercept],
        max_iter=iterations,
        max_eval=25 * iterations,
        tolerance_grad=tolerance,
        tolerance_change=1e-15,  # with a weak penalty the loss falls slowly, but goes on falling
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        weights = unit * free
        value = F.cross_entropy(x @ weights.T + intercept, y) + penalty * (weights**2).sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    weights = unit * free.detach().numpy()
    weights = weights if basis is None else weights @ basis.T
    done = int(optimiser.state[free]["n_iter"])
    return Logistic(tuple(known), weights, intercept.detach().numpy() - weights @ middle, c, iterations=done, converged=done < iterations)


def sweep(features: np.ndarray, labels: Sequence[str], val_features: np.ndarray, val_labels: Sequence[str]) -> float:
    """The C that classifies the validation rows best, each fit being on the others.

    Of the 97 values from 1e-6 to 1e6, eight to a decade, the powers of 100 are tried first; then the step is halved around the best one
    until it is one value. Equal accuracies are told apart by cross-entropy, and then the smaller C is taken.
    """
    known = _classes(features, labels, None)
    if strange := sorted(set(val_labels) - set(known)):
        raise UsageError(f"class {strange[0]!r} is among the validation rows, but no row to learn from has it")
    if not len(val_labels):
        raise UsageError("C is chosen on validation rows; there are none")

    def quality(place: int) -> tuple[float, float]:
        return fit(features, labels, c=value_of(place)).quality(val_features, val_labels)

    return value_of(_peak(quality))


def value_of(place: int) -> float:
    """The C at one of the places -48 … 48."""
    return float(10 ** (place / PER_DECADE))


def _peak(quality: Callable[[int], tuple[float, float]]) -> int:
    """The best place found, coarse to fine."""
    end, step = PER_DECADE * DECADES, 2 * PER_DECADE
    found = {place: quality(place) for place in range(-end, end + 1, step)}
    while True:
        best = max(found, key=lambda place: (found[place], -place))
        if step == 1:
            return best
        step //= 2
        found |= {place: quality(place) for place in (best - step, best + step) if abs(place) <= end}


def _classes(features: np.ndarray, labels: Sequence[str], classes: Sequence[str] | None) -> list[str]:
    if np.ndim(features) != 2 or len(features) != len(labels):
        raise UsageError(f"features {np.shape(features)} and {len(labels)} labels: give [rows, features] and one label to each row")
    if not np.isfinite(features).all():
        row = int(np.argmin(np.isfinite(features).all(axis=1)))
        raise UsageError(f"the features of row {row} are not all numbers; leave out what could not be read")
    counted = Counter(labels)
    known = list(classes) if classes is not None else sorted(counted)
    if absent := [name for name in known if name not in counted]:
        raise UsageError(f"class {absent[0]!r} has no row to learn from")
    if strange := sorted(set(counted) - set(known)):
        raise UsageError(f"label {strange[0]!r} is not among the classes: {', '.join(known)}")
    if len(known) < 2:
        raise UsageError(f"there is one class only ({', '.join(known) or 'none'}); a classifier needs two or more")
    return known
