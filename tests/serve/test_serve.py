"""The server as its users meet it: the real openai client over real HTTP, raw requests, and hostile ones."""

from __future__ import annotations

import base64
import io
import re
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image as Pil

from fakes import ColourModel, colour_rows, square
from listening import listening
from tonggan.data.drawing import MEMORY, SECONDS
from tonggan.data.media import MAX_PIXELS
from tonggan.data.resolve import MAX_BYTES
from tonggan.search import Index
from tonggan.serve.engine import Engine
from tonggan.serve.guards import Limits, check_exposure, is_loopback
from tonggan.serve.http import create_app, listen
from tonggan.types import CannotError, TongganError, UsageError


def uri(*colour: int) -> str:
    out = io.BytesIO()
    Pil.new("RGB", (16, 16), colour).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    model = ColourModel()
    index = Index.create(tmp_path_factory.mktemp("index") / "i", model)
    index.add(model, colour_rows())
    with Engine(model, index) as engine:
        yield engine


@pytest.fixture(scope="module")
def url(engine: Engine) -> Iterator[str]:
    with listening(create_app(engine, limits=Limits(body_bytes=200_000, items=8))) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0)


def test_openai_client_embeds_texts_and_pictures(client: openai.OpenAI) -> None:
    # The client asks for base64 by itself and decodes it.
    reply = client.embeddings.create(model="colours", input=["red", "绿色", uri(0, 0, 255)])
    vectors = np.array([d.embedding for d in reply.data])
    assert [d.index for d in reply.data] == [0, 1, 2]
    assert vectors.argmax(1).tolist() == [0, 1, 2]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert reply.usage.prompt_tokens == 3
    plain = client.embeddings.create(model="colours", input="red", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(reply.data[0].embedding)


def test_openai_client_lists_models(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["colours"]


def test_openai_client_gets_its_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'gpt' is not served here"):
        client.embeddings.create(model="gpt", input="x")
    assert client.models.retrieve("colours").id == "colours"
    with pytest.raises(openai.BadRequestError, match="dimensions 2: this model has 3"):
        client.embeddings.create(model="colours", input="x", dimensions=2)


def test_the_worker_outlives_any_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("unforeseen")

    with monkeypatch.context() as patch:
        patch.setattr(engine.model, "embed", broken)
        with pytest.raises(KeyError):
            engine.embed(["never asked before"])
    assert engine.embed(["never asked before"])[0].error is None


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/embeddings", '{"input": "\\ud800 x"}', "not valid Unicode"),
        ("/v1/embeddings", '{"input": "  "}', "empty text"),
        ("/v1/search", '{"query": ""}', "empty text"),
        ("/v1/embeddings", '{"input": "DATA:application/octet-stream;base64,AAAA"}', "input 0"),
        ("/v1/classify", '{"input": "PICTURE", "labels": ["red", "red", "blue"]}', "occurs twice"),
        ("/v1/classify", '{"input": "PICTURE", "labels": ["red", " "]}', "empty"),
        ("/v1/classify", '{"input": "PICTURE", "labels": ["red", "blue"], "templates": ["no braces"]}', "no {} where"),
        ("/v1/classify", '{"input": "PICTURE", "labels": ["red", "blue"], "lang": "fr"}', "lang"),
    ],
)
def test_a_request_without_sense_is_refused(url: str, path: str, body: str, says: str) -> None:
    reply = httpx.post(url + path, content=body.replace("PICTURE", uri(9, 9, 9)), headers={"content-type": "application/json"}, timeout=20)
    assert reply.status_code == 400
    assert says in reply.json()["error"]["message"]


def test_a_busy_port_is_an_error_before_anything_is_announced(url: str) -> None:
    with pytest.raises(TongganError, match=r"cannot listen on 127\.0\.0\.1, port .*--port"):
        listen("127.0.0.1", int(url.rpartition(":")[2]))
    with listen("127.0.0.1", 0) as free:
        assert free.getsockname()[1] > 0


def post(url: str, path: str, **body: object) -> httpx.Response:
    return httpx.post(url + path, json=body, timeout=20)


def test_pictures_in_the_forms_that_others_use(url: str) -> None:
    forms: list[dict[str, object]] = [
        {"input": [uri(255, 0, 0)], "modality": "image"},
        {"input": [{"type": "image_url", "image_url": {"url": uri(255, 0, 0), "detail": "low"}}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": uri(255, 0, 0)}}]}]},
    ]
    for form in forms:
        assert np.argmax(post(url, "/v1/embeddings", **form).json()["data"][0]["embedding"]) == 0


def test_every_form_of_a_data_uri_is_a_picture_and_words_are_none(url: str) -> None:
    drawing = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><rect width='9' height='9' fill='lime'/></svg>"
    packed = base64.b64encode(drawing.encode()).decode()
    for form in (
        f"data:image/svg+xml,{drawing}",
        f"DATA:image/SVG+xml;charset=utf-8,{urllib.parse.quote(drawing)}",
        f"data:image/svg+xml;BASE64,{packed}",
        f"data:;base64,{packed}",
    ):
        assert post(url, "/v1/embeddings", input=form).json()["data"][0]["embedding"][:1] == pytest.approx([0], abs=0.01), form
        assert post(url, "/v1/search", image=form, limit=1).json()["data"][0]["id"] == "g"
    for words in ("data: red", "data:red, 3/4 of it", "data:3/4 of the red"):
        assert np.argmax(post(url, "/v1/embeddings", input=words).json()["data"][0]["embedding"]) == 0


def test_search_and_classify(url: str) -> None:
    found = post(url, "/v1/search", query="a blue thing", limit=2).json()["data"]
    assert found[0]["id"] == "b"
    assert found[0]["thumbnail"].startswith("data:image/jpeg;base64,")
    assert post(url, "/v1/search", image=uri(255, 0, 0), limit=1).json()["data"][0]["meta"] == {"licence": "CC0"}
    answer = post(url, "/v1/classify", input=uri(0, 255, 0), labels=["红", "绿", "蓝"], lang="zh").json()["data"][0]
    assert answer["label"] == "绿"
    assert sum(s["probability"] for s in answer["scores"]) == pytest.approx(1)


def test_health(url: str) -> None:
    assert httpx.get(url + "/health").json() == {"status": "ok", "model": "colours", "weights": "w" * 12, "indexed": 3}


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/embeddings", {}, "exactly one of input and messages"),
        ("/v1/embeddings", {"input": []}, "input is empty"),
        ("/v1/embeddings", {"inptu": "x"}, "inptu"),
        ("/v1/embeddings", {"input": [1, 2, 3]}, "send the text itself"),
        ("/v1/embeddings", {"input": [[1, 2, 3], [4]]}, "input: token ids are another tokenizer's"),
        ("/v1/embeddings", {"input": ["x"] * 9}, "expected 1 to 8"),
        ("/v1/embeddings", {"input": "data:image/png;base64,@@@@"}, "base64 is damaged"),
        ("/v1/embeddings", {"input": "data:image/png;base64,aGVsbG8="}, "input 0"),
        ("/v1/embeddings", {"input": "/etc/passwd", "modality": "image"}, "addresses are not followed"),
        ("/v1/embeddings", {"input": "http://127.0.0.1:1/x.png", "modality": "image"}, "addresses are not followed"),
        ("/v1/embeddings", {"input": "file:///etc/passwd", "modality": "image"}, "addresses are not followed"),
        ("/v1/search", {}, "exactly one of query and image"),
        ("/v1/search", {"query": "x", "limit": 0}, "expected 1 to 100"),
        ("/v1/search", {"query": "x", "limit": 101}, "expected 1 to 100"),
        ("/v1/classify", {"input": "data:image/png;base64,", "labels": ["a", "b"]}, "empty data URI"),
        ("/v1/classify", {"input": uri(1, 2, 3), "labels": ["a", "a"]}, "two different labels"),
    ],
)
def test_bad_requests_say_why(url: str, path: str, body: dict[str, object], says: str) -> None:
    reply = post(url, path, **body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert says in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/v1/embeddings", 405, "/v1/embeddings takes POST, not GET"),
        ("POST", "/health", 405, "takes GET"),
        ("POST", "/v1/completions", 404, "no such path: /v1/completions; there are /health, /v1/chat/completions, /v1/classify"),
        ("POST", "/embeddings", 404, "did you mean /v1/embeddings?"),
        ("GET", "/nowhere", 404, "Not Found"),
    ],
)
def test_unknown_paths_and_wrong_methods_have_the_same_form(url: str, method: str, path: str, status: int, says: str) -> None:
    reply = httpx.request(method, url + path)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert says in reply.json()["error"]["message"]
    assert ("allow" in reply.headers) == (status == 405)


def test_a_failure_of_ours_has_the_same_form(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("unforeseen")

    monkeypatch.setattr(engine, "embed", broken)
    reply = TestClient(create_app(engine), raise_server_exceptions=False).post("/v1/embeddings", json={"input": "x"})
    assert reply.status_code == 500
    assert reply.json()["error"]["type"] == "server_error"
    assert "unforeseen" not in reply.text


def test_too_large_a_body_is_refused(url: str) -> None:
    assert post(url, "/v1/embeddings", input="x" * 300_000).status_code == 413


def test_a_chunked_body_cannot_hide_its_size(url: str) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"input": "'
        for _ in range(60):
            yield b"x" * 10_000
        yield b'"}'

    reply = httpx.post(url + "/v1/embeddings", content=endless(), headers={"content-type": "application/json"}, timeout=20)
    assert reply.status_code == 413


def test_another_site_cannot_use_the_visitors_browser(url: str) -> None:
    for headers in ({"host": "evil.example:80"}, {"origin": "https://evil.example"}):
        assert httpx.get(url + "/v1/models", headers=headers).status_code == 403
    assert httpx.get(url + "/v1/models", headers={"origin": url}).status_code == 200


def test_a_key_is_asked_for(engine: Engine) -> None:
    with listening(create_app(engine, loopback=False, api_key="s3cret")) as address:
        assert httpx.get(address + "/v1/models").status_code == 401
        assert httpx.get(address + "/v1/models", headers={"authorization": "Bearer s3cret"}).status_code == 200
        assert httpx.get(address + "/health").status_code == 200


@pytest.fixture
def with_page(engine: Engine) -> TestClient:
    """A server with a key and something mounted in the page's place."""
    app = create_app(engine, loopback=False, api_key="s3cret")
    page = FastAPI()
    page.get("/")(lambda: "the page")
    page.post("/act")(lambda: "done")
    app.mount("", page)
    return TestClient(app, headers={"accept": "text/html"}, follow_redirects=True)


def test_the_page_asks_for_the_key_once(with_page: TestClient) -> None:
    asked = with_page.get("/", headers={"accept-language": "zh-CN"})
    assert asked.status_code == 401 and "API 密钥" in asked.text and "不正确" not in asked.text
    assert "API key" in with_page.get("/").text
    wrong = with_page.post("/sign-in", data={"key": "guess"})
    assert wrong.status_code == 401 and "not the key" in wrong.text and not with_page.cookies
    assert with_page.post("/sign-in", data={"key": " s3cret "}).json() == "the page"
    assert with_page.post("/act").json() == "done"


def test_the_pages_cookie_opens_nothing_else(with_page: TestClient) -> None:
    with_page.post("/sign-in", data={"key": "s3cret"})
    assert with_page.get("/v1/models").status_code == 401
    assert with_page.post("/act", headers={"origin": "http://testserver"}).status_code == 200
    assert with_page.post("/act", headers={"origin": "http://testserver:8001"}).status_code == 401
    (cookie,) = with_page.cookies.jar
    assert cookie.has_nonstandard_attr("HttpOnly") and cookie.get_nonstandard_attr("SameSite") == "strict"
    with_page.cookies.clear()
    for value in (b"guess", b"\xe9"):
        assert with_page.get("/", headers={b"cookie": cookie.name.encode() + b"=" + value}).status_code == 401


def test_without_a_page_there_is_nothing_to_sign_in_to(engine: Engine) -> None:
    client = TestClient(create_app(engine, loopback=False, api_key="s3cret"), headers={"accept": "text/html"})
    for reply in (client.get("/"), client.post("/sign-in", data={"key": "s3cret"})):
        assert reply.status_code == 401
        assert "API key" in reply.json()["error"]["message"]


def test_the_form_cannot_be_used_to_fill_the_memory(engine: Engine) -> None:
    client = TestClient(create_app(engine, loopback=False, api_key="s3cret", limits=Limits(body_bytes=1000)))
    assert client.post("/sign-in", content=b"x" * 2000).status_code == 413


@pytest.mark.parametrize("page", ["serving.md", "zh/serving.md"])
def test_every_path_of_the_document_is_there(engine: Engine, page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text("utf-8")
    there = {route.path.replace("{asked:path}", "{id}") for route in create_app(engine).routes if hasattr(route, "path")}
    named = set(re.findall(r"(?:(?:GET|POST) |:8000)(/[\w/{}.-]+)", text))
    assert named >= {"/v1/embeddings", "/v1/search", "/v1/classify", "/v1/models", "/v1/models/{id}", "/health"}
    assert named - {"/v1"} <= there
    assert "/openapi.json" in there and "`/openapi.json`" in text


@pytest.mark.parametrize("page", ["serving.md", "zh/serving.md"])
def test_the_documents_limits_are_the_servers(page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text("utf-8")
    limits = Limits()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for value in (limits.items, limits.results, f"{limits.labels:,}", f"{limits.prompts:,}", f"{MAX_PIXELS:,}", f"{SECONDS:g} "):
        assert any(str(value) in row for row in rows), value
    assert f"{limits.body_bytes // 2**20} MiB" in text and f"{MAX_BYTES // 10**6} MB" in text and f"{MEMORY // 2**30} GiB" in text


def test_exposure_needs_a_key() -> None:
    check_exposure("127.0.0.1", None)
    check_exposure("0.0.0.0", "key")
    with pytest.raises(UsageError, match="TONGGAN_API_KEY"):
        check_exposure("0.0.0.0", None)
    assert [is_loopback(h) for h in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "192.168.1.2", "example.org")] == [True] * 3 + [False] * 3


def test_callers_share_batches_and_identical_items_run_once() -> None:
    model = ColourModel()
    with Engine(model, wait_ms=30) as engine, ThreadPoolExecutor(16) as pool:
        texts = [f"text {i % 8}" for i in range(16)]
        vectors = list(pool.map(lambda t: engine.embed([t])[0].vector, texts))
        assert sum(model.calls) == 8
        assert len(model.calls) <= 4
        assert all(np.array_equal(vectors[i], vectors[i + 8]) for i in range(8))  # type: ignore[arg-type]
        before = len(model.calls)
        engine.embed(["text 0"])
        assert len(model.calls) == before, "remembered"


def test_one_bad_item_does_not_fail_its_neighbours() -> None:
    from tonggan.types import Image

    with Engine(ColourModel()) as engine:
        good, bad = engine.embed([square(255, 0, 0), Image(data=b"nonsense")])
        assert good.vector is not None
        assert bad.vector is None and bad.error
        with pytest.raises(UsageError, match="--index DIR"):
            engine.search("red")


def test_a_failing_model_tells_its_caller_and_lives_on() -> None:
    class Moody(ColourModel):
        def embed(self, items, options=None):  # type: ignore[no-untyped-def]
            if "boom" in items:
                raise RuntimeError("out of memory")
            return super().embed(items, options)

    with Engine(Moody()) as engine:
        with pytest.raises(RuntimeError, match="out of memory"):
            engine.embed(["boom"])
        assert engine.embed(["red"])[0].vector is not None


def test_kind_that_the_model_has_not() -> None:
    model = ColourModel()
    model.modalities = frozenset({"text"})
    with Engine(model) as engine, pytest.raises(CannotError, match="not image"):
        engine.embed([square(1, 1, 1)])


def test_a_model_that_neither_embeds_nor_chats_is_not_served() -> None:
    model = ColourModel()
    model.can = frozenset({"match"})
    with pytest.raises(CannotError, match="colours cannot be served: it can match"):
        Engine(model)


def test_index_of_another_model_is_not_served(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", ColourModel())
    with pytest.raises(Exception, match="weights"):
        Engine(ColourModel(weights="other"), index)
