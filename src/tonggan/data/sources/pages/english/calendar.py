"""A month of a family planner: American holidays, and what somebody wrote down."""

from __future__ import annotations

import calendar
import datetime
import random

from tonggan.data.sources.pages.asking import Asks, Draft, Style
from tonggan.data.sources.pages.canvas import INK, WHITE, Canvas, Mark, Type
from tonggan.data.sources.pages.near import near_places
from tonggan.data.sources.pages.parts import month
from tonggan.data.sources.pages.pools import phrases

STYLES = ("handwritten", "occluded", "blurred")

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_FIXED = {
    (1, 1): "New Year's",
    (2, 14): "Valentine's",
    (3, 17): "St. Patrick's",
    (6, 19): "Juneteenth",
    (7, 4): "July 4th",
    (10, 31): "Halloween",
    (11, 11): "Veterans Day",
    (12, 24): "Xmas Eve",
    (12, 25): "Christmas",
}
_FLOATING = {
    (1, 0, 3): "MLK Day",
    (2, 0, 3): "Presidents",
    (5, 6, 2): "Mother's Day",
    (5, 0, -1): "Memorial Day",
    (6, 6, 3): "Father's Day",
    (9, 0, 1): "Labor Day",
    (10, 0, 2): "Columbus Day",
    (11, 3, 4): "Thanksgiving",
}
"""Month, weekday (0: Monday) and which of them (-1: the last)."""
_PLANS = phrases(
    "Dentist|Haircut|Book club|Soccer|Piano|Car wash|PTA|Yoga|Vet|Rent due|Picnic|Recital|Oil change|Swim meet|Potluck|Garage sale|"
    "Eye exam|Band practice|Bake sale|Trash day|Chess club|Movie night"
)


def holiday(day: datetime.date) -> str | None:
    """What an American calendar prints on a day."""
    if (day.month, day.day) in _FIXED:
        return _FIXED[day.month, day.day]
    nth, last = (day.day - 1) // 7 + 1, (day + datetime.timedelta(7)).month != day.month
    return _FLOATING.get((day.month, day.weekday(), nth)) or (_FLOATING.get((day.month, day.weekday(), -1)) if last else None)


def draw(rng: random.Random, style: Style) -> Draft:
    year, number = rng.randint(2010, 2035), rng.randint(1, 12)
    canvas, asks = Canvas(940, 960, rng.choice([WHITE, (255, 252, 244)])), Asks(rng)
    face, accent = rng.choice(["sans", "serif"]), rng.choice([(176, 40, 44), (30, 84, 150), (34, 110, 80)])
    filled = Type(rng.choice(["caveat", "kalam"]), 25, (28, 50, 140)) if style.hand else Type("sans", 18, (40, 60, 130))
    length = calendar.monthrange(year, number)[1]
    dates = {day: datetime.date(year, number, day) for day in range(1, length + 1)}
    free = [day for day, date in dates.items() if holiday(date) is None]
    plans = dict(zip(rng.sample(free, 7), rng.sample(_PLANS, 7), strict=True))
    canvas.text(470, 28, f"{calendar.month_name[number]} {year}", Type(face, 50, accent), "ma")

    def look(day: int) -> tuple[Type, str, Type]:
        feast = holiday(dates[day])
        small = Type(face, 17, accent) if feast else filled
        return Type(face, 30, accent if feast else INK), feast or plans.get(day, ""), small

    heads_said = [(_DAYS[(c + 6) % 7], Type(face, 20)) for c in range(7)]
    cell = (880 / 7, 100.0)
    heads, days, notes = month(canvas, 30, 108, cell, year, number, 6, heads_said, look)
    weeks = len(calendar.Calendar(6).monthdayscalendar(year, number))
    for week in range(weeks + 1):
        canvas.rule(152 + 100 * week, 30, 910, (200, 200, 204))
    for column in range(8):
        canvas.line(30 + cell[0] * column, 152, 30 + cell[0] * column, 152 + 100 * weeks, (200, 200, 204))
    canvas.cut(152 + 100 * weeks + 30)
    _ask(asks, calendar.month_name[number], dates, plans, heads, days, notes)
    return Draft(canvas, asks)


def _ask(
    asks: Asks,
    name: str,
    dates: dict[int, datetime.date],
    plans: dict[int, str],
    heads: list[Mark],
    days: list[Mark],
    notes: list[Mark | None],
) -> None:
    rng = asks.rng
    written = {day: note for day, note in enumerate(notes, 1) if note is not None}
    for day, note in written.items():
        what = note.text if day in plans else f"{note.text} printed"
        near = [days[other] for other in near_places(day - 1, len(days), rng)]
        asks.read(f"On what date is “{note.text}”?", days[day - 1], near, [note], name + " {}")
        others = [other for other in written.values() if other is not note]
        asks.read(f"What is written on {name} {day}?", note, others, [days[day - 1]])
        head = heads[(dates[day].weekday() + 1) % 7]
        asks.read(
            f"What day of the week is “{what.removesuffix(' printed')}”?", head, [other for other in heads if other is not head], [note]
        )
    day = rng.choice(list(dates))
    head = heads[(dates[day].weekday() + 1) % 7]
    asks.read(f"What day of the week is {name} {day}?", head, [other for other in heads if other is not head], [days[day - 1]])
    weekday, nth = rng.randrange(7), rng.randrange(4)
    at = [day for day, date in dates.items() if date.weekday() == weekday][nth]
    near = [days[other] for other in near_places(at - 1, len(days), rng)]
    place = ("first", "second", "third", "fourth")[nth]
    asks.read(f"On what date is the {place} {_DAYS[weekday]} of this month?", days[at - 1], near, [heads[(weekday + 1) % 7]], name + " {}")
    asks.count("On how many days is something written?", list(written.values()))
