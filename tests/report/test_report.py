"""The page is one file, escapes what users wrote, says everything twice, and loads nothing from elsewhere."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from tonggan.report import Page, Picture, Words
from tonggan.report.plots import bars, lines, matrix
from tonggan.types import UsageError


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    return out.getvalue()


class Balanced(HTMLParser):
    void = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void and tag not in {"path", "use", "rect", "image"}:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in {"path", "use", "rect", "image"}:
            return
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()


def page() -> Page:
    p = Page(Words("Results", "结果"), Words("Measured.", "实测。"))
    p.part(Words("Retrieval", "检索"))
    p.text(Words("a < b & c", "甲 < 乙"))
    p.table([Words("Model", "模型"), "R@1"], [["<script>alert(1)</script>", "25.0"], [Words("chance", "随机"), "0.7"]], strong=0)
    p.figure(
        *lines(
            {Words("loss", "损失"): ([0, 1, 2], [3.0, 2.0, 1.0])}, x=Words("step", "步"), y="loss", levels={Words("chance", "随机"): 2.5}
        )
    )
    p.figure(*bars(["R@1", "R@5"], {"ours": [(0.3, 0.2, 0.4), (0.6, 0.5, 0.7)], "base": [(0.1, 0.0, 0.2), (0.2, 0.1, 0.3)]}, y="recall"))
    p.figure(*matrix([[0.9, 0.1], [0.2, 0.8]], ["猫", "狗"], ["cat", "dog"]))
    p.grid([Picture(png(), "一只猫", right=True), Picture(png(), 'a "dog"', right=False)], title="query", query=Picture(png()))
    p.commands(["tonggan search runs/demo/index '红色的鸟'"])
    return p


def test_one_file_that_loads_nothing(tmp_path: Path) -> None:
    text = page().write(tmp_path / "sub" / "r.html").read_text("utf-8")
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text
    Balanced().feed(re.sub(r"<(svg)\b.*?</svg>", "", text, flags=re.S))


def test_everything_is_said_in_both_languages() -> None:
    text = page().html()
    assert text.count('lang="zh"') == text.count('lang="en"') - 1  # the page itself is lang="en" at first
    assert "检索" in text and "随机" in text


def test_chinese_labels_stay_text_in_plots() -> None:
    en, zh = lines({Words("loss", "损失"): ([0, 1], [1, 0])}, x=Words("step", "步数"), y=Words("loss", "损失"))
    assert "步数" in zh and "步数" not in en
    assert "Noto Sans CJK SC" in zh


def test_plots_are_reproducible() -> None:
    draw = {"a": ([0.0, 1.0], [1.0, 0.5])}
    assert lines(draw, x="x", y="y") == lines(draw, x="x", y="y")


def test_a_ragged_table_is_refused() -> None:
    with pytest.raises(UsageError, match="row 0 has 1 cells"):
        Page(Words("a", "b")).table(["x", "y"], [["1"]])
