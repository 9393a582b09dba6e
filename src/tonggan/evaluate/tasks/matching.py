"""Matching: whether a model that reads a picture and a text together tells right pairs from wrong ones.

Protocol `matching/v2`: each row's picture with its first caption of a language, and the same picture with that of another row, drawn once
by seed 0 among rows of another group and another picture whose caption is none of this picture's or group's own (case, space and
punctuation aside). `acc`: a right pair is scored above one half, a wrong one not;
`ranked`: the right caption is scored above the wrong one. Ties are mistakes. Chance is one half for both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tonggan.data.splits import caption_key
from tonggan.evaluate.metrics.summary import summary
from tonggan.evaluate.resample import RESAMPLES
from tonggan.evaluate.result import Result
from tonggan.evaluate.tasks.labelled import content
from tonggan.types import CannotError, Dropped, Item, Model, Row, UsageError

PROTOCOL = (
    "matching/v2: first caption per row and language, one wrong caption each, none of the picture's or group's own, seed 0, "
    "ties pessimistic, clusters picture, bootstrap 2000"
)


def matching(model: Model, rows: Iterable[Row], *, data: str = "", langs: Sequence[str] | None = None, intervals: bool = True) -> Result:
    """Accuracy on right and wrong pairs, per language.

    Rows without a picture or a caption, and pictures that cannot be read, are listed in `dropped`.
    """
    if "match" not in model.can:
        raise CannotError(f"{model.name} does not read a picture and a text together; it can: {', '.join(sorted(model.can)) or 'nothing'}")
    every = list(rows)
    shown = [row for row in every if row.images and row.texts]
    dropped = [Dropped(row.id, "no caption" if row.images else "no picture") for row in every if not (row.images and row.texts)]
    spoken = sorted({text.lang or "und" for row in shown for text in row.texts})
    items: list[dict[str, Any]] = []
    for lang in langs or spoken:
        some = [row for row in shown if any((text.lang or "und") == lang for text in row.texts)]
        if len(some) < 2:
            raise UsageError(f"matching needs two rows or more with a picture and a caption in {lang!r}; there are {len(some)}")
        said = [next(text.text for text in row.texts if (text.lang or "und") == lang) for row in some]
        first_of = {content(row.images[0]): row.id for row in reversed(some)}
        wrong = _others(some, said, lang)
        pairs: list[tuple[Item, Item]] = [(row.images[0], text) for row, text in zip(some, said, strict=True)]
        pairs += [(row.images[0], said[j]) for row, j in zip(some, wrong, strict=True)]
        right_scores, wrong_scores = np.split(model.match(pairs), 2)
        for row, right, against in zip(some, right_scores.tolist(), wrong_scores.tolist(), strict=True):
            if np.isnan(right):
                dropped.append(Dropped(row.id, "its picture cannot be read"))
                continue
            items.append(
                {
                    "id": f"match {lang} {row.id}",
                    "task": f"match {lang}",
                    "cluster": first_of[content(row.images[0])],
                    "right": right,
                    "wrong": against,
                    "acc": ((right > 0.5) + (against < 0.5)) / 2,
                    "ranked": float(right > against),
                }
            )
    chance = {f"match {lang} {name}": 0.5 for lang in langs or spoken for name in ("acc", "ranked")}
    return Result(
        protocol=PROTOCOL,
        model=model.name,
        weights=model.identity.weights,
        data=data,
        primary="acc",
        metrics=summary(items, chance=chance | {"acc": 0.5}, resamples=RESAMPLES if intervals else 0),
        items=items,
        dropped=dropped,
    )


def _others(rows: Sequence[Row], said: Sequence[str], lang: str) -> list[int]:
    """For each row the number of another whose caption is wrong for its picture."""
    random = np.random.default_rng(0)
    keys = [caption_key(text) or text for text in said]
    ties: list[list[object]] = [[content(row.images[0]), *([("group", row.group)] if row.group is not None else [])] for row in rows]
    right: defaultdict[object, set[str]] = defaultdict(set)
    for row, tied in zip(rows, ties, strict=True):
        for tie in tied:
            right[tie] |= {caption_key(text.text) or text.text for text in row.texts if (text.lang or "und") == lang}
    found = []
    for i, row in enumerate(rows):
        own = set().union(*(right[tie] for tie in ties[i]))
        order = random.permutation(len(rows)).tolist()
        other = next((j for j in order if not set(ties[i]) & set(ties[j]) and keys[j] not in own), None)
        if other is None:
            raise UsageError(
                f"row {row.id} has its picture, caption or group in common with every other: there is no wrong pair to compare with"
            )
        found.append(other)
    return found
