"""Matching: whether a model that reads a picture and a text together tells right pairs from wrong ones.

Protocol `matching/v1`: each row's picture with one of its captions, and the same picture with a caption of another row, drawn once by
seed 0 among rows that share neither group, picture nor caption. `acc`: a right pair is scored above one half, a wrong one not;
`ranked`: the right caption is scored above the wrong one. Ties are mistakes. Chance is one half for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tonggan.evaluate.metrics.summary import summary
from tonggan.evaluate.resample import RESAMPLES
from tonggan.evaluate.result import Result
from tonggan.evaluate.tasks.labelled import content
from tonggan.types import CannotError, Dropped, Item, Model, Row, UsageError

PROTOCOL = (
    "matching/v1: one caption per row and language, one wrong caption each, seed 0, ties pessimistic, clusters picture, bootstrap 2000"
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
        wrong = _others(some, said)
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
                    "cluster": row.id,
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


def _others(rows: Sequence[Row], said: Sequence[str]) -> list[int]:
    """For each row the number of another that it has nothing in common with."""
    random = np.random.default_rng(0)
    pictures = [content(row.images[0]) for row in rows]
    found = []
    for i, row in enumerate(rows):
        order = random.permutation(len(rows)).tolist()
        other = next(
            (j for j in order if pictures[j] != pictures[i] and said[j] != said[i] and (row.group is None or rows[j].group != row.group)),
            None,
        )
        if other is None:
            raise UsageError(
                f"row {row.id} has its picture, caption or group in common with every other: there is no wrong pair to compare with"
            )
        found.append(other)
    return found
