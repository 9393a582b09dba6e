"""One way to make a page: a single HTML file that opens offline, with tables, SVG plots and picture grids, in Chinese and English.

Everything a reader sees is a `Words` pair; a switch in the page chooses the language. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import base64
import html
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from tonggan.types import UsageError


class Words(NamedTuple):
    """The same thing said in English and in Chinese."""

    en: str
    zh: str

    @property
    def html(self) -> str:
        """Both languages, of which the page's switch shows one; the text is escaped."""
        if self.en == self.zh:
            return html.escape(self.en)
        return f'<span lang="en">{html.escape(self.en)}</span><span lang="zh">{html.escape(self.zh)}</span>'


_HERE = Path(__file__).parent
STYLE = (_HERE / "page.css").read_text(encoding="utf-8")
SCRIPT = (_HERE / "page.js").read_text(encoding="utf-8")


Said: TypeAlias = Words | str
"""What takes part in both languages as it is (a name, a number, a caption) may be a plain string."""


def words(text: Said) -> Words:
    """A plain string says the same in both languages."""
    return text if isinstance(text, Words) else Words(text, text)


def interval(value: float, low: float, high: float, *, sign: bool = False) -> str:
    """A share as per cent with its interval, which no line break divides (after a dash one could, but for the joiner)."""
    form = "+.1f" if sign else ".1f"
    dash = "\N{NO-BREAK SPACE}–\N{WORD JOINER}\N{NO-BREAK SPACE}"
    return f"{100 * value:{form}} ({100 * low:{form}}{dash}{100 * high:{form}})"


_EMPTY = frozenset({"", "–", "—", "-", "unknown"})
_AMOUNT = r"[+\-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+\-]?\d+)?"
_NUMBER = re.compile(
    rf"[<>≤≥≈~]?\s*[$¥€£]?\s*(?P<value>{_AMOUNT})"
    rf"(?:\s*/\s*{_AMOUNT})*(?:,\s+{_AMOUNT})*"  # 23 / 1; 0.5, 1.8, 4
    r"(?:\s*(?:%|‰|[kKMGT]?B|m?s|[元秒个项题行])|\s+[^\W\d_]+(?:/[^\W\d_]+)?)?"  # a unit: one word
    rf"(?:\s*\([^()]*\)|\s*±\s*{_AMOUNT})?",  # an interval
    re.IGNORECASE,
)
_DATE = re.compile(r"(?P<year>\d{4})-(?P<month>0[1-9]|1[0-2])(?:-(?P<day>0[1-9]|[12]\d|3[01]))?")


def value_of(text: str) -> float | None:
    """By what a cell is sorted: its number, if the whole cell is a number with its unit and interval (of several the first), or its date
    (YYYY-MM or YYYY-MM-DD) as YYYY.MMDD; None for a text, which may begin with a number."""
    plain = text.replace("−", "-").replace("\N{WORD JOINER}", "").strip()
    if date := _DATE.fullmatch(plain):
        return float(f"{date['year']}.{date['month']}{date['day'] or ''}")
    number = _NUMBER.fullmatch(plain)
    return float(number["value"].replace(",", "")) if number else None


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture for a grid: encoded bytes (PNG or JPEG; none: the caption stands alone), a caption below, which may have several lines, and
    whether it is right, wrong or neither."""

    data: bytes
    caption: Said = ""
    right: bool | None = None


@dataclass(slots=True)
class Page:
    """Collects blocks in order and renders them. `part` starts a section that the table of contents names."""

    title: Words
    lead: Said = ""
    _body: list[str] = field(default_factory=list)
    _parts: list[tuple[str, Words]] = field(default_factory=list)

    def part(self, title: Words) -> None:
        """Start a section."""
        anchor = self._anchor(title.en)
        self._parts.append((anchor, title))
        self._body.append(f'<h2 id="{anchor}">{title.html}</h2>')

    def _anchor(self, title: str) -> str:
        """The title as an id that no other part has: letters of any script, digits and hyphens."""
        base = re.sub(r"[\W_]+", "-", title.lower()).strip("-") or "part"
        taken = {"switch", "zh", *(anchor for anchor, _ in self._parts)}  # the button's id, and the address that chooses Chinese
        names = (base if number == 1 else f"{base}-{number}" for number in itertools.count(1))
        return next(name for name in names if name not in taken)

    def text(self, text: Said, *, quiet: bool = False) -> None:
        """A paragraph; `quiet` for how something was measured."""
        self._body.append(f"<p{' class=quiet' if quiet else ''}>{words(text).html}</p>")

    def links(self, places: Sequence[tuple[Words, str]]) -> None:
        """Other pages, by their addresses from where this one lies."""
        said = (f'<a href="{html.escape(place, quote=True)}">{title.html}</a>' for title, place in places)
        self._body.append(f"<p>{' · '.join(said)}</p>")

    def commands(self, lines: Sequence[str]) -> None:
        """Exact commands, one a line, to be copied."""
        self._body.append(f"<pre><code>{html.escape(chr(10).join(lines))}</code></pre>")

    def table(self, head: Sequence[Said], rows: Sequence[Sequence[Said]], *, caption: Said = "", strong: int | None = None) -> None:
        """A table that is sorted by a click on its head: numbers and dates by `value_of`, before texts, and empty cells last. The first
        column is text, the others align as numbers. Row number `strong` stands out."""
        for number, row in enumerate(rows):
            if len(row) != len(head):
                raise UsageError(f"table row {number} has {len(row)} cells, the head has {len(head)}")
        out = ['<div class="wide"><table>']
        if caption:
            out.append(f"<caption>{words(caption).html}</caption>")
        out.append("<thead><tr>" + "".join(f'<th tabindex="0">{words(h).html}</th>' for h in head) + "</tr></thead><tbody>")
        for number, row in enumerate(rows):
            mark = ' class="strong"' if number == strong else ""
            out.append(f"<tr{mark}>" + "".join(map(_cell, row)) + "</tr>")
        out.append("</tbody></table></div>")
        self._body.append("".join(out))

    def fold(self, title: Words, head: Sequence[Said], rows: Sequence[Sequence[Said]]) -> None:
        """A table that opens when its title is clicked."""
        self._body.append(f"<details><summary>{title.html}</summary>")
        self.table(head, rows)
        self._body.append("</details>")

    def figure(self, en: str, zh: str, caption: Said = "") -> None:
        """An SVG drawn once per language (see `report.plots`)."""
        drawn = en if en == zh else f'<span lang="en">{en}</span><span lang="zh">{zh}</span>'
        self._body.append(f'<figure><div class="wide">{drawn}</div><figcaption>{words(caption).html}</figcaption></figure>')

    def grid(self, pictures: Sequence[Picture], *, title: Said = "", query: Picture | None = None, large: bool = False) -> None:
        """A row of pictures, for example a query and what was found; `large` where captions have several lines."""
        head = f"<h3>{words(title).html}</h3>" if title else ""
        shown = [_picture(query, "query")] if query else []
        shown += [_picture(p, {True: "right", False: "wrong", None: ""}[p.right]) for p in pictures]
        self._body.append(f'{head}<div class="grid{" large" * large}">{"".join(shown)}</div>')

    def html(self) -> str:
        """The whole page."""
        contents = "".join(f'<a href="#{anchor}">{title.html}</a>' for anchor, title in self._parts)
        return (
            "<!doctype html>\n"
            f'<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title.en)} · {html.escape(self.title.zh)}</title><style>{STYLE}</style></head>"
            f'<body class="en"><header><h1>{self.title.html}</h1>'
            f'<button id="switch" type="button" aria-label="language 语言">中文</button></header>'
            f"<p class=lead>{words(self.lead).html}</p><nav>{contents}</nav><main>{''.join(self._body)}</main>"
            f"<script>{SCRIPT}</script></body></html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """Write the page; gives its path."""
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.html(), encoding="utf-8")
        return file


def _cell(cell: Said) -> str:
    said = words(cell)
    value = value_of(said.en)
    if value is not None:
        # A number or a date is not divided by a line break; a list of numbers may be.
        whole = "" if ", " in said.en else ' class="whole"'
        return f'<td{whole} data-value="{value:.12g}">{said.html}</td>'
    return f"<td class=empty>{said.html}</td>" if said.en.strip() in _EMPTY else f"<td>{said.html}</td>"


def _picture(picture: Picture, kind: str) -> str:
    if not picture.data:
        return f'<figure class="{kind}"><figcaption>{words(picture.caption).html}</figcaption></figure>'
    mime = "image/png" if picture.data.startswith(b"\x89PNG") else "image/jpeg"
    caption = words(picture.caption)
    alt = html.escape(caption.en, quote=True)
    source = f"data:{mime};base64,{base64.b64encode(picture.data).decode()}"
    return f'<figure class="{kind}"><img src="{source}" alt="{alt}"><figcaption>{caption.html}</figcaption></figure>'
