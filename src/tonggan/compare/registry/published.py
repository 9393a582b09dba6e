"""A published value: what was measured, in which unit and setting, who says so, and where."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tonggan.compare.registry.reading import Line

COLUMNS = ("model_id", "benchmark", "value", "unit", "setting", "source", "evidence")

EVIDENCE = {
    "self-reported": "the model's own makers report it",
    "other-vendor-table": "another vendor's table, which may quote or re-run",
    "uniform-harness": "one harness ran all models",
    "benchmark-authors": "the benchmark's authors ran it",
    "independent-arena": "people voted on anonymous answers",
}
"""Classes of evidence; values of different classes are never put into one column."""

UNITS: dict[str, tuple[float | None, float | None]] = {
    "%": (0, 100),
    "% (lower better)": (0, None),  # an error rate can exceed 100 %
    "points": (0, None),
    "points/1000": (0, 1000),
    "score": (0, None),
    "score 0-1": (0, 1),
    "score 0-3": (0, 3),
    "score 0-10": (0, 10),
    "score 0-100": (0, 100),
    "1-5": (1, 5),
    "score (GPT-4 judge)": (0, None),
    "CIDEr": (0, 1000),
    "FID (lower better)": (0, None),
    "Elo-like rating": (0, 4000),
}
"""Lowest and highest value of each unit; None where there is no bound."""

MAXIMA = {"MME total": 2800, "MME perception": 2000, "MME cognition": 800}
"""Benchmarks whose unit alone does not bound them."""

# What a source says of one value only, and the tables keep in its setting; it does not make another setting.
_INTERVAL = re.compile(r"95% CI \[(-?[\d.]+), (-?[\d.]+)\]")
_OF_ONE_VALUE = re.compile(
    r"arena name [^;]+"
    r"|\(mean [\d.]+ words\)"
    r"|(?<=\)): [\d.]+(?:±[\d.]+)?$"
    r"|^real-time [\d.]+ / omni-source [\d.]+ / contextual [\d.]+$"
    r"|^SC [\d.]+ / PQ [\d.]+$"
)


@dataclass(frozen=True, slots=True)
class Published:
    """One published value. `model` is `RELEASE` or `RELEASE/VARIANT`; `written` is the value as the source prints it (`83.50`)."""

    model: str
    benchmark: str
    value: float
    written: str
    unit: str
    setting: str | None
    """None: the source does not say, or the table has not kept it."""
    evidence: str
    source: str
    interval: tuple[float, float] | None
    """The source's own 95 % interval."""
    note: str | None
    """What the source says of this value only, such as its name there."""
    file: str

    @property
    def release(self) -> str:
        """The model's id in `models.tsv`."""
        return self.model.partition("/")[0]

    @property
    def higher_is_better(self) -> bool:
        """The direction, which the unit says."""
        return "(lower better)" not in self.unit


def published_of(line: Line) -> Published:
    """A line of `benchmarks.tsv`; notes what is wrong with it."""
    unit = line.one_of("unit", UNITS)
    low, high = UNITS.get(unit, (None, None))
    benchmark = line.required("benchmark", "the benchmark's name")
    setting, interval, note = _parted(line.text("setting"))
    return Published(
        model=line.matching("model_id", r"[a-z0-9][a-z0-9._+-]*(/[A-Za-z0-9._+-]+)?", "the id of a model, or ID/VARIANT"),
        benchmark=benchmark,
        value=line.number_in("value", low, MAXIMA.get(benchmark, high)),
        written=line.cells.get("value", ""),
        unit=unit,
        setting=setting,
        evidence=line.one_of("evidence", EVIDENCE),
        source=line.required("source", "where this was read; a value without a source is not kept"),
        interval=interval,
        note=note,
        file=line.file,
    )


def _parted(cell: str | None) -> tuple[str | None, tuple[float, float] | None, str | None]:
    """(setting, interval, note) of a setting's cell."""
    if cell is None:
        return None, None, None
    found = _INTERVAL.search(cell)
    interval = (float(found[1]), float(found[2])) if found else None
    rest = _INTERVAL.sub("", cell)
    notes = [part.strip(" :()") for part in _OF_ONE_VALUE.findall(rest)]
    parts = [part.strip() for part in _OF_ONE_VALUE.sub("", rest).split(";")]
    return "; ".join(part for part in parts if part) or None, interval, "; ".join(notes) or None
