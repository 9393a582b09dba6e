"""Picture-text retrieval both ways, per language, with several captions per picture.

Protocol `retrieval/v1`. Text to picture: each caption is a query over all pictures. Picture to text: each picture is a
query over all captions *of that language*; its best-ranked right caption counts. Right pairs are those of the same row,
of the same group, or with literally the same caption. Ties count against the model. Intervals: `evaluate.resample`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tonggan.evaluate.metrics.ranks import chance_at, expected_rank, ranks
from tonggan.evaluate.metrics.summary import summary
from tonggan.evaluate.resample import RESAMPLES
from tonggan.evaluate.result import Result
from tonggan.types import CannotError, Dropped, EmbedOptions, Model, Row, UsageError

PROTOCOL = "retrieval/v1: ties pessimistic, gallery fixed, positives row|group|caption, clusters picture, bootstrap 2000 seed 0"
AT = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class _Caption:
    row: int
    text: str


def _unique(captions: Iterable[_Caption]) -> list[_Caption]:
    """A caption that a row holds twice is one query."""
    return list(dict.fromkeys(captions))


def retrieval(
    model: Model,
    rows: Iterable[Row],
    *,
    data: str = "",
    langs: Sequence[str] | None = None,
    options: EmbedOptions | None = None,
    intervals: bool = True,
) -> Result:
    """R@1/5/10, median and mean rank, both ways and per language, with intervals and chance.

    Rows without a picture or without a caption do not take part; a row with several pictures is represented by its first.
    Unreadable pictures and captions leave the gallery and are listed in `dropped`. A picture without a caption in some language
    stays among the candidates of that language's captions, but is no query for them (unless its group has one). The primary metric
    is the mean of R@1, R@5 and R@10 over directions and languages, each with equal weight.
    `intervals=False` saves the resampling inside a training loop.
    """
    if not {"text", "image"} <= model.modalities:
        raise CannotError(f"{model.name} embeds {', '.join(sorted(model.modalities))}; retrieval needs text and image")
    kept = [row for row in rows if row.images and row.texts]
    if not kept:
        raise UsageError("retrieval needs rows with a picture and a caption; there are none")
    pictures = model.embed([row.images[0] for row in kept], options)
    dropped = [Dropped(kept[i].id, reason) for i, reason in sorted(pictures.errors.items())]
    good = [i for i in range(len(kept)) if i not in pictures.errors]
    if not good:
        raise UsageError(f"none of {len(kept)} pictures could be read; the first: {dropped[0].where}: {dropped[0].reason}")
    kept = [kept[i] for i in good]
    images = pictures.vectors[good]

    by_lang: dict[str, list[_Caption]] = defaultdict(list)
    for i, row in enumerate(kept):
        for text in row.texts:
            by_lang[text.lang or "und"].append(_Caption(i, text.text))
    items: list[dict[str, Any]] = []
    chance: dict[str, float] = {}
    notes: list[str] = []
    for lang in list(dict.fromkeys(langs)) if langs else sorted(by_lang):
        captions = _unique(by_lang.get(lang, []))
        if not captions:
            raise UsageError(f"no captions in {lang!r}; there are: {', '.join(sorted(by_lang))}")
        texts = model.embed([c.text for c in captions], options)
        dropped += [Dropped(kept[captions[n].row].id, reason) for n, reason in sorted(texts.errors.items())]
        read = [n for n in range(len(captions)) if n not in texts.errors]
        if not read:
            raise UsageError(f"none of {len(captions)} captions in {lang!r} could be read; the first: {texts.errors[0]}")
        if texts.truncated:
            notes.append(f"{lang}: {len(texts.truncated)} of {len(captions)} captions were longer than the model reads and were cut")
        captions, words = [captions[n] for n in read], texts.vectors[read]
        if shared := len(captions) - len({c.text for c in captions}):
            notes.append(f"{lang}: {shared} of {len(captions)} captions repeat another's words; intervals take each for a query of its own")
        to_image, to_text = _positives(kept, captions)
        pictured = sorted(to_text)
        right = [to_text[i] for i in pictured]
        queries = [(kept[c.row].id, c.text) for c in captions]
        items += _items(f"t2i {lang}", queries, ranks(words, images, to_image), to_image, len(kept))
        items += _items(f"i2t {lang}", [(kept[i].id, None) for i in pictured], ranks(images[pictured], words, right), right, len(captions))
        chance |= _chance(f"t2i {lang}", to_image, len(kept)) | _chance(f"i2t {lang}", right, len(captions))
    chance["mean recall"] = float(np.mean([value for name, value in chance.items() if "R@" in name]))
    return Result(
        protocol=PROTOCOL,
        model=model.name,
        weights=model.identity.weights,
        data=data,
        primary="mean recall",
        metrics=summary(items, chance=chance, resamples=RESAMPLES if intervals else 0),
        items=items,
        dropped=dropped,
        notes=notes,
    )


def _positives(rows: Sequence[Row], captions: Sequence[_Caption]) -> tuple[list[list[int]], dict[int, list[int]]]:
    """Right pictures of each caption, and right captions of each picture that has any in this language."""
    members: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        members[row.group if row.group is not None else f"\0{i}"].append(i)
    same_text: dict[str, list[int]] = defaultdict(list)
    of_row: dict[int, list[int]] = defaultdict(list)
    for number, caption in enumerate(captions):
        same_text[caption.text].append(number)
        of_row[caption.row].append(number)

    def group(i: int) -> list[int]:
        key = rows[i].group
        return members[key if key is not None else f"\0{i}"]

    to_image = [sorted({*group(c.row), *(captions[n].row for n in same_text[c.text])}) for c in captions]
    to_text: dict[int, list[int]] = {}
    for i in range(len(rows)):
        right = {n for j in group(i) for n in of_row.get(j, ())}
        right |= {n for own in of_row.get(i, ()) for n in same_text[captions[own].text]}
        if right:
            to_text[i] = sorted(right)
    return to_image, to_text


def _items(
    task: str, queries: Sequence[tuple[str, str | None]], found: np.ndarray, right: Sequence[Sequence[int]], candidates: int
) -> list[dict[str, Any]]:
    """One record per query: the row's id and, where words are the query, its caption."""
    return [
        {
            "id": f"{task} {row}" + ("" if caption is None else f" {caption}"),
            "task": task,
            "cluster": row,
            "query": row if caption is None else caption,
            "candidates": candidates,
            "right": len(right[n]),
            "rank": rank,
            **{f"R@{k}": int(rank <= k) for k in AT},
        }
        for n, ((row, caption), rank) in enumerate(zip(queries, found.tolist(), strict=True))
    ]


def _chance(task: str, right: Sequence[Sequence[int]], candidates: int) -> dict[str, float]:
    """What a random order of the candidates would give on average. (The median has no such closed form.)"""
    sizes = Counter(map(len, right))
    by_size = {f"{task} R@{k}": {size: chance_at(k, candidates, size) for size in sizes} for k in AT}
    by_size[f"{task} mean rank"] = {size: expected_rank(candidates, size) for size in sizes}
    return {name: sum(sizes[size] * value for size, value in of.items()) / len(right) for name, of in by_size.items()}
