"""Picture-text retrieval both ways, per language, with several captions per picture.

Protocol `retrieval/v1`. Text to picture: each caption is a query over all pictures. Picture to text: each picture is a
query over all captions *of that language*; its best-ranked right caption counts. Right pairs are those of the same row,
of the same group, or with literally the same caption. Ties count against the model. Intervals: `evaluate.resample`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tonggan.evaluate.metrics.ranks import chance_at, median_rank, ranks
from tonggan.evaluate.resample import Estimate, mean_interval, mean_of_means, statistic_interval
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
    Unreadable pictures leave the gallery and are listed in `dropped`. The primary metric is
    the mean of R@1, R@5 and R@10 over directions and languages, each with equal weight.
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
    wanted = list(langs) if langs else sorted(by_lang)
    metrics: dict[str, Estimate] = {}
    items: list[dict[str, Any]] = []
    notes: list[str] = []
    recalls: list[tuple[np.ndarray, Sequence[object]]] = []
    for lang in wanted:
        captions = _unique(by_lang.get(lang, []))
        if not captions:
            raise UsageError(f"no captions in {lang!r}; there are: {', '.join(sorted(by_lang))}")
        texts = model.embed([c.text for c in captions], options)
        if texts.truncated:
            notes.append(f"{lang}: {len(texts.truncated)} of {len(captions)} captions were longer than the model reads and were cut")
        to_image, to_text = _positives(kept, captions)
        pictured = sorted(to_text)
        for direction, found, pools, names, total in (
            ("t2i", ranks(texts.vectors, images, to_image), to_image, [(c.row, n) for n, c in enumerate(captions)], len(kept)),
            (
                "i2t",
                ranks(images[pictured], texts.vectors, [to_text[i] for i in pictured]),
                [to_text[i] for i in pictured],
                [(i, None) for i in pictured],
                len(captions),
            ),
        ):
            task = f"{direction} {lang}"
            clusters = [kept[at].id for at, _ in names]
            metrics |= _summary(task, found, clusters, [len(p) for p in pools], total, intervals)
            for rank, (at, caption) in zip(found.tolist(), names, strict=True):
                items.append(
                    {
                        "id": f"{task} {kept[at].id}" + ("" if caption is None else f" {captions[caption].text}"),
                        "task": task,
                        "cluster": kept[at].id,
                        "query": kept[at].id if caption is None else captions[caption].text,
                        "rank": rank,
                        **{f"R@{k}": int(rank <= k) for k in AT},
                    }
                )
            recall = np.mean([found <= k for k in AT], axis=0)
            recalls.append((recall, clusters))
    metrics["mean recall"] = mean_of_means(recalls, resamples=2000 if intervals else 1)
    return Result(
        protocol=PROTOCOL,
        model=model.name,
        weights=model.identity.weights,
        data=data,
        primary="mean recall",
        metrics=metrics,
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


def _summary(task: str, found: np.ndarray, clusters: list[str], sizes: list[int], total: int, intervals: bool) -> dict[str, Estimate]:
    resamples = 2000 if intervals else 1
    summary = {}
    for k in AT:
        chance = float(np.mean([chance_at(k, total, size) for size in sizes]))
        summary[f"{task} R@{k}"] = mean_interval((found <= k).astype(float), clusters, chance=chance, resamples=resamples)
    summary[f"{task} median rank"] = statistic_interval(found, clusters, median_rank, resamples=400 if intervals else 1)
    summary[f"{task} mean rank"] = mean_interval(found.astype(float), clusters, resamples=resamples)
    return summary
