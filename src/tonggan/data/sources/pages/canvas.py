"""A page while it is drawn. Every string is kept with its place, so that what is asked can be found again in the pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import PIL.Image
import PIL.ImageDraw

from tonggan.data.sources.pages import fonts

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

INK: Color = (30, 30, 34)
GRAY: Color = (110, 110, 116)
WHITE: Color = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Type:
    """How letters look: a typeface of `fonts.FACES`, its size in pixels, its colour."""

    face: str
    size: int
    color: Color = INK
    bold: bool = False

    @property
    def stroke(self) -> int:
        """Pixels by which bold letters are fatter: the packages hold the regular weight only."""
        return (1 if self.size < 56 else 2) if self.bold else 0

    def but(self, *, face: str | None = None, size: int | None = None, color: Color | None = None, bold: bool | None = None) -> Type:
        """The same with some things changed."""
        return Type(face or self.face, size or self.size, color or self.color, self.bold if bold is None else bold)


@dataclass(frozen=True, slots=True)
class Mark:
    """One string on the page. `origin` and `anchor` are where the pen was (Pillow's anchors; a column: centre of its first cell)."""

    text: str
    box: Box
    type: Type
    origin: tuple[float, float]
    anchor: str = "la"
    vertical: bool = False

    @property
    def right(self) -> float:
        return self.box[2]

    @property
    def bottom(self) -> float:
        return self.box[3]


@dataclass(frozen=True, slots=True)
class Shape:
    """A bar or a slice of a chart: what it is called, its place (a slice: that of the whole pie), its colour, its value."""

    name: str
    box: Box
    color: Color
    value: float
    kind: str = "bar"


class Canvas:
    """A sheet of paper, and what is on it so far."""

    def __init__(self, width: int, height: int, paper: Color = WHITE) -> None:
        self.picture = PIL.Image.new("RGB", (width, height), paper)
        self.pen = PIL.ImageDraw.Draw(self.picture)
        self.marks: list[Mark] = []
        self.shapes: list[Shape] = []

    @property
    def width(self) -> int:
        return self.picture.width

    def text(self, x: float, y: float, text: str, type: Type, anchor: str = "la", within: float | None = None) -> Mark:
        """Write a line; one longer than `within` pixels is set smaller."""
        type = type.but(face=fonts.fitting(type.face, text))
        while within is not None and type.size > 8 and (length := self.length(text, type)) > within:
            type = type.but(size=max(8, min(type.size - 1, int(type.size * within / length))))
        mark = Mark(text, self.extent(x, y, text, type, anchor), type, (x, y), anchor)
        write(self.pen, mark, text, type.color)
        self.marks.append(mark)
        return mark

    def column(self, x: float, y: float, text: str, type: Type) -> Mark:
        """Write downwards from `y`, centred on `x`, one character under the other (竖排)."""
        type = type.but(face=fonts.fitting(type.face, text))
        first = (x, y + type.size * COLUMN_STEP / 2)
        boxes = [self.extent(cx, cy, character, type, "mm") for character, cx, cy in cells(text, first, type)]
        box = (min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes))
        mark = Mark(text, box, type, first, "mm", vertical=True)
        write(self.pen, mark, mark.text, type.color)
        self.marks.append(mark)
        return mark

    def extent(self, x: float, y: float, text: str, type: Type, anchor: str) -> Box:
        """The box that a line would fill."""
        return self.pen.textbbox((x, y), text, fonts.font(type.face, type.size), anchor, stroke_width=type.stroke)

    def length(self, text: str, type: Type) -> float:
        """How long a line is, in pixels."""
        return self.pen.textlength(text, fonts.font(type.face, type.size))

    def line(self, x0: float, y0: float, x1: float, y1: float, color: Color = GRAY, width: int = 1) -> None:
        self.pen.line((x0, y0, x1, y1), color, width)

    def rule(self, y: float, left: float, right: float, color: Color = GRAY, width: int = 1) -> None:
        self.line(left, y, right, y, color, width)

    def rect(self, box: Box, fill: Color | None = None, outline: Color | None = None, width: int = 1, radius: float = 0) -> None:
        self.pen.rounded_rectangle(box, radius, fill, outline, width)

    def cut(self, bottom: float) -> None:
        """End the sheet below this line."""
        self.picture = self.picture.crop((0, 0, self.width, min(self.picture.height, round(bottom))))
        self.pen = PIL.ImageDraw.Draw(self.picture)


COLUMN_STEP = 1.12
"""From one character of a column to the next, in character sizes."""


def cells(text: str, first: tuple[float, float], type: Type) -> Iterator[tuple[str, float, float]]:
    """Each character of a column with the middle of its place; `first` is that of the first one."""
    for i, character in enumerate(text):
        yield character, first[0], first[1] + type.size * COLUMN_STEP * i


def write(pen: PIL.ImageDraw.ImageDraw, mark: Mark, text: str, color: Color | int, shift: tuple[float, float] = (0, 0)) -> None:
    """Write `text` as the text of a mark is written, moved by `shift`."""
    x, y = mark.origin[0] + shift[0], mark.origin[1] + shift[1]
    face = fonts.font(mark.type.face, mark.type.size)
    places = cells(text, (x, y), mark.type) if mark.vertical else [(text, x, y)]
    for part, px, py in places:
        pen.text((px, py), part, color, face, mark.anchor, stroke_width=mark.type.stroke)
