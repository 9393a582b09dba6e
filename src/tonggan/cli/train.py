"""`tonggan train`: by a recipe, or from a published model to your own data."""

from __future__ import annotations

import json as json_
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from tonggan.cli.shared import (
    ImageCol,
    Json,
    Limit,
    TextCol,
    check_data,
    plain,
    plural,
    print_dropped,
    print_json,
    print_notes,
    recipe_file,
)
from tonggan.types import UsageError

if TYPE_CHECKING:
    from tonggan.recipes.run import Run
    from tonggan.train.trainer import Finished


def train(
    recipe: Annotated[str | None, typer.Argument(help="A shipped recipe (see: tonggan recipes ls), or your own YAML.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to the run: stages.0.train.steps=50 seed=1 …")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Adapt this model: a run, a directory of ours or of Hugging Face's CLIP, or PICTURES+TEXT.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="With --from: a source, or a file or folder of yours.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run. Default: runs/NAME, with --from runs/adapted.")] = None,
    freeze: Annotated[list[str] | None, typer.Option(help="With --from: image, text; such a tower is encoded once and cached.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="With --from: how long to train.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, also after a crash.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Measure the training step instead of training.")] = False,
    image_col: ImageCol = None,
    text_col: TextCol = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Train by a recipe, or adapt a model to your own data. Ctrl-C writes a checkpoint; the same command with --resume goes on.

    Examples: `tonggan train clip-mini-emoji seed=1`; `tonggan train --from PARTS --data my.csv --image-col 图片 --text-col 标题`
    """
    from tonggan.config import override
    from tonggan.recipes.adapt import adapt_config
    from tonggan.recipes.config import RunConfig
    from tonggan.recipes.run import Run

    changes = overrides or []
    if start is not None and recipe is not None and "=" in recipe:
        # With --from there is no recipe, so the first change stands in its place.
        changes = [recipe, *changes]
        recipe = None
    if (recipe is None) == (start is None):
        raise UsageError("name a recipe, or a model with --from: exactly one of them")
    if recipe is not None:
        columns = (("--image-col", image_col), ("--text-col", text_col))
        for name, given in (("--data", data), ("--freeze", freeze), ("--minutes", minutes), *columns):
            if given:
                raise UsageError(f"{name} goes with --from; change a recipe by field=value")
        config = RunConfig.read(recipe_file(recipe), changes)
        where = out or Path("runs") / config.name
    else:
        if data is None:
            raise UsageError("--from needs --data: the pictures and words to adapt to")
        if not resume:  # a run that was begun keeps its rows
            check_data(data, image_col, text_col)
        override({}, changes)  # what is no assignment at all is said before every picture is read
        where = out or Path("runs") / "adapted"
        config = adapt_config(
            str(start), data, where, freeze=freeze, minutes=minutes, image_col=image_col, text_col=text_col, resume=resume
        )
        config = RunConfig.parse(override(config.model_dump(mode="json"), changes), f"--from {start}")
    run = Run(config, where, limit=limit, quiet=json)
    if profile:
        from tonggan.recipes.profile import profile_run

        found = profile_run(run)
        print_json(found.to_dict()) if json else typer.echo(found.text())
        return
    known = list(run.dropped_rows())
    print_dropped(known)
    notes = _notes(run)
    print_notes(notes)
    before = _finished_before(run) if resume else None
    try:
        finished = run.train(resume=resume)  # of a run that was finished before, it checks the settings
    finally:  # also when it fails: these rows may be why
        said = set(known)
        print_dropped([one for one in run.dropped if one not in said])
    finished = before or finished
    if json:
        told = {"run": str(where), "steps": finished.steps, "seconds": finished.seconds, "best": finished.best, "stopped": finished.stopped}
        told |= {"finished_before": before is not None, "model": str(_model(where)), "dropped": plain(run.dropped), "notes": notes}
        print_json(told)
    elif finished.stopped != "interrupted":  # then the trainer has said where it stands and how to go on
        _print(run, finished, before is not None, where / "data" if start is not None else None)
    if finished.stopped == "interrupted":
        raise typer.Exit(1)


def _notes(run: Run) -> list[str]:
    """What the readers of its data decided, once each."""
    streams = [(stream.data, stream.step.modalities) for stage in run.config.stages for stream in stage.streams]
    held = [(run.config.evaluation.data, run.config.evaluation.modalities)] if run.config.evaluation else []
    return list(dict.fromkeys(note for data, kinds in (*streams, *held) for note in run.rows(data, kinds).notes))


def _finished_before(run: Run) -> Finished | None:
    """How a run ended whose every stage is done: what the trainer wrote down then. None while there is something left to do."""
    from tonggan.train.checkpoint import STATE
    from tonggan.train.trainer import Finished

    last = run.out / "last" / STATE
    if not last.is_file() or not {stage.name for stage in run.config.stages} <= set(run.stages_done()):
        return None
    state = json_.loads(last.read_text("utf-8"))
    return Finished(state["step"], state["seconds"], state["best"], "done")


def _model(where: Path) -> Path:
    """The directory that `load` takes of a run: `best/`, or `last/` where nothing was evaluated."""
    return where / "best" if (where / "best").exists() else where / "last"


def _best(run: Run, value: float) -> str:
    """The score by which the best model was chosen, with its name."""
    evaluation = run.config.evaluation
    assert evaluation is not None
    if evaluation.kind == "loss":
        return f"loss {-value:.4g}"
    return f"{evaluation.score} {value:.3g}" if evaluation.kind == "captions" else f"{evaluation.score} {100 * value:.1f} %"


def _print(run: Run, finished: Finished, before: bool, kept: Path | None) -> None:
    """How it ended and what to do next; `kept` are the rows of an adaptation, where most were learnt from and some held out."""
    from tonggan.data.rows import Dataset
    from tonggan.recipes.config import CaptionsEvaluation

    stages = len(run.config.stages)
    told = f"{plural(finished.steps, 'update')} in {finished.seconds:.0f} s"
    told += f" (the last of {stages} stages)" if stages > 1 else ""
    told += ", stopped early because no evaluation was better (train.patience)" if finished.stopped == "patience" else ""
    told += "" if finished.best is None else f", best {_best(run, finished.best)}"
    typer.echo(f"{run.out}: {'was finished already, nothing is left to do: ' if before else ''}{told}")
    typer.echo(f"model: {_model(run.out)}")
    there, index, data = quote(str(run.out)), quote(str(run.out / "index")), quote(str(kept or "DATA"))
    unseen = f"{data} --split test" if kept is not None and "test" in Dataset.read(kept).splits else "DATA"
    model = run.local()
    seen = next((kind for kind in ("image", "video", "audio") if kind in model.modalities), None)
    of = "" if seen in ("image", None) else f" --of {seen}"
    further = []
    if "embed" in model.can and seen and "text" in model.modalities:
        further += [f"tonggan eval {there} --data {unseen}{of}"]
    if "match" in model.can:
        further += [f"tonggan eval {there} --data {unseen} --task matching"]
    if "chat" in model.can:
        named = {"image": "PICTURE", "video": "CLIP", "audio": "SOUND"}
        further += [f"tonggan chat {there}"] if model.remembers else [f"tonggan transcribe {there} SOUND"] if seen == "audio" else []
        further += [f"tonggan caption {there} {named[seen]}"] if seen in ("image", "video") else []
        task = "captions" if isinstance(run.config.evaluation, CaptionsEvaluation) else "answers"
        further += [f"tonggan eval {there} --data {unseen} --task {task}"]
        further += [] if "embed" in model.can else [f"tonggan serve {there}"]
    if "embed" in model.can and seen:
        further += [f"tonggan index {there} {data} --to {index}", f"tonggan serve {there}"]
    if not further and seen:
        further = [f"tonggan eval {there} --data {unseen} --task probe{of} --label COLUMN"]
    if further:
        typer.echo("next: " + "\n      ".join(further))
