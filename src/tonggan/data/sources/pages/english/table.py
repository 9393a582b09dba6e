"""Tables: standings, grades, inventories, the weather."""

from __future__ import annotations

import random

from tonggan.data.sources.pages.asking import Asks, Draft, Style
from tonggan.data.sources.pages.canvas import INK, WHITE, Canvas, Color, Mark, Type
from tonggan.data.sources.pages.english.names import FIRST
from tonggan.data.sources.pages.parts import table
from tonggan.data.sources.pages.pools import phrases, words

STYLES = ("handwritten", "occluded", "blurred")

_BANDS: tuple[Color | None, ...] = ((222, 232, 244), (236, 240, 226), (246, 230, 214), (232, 232, 236), None)
_TEAMS = words("Badgers Comets Falcons Herons Jaguars Lynx Mariners Otters Pilots Ravens Sharks Tigers Vikings Wolves")
_CITIES = words("Boston Chicago Dallas Denver Miami Seattle Phoenix Atlanta Portland Honolulu Detroit Nashville")
_WEATHER = ("Sunny", "Cloudy", "Rain", "Drizzle", "Windy", "Fog", "Showers", "Thunderstorms", "Partly cloudy")
_GOODS = phrases("Paper towels|Light bulbs|Trash bags|Flashlights|Hand soap|Dish soap|Coffee filters|Sponges|Napkins|Bottled water")


def draw(rng: random.Random, style: Style) -> Draft:
    return rng.choice([_standings, _grades, _stock, _forecast])(rng, style)


def _sheet(
    rng: random.Random, style: Style, title: str, rows: list[list[str]], widths: list[float]
) -> tuple[Canvas, Asks, list[list[Mark]]]:
    canvas = Canvas(round(sum(widths)) + 80, 1000, rng.choice([WHITE, WHITE, (253, 251, 245)]))
    face = rng.choice(["sans", "serif"])
    cell = Type(rng.choice(["caveat", "kalam"]), 30, rng.choice([INK, (30, 44, 120)])) if style.hand else Type(face, 25)
    head = Type(face, 24, bold=True)
    canvas.text(canvas.width / 2, 28, title, Type(face, 34, bold=True), "ma", within=canvas.width - 80)
    marks = table(
        canvas,
        40,
        100,
        widths,
        rows,
        cell,
        height=50,
        head=head,
        align="l",
        band=rng.choice(_BANDS),
        upright=rng.random() < 0.5,
        body=[head.but(bold=False)],
    )
    canvas.cut(100 + 50 * len(rows) + 36)
    return canvas, Asks(rng), marks


def _standings(rng: random.Random, style: Style) -> Draft:
    rows = [["Team", "Wins", "Losses", "Points"]]
    rows += [
        [team, str(rng.randint(4, 30)), str(rng.randint(4, 30)), str(rng.randint(300, 999))]
        for team in rng.sample(_TEAMS, rng.randint(5, 8))
    ]
    canvas, asks, marks = _sheet(rng, style, f"{rng.randint(2012, 2025)} Season Standings", rows, [200, 130, 130, 130])
    head, body = marks[0], marks[1:]
    teams = [row[0] for row in body]
    for row in rng.sample(body, 3):
        c = rng.randint(1, 3)
        what = head[c].text.lower()
        asks.figure(f"How many {what} do the {row[0].text} have?", row[c], [r[c] for r in body if r is not row], [row[0]])
    asks.extreme("Which team has the most wins?", teams, [row[1] for row in body], "most")
    asks.extreme("Which team has the fewest losses?", teams, [row[2] for row in body], "least")
    asks.extreme("Which team has the most points?", teams, [row[3] for row in body], "most")
    a, b = rng.sample(body, 2)
    asks.gap(f"By how many points do the {a[0].text} and the {b[0].text} differ?", a[3], b[3], lambda v: f"{v:.0f}")
    row = rng.choice(body)
    asks.total(f"How many games have the {row[0].text} won and lost altogether?", [row[1], row[2]], lambda v: f"{v:.0f}")
    return Draft(canvas, asks)


def _grades(rng: random.Random, style: Style) -> Draft:
    subjects = rng.sample(["Math", "Reading", "Science", "History", "Spelling", "Art"], 4)
    rows = [["Student", *subjects]] + [
        [name, *(str(rng.randint(58, 99)) for _ in subjects)] for name in rng.sample(FIRST, rng.randint(5, 7))
    ]
    canvas, asks, marks = _sheet(rng, style, f"Grade {rng.randint(3, 8)} Test Scores", rows, [150, *[125] * 4])
    head, body = marks[0], marks[1:]
    students = [row[0] for row in body]
    for row in rng.sample(body, 3):
        c = rng.randint(1, 4)
        asks.figure(f"What did {row[0].text} score in {head[c].text}?", row[c], [r[c] for r in body if r is not row], [row[0], head[c]])
    for c in rng.sample(range(1, 5), 2):
        asks.extreme(f"Who scored highest in {head[c].text}?", students, [row[c] for row in body], "most")
        asks.extreme(f"Who scored lowest in {head[c].text}?", students, [row[c] for row in body], "least")
        high = [row[c] for row in body if int(row[c].text) >= 90]
        if high:
            asks.count(f"How many students scored 90 or above in {head[c].text}?", high)
    row = rng.choice(body)
    asks.total(f"What do {row[0].text}'s scores in {head[1].text} and {head[2].text} add up to?", [row[1], row[2]], lambda v: f"{v:.0f}")
    return Draft(canvas, asks)


def _stock(rng: random.Random, style: Style) -> Draft:
    rows = [["Item", "On hand", "On order", "Aisle"]]
    rows += [
        [item, str(rng.randint(0, 240)), str(rng.randint(0, 96)), f"{rng.randint(1, 14)}{rng.choice('AB')}"]
        for item in rng.sample(_GOODS, 6)
    ]
    canvas, asks, marks = _sheet(rng, style, "Stockroom Inventory", rows, [230, 130, 130, 110])
    body = marks[1:]
    items = [row[0] for row in body]
    for row in rng.sample(body, 3):
        item, others = row[0].text.lower(), [r for r in body if r is not row]
        asks.figure(f"How many units of {item} are on hand?", row[1], [r[1] for r in others], [row[0]])
        asks.figure(f"How many units of {item} are on order?", row[2], [r[2] for r in others], [row[0]])
        asks.figure(f"Which aisle has the {item}?", row[3], [r[3] for r in others], [row[0]])
    asks.extreme("Which item has the most units on hand?", items, [row[1] for row in body], "most")
    asks.extreme("Which item has the fewest units on hand?", items, [row[1] for row in body], "least")
    a, b = rng.sample(body, 2)
    question = f"By how many units do the {a[0].text.lower()} and the {b[0].text.lower()} on hand differ?"
    asks.gap(question, a[1], b[1], lambda v: f"{v:.0f}")
    row = rng.choice(body)
    question = f"How many units of {row[0].text.lower()} will there be once the order arrives?"
    asks.total(question, [row[1], row[2]], lambda v: f"{v:.0f}")
    asks.count("How many items are listed?", items)
    return Draft(canvas, asks)


def _forecast(rng: random.Random, style: Style) -> Draft:
    rows = [["City", "Forecast", "High", "Low"]]
    for city in rng.sample(_CITIES, rng.randint(5, 8)):
        high = rng.randint(58, 92)
        rows.append([city, rng.choice(_WEATHER), f"{high}°F", f"{high - rng.randint(6, 24)}°F"])
    canvas, asks, marks = _sheet(rng, style, "National Forecast", rows, [170, 210, 110, 110])
    body = marks[1:]
    cities = [row[0] for row in body]
    for row in rng.sample(body, 3):
        city = row[0].text
        asks.read(f"What is the forecast for {city}?", row[1], [*(r[1] for r in body if r is not row), *_WEATHER], [row[0]])
        asks.figure(f"What high is forecast for {city}?", row[2], [r[2] for r in body if r is not row] + [row[3]], [row[0]])
        asks.figure(f"What low is forecast for {city}?", row[3], [r[3] for r in body if r is not row] + [row[2]], [row[0]])
    asks.extreme("Which city has the highest high?", cities, [row[2] for row in body], "most")
    asks.extreme("Which city has the lowest low?", cities, [row[3] for row in body], "least")
    row = rng.choice(body)
    asks.gap(f"By how many degrees do the high and the low of {row[0].text} differ?", row[2], row[3], lambda v: f"{v:.0f}°F")
    return Draft(canvas, asks)
