"""What several pages are made of: ruled tables, and the grid of a month."""

from __future__ import annotations

import calendar
from collections.abc import Callable, Sequence

from tonggan.data.sources.pages.canvas import GRAY, Canvas, Color, Mark, Type


def table(
    canvas: Canvas,
    x: float,
    y: float,
    widths: Sequence[float],
    rows: Sequence[Sequence[str]],
    type: Type,
    *,
    height: float,
    head: Type | None = None,
    align: str = "",
    rule: Color | None = GRAY,
    upright: bool = True,
    band: Color | None = None,
    body: Sequence[Type] = (),
) -> list[list[Mark]]:
    """Rows of cells from (x, y), the first row is the head; the marks of each row. An empty string is an empty cell.

    `align` has l, m or r for each column (m where it ends); `rule` is the colour of the lines (None: no lines), `upright` whether
    there are lines between columns; `band` colours the head; `body` are the types of single columns.
    """
    left, right, bottom = x, x + sum(widths), y + height * len(rows)
    if band is not None:
        canvas.rect((left, y, right, y + height), fill=band)
    marks: list[list[Mark]] = []
    for r, row in enumerate(rows):
        marks.append([])
        at = left
        for c, (text, width) in enumerate(zip(row, widths, strict=True)):
            look = (head or type) if r == 0 else body[c] if c < len(body) else type
            side = align[c] if c < len(align) and r else "m"
            place = {"l": at + 12, "m": at + width / 2, "r": at + width - 12}[side]
            if text:
                marks[-1].append(canvas.text(place, y + height * (r + 0.5), text, look, side + "m", within=width - 16))
            at += width
    if rule is not None:
        for r in range(len(rows) + 1):
            canvas.rule(y + height * r, left, right, rule)
        edges = [left + sum(widths[:c]) for c in range(len(widths) + 1)]
        for edge in edges if upright else ():
            canvas.line(edge, y, edge, bottom, rule)
    return marks


def month(
    canvas: Canvas,
    x: float,
    y: float,
    cell: tuple[float, float],
    year: int,
    number: int,
    first: int,
    head: Sequence[tuple[str, Type]],
    day: Callable[[int], tuple[Type, str, Type]],
) -> tuple[list[Mark], list[Mark], list[Mark | None]]:
    """The grid of a month: marks of the seven heads, of the days, and of what stands below each day (None: nothing).

    `first` is the weekday of the first column (0 Monday, 6 Sunday); `day` gives a day's type, the text below it and its type.
    """
    width, height = cell
    heads = [canvas.text(x + width * (c + 0.5), y + 22, text, look, "mm") for c, (text, look) in enumerate(head)]
    days: list[Mark] = []
    notes: list[Mark | None] = []
    for r, week in enumerate(calendar.Calendar(first).monthdayscalendar(year, number)):
        for c, date in enumerate(week):
            if date:
                middle, top = x + width * (c + 0.5), y + 46 + height * r
                look, below, small = day(date)
                days.append(canvas.text(middle, top + height * 0.36, str(date), look, "mm"))
                notes.append(canvas.text(middle, top + height * 0.76, below, small, "mm", within=width - 8) if below else None)
    return heads, days, notes
