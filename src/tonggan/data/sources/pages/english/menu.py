"""Menus of a diner."""

from __future__ import annotations

import random

from tonggan.data.sources.pages.asking import Asks, Draft, Style
from tonggan.data.sources.pages.canvas import INK, WHITE, Canvas, Mark, Type
from tonggan.data.sources.pages.pools import phrases

STYLES = ("handwritten", "occluded", "blurred")

_SECTIONS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    # lowest and highest price in dollars
    "Breakfast": (
        6,
        16,
        phrases(
            "Two Eggs Any Style|Buttermilk Pancakes|Western Omelet|French Toast|Biscuits & Gravy|Huevos Rancheros|Belgian Waffle|"
            "Steak & Eggs|Oatmeal with Berries|Corned Beef Hash"
        ),
    ),
    "Sandwiches": (
        8,
        17,
        phrases("Turkey Club|BLT|Grilled Cheese|Tuna Melt|Reuben|Philly Cheesesteak|Patty Melt|Bacon Cheeseburger|Egg Salad|Pulled Pork"),
    ),
    "Dinner Plates": (
        13,
        29,
        phrases(
            "Meatloaf|Chicken Pot Pie|Fried Chicken|Fish & Chips|Pot Roast|Spaghetti & Meatballs|Baby Back Ribs|Chicken Fried Steak|"
            "Grilled Salmon"
        ),
    ),
    "Sides": (2, 8, phrases("French Fries|Onion Rings|Coleslaw|Hash Browns|Mac & Cheese|Side Salad|Baked Potato|Cup of Chili|Grits")),
    "Drinks": (2, 7, ("Coffee", "Iced Tea", "Lemonade", "Chocolate Milkshake", "Root Beer", "Orange Juice", "Hot Chocolate", "Ginger Ale")),
    "Desserts": (4, 9, ("Apple Pie", "Cherry Cobbler", "Banana Split", "Carrot Cake", "Key Lime Pie", "Brownie Sundae", "Rice Pudding")),
}
_NAMES = phrases(
    "Rosie's Diner|The Silver Spoon|Main Street Grill|Blue Plate Café|Hank's Roadhouse|Corner Booth|Lucky's Lunch Counter|Mabel's Kitchen"
)
_LOOKS = (
    ((255, 252, 245), INK, (176, 36, 40)),
    ((250, 244, 228), (54, 40, 30), (30, 92, 84)),
    (WHITE, INK, (34, 70, 140)),
    ((36, 44, 46), (240, 240, 234), (255, 206, 92)),
)
_CENTS = (25, 50, 75, 95, 99)
"""What prices of a diner end in."""


def draw(rng: random.Random, style: Style) -> Draft:
    paper, ink, accent = _LOOKS[3] if style.hand else rng.choice(_LOOKS)
    canvas, asks = Canvas(760, 1400, paper), Asks(rng)
    face = rng.choice(["caveat", "kalam"]) if style.hand else rng.choice(["serif", "sans"])
    item = Type(face, 33 if style.hand else 26, ink)
    canvas.text(380, 36, rng.choice(_NAMES), Type(face, 54, accent), "ma")
    y = 136.0
    written: dict[str, list[tuple[Mark, Mark]]] = {}
    for section in rng.sample(list(_SECTIONS), rng.randint(2, 3)):
        low, high, dishes = _SECTIONS[section]
        canvas.text(60, y, section, item.but(color=accent, bold=not style.hand))
        canvas.rule(y + 46, 60, 700, accent, 2)
        y += 62
        written[section] = []
        prices = rng.sample([whole * 100 + cents for whole in range(low, high) for cents in _CENTS], 6)
        for dish, cents in zip(rng.sample(dishes, rng.randint(4, 6)), prices, strict=False):
            name = canvas.text(70, y + item.size, dish, item, "ls")
            price = canvas.text(690, y + item.size, f"${cents // 100}.{cents % 100:02d}", item, "rs")
            written[section].append((name, price))
            y += 46
        y += 26
    canvas.rect((24, 20, 736, y + 6), outline=accent, width=3)
    canvas.cut(y + 30)
    _ask(asks, written)
    return Draft(canvas, asks)


def _near(price: str, rng: random.Random) -> list[str]:
    """Prices that a diner could ask as well: other cents, or up to three dollars more or less."""
    dollars, cents = price.removeprefix("$").split(".")
    near = [f"${dollars}.{other}" for other in _CENTS if other != int(cents)]
    near += [
        f"${other}.{cents}" for step in (-3, -2, -1, 1, 2, 3) if len(other := str(int(dollars) + step)) == len(dollars) and other != "0"
    ]
    rng.shuffle(near)
    return near


def _ask(asks: Asks, written: dict[str, list[tuple[Mark, Mark]]]) -> None:
    rng = asks.rng
    every = [pair for pairs in written.values() for pair in pairs]
    prices = [price.text for _, price in every]
    for name, price in rng.sample(every, 3):
        asks.figure(f"What is the price of “{name.text}”?", price, [other for _, other in every if other is not price], [name], slips=_near)
        if prices.count(price.text) == 1:
            asks.read(f"Which item costs {price.text}?", name, [other for other, _ in every if other is not name], [price])
    for section, pairs in written.items():
        names, values = [name for name, _ in pairs], [price for _, price in pairs]
        asks.count(f"How many items are listed under {section}?", names)
        asks.extreme(f"What is the most expensive item under {section}?", names, values, "most")
        asks.extreme(f"What is the cheapest item under {section}?", names, values, "least")
    (a, pa), (b, pb) = rng.sample(every, 2)
    asks.total(
        f"You order one {a.text} and one {b.text}. What do they cost together, before tax and tip?", [pa, pb], lambda value: f"${value:.2f}"
    )
    there = {name.text for name, _ in every}
    gone = [dish for section in written for dish in _SECTIONS[section][2] if dish not in there]
    asks.add("Which of these is not on the menu?", rng.choice(gone), rng.sample(sorted(there), 3), rule="absent")
