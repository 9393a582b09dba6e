"""`tonggan serve`: a model over HTTP, with a web page."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from tonggan.cli.shared import Json, plural, print_json


def serve(
    model: Annotated[str, typer.Argument(help="The model to serve.")],
    index: Annotated[Path | None, typer.Option(help="An index made with this model. Default: MODEL/index if there is one.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; beyond this machine only with TONGGAN_API_KEY set.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    page: Annotated[bool, typer.Option(help="Also the web page, at /.")] = True,
    json: Json = False,
) -> None:
    """Serve a model: OpenAI-compatible /v1/embeddings, /v1/search, /v1/classify, and a web page. Stop it with Ctrl-C.

    Example: `tonggan serve runs/demo`, then open http://127.0.0.1:8000. With `--json` it prints one line once it can be reached.
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
        address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
        bound.listen()  # whoever reads the address may call at once, and waits for the answer
        if json:
            indexed = len(engine.index) if engine.index else 0
            told = {"address": address, "api": f"{address}/v1", "page": page, "model": engine.model.name, "indexed": indexed}
            print_json(told, indent=None)
        else:
            found = f"{plural(len(engine.index), 'item')} can be searched" if engine.index else _no_index(model)
            typer.echo(f"{engine.model.name}: {found}\n{address}  (API: {address}/v1; stop with Ctrl-C)")
        run(http, bound)


def _no_index(model: str) -> str:
    return f"no index to search in (make one: tonggan index {quote(model)} DATA --to {quote(str(Path(model) / 'index'))})"
