"""What the doctor looks at, one function for each kind of trouble; each gives its findings in English and Chinese."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tonggan.data.formats.base import EMPTY_CAPTION
from tonggan.data.rows import Dataset
from tonggan.data.similar import Pictures, components, pictures_of, remote
from tonggan.data.splits import SPARE, Leak, Tie, caption_key, leaks
from tonggan.types import Dropped, Row

Severity = Literal["error", "warning", "info"]

EXAMPLES = 20
"""Rows named with each finding in short reports; unusable rows and unreadable pictures are all named."""
GIANT_PIXELS = 25_000_000
GIANT_BYTES = 20_000_000
TINY_SIDE = 16
FEW_ROWS = 10
"""A split with fewer rows measures nothing."""
MINORITY = 0.1
"""A language with less than this part of the captions of the commonest one is called rare."""
MAJORITY = 0.5
"""A group with more than this part of all rows is called dominant."""


class Encoder(Protocol):
    """What the doctor needs of a tokenizer: ids of each text, and the numbers of the texts that were cut."""

    def encode(self, texts: Sequence[str], /) -> tuple[list[list[int]], list[int]]:
        """(ids, numbers of the texts longer than the model reads)."""
        ...


@dataclass(frozen=True, slots=True)
class Example:
    """One case of a finding: a row of the data set (None when it never became one), where it is, and a detail."""

    row: int | None
    where: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of trouble: a code for programs, a message in English and Chinese, how many, and examples."""

    code: str
    severity: Severity
    count: int
    en: str
    zh: str
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Visit:
    """The data set and what one pass over its pictures showed."""

    dataset: Dataset
    rows: Sequence[Row]
    pictures: Pictures
    twins: Sequence[tuple[int, int]]
    """Pairs of picture numbers that are nearly the same."""

    @property
    def unreadable(self) -> dict[int, str]:
        """Rows none of whose pictures can be read, and why."""
        bad: dict[int, list[str]] = defaultdict(list)
        for picture, reason in self.pictures.reasons.items():
            bad[int(self.pictures.rows[picture])].append(reason)
        for number, _ in self.remote:
            bad[number].append("an address on the network; download it first")
        return {number: reasons[0] for number, reasons in bad.items() if len(reasons) == len(pictures_of(self.rows[number]))}

    @property
    def remote(self) -> list[tuple[int, str]]:
        """(row, address) of each picture that is only an address on the network."""
        return [(number, str(image.url)) for number, row in enumerate(self.rows) for image in pictures_of(row) if remote(image)]

    def example(self, number: int, detail: str = "") -> Example:
        """A row by its id, and its picture's name where that says more."""
        row = self.rows[number]
        path = row.images[0].path if row.images else None
        where = row.id if path is None or path.name in row.id else f"{row.id} ({path.name})"
        return Example(number, where, detail)

    def examples(self, numbers: Sequence[int]) -> tuple[Example, ...]:
        """The first few of some rows."""
        return tuple(map(self.example, numbers[:EXAMPLES]))

    def picture(self, number: int, detail: str = "") -> Example:
        """The row of a picture."""
        return self.example(int(self.pictures.rows[number]), detail)


def plural(count: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def unusable(visit: Visit) -> list[Finding]:
    """Rows that reading dropped. A missing caption is a gap in the data, anything else a fault; what was left out before the data
    were written is past.
    """
    found = []
    before, now = visit.dataset.dropped[: visit.dataset.earlier], visit.dataset.dropped[visit.dataset.earlier :]
    other = _dropped(one for one in now if EMPTY_CAPTION not in one.reason)
    if n := len(other):
        found.append(Finding("dropped", "error", n, f"{plural(n, 'row')} cannot be used", f"有 {n} 行无法使用", other))
    empty = _dropped(one for one in now if EMPTY_CAPTION in one.reason)
    if n := len(empty):
        en, zh = f"{plural(n, 'row')} without a caption: left out", f"有 {n} 行没有文字说明，已略过"
        found.append(Finding("empty-caption", "warning", n, en, zh, empty))
    if n := len(before):
        en, zh = f"{plural(n, 'row')} left out before these data were written", f"写入这份数据之前已略去 {n} 行"
        found.append(Finding("dropped-before", "info", n, en, zh, _dropped(before)))
    return found


def _dropped(several: Iterable[Dropped]) -> tuple[Example, ...]:
    return tuple(Example(None, one.where, one.reason) for one in several)


def undecodable(visit: Visit) -> list[Finding]:
    """Pictures of rows that were not looked at when they were read."""
    bad = visit.pictures.reasons
    n = len(bad)
    examples = tuple(visit.picture(number, reason) for number, reason in bad.items())
    return [Finding("unreadable", "error", n, f"{plural(n, 'picture')} cannot be read", f"有 {n} 张图片无法读取", examples)] if n else []


def distant(visit: Visit) -> list[Finding]:
    """Pictures that are addresses: nothing is downloaded while training or measuring."""
    far = visit.remote
    if not (n := len(far)):
        return []
    examples = tuple(visit.example(number, url[:200]) for number, url in far[:EXAMPLES])
    which = "are addresses on the network; download them first" if n > 1 else "is an address on the network; download it first"
    return [Finding("remote", "error", n, f"{plural(n, 'picture')} {which}", f"有 {n} 张图片只是网址，请先下载", examples)]


def schema(visit: Visit) -> list[Finding]:
    """Rows that hold nothing, and rows on no side of a split that others have."""
    found = []
    hollow = [n for n, row in enumerate(visit.rows) if not (row.images or row.texts or row.audios or row.videos or row.messages)]
    if n := len(hollow):
        found.append(Finding("hollow", "error", n, f"{plural(n, 'row')} with no content", f"有 {n} 行没有任何内容", visit.examples(hollow)))
    loose = [n for n, row in enumerate(visit.rows) if row.split is None]
    if (n := len(loose)) and n < len(visit.rows):
        en, zh = f"{plural(n, 'row')} without a split although others have one", f"其余行已划分，但有 {n} 行没有归属"
        found.append(Finding("no-side", "error", n, en, zh, visit.examples(loose)))
    return found


_CROSSING: dict[Tie, tuple[Severity, str, str]] = {
    "group": ("error", "on both sides of a split: {} of one meaning", "有 {} 个同义组同时出现在不同的划分中"),
    "picture": ("error", "on both sides of a split: {} of nearly the same pictures", "有 {} 组近似重复的图片同时出现在不同的划分中"),
    "artist": ("warning", "on both sides of a split: {} of works by one artist", "有 {} 位作者的作品同时出现在不同的划分中"),
    "caption": ("warning", "on both sides of a split: {} with one caption, word for word", "有 {} 条相同的文字同时出现在不同的划分中"),
}


_BY_ARTIST: dict[Tie, tuple[Severity, str, str]] = {
    "group": ("warning", "on both sides of a split by artist: {} of one meaning", "按作者划分，有 {} 个同义组同时出现在不同的划分中"),
    "picture": (
        "warning",
        "on both sides of a split by artist: {} of nearly the same pictures",
        "按作者划分，有 {} 组近似重复的图片同时出现在不同的划分中",
    ),
}


def crossing(visit: Visit) -> list[Finding]:
    """Across the given splits. The same meaning or picture on both sides is an error; the same artist or words may be wanted, and
    where the split is one by artist, the same thing by another hand is the point of it.
    """
    words = _CROSSING | (_BY_ARTIST if _splits_artists(visit.rows) else {})
    by_tie: dict[Tie, list[Leak]] = defaultdict(list)
    for leak in leaks(visit.dataset, pictures=visit.pictures, by=tuple(_CROSSING)):
        by_tie[leak.tie].append(leak)
    found = []
    for tie, here in by_tie.items():
        severity, en, zh = words[tie]
        shown = [(number, leak.what) for leak in here[:EXAMPLES] for number in _sides(visit, leak)]
        examples = tuple(visit.example(number, f"{visit.rows[number].split}: {what[:60]}") for number, what in shown)
        found.append(Finding(f"leak-{tie}", severity, len(here), en.format(plural(len(here), "set")), zh.format(len(here)), examples))
    return found


def _splits_artists(rows: Sequence[Row]) -> bool:
    """Whether the split is one by artist: every work is signed, nobody stands on two sides, and each has so many works that this is
    no accident."""
    sides: dict[str, set[str]] = defaultdict(set)
    sided = [(row.meta.get("artist", ""), row.split) for row in rows if row.split and row.split != SPARE]
    for artist, split in sided:
        sides[artist].add(split)
    works = Counter(artist for artist, _ in sided)
    return "" not in works and all(len(side) == 1 for side in sides.values()) and min(works.values(), default=0) >= FEW_ROWS


def _sides(visit: Visit, leak: Leak) -> list[int]:
    """One row of each split."""
    return list({visit.rows[number].split: number for number in reversed(leak.rows)}.values())[::-1]


def media(visit: Visit) -> list[Finding]:
    """Pictures too large to be worth decoding, or too small to show anything."""
    found = []
    sizes = [(n, *size) for n, size in enumerate(visit.pictures.sizes.tolist()) if n not in visit.pictures.reasons]
    giant = [(n, f"{w} x {h}, {size / 1e6:.1f} MB") for n, w, h, size in sizes if w * h > GIANT_PIXELS or size > GIANT_BYTES]
    if n := len(giant):
        examples = tuple(visit.picture(*one) for one in giant[:EXAMPLES])
        en, zh = f"{plural(n, 'giant picture')}: decoding slows training down", f"有 {n} 张图片过大，会拖慢训练"
        found.append(Finding("giant", "warning", n, en, zh, examples))
    tiny = [(n, f"{w} x {h}") for n, w, h, _ in sizes if min(w, h) < TINY_SIDE]
    if n := len(tiny):
        examples = tuple(visit.picture(*one) for one in tiny[:EXAMPLES])
        en, zh = f"{plural(n, 'picture')} smaller than {TINY_SIDE} pixels", f"有 {n} 张图片的边长不足 {TINY_SIDE} 像素"
        found.append(Finding("tiny", "warning", n, en, zh, examples))
    return found


def twins(visit: Visit) -> list[Finding]:
    """Near duplicates in rows that are not said to mean the same."""
    pairs = [(int(visit.pictures.rows[a]), int(visit.pictures.rows[b])) for a, b in visit.twins]
    apart = [(a, b) for a, b in pairs if a != b and (visit.rows[a].group is None or visit.rows[a].group != visit.rows[b].group)]
    sets: dict[int, list[int]] = defaultdict(list)
    for number, root in enumerate(components(len(visit.rows), apart)):
        sets[root].append(number)
    many = [numbers for numbers in sets.values() if len(numbers) > 1]
    if not many:
        return []
    n = sum(map(len, many))
    alike = [(other, f"≈ {visit.example(numbers[0]).where}") for numbers in many for other in numbers[1:]]
    en, zh = f"{plural(n, 'picture')} in {plural(len(many), 'set')} of near duplicates", f"有 {n} 张图片近似重复，共 {len(many)} 组"
    return [Finding("near-duplicate", "warning", n, en, zh, tuple(visit.example(*one) for one in alike[:EXAMPLES]))]


def captions(visit: Visit) -> list[Finding]:
    """Words that say nothing: none at all, or the same for rows that are not said to mean the same."""
    found = []
    silent = [n for n, row in enumerate(visit.rows) if row.images and not row.texts]
    if n := len(silent):
        en, zh = f"{plural(n, 'row')} without a caption", f"有 {n} 行没有文字说明"
        found.append(Finding("no-caption", "warning", n, en, zh, visit.examples(silent)))
    by_words: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(visit.rows):
        if "class" not in row.meta:
            for key in sorted({caption_key(text.text) for text in row.texts} - {""}):
                by_words[key].append(number)
    repeated = [(rows[0], f"“{key[:60]}” × {len(rows)}") for key, rows in by_words.items() if _apart(visit, rows)]
    if n := len(repeated):
        examples = tuple(visit.example(*one) for one in repeated[:EXAMPLES])
        en, zh = f"{plural(n, 'caption')} shared by several rows", f"有 {n} 条文字被多行共用"
        found.append(Finding("repeated-caption", "warning", n, en, zh, examples))
    return found


def _apart(visit: Visit, rows: Sequence[int]) -> bool:
    """Whether rows are not all of one group."""
    return len(rows) > 1 and (visit.rows[rows[0]].group is None or len({visit.rows[n].group for n in rows}) > 1)


def balance(visit: Visit) -> list[Finding]:
    """One language, group or split far from the others in size."""
    found = []
    langs = Counter(text.lang for row in visit.rows for text in row.texts if text.lang)
    most = max(langs.values(), default=0)
    for lang, n in langs.items():
        if n < MINORITY * most:
            en, zh = f"captions in {lang} are rare: {n} against {most}", f"{lang} 的文字很少：{n} 条，而最多的语言有 {most} 条"
            found.append(Finding("rare-language", "warning", n, en, zh))
    total = len(visit.rows)
    for group, n in Counter(row.group for row in visit.rows if row.group).items():
        if n > MAJORITY * total and total >= FEW_ROWS:
            en, zh = f"group {group!r} makes up {n} of {total} rows", f"组“{group}”占了 {total} 行中的 {n} 行"
            found.append(Finding("dominant-group", "warning", n, en, zh))
    for split, n in Counter(row.split for row in visit.rows if row.split and row.split != SPARE).items():
        if n < FEW_ROWS:
            en, zh = f"split {split!r} has only {plural(n, 'row')}: too few to measure", f"划分“{split}”只有 {n} 行，测出的结果靠不住"
            found.append(Finding("small-split", "warning", n, en, zh))
    return found


def truncated(visit: Visit, tokenizer: Encoder) -> list[Finding]:
    """Captions that the model would cut, per language: Chinese is often cut where English is not."""
    placed = [(number, text) for number, row in enumerate(visit.rows) for text in row.texts]
    ids, cut = tokenizer.encode([text.text for _, text in placed])
    total = Counter(text.lang or "?" for _, text in placed)
    by_lang: dict[str, list[int]] = defaultdict(list)
    for number in cut:
        by_lang[placed[number][1].lang or "?"].append(number)
    found = []
    for lang, numbers in by_lang.items():
        examples = tuple(visit.example(placed[n][0], placed[n][1].text[:80]) for n in numbers[:EXAMPLES])
        share, limit = len(numbers) / total[lang], max(len(ids[n]) for n in numbers)
        en = f"{plural(len(numbers), 'caption')} in {lang} ({share:.0%}) longer than the {limit} tokens that are read"
        zh = f"{lang} 的文字有 {len(numbers)} 条（{share:.0%}）超出模型能读的 {limit} 个词元，会被截断"
        found.append(Finding("truncated", "warning", len(numbers), en, zh, examples))
    return found


ALL = (unusable, undecodable, distant, schema, crossing, media, twins, captions, balance)
"""Every examination that needs nothing but the data."""
