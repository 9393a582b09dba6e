"""Picture-text retrieval both ways, per language, with several captions per picture.

Protocol `retrieval/v2`. Text to picture: each caption is a query over all pictures. Picture to text: each picture is a
query over all captions *of that language*; its best-ranked right caption counts. Rows that show the same picture are one picture,
with the captions and groups of all of them: one candidate, one query, one cluster. Right pairs are those of the same picture, of the
same group, or with literally the same caption. Ties count against the model. Intervals: `evaluate.resample`.

Beside R@K and ranks stand, per direction and language, mean average precision (`ap`) and nDCG of the first ten (`ndcg`), in which all right
candidates count, and the mean reciprocal rank (`rr`); their ids are in `extra["metrics"]`. `extra["rsum"]` has RSUM of each language.

Where no picture occurs twice, the numbers are those of `retrieval/v1`, in which every row was a picture of its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from tonggan.evaluate.metrics.ranking import (
    MAP,
    MRR,
    NDCG,
    RSUM,
    expected_average_precision,
    expected_ndcg,
    expected_reciprocal_rank,
    of_places,
    rsum,
)
from tonggan.evaluate.metrics.ranks import chance_at, expected_rank, places
from tonggan.evaluate.metrics.summary import summary
from tonggan.evaluate.resample import RESAMPLES, Estimate, statistic_interval
from tonggan.evaluate.result import Result
from tonggan.evaluate.tasks.labelled import NAMES, Kind, content, medium
from tonggan.types import Audio, CannotError, Dropped, EmbedOptions, Image, Model, Row, Text, UsageError, Video

Said: TypeAlias = Literal["text", "audio"]

PROTOCOL = "retrieval/v2: ties pessimistic, gallery fixed, positives row|group|picture|caption, clusters picture, bootstrap 2000 seed 0"
AT = (1, 5, 10)
METRICS = {"ap": MAP, "ndcg": f"{NDCG}; first 10, binary", "rr": MRR, "rsum": RSUM}


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture and all the rows that show it."""

    part: Image | Audio | Video
    rows: list[Row]

    @property
    def name(self) -> str:
        """The id of one of its rows: the same one in whatever order they come."""
        return min(row.id for row in self.rows)

    @property
    def groups(self) -> set[str]:
        return {row.group for row in self.rows if row.group is not None}


@dataclass(frozen=True, slots=True)
class _Caption:
    """Words of a picture. Said of it in two rows they are one caption."""

    picture: int
    text: str
    row: str = field(compare=False)
    part: Text | Audio = field(compare=False)


def _pictures(rows: Iterable[Row], seen: Kind) -> list[_Picture]:
    found: dict[object, _Picture] = {}
    for row in rows:
        part = medium(row, seen)
        assert part is not None
        found.setdefault(content(part), _Picture(part, [])).rows.append(row)
    return list(found.values())


def _said(row: Row, said: Said) -> list[tuple[str, str, Text | Audio]]:
    """Of each caption or spoken sound its language, what makes it the same as another, and itself."""
    if said == "text":
        return [(text.lang or "und", text.text, text) for text in row.texts]
    return [(sound.role or "und", str(content(sound)), sound) for sound in row.audios]


def retrieval(
    model: Model,
    rows: Iterable[Row],
    *,
    data: str = "",
    langs: Sequence[str] | None = None,
    between: tuple[Kind, Said] = ("image", "text"),
    options: EmbedOptions | None = None,
    intervals: bool = True,
) -> Result:
    """R@1/5/10, median and mean rank, both ways and per language, with intervals and chance.

    Rows without a picture or without a caption do not take part, and unreadable pictures and captions leave the gallery: all are
    listed in `dropped`. A row with several pictures is represented by its first. A picture without a caption in some language
    stays among the candidates of that language's captions, but is no query for them (unless its group has one). The primary metric
    is the mean of R@1, R@5 and R@10 over directions and languages, each with equal weight.
    `intervals=False` saves the resampling inside a training loop.

    `between` says what is shown (a picture, clip or sound, instead of the picture) and what is said of it (captions, or sounds in which
    it is spoken of, by language): ("audio", "text") searches sounds by captions, ("image", "audio") pictures by speech.
    """
    seen, said = between
    if not {seen, said} <= model.modalities or seen == said:
        raise CannotError(f"{model.name} embeds {', '.join(sorted(model.modalities))}; this retrieval needs {said} and {seen}")
    thing, words_ = NAMES[seen], "caption" if said == "text" else "sound"
    way = f"{said[0]}2{seen[0]}", f"{seen[0]}2{said[0]}"
    every = list(rows)
    shown = _pictures((row for row in every if medium(row, seen) and _said(row, said)), seen)
    dropped = [
        Dropped(row.id, f"no {words_ if medium(row, seen) else thing}") for row in every if not (medium(row, seen) and _said(row, said))
    ]
    if not shown:
        raise UsageError(f"retrieval needs rows with a {thing} and a {words_}; there are none")
    found = model.embed([picture.part for picture in shown], options)
    unread = [Dropped(row.id, reason) for i, reason in sorted(found.errors.items()) for row in shown[i].rows]
    good = [i for i in range(len(shown)) if i not in found.errors]
    if not good:
        raise UsageError(f"none of {len(shown)} {thing}s could be read; the first: {unread[0].where}: {unread[0].reason}")
    dropped += unread
    pictures, images = [shown[i] for i in good], found.vectors[good]

    by_lang: dict[str, dict[_Caption, None]] = defaultdict(dict)  # in their order, each once
    for i, picture in enumerate(pictures):
        for row in picture.rows:
            for lang, same, part in _said(row, said):
                by_lang[lang].setdefault(_Caption(i, same, row.id, part))
    items: list[dict[str, Any]] = []
    chance: dict[str, float] = {}
    notes: list[str] = []
    counted: dict[str, dict[str, int]] = {}
    if again := sum(len(picture.rows) - 1 for picture in pictures):
        notes.append(f"{again} rows show a picture that another row shows too; each picture is one candidate, with all its rows' captions")
    for lang in list(dict.fromkeys(langs)) if langs else sorted(by_lang):
        captions = list(by_lang.get(lang, {}))
        if not captions:
            raise UsageError(f"no {words_}s in {lang!r}; there are: {', '.join(sorted(by_lang))}")
        texts = model.embed([c.part for c in captions], options)
        dropped += [Dropped(captions[n].row, reason) for n, reason in sorted(texts.errors.items())]
        read = [n for n in range(len(captions)) if n not in texts.errors]
        if not read:
            raise UsageError(f"none of {len(captions)} {words_}s in {lang!r} could be read; the first: {texts.errors[0]}")
        if texts.truncated:
            notes.append(f"{lang}: {len(texts.truncated)} of {len(captions)} {words_}s were longer than the model reads and were cut")
        captions, words = [captions[n] for n in read], texts.vectors[read]
        if texts.tokens and said == "text":
            letters = sum(len(caption.text) for caption in captions)
            counted[lang] = {"texts": len(captions), "characters": letters, "tokens": texts.tokens, "cut": len(texts.truncated)}
        if shared := len(captions) - len({c.text for c in captions}):
            notes.append(
                f"{lang}: {shared} of {len(captions)} {words_}s repeat another's words; intervals take each for a query of its own"
            )
        to_image, to_text = _positives(pictures, captions)
        pictured = sorted(to_text)
        right = [to_text[i] for i in pictured]
        queries = [(pictures[c.picture].name, c.text) for c in captions]
        names = [(pictures[i].name, None) for i in pictured]
        items += _items(f"{way[0]} {lang}", queries, places(words, images, to_image), to_image, len(pictures))
        items += _items(f"{way[1]} {lang}", names, places(images[pictured], words, right), right, len(captions))
        chance |= _chance(f"{way[0]} {lang}", to_image, len(pictures)) | _chance(f"{way[1]} {lang}", right, len(captions))
    chance["mean recall"] = float(np.mean([value for name, value in chance.items() if "R@" in name]))
    return Result(
        protocol=PROTOCOL if between == ("image", "text") else f"{PROTOCOL}; {thing}s and {words_}s",
        model=model.name,
        weights=model.identity.weights,
        data=data,
        primary="mean recall",
        metrics=summary(items, chance=chance, resamples=RESAMPLES if intervals else 0),
        items=items,
        dropped=dropped,
        notes=notes,
        extra={"metrics": METRICS, "text": counted, "rsum": _rsum(items, way, chance, RESAMPLES if intervals else 0)},
    )


def _positives(pictures: Sequence[_Picture], captions: Sequence[_Caption]) -> tuple[list[list[int]], dict[int, list[int]]]:
    """Right pictures of each caption, and right captions of each picture that has any in this language."""
    members: dict[str, list[int]] = defaultdict(list)
    for i, picture in enumerate(pictures):
        for name in picture.groups:
            members[name].append(i)
    same_text: dict[str, list[int]] = defaultdict(list)
    of_picture: dict[int, list[int]] = defaultdict(list)
    for number, caption in enumerate(captions):
        same_text[caption.text].append(number)
        of_picture[caption.picture].append(number)

    def alike(i: int) -> set[int]:
        return {i, *(j for name in pictures[i].groups for j in members[name])}

    to_image = [sorted(alike(c.picture) | {captions[n].picture for n in same_text[c.text]}) for c in captions]
    to_text: dict[int, list[int]] = {}
    for i in range(len(pictures)):
        right = {n for j in alike(i) for n in of_picture.get(j, ())}
        right |= {n for own in of_picture.get(i, ()) for n in same_text[captions[own].text]}
        if right:
            to_text[i] = sorted(right)
    return to_image, to_text


def _items(
    task: str, queries: Sequence[tuple[str, str | None]], found: Sequence[np.ndarray], right: Sequence[Sequence[int]], candidates: int
) -> list[dict[str, Any]]:
    """One record per query: the picture's name and, where words are the query, its caption. `found` are the places of the right ones."""
    ranked = of_places(found, max(AT))
    return [
        {
            "id": f"{task} {name}" + ("" if caption is None else f" {caption}"),
            "task": task,
            "cluster": name,
            "query": name if caption is None else caption,
            "candidates": candidates,
            "right": len(right[n]),
            "rank": rank,
            **{f"R@{k}": int(rank <= k) for k in AT},
            "ap": float(ranked.ap[n]),
            "ndcg": float(ranked.ndcg[n]),
            "rr": float(ranked.rr[n]),
        }
        for n, ((name, caption), rank) in enumerate(zip(queries, (int(at[0]) for at in found), strict=True))
    ]


def _rsum(items: Sequence[dict[str, Any]], way: tuple[str, str], chance: Mapping[str, float], resamples: int) -> dict[str, dict[str, Any]]:
    """RSUM of each language with its interval over pictures, as plain data."""
    by_lang: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in items:
        by_lang[item["task"].split(" ", 1)[1]].append(item)
    found: dict[str, Estimate] = {}
    for lang, some in by_lang.items():
        values = np.array([[item["task"].startswith(way[1]), *(item[f"R@{k}"] for k in AT)] for item in some], dtype=np.float64)
        guessed = 100 * sum(chance[f"{one} {lang} R@{k}"] for one in way for k in AT)
        found[lang] = statistic_interval(values, [item["cluster"] for item in some], rsum, chance=guessed, resamples=resamples)
    return {lang: asdict(estimate) for lang, estimate in found.items()}


def _chance(task: str, right: Sequence[Sequence[int]], candidates: int) -> dict[str, float]:
    """What a random order of the candidates would give on average. (The median has no such closed form.)"""
    sizes = Counter(map(len, right))
    by_size = {f"{task} R@{k}": {size: chance_at(k, candidates, size) for size in sizes} for k in AT}
    by_size[f"{task} mean rank"] = {size: expected_rank(candidates, size) for size in sizes}
    by_size[f"{task} ap"] = {size: expected_average_precision(candidates, size) for size in sizes}
    by_size[f"{task} ndcg"] = {size: expected_ndcg(candidates, size, max(AT)) for size in sizes}
    by_size[f"{task} rr"] = {size: expected_reciprocal_rank(candidates, size) for size in sizes}
    return {name: sum(sizes[size] * value for size, value in of.items()) / len(right) for name, of in by_size.items()}
