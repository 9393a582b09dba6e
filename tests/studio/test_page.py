"""The page in a real Chromium: words find pictures, labels sort a picture, the language switches, nothing is loaded from elsewhere."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from PIL import Image as Pil
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fakes import ColourModel, colour_rows
from tonggan.search import Index
from tonggan.serve.engine import Engine
from tonggan.serve.http import create_app
from tonggan.studio.page import mount
from tonggan.types import Image

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
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = ColourModel()
    index = Index.create(tmp_path_factory.mktemp("index") / "i", model)
    index.add(model, colour_rows())
    with Engine(model, index) as engine:
        app = mount(create_app(engine), engine)
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


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
