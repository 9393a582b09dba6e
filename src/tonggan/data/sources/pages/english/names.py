"""People and firms, all made up."""

from __future__ import annotations

import random

from tonggan.data.sources.pages.pools import phrases, words

FIRST = words(
    "Olivia Emma Liam Noah Ava Mason Ethan Grace Henry Lucas Nora Owen Ruby Jack Hazel Miles Clara Felix Ivy Oscar Maya Dylan Stella "
    "Aaron Tessa Caleb Joanne Derek Paula Martin Brenda Trevor Denise Keith Sandra Walter Gloria"
)
LAST = words(
    "Carter Bennett Hughes Foster Parker Coleman Reyes Simmons Walsh Donovan Fletcher Harmon Ingram Jensen Kowalski Larson Maddox "
    "Norris Okafor Pruitt Quinn Rossi Sandoval Tanaka Underwood Vance Whitaker Yates Zimmerman Barlow Connelly Drummond"
)
_FIRMS = words(
    "Maple Harbor Summit Blue River Cedar Lakeside Northgate Granite Willow Redwood Pioneer Beacon Sterling Orchard Canyon Prairie"
)
_TRADES = phrases("Supply Co.|Design LLC|Hardware|Catering|Print Shop|Landscaping|Electric|Consulting|Roofing Inc.|Office Goods")


def person(rng: random.Random) -> str:
    return f"{rng.choice(FIRST)} {rng.choice(LAST)}"


def company(rng: random.Random) -> str:
    return f"{rng.choice(_FIRMS)} {rng.choice(_TRADES)}"
