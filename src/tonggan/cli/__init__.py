"""The command line: each verb parses its words, calls one function, and prints. Exit codes: 0 done, 1 failed or stopped, 2 wrong call.

Everything heavy is imported inside the verb, so that `tonggan --help` answers at once.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from tonggan.cli import adapt, compare, data, env, evaluate, hub, models, recipes, score, search, serve, talk, train, verify
from tonggan.cli.shared import Verbs

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Tonggan 通感: take published models, measure them on your own pictures and words, adapt, evaluate, search, serve.\n\n"
    "Start with `tonggan demo`, or with your own table: `tonggan train --from PARTS --data my.csv`.",
)
app.command("demo")(recipes.demo)
app.command("embed")(evaluate.embed)
app.command("train")(train.train)
app.command("eval")(evaluate.eval_)
app.command("wise")(adapt.wise)
app.command("merge")(adapt.merge)
app.command("index")(search.index)
app.command("search")(search.search)
app.command("serve")(serve.serve)
app.command("chat")(talk.chat)
app.command("caption")(talk.caption)
app.command("ask")(talk.ask)
app.command("transcribe")(talk.transcribe)
app.command("compare")(compare.compare)
app.command("score")(score.score)
app.command("import")(hub.import_)
app.command("export")(hub.export)
app.command("verify")(verify.verify)
app.command("env")(env.env)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(recipes.app, name="recipes")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from tonggan import __version__

        typer.echo(__version__)
        raise typer.Exit(0)


def main() -> None:
    """The `tonggan` command. What a terminal has no letter for (`✗` in GBK, half a character) is shown by its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
