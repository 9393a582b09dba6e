"""Charts: bars, lines and pies, drawn alike in both languages; what they show and how it is asked comes from each."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tonggan.data.sources.pages.asking import Asks, Draft, Style
from tonggan.data.sources.pages.canvas import GRAY, INK, WHITE, Canvas, Color, Mark, Shape, Type
from tonggan.data.sources.pages.near import consecutive

STYLES = ("occluded", "blurred")
PALETTE: tuple[Color, ...] = (
    (66, 114, 176), (221, 132, 62), (88, 160, 92), (196, 78, 82), (129, 114, 178), (147, 120, 96), (218, 139, 195), (100, 181, 205),
)  # fmt: skip

_FRAME = (100.0, 120.0, 830.0, 540.0)
_LETTERS = Type("sans", 24)


@dataclass(frozen=True, slots=True)
class Series:
    """What a chart of bars or points shows, and how it is asked about (`{}`: a name); `form` is a value with its unit."""

    title: str
    form: str
    names: tuple[str, ...]
    one: str
    most: str
    least: str
    gap: str


@dataclass(frozen=True, slots=True)
class Shares:
    """What a pie shows, and how it is asked about (`{}`: a name, in `which` a per cent)."""

    title: str
    names: tuple[str, ...]
    one: str
    which: str
    most: str
    least: str
    both: str


def draw(rng: random.Random, style: Style, series: Sequence[Series], shares: Sequence[Shares]) -> Draft:
    """A chart of one of these."""
    if style.name == "occluded":  # a slice, or a bar without its figure, cannot be measured under a stain
        return rng.choice([_figures, _points])(rng, rng.choice(series))
    kind = rng.choice([_figures, _bars, _bars, _points, None, None])
    return _pie(rng, rng.choice(shares)) if kind is None else kind(rng, rng.choice(series))


def _figures(rng: random.Random, series: Series) -> Draft:
    """Bars with their figures above them."""
    canvas, asks, step = *_sheet(rng, series.title), rng.choice([10, 20, 50, 100])
    values = [level * step // 2 + rng.randrange(step // 2) for level in rng.sample(range(2, 12), len(series.names))]
    labels, figures = bars(canvas, rng, series.names, values, step, shown=True)
    canvas.cut(600)
    _ask(asks, labels, figures, series)
    return Draft(canvas, asks)


def _bars(rng: random.Random, series: Series) -> Draft:
    """Bars to be held against the axis: each ends at a line of the grid, or half-way between two, and so do the wrong choices."""
    canvas, asks, step = *_sheet(rng, series.title), rng.choice([10, 20, 50, 100])
    values = [level * step // 2 for level in rng.sample(range(2, 12), len(series.names))]
    bars(canvas, rng, series.names, values, step, shown=False)
    canvas.cut(600)
    for shape in canvas.shapes:
        levels = [round(shape.value * 2 / step), *consecutive(round(shape.value * 2 / step), rng, 1, 11)]
        said = [series.form.format(level * step // 2) for level in levels]
        asks.add(series.one.format(shape.name), said[0], said[1:], rule="measure", form=series.form, shape=shape)
    return Draft(canvas, asks)


def _points(rng: random.Random, series: Series) -> Draft:
    canvas, asks, step = *_sheet(rng, series.title), rng.choice([10, 20, 50, 100])
    values = [level * step // 2 + rng.randrange(step // 2) for level in rng.sample(range(2, 11), len(series.names))]
    labels, figures = points(canvas, series.names, values, step, rng.choice(PALETTE[:5]))
    canvas.cut(600)
    _ask(asks, labels, figures, series)
    return Draft(canvas, asks)


def _sheet(rng: random.Random, title: str) -> tuple[Canvas, Asks]:
    canvas = Canvas(860, 620)
    canvas.text(canvas.width / 2, 34, title, Type("sans", 32, bold=True), "ma")
    return canvas, Asks(rng)


def _ask(asks: Asks, labels: list[Mark], figures: list[Mark], series: Series) -> None:
    for at in asks.rng.sample(range(len(labels)), 4):
        others = [figure for figure in figures if figure is not figures[at]]
        asks.figure(series.one.format(labels[at].text), figures[at], others, [labels[at]], series.form)
    asks.extreme(series.most, labels, figures, "most")
    asks.extreme(series.least, labels, figures, "least")
    a, b = asks.rng.sample(range(len(labels)), 2)
    question = series.gap.format(labels[a].text, labels[b].text)
    asks.gap(question, figures[a], figures[b], lambda value: series.form.format(f"{value:.0f}"))


def _pie(rng: random.Random, shares: Shares) -> Draft:
    canvas, asks = _sheet(rng, shares.title)
    names = rng.sample(shares.names, rng.randint(4, len(shares.names)))
    labels, figures = pie(canvas, (300, 330), 200, names, _parts(rng, len(names)), 560)
    canvas.cut(560)
    for label, figure, shape in zip(labels, figures, canvas.shapes, strict=True):
        others = [other.text for other in figures if other is not figure]
        rng.shuffle(others)
        asks.add(shares.one.format(label.text), figure.text, others, rule="measure", form="{}%", shape=shape)
        others = [other.text for other in labels if other is not label]
        rng.shuffle(others)
        asks.add(shares.which.format(figure.text), label.text, others, rule="measure", shape=shape)
    asks.extreme(shares.most, labels, figures, "most")
    asks.extreme(shares.least, labels, figures, "least")
    a, b = rng.sample(range(len(names)), 2)
    question = shares.both.format(labels[a].text, labels[b].text)
    asks.total(question, [figures[a], figures[b]], lambda value: f"{value:.0f}%")
    return Draft(canvas, asks)


def _parts(rng: random.Random, n: int) -> list[int]:
    """`n` different whole per cents of at least 6 that add up to 100."""
    while True:
        cuts = sorted(rng.sample(range(6, 95), n - 1))
        parts = [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]
        if min(parts) >= 6 and len(set(parts)) == n:
            return parts


# --------------------------------------------------------------------------------------------- drawing


def bars(
    canvas: Canvas, rng: random.Random, names: Sequence[str], values: Sequence[int], step: int, *, shown: bool
) -> tuple[list[Mark], list[Mark]]:
    """Upright bars; marks of the names, and of the values above the bars (none unless `shown`). The axis has six steps of `step`."""
    left, upper, right, lower = _FRAME
    _axis(canvas, step)
    slot = (right - left) / len(names)
    same = rng.choice(PALETTE) if rng.random() < 0.5 else None
    labels, figures = [], []
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        middle = left + slot * (i + 0.5)
        height = (lower - upper) * value / (6 * step)
        box = (round(middle - slot * 0.3), round(lower - height), round(middle + slot * 0.3), round(lower) - 1)
        color = same or PALETTE[i % len(PALETTE)]
        canvas.rect(box, fill=color)
        canvas.shapes.append(Shape(name, box, color, value))
        labels.append(canvas.text(middle, lower + 10, name, _LETTERS, "ma", within=slot - 4))
        if shown:
            figures.append(canvas.text(middle, lower - height - 5, str(value), _LETTERS, "ms", within=slot))
    return labels, figures


def points(canvas: Canvas, names: Sequence[str], values: Sequence[int], step: int, color: Color) -> tuple[list[Mark], list[Mark]]:
    """Points joined by a line, each with its value above it; marks of the names and of the values."""
    left, upper, right, lower = _FRAME
    _axis(canvas, step)
    slot = (right - left) / len(names)
    places = [(left + slot * (i + 0.5), lower - (lower - upper) * value / (6 * step)) for i, value in enumerate(values)]
    canvas.pen.line(places, color, 3, "curve")
    labels, figures = [], []
    for name, value, (x, y) in zip(names, values, places, strict=True):
        canvas.pen.ellipse((x - 5, y - 5, x + 5, y + 5), color)
        labels.append(canvas.text(x, lower + 10, name, _LETTERS, "ma", within=slot - 4))
        x0, y0, x1, y1 = canvas.extent(x, y - 11, str(value), _LETTERS, "ms")
        canvas.rect((x0 - 2, y0 - 2, x1 + 2, y1 + 2), fill=WHITE)
        figures.append(canvas.text(x, y - 11, str(value), _LETTERS, "ms"))
    return labels, figures


def _axis(canvas: Canvas, step: int) -> None:
    left, upper, right, lower = _FRAME
    for i in range(7):
        at = lower - (lower - upper) * i / 6
        canvas.rule(at, left, right, (222, 222, 226) if i else GRAY)
        canvas.text(left - 10, at, str(i * step), _LETTERS.but(color=GRAY), "rm")


def pie(
    canvas: Canvas, centre: tuple[float, float], radius: float, names: Sequence[str], shares: Sequence[int], legend: float
) -> tuple[list[Mark], list[Mark]]:
    """A pie of whole per cents with a legend from x = `legend`; marks of the names in the legend and of the shares on the slices."""
    x, y = centre
    box = (x - radius, y - radius, x + radius, y + radius)
    labels, figures, turned = [], [], -90.0
    for i, (name, share) in enumerate(zip(names, shares, strict=True)):
        sweep = share * 3.6
        canvas.pen.pieslice(box, turned, turned + sweep, PALETTE[i])
        canvas.shapes.append(Shape(name, box, PALETTE[i], share, "slice"))
        angle = math.radians(turned + sweep / 2)
        px, py = x + radius * 0.7 * math.cos(angle), y + radius * 0.7 * math.sin(angle)
        figures.append(canvas.text(px, py, f"{share}%", _LETTERS.but(color=WHITE), "mm"))
        at = y + (i - (len(names) - 1) / 2) * 50
        canvas.rect((legend, at - 11, legend + 22, at + 11), fill=PALETTE[i])
        labels.append(canvas.text(legend + 36, at, name, _LETTERS.but(color=INK), "lm"))
        turned += sweep
    return labels, figures
