"""`tonggan models`: what is published about models, each fact with its source."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tonggan.cli.shared import Json, Verbs, plural, print_json, print_notes

if TYPE_CHECKING:
    from tonggan.compare.registry import ModelFacts, Published, Registry, Selection, Shown

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Published facts and results of models, domestic and foreign, with sources.",
)

PARADIGMS = "two-tower, fusion, projector, cross-attention, unified, generation, api, other"
"""Written down here because the help must not wait for the registry."""

Origin = Annotated[str | None, typer.Option(help="CN, foreign, unknown, or a country such as US.")]
Smallest = Annotated[float | None, typer.Option(min=0, help="A size of at least this many billion parameters …")]
Largest = Annotated[float | None, typer.Option(min=0, help="… and of at most this many.")]
Licence = Annotated[str | None, typer.Option(help="permissive, conditions, non-commercial, proprietary, unknown.")]
Commercial = Annotated[str | None, typer.Option(help="Commercial use: yes, conditions, no, unknown.")]
Capability = Annotated[
    list[str] | None,
    typer.Option(help="see, watch, hear (takes pictures, video, sound); chat, embed, locate, draw, film, speak (gives). May be repeated."),
]
Since = Annotated[str | None, typer.Option(help="Released then or later: YYYY-MM or YYYY-MM-DD.")]
Until = Annotated[str | None, typer.Option(help="Released then or earlier.")]
Own = Annotated[Path | None, typer.Option(help="Directory of your own rows. Default: where `tonggan models add` keeps them.")]


@app.command("ls")
def ls(
    origin: Origin = None,
    smallest: Smallest = None,
    largest: Largest = None,
    licence: Licence = None,
    commercial: Commercial = None,
    capability: Capability = None,
    paradigm: Annotated[str | None, typer.Option(help=f"How it is built: {PARADIGMS}.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="Has a published value on it.")] = None,
    since: Since = None,
    until: Until = None,
    benchmarks: Annotated[bool, typer.Option("--benchmarks", help="List the benchmarks instead.")] = False,
    own: Own = None,
    json: Json = False,
) -> None:
    """List models by origin, size, licence, capability, benchmark and date; an unknown fact fits no filter but `unknown`.

    Example: `tonggan models ls --origin CN --largest 10 --capability watch --since 2025-01`
    """
    from tonggan.compare.registry import Filters

    known = _load(own)
    if benchmarks:
        if json:
            print_json([{"benchmark": name, "values": count} for name, count in known.benchmarks.items()])
        else:
            typer.echo("\n".join(f"{count:5d}  {name}" for name, count in known.benchmarks.items()))
        return
    found = known.select(
        Filters(origin, smallest, largest, licence, commercial, tuple(capability or ()), paradigm, benchmark, since, until)
    )
    if json:
        unknown = {what: [model.id for model in models] for what, models in found.unknown.items()}
        print_json({"models": [_facts(model) for model in found.models], "unknown": unknown})
        return
    width = max((len(model.id) for model in found.models), default=0) + 2
    for model in sorted(found.models, key=lambda m: (m.released or "9999", m.id)):
        sizes = ", ".join(f"{size:g}" for size in model.sizes)
        cells = (f"{model.country or 'unknown':11}", f"{model.released or 'unknown':12}", f"{model.terms:16}", f"{', '.join(model.can):32}")
        typer.echo(f"{model.id:{width}}{''.join(cells)}{sizes + ' B' if sizes else 'unknown'}")
    typer.echo(f"{plural(len(found.models), 'model')}: id, origin, released, licence, can, billion parameters")
    _say_unknown(found)


@app.command("show")
def show(
    model: Annotated[str, typer.Argument(help="A model's id or name; see: tonggan models ls")],
    own: Own = None,
    json: Json = False,
) -> None:
    """All facts of a model and all its published values, with their sources.

    Example: `tonggan models show qwen2.5-vl`
    """
    known = _load(own)
    found = known.find(model)
    results = [result for result in known.results if result.release == found.id]
    if json:
        print_json(_facts(found) | {"results": [_value(result) for result in results]})
        return
    for name, fact in _facts(found).items():
        typer.echo(f"{name:18}{_said(fact)}")
    typer.echo(f"\n{plural(len(results), 'published value')}; those of different settings or evidence are not comparable")
    for result in sorted(results, key=lambda r: (r.benchmark.lower(), r.model, r.evidence)):
        typer.echo(f"{result.written:>8} {result.unit}  {result.benchmark}  [{result.model}]")
        typer.echo(f"{'':9}{result.setting or 'setting not stated'} · {result.evidence} · {result.source}")


@app.command("compare")
def compare(
    models: Annotated[list[str] | None, typer.Argument(help="Models: ids such as gpt-4o or qwen2.5-vl/72b, or names.")] = None,
    benchmark: Annotated[list[str] | None, typer.Option(help="Only this benchmark; may be repeated.")] = None,
    origin: Origin = None,
    smallest: Smallest = None,
    largest: Largest = None,
    licence: Licence = None,
    commercial: Commercial = None,
    capability: Capability = None,
    since: Since = None,
    until: Until = None,
    alone: Annotated[bool, typer.Option("--alone", help="Also values that nothing stands beside.")] = False,
    own: Own = None,
    json: Json = False,
) -> None:
    """Published values side by side: never of different benchmarks, units, settings or classes of evidence in one list.

    Examples: `tonggan models compare qwen2.5-vl/72b gpt-4o`; `tonggan models compare --benchmark "MMMU val"`
    """
    from tonggan.compare.registry import Filters, side_by_side

    known = _load(own)
    filters = Filters(origin, smallest, largest, licence, commercial, tuple(capability or ()), None, None, since, until)
    selected = known.select(filters) if filters != Filters() else None
    found = side_by_side(known, models or [], benchmark or [], None if selected is None else selected.models)
    shown = [one for one in found if alone or len(one.models) > 1]
    if json:
        print_json({"columns": [_column(one) for one in shown], "alone": len(found) - len(shown)})
        return
    for one in shown:
        _print_column(known, one, whole=not models)
    typer.echo(f"{plural(len(shown), 'list')}; values in different lists are not comparable")
    if len(found) > len(shown):
        typer.echo(f"{plural(len(found) - len(shown), 'value')} that nothing stands beside: --alone shows them")
    if selected is not None:
        _say_unknown(selected)


@app.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="A CSV or TSV of models or of results, with the columns of the registry.")],
    to: Annotated[Path | None, typer.Option(help="Directory that keeps your rows. Default: with tonggan's other files.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the rows of an earlier file of this name.")] = False,
    json: Json = False,
) -> None:
    """Check your own newer rows like the shipped ones, and keep them beside those; nothing is kept if a cell is wrong.

    Example: `tonggan models add my-newer-rows.tsv`
    """
    from tonggan.compare.registry.own import add as keep

    added = keep(file, to, replace=replace)
    if json:
        print_json({"kind": added.kind, "rows": added.rows, "file": str(added.file), "notes": added.notes})
        return
    typer.echo(f"{added.file}: {plural(added.rows, 'row')} of {added.kind}")
    print_notes(added.notes)


def _load(own: Path | None) -> Registry:
    from tonggan.compare import registry
    from tonggan.compare.registry.own import home

    return registry.load(own or home())


def _facts(model: ModelFacts) -> dict[str, Any]:
    """The cells of a model, None where unknown, and what is worked out of them."""
    return asdict(model) | {
        "takes": list(model.takes),
        "gives": list(model.gives),
        "origin": model.origin,
        "sizes": list(model.sizes),
        "class": model.family,
        "can": list(model.can),
        "licence_class": model.terms,
        "commercial_use": model.commercial,
        "open_weights": model.open_weights,
        "data_goes": model.data_goes,
    }


def _said(fact: str | bool | list[str] | list[float] | None) -> str:
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    if isinstance(fact, list):
        fact = ", ".join(f"{one:g}" if isinstance(one, float) else one for one in fact)
    return fact or "unknown"


def _value(result: Published) -> dict[str, Any]:
    return asdict(result) | {"higher_is_better": result.higher_is_better}


def _column(shown: Shown) -> dict[str, Any]:
    from tonggan.compare.registry import Medians

    medians = asdict(shown.medians) if isinstance(shown.medians, Medians) else None
    why_not = None if isinstance(shown.medians, Medians) else shown.medians.en
    return asdict(shown.column) | {"values": [_value(r) for r in shown.results], "medians": medians, "why_no_medians": why_not}


def _print_column(known: Registry, shown: Shown, *, whole: bool) -> None:
    from tonggan.compare.registry import Medians, released

    column, told = shown.column, shown.medians
    typer.secho(f"{column.benchmark} ({column.unit}) · {column.setting or 'setting not stated'} · {column.evidence}", bold=True)
    values = [r.written + ("" if r.interval is None else f" [{r.interval[0]:g}, {r.interval[1]:g}]") for r in shown.results]
    width = max(8, *map(len, values))
    for value, result in zip(values, shown.results, strict=True):
        model = known.models[result.release]
        own = f"  ({result.file})" if result.file != "benchmarks.tsv" else ""
        facts = f"{result.model:32}{model.country or 'unknown':11}{released(result.model, known.models) or 'unknown':12}"
        typer.echo(f"{value:>{width}}  {facts}{result.source}{own}")
    if isinstance(told, Medians):
        typer.echo(
            f"  medians: domestic {told.domestic:g} ({told.models[0]} models of known date), foreign {told.foreign:g} ({told.models[1]}); "
            f"median dates {abs(told.months_apart):g} months apart"
        )
    elif whole and {known.models[r.release].origin for r in shown.results} >= {"CN", "foreign"}:
        typer.echo(f"  {told.en}")
    typer.echo()


def _say_unknown(found: Selection) -> None:
    """How many models might fit, on standard error."""
    for what, models in found.unknown.items():
        typer.echo(f"{plural(len(models), 'other model')} might fit: {what} unknown", err=True)


@app.command("page")
def page(
    file: Annotated[Path, typer.Argument(help="Where to write the HTML file.")] = Path("models.html"),
    own: Own = None,
    json: Json = False,
) -> None:
    """All models by paradigm and date as one page that opens offline, Chinese and English, its tables sortable.

    Example: `tonggan models page models.html`
    """
    from tonggan.compare.registry import facts_page

    written = facts_page(_load(own)).write(file)
    if json:
        print_json({"file": str(written)})
    else:
        typer.echo(f"written: {written}")
