"""What models are compared on: suites that need nothing, and any file of the user's own.

A task is rows and the way they are used. Its fingerprint covers every question, choice, answer and picture, so that results
of other items are never put beside these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field

from tonggan.config import Config, did_you_mean, one_of
from tonggan.data import open_data, sources
from tonggan.data.media import content_bytes
from tonggan.data.rows import Dataset
from tonggan.evaluate.tasks.answers import METRICS
from tonggan.evaluate.tasks.questions import asked_in, questions
from tonggan.types import Dropped, MediaError, Row, UsageError

Kind: TypeAlias = Literal["choice", "answers", "captions", "retrieval", "classification"]


class TaskConfig(Config):
    """A task as a suite file describes it; on the command line each field is an option."""

    data: str
    """A suite, a source, or a file."""
    kind: Kind | Literal["auto"] = "auto"
    """`auto`: questions where the rows ask any, otherwise retrieval among pictures and captions."""
    metric: str = "auto"
    """How free answers are marked, see `evaluate.tasks.answers`."""
    label: str = "label"
    """Column with the class, for classification."""
    langs: tuple[str, ...] | None = None
    """Languages of the captions. None: all that occur (of a classification: that of most class names)."""
    chinese: Literal["zh-char", "zh-jieba"] = "zh-char"
    """How Chinese captions are cut before they are scored."""
    split: str | None = None
    limit: int | None = Field(default=None, ge=1)
    seed: int = 0
    """Of the pages that are drawn."""
    image_col: str | None = None
    question_col: str | None = None
    answer_col: str | None = None
    choices_col: str | None = None
    by: tuple[str, ...] = ()
    """Columns by whose values the score is given as well."""


@dataclass(frozen=True)
class Task:
    """Rows, and what is done with them."""

    name: str
    kind: Kind
    rows: tuple[Row, ...]
    about: tuple[str, str]
    """What it is, in English and in Chinese."""
    synthetic: bool = False
    """Drawn by us: a check, never averaged with real pictures."""
    native: bool = False
    """Its Chinese and English items are each written as such, neither a translation of the other."""
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    config: TaskConfig = field(default_factory=lambda: TaskConfig(data=""))

    @property
    def langs(self) -> list[str]:
        """Languages of its captions."""
        spoken = sorted({text.lang or "und" for row in self.rows for text in row.texts}) or ["und"]
        return list(self.config.langs or spoken)

    def fingerprint(self) -> str:
        """Twelve characters that change with any item, and with what is done with them."""
        settings = self.config.model_dump(include={"metric", "label", "langs", "chinese"})
        digest = hashlib.sha256(json.dumps([self.kind, settings]).encode())
        for row in self.rows:
            words: list[Any] = [row.id, row.question, row.choices, row.answers, [(t.text, t.lang) for t in row.texts], row.group]
            words.append(row.meta.get(self.config.label) if self.kind == "classification" else asked_in(row))
            digest.update(json.dumps(words, ensure_ascii=False).encode("utf-8", "surrogatepass"))
            for part in (*row.images, *row.audios, *row.videos):
                try:
                    digest.update(hashlib.sha256(content_bytes(part)).digest())
                except MediaError:
                    digest.update(b"unreadable")
        return digest.hexdigest()[:12]


SUITES: dict[str, tuple[str, str]] = {
    "pages-zh-en": (
        "questions about pages written in Chinese and in English, each as at home (drawn by us)",
        "中英文页面上的提问，两种语言各自原生编写（由程序绘制）",
    ),
    "stamps-zh-en": (
        "pictures of Tux Paint, captions in English and their translation: those of adapt-stamps' 150 held-out concepts that have both",
        "Tux Paint 的图片，英文描述及其中文译文：adapt-stamps 留出的 150 个概念中，两种语言都有描述的部分",
    ),
    "openmoji-zh-en": ("OpenMoji's drawings with their names in both languages (test split)", "OpenMoji 的图及其中英文名称（测试集）"),
    "scenes-zh-en": ("drawn scenes of coloured shapes, a synthetic check", "彩色图形场景，合成检验"),
}
"""Every suite by name, with what it is."""


def tasks(config: TaskConfig) -> list[Task]:
    """The tasks of a suite, or of a file: its questions with choices, those with free answers, or its pictures and captions.

    Raises `UsageError` with the nearest spelling for an unknown name, metric or column.
    """
    if config.metric != "auto":
        one_of(config.metric, METRICS, "metric")
    if config.data in SUITES:
        found = [_suite(config)]
    elif config.data in sources.SOURCES or any(mark in config.data for mark in "./\\{") or Path(config.data).exists():
        found = _file(config)
    else:
        known = (*SUITES, *sources.SOURCES)
        raise UsageError(f"no suite {config.data!r}{did_you_mean(config.data, known)}; suites: {', '.join(SUITES)}; or a file of your own")
    for one in found:
        _check(one)
    return found


def task(name: str, **settings: Any) -> Task:
    """The only task, or the first, of `tasks(TaskConfig(data=name, ...))`."""
    return tasks(TaskConfig(data=name, **settings))[0]


def distinct(some: Sequence[Task]) -> list[Task]:
    """The tasks under names of their own: one file under two settings is two tasks, told apart by these; the same twice is refused."""
    named: list[Task] = []
    for one in some:
        if sum(other.name == one.name for other in some) > 1:
            settings = one.config.model_dump(mode="json", exclude_defaults=True, exclude={"data"})
            told = ", ".join(f"{name} {value}" for name, value in settings.items())
            named.append(replace(one, name=f"{one.name} ({told})" if told else one.name))
        else:
            named.append(one)
    for one in named:
        if sum(other.name == one.name for other in named) > 1:
            raise UsageError(f"{one.name} is compared on twice with the same settings")
    return named


def _check(task: Task) -> None:
    """Ids name items, slices name columns, settings suit the kind; what is wrong is told before anything is measured."""
    config = task.config
    if config.metric != "auto" and task.kind != "answers":
        raise UsageError(f"{task.name}: metric {config.metric} marks free answers; this is a task of {task.kind}")
    if task.kind == "classification" and len(config.langs or ()) > 1:
        raise UsageError(f"{task.name}: a classification asks in one language at a time: give one of {', '.join(config.langs or ())}")
    seen: set[str] = set()
    for row in task.rows:
        if row.id in seen:
            raise UsageError(f"{task.name}: the id {row.id!r} occurs twice; every item needs one of its own")
        seen.add(row.id)
    columns = sorted({name for row in task.rows for name in row.meta})
    for name in task.config.by:
        if name not in columns:
            raise UsageError(f"{task.name}: no column {name!r} to slice by{did_you_mean(name, columns)}; columns: {', '.join(columns)}")


def _file(config: TaskConfig) -> list[Task]:
    """The questions of a file or source, or its pictures and captions."""
    if config.data in sources.SOURCES:
        found = sources.load(config.data, split=config.split)
    else:
        found = open_data(config.data, image_col=config.image_col, text_col=config.question_col, split=config.split)
    asks = any(row.question or row.choices or row.answers for row in found) or config.question_col is not None
    if config.kind in ("choice", "answers") or (config.kind == "auto" and asks):
        return _questions(config, found)
    kind: Kind = "retrieval" if config.kind == "auto" else config.kind
    needed: list[Row] = []
    without: list[Dropped] = []
    for row in found:
        if row.images and (row.texts or kind == "classification"):
            needed.append(row)
        else:
            without.append(Dropped(row.id, "no caption" if row.images else "no picture"))
    return [_task(config, kind, needed, [*found.dropped, *without], found.notes)]


def _questions(config: TaskConfig, found: Dataset) -> list[Task]:
    """Those with choices and those without are two tasks: they are asked and marked in different ways."""
    asked, dropped = questions(found, answer_col=config.answer_col, choices_col=config.choices_col)
    lettered, free = [row for row in asked if row.choices], [row for row in asked if not row.choices]
    if config.kind == "choice" and not lettered:
        raise UsageError(f"{config.data}: no question has choices; give --choices-col, or columns A, B, C, …")
    if config.kind == "answers":  # also of those that have choices
        lettered, free = [], [row.with_(choices=()) for row in asked]
    both: list[tuple[Kind, list[Row]]] = [("choice", lettered), ("answers", free)]
    made = [(kind, rows) for kind, rows in both if rows and config.kind in ("auto", kind)]
    lost = [*found.dropped, *dropped]
    return [
        _task(config, kind, rows, lost if i == 0 else [], found.notes if i == 0 else (), f" ({kind})" if len(made) > 1 else "")
        for i, (kind, rows) in enumerate(made)
    ]


def _task(config: TaskConfig, kind: Kind, rows: Sequence[Row], dropped: Sequence[Dropped], notes: Sequence[str], more: str = "") -> Task:
    about = (f"{config.data}: your own", f"{config.data}：自有数据")
    if config.data in sources.SOURCES:
        about = sources.get(config.data).about, sources.get(config.data).about_zh
    return Task(
        config.data + more,
        kind,
        tuple(rows[: config.limit]),
        about,
        synthetic=config.data in sources.SOURCES and not sources.get(config.data).real,
        dropped=tuple(dropped),
        notes=tuple(notes),
        config=config,
    )


def _suite(config: TaskConfig) -> Task:
    name, native, synthetic = config.data, False, False
    kind: Kind = "retrieval"
    if config.split is not None:
        raise UsageError(f"{name} has one split, its own; split {config.split!r} goes with a file or a source")
    dropped: list[Dropped] = []
    rows: Sequence[Row]
    if name == "pages-zh-en":
        rows = list(sources.load("pages-zh-en", n=config.limit or 500, seed=config.seed))
        kind, native, synthetic = "choice", True, True
        config = config.model_copy(update={"by": config.by or ("kind", "difficulty")})
    elif name == "stamps-zh-en":
        rows, dropped = _both([row for row in sources.held_out_captions(list(sources.load("stamps")), seed=0) if row.split == "test"])
    else:
        rows, dropped = _both(list(sources.load(name.removesuffix("-zh-en"), split="test")))
        synthetic = name == "scenes-zh-en"
    chosen: Kind = kind if config.kind == "auto" else config.kind
    if chosen != kind and not (kind == "retrieval" and chosen == "captions"):
        raise UsageError(f"{name} is a suite of {kind}{' (or captions)' if kind == 'retrieval' else ''}, not of {chosen}")
    return Task(name, chosen, tuple(rows[: config.limit]), SUITES[name], synthetic, native, tuple(dropped), config=config)


WRONG = {
    "A bear.": "梨。", "A sliced lime.": "一片石灰。", "A chile pepper.": "智利辣椒。", "A sea lion.": "一只海豹。",
    "A large pot for pasta and soup.": "一大壶的面食和汤", "snowboarder": "滑雪板",
}  # fmt: skip
"""Translations in the sources that say another thing (a bear is no pear, a sliced lime no quicklime): an item with one would measure
the translator."""


def _both(rows: Sequence[Row]) -> tuple[list[Row], list[Dropped]]:
    """Those with a caption in Chinese and in English, so that both languages are asked about the same pictures; and why others are not."""
    kept: list[Row] = []
    dropped: list[Dropped] = []
    for row in rows:
        if not {"zh", "en"} <= {text.lang for text in row.texts}:
            dropped.append(Dropped(row.id, "not in both languages"))
        elif any(WRONG.get(one.text) == other.text for one in row.texts for other in row.texts):
            dropped.append(Dropped(row.id, "its translation says another thing"))
        else:
            kept.append(row)
    return kept, dropped
