"""What charts show in English."""

from __future__ import annotations

import random

from tonggan.data.sources.pages import charts
from tonggan.data.sources.pages.asking import Draft, Style
from tonggan.data.sources.pages.charts import STYLES, Series, Shares
from tonggan.data.sources.pages.pools import phrases, words

__all__ = ["STYLES", "draw"]

_SERIES = (
    Series(
        "Electricity Used per Month (kWh)", "{} kWh", words("Jan Feb Mar Apr May Jun"), "How much electricity was used in {}?",
        "In which month was the most electricity used?", "In which month was the least electricity used?",
        "By how much did the electricity used in {} and {} differ?",
    ),
    Series(
        "Museum Visitors by Day", "{}", words("Mon Tue Wed Thu Fri Sat"), "How many visitors came on {}?",
        "Which day had the most visitors?", "Which day had the fewest visitors?",
        "By how many did the visitors on {} and {} differ?",
    ),
    Series(
        "Boxes Shipped by Warehouse", "{}", words("Reno Tampa Akron Boise Tulsa Macon"), "How many boxes did {} ship?",
        "Which warehouse shipped the most boxes?", "Which warehouse shipped the fewest boxes?",
        "By how many boxes do {} and {} differ?",
    ),
    Series(
        "Books Borrowed by Genre", "{}", words("Mystery Romance Sci-fi History Travel Poetry"), "How many {} books were borrowed?",
        "Which genre was borrowed most?", "Which genre was borrowed least?", "By how many books do {} and {} differ?",
    ),
    Series(
        "Miles Driven per Week", "{} miles", phrases("Wk 1|Wk 2|Wk 3|Wk 4|Wk 5|Wk 6"), "How many miles were driven in {}?",
        "In which week was the distance longest?", "In which week was the distance shortest?",
        "By how much do the distances of {} and {} differ?",
    ),
)  # fmt: skip
_SHARES = (
    Shares(
        "Household Budget", words("Rent Groceries Transit Utilities Savings Fun"), "What share of the budget goes to {}?",
        "What takes {} of the budget?", "What takes the largest share?", "What takes the smallest share?",
        "What do {} and {} take together?",
    ),
    Shares(
        "How Employees Commute", phrases("Car|Bus|Train|Bicycle|On foot"), "What share of employees commute this way: {}?",
        "How do {} of employees commute?", "How do most employees commute?", "Which way of commuting is least common?",
        "What do {} and {} make together?",
    ),
    Shares(
        "Favorite Pizza Topping", words("Pepperoni Mushroom Sausage Pineapple Olives"), "What share of the votes did {} get?",
        "Which topping got {} of the votes?", "Which topping got the most votes?", "Which topping got the fewest votes?",
        "What share did {} and {} get together?",
    ),
    Shares(
        "Electricity by Source", words("Gas Nuclear Wind Solar Hydro Coal"), "What share of the electricity comes from {}?",
        "Which source supplies {}?", "Which source supplies the most?", "Which source supplies the least?",
        "What do {} and {} supply together?",
    ),
)  # fmt: skip


def draw(rng: random.Random, style: Style) -> Draft:
    return charts.draw(rng, style, _SERIES, _SHARES)
