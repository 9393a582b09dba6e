"""docs/pages.jpg: the first 125 pages (500 questions) of pages-zh-en, to be looked at.

.venv/bin/python scripts/contact_sheet.py docs/pages.jpg
"""

from __future__ import annotations

import sys

import PIL.Image

from tonggan.data.sources import pages

COUNT, COLUMNS, SIDE, GAP = 125, 13, 196, 4


def main(path: str) -> None:
    """Draw every page into a cell of its own."""
    rows = -(-COUNT // COLUMNS)
    sheet = PIL.Image.new("RGB", (COLUMNS * (SIDE + GAP), rows * (SIDE + GAP)), (120, 120, 120))
    for number in range(COUNT):
        picture = pages.page(number).picture.convert("RGB")
        picture.thumbnail((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)
        row, column = divmod(number, COLUMNS)
        place = column * (SIDE + GAP) + (SIDE - picture.width) // 2, row * (SIDE + GAP) + (SIDE - picture.height) // 2
        sheet.paste(picture, place)
    sheet.save(path, quality=72)


if __name__ == "__main__":
    main(sys.argv[1])
