"""Departure boards of American railway stations."""

from __future__ import annotations

import random

from tonggan.data.sources.pages.asking import Asks, Draft, Style
from tonggan.data.sources.pages.canvas import INK, WHITE, Canvas, Mark, Type
from tonggan.data.sources.pages.parts import table
from tonggan.data.sources.pages.pools import words

STYLES = ("occluded", "blurred")

_HERE = ("Union Station", "Penn Station", "30th Street Station", "King Street Station", "South Station")
_THERE = words(
    "Albany Boston Chicago Denver Harrisburg Hartford Lancaster Milwaukee Newark Norfolk Philadelphia Portland Providence Raleigh "
    "Richmond Rochester Sacramento Seattle Springfield Stamford Syracuse Trenton Washington Wilmington"
)
_BOARDS = (
    (WHITE, INK, INK, (20, 70, 150)),
    ((14, 18, 30), (238, 240, 244), (255, 208, 70), (120, 220, 240)),
    ((20, 52, 46), WHITE, (255, 226, 130), (190, 240, 200)),
)


def draw(rng: random.Random, style: Style) -> Draft:
    paper, letters, times, remarks = rng.choice(_BOARDS)
    canvas, asks = Canvas(860, 900, paper), Asks(rng)
    cell = Type("sans", 25, letters)
    n = rng.randint(6, 9)
    start = rng.randint(6, 17) * 60
    minutes = sorted(rng.sample(range(start, start + 5 * 60), n))
    clock = [f"{(at // 60 - 1) % 12 + 1}:{at % 60:02d} {'PM' if at // 60 >= 12 else 'AM'}" for at in minutes]
    numbers = [str(number) for number in rng.sample(range(42, 900), n)]
    status = [f"{rng.randint(1, 9) * 5} min late" if rng.random() < 0.35 else "On time" for _ in range(n)]
    status[0] = rng.choice(["Boarding", "Now boarding", status[0]])
    rows = [
        list(row) for row in zip(clock, rng.sample(_THERE, n), numbers, (str(rng.randint(1, 24)) for _ in range(n)), status, strict=True)
    ]
    canvas.text(30, 26, "Departures", Type("sans", 40, letters, bold=True))
    canvas.text(830, 36, rng.choice(_HERE), Type("sans", 28, letters), "ra")
    mixed = [(3 * p + ink) // 4 for p, ink in zip(paper, letters, strict=True)]
    body = [cell.but(color=times), cell, cell, cell, cell.but(color=remarks)]
    marks = table(
        canvas,
        30,
        96,
        (150, 220, 120, 110, 200),
        [["Time", "Destination", "Train", "Track", "Status"], *rows],
        cell,
        height=54,
        head=cell.but(size=22),
        rule=(mixed[0], mixed[1], mixed[2]),
        upright=False,
        body=body,
    )
    canvas.cut(96 + 54 * (n + 1) + 30)
    _ask(asks, marks[0], marks[1:])
    return Draft(canvas, asks)


def _ask(asks: Asks, head: list[Mark], rows: list[list[Mark]]) -> None:
    def column(c: int, but: list[Mark] | None = None) -> list[Mark]:
        return [row[c] for row in rows if row is not but]

    for row in asks.rng.sample(rows, 3):
        time, to, train, track, status = row
        asks.figure(f"What time does the train to {to.text} leave?", time, column(0, row), [to])
        asks.read(f"Where is train {train.text} going?", to, column(1, row), [train])
        asks.figure(f"What is the number of the {time.text} train?", train, column(2, row), [time])
        asks.figure(f"Which track does the train to {to.text} leave from?", track, column(3, row), [to], "Track {}")
        asks.read(
            f"What is the status of train {train.text}?", status, [*column(4, row), *(f"{n} min late" for n in (10, 25, 40))], [train]
        )
    asks.extreme("Where is the last train on the board going?", column(1), column(0), "most")
    late = [mark for mark in column(4) if mark.text.endswith("late")]
    if late:
        asks.count("How many trains are running late?", late)
    asks.count("How many departures are listed?", column(2))
