"""`tonggan demo` and `tonggan recipes`: what is shipped to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tonggan.cli.shared import Json, Limit, Verbs, print_json, recipe_file

app = typer.Typer(cls=Verbs, no_args_is_help=True, rich_markup_mode="markdown", help="Training recipes: list, show, copy to edit.")

Name = Annotated[str, typer.Argument(help="A shipped recipe (see: tonggan recipes ls), or your own YAML.")]


def demo(
    out: Annotated[Path, typer.Option(help="Directory of the run, with report.html.")] = Path("runs/demo"),
    source: Annotated[str | None, typer.Option(help="stamps or openmoji. Default: stamps where they are installed.")] = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """The main job on real pictures: measure published parts, adapt, evaluate, index, search, report.

    Example: `tonggan demo`, then `tonggan serve runs/demo`. With `--json` the progress goes to standard error.
    """
    from tonggan.recipes.demo import demo as run

    told = run(out, source=source, limit=limit, say=lambda line: typer.echo(line, err=json))
    if json:
        print_json(
            {
                "run": str(out),
                "report": str(out / "report.html"),
                "source": told.source,
                "results": {name: result.to_dict() for name, result in told.results.items()},
                "seconds": told.seconds,
            }
        )


@app.command("ls")
def ls(json: Json = False) -> None:
    """List the recipes: name, and what each does.

    Example: `tonggan recipes ls`, then `tonggan train quickstart`
    """
    from tonggan import recipes

    found = {name: recipes.about(name) for name in recipes.names()}
    if json:
        print_json(found)
        return
    for name, about in found.items():
        typer.echo(f"{name:20}{about}")


@app.command("show")
def show(name: Name, json: Json = False) -> None:
    """Print a recipe; with --json every field, also those that it leaves at their defaults.

    Example: `tonggan recipes show adapt-stamps`
    """
    file = recipe_file(name)
    if json:
        from tonggan.recipes.config import RunConfig

        print_json({"name": name, "file": str(file), "recipe": RunConfig.read(file).model_dump(mode="json")})
        return
    typer.echo(file.read_text("utf-8"), nl=False)


@app.command("cp")
def cp(
    name: Name,
    to: Annotated[Path, typer.Argument(help="Where to write the copy; an existing file is never overwritten.")],
    json: Json = False,
) -> None:
    """Copy a recipe to edit it.

    Example: `tonggan recipes cp adapt-stamps mine.yaml`
    """
    from tonggan import recipes

    recipe_file(name)
    file = recipes.copy(name, to)
    if json:
        print_json({"name": name, "file": str(file)})
        return
    typer.echo(f"{file}: edit it, then: tonggan train {file}")
