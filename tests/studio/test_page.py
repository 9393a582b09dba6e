"""The page in a real Chromium: words find pictures, labels sort a picture, the language switches, nothing is loaded from elsewhere."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image as Pil
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fakes import ColourModel, colour_rows, square
from listening import listening
from tonggan.search import Index
from tonggan.serve.engine import Engine
from tonggan.serve.http import create_app
from tonggan.studio.page import mount
from tonggan.types import Image, Row, Text

LONG = "a white square with a caption that goes on and on, much longer than the picture beneath which it stands is wide"

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: scripts/setup.sh browser")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    model = ColourModel()
    index = Index.create(tmp_path_factory.mktemp("index") / "i", model)
    index.add(model, [*colour_rows(), Row(id="w", images=(square(250, 250, 250),), texts=(Text(LONG, "en"),))])
    with Engine(model, index) as engine:
        yield engine


@pytest.fixture(scope="module")
def url(engine: Engine) -> Iterator[str]:
    with listening(mount(create_app(engine), engine)) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.foreign = []  # type: ignore[attr-defined]
    page.on("request", lambda r: page.foreign.append(r.url) if not r.url.startswith((url, "data:", "blob:")) else None)  # type: ignore[attr-defined]
    page.goto(url)
    expect(page.get_by_role("heading", name="Tonggan")).to_be_visible(timeout=30_000)
    yield page
    context.close()


def test_words_find_pictures(page: Page) -> None:
    page.locator("#words textarea, #words input").first.fill("蓝色的东西")
    page.locator("#go-search").click()
    captions = page.locator("#found .caption-label")
    expect(captions.first).to_contain_text("a blue square", timeout=20_000)
    assert page.locator("#found img").count() >= 3


def test_a_picture_finds_its_like(page: Page) -> None:
    out = io.BytesIO()
    Pil.new("RGB", (20, 20), (0, 240, 0)).save(out, "PNG")
    page.locator("#query-picture input[type=file]").set_input_files({"name": "g.png", "mimeType": "image/png", "buffer": out.getvalue()})
    expect(page.locator("#query-picture img")).to_be_visible(timeout=20_000)
    page.locator("#go-search").click()
    expect(page.locator("#found .caption-label").first).to_contain_text("a green square", timeout=20_000)


def test_transparency_is_white_here_as_everywhere(page: Page) -> None:
    """Green on nothing, with red stored beneath what is not seen."""
    out = io.BytesIO()
    picture = Pil.new("RGBA", (20, 20), (255, 0, 0, 0))
    picture.paste((0, 240, 0, 255), (2, 2, 18, 18))
    picture.save(out, "PNG")
    page.locator("#query-picture input[type=file]").set_input_files({"name": "t.png", "mimeType": "image/png", "buffer": out.getvalue()})
    expect(page.locator("#query-picture img")).to_be_visible(timeout=20_000)
    page.locator("#go-search").click()
    green = ColourModel().embed([Image(data=out.getvalue())]).vectors[0] @ ColourModel().embed([colour_rows()[1].images[0]]).vectors[0]
    expect(page.locator("#found .caption-label").first).to_contain_text(f"{green:.3f} · a green square", timeout=20_000)


def test_own_labels_sort_a_picture(page: Page) -> None:
    page.get_by_role("tab", name="Classify").click()
    out = io.BytesIO()
    Pil.new("RGB", (20, 20), (240, 0, 0)).save(out, "PNG")
    page.locator("#subject input[type=file]").set_input_files({"name": "r.png", "mimeType": "image/png", "buffer": out.getvalue()})
    expect(page.locator("#subject img")).to_be_visible(timeout=20_000)
    page.locator("#labels textarea").fill("红\n绿\n蓝")
    page.locator("#go-classify").click()
    expect(page.locator("#answer")).to_contain_text("红", timeout=20_000)
    expect(page.locator("#answer h2, #answer .output-class").first).to_contain_text("红")


def test_the_language_switches_and_errors_speak_it(page: Page) -> None:
    page.locator("#language").get_by_text("中文").click()
    expect(page.get_by_role("tab", name="搜索")).to_be_visible(timeout=20_000)
    page.locator("#go-search").click()
    expect(page.get_by_text("请输入文字，或上传一张图片。")).to_be_visible(timeout=20_000)
    assert "Error" not in page.get_by_test_id("toast-body").inner_text()


def test_captions_speak_the_pages_language_and_are_whole(page: Page) -> None:
    page.locator("#words textarea, #words input").first.fill("white")
    page.locator("#go-search").click()
    whole = page.locator("#found .caption-label", has_text="caption that goes on")
    expect(whole).to_contain_text(LONG, timeout=20_000)
    assert whole.evaluate("e => e.scrollHeight <= e.clientHeight + 1 && e.scrollWidth <= e.clientWidth + 1")
    page.locator("#language").get_by_text("中文").click()
    page.locator("#words textarea, #words input").first.fill("红")
    page.get_by_role("button", name="搜索").click()
    expect(page.locator("#found .caption-label").first).to_contain_text("红色的方块", timeout=20_000)


@pytest.mark.parametrize(("language", "says"), [("English", "The picture cannot be read"), ("中文", "无法读取这张图片")])
def test_an_upload_that_is_no_picture_is_told_plainly(page: Page, language: str, says: str) -> None:
    page.locator("#language").get_by_text(language).click()
    name = "Search" if language == "English" else "搜索"
    expect(page.get_by_role("tab", name=name)).to_be_visible(timeout=20_000)
    page.locator("#query-picture input[type=file]").set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(page.locator("#query-picture img")).to_have_count(1, timeout=20_000)
    page.locator("#go-search").click()
    expect(page.get_by_test_id("toast-body")).to_contain_text(says, timeout=20_000)
    assert "/tmp" not in page.get_by_test_id("toast-body").inner_text()


def test_the_page_reads_no_file_but_uploads(url: str, tmp_path: Path) -> None:
    """What a browser sends is a path on the server; one that was not uploaded is refused."""
    Pil.new("RGB", (20, 20), (0, 240, 0)).save(tmp_path / "secret.png")
    config = httpx.get(url + "/config").json()
    (find,) = [one["id"] for one in config["dependencies"] if one["api_name"] == "find"]
    sent = {"path": str(tmp_path / "secret.png"), "meta": {"_type": "gradio.FileData"}}
    asked = {"data": ["", sent, 3, "English"], "fn_index": find, "session_hash": "thief"}
    assert httpx.post(url + "/gradio_api/queue/join", json=asked).status_code == 200
    heard = httpx.get(url + "/gradio_api/queue/data", params={"session_hash": "thief"}, timeout=20).text
    assert "not uploaded by a user" in heard and "green" not in heard


def test_with_a_key_the_page_asks_for_it_once(browser: Browser, engine: Engine) -> None:
    with listening(mount(create_app(engine, loopback=False, api_key="s3cret"), engine)) as address:
        context = browser.new_context(locale="zh-CN")
        page = context.new_page()
        page.goto(address)
        page.get_by_label("API 密钥").fill("s3cret")
        page.get_by_role("button", name="进入").click()
        expect(page.get_by_role("tab", name="搜索")).to_be_visible(timeout=30_000)
        page.locator("#words textarea, #words input").first.fill("绿")
        page.locator("#go-search").click()
        expect(page.locator("#found .caption-label").first).to_contain_text("绿色的方块", timeout=20_000)
        page.reload()
        expect(page.get_by_role("tab", name="搜索")).to_be_visible(timeout=30_000)
        assert httpx.get(address + "/config").status_code == 401
        context.close()


def test_the_page_leaves_the_apis_errors_alone(url: str) -> None:
    for method, path, status in (("GET", "/v1/embeddings", 405), ("POST", "/v1/nothing", 404), ("POST", "/embeddings", 404)):
        reply = httpx.request(method, url + path)
        assert reply.status_code == status and reply.json()["error"]["message"]


def test_chinese_visitors_are_greeted_in_chinese(browser: Browser, url: str) -> None:
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto(url)
    expect(page.get_by_role("tab", name="搜索")).to_be_visible(timeout=30_000)
    context.close()


def test_nothing_comes_from_elsewhere(page: Page) -> None:
    page.wait_for_timeout(500)
    assert page.foreign == []  # type: ignore[attr-defined]


@pytest.mark.slow
def test_fits_a_telephone(browser: Browser, url: str, tmp_path: Path) -> None:
    context = browser.new_context(locale="zh-CN", viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(url)
    expect(page.get_by_role("tab", name="搜索")).to_be_visible(timeout=30_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()
