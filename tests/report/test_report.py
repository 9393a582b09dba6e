"""The page is one file, escapes what users wrote, says everything twice, and loads nothing from elsewhere."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from tonggan.report import Page, Picture, Words, interval
from tonggan.report.page import value_of
from tonggan.report.plots import bars, lines, matrix, pareto, scatter, shortened
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (interval(0.613, 0.533, 0.692), 61.3),
        (interval(0.05, -0.01, 0.09, sign=True), 5.0),
        ("−3", -3),
        ("0 / 60", 0),
        ("23 / 1", 23),
        ("0.0032 USD", 0.0032),
        ("1e-05 USD", 1e-05),
        ("$0.03", 0.03),
        ("45 %", 45),
        ("1,234", 1234),
        ("7B", 7),
        ("12 秒", 12),
        ("0.5, 1.8, 4", 0.5),
        ("2022-08", 2022.08),
        ("2022-08-15", 2022.0815),
    ],
)
def test_numbers_and_dates_have_a_value(text: str, value: float) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    "text", ["2B,7B Apache", "", "–", "unknown", "2022-13", "2022-08-32", "3 of 4 asked", "gpt-4", "3D", "1.2.3", "2,7", "v1"]
)
def test_a_text_that_begins_with_a_number_has_none(text: str) -> None:
    assert value_of(text) is None


def test_dates_come_in_order() -> None:
    dates = ["2021-11", "2022-01", "2022-01-02", "2022-01-10", "2022-02", "2022-10", "2022-12-31", "2023-01"]
    values = [value_of(date) or 0 for date in dates]
    assert values == sorted(set(values))


def test_parts_have_anchors_of_their_own() -> None:
    made = Page(Words("a", "b"))
    for title in ("题目一.csv", "题目二.csv", "题目一.csv", "!!", "??", "Switch", "Right and wrong"):
        made.part(Words(title, title))
    text = made.html()
    anchors = re.findall(r'id="([^"]*)"', text)
    assert len(set(anchors)) == len(anchors) == 8  # and the switch
    assert re.findall(r'href="#([^"]*)"', text) == anchors[1:]
    assert "right-and-wrong" in anchors


def axes_of(svg: str) -> tuple[float, float]:
    """Width and height of the plot's own rectangle."""
    corners = re.search(r'id="(?:zh-)?patch_2">\s*<path d="M (\S+) (\S+) \nL (\S+) (\S+) \nL (\S+) (\S+)', svg)
    assert corners
    x, y, _, _, right, top = map(float, corners.groups())
    return right - x, y - top


LONG = [f"openai+http://127.0.0.1:8000/v1#organisation/a-long-name-vl-{i}b-instruct" for i in range(8)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["bars", "lines", "scatter"])
def test_many_long_names_leave_the_axes_their_size(kind: str) -> None:
    def drawn(names: list[str]) -> str:
        if kind == "bars":
            return bars(["emoji"], {name: [(0.5, 0.4, 0.6)] for name in names}, y="recall")[0]
        if kind == "lines":
            return lines({name: ([0, 1], [1, 0]) for name in names}, x="step", y="loss")[0]
        return scatter({name: (1.0 + i / 9, 0.5, 0.4, 0.6) for i, name in enumerate(names)}, x="seconds", y="recall")[0]

    (width, height), (usual, tall) = axes_of(drawn(LONG)), axes_of(drawn(["a", "b"]))
    assert width == pytest.approx(usual, abs=1) and width > 400
    assert height == pytest.approx(tall, rel=0.05) and height > 150


def test_names_are_cut_in_the_middle_and_still_differ() -> None:
    assert shortened(["a short name"]) == ["a short name"]
    (cut,) = shortened(LONG[:1])
    assert len(cut) == 36 and cut.startswith("openai+") and cut.endswith("0b-instruct") and "…" in cut
    apart = shortened(["a" * 30 + letter + "a" * 40 for letter in "xyz"])
    assert len(set(apart)) == 3 and max(map(len, apart)) < 84
    beyond = shortened(["a" * 60 + letter + "a" * 60 for letter in "xyz"])
    assert [name[:3] for name in beyond] == ["1. ", "2. ", "3. "]
    assert shortened(["the same", "the same"]) == ["the same", "the same"]
    (wide,) = shortened(["很长的名字" * 8])
    assert len(wide) == 18


def test_each_of_many_series_looks_different() -> None:
    svg = bars(["a"], {f"m{i}": [(1.0, 1.0, 1.0)] for i in range(16)}, y="y")[0]
    assert len(set(re.findall(r"fill: url\(#\w+\)", svg))) == 9  # hatched: colours 8 to 14 and 15 to 16, none twice
    svg = lines({f"m{i}": ([0, 1], [0, 1]) for i in range(8)}, x="x", y="y")[0]
    first, again = (
        re.findall(rf"stroke-dasharray: [^;]*; stroke-dashoffset: 0; stroke: {colour}", svg) for colour in ("#12805c", "#3448c5")
    )
    assert not first and again


def test_what_a_hidden_plot_defines_the_other_does_not_use() -> None:
    en, zh = bars(["a"], {Words(f"m{i}", f"模{i}"): [(1.0, 1.0, 1.0)] for i in range(8)}, y="y")
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', zh))
    assert used and used <= set(re.findall(r' id="([^"]+)"', zh))
    assert not used & set(re.findall(r' id="([^"]+)"', en))


def test_pictures_are_there_before_they_are_scrolled_to() -> None:
    assert "lazy" not in page().html()


def test_a_front_joins_what_none_of_its_kind_beats() -> None:
    points = {"slow": (3.0, 9.0), "quick": (1.0, 5.0), "beaten": (2.0, 4.0), "equal": (3.0, 9.0)}
    assert pareto(points) == ["quick", "slow"]
    shown = {name: (*at, at[1] - 1, at[1] + 1) for name, at in points.items()}
    alone = scatter(shown, x="x", y="y", marks={"quick": "s", "slow": "o", "beaten": "o", "equal": "o"})[0]
    joined = scatter(shown, x="x", y="y")[0]
    assert joined.count("stroke-dasharray") == alone.count("stroke-dasharray") == 1, "beaten and slow are joined there, quick and slow here"
    assert joined != alone
