"""What a verification found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tonggan.verify.measure import ROUNDING, WORSE, Difference


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first layer whose output is not the reference's, and where it is furthest off."""

    theirs: str
    ours: str
    place: tuple[int, ...]
    """Indices into the layer's output [B, T, D]."""
    mine: float
    reference: float
    relative: float
    before: bool = False
    """What enters the layer already differs."""


@dataclass(slots=True)
class Section:
    """Comparisons of one kind, e.g. from the same tensors."""

    name: str
    differences: list[Difference]


@dataclass(slots=True)
class Report:
    """All that was compared, and with what."""

    model: str
    against: str
    versions: Mapping[str, str]
    sections: list[Section] = field(default_factory=list)
    diverged: Divergence | None = None
    layers: int = 0
    """Layers whose outputs were compared."""
    verbs: tuple[str, ...] = ()
    """All that a copy can be asked for (`hub.answers.offers`)."""
    notes: list[str] = field(default_factory=list)
    """What could not be compared, and why."""

    @property
    def differences(self) -> list[Difference]:
        return [one for section in self.sections for one in section.differences]

    @property
    def passed(self) -> bool:
        """Whether something was compared, and all of it keeps its tolerance."""
        return bool(self.differences) and all(one.passed for one in self.differences)

    @property
    def worst(self) -> Difference:
        """The comparison that is nearest to its tolerance, or furthest beyond it."""
        return max(self.differences, key=_strain)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        sections = [
            {"name": section.name, "compared": [{**asdict(one), "passed": one.passed, "reason": one.reason} for one in section.differences]}
            for section in self.sections
        ]
        diverged = asdict(self.diverged) if self.diverged else None
        return {
            "model": self.model,
            "against": self.against,
            "passed": self.passed,
            "versions": dict(self.versions),
            "sections": sections,
            "layers": {"compared": self.layers, "first_to_diverge": diverged},
            "notes": self.notes,
        }


def _strain(one: Difference) -> float:
    """The difference in units of what is tolerated."""
    if one.problem is not None:
        return float("inf")
    if one.double is not None and one.worse is not None:
        strains = (one.double / one.exact, one.worse / WORSE, one.relative / ROUNDING)
        return max(strains) if all(strain == strain for strain in strains) else float("inf")
    if one.by == "cosine":
        if one.reason is not None:
            return float("inf")
        return (1 - (one.cosine if one.cosine is not None else -1.0)) / (1 - one.tolerance)
    if one.tolerance == 0:
        return 0.0 if one.relative == 0 else float("inf")
    return one.relative / one.tolerance if one.relative == one.relative else float("inf")
