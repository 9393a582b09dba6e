"""What all verbs share: options of one meaning, output, hints for mistyped paths, and how an error becomes one message and an exit code."""

from __future__ import annotations

import difflib
import json as json_
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from tonggan.types import Dropped, Media, MediaError, TongganError, UsageError

if TYPE_CHECKING:
    from tonggan.data.rows import Dataset

AnyMedia = TypeVar("AnyMedia", bound=Media)
SHOWN = 20
"""Rows of one reason that are listed before the rest is only counted: a column that half of a table lacks would fill the screen."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ImageCol = Annotated[str | None, typer.Option("--image-col", help="Column with the pictures, e.g. 图片. Default: found by its name.")]
TextCol = Annotated[str | None, typer.Option("--text-col", help="Column with the words, e.g. 标题. Default: found by its name.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use the first N rows only, to try things out.")]
Split = Annotated[str | None, typer.Option(help="Use one split only, e.g. test.")]


class Verbs(TyperGroup):
    """Turns what users can mend, and Ctrl-C, into one clear message and an exit code, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TongganError as error:
            typer.secho(f"error: {error}", err=True, fg="red")
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None
        except KeyboardInterrupt:
            if sys.stderr.isatty():  # it shows ^C where the cursor stood
                typer.echo(err=True)
            typer.secho("stopped by Ctrl-C", err=True, fg="yellow")
            raise typer.Exit(1) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except OSError as error:  # a full disk, no rights, a folder where a file should be
            typer.secho(f"error: {error.filename or 'writing'}: {error.strerror or error}", err=True, fg="red")
            raise typer.Exit(1) from None


# --------------------------------------------------------------------------------------------- output


def print_json(value: Any, *, indent: int | None = 1) -> None:
    """One JSON value on standard output; with `indent=None` on one line."""
    text = json_.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # an emoji in GBK, half a character: JSON has escapes of its own for them
        text = json_.dumps(value, indent=indent)
    typer.echo(text)


def plain(dropped: Iterable[Dropped]) -> list[dict[str, str]]:
    """Dropped rows for JSON."""
    return [{"where": one.where, "reason": one.reason} for one in dropped]


def print_dropped(dropped: Sequence[Dropped]) -> None:
    """The rows that could not be used, with their reasons, on standard error; of a reason that many share the first ones."""
    if not dropped:
        return
    typer.secho(f"{plural(len(dropped), 'row')} could not be used:", err=True, fg="yellow")
    alike: dict[str, list[str]] = defaultdict(list)
    for one in dropped:
        alike[one.reason].append(one.where)
    for reason, places in alike.items():
        for where in places[:SHOWN]:
            typer.echo(f"  {where}: {reason}", err=True)
        if len(places) > SHOWN:
            typer.echo(f"  … and {len(places) - SHOWN:,} more: {reason}", err=True)


def print_notes(notes: Iterable[str]) -> None:
    """What a reader decided or mended, on standard error."""
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def plural(count: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} {what}{'s' * (count != 1)}"


# ------------------------------------------------------------------------------------ paths and names


def near(path: Path, known: Iterable[str] = ()) -> str:
    """` (did you mean 'table.csv'?)` for a path that is not there: one of the known names, or what lies beside its first missing part."""
    from tonggan.config import did_you_mean

    missing = next((part for part in (*reversed(path.parents), path) if not part.exists()), path)
    beside = [child.name for child in islice(missing.parent.iterdir(), 1000)] if missing.parent.is_dir() else []
    # A stricter measure than for words: file names are alike by their endings alone.
    alike = difflib.get_close_matches(missing.name, beside, n=1, cutoff=0.75)
    return did_you_mean(missing.name, [*known, *alike])


def check_data(name: str, image_col: str | None = None, text_col: str | None = None) -> None:
    """Refuse data that is not there, and columns of a source, before anything slow is begun."""
    from tonggan.data.sources import SOURCES

    if name in SOURCES:
        if image_col or text_col:
            raise UsageError(f"--image-col and --text-col go with a file of yours; {name} is a source, its columns are known")
        return
    path = _home(Path(name))
    if not path.exists() and not any(letter in name for letter in "{:"):  # those are patterns, and several files
        raise UsageError(f"{name!r} is neither a file nor a source{near(path, SOURCES)}; sources: {', '.join(SOURCES)}")


def open_rows(name: str, image_col: str | None, text_col: str | None, split: str | None = None, limit: int | None = None) -> Dataset:
    """The rows of a source, or of a file or folder; says what their reader decided."""
    from tonggan.data import open_data

    check_data(name, image_col, text_col)
    found = open_data(name, image_col=image_col, text_col=text_col, split=split, limit=limit)
    print_notes(found.notes)
    return found


def open_media(kind: type[AnyMedia], path: Path) -> AnyMedia:
    """A file with a picture, a sound or a clip."""
    if not (there := _home(path)).exists():
        raise MediaError(str(path), f"no such file{near(there)}")
    return kind.open(there)


def recipe_file(name: str) -> Path:
    """The file of a shipped recipe, or of one's own YAML."""
    from tonggan import recipes

    own = Path(name)
    if own.suffix in {".yaml", ".yml"} and not own.exists():
        raise UsageError(f"{name}: no such file{near(own)}; shipped recipes are named without an ending: {', '.join(recipes.names())}")
    return recipes.path(name)


def _home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # ~nobody
        return path
