"""Plots as SVG text, drawn once per language. Labels stay text, so that the reader's own fonts show the Chinese."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tonggan.report.page import Said, words
from tonggan.types import MissingExtra

COLOURS = ("#3448c5", "#12805c", "#c4320a", "#8a4fc7", "#b07c00", "#0f7fa8", "#667085")
HATCHES, LINES, FILLS = ("", "///", "...", "xxx"), ("-", "--", ":", "-."), ("full", "none", "left", "bottom")
"""What tells bars, curves and points apart when the colours begin anew."""
FONTS = "system-ui, 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif"


def lines(
    series: Mapping[Any, tuple[Sequence[float], Sequence[float]]], *, x: Said, y: Said, levels: Mapping[Any, float] | None = None
) -> tuple[str, str]:
    """Curves (name -> xs, ys) with horizontal dashed `levels` (chance, floor). Gives the English and the Chinese SVG."""

    def draw(axes: Any, language: int) -> None:
        names = shortened([words(name)[language] for name in series])
        for i, (name, (xs, ys)) in enumerate(zip(names, series.values(), strict=True)):
            axes.plot(xs, ys, color=_turn(COLOURS, i), linestyle=_again(LINES, i), label=name, linewidth=1.6)
        for name, level in (levels or {}).items():
            axes.axhline(level, color="#667085", linestyle="--", linewidth=1)
            axes.annotate(
                words(name)[language],
                (0.99, level),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=9,
                color="#667085",
            )
        axes.set_xlabel(words(x)[language])
        axes.set_ylabel(words(y)[language])
        axes.grid(alpha=0.25)
        if len(series) > 1:
            _legend(axes, names)

    return _both(draw, (7.2, 3.4))


def bars(groups: Sequence[Said], series: Mapping[Any, Sequence[tuple[float, float, float]]], *, y: Said) -> tuple[str, str]:
    """Grouped bars of (value, low, high) with their intervals; one group per entry of `groups`."""

    def draw(axes: Any, language: int) -> None:
        width = 0.8 / max(len(series), 1)
        names = shortened([words(name)[language] for name in series])
        for i, (name, values) in enumerate(zip(names, series.values(), strict=True)):
            at = [g - 0.4 + width * (i + 0.5) for g in range(len(groups))]
            heights = [v for v, _, _ in values]
            errors = [[max(v - low, 0) for v, low, _ in values], [max(high - v, 0) for v, _, high in values]]
            look = {"color": _turn(COLOURS, i), "hatch": _again(HATCHES, i), "edgecolor": "white", "linewidth": 0}
            axes.bar(at, heights, width * 0.92, label=name, **look)
            axes.errorbar(at, heights, yerr=errors, fmt="none", ecolor="#1d2433", elinewidth=1, capsize=2)
        ticks = shortened([words(g)[language] for g in groups])
        # Names that would run into each other stand aslant.
        aslant = {"rotation": 20, "ha": "right"} if max(map(_wide, ticks), default=0) > 72 / max(len(ticks), 1) else {}
        axes.set_xticks(range(len(groups)), ticks, **aslant)
        axes.set_ylabel(words(y)[language])
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
        if len(series) > 1:
            _legend(axes, names)

    return _both(draw, (7.2, 3.8))


def scatter(
    points: Mapping[Any, tuple[float, float, float, float]], *, x: Said, y: Said, up: bool = True, marks: Mapping[Any, str] | None = None
) -> tuple[str, str]:
    """Points (name -> x, y, low, high) with their intervals; less x is better, and more y (`up`) or less. Those that none beats in both are
    joined: the Pareto front, of points of one mark. `marks` gives points a matplotlib marker each; x is logarithmic where it spans more
    than a decade."""

    def draw(axes: Any, language: int) -> None:
        names = shortened([words(name)[language] for name in points])
        for i, (name, (at, value, low, high)) in enumerate(points.items()):
            reach = [[max(value - low, 0)], [max(high - value, 0)]]
            look = {"color": _turn(COLOURS, i), "fillstyle": _again(FILLS, i), "markersize": 7, "capsize": 2}
            axes.errorbar([at], [value], yerr=reach, fmt=(marks or {}).get(name, "o"), label=names[i], **look)
        for mark in dict.fromkeys((marks or {}).get(name, "o") for name in points):
            alike = {
                name: (at, value if up else -value) for name, (at, value, _, _) in points.items() if (marks or {}).get(name, "o") == mark
            }
            if len(front := pareto(alike)) > 1:
                xs, ys = zip(*(points[name][:2] for name in front), strict=True)
                axes.plot(xs, ys, color="#667085", linestyle="--", linewidth=1, zorder=0)
        across = [at for at, _, _, _ in points.values() if at > 0]
        if len(across) == len(points) and across and max(across) > 10 * min(across):
            axes.set_xscale("log")
            from matplotlib import ticker

            axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.set_xlabel(words(x)[language])
        axes.set_ylabel(words(y)[language])
        axes.grid(alpha=0.25)
        _legend(axes, names)

    return _both(draw, (7.2, 3.8))


def pareto(points: Mapping[Any, tuple[float, float]]) -> list[Any]:
    """The names of points (x, y) that no other beats or equals in both, less x and more y being better; by x."""
    front: list[Any] = []
    best = float("-inf")
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if points[name][1] > best:
            front.append(name)
            best = points[name][1]
    return front


def path(
    points: Sequence[tuple[str, float, float, float, float, float, float]], *, x: Said, y: Said, chosen: int, least: tuple[Said, float]
) -> tuple[str, str]:
    """Points (name, x, low, high, y, low, high) in their order, joined, with intervals both ways; one is marked as chosen, and `least`
    names the smallest x that is allowed."""

    def draw(axes: Any, language: int) -> None:
        colour, quiet = COLOURS[0], "#667085"
        axes.plot([p[1] for p in points], [p[4] for p in points], color=colour, linewidth=1.6, zorder=1)
        for i, (name, at, left, right, value, low, high) in enumerate(points):
            across, up = [[max(at - left, 0)], [max(right - at, 0)]], [[max(value - low, 0)], [max(high - value, 0)]]
            shade = COLOURS[2] if i == chosen else colour
            axes.errorbar([at], [value], xerr=across, yerr=up, fmt="o", color=shade, ecolor=shade, elinewidth=0.6, capsize=2, markersize=6)
            plate = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
            axes.annotate(name, (at, value), xytext=(8, 7), textcoords="offset points", fontsize=9, color=shade, bbox=plate)
        axes.axvline(least[1], color=quiet, linestyle="--", linewidth=1)
        # On the side where there is more room for its name.
        right = least[1] > sum(axes.get_xlim()) / 2
        place = {
            "xytext": (-4 if right else 4, 3),
            "textcoords": "offset points",
            "fontsize": 9,
            "color": quiet,
            "ha": "right" if right else "left",
        }
        axes.annotate(words(least[0])[language], (least[1], 0), xycoords=("data", "axes fraction"), **place)
        axes.set_xlabel(words(x)[language])
        axes.set_ylabel(words(y)[language])
        axes.grid(alpha=0.25)

    return _both(draw, (7.2, 4.2))


def matrix(values: Sequence[Sequence[float]], rows: Sequence[Said], columns: Sequence[Said], *, title: Said = "") -> tuple[str, str]:
    """A heat map of numbers, each cell with its value, for example cosine similarities of captions and pictures."""

    def draw(axes: Any, language: int) -> None:
        axes.imshow(values, cmap="Blues", aspect="auto")
        top = max((v for row in values for v in row), default=1.0)
        low = min((v for row in values for v in row), default=0.0)
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                dark = value > low + 0.6 * (top - low)
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "#1d2433")
        axes.set_xticks(range(len(columns)), across[language], rotation=30, ha="right", fontsize=8)
        axes.set_yticks(range(len(rows)), down[language], fontsize=8)
        axes.set_title(words(title)[language], fontsize=10)

    across = [shortened([words(c)[language] for c in columns]) for language in (0, 1)]
    down = [shortened([words(r)[language] for r in rows]) for language in (0, 1)]
    # The cells keep their size whatever stands beside and below them: a letter of 8 points is 0.067 inch wide.
    beside, below = (0.067 * max((_wide(name) for names in both for name in names), default=0) for both in (down, across))
    return _both(draw, (max(3.2, 0.9 + beside) + 0.62 * len(columns), max(1.2, 0.7 + 0.5 * below) + 0.36 * len(rows)))


# ------------------------------------------------------------------------------------- names and looks


def shortened(names: Sequence[str], limits: Sequence[int] = (36, 60, 84)) -> list[str]:
    """Names cut in the middle, to the first of `limits` (letters; a Chinese character is two) at which they still differ. Names that
    differ at none are numbered."""
    for limit in limits:
        short = [_cut(name, limit) for name in names]
        if len(set(short)) == len(set(names)):
            return short
    return [f"{number}. {name}" for number, name in enumerate((_cut(name, limits[0]) for name in names), 1)]


def _cut(name: str, limit: int) -> str:
    if _wide(name) <= limit:
        return name
    return f"{_start(name, limit // 2)}…{_start(name[::-1], (limit - 1) // 2)[::-1]}"


def _start(name: str, limit: int) -> str:
    """As much of the beginning as is at most `limit` wide."""
    kept = 0
    while kept < len(name) and _wide(name[: kept + 1]) <= limit:
        kept += 1
    return name[:kept]


def _wide(text: str) -> int:
    """Width in letters: what East Asian fonts draw wide counts twice."""
    return len(text) + _wider(text)


def _wider(text: str) -> int:
    return sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)


def _turn(looks: Sequence[str], i: int) -> str:
    return looks[i % len(looks)]


def _again(looks: Sequence[str], i: int) -> str:
    """The look of number i that changes when the colours begin anew."""
    return looks[i // len(COLOURS) % len(looks)]


def _legend(axes: Any, names: Sequence[str]) -> None:
    """Below the plot, in one column when names are long; the figure grows by it, so that the axes keep their size."""
    figure = axes.figure
    columns = 2 if max(map(_wide, names)) <= 24 else 1
    # matplotlib's own font has no Chinese and takes 0.6 for a character that the browser draws 1 wide.
    between = 2 + 0.4 * max(map(_wider, names))
    legend = figure.legend(frameon=False, fontsize=9, ncols=columns, columnspacing=between, loc="outside lower left")
    figure.set_figheight(figure.get_figheight() + legend.get_window_extent().height / figure.dpi)


# ------------------------------------------------------------------------------------- SVG


def _both(draw: Callable[[Any, int], None], size: tuple[float, float]) -> tuple[str, str]:
    en, zh = _svg(draw, size, 0), _svg(draw, size, 1)
    # Of the two one is hidden, and what refers to a hidden pattern is not drawn: each needs names of its own.
    return en, zh if zh == en else re.sub(r'( id="|url\(#|href="#)', r"\1zh-", zh)


def _svg(draw: Callable[[Any, int], None], size: tuple[float, float], language: int) -> str:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("plots", "report") from None
    # Text is measured with matplotlib's own font but drawn by the browser's; hashsalt makes the file reproducible.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tonggan", "font.family": ["DejaVu Sans"]}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        out = io.StringIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            draw(axes, language)
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    # On a telephone a plot shrinks to three quarters, where its labels can still be read, and is then scrolled.
    svg = f'<svg style="min-width:{72 * size[0]:.0f}px"' + svg[svg.index("<svg") + 4 :]
    return svg.replace("'DejaVu Sans'", FONTS)
