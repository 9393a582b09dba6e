"""The doctor: what is wrong with a data set, before a night of training finds out.

    diagnosis = doctor("照片.xlsx", image_col="图片", text_col="标题")
    print(diagnosis.text("zh"))
    diagnosis.cured().write("runs/data")

Errors are what makes results wrong or rows useless: unusable rows, unreadable pictures, leaks across splits, a broken schema.
Warnings are what one should know. Without a split of its own the data set gets a proposed one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from tonggan.data.formats import read
from tonggan.data.formats.base import EMPTY_CAPTION
from tonggan.data.rows import Dataset
from tonggan.data.similar import Pictures, components, near_duplicates, scan
from tonggan.data.splits import Proposal, caption_key, leaks, propose_split
from tonggan.types import Dropped, Row, UsageError

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


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor found. `dataset` is the data as read; `facts` are plain counts for tables."""

    name: str
    dataset: Dataset
    findings: tuple[Finding, ...]
    facts: Mapping[str, Any]
    proposal: Proposal | None = None
    unreadable: Mapping[int, str] = field(default_factory=dict)
    """Rows with no readable picture left, and why."""
    strict: bool = False

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that must be mended."""
        return self._of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings to know about; `strict` counts them as errors."""
        return self._of("warning")

    @property
    def info(self) -> tuple[Finding, ...]:
        """What was read, decided and proposed."""
        return self._of("info")

    @property
    def ok(self) -> bool:
        """Whether there is no error (and with `strict` no warning)."""
        return not self.errors and not (self.strict and self.warnings)

    def _of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def cured(self) -> Dataset:
        """The rows that can be used, the others listed in `dropped`, with the proposed split where there was none."""
        dataset = self.dataset if self.proposal is None else self.dataset.with_splits(self.proposal.names)
        ids = self.dataset.column("id")
        kept = [number for number in range(len(dataset)) if number not in self.unreadable]
        return dataset.where(kept).with_dropped([Dropped(ids[number], reason) for number, reason in self.unreadable.items()])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and for the page: every finding with both messages; examples carry the number of their row."""
        return {
            "name": self.name,
            "ok": self.ok,
            "strict": self.strict,
            "rows": len(self.dataset),
            "facts": dict(self.facts),
            "findings": [
                {
                    "code": one.code,
                    "severity": one.severity,
                    "count": one.count,
                    "message": {"en": one.en, "zh": one.zh},
                    "examples": [{"row": e.row, "where": e.where, "detail": e.detail} for e in one.examples],
                }
                for one in self.findings
            ],
            "proposal": None
            if self.proposal is None
            else {
                "counts": self.proposal.counts,
                "together": list(self.proposal.by),
                "parts": self.proposal.parts,
                "notes": list(self.proposal.notes),
            },
        }

    def text(self, lang: Literal["en", "zh"] = "en") -> str:
        """The findings as lines, errors first, a few examples below each."""
        marks = {"error": "✗", "warning": "!", "info": "·"}
        head = {"en": f"{self.name}: {len(self.dataset)} rows", "zh": f"{self.name}：{len(self.dataset)} 行"}[lang]
        lines = [head]
        for finding in (*self.errors, *self.warnings, *self.info):
            lines.append(f"{marks[finding.severity]} {finding.en if lang == 'en' else finding.zh}")
            lines += [f"    {e.where}{f': {e.detail}' if e.detail else ''}" for e in finding.examples]
            if finding.examples and finding.count > len(finding.examples):
                lines.append({"en": f"    … of {finding.count}", "zh": f"    ……共 {finding.count} 处"}[lang])
        return "\n".join(lines)


def doctor(
    data: Dataset | str | Path,
    *,
    tokenizer: Encoder | None = None,
    strict: bool = False,
    workers: int = 4,
    **how: Any,
) -> Diagnosis:
    """Examine a data set, or anything that `formats.read` opens (`how` goes there: image_col, text_col, format, …).

    Every picture is decoded once: about a millisecond each, in `workers` threads. With a `tokenizer` captions that a model
    would cut are counted per language.
    """
    name = str(data) if isinstance(data, str | Path) else "data"
    dataset = data if isinstance(data, Dataset) else read(data, check="exists", **how)
    pictures = scan(dataset, workers=workers)
    visit = _Visit(dataset, list(dataset), pictures, near_duplicates(pictures))
    examinations: list[Callable[[_Visit], list[Finding]]] = [_unusable, _unreadable, _schema, _leaks, _media, _twins, _captions, _balance]
    findings = [finding for examine in examinations for finding in examine(visit)]
    if tokenizer is not None:
        findings += _truncated(visit, tokenizer)
    proposal, proposed = _proposal(visit)
    findings += proposed
    notes = [Finding("note", "info", 1, note, note) for note in dataset.notes]
    return Diagnosis(name, dataset, (*findings, *notes), _facts(visit), proposal, visit.unreadable, strict)


@dataclass(frozen=True)
class _Visit:
    """The data set and what one pass over its pictures showed."""

    dataset: Dataset
    rows: Sequence[Row]
    pictures: Pictures
    twins: Sequence[tuple[int, int]]
    """Pairs of picture numbers that are nearly the same."""

    @property
    def unreadable(self) -> dict[int, str]:
        """Rows none of whose pictures can be read."""
        bad: dict[int, list[str]] = defaultdict(list)
        for picture, reason in self.pictures.reasons.items():
            bad[int(self.pictures.rows[picture])].append(reason)
        return {number: reasons[0] for number, reasons in bad.items() if len(reasons) == len(self.rows[number].images)}

    def example(self, number: int, detail: str = "") -> Example:
        """A row by its id, and its picture's name where that says more."""
        row = self.rows[number]
        path = row.images[0].path if row.images else None
        where = row.id if path is None or path.name in row.id else f"{row.id} ({path.name})"
        return Example(number, where, detail)

    def picture(self, number: int, detail: str = "") -> Example:
        """The row of a picture."""
        return self.example(int(self.pictures.rows[number]), detail)


# --------------------------------------------------------------------------------------------- errors


def _unusable(visit: _Visit) -> list[Finding]:
    """Rows that reading dropped. A missing caption is a gap in the data, anything else a fault."""
    empty = [one for one in visit.dataset.dropped if EMPTY_CAPTION in one.reason]
    other = [one for one in visit.dataset.dropped if EMPTY_CAPTION not in one.reason]
    found = []
    if other:
        n = len(other)
        found.append(
            Finding(
                "dropped",
                "error",
                n,
                f"{n} rows cannot be used",
                f"有 {n} 行无法使用",
                tuple(Example(None, d.where, d.reason) for d in other),
            )
        )
    if empty:
        n = len(empty)
        examples = tuple(Example(None, d.where, d.reason) for d in empty)
        found.append(
            Finding(
                "empty-caption", "warning", n, f"{n} rows have no caption and were left out", f"有 {n} 行没有文字说明，已略过", examples
            )
        )
    return found


def _unreadable(visit: _Visit) -> list[Finding]:
    bad = visit.pictures.reasons
    if not bad:
        return []
    examples = tuple(visit.picture(number, reason) for number, reason in bad.items())
    return [Finding("unreadable", "error", len(bad), f"{len(bad)} pictures cannot be read", f"有 {len(bad)} 张图片无法读取", examples)]


def _schema(visit: _Visit) -> list[Finding]:
    found = []
    hollow = [n for n, row in enumerate(visit.rows) if not (row.images or row.texts or row.audios or row.videos or row.messages)]
    if hollow:
        examples = tuple(map(visit.example, hollow[:EXAMPLES]))
        found.append(
            Finding("hollow", "error", len(hollow), f"{len(hollow)} rows hold nothing", f"有 {len(hollow)} 行没有任何内容", examples)
        )
    loose = [n for n, row in enumerate(visit.rows) if row.split is None]
    if loose and len(loose) < len(visit.rows):
        examples = tuple(map(visit.example, loose[:EXAMPLES]))
        n = len(loose)
        found.append(
            Finding("no-side", "error", n, f"{n} rows have no split although others have", f"其余行已划分，但有 {n} 行没有归属", examples)
        )
    return found


def _leaks(visit: _Visit) -> list[Finding]:
    """Across the given splits. The same meaning or picture on both sides is an error; the same artist or words may be wanted."""
    kinds = {
        "group": ("error", "{n} groups stand on both sides of a split", "有 {n} 个同义组同时出现在不同的划分中"),
        "picture": (
            "error",
            "{n} pictures stand, nearly the same, on both sides of a split",
            "有 {n} 张图片（近似重复）同时出现在不同的划分中",
        ),
        "artist": ("warning", "{n} artists stand on both sides of a split", "有 {n} 位作者的作品同时出现在不同的划分中"),
        "caption": ("warning", "{n} captions stand word for word on both sides of a split", "有 {n} 条相同的文字同时出现在不同的划分中"),
    }
    by_tie = defaultdict(list)
    for leak in leaks(visit.dataset, pictures=visit.pictures, by=("group", "picture", "artist", "caption")):
        by_tie[leak.tie].append(leak)
    found = []
    for tie, here in by_tie.items():
        severity, en, zh = kinds[tie]
        examples = tuple(
            visit.example(number, f"{leak.what[:60]} → {visit.rows[number].split}")
            for leak in here[:EXAMPLES]
            for number in _sides(visit, leak.rows)
        )
        level: Severity = "error" if severity == "error" else "warning"
        found.append(Finding(f"leak-{tie}", level, len(here), en.format(n=len(here)), zh.format(n=len(here)), examples))
    return found


def _sides(visit: _Visit, rows: Sequence[int]) -> list[int]:
    """One row of each split."""
    return list({visit.rows[number].split: number for number in reversed(rows)}.values())[::-1]


# ------------------------------------------------------------------------------------------- warnings


def _media(visit: _Visit) -> list[Finding]:
    sizes = visit.pictures.sizes
    giant = [n for n, (w, h, size) in enumerate(sizes.tolist()) if w * h > GIANT_PIXELS or size > GIANT_BYTES]
    tiny = [n for n, (w, h, _) in enumerate(sizes.tolist()) if n not in visit.pictures.reasons and 0 < min(w, h) < TINY_SIDE]
    found = []
    if giant:
        examples = tuple(visit.picture(n, "{} x {}, {:.1f} MB".format(*sizes[n, :2], sizes[n, 2] / 1e6)) for n in giant[:EXAMPLES])
        en, zh = f"{len(giant)} pictures are giant: decoding them will slow training down", f"有 {len(giant)} 张图片过大，会拖慢训练"
        found.append(Finding("giant", "warning", len(giant), en, zh, examples))
    if tiny:
        examples = tuple(visit.picture(n, "{} x {}".format(*sizes[n, :2])) for n in tiny[:EXAMPLES])
        en, zh = f"{len(tiny)} pictures are smaller than {TINY_SIDE} pixels", f"有 {len(tiny)} 张图片的边长不足 {TINY_SIDE} 像素"
        found.append(Finding("tiny", "warning", len(tiny), en, zh, examples))
    return found


def _twins(visit: _Visit) -> list[Finding]:
    """Near duplicates in rows that are not said to mean the same."""
    pairs = [(int(visit.pictures.rows[a]), int(visit.pictures.rows[b])) for a, b in visit.twins]
    pairs = [(a, b) for a, b in pairs if a != b]
    sets: dict[int, list[int]] = defaultdict(list)
    for number, root in enumerate(components(len(visit.rows), pairs)):
        sets[root].append(number)
    many = [numbers for numbers in sets.values() if len(numbers) > 1]
    if not many:
        return []
    n = sum(map(len, many))
    examples = tuple(visit.example(other, f"≈ {visit.example(numbers[0]).where}") for numbers in many for other in numbers[1:])[:EXAMPLES]
    en = f"{n} pictures are near duplicates of each other, in {len(many)} sets"
    return [Finding("near-duplicate", "warning", n, en, f"有 {n} 张图片近似重复，共 {len(many)} 组", examples)]


def _captions(visit: _Visit) -> list[Finding]:
    """Words that say nothing: none at all, or the same for rows that are not said to mean the same."""
    found = []
    silent = [n for n, row in enumerate(visit.rows) if row.images and not row.texts]
    spoken = len(visit.rows) - len(silent)
    if silent and spoken:
        examples = tuple(map(visit.example, silent[:EXAMPLES]))
        found.append(
            Finding(
                "no-caption", "warning", len(silent), f"{len(silent)} rows have no caption", f"有 {len(silent)} 行没有文字说明", examples
            )
        )
    by_words: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(visit.rows):
        if "class" not in row.meta:
            for key in {caption_key(text.text) for text in row.texts}:
                by_words[key].append(number)
    repeated = {key: rows for key, rows in by_words.items() if key and len({visit.rows[n].group or n for n in rows}) > 1}
    if repeated:
        examples = tuple(visit.example(rows[0], f"“{key[:60]}” × {len(rows)}") for key, rows in repeated.items())[:EXAMPLES]
        n = len(repeated)
        found.append(
            Finding("repeated-caption", "warning", n, f"{n} captions are shared by several rows", f"有 {n} 条文字被多行共用", examples)
        )
    return found


def _balance(visit: _Visit) -> list[Finding]:
    found = []
    langs = Counter(text.lang for row in visit.rows for text in row.texts if text.lang)
    most = max(langs.values(), default=0)
    for lang, count in langs.items():
        if count < MINORITY * most:
            en, zh = f"captions in {lang} are rare: {count} against {most}", f"{lang} 的文字很少：{count} 条，而最多的语言有 {most} 条"
            found.append(Finding("rare-language", "warning", count, en, zh))
    groups = Counter(row.group for row in visit.rows if row.group)
    for group, count in groups.items():
        if count > MAJORITY * len(visit.rows) and len(visit.rows) >= FEW_ROWS:
            en, zh = f"group {group!r} is {count} of {len(visit.rows)} rows", f"组“{group}”占了 {len(visit.rows)} 行中的 {count} 行"
            found.append(Finding("dominant-group", "warning", count, en, zh))
    for split, count in Counter(row.split for row in visit.rows if row.split).items():
        if count < FEW_ROWS:
            en, zh = (
                f"split {split!r} has only {count} rows: what is measured on it is chance",
                f"划分“{split}”只有 {count} 行，测出的结果靠不住",
            )
            found.append(Finding("small-split", "warning", count, en, zh))
    return found


def _truncated(visit: _Visit, tokenizer: Encoder) -> list[Finding]:
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
        share = len(numbers) / total[lang]
        longest = max(len(ids[n]) for n in numbers)
        en = f"{len(numbers)} captions in {lang} ({share:.0%}) are longer than the {longest} tokens that are read"
        zh = f"{lang} 的文字有 {len(numbers)} 条（{share:.0%}）超出模型能读的 {longest} 个词元，会被截断"
        found.append(Finding("truncated", "warning", len(numbers), en, zh, examples))
    return found


# ---------------------------------------------------------------------------------------------- facts


def _proposal(visit: _Visit) -> tuple[Proposal | None, list[Finding]]:
    if any(row.split for row in visit.rows):
        return None, []
    try:
        proposal = propose_split(visit.dataset, pictures=visit.pictures)
    except UsageError as error:
        return None, [Finding("no-split", "warning", len(visit.rows), str(error), "所有行彼此关联，无法划分")]
    counts = ", ".join(f"{name} {count}" for name, count in sorted(proposal.counts.items()))
    en = f"no split is given; proposed without leaks: {counts}"
    notes = [Finding("split-note", "info", 1, note, note) for note in proposal.notes]
    return proposal, [Finding("no-split", "info", len(visit.rows), en, f"未给出划分，建议（无泄漏）：{counts}"), *notes]


def _facts(visit: _Visit) -> dict[str, Any]:
    readable = [n for n in range(len(visit.pictures)) if n not in visit.pictures.reasons]
    sides = visit.pictures.sizes[readable][:, :2].min(axis=1) if readable else []
    return {
        "rows": len(visit.rows),
        "pictures": len(visit.pictures),
        "captions": sum(len(row.texts) for row in visit.rows),
        "dropped": len(visit.dataset.dropped),
        "languages": dict(Counter(text.lang or "?" for row in visit.rows for text in row.texts)),
        "splits": dict(Counter(row.split or "" for row in visit.rows)),
        "groups": len({row.group for row in visit.rows if row.group}),
        "artists": len({row.meta["artist"] for row in visit.rows if row.meta.get("artist")}),
        "megabytes": round(int(visit.pictures.sizes[:, 2].sum()) / 1e6, 3),
        "shorter side": {"least": int(min(sides)), "median": int(sorted(sides)[len(sides) // 2]), "most": int(max(sides))}
        if readable
        else {},
    }
