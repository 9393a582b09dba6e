"""The HTTP entrance: OpenAI's embeddings and chat APIs, and search and classification beside them. All work is the engine's."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pydantic

from tonggan.search import Hit
from tonggan.serve.chat import ChatRequest, completion, events, underway
from tonggan.serve.engine import Engine
from tonggan.serve.guards import SIGN_IN, BodyLimit, Limits, refusal
from tonggan.serve.parts import ChatMessage, ContentPart, Strict, Words, item_of, picture_of, text_of
from tonggan.serve.signin import SignIn
from tonggan.types import Answer, CannotError, Item, MediaError, MissingExtra, Model, TongganError, UsageError

try:
    import anyio.from_thread
    import uvicorn
    from fastapi import Body, FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, Response, StreamingResponse
    from fastapi.routing import APIRoute
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.routing import Match, Mount
    from starlette.types import Receive, Scope, Send
except ImportError:
    raise MissingExtra("the server", "serve") from None


class EmbeddingsRequest(Strict):
    """`input` as OpenAI has it; pictures are data URIs (infinity's `modality: image`, or recognised by `data:TYPE/…`)."""

    input: Words | list[Words | ContentPart] | None = None
    messages: list[ChatMessage] | None = None
    model: str | None = None
    modality: Literal["text", "image"] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None

    @pydantic.field_validator("input", mode="before")
    @classmethod
    def _words_not_ids(cls, given: Any) -> Any:
        first = given[0] if isinstance(given, list) and given else None
        if isinstance(first, int) or (isinstance(first, list) and first and isinstance(first[0], int)):
            raise ValueError(
                "token ids are another tokenizer's and cannot be read here; send the text itself, a string or a list of strings"
                " (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
            )
        return given


class SearchRequest(Strict):
    """Exactly one of `query` (words) and `image` (a data URI)."""

    query: Words | None = None
    image: str | None = None
    limit: int = 10
    model: str | None = None


class ClassifyRequest(Strict):
    """Pictures as data URIs, and the labels to choose from."""

    input: str | list[str]
    labels: list[Words]
    lang: Literal["en", "zh"] = "en"
    templates: list[Words] = pydantic.Field(default_factory=list)
    model: str | None = None


PATIENCE = 0.5
"""Seconds between looks whether a client is still there."""
FIRST = ("default", "tonggan")
"""What a request may call the first model that is served, whatever its name."""


class UnknownModel(CannotError):
    """A request named a model that is not served here."""


def create_app(
    engine: Engine,
    *,
    name: str | None = None,
    others: Mapping[str, Engine] | None = None,
    loopback: bool = True,
    api_key: str | None = None,
    limits: Limits | None = None,
) -> FastAPI:
    """The application around an engine. `name` is what clients call the model; its own name will do too.

    `others` are further models by the names that requests choose them by. Raises `UsageError` where two have one name.
    """
    bounds = limits or Limits()
    app = FastAPI(title="Tonggan", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    first, started = name or engine.model.name, int(time.time())
    check_names([first, *(others or {})])
    served = {first: engine, **(others or {})}

    def chosen(asked: str | None) -> str:
        """The name of the model that a request asks for."""
        if asked in served:
            return asked
        if asked in (None, "", *FIRST, engine.model.name):
            return first
        there = " or ".join(map(repr, sorted({*served, engine.model.name})))
        raise UnknownModel(f"model {asked!r} is not served here; this server has {there}")

    door = SignIn(api_key) if api_key else None

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        path = request.url.path
        no = None if path == "/health" else refusal(request.headers, loopback=loopback, api_key=api_key)
        if no and door and not path.startswith("/v1/") and any(isinstance(route, Mount) for route in app.routes):
            if path == SIGN_IN and request.method == "POST":
                return await door.enter(request)
            if door.known(request):
                no = None
            elif "text/html" in request.headers.get("accept", ""):
                return door.ask(request)
        if no:
            return _error(no[0], no[1], "permission_error")
        return _nowhere(app, request) or await call_next(request)

    app.add_middleware(BodyLimit, most=bounds.body_bytes)

    @app.exception_handler(TongganError)
    def told(_: Request, error: TongganError) -> JSONResponse:
        if isinstance(error, UnknownModel):
            return _error(404, str(error), "invalid_request_error", "model", "model_not_found")
        return _error(400, str(error), "invalid_request_error")

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail), "invalid_request_error")

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        # Of several forms that a field may have, the one that was followed deepest is the one that was meant.
        first = max(error.errors(), key=lambda one: len(one["loc"]))
        if first["type"] == "json_invalid":
            return _error(400, f"the body is no JSON: {first['ctx']['error']}, at character {first['loc'][-1]}", "invalid_request_error")
        where = ".".join(str(part) for part in first["loc"] if part != "body" and "[" not in str(part))
        says = first["msg"].removeprefix("Value error, ")
        if not where and "json" not in request.headers.get("content-type", ""):
            says = "send it as JSON, with the header content-type: application/json"
        return _error(400, f"{where or 'body'}: {says}", "invalid_request_error", where or None)

    @app.exception_handler(Exception)
    def broken(_: Request, __: Exception) -> JSONResponse:
        return _error(500, "the server failed at this request; its log says why", "server_error")

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "model": first, "weights": engine.model.identity.short, "indexed": len(engine.index) if engine.index else 0}

    cards = {name: _card(name, one.model, started) for name, one in served.items()}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": list(cards.values())}

    @app.get("/v1/models/{asked:path}")
    def model(asked: str) -> dict[str, Any]:
        return cards[chosen(asked)]

    @app.post("/v1/embeddings")
    def embeddings(request: Annotated[EmbeddingsRequest, Body()]) -> dict[str, Any]:
        name = chosen(request.model)
        items = _items(request)
        _bound("input", len(items), bounds.items)
        found = served[name].embed(items)
        data = []
        for number, one in enumerate(found):
            if one.vector is None:
                raise MediaError(f"input {number}", one.error or "unreadable")
            if request.dimensions not in (None, len(one.vector)):
                raise UsageError(f"dimensions {request.dimensions}: this model has {len(one.vector)}, and its vectors cannot be cut")
            data.append({"object": "embedding", "index": number, "embedding": _encode(one.vector, request.encoding_format)})
        tokens = sum(one.tokens for one in found)
        cut = [number for number, one in enumerate(found) if one.truncated]
        return {
            "object": "list",
            "model": name,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            **({"truncated": cut} if cut else {}),
        }

    @app.post("/v1/chat/completions", response_model=None)
    def chat(request: Annotated[ChatRequest, Body()], http: Request) -> dict[str, Any] | Spoken:
        name = chosen(request.model)
        options = request.options
        _bound("n", options.samples, bounds.answers)
        _bound("num_beams", request.num_beams, bounds.beams)
        pieces = served[name].chat(request.conversation, options)
        if request.stream:
            usage = request.stream_options is not None and request.stream_options.include_usage
            begun = underway(pieces)
            return Spoken(events(begun, name, usage=usage, logprobs=options.logprobs), pieces)
        answer = _whole(pieces, http)
        if answer.outcome == "error":
            raise UsageError(answer.error or "no answer")
        return completion(answer, name, logprobs=options.logprobs)

    @app.post("/v1/search")
    def search(request: Annotated[SearchRequest, Body()]) -> dict[str, Any]:
        name = chosen(request.model)
        if (request.query is None) == (request.image is None):
            raise UsageError("give exactly one of query and image")
        _bound("limit", request.limit, bounds.results)
        query: Item = text_of(request.query) if request.query is not None else picture_of(request.image or "")
        return {"object": "list", "model": name, "data": [_hit(hit) for hit in served[name].search(query, request.limit)]}

    @app.post("/v1/classify")
    def classify(request: Annotated[ClassifyRequest, Body()]) -> dict[str, Any]:
        name = chosen(request.model)
        given = [request.input] if isinstance(request.input, str) else request.input
        _bound("input", len(given), bounds.items)
        _bound("labels", len(request.labels), bounds.labels)
        _bound("labels times templates", len(request.labels) * max(1, len(request.templates)), bounds.prompts)
        pictures = [picture_of(uri) for uri in given]
        answers = served[name].classify(pictures, request.labels, lang=request.lang, templates=request.templates)
        data = []
        for number, scores in enumerate(answers):
            ranked = sorted(scores.items(), key=lambda pair: -pair[1])
            data.append({"index": number, "label": ranked[0][0], "scores": [{"label": k, "probability": v} for k, v in ranked]})
        return {"object": "list", "model": name, "data": data}

    return app


def check_names(names: Sequence[str]) -> None:
    """Refuse names of models, the first one's first, between which a request could not choose."""
    for number, name in enumerate(names):
        if name in names[:number]:
            raise UsageError(f"two models are to be served by the name {name!r}; give each its own")
        if number and name in FIRST:
            raise UsageError(f"{name!r} always means the first model, {names[0]!r}; give the other a name of its own")


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound already, so that a busy port is an error before anything is announced; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise TongganError(f"cannot listen on {host}, port {port}: {error.strerror}; choose another with --port") from None
    return bound


def run(app: FastAPI, bound: socket.socket) -> None:
    """Serve until stopped."""
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[bound])


def _nowhere(app: FastAPI, request: Request) -> JSONResponse | None:
    """404 or 405 for a call of the API that no path answers: said here, because the page would take all that is left."""
    api = [route for route in app.routes if isinstance(route, APIRoute)]
    matches = [(route.matches(request.scope)[0], route) for route in api]
    if any(match is Match.FULL for match, _ in matches):
        return None
    path, method = request.url.path, request.method
    if methods := sorted({name for match, route in matches if match is Match.PARTIAL for name in route.methods or ()}):
        reply = _error(405, f"{path} takes {' or '.join(methods)}, not {method}", "invalid_request_error")
        reply.headers["allow"] = ", ".join(methods)
        return reply
    paths = sorted(route.path for route in api)
    if f"/v1{path}" in paths:
        return _error(404, f"no such path: {path}; did you mean /v1{path}? (the base_url of a client ends in /v1)", "invalid_request_error")
    if path.startswith("/v1/") or path == "/v1":
        there = ", ".join(path for path in paths if "{" not in path)
        return _error(404, f"no such path: {path}; there are {there}", "invalid_request_error")
    return None


def _items(request: EmbeddingsRequest) -> list[Item]:
    if (request.input is None) == (request.messages is None):
        raise UsageError("give exactly one of input and messages")
    if request.messages is not None:
        parts = [
            part for message in request.messages for part in ([message.content] if isinstance(message.content, str) else message.content)
        ]
        if len(parts) != 1:
            raise UsageError(f"messages: one text, picture, sound or clip per request, got {len(parts)} parts; this model fuses none")
        return [item_of(parts[0], request.modality)]
    given = [request.input] if isinstance(request.input, str) else request.input or []
    if not given:
        raise UsageError("input is empty")
    return [item_of(one, request.modality) for one in given]


def _whole(pieces: Generator[str, None, Answer], http: Request) -> Answer:
    """The whole answer; in a worker's thread, which asks now and then whether somebody still waits for it."""
    asked = time.monotonic()
    try:
        while True:
            next(pieces)
            if time.monotonic() > asked + PATIENCE:
                if anyio.from_thread.run(_gone, http):
                    raise UsageError("who asked has gone away")
                asked = time.monotonic()
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    finally:
        pieces.close()


async def _gone(http: Request) -> bool:
    """Whether a client has gone away. Behind a middleware `is_disconnected`, which waits for nothing, would never say so."""
    with anyio.move_on_after(PATIENCE / 50):
        return (await http.receive())["type"] == "http.disconnect"
    return False


class Spoken(StreamingResponse):
    """An answer in pieces. Who asked may go away: then the work is stopped, which a generator left to itself would not be."""

    def __init__(self, events: Generator[str], pieces: Generator[str, None, Answer]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._events, self._pieces = events, pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                # Both: closing events that were never asked for leaves the model, which has begun, as it is.
                await run_in_threadpool(self._events.close)
                await run_in_threadpool(self._pieces.close)


def _encode(vector: np.ndarray, form: str) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(x) for x in vector]


def _card(name: str, model: Model, started: int) -> dict[str, Any]:
    """A model as `/v1/models` shows it."""
    known = {"id": name, "object": "model", "created": started, "owned_by": "tonggan", "capabilities": sorted(model.can)}
    return known | {"modalities": sorted(model.modalities), "weights": model.identity.weights}


def _hit(hit: Hit) -> dict[str, Any]:
    thumbnail = f"data:image/jpeg;base64,{base64.b64encode(hit.thumbnail).decode()}"
    return {"id": hit.id, "score": hit.score, "title": hit.title, "thumbnail": thumbnail, **json.loads(hit.meta)}


def _bound(what: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise UsageError(f"{what}: {value}, expected 1 to {most}")


def _error(status: int, message: str, kind: str, param: str | None = None, code: str | None = None) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": code}}, status_code=status)
