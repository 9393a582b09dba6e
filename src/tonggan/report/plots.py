"""Plots as SVG text, drawn once per language. Labels stay text, so that the reader's own fonts show the Chinese."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tonggan.report.page import Said, words
from tonggan.types import MissingExtra

COLOURS = ("#3448c5", "#12805c", "#c4320a", "#8a4fc7", "#b07c00", "#0f7fa8", "#667085")
FONTS = "system-ui, 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif"


def lines(
    series: Mapping[Any, tuple[Sequence[float], Sequence[float]]], *, x: Said, y: Said, levels: Mapping[Any, float] | None = None
) -> tuple[str, str]:
    """Curves (name -> xs, ys) with horizontal dashed `levels` (chance, floor). Gives the English and the Chinese SVG."""

    def draw(axes: Any, language: int) -> None:
        for colour, (name, (xs, ys)) in zip(COLOURS * 3, series.items(), strict=False):
            axes.plot(xs, ys, color=colour, label=words(name)[language], linewidth=1.6)
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
            axes.legend(frameon=False, fontsize=9)

    return _both(draw, (7.2, 3.4))


def bars(groups: Sequence[Said], series: Mapping[Any, Sequence[tuple[float, float, float]]], *, y: Said) -> tuple[str, str]:
    """Grouped bars of (value, low, high) with their intervals; one group per entry of `groups`."""

    def draw(axes: Any, language: int) -> None:
        width = 0.8 / max(len(series), 1)
        for i, (name, values) in enumerate(series.items()):
            at = [g - 0.4 + width * (i + 0.5) for g in range(len(groups))]
            heights = [v for v, _, _ in values]
            errors = [[max(v - low, 0) for v, low, _ in values], [max(high - v, 0) for v, _, high in values]]
            axes.bar(at, heights, width * 0.92, label=words(name)[language], color=COLOURS[i % len(COLOURS)])
            axes.errorbar(at, heights, yerr=errors, fmt="none", ecolor="#1d2433", elinewidth=1, capsize=2)
        axes.set_xticks(range(len(groups)), [words(g)[language] for g in groups])
        axes.set_ylabel(words(y)[language])
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper left", bbox_to_anchor=(0, -0.1))

    return _both(draw, (7.2, 3.8))


def scatter(
    points: Mapping[Any, tuple[float, float, float, float]], *, x: Said, y: Said, up: bool = True, marks: Mapping[Any, str] | None = None
) -> tuple[str, str]:
    """Points (name -> x, y, low, high) with their intervals; less x is better, and more y (`up`) or less. Those that none beats in both are
    joined: the Pareto front. `marks` gives points a matplotlib marker each; x is logarithmic where it spans more than a decade."""

    def draw(axes: Any, language: int) -> None:
        for colour, (name, (at, value, low, high)) in zip(COLOURS * 9, points.items(), strict=False):
            reach = [[max(value - low, 0)], [max(high - value, 0)]]
            mark = (marks or {}).get(name, "o")
            axes.errorbar([at], [value], yerr=reach, fmt=mark, color=colour, markersize=7, capsize=2, label=words(name)[language])
        front = pareto({name: (at, value if up else -value) for name, (at, value, _, _) in points.items()})
        if len(front) > 1:
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
        axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper left", bbox_to_anchor=(0, -0.16))

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
        axes.set_xticks(range(len(columns)), [words(c)[language] for c in columns], rotation=30, ha="right", fontsize=8)
        axes.set_yticks(range(len(rows)), [words(r)[language] for r in rows], fontsize=8)
        axes.set_title(words(title)[language], fontsize=10)

    return _both(draw, (1.6 + 0.62 * len(columns) + 1.6, 1.2 + 0.36 * len(rows)))


def _both(draw: Callable[[Any, int], None], size: tuple[float, float]) -> tuple[str, str]:
    return _svg(draw, size, 0), _svg(draw, size, 1)


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
        draw(axes, language)
        out = io.StringIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    return svg.replace("'DejaVu Sans'", FONTS)
