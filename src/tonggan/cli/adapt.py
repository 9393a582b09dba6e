"""`tonggan wise` and `tonggan merge`: what becomes of a model that was tuned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonggan.cli.shared import Json, Limit, open_rows, plural, print_json
from tonggan.types import UsageError

if TYPE_CHECKING:
    from tonggan.evaluate.retention import Point, Retention
    from tonggan.recipes.wise import Skill

HELD_OUT = "Default: val, where there is none test; where rows have no splits, all of them."
TASK = "retrieval; classification (zero-shot); labels (zero-shot, several to a picture)."


def wise(
    untuned: Annotated[str, typer.Argument(help="The model as it was before.")],
    tuned: Annotated[str, typer.Argument(help="What fine-tuning made of it: a run, a directory, or an adapter.")],
    out: Annotated[Path, typer.Argument(help="Directory for the curve, the page and the chosen model.")],
    new: Annotated[str, typer.Option(help="Data of the new skill: a source, or a file or folder of yours.")],
    old: Annotated[str, typer.Option(help="Data of the old skill, which is to be kept.")],
    new_task: Annotated[str, typer.Option(help=TASK)] = "retrieval",
    old_task: Annotated[str, typer.Option(help=TASK)] = "retrieval",
    new_split: Annotated[str | None, typer.Option(help=f"Split of --new. {HELD_OUT}")] = None,
    old_split: Annotated[str | None, typer.Option(help=f"Split of --old. {HELD_OUT}")] = None,
    new_lang: Annotated[list[str] | None, typer.Option(help="Languages of the new skill's captions or prompts.")] = None,
    old_lang: Annotated[list[str] | None, typer.Option(help="Languages of the old skill's captions or prompts.")] = None,
    new_label: Annotated[str, typer.Option(help="Column of --new with the class, for classification and labels.")] = "label",
    old_label: Annotated[str, typer.Option(help="Column of --old with the class, for classification and labels.")] = "label",
    points: Annotated[int, typer.Option(min=2, help="Points from untuned (0) to tuned (1).")] = 11,
    keep: Annotated[float, typer.Option(min=0, help="Points (per cent) of the old skill that may be lost.")] = 1.0,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Interpolate the weights of a model and its fine-tuned self; pick the point that gains most and forgets little (WiSE-FT).

    Example: `tonggan wise runs/clip runs/birds runs/wise --new birds.csv --new-split val --old stamps --old-split val`
    """
    from tonggan.backends import load_local
    from tonggan.recipes.wise import wise as run

    _check(new_task, old_task, new_lang, old_lang)
    skills = (
        _skill("new", new, new_task, new_split, new_lang, new_label, limit),
        _skill("old", old, old_task, old_split, old_lang, old_label, limit),
    )
    alphas = [number / (points - 1) for number in range(points)]

    def progress(alpha: float) -> None:
        if not json:
            typer.echo(f"measuring α = {alpha:g}", err=True)

    curve = run(load_local(untuned), load_local(tuned), *skills, out, alphas=alphas, keep=keep / 100, progress=progress)
    if json:
        print_json(curve.to_dict() | {"model": str(out / "model"), "report": str(out / "report.html")})
        return
    _print(curve)
    typer.echo(f"the model: {out / 'model'}; the curve: {out / 'report.html'}")


def merge(
    adapter: Annotated[str, typer.Argument(help="Directory of a LoRA or DoRA adapter, or a run that trained one.")],
    out: Annotated[Path, typer.Argument(help="Directory for the merged model.")],
    json: Json = False,
) -> None:
    """Work an adapter into its base's weights: a model as any other, in the base's published format where it has one.

    Example: `tonggan merge runs/birds-lora runs/birds`
    """
    from tonggan import hub
    from tonggan.backends import load_local
    from tonggan.models import adapt

    found = load_local(adapter, device="cpu").checkpoint
    if not any(name.startswith("adapter.") for name in found.identity.preprocessing):
        raise UsageError(f"{adapter}: has no adapter to merge")
    told = {"adapter": adapter, "weights": found.identity.weights}
    hub.save(out, adapt.merge(found.module), found.config, found.processor, provenance={"merged": told}, labels=found.labels)
    if json:
        print_json({"model": str(out), "weights": hub.read(out).identity.weights})
    else:
        typer.echo(f"merged: {out}")


def _check(new_task: str, old_task: str, new_lang: list[str] | None, old_lang: list[str] | None) -> None:
    """Refuse wrong words before anything is read."""
    from tonggan.config import one_of
    from tonggan.recipes.wise import TASKS

    for side, task, langs in (("new", new_task, new_lang), ("old", old_task, old_lang)):
        one_of(task, TASKS, f"--{side}-task")
        if task != "retrieval" and langs and len(langs) > 1:
            raise UsageError(f"{task} asks in one language at a time: give --{side}-lang once")


def _skill(side: str, data: str, task: str, split: str | None, langs: list[str] | None, label: str, limit: int | None) -> Skill:
    from tonggan.recipes.wise import Skill

    every = open_rows(data, None, None)
    split = split or _held_out(every.splits, data, side)
    some = every.split(split) if split else every
    rows = [some[i] for i in range(len(some) if limit is None else min(limit, len(some)))]
    typer.echo(f"{side} skill: {plural(len(rows), 'row')} of {data}, {f'split {split}' if split else 'which has no splits'}", err=True)
    return Skill(rows, data, task, label, tuple(langs) if langs else None)


def _held_out(splits: Sequence[str], data: str, side: str) -> str | None:
    """The split that a point is chosen on: rows that were learnt from say nothing about what was forgotten."""
    if found := next((name for name in ("val", "test") if name in splits), None):
        return found
    if splits:
        raise UsageError(f"{data} has no split val or test, only {', '.join(splits)}; name one that was not learnt from: --{side}-split")
    return None


def _print(curve: Retention) -> None:
    """A table of every point, the chosen one marked."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{curve.untuned} → {curve.tuned}", title_justify="left", caption=f"* {curve.to_dict()['rule']}", caption_justify="left"
    )
    for head in ("α", f"new: {curve.new.metric}", "change", f"old: {curve.old.metric}", "change"):
        table.add_column(head, justify="right")
    for point in curve.points:
        table.add_row(*_cells(point, chosen=point == curve.chosen))
    Console(markup=False).print(table)


def _cells(point: Point, *, chosen: bool) -> list[str]:
    return [
        f"{point.alpha:g}{'*' * chosen}",
        point.new.told(),
        point.new_change.told(sign=True),
        point.old.told(),
        point.old_change.told(sign=True),
    ]
