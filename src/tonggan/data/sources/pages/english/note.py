"""Notes: a shopping list, a telephone message, things to do; typed, or by hand."""

from __future__ import annotations

import random

from tonggan.data.sources.pages.asking import Asks, Draft, Style
from tonggan.data.sources.pages.canvas import INK, Canvas, Color, Type
from tonggan.data.sources.pages.english.names import FIRST, person
from tonggan.data.sources.pages.pools import phrases

STYLES = ("handwritten", "handwritten", "occluded", "blurred")

_PAPERS: tuple[Color, ...] = ((255, 247, 178), (255, 255, 255), (238, 246, 255), (253, 236, 240))
_FOOD = phrases(
    "eggs|milk|brown bread|butter|bananas|spinach|chicken thighs|cheddar|olive oil|yogurt|onions|garlic|lemons|rice|black beans|"
    "tomatoes|paper towels|dish soap|coffee|oat cereal|cat food|frozen peas|apples|ground beef|tortillas|peanut butter"
)
_CHORES = phrases(
    "Call the plumber|Renew library card|Water the plants|Pay electric bill|Return blue sweater|Pick up dry cleaning|Book flights|"
    "Fix the gate|Email Coach Dan|Clean the gutters|Order birthday cake|Back up photos|Mail the package|Change air filter|"
    "Walk the dog|Buy stamps"
)
_ABOUT = phrases(
    "the leaky roof|the leaky faucet|Friday's meeting|Thursday's meeting|the used piano|the used bicycle|the job opening|"
    "the job interview|a lost suitcase|a lost wallet|the cake order|soccer carpool"
)
_WHEN = phrases(
    "before noon|before dinner|after 2 PM|after 5 PM|tomorrow morning|tomorrow evening|this weekend|next week|on Monday|on Tuesday|"
    "as soon as you can"
)


def draw(rng: random.Random, style: Style) -> Draft:
    return rng.choice([_shopping, _message, _chores])(rng, style)


def _paper(rng: random.Random, style: Style, title: str, lines: int) -> tuple[Canvas, Type]:
    canvas = Canvas(640, 170 + 56 * lines, rng.choice(_PAPERS))
    for y in range(130, canvas.picture.height - 20, 56):
        canvas.rule(y + 8, 30, 610, (176, 196, 222))
    canvas.line(84, 0, 84, canvas.picture.height, (232, 160, 160), 2)
    face = rng.choice(["caveat", "kalam"]) if style.hand else rng.choice(["serif", "sans"])
    ink = rng.choice([INK, (24, 44, 130), (110, 30, 40)]) if style.hand else INK
    type = Type(face, 38 if style.hand else 29, ink)
    canvas.text(100, 66, title, type.but(size=type.size + 8), "ls")
    return canvas, type


def _shopping(rng: random.Random, style: Style) -> Draft:
    names = rng.sample(_FOOD, rng.randint(5, 8))
    canvas, type = _paper(rng, style, rng.choice(["Groceries", "Shopping list", "From the store"]), len(names))
    asks, items, amounts = Asks(rng), [], []
    for i, name in enumerate(names):
        amounts.append(canvas.text(100, 130 + 56 * i, str(rng.randint(1, 14)), type, "ls"))
        items.append(canvas.text(160, 130 + 56 * i, name, type, "ls"))
    for item, amount in zip(items, amounts, strict=True):
        asks.figure(f"What number is written next to “{item.text}”?", amount, [other for other in amounts if other is not amount], [item])
    asks.read("What is the first thing on the list?", items[0], items[1:])
    asks.read("What is the last thing on the list?", items[-1], items[:-1])
    asks.count("How many things are on the list?", items)
    asks.add(
        "Which of these is not on the list?", rng.choice([food for food in _FOOD if food not in names]), rng.sample(names, 3), rule="absent"
    )
    asks.extreme("Of which thing is the highest number wanted?", items, amounts, "most")
    return Draft(canvas, asks)


def _message(rng: random.Random, style: Style) -> Draft:
    who, caller = rng.choice(FIRST), person(rng)
    phone = f"({rng.randint(201, 989)}) 555-{rng.randint(100, 199):04d}"
    hour, half = rng.choice([(8, "AM"), (9, "AM"), (10, "AM"), (11, "AM"), (12, "PM"), *((hour, "PM") for hour in range(1, 9))])
    time = f"{hour}:{rng.randint(0, 59):02d} {half}"
    about, when = rng.choice(_ABOUT), rng.choice(_WHEN)
    rows = [("To:", who), ("Caller:", caller), ("Time:", time), ("Phone:", phone), ("About:", about), ("Call back:", when)]
    canvas, type = _paper(rng, style, "While you were out", len(rows))
    asks, said = Asks(rng), []
    for i, (label, text) in enumerate(rows):
        canvas.text(100, 130 + 56 * i, label, Type("sans", 22, (120, 90, 90)), "ls")
        said.append(canvas.text(230, 130 + 56 * i, text, type, "ls", within=370))
    asks.read("Who is the message for?", said[0], rng.sample([name for name in FIRST if name != who], 3))
    asks.read("Who called?", said[1], [person(rng) for _ in range(4)])
    asks.figure("What time was the call?", said[2])
    asks.figure("What is the phone number?", said[3])
    asks.read("What was the call about?", said[4], _ABOUT)
    asks.read("When should the call be returned?", said[5], _WHEN)
    return Draft(canvas, asks)


def _chores(rng: random.Random, style: Style) -> Draft:
    names = rng.sample(_CHORES, rng.randint(5, 7))
    canvas, type = _paper(rng, style, rng.choice(["To do", "This week", "Saturday"]), len(names))
    asks, items, done = Asks(rng), [], rng.sample(range(len(names)), rng.randint(2, len(names) - 2))
    for i, name in enumerate(names):
        y = 130 + 56 * i
        canvas.rect((34, y - 28, 62, y), outline=INK, width=2)
        if i in done:
            canvas.line(38, y - 14, 46, y - 5, (24, 120, 70), 5)
            canvas.line(46, y - 5, 66, y - 34, (24, 120, 70), 5)
        items.append(canvas.text(100, y, name, type, "ls", within=500))
    for i, item in enumerate(items):
        place = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")[i]
        asks.read(f"What is the {place} thing on the list?", item, [other for other in items if other is not item])
    asks.count("How many things are on the list?", items)
    asks.count("How many things are checked off?", [items[i] for i in done])
    asks.add(
        "Which of these is not on the list?",
        rng.choice([chore for chore in _CHORES if chore not in names]),
        rng.sample(names, 3),
        rule="absent",
    )
    return Draft(canvas, asks)
