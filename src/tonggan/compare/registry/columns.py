"""Published values side by side: a column holds one benchmark in one unit, setting and class of evidence, and nothing else.

There are no averages over benchmarks and no totals: vendors choose what they publish, so the missing cells are not random.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tonggan.compare.registry.facts import ModelFacts, is_date, months
from tonggan.compare.registry.published import Published
from tonggan.compare.registry.store import Registry
from tonggan.report.page import Words
from tonggan.types import UsageError

LEAST = 3
"""Releases that each origin needs in a column before there is a median of it."""
APART = 6
"""Months that the two origins' median release dates may lie apart: beyond, time alone explains a gap."""


@dataclass(frozen=True, slots=True)
class Column:
    """What values must share to stand side by side. `source` is None, but where no setting is stated: two unstated settings are not
    known to be the same, so such values share a column only within one source."""

    benchmark: str
    unit: str
    setting: str | None
    evidence: str
    source: str | None

    @classmethod
    def of(cls, result: Published) -> Column:
        """The column of a published value."""
        return cls(result.benchmark, result.unit, result.setting, result.evidence, None if result.setting else result.source)


@dataclass(frozen=True, slots=True)
class Medians:
    """Medians of the named models of each origin within one column; each model counts once. Not a ranking of origins."""

    domestic: float
    foreign: float
    models: tuple[int, int]
    """How many models: domestic, foreign."""
    months_apart: float
    """Domestic median release date minus foreign."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A column with its values, the best first (models of one value by name), and the medians by origin, or why there are none."""

    column: Column
    results: list[Published]
    medians: Medians | Words

    @property
    def models(self) -> set[str]:
        """The models that have a value here."""
        return {result.model for result in self.results}


def columns(results: Iterable[Published], models: Mapping[str, ModelFacts]) -> list[Shown]:
    """Values sorted into columns; columns by benchmark, then those with most models first."""
    sorted_in: dict[Column, list[Published]] = {}
    for result in results:
        sorted_in.setdefault(Column.of(result), []).append(result)
    found = []
    for column, its in sorted_in.items():
        ordered = sorted(its, key=lambda r: (-r.value if r.higher_is_better else r.value, r.model, r.source))
        found.append(Shown(column, ordered, medians(ordered, models)))
    return sorted(found, key=lambda s: (s.column.benchmark.lower(), -len(s.models), *(part or "" for part in _key(s.column))))


def side_by_side(
    registry: Registry, models: Sequence[str] = (), benchmarks: Sequence[str] = (), among: Iterable[ModelFacts] | None = None
) -> list[Shown]:
    """The columns of some benchmarks (none: all) in which some models meet; models by id, `RELEASE/VARIANT` or name.

    Several models: their values only, in the columns that hold at least two of them. One model: its columns, with all that stand
    beside it. None: all columns. `among` leaves out the values of models that were not selected.
    """
    if not models and not benchmarks:
        raise UsageError('name models or a benchmark to compare, for example: gpt-4o qwen2.5-vl --benchmark "MMMU val"')
    wanted = {registry.benchmark(name) for name in benchmarks}
    named = [set(registry.variants(name)) for name in models]
    chosen = None if among is None else {model.id for model in among}
    of_several = set().union(*named) if len(named) > 1 else None
    results = (
        result
        for result in registry.results
        if (not wanted or result.benchmark in wanted)
        and (of_several is None or result.model in of_several)
        and (chosen is None or result.release in chosen)
    )
    found = columns(results, registry.models)
    return [shown for shown in found if sum(bool(shown.models & its) for its in named) >= min(len(named), 2)]


def medians(results: Iterable[Published], models: Mapping[str, ModelFacts]) -> Medians | Words:
    """Medians by origin of the values of one column, or in words why there are none.

    Counted are models whose origin and release date are known. A model with several values counts once, with their median.
    """
    values: dict[str, list[float]] = {}
    for result in results:
        values.setdefault(result.model, []).append(result.value)
    sides: dict[str, list[tuple[str, str, float]]] = {"CN": [], "foreign": []}
    for name, its in values.items():
        model = models[name.partition("/")[0]]
        date = released(name, models)
        if model.origin != "unknown" and date:
            sides[model.origin].append((model.id, date, median(its)))
    releases = {origin: len({name for name, _, _ in side}) for origin, side in sides.items()}
    if min(releases.values()) < LEAST:
        few = (releases["CN"], releases["foreign"])
        return Words(
            f"no medians: {few[0]} domestic and {few[1]} foreign releases of known date; each side needs {LEAST}",
            f"不计算中位数：发布日期已知的国内模型系列有 {few[0]} 个，国外有 {few[1]} 个，双方至少各需 {LEAST} 个",
        )
    dates = {origin: median(months(date) for _, date, _ in side) for origin, side in sides.items()}
    apart = dates["CN"] - dates["foreign"]
    if abs(apart) > APART:
        later = ("domestic", "国内") if apart > 0 else ("foreign", "国外")
        return Words(
            f"no medians: by the median date the {later[0]} models are {abs(apart):g} months newer, more than {APART}",
            f"不计算中位数：按发布日期的中位数，{later[1]}模型晚 {abs(apart):g} 个月，超过 {APART} 个月",
        )
    domestic, foreign = (median(value for _, _, value in sides[origin]) for origin in ("CN", "foreign"))
    return Medians(domestic, foreign, (len(sides["CN"]), len(sides["foreign"])), apart)


def released(name: str, models: Mapping[str, ModelFacts]) -> str | None:
    """The date of a model: of a snapshot whose name says it (`gpt-4o/2024-08-06`), else of its release."""
    release, _, variant = name.partition("/")
    found = re.search(r"(?<!\d)(20\d\d)(?:-(\d\d)(?:-(\d\d))?|(\d\d)(\d\d))(?!\d)", variant)
    snapshot = "-".join(part for part in found.groups() if part) if found else ""
    return snapshot if is_date(snapshot) else models[release].released


def _key(column: Column) -> tuple[str | None, ...]:
    return (column.unit, column.setting, column.evidence, column.source)
