"""`tonggan serve`: a model over HTTP, with adapters on it, and a web page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING, Annotated

import typer

from tonggan.cli.shared import Json, plural, print_json
from tonggan.types import UsageError

if TYPE_CHECKING:
    from tonggan.serve.engine import Engine
    from tonggan.types import Model


def serve(
    model: Annotated[str, typer.Argument(help="The model to serve.")],
    index: Annotated[Path | None, typer.Option(help="An index made with this model. Default: MODEL/index if there is one.")] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="An adapter on the model, which requests choose by its name. May be repeated."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; beyond this machine only with TONGGAN_API_KEY set.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    page: Annotated[bool, typer.Option(help="Also the web page, at /.")] = True,
    json: Json = False,
) -> None:
    """Serve a model: OpenAI-compatible /v1/embeddings and /v1/chat/completions, /v1/search, /v1/classify, and a web page.

    Stop it with Ctrl-C.

    Example: `tonggan serve runs/demo`, then open http://127.0.0.1:8000. With `--json` it prints one line once it can be reached.
    Adapters share the model's weights in memory; each searches the index in its own directory, DIR/index.
    """
    from tonggan.search import Index
    from tonggan.serve.engine import Engine
    from tonggan.serve.guards import check_exposure, is_loopback
    from tonggan.serve.http import check_names, create_app, listen, run

    key = os.environ.get("TONGGAN_API_KEY")
    check_exposure(host, key)
    named = _named(adapter or ())
    check_names([model, *(name for name, _ in named)])
    with ExitStack() as closing:
        indexes = {model: index or _beside(model)} | {name: _beside(place) for name, place in named}
        engines = {
            name: closing.enter_context(Engine(opened, Index.open(where) if (where := indexes[name]) else None))
            for name, opened in _open(model, named).items()
        }
        engine = engines.pop(model)
        http = create_app(engine, name=model, others=engines, loopback=is_loopback(host), api_key=key)
        bound = listen(host, port)
        if page:
            from tonggan.studio.page import mount

            http = mount(http, engine)
        address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
        bound.listen()  # whoever reads the address may call at once, and waits for the answer
        _announce(address, engine, engines, {model: model, **dict(named)}, page=page, json=json)
        run(http, bound)


def _named(given: Sequence[str]) -> list[tuple[str, str]]:
    """Names and directories of adapters."""
    pairs = [(name.strip(), place) for name, _, place in (one.partition("=") for one in given)]
    if wrong := next((one for one, pair in zip(given, pairs, strict=True) if not all(pair)), None):
        raise UsageError(f"--adapter {wrong!r}: write NAME=DIR, for example chinese=runs/chinese")
    return pairs


def _open(model: str, named: Sequence[tuple[str, str]]) -> dict[str, Model]:
    """What is served, by name; adapters stand on the one model in memory."""
    from tonggan.backends import adapted, load, load_local

    if not named:
        return {model: load(model)}
    base = load_local(model)
    if form := base.checkpoint.provenance.get("copy"):
        original = ["tonggan", "serve", base.checkpoint.provenance["origin"]]
        words = [*original, *(word for name, place in named for word in ("--adapter", f"{name}={place}"))]
        raise UsageError(
            f"{model}: an {form} copy, whose weights are in another form and take no adapter; serve its original: {join(words)}"
        )
    return {model: base, **{name: adapted(base, place) for name, place in named}}


def _announce(address: str, engine: Engine, others: Mapping[str, Engine], places: Mapping[str, str], *, page: bool, json: bool) -> None:
    """Say what is served where; `places` are the directories by name, the model's first."""
    if json:
        adapters = [{"name": name, "model": one.model.name, "indexed": _indexed(one)} for name, one in others.items()]
        told = {"address": address, "api": f"{address}/v1", "page": page, "model": engine.model.name, "indexed": _indexed(engine)}
        print_json({**told, "adapters": adapters}, indent=None)
        return
    place = next(iter(places.values()))
    typer.echo(f"{engine.model.name}: {_found(engine, place)}")
    for name, one in others.items():
        typer.echo(f"{name} ({one.model.name}): {_found(one, places[name])}")
    typer.echo(f"{address}  (API: {address}/v1; stop with Ctrl-C)")


def _beside(place: str) -> Path | None:
    """The index in a model's directory, if there is one."""
    return where if ((where := Path(place) / "index") / "index.json").is_file() else None


def _indexed(engine: Engine) -> int:
    return len(engine.index) if engine.index else 0


def _found(engine: Engine, place: str) -> str:
    """What can be searched with a model, or how to make it so; of one that does not embed, what it takes."""
    if "embed" not in engine.model.can:
        return f"it chats, and takes {', '.join(sorted(engine.model.modalities))}"
    if engine.index:
        return f"{plural(len(engine.index), 'item')} can be searched"
    return f"no index to search in (make one: tonggan index {quote(place)} DATA --to {quote(str(Path(place) / 'index'))})"
