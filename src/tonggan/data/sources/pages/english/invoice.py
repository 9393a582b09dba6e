"""Invoices in dollars."""

from __future__ import annotations

import datetime
import random

from tonggan.data.sources.pages.asking import Asks, Draft, Style
from tonggan.data.sources.pages.canvas import GRAY, INK, Canvas, Type
from tonggan.data.sources.pages.charts import PALETTE
from tonggan.data.sources.pages.english.names import company, person
from tonggan.data.sources.pages.near import near_dates
from tonggan.data.sources.pages.parts import table

STYLES = ("handwritten", "occluded", "blurred")

_ITEMS = (
    ("Copy paper, letter size", 6, 12),
    ("Ballpoint pens, box of 12", 5, 14),
    ("Desk lamp, LED", 24, 60),
    ("Office chair, mesh back", 110, 280),
    ("Business cards, set of 500", 30, 75),
    ("Window cleaning, per hour", 35, 60),
    ("Web design, per hour", 65, 140),
    ("Extension cord, 25 ft", 14, 32),
    ("Paint, exterior white, gal", 28, 54),
    ("Lumber, 2x4x8", 4, 9),
    ("Potting soil, 1.5 cu ft", 8, 16),
    ("Garden hose, 50 ft", 22, 45),
    ("Sandwich platter, large", 55, 110),
    ("Coffee service, per urn", 28, 50),
    ("Folding table rental", 9, 18),
    ("Toner cartridge, black", 60, 130),
    ("Light switch, single pole", 3, 8),
    ("Gutter repair, per ft", 6, 14),
    ("Filing cabinet, 2 drawer", 95, 190),
    ("Banner, vinyl 3x6", 45, 90),
)


def _dollars(cents: int) -> str:
    return f"${cents // 100:,}.{cents % 100:02d}"


def _day(day: datetime.date) -> str:
    return f"{day:%B} {day.day}, {day.year}"


def draw(rng: random.Random, style: Style) -> Draft:
    canvas, asks = Canvas(860, 1000), Asks(rng)
    face, accent = rng.choice(["sans", "serif"]), rng.choice(PALETTE[:5])
    text = Type(face, 22)
    filled = Type(rng.choice(["caveat", "kalam"]), 28, (24, 40, 120)) if style.hand else text
    label = text.but(color=GRAY, size=20)
    seller, buyer = rng.sample(list(dict.fromkeys(company(rng) for _ in range(6))), 2)
    canvas.text(50, 40, seller, Type(face, 32, accent, bold=True))
    canvas.text(810, 36, "INVOICE", Type(face, 40, INK, bold=True), "ra")
    canvas.rule(100, 50, 810, accent, 3)
    issued = datetime.date(2023, 1, 1) + datetime.timedelta(rng.randrange(1000))
    due = issued + datetime.timedelta(rng.choice([14, 21, 30, 45]))
    number, contact = f"{rng.choice('ABCDKLM')}{rng.choice('ABCDKLM')}-{rng.randint(10000, 99999)}", person(rng)
    canvas.text(50, 118, "Bill to", label)
    said_buyer = canvas.text(50, 146, buyer, filled, within=380)
    canvas.text(50, 186, "Attn:", label)
    said_contact = canvas.text(106, 184, contact, filled)
    said = []
    for i, (name, value) in enumerate((("Invoice no.", number), ("Date", _day(issued)), ("Due date", _day(due)))):
        canvas.text(460, 120 + 36 * i, name, label)
        said.append(canvas.text(810, 118 + 36 * i, value, filled, "ra"))

    items = rng.sample(_ITEMS, rng.randint(4, 7))
    rows, subtotal = [["Description", "Qty", "Unit price", "Amount"]], 0
    for name, low, high in items:
        quantity, price = rng.randint(1, 20), rng.randint(low * 100, high * 100)
        rows.append([name, str(quantity), _dollars(price), _dollars(quantity * price)])
        subtotal += quantity * price
    widths = (360, 80, 150, 170)
    marks = table(
        canvas,
        50,
        246,
        widths,
        rows,
        text,
        height=46,
        head=text.but(bold=True, size=20),
        align="lrrr",
        upright=False,
        band=(236, 238, 242),
        body=[text, filled, filled, filled],
    )
    y = 246 + 46 * len(rows) + 20
    rate = rng.choice([5, 6, 7, 8])
    tax = round(subtotal * rate / 100)
    sums = []
    for i, (name, cents) in enumerate((("Subtotal", subtotal), (f"Sales tax ({rate}%)", tax), ("Total due", subtotal + tax))):
        look = filled.but(size=filled.size + 2) if i == 2 else filled
        canvas.text(520, y + 42 * i, name, text.but(bold=i == 2), "ra")
        sums.append(canvas.text(798, y + 42 * i, _dollars(cents), look, "ra"))
    canvas.rule(y + 78, 400, 810)
    canvas.text(50, y + 60, "Thank you for your business.", label)
    canvas.cut(y + 150)

    body = marks[1:]
    asks.figure("What is the total due on this invoice?", sums[2], sums[:2])
    asks.figure("How much sales tax is charged?", sums[1], [sums[0], *(row[3] for row in body)])
    asks.figure("What is the subtotal?", sums[0], sums[1:])
    asks.figure("What is the invoice number?", said[0])
    asks.read("When is payment due?", said[2], map(_day, near_dates(due, rng, issued)))
    asks.read("What date is on the invoice?", said[1], map(_day, near_dates(issued, rng, due)))
    asks.read("Which company is being billed?", said_buyer, [seller, *(company(rng) for _ in range(5))][:4])
    asks.read("To whose attention is the invoice addressed?", said_contact, [person(rng) for _ in range(4)])
    for row in rng.sample(body, 2):
        c, what = rng.choice([(1, "quantity billed"), (2, "unit price"), (3, "amount")])
        asks.figure(f"What is the {what} for “{row[0].text}”?", row[c], [r[c] for r in body if r is not row], [row[0]])
    asks.extreme("Which line item has the highest amount?", [row[0] for row in body], [row[3] for row in body], "most")
    asks.count("How many line items does the invoice list?", [row[0] for row in body])
    return Draft(canvas, asks)
