"""`tonggan compare`: several models on the same items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tonggan.cli.shared import Json, Limit, print_json
from tonggan.types import UsageError


def compare(
    models: Annotated[list[str], typer.Argument(help="Models: runs, directories, names, or endpoints such as dashscope:qwen-vl-max.")],
    on: Annotated[list[str], typer.Option(help="A suite (pages-zh-en, stamps-zh-en, …) or a file of yours; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Directory of the report, of every answer, and of what was measured already.")],
    circular: Annotated[bool, typer.Option(help="Ask chat models every rotation of the choices; all must be right.")] = False,
    limit: Limit = None,
    image_col: Annotated[str | None, typer.Option(help="Column with the pictures, e.g. 图片. Default: found by its name.")] = None,
    question_col: Annotated[str | None, typer.Option(help="Column with the questions, e.g. 问题.")] = None,
    answer_col: Annotated[str | None, typer.Option(help="Column with the right answers, e.g. 答案. Default: found by its name.")] = None,
    choices_col: Annotated[str | None, typer.Option(help="Column with the choices, e.g. 选项. Default: that name, or A, B, C, ….")] = None,
    max_requests: Annotated[int | None, typer.Option(min=1, help="Send at most so many requests to endpoints.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be sent to endpoints: requests and bytes.")] = False,
    json: Json = False,
) -> None:
    """Compare models on the same items: intervals, paired tests, the gap between Chinese and English, and every answer on file.

    Example: `tonggan compare runs/demo runs/mini --on stamps-zh-en --on openmoji-zh-en --out runs/compared`
    """
    import importlib.metadata as metadata
    import sys

    from tonggan.backends import load
    from tonggan.backends.api import Budget, Endpoint, named
    from tonggan.compare import compare as run
    from tonggan.compare import report, task
    from tonggan.compare.runner import preview
    from tonggan.types import Model

    if len(set(models)) < len(models):
        raise UsageError("a model is named twice")
    tasks = [
        task(name, limit=limit, image_col=image_col, question_col=question_col, answer_col=answer_col, choices_col=choices_col)
        for name in on
    ]
    budget = Budget(requests=max_requests)

    def opened(name: str) -> Model:
        endpoint = named(name)
        return load(name) if endpoint is None else Endpoint(name, *endpoint, answers=out / "answers.db", budget=budget)

    if dry_run:
        planned = [preview(opened(name), one, circular=circular) for name in models if named(name) is not None for one in tasks]
        if json:
            print_json(planned)
        for line in planned if not json else []:
            typer.echo(f"{line['model']} on {line['task']}: {line['requests']} requests ({line['kept']} kept), {line['bytes']:,} bytes")
        if not planned and not json:
            typer.echo("no endpoint among the models: nothing would be sent")
        return
    told = run(models, tasks, out, load=opened, circular=circular, say=lambda text: typer.echo(text, err=json))
    versions = {"python": sys.version.split()[0], **{name: metadata.version(name) for name in ("tonggan", "torch", "numpy")}}
    written = report.write(told, out, versions)
    failed = any(cell.result is None and not cell.cannot for cell in told.cells.values())
    if json:
        print_json(report.plain(told) | {"report": str(written)})
        raise typer.Exit(int(failed))
    for pair in told.pairs:
        typer.echo(
            f"{pair.one} − {pair.other} on {pair.task}: {report.told_estimate(pair.difference, sign=True)}, p {pair.adjusted:.3f} (Holm)"
        )
    for name, one, other in told.apart:
        typer.echo(f"{one} and {other} were asked differently on {name}: not compared")
    typer.echo(f"written: {written}")
    raise typer.Exit(int(failed))  # what failed is named above; the rest is on file
