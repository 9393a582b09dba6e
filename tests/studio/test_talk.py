"""Talking on the page, in a real Chromium: a picture and a question, what went wrong, starting anew, stopping."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image as Pil
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fakes import Parrot
from listening import listening
from studio.test_page import CHROMIUM, FLAGS
from tonggan.serve.engine import Engine
from tonggan.serve.http import create_app
from tonggan.studio.page import mount
from tonggan.studio.talk import Talk
from tonggan.types import Answer, ChatOptions, Image, Message, Text

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: scripts/setup.sh browser")


class Endless(Parrot):
    """Goes on without end when asked to."""

    stopped = threading.Event()

    def stream(self, conversation: Sequence[Message], options: ChatOptions | None = None) -> Generator[str, None, Answer]:
        last = conversation[-1].parts[-1]
        if not (isinstance(last, Text) and "endless" in last.text):
            return (yield from super().stream(conversation, options))
        try:
            while True:
                yield "word "
                time.sleep(0.02)
        finally:
            self.stopped.set()


@pytest.fixture(scope="module")
def talker() -> Endless:
    return Endless()


@pytest.fixture(scope="module")
def url(talker: Endless) -> Iterator[str]:
    with Engine(talker) as engine, listening(mount(create_app(engine), engine)) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    context = browser.new_context(locale="zh-CN", viewport={"width": 1100, "height": 800})
    page = context.new_page()
    page.foreign = []  # type: ignore[attr-defined]
    page.on("request", lambda r: page.foreign.append(r.url) if not r.url.startswith((url, "data:", "blob:")) else None)  # type: ignore[attr-defined]
    page.goto(url)
    expect(page.get_by_role("tab", name="对话")).to_be_visible(timeout=30_000)
    yield page
    context.close()


def say(page: Page, words: str) -> None:
    page.locator("#say textarea").fill(words)
    page.locator("#say textarea").press("Enter")


def test_a_picture_and_a_question_then_one_that_refers_back(page: Page, talker: Endless, tmp_path: Path) -> None:
    Pil.new("RGB", (30, 20), (200, 30, 30)).save(tmp_path / "red.png")
    page.locator("#say input[type=file]").set_input_files(tmp_path / "red.png")
    expect(page.locator("#say img")).to_be_visible(timeout=15_000)
    say(page, "图里有什么？")
    expect(page.locator("#talk")).to_contain_text("图里有什么？ (1)", timeout=15_000)
    say(page, "它是什么颜色的？")
    expect(page.locator("#talk")).to_contain_text("它是什么颜色的？ (1)", timeout=15_000)
    assert [message.role for message in talker.heard[-1]] == ["user", "assistant", "user"]
    assert isinstance(talker.heard[-1][0].parts[0], Image)
    page.locator("#again").click()
    expect(page.locator("#talk")).not_to_contain_text("颜色")
    say(page, "你好")
    expect(page.locator("#talk")).to_contain_text("你好 (0)", timeout=15_000)
    assert len(talker.heard[-1]) == 1 and page.foreign == []  # type: ignore[attr-defined]


def test_a_question_that_failed_stands_in_the_box_again(page: Page) -> None:
    say(page, "boom")
    expect(page.get_by_text("服务器返回了错误：no answer came")).to_be_visible(timeout=15_000)
    expect(page.locator("#say textarea")).to_have_value("boom")
    expect(page.locator("#talk")).not_to_contain_text("boom")


def test_an_answer_can_be_stopped(page: Page, talker: Endless) -> None:
    say(page, "endless")
    expect(page.locator("#talk")).to_contain_text("word word", timeout=15_000)
    page.locator("#say button.stop-button").click()
    assert talker.stopped.wait(10)
    say(page, "你好")
    expect(page.locator("#talk")).to_contain_text("你好 (0)", timeout=15_000)


def test_who_takes_one_message_is_sent_one_which_may_be_a_picture_alone(tmp_path: Path) -> None:
    Pil.new("RGB", (30, 20), (200, 30, 30)).save(tmp_path / "red.png")
    model = Parrot()
    model.remembers = model.instructed = False
    model._one = lambda said, options: model.heard.append(list(said)) or Answer()  # type: ignore[method-assign,func-returns-value]
    sent, said, shown = {"text": " ", "files": [{"path": str(tmp_path / "red.png")}]}, [], []
    with Engine(model) as engine, gr.Blocks():
        talk = Talk(engine, {"中文": "zh"}, lambda error, lang: str(error))
        for _ in range(2):
            *_, (shown, said, _) = talk._answer(sent, shown, said, "中文")
    assert [[part.kind for part in message.parts] for heard in model.heard for message in heard] == [["image"]] * 2
    assert [one["role"] for one in shown] == ["user", "assistant"] * 2 and shown[1]["content"] == "（模型没有给出回答。）"
