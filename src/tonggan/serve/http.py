"""The HTTP entrance: OpenAI's embeddings API, and search and classification beside it. All work is the engine's.

Pictures and clips come as data URIs only, sounds as these or as base64: a server that fetched URLs or opened paths for its
callers could be made to read what they must not see.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pydantic

from tonggan.data.resolve import SERVER, resolve
from tonggan.data.text import is_unicode
from tonggan.search import Hit
from tonggan.serve.engine import Engine
from tonggan.serve.guards import SIGN_IN, BodyLimit, Limits, refusal
from tonggan.serve.signin import SignIn
from tonggan.types import Audio, CannotError, Image, Item, MediaError, MissingExtra, Model, Text, TongganError, UsageError, Video

try:
    import uvicorn
    from fastapi import Body, FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, Response
    from fastapi.routing import APIRoute
    from starlette.exceptions import HTTPException
    from starlette.routing import Match, Mount
except ImportError:
    raise MissingExtra("the server", "serve") from None


_DATA_URI = re.compile(r"data:(?:[\w.+-]+/[\w.+*-]+[;,]|;base64,)", re.IGNORECASE)


class Strict(pydantic.BaseModel):
    """A misspelt field is an error, not a default in silence."""

    model_config = pydantic.ConfigDict(extra="forbid")


def _whole(word: str) -> str:
    if not is_unicode(word):
        raise ValueError("not valid Unicode (a lone surrogate)")
    return word


Words = Annotated[str, pydantic.AfterValidator(_whole)]


class Url(Strict):
    """OpenAI's `image_url` object, and the `video_url` that others made after it; `detail` makes no difference here."""

    url: str
    detail: str | None = None


class Sound(Strict):
    """OpenAI's `input_audio` object. `data` is base64 or a data URI; the file itself says its `format`."""

    data: str
    format: str | None = None


class ContentPart(Strict):
    """One content part as in the chat API."""

    type: Literal["text", "image_url", "input_audio", "video_url"]
    text: Words | None = None
    image_url: Url | None = None
    input_audio: Sound | None = None
    video_url: Url | None = None


class ChatMessage(Strict):
    """vLLM's form of a multimodal embedding request wraps one item in a message."""

    role: str = "user"
    content: Words | list[ContentPart]


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
    templates: list[Words] = []
    model: str | None = None


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
    def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        says = first["msg"].removeprefix("Value error, ")
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

    @app.post("/v1/search")
    def search(request: Annotated[SearchRequest, Body()]) -> dict[str, Any]:
        name = chosen(request.model)
        if (request.query is None) == (request.image is None):
            raise UsageError("give exactly one of query and image")
        _bound("limit", request.limit, bounds.results)
        query: Item = _text(request.query) if request.query is not None else _picture(request.image or "")
        return {"object": "list", "model": name, "data": [_hit(hit) for hit in served[name].search(query, request.limit)]}

    @app.post("/v1/classify")
    def classify(request: Annotated[ClassifyRequest, Body()]) -> dict[str, Any]:
        name = chosen(request.model)
        given = [request.input] if isinstance(request.input, str) else request.input
        _bound("input", len(given), bounds.items)
        _bound("labels", len(request.labels), bounds.labels)
        _bound("labels times templates", len(request.labels) * max(1, len(request.templates)), bounds.prompts)
        pictures = [_picture(uri) for uri in given]
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
        return [_item(parts[0], request.modality)]
    given = [request.input] if isinstance(request.input, str) else request.input or []
    if not given:
        raise UsageError("input is empty")
    return [_item(one, request.modality) for one in given]


def _item(one: str | ContentPart, modality: str | None) -> Item:
    if isinstance(one, ContentPart):
        if one.type == "image_url" and one.image_url is not None:
            return _picture(one.image_url.url)
        if one.type == "video_url" and one.video_url is not None:
            return resolve(Video(url=one.video_url.url), SERVER)
        if one.type == "input_audio" and one.input_audio is not None:
            data = one.input_audio.data
            return resolve(Audio(url=data if _DATA_URI.match(data) else f"data:;base64,{data}"), SERVER)
        if one.type == "text" and one.text is not None:
            return _text(one.text)
        raise UsageError(f"a content part of type {one.type} needs its field {one.type!r}")
    if modality == "image" or (modality is None and _DATA_URI.match(one)):
        return _picture(one)
    return _text(one)


def _text(words: str) -> Text:
    if not words.strip():
        raise UsageError("an empty text has no meaning to embed")
    return Text(words)


def _picture(uri: str) -> Image:
    """A picture out of a data URI, decoded here (from base64 or per cents) so that a malformed one is refused at once."""
    return resolve(Image(url=uri), SERVER)


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
