"""`tonggan index` and `tonggan search`: pictures, clips or sounds that can be found by words, or by one of their like."""

from __future__ import annotations

import json as json_
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from tonggan.cli.shared import (
    ImageCol,
    Json,
    Limit,
    Split,
    TextCol,
    near,
    open_media,
    open_rows,
    plain,
    plural,
    print_dropped,
    print_json,
)
from tonggan.types import Audio, Image, TongganError, UsageError, Video


def index(
    model: Annotated[str, typer.Argument(help="The model whose vectors are stored.")],
    data: Annotated[str | None, typer.Argument(help="A source, or a file or folder of yours.")] = None,
    to: Annotated[Path, typer.Option("--to", help="Directory of the index; made, or added to.")] = Path("index"),
    delete: Annotated[list[str] | None, typer.Option(help="Take a row out by its id; may be repeated.")] = None,
    approximate: Annotated[bool, typer.Option("--approximate", help="Above 200,000 rows: faster, not exact.")] = False,
    split: Split = None,
    image_col: ImageCol = None,
    text_col: TextCol = None,
    limit: Limit = None,
    longest: Annotated[float, typer.Option(min=0.5, help="Seconds of a shot at most; a longer one without a cut is divided.")] = 10.0,
    whole: Annotated[bool, typer.Option("--whole", help="One entry for each clip, not for each of its shots.")] = False,
    json: Json = False,
) -> None:
    """Make pictures searchable, or the clips or sounds of rows without, if the model embeds them; run again to add and update (what has
    not changed is not encoded again). Clips are divided into shots; a model of pictures sees a few frames of each.

    Example: `tonggan index runs/demo stamps --to runs/demo/index`
    """
    from tonggan.backends import load
    from tonggan.data.shots import Splitting
    from tonggan.search import Changes, Index

    if data is None and not delete:
        raise UsageError("nothing to do: name data to add, or ids with --delete")
    dataset = open_rows(data, image_col, text_col, split, limit) if data is not None else None
    loaded = load(model)
    found = Index.create(to, loaded) if dataset is not None else Index.open(to)
    found.check(loaded)
    removed = found.delete(delete) if delete else 0
    changes = Changes()
    if dataset is not None:
        changes = found.add(loaded, dataset, splitting=None if whole else Splitting(longest=longest))
        changes.dropped.extend(dataset.dropped)
    built = found.approximate() if approximate else False
    if json:
        print_json(
            {
                "directory": str(to),
                "pictures": len(found),
                "added": changes.added,
                "updated": changes.updated,
                "unchanged": changes.unchanged,
                "deleted": removed + changes.removed,
                "approximate": built,
                "dropped": plain(changes.dropped),
                "notes": list(dataset.notes) if dataset is not None else [],
            }
        )
        return
    did = f"{changes.added} added, {changes.updated} updated, {changes.unchanged} unchanged, {removed + changes.removed} deleted"
    typer.echo(f"{to}: {plural(len(found), 'item')} ({did})")
    if approximate:
        typer.echo("search is approximate now" if built else "search stays exact: so few are searched quickly as they are")
    print_dropped(changes.dropped)
    asked = '"your words"' if "text" in loaded.modalities else f"--{min(loaded.modalities)} FILE"
    typer.echo(f"next: tonggan search {quote(str(to))} {asked}")


def search(
    directory: Annotated[Path, typer.Argument(help="Directory of an index.")],
    query: Annotated[str | None, typer.Argument(help="Words, in any language that the model knows.")] = None,
    image: Annotated[Path | None, typer.Option("--image", "-i", help="A picture instead of words.")] = None,
    audio: Annotated[Path | None, typer.Option(help="A sound instead of words.")] = None,
    video: Annotated[Path | None, typer.Option(help="A clip instead of words.")] = None,
    model: Annotated[str | None, typer.Option(help="The model, if it has moved since the index was made.")] = None,
    limit: Annotated[int, typer.Option("-k", "--limit", min=1, help="How many.")] = 10,
    json: Json = False,
) -> None:
    """Search by words, or by a picture, a sound or a clip, whatever the model embeds.

    Example: `tonggan search runs/demo/index "一只红色的鸟"`
    """
    from tonggan.backends import load
    from tonggan.search import Index

    if sum(given is not None for given in (query, image, audio, video)) != 1 or (query is not None and not query.strip()):
        raise UsageError("give words, or a file with --image, --audio or --video: exactly one of them")
    if not directory.exists() and (meant := near(directory)):
        raise TongganError(f"{directory}: no index here{meant}")
    asked = query if query is not None else _asked(image, audio, video)
    found = Index.open(directory)
    hits = found.search(load(model or found.model_path), asked, limit)
    if json:
        rows = [{"id": h.id, "score": h.score, "title": h.title, "where": h.where, **json_.loads(h.meta)} for h in hits]
        print_json({"query": asked if isinstance(asked, str) else asked.where, "hits": rows})
        return
    for number, hit in enumerate(hits, 1):
        place = hit.where if not hit.where.startswith("<") else hit.id.rpartition("#t=")[0] or hit.id
        typer.echo(f"{number:3d}  {hit.score:+.3f}  {hit.title or hit.id}  [{f'{place} {hit.moment}'.rstrip()}]")


def _asked(image: Path | None, audio: Path | None, video: Path | None) -> Image | Audio | Video:
    """The one file that was named."""
    if image is not None:
        return open_media(Image, image)
    return open_media(Audio, audio) if audio is not None else open_media(Video, Path(str(video)))
