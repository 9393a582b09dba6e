"""The doctor: what is wrong with a data set, before a night of training finds out.

    diagnosis = doctor("照片.xlsx", image_col="图片", text_col="标题")
    print(diagnosis.text("zh"))
    diagnosis.cured().write("runs/data")

Errors are what makes results wrong or rows useless: unusable rows, pictures that are unreadable or only addresses, leaks across
splits, a broken schema.
Warnings are what one should know. Without a split of its own the data set gets a proposed one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tonggan.data import examine
from tonggan.data.examine import Encoder, Example, Finding, Severity, Visit
from tonggan.data.formats import read
from tonggan.data.rows import Dataset
from tonggan.data.similar import near_duplicates, pictures_of, scan
from tonggan.data.splits import Proposal, propose_split
from tonggan.types import Dropped, TongganError, UsageError

__all__ = ["Diagnosis", "Encoder", "Example", "Finding", "doctor"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor found. `dataset` is the data as read; `facts` are plain counts for tables."""

    name: str
    dataset: Dataset
    findings: tuple[Finding, ...]
    facts: Mapping[str, Any]
    proposal: Proposal | None = None
    unreadable: Mapping[int, str] = field(default_factory=dict)
    """Rows with no readable picture left, and why."""
    strict: bool = False

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that must be mended."""
        return self._of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings to know about; `strict` counts them as errors."""
        return self._of("warning")

    @property
    def info(self) -> tuple[Finding, ...]:
        """What was read, decided and proposed."""
        return self._of("info")

    @property
    def ok(self) -> bool:
        """Whether there is no error (and with `strict` no warning)."""
        return not self.errors and not (self.strict and self.warnings)

    def _of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def cured(self) -> Dataset:
        """The rows that can be used, the others listed in `dropped`, with the proposed split where there was none.

        Raises `TongganError` when no row is left.
        """
        dataset = self.dataset if self.proposal is None else self.dataset.with_splits(self.proposal.names)
        kept = [number for number in range(len(dataset)) if number not in self.unreadable]
        if self.unreadable and not kept:
            number, reason = next(iter(self.unreadable.items()))
            raise TongganError(f"{self.name}: none of the {len(dataset)} rows can be used; the first: {dataset[number].id}: {reason}")
        lost = ((dataset[number], reason) for number, reason in self.unreadable.items())
        gone = [Dropped(row.id, f"{pictures_of(row)[0].where}: {reason}") for row, reason in lost]
        return dataset.where(kept).with_dropped(gone)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and for the page: every finding with both messages; examples carry the number of their row."""
        return {
            "name": self.name,
            "ok": self.ok,
            "strict": self.strict,
            "rows": len(self.dataset),
            "facts": dict(self.facts),
            "findings": [
                {
                    "code": one.code,
                    "severity": one.severity,
                    "count": one.count,
                    "message": {"en": one.en, "zh": one.zh},
                    "examples": [{"row": e.row, "where": e.where, "detail": e.detail} for e in one.examples],
                }
                for one in self.findings
            ],
            "proposal": None
            if self.proposal is None
            else {
                "counts": self.proposal.counts,
                "together": list(self.proposal.by),
                "parts": self.proposal.parts,
                "notes": list(self.proposal.notes),
            },
        }

    def text(self, lang: Literal["en", "zh"] = "en") -> str:
        """The findings as lines, errors first, a few examples below each."""
        marks = {"error": "✗", "warning": "!", "info": "·"}
        head = {"en": f"{self.name}: {examine.plural(len(self.dataset), 'row')}", "zh": f"{self.name}：{len(self.dataset)} 行"}[lang]
        lines = [head]
        for finding in (*self.errors, *self.warnings, *self.info):
            lines.append(f"{marks[finding.severity]} {finding.en if lang == 'en' else finding.zh}")
            lines += [f"    {e.where}{f': {e.detail}' if e.detail else ''}" for e in finding.examples]
            if finding.examples and finding.count > len(finding.examples):
                lines.append({"en": f"    … of {finding.count}", "zh": f"    ……共 {finding.count} 处"}[lang])
        return "\n".join(lines)


def doctor(
    data: Dataset | str | Path,
    *,
    tokenizer: Encoder | None = None,
    strict: bool = False,
    workers: int = 4,
    **how: Any,
) -> Diagnosis:
    """Examine a data set, or anything that `formats.read` opens (`how` goes there: image_col, text_col, format, …).

    Every picture is decoded once: about a millisecond each, in `workers` threads. With a `tokenizer` captions that a model
    would cut are counted per language.
    """
    name = str(data) if isinstance(data, str | Path) else "data"
    dataset = data if isinstance(data, Dataset) else read(data, check="decode", **how)
    pictures = scan(dataset, workers=workers)
    visit = Visit(dataset, dataset.light(), pictures, near_duplicates(pictures))
    findings = [finding for look in examine.ALL for finding in look(visit)]
    if tokenizer is not None:
        findings += examine.truncated(visit, tokenizer)
    proposal, proposed = _proposal(visit)
    findings += proposed
    notes = [Finding("note", "info", 1, note, note) for note in dataset.notes]
    return Diagnosis(name, dataset, (*findings, *notes), _facts(visit), proposal, visit.unreadable, strict)


def _proposal(visit: Visit) -> tuple[Proposal | None, list[Finding]]:
    if any(row.split for row in visit.rows):
        return None, []
    try:
        proposal = propose_split(visit.dataset, pictures=visit.pictures)
    except UsageError as error:
        return None, [Finding("no-split", "warning", len(visit.rows), str(error), "所有行彼此关联，无法划分")]
    counts = ", ".join(f"{name} {count}" for name, count in sorted(proposal.counts.items()))
    en = f"no split is given; proposed without leaks: {counts}"
    notes = [Finding("split-note", "info", 1, note, note) for note in proposal.notes]
    return proposal, [Finding("no-split", "info", len(visit.rows), en, f"未给出划分，建议（无泄漏）：{counts}"), *notes]


def _facts(visit: Visit) -> dict[str, Any]:
    readable = [n for n in range(len(visit.pictures)) if n not in visit.pictures.reasons]
    sides = sorted(visit.pictures.sizes[readable][:, :2].min(axis=1).tolist())
    return {
        "rows": len(visit.rows),
        "pictures": len(visit.pictures),
        "captions": sum(len(row.texts) for row in visit.rows),
        "dropped": len(visit.dataset.dropped),
        "languages": dict(Counter(text.lang or "?" for row in visit.rows for text in row.texts)),
        "splits": dict(Counter(row.split or "" for row in visit.rows)),
        "groups": len({row.group for row in visit.rows if row.group}),
        "artists": len({row.meta["artist"] for row in visit.rows if row.meta.get("artist")}),
        "megabytes": round(int(visit.pictures.sizes[:, 2].sum()) / 1e6, 3),
        "shorter side": {"least": sides[0], "median": sides[len(sides) // 2], "most": sides[-1]} if sides else {},
    }
