"""What fine-tuning gains and what it costs: a new skill against an old one, along the line between two models (Wortsman et al. 2022).

Both skills are measured at every point on the same items; changes against the untuned model are paired. The rule that picks a point:
of those at which the old skill is at most `keep` below the untuned model's, the one with the best new skill; of equals the one nearest
to the untuned model. Neither choice nor rule looks at intervals; whether the interval of the loss stays within `keep` too is told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tonggan.evaluate.resample import Estimate
from tonggan.evaluate.result import Result, paired
from tonggan.types import UsageError

RULE = "retention/v1: best new skill among points whose old skill fell by at most keep (point estimates); of equals the smaller alpha"
ROUNDING = 1e-9
"""A difference of two shares is exact but for this: 0.89 - 0.9 is a loss of one point, not of more."""
Difference: TypeAlias = Callable[[Result, Result], Mapping[str, Estimate]]


@dataclass(frozen=True, slots=True)
class Skill:
    """What is measured: on which data, which metric of which protocol."""

    data: str
    metric: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Point:
    """A model (1 - alpha) untuned + alpha tuned: both skills, and each minus the untuned model's, paired."""

    alpha: float
    new: Estimate
    old: Estimate
    new_change: Estimate
    old_change: Estimate


@dataclass(frozen=True, slots=True)
class Retention:
    """The points by alpha, and which of them the rule picks."""

    untuned: str
    tuned: str
    new: Skill
    old: Skill
    points: tuple[Point, ...]
    keep: float

    @property
    def chosen(self) -> Point:
        """By the rule (see above)."""
        kept = [point for point in self.points if self.kept(point)]
        return max(kept, key=lambda point: (point.new.value, -point.alpha))

    def kept(self, point: Point) -> bool:
        """Whether the old skill is at most `keep` below the untuned model's."""
        return point.old_change.value >= -self.keep - ROUNDING

    def surely_kept(self, point: Point) -> bool:
        """Whether the whole interval of the old skill's change is."""
        return point.old_change.low >= -self.keep - ROUNDING

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, the rule and its choice included."""
        return {"rule": RULE, "chosen": self.chosen.alpha, "surely_kept": self.surely_kept(self.chosen), **asdict(self)}

    def write(self, file: str | Path) -> Path:
        """As JSON; gives the path."""
        where = Path(file)
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n", "utf-8")
        return where


def retention(
    measured: Sequence[tuple[float, Result, Result]],
    *,
    untuned: str,
    tuned: str,
    keep: float = 0.01,
    differences: tuple[Difference, Difference] = (paired, paired),
) -> Retention:
    """The curve of (alpha, new skill, old skill), each result by its primary metric; alpha = 0 must be among them.

    `keep` is a share: 0.01 is one point. `differences` say how two results of the new and of the old skill are subtracted.
    """
    if keep < 0:
        raise UsageError(f"keep is {keep}; it is how much of the old skill may be lost, 0 or more")
    ordered = sorted(measured, key=lambda one: one[0])
    if not ordered or ordered[0][0] != 0 or len({alpha for alpha, _, _ in ordered}) < len(ordered):
        raise UsageError("a retention curve begins with the untuned model (alpha 0) and has each alpha once")
    _, new0, old0 = ordered[0]
    points = tuple(
        Point(
            alpha,
            new.metrics[new.primary],
            old.metrics[old.primary],
            differences[0](new, new0)[new.primary],
            differences[1](old, old0)[old.primary],
        )
        for alpha, new, old in ordered
    )
    return Retention(untuned, tuned, _skill(new0), _skill(old0), points, keep)


def _skill(result: Result) -> Skill:
    return Skill(result.data, result.primary, result.protocol)
