"""Pictures with labels, as the tasks of classification read them: a column's cell, its labels, and the class that was guessed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from tonggan.data.media import load_image
from tonggan.data.resolve import resolve
from tonggan.types import Audio, Dropped, Image, Media, MediaError, Row, UsageError, Video

Kind: TypeAlias = Literal["image", "audio", "video"]
NAMES: dict[Kind, str] = {"image": "picture", "audio": "sound", "video": "clip"}

_BETWEEN = re.compile(r"[|;；、\n]")


def labelled(rows: Sequence[Row], column: str, kind: Kind = "image") -> tuple[list[tuple[Row, str]], list[Dropped]]:
    """Rows with a picture (sound, clip), each with its cell of the column (`meta[column]`; `group` and `split` may be named too), and the
    other rows.

    No such row at all is a `UsageError` that names the columns there are.
    """
    kept = [(row, value) for row in rows if medium(row, kind) and (value := cell(row, column))]
    if not kept:
        columns = sorted({key for row in rows[:100] for key in row.meta} | {"group"})
        raise UsageError(f"no {NAMES[kind]} has a label in column {column!r}; columns: {', '.join(columns)}")
    without = [row for row in rows if not (medium(row, kind) and cell(row, column))]
    return kept, [Dropped(row.id, f"column {column!r} is empty" if medium(row, kind) else f"no {NAMES[kind]}") for row in without]


def medium(row: Row, kind: Kind) -> Image | Audio | Video | None:
    """The row's first picture, sound or clip, which stands for it; None where it has none."""
    every: dict[Kind, tuple[Image, ...] | tuple[Audio, ...] | tuple[Video, ...]]
    every = {"image": row.images, "audio": row.audios, "video": row.videos}
    return every[kind][0] if every[kind] else None


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


def content(image: Media) -> object:
    """Equal for handles on one file or one URL, or on the same bytes or numbers."""
    if isinstance(image.array, np.ndarray):
        return image.array.shape, image.array.dtype.str, hashlib.sha256(image.array.tobytes()).digest()
    return image.path or image.url or image.data or id(image.array)


def why_unread(part: Image | Audio | Video) -> str:
    """Why a model has no features for a picture; of a sound or a clip that it could not be read is all that is known."""
    if not isinstance(part, Image):
        return "it cannot be read, or the model's features of it are not numbers"
    try:
        load_image(resolve(part))
    except MediaError as error:
        return error.reason
    return "the model's features of it are not numbers"


def guesses(scores: np.ndarray, truth: np.ndarray, found: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The highest class of scores [n, classes]; where the true one was not `found` ahead of all others, the highest of the others:
    a tie is a mistake."""
    wrong = np.where(np.isnan(scores), -np.finfo(np.float64).max, scores)
    wrong[np.arange(len(truth)), truth] = -np.inf
    return [classes[i] for i in np.where(found, truth, wrong.argmax(axis=1))]
