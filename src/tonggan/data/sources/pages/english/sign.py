"""Signs of American roads and buildings."""

from __future__ import annotations

import random

from tonggan.data.sources.pages import boards
from tonggan.data.sources.pages.asking import Draft, Style
from tonggan.data.sources.pages.boards import Board, Roads
from tonggan.data.sources.pages.canvas import INK
from tonggan.data.sources.pages.pools import phrases

STYLES = ("occluded", "blurred")

_BOARDS = (
    Roads(
        dict.fromkeys(("INTERSTATE 80 EAST", "INTERSTATE 5 NORTH", "US 101 SOUTH", "INTERSTATE 94 WEST")),
        "{} mi",
        "How many miles is it to {}?",
        "Which town is {} away?",
        "How many miles apart are {} and {}?",
        "{} mi",
        towns=phrases("Oakdale|Riverton|Fairview|Cedar Falls|Brookfield|Ashland|Clayton|Greenville|Milford|Franklin|Hillsboro|Easton"),
    ),
    Board(
        ("LIBRARY HOURS", "STORE HOURS", "CLINIC HOURS", "MUSEUM HOURS"),
        (
            ("Monday", "9 AM – 6 PM", "8 AM – 5 PM"),
            ("Tuesday", "10 AM – 8 PM", "9 AM – 5 PM"),
            ("Wednesday", "9 AM – 7 PM", "11 AM – 6 PM"),
            ("Thursday", "10 AM – 9 PM", "12 PM – 8 PM"),
            ("Friday", "9 AM – 4 PM", "8 AM – 3 PM"),
            ("Saturday", "10 AM – 2 PM", "11 AM – 5 PM"),
            ("Sunday", "Closed", "1 PM – 5 PM"),
        ),
        (40, 60, 96),
        "What are the hours on {}?",
        "On which day are the hours {}?",
    ),
    Board(
        ("DIRECTORY", "BUILDING DIRECTORY", "TENANTS"),
        (
            ("Suite 100", "Sunrise Dental", "Valley Bank"),
            ("Suite 120", "Parker & Lowe, CPAs", "Main St. Optical"),
            ("Suite 205", "Oak Realty", "Bright Minds Tutoring"),
            ("Suite 210", "Harbor Physical Therapy", "Nguyen Law Office"),
            ("Suite 302", "Summit Software", "Keystone Insurance"),
            ("Suite 315", "Lakeside Pediatrics", "Studio Nine"),
        ),
        (46, 46, 50),
        "Who is in {}?",
        "Which suite is {} in?",
    ),
    Board(
        ("PARKING RATES", "GARAGE RATES"),
        (
            ("First hour", "$3.00", "$4.50"),
            ("Each extra hour", "$2.00", "$2.50"),
            ("Daily maximum", "$18.00", "$24.00"),
            ("Evenings after 6", "$7.00", "$9.00"),
            ("Weekend, all day", "$10.00", "$12.00"),
            ("Lost ticket", "$30.00", "$35.00"),
        ),
        (24, 78, 150),
        "What is the rate for “{}”?",
        "Which line of the sign charges {}?",
    ),
    Board(
        ("AIRPORT TERMINALS", "TERMINAL GUIDE"),
        (
            ("Terminal A", "Gates 1–14", "Gates 1–18"),
            ("Terminal B", "Gates 20–36", "Gates 21–40"),
            ("Terminal C", "Gates 41–58", "Gates 45–63"),
            ("Level 1", "Baggage Claim", "Rental Cars"),
            ("Level 2", "Ticketing", "Check-in"),
            ("Level 3", "Food Court", "Shuttle Train"),
        ),
        (252, 202, 44),
        "What does the sign show for {}?",
        "Where does the sign send you for {}?",
        ink=INK,
        accent=INK,
    ),
)


def draw(rng: random.Random, style: Style) -> Draft:
    return boards.draw(rng, rng.choice(_BOARDS), "sans", "Which of these is not on the sign?")
