"""`tonggan score`: one file of predictions under several protocols."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonggan.cli.shared import Json, Limit, plural, print_dropped, print_json, print_notes

if TYPE_CHECKING:
    from tonggan.evaluate.scoring import Pair, Scored

GROUPS = 4
"""Groups of a pair that are printed, the largest first."""


def score(
    pred: Annotated[
        Path,
        typer.Argument(help="Predictions: our .items.jsonl, VLMEvalKit's table, lmms-eval's samples, or VQA results with --annotations."),
    ],
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="official, vlmevalkit, lmms-eval; for choices also ours, for free answers evalai. May be repeated. Default: all."
        ),
    ] = None,
    annotations: Annotated[Path | None, typer.Option(help="The annotations' file of VQA, which holds the right answers.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write report.html, score.json and items.jsonl (every reply's reading) here.")] = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Score the same predictions under several protocols, and show which replies make the difference, and by which rule.

    Example: `tonggan score predictions.xlsx --protocol official --protocol vlmevalkit --out runs/scored`
    """
    from tonggan.evaluate.predictions import read_predictions
    from tonggan.evaluate.scoring import plain
    from tonggan.evaluate.scoring import score as run
    from tonggan.evaluate.scoring_page import write

    scored = run(read_predictions(pred, annotations=annotations, limit=limit), protocol or ())
    written = write(scored, out) if out is not None else None
    if json:
        print_json(plain(scored) | ({"report": str(written)} if written else {}))
        return
    _print(scored)
    if written is not None:
        typer.echo(f"written: {written}, and every reply's reading in {written.with_name('items.jsonl')}")


def _print(scored: Scored) -> None:
    from rich.console import Console
    from rich.table import Table

    from tonggan.evaluate.scoring_page import LEFT

    found = scored.predictions
    circular = found.circular
    table = Table(title=f"{found.path.name}: {plural(len(found.items), 'question')}; {found.form}", title_justify="left")
    for name in ("protocol", "score, %", "95 %", "lowest – highest", "left open", *(["vanilla, %"] if circular else [])):
        table.add_column(name, justify="left" if name in ("protocol", "left open") else "right", no_wrap=name == "protocol")
    for one in scored.scores:
        e = one.estimate
        table.add_row(
            one.protocol,
            f"{100 * e.value:.1f}",
            f"{100 * e.low:.1f} – {100 * e.high:.1f}",
            f"{100 * one.lowest:.1f} – {100 * one.highest:.1f}",
            ", ".join(f"{count} {LEFT[left].en}" for left, count in one.left.items()),
            *([f"{100 * one.vanilla.value:.1f}"] if circular else []),
        )
    Console(markup=False).print(table)
    for one in scored.scores:
        typer.echo(f"{one.protocol}: {one.id}")
        typer.echo(f"  read by: {', '.join(f'{rule} {count}' for rule, count in one.rules.items())}")
    base = scored.scores[-1].protocol
    for pair in scored.pairs:
        if pair.other == base:
            difference = pair.difference.told(sign=True)
            typer.echo(f"\n{pair.one} − {pair.other}: {difference} points; {plural(pair.count, 'question')} read differently")
            _print_groups(pair)
    if len(scored.scores) > 2:
        typer.echo(f"\nEach is held against {base} here; --out and --json give every pair.")
    print_notes(found.notes)
    print_dropped(found.dropped)


def _print_groups(pair: Pair) -> None:
    from tonggan.evaluate.protocols import RULES

    for group in pair.groups[:GROUPS]:
        typer.echo(f"  {plural(len(group.ids), 'question')}, {100 * group.points:+.1f} points; for example {', '.join(group.ids[:3])}")
        for name, rule in ((pair.one, group.rule), (pair.other, group.other_rule)):
            typer.echo(f"    {name}: {RULES[rule].en}")
    if len(pair.groups) > GROUPS:
        typer.echo(f"  … and {plural(len(pair.groups) - GROUPS, 'group')} more")
