"""Pictures with labels, as the tasks of classification read them: a column's cell, its labels, and the class that was guessed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

import numpy as np

from tonggan.data.media import load_image, resolve
from tonggan.types import Dropped, Image, MediaError, Row, UsageError

_BETWEEN = re.compile(r"[|;；、\n]")


def labelled(rows: Sequence[Row], column: str) -> tuple[list[tuple[Row, str]], list[Dropped]]:
    """Rows with a picture, each with its cell of the column (`meta[column]`; `group` and `split` may be named too), and the other rows.

    No such row at all is a `UsageError` that names the columns there are.
    """
    kept = [(row, value) for row in rows if row.images and (value := cell(row, column))]
    if not kept:
        columns = sorted({key for row in rows[:100] for key in row.meta} | {"group"})
        raise UsageError(f"no picture has a label in column {column!r}; columns: {', '.join(columns)}")
    without = [row for row in rows if not (row.images and cell(row, column))]
    return kept, [Dropped(row.id, f"column {column!r} is empty" if row.images else "no picture") for row in without]


def cell(row: Row, column: str) -> str | None:
    """What a row says in a column; None where that is nothing."""
    if column == "group":
        return row.group
    return row.split if column == "split" else row.meta.get(column) or None


def labels_in(text: str) -> tuple[str, ...]:
    """The labels in one cell, each once: a JSON list, or divided by | ; 、 or lines. A comma divides nothing: it may be in a name."""
    written = text.strip()
    if written.startswith("["):
        try:
            listed = json.loads(written)
        except ValueError:
            listed = None
        if isinstance(listed, list):
            return tuple(dict.fromkeys(label for one in listed if (label := str(one).strip())))
    return tuple(dict.fromkeys(label for part in _BETWEEN.split(written) if (label := part.strip())))


def content(image: Image) -> object:
    """Equal for handles on one file or one URL, or on the same bytes or numbers."""
    if isinstance(image.array, np.ndarray):
        return image.array.shape, image.array.dtype.str, hashlib.sha256(image.array.tobytes()).digest()
    return image.path or image.url or image.data or id(image.array)


def why_unread(image: Image) -> str:
    """Why a model has no features for a picture."""
    try:
        load_image(resolve(image))
    except MediaError as error:
        return error.reason
    return "the model's features of it are not numbers"


def guesses(scores: np.ndarray, truth: np.ndarray, found: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The highest class of scores [n, classes]; where the true one was not `found` ahead of all others, the highest of the others:
    a tie is a mistake."""
    wrong = np.where(np.isnan(scores), -np.finfo(np.float64).max, scores)
    wrong[np.arange(len(truth)), truth] = -np.inf
    return [classes[i] for i in np.where(found, truth, wrong.argmax(axis=1))]
