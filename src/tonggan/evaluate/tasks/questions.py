"""Questions about pictures, out of any data set: rows that carry them, or a table of the user's own with columns named as people name them.

rows = questions(open_data("我的问题.xlsx", image_col="图片", text_col="问题"))
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from tonggan.config import did_you_mean
from tonggan.data.language import language_of
from tonggan.types import Dropped, Row, UsageError

ANSWER_NAMES = ("answer", "answers", "gold", "truth", "label", "答案", "正确答案", "标准答案", "参考答案")
CHOICES_NAMES = ("choices", "options", "选项", "候选", "候选答案")
LETTERS = "ABCDEFGHIJ"
_BETWEEN = re.compile(r"\s*(?:\||\n|；|;)\s*")


def questions(
    rows: Iterable[Row], *, answer_col: str | None = None, choices_col: str | None = None, answered: bool = True
) -> tuple[list[Row], list[Dropped]]:
    """Rows with `question`, `choices` and `answers`, each choice question's answer being one of its choices; and what could not be one.

    A row without a `question` of its own asks its first text. The answer stands in a column named `answer` or 答案 (several, divided by `|`
    or `;`), or as a letter; choices in a column `choices` or 选项, or in columns A, B, C, ….
    """
    every = list(rows)
    found: list[Row] = []
    dropped: list[Dropped] = []
    columns = sorted({key for row in every[:200] for key in row.meta})
    answer_key = _column(answer_col, ANSWER_NAMES, columns)
    choices_key = _column(choices_col, CHOICES_NAMES, columns)
    for row in every:
        made = _question(row, answer_key, choices_key)
        reason = _wrong(made, answered)
        if reason:
            dropped.append(Dropped(row.id, reason))
        else:
            found.append(made)
    if not found:
        told = f"; the first: {dropped[0].where}: {dropped[0].reason}" if dropped else ""
        raise UsageError(f"no row asks a question that can be marked{told}. Columns: {', '.join(columns) or 'none'}")
    return found, dropped


def asked_in(row: Row) -> str:
    """The language of a question: as the row says, else by its letters, else English."""
    return row.meta.get("lang") or language_of(row.question or "") or "en"


def _question(row: Row, answer_key: str | None, choices_key: str | None) -> Row:
    question = row.question if row.question is not None else (row.texts[0].text if row.texts else None)
    choices = row.choices or _choices(row.meta, choices_key)
    answers = row.answers or _split(row.meta.get(answer_key or "", ""))
    if choices:
        answers = tuple(_as_choice(answer, choices) for answer in answers)
    return row.with_(question=question, choices=choices, answers=answers)


def _choices(meta: Mapping[str, str], key: str | None) -> tuple[str, ...]:
    if key is not None and meta.get(key):
        return _split(meta[key])
    lettered = {name.strip().upper(): value for name, value in meta.items() if name.strip().upper() in LETTERS and len(name.strip()) == 1}
    return tuple(lettered[letter] for letter in LETTERS if lettered.get(letter))


def _as_choice(answer: str, choices: Sequence[str]) -> str:
    """A letter that is no choice itself stands for one."""
    bare = unicodedata.normalize("NFKC", answer).strip().strip("().")
    if answer not in choices and len(bare) == 1 and bare.upper() in LETTERS[: len(choices)]:
        return choices[LETTERS.index(bare.upper())]
    return answer


def _split(cell: str) -> tuple[str, ...]:
    """One cell's values: a JSON list, or divided by |, ; or lines."""
    text = cell.strip()
    if text.startswith("["):
        try:
            listed = json.loads(text)
        except ValueError:
            listed = None
        if isinstance(listed, list):
            return tuple(str(one).strip() for one in listed if str(one).strip())
    return tuple(part for part in _BETWEEN.split(text) if part)


def _wrong(row: Row, answered: bool) -> str | None:
    if not (row.question or "").strip():
        return "no question"
    if not answered:
        return None
    if not row.answers:
        return "no answer to mark by"
    if row.choices:
        if len(row.choices) < 2:
            return "one choice only"
        if len(row.choices) > len(LETTERS):
            return f"{len(row.choices)} choices; at most {len(LETTERS)} are asked"
        if len(set(row.choices)) < len(row.choices):
            return "two choices are the same"
        if len(row.answers) > 1:
            return f"{len(row.answers)} answers to a question with one right choice"
        if row.answers[0] not in row.choices:
            return f"the answer {row.answers[0]!r} is not one of the choices{did_you_mean(row.answers[0], row.choices)}"
    return None


def _column(chosen: str | None, known: Sequence[str], columns: Sequence[str]) -> str | None:
    if chosen is not None:
        if chosen not in columns:
            raise UsageError(f"no column {chosen!r}{did_you_mean(chosen, columns)}; columns: {', '.join(columns)}")
        return chosen
    plain = {unicodedata.normalize("NFKC", name).strip().lower(): name for name in columns}
    return next((plain[name] for name in known if name in plain), None)
