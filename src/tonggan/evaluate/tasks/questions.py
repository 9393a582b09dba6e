"""Questions about pictures, out of any data set: rows that carry them, or a table of the user's own with columns named as people name them.

rows, dropped = questions(open_data("我的问题.xlsx"))
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from tonggan.config import did_you_mean
from tonggan.data.formats.questions import (
    ANSWER_NAMES,
    CHOICES_NAMES,
    HINT_NAMES,
    LETTERS,
    answers_in,
    bare_letter,
    by_letter,
    choices_in,
    hinted,
    lettered_columns,
    listed_answers,
    mark_of,
    options_in,
    several_letters,
)
from tonggan.data.language import language_of
from tonggan.types import Dropped, Row, Text, UsageError

__all__ = ["LETTERS", "asked_in", "questions", "whole_answer"]

_BETWEEN = re.compile(r"[\s|；;]+")
"""All that an answer's pieces may have lost where they were divided."""


def questions(
    rows: Iterable[Row], *, answer_col: str | None = None, choices_col: str | None = None, answered: bool = True
) -> tuple[list[Row], list[Dropped]]:
    """Rows with `question`, `choices` and `answers`, each choice question's answer being one of its choices; and what could not be one.

    Of a row with messages its last answer is asked for, after all before it. A row without a `question` of its own asks its first text,
    after its hint. The answer stands in a column `answer` or 答案 (several: a
    JSON list, or divided by `|`, short ones also by `;`), or as a letter; choices in a column `choices` or 选项, or in columns A, B, C, ….
    A column that is named here is taken instead of what the row itself holds. Of two rows with one id, the second is left out. Raises
    `UsageError` for a column that is not there, and when no question is left.
    """
    every = list(rows)
    found: list[Row] = []
    dropped: list[Dropped] = []
    columns = sorted({key for row in every for key in row.meta})
    answer_key, choices_key = _chosen(answer_col, columns), _chosen(choices_col, columns)
    seen: set[str] = set()
    for row in every:
        made = _question(row, answer_key, choices_key)
        reason = "its id occurs a second time" if row.id in seen else _wrong(made, answered)
        seen.add(row.id)
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


def whole_answer(row: Row) -> str:
    """The right answer as one text, for what is read or heard: the cell as it was written where its answers were divided out of one, line
    ends, `|` and `;` included. Of answers that were a list, any of which is right, the first; empty where there is none.

    The cell is that of the column which `questions` takes; where it says something else (`answer_col` named another), it is the one
    that holds the row's answers in their order and nothing more.
    """
    cell = _cell(row.meta, ANSWER_NAMES)
    answers = row.answers or listed_answers(cell)
    if len(answers) > 1:
        pieces = _bare("".join(answers))
        cells = [cell] if cell is not None and listed_answers(cell) == answers else row.meta.values()
        return next((one for one in cells if _bare(one) == pieces), answers[0])
    return answers[0] if answers else ""


def _bare(text: str) -> str:
    return _BETWEEN.sub("", text)


def _question(row: Row, answer_key: str | None, choices_key: str | None) -> Row:
    question = row.question
    if question is None and len(row.messages) > 1 and row.messages[-1].role == "assistant":
        asked, said = ("".join(part.text for part in one.parts if isinstance(part, Text)).strip() for one in row.messages[-2:])
        return row.with_(question=asked, answers=(said,) if said else ())
    if question is None and row.texts:
        question = hinted(row.texts[0].text, _cell(row.meta, HINT_NAMES))
    options, by_column = _options(row, choices_key)
    if answer_key is None and row.answers:
        answers = tuple(text for answer in row.answers for text in (answers_in([answer], options) if options else (answer,)))
    else:
        cell = _cell(row.meta, ANSWER_NAMES) if answer_key is None else row.meta.get(answer_key)
        answers = answers_in(cell, options, by_column=by_column)
    return row.with_(question=question, choices=tuple(options.values()), answers=answers)


def _options(row: Row, choices_key: str | None) -> tuple[dict[str, str], bool]:
    """A row's choices by letter, and whether they stand in columns A, B, C, … of which one may be empty."""
    lettered = options_in(row.meta, lettered_columns(list(row.meta)))
    if choices_key is not None:
        return by_letter(choices_in(row.meta.get(choices_key))), False
    if row.choices:
        return (lettered, True) if tuple(lettered.values()) == row.choices else (by_letter(row.choices), False)
    listed = choices_in(_cell(row.meta, CHOICES_NAMES))
    return (by_letter(listed), False) if listed else (lettered, True)


def _cell(meta: Mapping[str, str], known: Sequence[str]) -> str | None:
    """The cell of the first of these columns that a row has."""
    plain = {unicodedata.normalize("NFKC", name).strip().lower(): cell for name, cell in meta.items()}
    return next((plain[name] for name in known if name in plain), None)


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
            return f"several right choices ({'; '.join(row.answers)}) are not supported"
        if row.answers[0] not in row.choices:
            return _unlike(row.answers[0], row.choices)
    return None


def _unlike(answer: str, choices: Sequence[str]) -> str:
    """Why an answer means none of the choices."""
    options = by_letter(choices)
    if several := several_letters(answer, options):
        return f"several right choices ({', '.join(several)}) are not supported"
    if letter := bare_letter(answer):
        return f"the answer {letter} is the letter of no choice: there are {len(choices)}"
    if (marked := mark_of(answer)) is not None and marked[0] in options:
        return f"the answer says {marked[0]} and {marked[1]!r}, but {marked[0]} is {options[marked[0]]!r}"
    return f"the answer {answer!r} is not one of the choices{did_you_mean(answer, choices)}"


def _chosen(column: str | None, columns: Sequence[str]) -> str | None:
    if column is not None and column not in columns:
        raise UsageError(f"no column {column!r}{did_you_mean(column, columns)}; columns: {', '.join(columns)}")
    return column
