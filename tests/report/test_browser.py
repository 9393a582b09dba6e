"""A page in a real Chromium: columns sort by what they hold, dates stay whole, plots are scrolled where they would be too small."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Page as Tab

from tonggan.report import Page, Picture, Words, interval
from tonggan.report.plots import bars

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: scripts/setup.sh browser")
UNKNOWN = Words("unknown", "未知")
HEAD = ("model", "released", "licence", "score", "cost")
ROWS = [
    ["m10", "2022-08", "2B,7B Apache", interval(0.613, 0.533, 0.692), "0.0032 USD"],
    ["m2", "2021-11", "Apache", "–", "12 USD"],
    ["m1", UNKNOWN, UNKNOWN, Words("cannot be asked this", "不具备这种能力"), "–"],
    ["m3", "2022-02", "MIT", interval(0.05, 0.01, 0.09, sign=True), "0.5 USD"],
    ["m4", "2022-08-15", "", "−3", ""],
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(out, "PNG")
    made = Page(Words("Compared", "对比"))
    made.part(Words("题目一.csv", "题目一.csv"))
    made.table(HEAD, ROWS)
    long = {f"openai+http://127.0.0.1:8000/v1#organisation/a-long-name-vl-{i}b-instruct": [(0.5, 0.4, 0.6)] for i in range(8)}
    made.part(Words("题目二.csv", "题目二.csv"))
    made.figure(*bars(["emoji"], long, y=Words("recall", "召回率")))
    made.text("words\n" * 9000)
    made.grid([Picture(out.getvalue())])
    return made.write(tmp_path_factory.mktemp("page") / "r.html")


def opened(browser: Browser, file: Path, width: int) -> Tab:
    page = browser.new_page(viewport={"width": width, "height": 900}, locale="en-US")
    page.goto(file.as_uri())
    return page


@pytest.fixture(scope="module")
def wide(browser: Browser, file: Path) -> Iterator[Tab]:
    page = opened(browser, file, 1280)
    yield page
    page.close()


def models(page: Tab) -> list[str]:
    return page.locator("tbody td:first-child").all_inner_texts()


@pytest.mark.parametrize(
    ("column", "down", "up"),
    [
        ("model", ["m10", "m4", "m3", "m2", "m1"], ["m1", "m2", "m3", "m4", "m10"]),
        ("released", ["m4", "m10", "m3", "m2", "m1"], ["m2", "m3", "m10", "m4", "m1"]),
        ("licence", ["m3", "m2", "m10"], ["m10", "m2", "m3"]),
        ("score", ["m10", "m3", "m4", "m1", "m2"], ["m4", "m3", "m10", "m1", "m2"]),
        ("cost", ["m2", "m3", "m10"], ["m10", "m3", "m2"]),
    ],
)
def test_a_column_sorts_by_what_it_holds_and_empty_cells_are_last(wide: Tab, column: str, down: list[str], up: list[str]) -> None:
    for expected in (down, up, down):
        wide.locator("th", has_text=column).click()
        assert models(wide)[: len(expected)] == expected


def test_dates_and_numbers_stay_on_one_line(browser: Browser, file: Path) -> None:
    page = opened(browser, file, 390)
    heights = page.evaluate(
        "[...document.querySelectorAll('td.whole')].map(c => c.getClientRects().length && (() => {"
        "const r = document.createRange(); r.selectNodeContents(c); return new Set([...r.getClientRects()].map(x => x.top)).size})())"
    )
    assert len(heights) == 10 and set(heights) == {1}
    page.close()


def test_on_a_telephone_the_plot_is_scrolled_and_the_page_is_not(browser: Browser, file: Path) -> None:
    page = opened(browser, file, 390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    plot = page.locator("figure svg:visible")
    box = plot.bounding_box()
    assert box and 500 < box["width"] < 540
    assert plot.evaluate("s => { const box = s.closest('.wide'); return box.scrollWidth > box.clientWidth }")
    page.close()


def test_pictures_far_below_are_there(wide: Tab) -> None:
    assert wide.locator(".grid img").evaluate("i => i.complete && i.naturalWidth === 40 && i.offsetHeight > 0")


def test_the_contents_lead_to_chinese_parts(wide: Tab) -> None:
    wide.locator("nav a", has_text="题目二").click()
    assert abs(wide.locator("h2", has_text="题目二").evaluate("h => h.getBoundingClientRect().top")) < 60
