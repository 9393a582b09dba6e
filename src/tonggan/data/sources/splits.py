"""Splits without leaks: what means the same, is called the same or looks the same never stands on both sides.

Everything is decided by a seed and the rows themselves, so two machines agree.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tonggan.config import one_of
from tonggan.data.similar import components, near_duplicates, scan
from tonggan.data.splits import SPARE
from tonggan.types import Row, UsageError

_ARTICLE = re.compile(r"^(?:an?|the|some)\s+", re.IGNORECASE)


def caption_key(text: str) -> str:
    """A caption without case, punctuation and leading article: `A duck.` and `duck` are the same caption."""
    words = re.sub(r"[\W_]+", " ", text.casefold()).strip()
    return _ARTICLE.sub("", words)


def look_alikes(rows: Iterable[Row]) -> list[tuple[int, int]]:
    """Pairs of rows whose pictures are nearly the same, by the test that the doctor looks for leaks with. Every picture is decoded."""
    pictures = scan(rows)
    return [(int(pictures.rows[a]), int(pictures.rows[b])) for a, b in near_duplicates(pictures)]


def concepts(rows: Sequence[Row], alike: Iterable[tuple[int, int]] = ()) -> list[int]:
    """For each row the number of its concept: the first row connected to it by an equal group, concept, picture or caption, or by a
    pair of `alike`."""
    first: dict[tuple[str, str], int] = {}
    same = [(first.setdefault(key, i), i) for i, row in enumerate(rows) for key in _keys(row)]
    return components(len(rows), [*same, *alike])


def by_concept(
    rows: Sequence[Row], *, val: float = 0.1, test: float = 0.1, seed: int = 0, alike: Iterable[tuple[int, int]] = ()
) -> list[Row]:
    """The rows with `split` set to train, val or test; whole concepts, joined by `alike` (`look_alikes`), move together.

    A concept's side is a hash of its name and the seed: adding rows to a source moves no old ones, unless they join two concepts.
    A concept with more than 2 % of all rows (a collection of a thousand stars) is for training: as a test it would be all there is.
    """
    rows = list(rows)  # a data set decodes a row each time it is asked for
    number = concepts(rows, alike)
    rows_of = Counter(number)
    sides = []
    for concept in number:
        if rows_of[concept] > max(20, 0.02 * len(rows)):
            sides.append("train")
            continue
        name = rows[concept].meta.get("concept") or rows[concept].group or rows[concept].id
        place = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8]) / 2**64
        sides.append("test" if place < test else "val" if place < test + val else "train")
    return [row.with_(split=side) for row, side in zip(rows, sides, strict=True)]


def by_artist(rows: Iterable[Row], held_out: str) -> list[Row]:
    """Leave one artist out: theirs is the test side, everyone else's is for training. Rows without an artist are for neither."""
    signed = [row for row in rows if row.meta.get("artist")]
    one_of(held_out, {row.meta["artist"] for row in signed}, "artist")
    return [row.with_(split="test" if row.meta["artist"] == held_out else "train") for row in signed]


def held_out_captions(rows: Sequence[Row], *, seed: int, test: int = 150, val: int = 50, lang: str = "en") -> list[Row]:
    """One of the repeated splits by which small sources are measured: exactly `test` unseen captions, one picture for each.

    Draws `test` + `val` concepts by `seed` (use 0..4 and report mean and spread); the rest is for training. Further pictures of
    a held-out concept could be neither training data nor a second right answer, so they get the split `spare`. Raises `UsageError`
    when there are too few concepts.
    """
    rows = list(rows)
    spoken = [i for i, row in enumerate(rows) if any(text.lang == lang for text in row.texts)]
    number = concepts(rows)
    order = sorted({number[i] for i in spoken})
    if len(order) < test + val:
        raise UsageError(f"{test + val} concepts to hold out, but there are only {len(order)} with a caption in {lang!r}")
    random.Random(seed).shuffle(order)
    side = dict.fromkeys(order[:test], "test") | dict.fromkeys(order[test : test + val], "val")
    shown: set[int] = set()
    split = []
    for i, row in enumerate(rows):
        repeated = number[i] in side and (number[i] in shown or not any(text.lang == lang for text in row.texts))
        split.append(row.with_(split=SPARE if repeated else side.get(number[i], "train")))
        if not repeated:
            shown.add(number[i])
    return split


def _keys(row: Row) -> Iterable[tuple[str, str]]:
    if row.group:
        yield "group", row.group
    for name in ("concept", "picture"):
        if value := row.meta.get(name):
            yield name, value
    # Only the first caption of a language names the thing: keywords, which may follow, are shared by many.
    firsts = {text.lang: text.text for text in reversed(row.texts) if text.lang in ("en", "zh", None)}
    for caption in firsts.values():
        if key := caption_key(caption):
            yield "caption", key
