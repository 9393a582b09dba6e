"""The registry and what it can be asked: a model or a benchmark by name, models by filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from tonggan.compare.registry.facts import CAPABILITIES, PARADIGMS, ModelFacts, is_date
from tonggan.compare.registry.published import Published
from tonggan.config import did_you_mean, one_of
from tonggan.types import UsageError

ORIGINS = ("CN", "foreign", "unknown")
TERMS = ("permissive", "conditions", "non-commercial", "proprietary", "unknown")
COMMERCIAL = ("yes", "conditions", "no", "unknown")


@dataclass(frozen=True, slots=True)
class Filters:
    """What models to choose; None chooses all. An unknown fact fits no filter but `unknown`."""

    origin: str | None = None
    """`CN`, `foreign`, `unknown`, or a country such as `US`."""
    smallest: float | None = None
    """At least one of the sizes named is this many billion parameters or more, and no more than `largest`."""
    largest: float | None = None
    licence: str | None = None
    """A class of licences, see `facts.Terms`."""
    commercial: str | None = None
    capability: tuple[str, ...] = ()
    """All of these, see `facts.CAPABILITIES`."""
    paradigm: str | None = None
    benchmark: str | None = None
    """Has a published value on it."""
    since: str | None = None
    """Released then or later: `YYYY-MM` or `YYYY-MM-DD`; compared by the month when either has no day."""
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The models that fit, and those that might: for each unknown fact that was asked for, the models that no filter excludes."""

    models: list[ModelFacts]
    unknown: dict[str, list[ModelFacts]]


@dataclass(slots=True)
class Registry:
    """Models by id, and published values, in the order of their tables."""

    models: dict[str, ModelFacts] = field(default_factory=dict)
    results: list[Published] = field(default_factory=list)

    @property
    def benchmarks(self) -> dict[str, int]:
        """How many values each benchmark has, by name."""
        counted: dict[str, int] = {}
        for result in self.results:
            counted[result.benchmark] = counted.get(result.benchmark, 0) + 1
        return dict(sorted(counted.items(), key=lambda item: item[0].lower()))

    @property
    def missing(self) -> dict[str, int]:
        """Of how many models the `date`, `size`, `licence` and `where` data goes are unknown."""
        models = self.models.values()
        return {
            "date": sum(model.released is None for model in models),
            "size": sum(not model.sizes for model in models),
            "licence": sum(model.terms == "unknown" for model in models),
            "where": sum(model.data_goes == "unknown" for model in models),
        }

    def find(self, name: str) -> ModelFacts:
        """A model by its id or its name in either language; an unknown one raises `UsageError` with the nearest."""
        if name in self.models:
            return self.models[name]
        called = [model for model in self.models.values() if name.lower() in (model.id, model.name.lower(), (model.name_zh or "").lower())]
        if len(called) == 1:
            return called[0]
        if called:
            raise UsageError(f"{name!r} is the name of several models: {', '.join(model.id for model in called)}")
        names = [*self.models, *(model.name for model in self.models.values())]
        raise UsageError(f"model {name!r} is not known{near(name, names)}; all of them: tonggan models ls")

    def variants(self, name: str) -> list[str]:
        """The names under which a model has published values: for `RELEASE/VARIANT` that one, else all of the release.

        A model without any raises `UsageError`.
        """
        release, _, variant = name.partition("/")
        exact = bool(variant) and release in self.models
        model = self.models[release] if exact else self.find(name)
        its = list(dict.fromkeys(result.model for result in self.results if result.release == model.id))
        if not its:
            raise UsageError(f"{model.id} has no published values in the registry; those that have: tonggan models ls --benchmark NAME")
        if exact and name not in its:
            raise UsageError(f"{name!r} has no published values{near(name, its)}; {model.id} has them as: {', '.join(its)}")
        return [name] if exact else its

    def benchmark(self, name: str) -> str:
        """A benchmark by its name, in any case; an unknown one raises `UsageError` with the nearest."""
        known = self.benchmarks
        same = [one for one in known if one.lower() == name.lower()]
        if not same:
            raise UsageError(f"benchmark {name!r} is not known{near(name, known)}; all of them: tonggan models ls --benchmarks")
        return same[0]

    def select(self, filters: Filters) -> Selection:
        """The models that fit all filters; a filter that cannot be meant raises `UsageError` with the nearest spelling."""
        tests = list(self._tests(filters))
        chosen, unknown = [], dict[str, list[ModelFacts]]()
        for model in self.models.values():
            verdicts = [(what, test(model)) for what, test in tests]
            if any(verdict is False for _, verdict in verdicts):
                continue
            missing = list(dict.fromkeys(what for what, verdict in verdicts if verdict is None))
            for what in missing:
                unknown.setdefault(what, []).append(model)
            if not missing:
                chosen.append(model)
        return Selection(chosen, unknown)

    def _tests(self, filters: Filters) -> Iterator[tuple[str, Callable[[ModelFacts], bool | None]]]:
        """A fact's name, and whether a model fits: None when the fact is unknown."""
        if filters.origin is not None:
            countries = {model.country for model in self.models.values() if model.country}
            origin = _folded(filters.origin, {*ORIGINS, *countries}, "origin")
            yield "origin", lambda m: _same(origin, *((m.country, m.origin) if m.country else ("unknown",)))
        if filters.smallest is not None or filters.largest is not None:
            low, high = filters.smallest or 0, filters.largest if filters.largest is not None else float("inf")
            if low > high:
                raise UsageError(f"no size is at least {low:g} and at most {high:g} billion parameters")
            yield "size", lambda m: any(low <= size <= high for size in m.sizes) if m.sizes else None
        if filters.licence is not None:
            terms = _folded(filters.licence, TERMS, "licence")
            yield "licence", lambda m: _same(terms, m.terms)
        if filters.commercial is not None:
            commercial = _folded(filters.commercial, COMMERCIAL, "commercial use")
            yield "commercial use", lambda m: _same(commercial, m.commercial)
        for word in filters.capability:
            capability = _folded(word, CAPABILITIES, "capability")
            yield "capability", partial(_can, capability)
        if filters.paradigm is not None:
            paradigm = _folded(filters.paradigm, PARADIGMS, "paradigm")
            yield "paradigm", lambda m: m.family == paradigm
        if filters.benchmark is not None:
            name = self.benchmark(filters.benchmark)
            measured = {result.release for result in self.results if result.benchmark == name}
            yield "benchmark", lambda m: m.id in measured
        for word, date, later in (("--since", filters.since, True), ("--until", filters.until, False)):
            if date is not None:
                if not is_date(date):
                    raise UsageError(f"{word} {date!r} is no date; write YYYY-MM or YYYY-MM-DD, such as 2025-01")
                yield "release date", partial(_in_time, date, later)


def _same(wanted: str, *facts: str) -> bool | None:
    """Whether a fact is the one wanted; None when the fact is unknown and something else is wanted."""
    if wanted in facts:
        return True
    return None if "unknown" in facts else False


def _can(capability: str, model: ModelFacts) -> bool:
    return capability in model.can


def _in_time(date: str, after: bool, model: ModelFacts) -> bool | None:
    if model.released is None:
        return None
    length = min(len(model.released), len(date))
    one, other = model.released[:length], date[:length]
    return one >= other if after else one <= other


def _folded(word: str, known: Iterable[str], what: str) -> str:
    """One of the known words, in any case."""
    by_fold = {name.lower(): name for name in known}
    return by_fold.get(word.lower()) or one_of(word, by_fold.values(), what)


def near(word: str, known: Iterable[str]) -> str:
    """The nearest spelling, and the names that hold the word."""
    names = list(known)
    holding = [name for name in names if word.lower() in name.lower()][:6]
    return did_you_mean(word, names) if not holding else f" (names with it: {', '.join(holding)})"
