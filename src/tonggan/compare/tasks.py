"""What models are compared on: suites that need nothing, and any file of the user's own.

A task is rows and the way they are used. Its fingerprint covers every question, choice, answer and picture, so that results
of other items are never put beside these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from tonggan.config import did_you_mean
from tonggan.data import open_data, sources
from tonggan.data.media import read_bytes
from tonggan.evaluate.tasks.questions import questions
from tonggan.types import Dropped, MediaError, Row, UsageError

Kind = Literal["choice", "retrieval"]


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
    dropped: tuple[Dropped, ...] = field(default=())

    @property
    def langs(self) -> list[str]:
        """Languages of its captions (retrieval)."""
        return sorted({text.lang for row in self.rows for text in row.texts if text.lang in ("zh", "en")}) or ["und"]

    def fingerprint(self) -> str:
        """Twelve characters that change with any item."""
        digest = hashlib.sha256(self.kind.encode())
        for row in self.rows:
            said = [row.id, row.question, row.choices, row.answers, [(t.text, t.lang) for t in row.texts], row.group]
            digest.update(json.dumps(said, ensure_ascii=False).encode())
            for image in row.images:
                try:
                    digest.update(hashlib.sha256(read_bytes(image)).digest())
                except MediaError:
                    digest.update(b"unreadable")
        return digest.hexdigest()[:12]


SUITES: dict[str, tuple[str, str]] = {
    "pages-zh-en": (
        "questions about pages written in Chinese and in English, each as at home (drawn by us)",
        "中英文页面上的提问，两种语言各自原生编写（由程序绘制）",
    ),
    "stamps-zh-en": (
        "pictures of Tux Paint with captions in English and their translation: 150 concepts that adapt-stamps holds out",
        "Tux Paint 的图片，英文描述及其中文译文：adapt-stamps 留出的 150 个概念",
    ),
    "openmoji-zh-en": ("OpenMoji's drawings with their names in both languages (test split)", "OpenMoji 的图及其中英文名称（测试集）"),
    "scenes-zh-en": ("drawn scenes of coloured shapes, a synthetic check", "彩色图形场景，合成检验"),
}
"""Every suite by name, with what it is."""


def task(
    name: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    image_col: str | None = None,
    question_col: str | None = None,
    answer_col: str | None = None,
    choices_col: str | None = None,
) -> Task:
    """A suite by name, or a file: of questions where it has answers, otherwise of pictures and captions.

    `limit` takes the first so many; `seed` draws other pages. Raises `UsageError` with the nearest spelling for an unknown name.
    """
    if name in SUITES:
        kind, rows, synthetic = _suite(name, limit or 500, seed)
        return Task(name, kind, tuple(rows[:limit]), SUITES[name], synthetic)
    if not any(mark in name for mark in "./\\"):
        raise UsageError(f"no suite {name!r}{did_you_mean(name, SUITES)}; suites: {', '.join(SUITES)}; or a file of your own")
    found = open_data(name, image_col=image_col, text_col=question_col)
    about = (f"{name}: your own", f"{name}：自有数据")
    lettered = any(row.choices or row.answers for row in found) or question_col is not None
    if lettered:
        asked, dropped = questions(found, answer_col=answer_col, choices_col=choices_col)
        free = [Dropped(row.id, "no choices; free answers are not compared yet") for row in asked if not row.choices]
        kept = [row for row in asked if row.choices][:limit]
        if not kept:
            raise UsageError(f"{name}: no question has choices; give --choices-col, or columns A, B, C, …")
        return Task(name, "choice", tuple(kept), about, dropped=(*found.dropped, *dropped, *free))
    return Task(name, "retrieval", tuple(row for row in found if row.images and row.texts)[:limit], about, dropped=found.dropped)


def _suite(name: str, count: int, seed: int) -> tuple[Kind, Sequence[Row], bool]:
    if name == "pages-zh-en":
        return "choice", list(sources.load("pages-zh-en", n=count, seed=seed)), True
    if name == "stamps-zh-en":
        rows = [row for row in sources.held_out_captions(list(sources.load("stamps")), seed=0) if row.split == "test"]
        return "retrieval", _both(rows), False
    source = name.removesuffix("-zh-en")
    return "retrieval", _both(sources.load(source, split="test")), source == "scenes"


def _both(rows: Sequence[Row]) -> list[Row]:
    """Those with a caption in Chinese and in English, so that both languages are asked about the same pictures."""
    return [row for row in rows if {"zh", "en"} <= {text.lang for text in row.texts}]
