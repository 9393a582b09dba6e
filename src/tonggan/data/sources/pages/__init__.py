"""Pages: a seeded, endless suite of questions about pages in Chinese and in English, each written as it is at home.

    from tonggan.data.sources import pages
    rows = pages.generate(500, seed=0)

Invoices, menus, timetables, calendars, signs, tables, charts; vertical text in Chinese, notes in English. Every answer follows from
what was drawn. A synthetic check of reading: never averaged with real data.

The kind `vertical` is only in Chinese and `note` only in English, and no page is a translation: a gap between the languages mixes
the language with what is asked about. Hold the kinds that both have against each other to tell them apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import PIL.Image

from tonggan.data.media import encode_png
from tonggan.data.rows import Dataset
from tonggan.data.sources import clients
from tonggan.data.sources.base import Source
from tonggan.data.sources.pages import chinese, english, fonts
from tonggan.data.sources.pages.asking import Ask, Draft, Style
from tonggan.data.sources.pages.near import CHOICES
from tonggan.data.sources.pages.numerals import amount
from tonggan.data.sources.pages.spoil import spoil
from tonggan.types import Image, Row, TongganError

__all__ = ["KINDS", "QUESTIONS", "Page", "Pages", "amount", "generate", "page"]

Draw = Callable[[random.Random, Style], Draft]

QUESTIONS = 4
"""Questions on each page: item i is question i % 4 of page i // 4."""
KINDS: Mapping[str, Mapping[str, tuple[Draw, Sequence[str]]]] = {"zh": chinese.KINDS, "en": english.KINDS}
"""By language and kind: what draws the page, and in which ways it can be hard. 48 pages have every kind at every difficulty."""


@dataclass(frozen=True)
class Page:
    """One page: the draft (strings and places, before anything was spoiled), and what is asked about it."""

    name: str
    lang: str
    kind: str
    difficulty: int
    style: str
    draft: Draft
    asks: tuple[Ask, ...]

    @cached_property
    def picture(self) -> PIL.Image.Image:
        """The page as it is shown, as hard to read as its difficulty says; RGB."""
        return spoil(self.draft, self.asks, self.difficulty, self.style, random.Random(f"spoil/{self.name}"))


def page(number: int, seed: int = 0, *, handwriting: bool = True) -> Page:
    """Page `number` of the endless sequence that `seed` names. `handwriting=False` has no Chinese hands (they need npm).

    Difficulty 1 is clean; 2 small and two of skewed, noisy, busy; 3 handwritten, traditional, occluded or blurred.
    """
    _require(handwriting)
    rng = random.Random(f"pages/{seed}/{number}")
    lang = ("zh", "en")[number % 2]
    turn, place = divmod(number // 2, len(KINDS[lang]))
    kind = list(KINDS[lang])[place]
    difficulty = (turn + place) % 3 + 1
    draw, styles = KINDS[lang][kind]
    if not handwriting and lang == "zh":
        styles = [style for style in styles if style != "handwritten"]
    style = rng.choice(styles) if difficulty == 3 else "plain"
    while True:
        draft = draw(rng, Style(style))
        asks = draft.asks.pick(QUESTIONS, reading=style == "occluded")  # what is counted or compared must not be covered
        if len(asks) == QUESTIONS:
            break
    return Page(f"pages-zh-en/{seed}/p{number}", lang, kind, difficulty, style, draft, tuple(asks))


def generate(n: int, seed: int = 0, *, size: int = 1024, handwriting: bool = True) -> Dataset:
    """Questions 0..n-1 of the endless sequence that `seed` names: question 7 is the same whatever `n` is.

    Each row has one picture (PNG; one larger than `size` x `size` pixels is made to fit), `question`, four `choices` and their
    one right `answers`; rows about one page share a `group`. All are in the split `test`. `meta` has lang (zh, en), script
    (Hans, Hant, Latn), kind, difficulty (1-3), style, and rule: how the answer follows.
    """
    _require(handwriting)
    return Dataset.from_rows(_rows(n, seed, size, handwriting))


def _rows(n: int, seed: int, size: int, handwriting: bool) -> Iterator[Row]:
    for number in range((n + QUESTIONS - 1) // QUESTIONS):
        one = page(number, seed, handwriting=handwriting)
        shown = one.picture.copy()
        shown.thumbnail((size, size), PIL.Image.Resampling.LANCZOS)
        picture = Image(data=encode_png(shown))
        script = "Latn" if one.lang == "en" else "Hant" if one.style == "traditional" else "Hans"
        for i, ask in enumerate(one.asks[: n - number * QUESTIONS], number * QUESTIONS):
            yield Row(
                id=f"pages-zh-en/{seed}/{i}",
                images=(picture,),
                question=ask.question,
                choices=ask.choices(random.Random(f"choices/{seed}/{i}")),
                answers=(ask.answer,),
                group=one.name,
                split="test",
                meta={
                    "source": Pages.name,
                    "licence": Pages.licence,
                    "lang": one.lang,
                    "script": script,
                    "kind": one.kind,
                    "difficulty": str(one.difficulty),
                    "style": one.style,
                    "rule": ask.rule,
                    "synthetic": "yes",
                },
            )


def _require(handwriting: bool) -> None:
    if not fonts.printed() or (handwriting and not fonts.handwritten()):
        raise TongganError(
            f"{Pages.name} needs typefaces that are not on this machine; get them with: {Pages().how}"
            f" (leaving out Chinese handwriting by handwriting=False, this is enough: {fonts.pip_line()})"
        )


class Pages(Source):
    """`generate` behind the interface of a source.

    `vertical` is only in Chinese and `note` only in English: the gap between Chinese and English mixes the language with the kind.
    """

    name = "pages-zh-en"
    about = (
        f"endless questions ({CHOICES} choices) about drawn pages in Chinese and English: invoices, menus, calendars, … (a synthetic check)"
    )
    about_zh = "无限生成的中英文版面问答（四选一）：发票、菜单、时刻表、月历、标识、表格、图表、竖排文字（合成检验）"
    licence = "Apache-2.0 (pages), OFL-1.1 (typefaces)"
    attribution = "Drawn by Tonggan's pages generator; typefaces Noto Sans/Serif SC and TC, Ma Shan Zheng, Long Cang, Caveat, Kalam (OFL)"
    megabytes = 55
    real = False

    @property
    def how(self) -> str:
        return fonts.npm_line() if fonts.printed() else f"{fonts.pip_line()} && {fonts.npm_line()}"

    def available(self) -> bool:
        return fonts.printed() and fonts.handwritten()

    def _install(self) -> None:
        if not fonts.printed():
            clients.pip_install(fonts.PIP)
        if not fonts.handwritten():
            clients.npm_pack(fonts.NPM, fonts.home())

    def rows(self, *, size: int = 1024, n: int = 500, seed: int = 0, handwriting: bool = True) -> Dataset:
        """The first `n` questions of a seed; without `handwriting`, pip alone is enough."""
        return generate(n, seed, size=size, handwriting=handwriting)
