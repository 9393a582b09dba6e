"""What is peculiar to tables that VLMEvalKit exports: rotations of a question as rows of their own, and rows that share a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from tonggan.data.formats.base import Reading
from tonggan.data.formats.cells import Record, as_text, plain_name
from tonggan.data.formats.questions import Asking

ROTATION = 1_000_000
"""A row of index `n * ROTATION + i` asks question `i` again, its choices in another order."""


def first_pass(records: Iterable[Record], asked: Asking, index: str | None, job: Reading) -> Iterator[Record]:
    """Without rotations: rows that ask the same as the row of their index modulo a million, which comes before them."""
    if not asked.lettered or index is None or plain_name(index) != "index":
        yield from records
        return
    first: dict[int, str | None] = {}
    left = 0
    for where, cells in records:
        number, question = as_text(cells.get(index)) or "", as_text(cells.get(asked.question))
        if number.isascii() and number.isdigit():
            if int(number) >= ROTATION and first.get(int(number) % ROTATION, "") == question:
                left += 1
                continue
            first[int(number)] = question
        yield where, cells
    if left:
        rows = "rows are rotations" if left > 1 else "row is a rotation"
        job.note(f"{left:,} {rows} of others (index from {ROTATION:,} on): left out, asking in every order makes them again")


def with_held(records: Iterable[Record], index: str | None, image: str | None) -> tuple[Iterable[Record], dict[str, str]]:
    """The records, and the pictures in base64 by the id of their row: other rows may name that id instead of a picture."""
    stream = iter(records)
    start = list(islice(stream, 50))
    if index is None or image is None or not any(_is_long(cells.get(image)) for _, cells in start):
        return chain(start, stream), {}
    every = [*start, *stream]
    pictures = {as_text(cells.get(index)): cells[image] for _, cells in every if _is_long(cells.get(image))}
    return every, {name: cell for name, cell in pictures.items() if name is not None}


def _is_long(cell: Any) -> bool:
    return isinstance(cell, str) and len(cell) > 200
