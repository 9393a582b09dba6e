"""`tonggan verify`: a model against its reference, or against itself in another form."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonggan.cli.shared import Json, plural, print_json, print_notes

if TYPE_CHECKING:
    from tonggan.verify import Divergence, Report

WIDTH = 120


def verify(
    model: Annotated[str, typer.Argument(help="The model to be checked: a directory, hf:OWNER/NAME, ms:OWNER/NAME.")],
    against: Annotated[str, typer.Option(help="transformers, onnx, int8, merged (its adapter), or a server's URL.")] = "transformers",
    copy: Annotated[
        Path | None, typer.Option(help="The exported copy to be admitted (onnx, int8). Default: one is made and dropped.")
    ] = None,
    gradients: Annotated[bool, typer.Option("--gradients", help="Compare gradients too (transformers).")] = False,
    limit: Annotated[int, typer.Option(min=2, help="How many items of each kind are compared.")] = 8,
    seed: Annotated[int, typer.Option(help="Draws the items that are not canonical.")] = 0,
    json: Json = False,
) -> None:
    """Compare outputs on the same tensors and from files and strings; exit 1 when one is beyond its tolerance.

    What is beyond its tolerance in single precision is computed again in double. What agrees there was rounding, which passes unless it
    is over 1e-2, or over a hundred times as far as the reference's; anything else fails. The line says what was found.

    "cosine" is the lowest of all rows, which must have their lengths too; of scores, less each row's mean, "first" is how often the
    largest is the same one, "first 5" how many of the largest are.

    Examples: `tonggan verify hf:openai/clip-vit-base-patch32`; `tonggan verify runs/demo --against int8 --copy runs/demo-int8`
    """
    from tonggan.verify import verify as run

    report = run(model, against, copy=copy, count=limit, seed=seed, backward=gradients)
    if json:
        print_json(report.plain())
    else:
        _print(report)
    if not report.passed:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from tonggan.verify.measure import TOP

    # A file or a pipe has no width; a terminal's is its own.
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(f"{report.model} against {report.against}", markup=False, highlight=False)
    scored = any(one.argmax is not None for one in report.differences)
    for section in report.sections:
        table = Table(title=section.name, title_justify="left", box=SIMPLE_HEAD)
        table.add_column("", min_width=max(len(one.name) for one in report.differences), overflow="fold")
        for name in ("|a-b|", "relative", "cosine", *(["first", f"first {TOP}"] if scored else []), "tolerance"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("")
        for one in section.differences:
            bound = f"cos ≥ {one.tolerance:g}" if one.by == "cosine" else f"≤ {one.tolerance:g}"
            agreed = [f"{100 * part:.0f} %" if part is not None else "" for part in (one.argmax, one.top)] if scored else []
            cosine = f"{one.cosine:.6f}" if one.cosine is not None else ""
            numbers = [f"{one.absolute:.1e}", f"{one.relative:.1e}", cosine, *agreed]
            double = f"{one.double:.1e} in double" if one.double is not None else None
            why = ", ".join(part for part in (one.problem, double, one.reason) if part)
            verdict = ("ok" if one.passed else "[red]OFF[/red]") + (f": {escape(why)}" if why else "")
            table.add_row(one.name, *(["–"] * len(numbers) if one.problem else numbers), bound, verdict)
        console.print(table)
    typer.echo(", ".join(f"{name} {version}" for name, version in report.versions.items()))
    if report.diverged is not None:
        typer.echo(_told(report.diverged))
    elif report.layers:
        typer.echo(f"{plural(report.layers, 'layer')} compared one by one: none makes an output differ")
    print_notes(report.notes)
    if not report.differences:
        typer.secho("NOT passed; nothing could be compared", fg="red")
        return
    worst = report.worst
    typer.secho(
        f"{'passed' if report.passed else 'NOT passed'}; nearest to its tolerance: {worst.name}", fg="green" if report.passed else "red"
    )


def _told(one: Divergence) -> str:
    where = f"what enters {one.theirs}" if one.before else one.theirs
    place = ", ".join(map(str, one.place))
    return (
        f"first to diverge: {where} (here {one.ours}): at [{place}] {one.mine:.7g}, in the reference {one.reference:.7g}; "
        f"{one.relative:.1e} of its largest value"
    )
