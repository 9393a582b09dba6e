"""Questions in tables: how people name their columns, and which choice a cell of answers means.

A choice question has its choices in one cell (a list, or divided by `|`, `;` or lines) or in columns A, B, C, …; its answer is a letter,
a choice's text, or both ("B. 猫"). Other answers are a text, or several: a list, or divided by `|`, short ones also by `;`.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any

from tonggan.data.formats.cells import EMPTY, as_text, meta_name, plain_name
from tonggan.data.language import language_of

QUESTION_NAMES = ("question", "问题", "提问", "问句", "题干")
TITLE_NAMES = ("题目", "试题", "query")
"""May be the title of a picture, too: a question only beside answers or choices."""
ANSWER_NAMES = ("answer", "answers", "gold", "truth", "label", "答案", "正确答案", "标准答案", "参考答案")
CHOICES_NAMES = ("choices", "options", "选项", "候选", "候选答案")
HINT_NAMES = ("hint", "提示")
LETTERS = "ABCDEFGHIJ"
"""Choices that a question may have; each is asked for by its letter."""

_TEXTS = ("text", "prompt")
"""A question by these names only beside a `question_id` (LLaVA's files of questions)."""
_LETTERED = re.compile(r"(?:选项|option|choice)?[-_. ]*(?P<letter>[a-j])[-_. ]*(?:选项)?")
_BETWEEN = re.compile(r"\s*(?:\||\n|；|;)\s*")
_BAR = re.compile(r"\s*\|\s*")
_SEMICOLON = re.compile(r"\s*[；;]\s*")
_SHORT = 20
"""Characters of an answer that may have others beside it, divided by semicolons; a longer one is a clause."""
_SENTENCE = re.compile(r"[。！？…\n]|[.!?](?=[\s|]|$)|(?<!\d)[，：]|[，：](?!\d)")
"""Marks of a text, in which a semicolon is one more of them: Chinese commas and colons, too, for `；` stands between clauses that have
some (3：30 has none)."""
_MARK = re.compile(r"(?:^|(?<=[\s;；|,，]))[(（]?(?P<letter>[A-JＡ-Ｊ])(?:[)）][.．、:：]?|[.．、:：])\s*")
"""`B. `, `B、`, `（B）` before a choice."""
_TOLD = re.compile(r"\A(?:正确)?(?:答案|选项?|(?i:answer|option))\s*(?:是|为|:|(?i:is))?\s*(?=[(\[]?[A-Za-z](?![A-Za-z]))")
_SEVERAL = re.compile(r"[A-J](?:[\s,、;|&+/和与及]*[A-J])+")
_YES = frozenset(("是", "是的", "对", "正确", "yes", "true", "√", "✓"))
_NO = frozenset(("否", "不是", "不对", "错", "错误", "不正确", "no", "false", "×", "✗"))


@dataclass(frozen=True, slots=True)
class Asking:
    """The columns of a table that asks questions. All of them stay in `meta` as well, where `tasks.questions` finds them by name."""

    question: str
    answer: str | None = None
    choices: str | None = None
    lettered: Mapping[str, str] = field(default_factory=dict)
    """The column of each letter."""
    hint: str | None = None

    @property
    def columns(self) -> set[str]:
        """Every column that has a part in the question."""
        return {name for name in (self.question, self.answer, self.choices, self.hint, *self.lettered.values()) if name is not None}


def asking(names: Sequence[str], told: str | None = None, captions: Sequence[str] = ()) -> Asking | None:
    """Which columns ask, None for a table that asks nothing.

    `told` is the text column that the user named: it is the question, unless it is one of `captions` and another column is named question.
    """
    plain = {plain_name(meta_name(name)): name for name in reversed(names)}
    answer, choices, letters = _first(plain, ANSWER_NAMES), _first(plain, CHOICES_NAMES), lettered_columns(names)
    sure = (answer is not None and plain_name(meta_name(answer)) != "label") or choices is not None
    question = _first(plain, QUESTION_NAMES)
    if question is None and (sure or letters):
        question = _first(plain, TITLE_NAMES)
    if question is None and "question_id" in plain:
        question = _first(plain, _TEXTS)
    if told is not None and (sure if question is None else told not in captions or plain_name(told) in TITLE_NAMES):
        question = told
    return None if question is None else Asking(question, answer, choices, letters, _first(plain, HINT_NAMES))


def lettered_columns(names: Sequence[str]) -> dict[str, str]:
    """Columns A, B, C, … (also `选项A`, `option_a`) by their letter; none unless there are A and B."""
    matches = ((_LETTERED.fullmatch(plain_name(meta_name(name))), name) for name in names)
    found = {match["letter"].upper(): name for match, name in matches if match}
    return dict(sorted(found.items())) if {"A", "B"} <= found.keys() else {}


def hinted(question: str, hint: str | None) -> str:
    """The question with its hint before it, as VLMEvalKit puts it: `Hint: …`, then `Question: …`; in Chinese for a Chinese question."""
    if not hint:
        return question
    chinese = (language_of(question) or language_of(hint)) == "zh"
    return f"提示：{hint}\n问题：{question}" if chinese else f"Hint: {hint}\nQuestion: {question}"


# ------------------------------------------------------------------------------------------------ cells


def listed(cell: Any) -> tuple[str, ...]:
    """What one cell lists: a list (of records with an `answer` or `text`, too), one written as JSON or as Python does, or words divided
    by `|`, `;` or lines."""
    cell = _parsed(cell)
    if isinstance(cell, Mapping):
        cell = [cell]
    if isinstance(cell, list | tuple):
        return tuple(text for one in cell if (text := as_text(_said(one))))
    text = as_text(cell)
    return tuple(part for part in _BETWEEN.split(text) if part) if text else ()


def choices_in(cell: Any) -> tuple[str, ...]:
    """The choices in one cell: as `listed`, or an object by letter, or one text `A. … B. …`, or, where that gives but one, divided by
    `、` or commas. Letters before the choices are taken off."""
    cell = _parsed(cell)
    if isinstance(cell, Mapping):
        cell = [cell[key] for key in sorted(cell, key=str)]
    if not isinstance(cell, list | tuple):
        marked = _marked(as_text(cell) or "")
        if marked:
            return marked
    found = listed(cell)
    if len(found) == 1 and not isinstance(cell, list | tuple):
        found = next((parts for by in ("、", ",", "，") if len(parts := _divided(found[0], by)) > 1), found)
    return tuple(_unmarked(by_letter(found)).values()) if len(found) > 1 else found


def _divided(text: str, by: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(by) if part.strip())


def by_letter(choices: Sequence[str]) -> dict[str, str]:
    """Choices by the letters A, B, C, …, and by their number from the 27th on."""
    return {ascii_uppercase[n] if n < len(ascii_uppercase) else str(n + 1): text for n, text in enumerate(choices)}


def options_in(cells: Mapping[str, Any], lettered: Mapping[str, str], empty: Collection[str] = EMPTY) -> dict[str, str]:
    """The options of a record whose columns are A, B, C, …, by letter; empty cells are no options."""
    found = {letter: text for letter, name in lettered.items() if (text := as_text(cells.get(name), empty))}
    return _unmarked(found)


def _parsed(cell: Any) -> Any:
    """A list or an object that was written into a cell, as JSON or as Python prints it."""
    text = cell.strip() if isinstance(cell, str) else ""
    if (text[:1], text[-1:]) not in (("[", "]"), ("{", "}")):
        return cell
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list | tuple | dict):
            return found
    return cell


def _said(one: Any) -> Any:
    return next((one[key] for key in ("answer", "text", "value", "content") if key in one), None) if isinstance(one, Mapping) else one


def _marked(text: str) -> tuple[str, ...]:
    """The choices of `A. 猫 B. 狗 C. 鸟`; none when the letters do not follow each other from A."""
    marks = list(_MARK.finditer(text))
    if len(marks) < 2 or marks[0].start() or [_letter(mark) for mark in marks] != list(ascii_uppercase[: len(marks)]):
        return ()
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return tuple(text[mark.end() : end].strip(" \n\t|;,，；") for mark, end in zip(marks, ends, strict=True))


def _unmarked(options: Mapping[str, str]) -> dict[str, str]:
    """Options without the letters before them, where each has its own there."""
    marks = {letter: _MARK.match(text) for letter, text in options.items()}
    if not all(mark and _letter(mark) == letter for letter, mark in marks.items()):
        return dict(options)
    return {letter: text[mark.end() :] for (letter, text), mark in zip(options.items(), marks.values(), strict=True) if mark}


def _letter(mark: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", mark["letter"])


# ---------------------------------------------------------------------------------------------- answers


def listed_answers(cell: Any) -> tuple[str, ...]:
    """The answers that one cell lists: a list as in `listed`, or words divided by `|`, and by `;` where `divided_at` says so. Line ends
    divide nothing: a transcript of several lines is one answer."""
    if not isinstance(_parsed(cell), str | bytes):
        return listed(cell)
    parts = _BAR.split(as_text(cell) or "")
    if divided_at(cell):
        parts = [one for part in parts for one in _SEMICOLON.split(part)]
    return tuple(part for part in parts if part)


def divided_at(cell: Any) -> tuple[str, ...]:
    """The semicolons, `；` or `;`, that divide a cell into answers; none where it is a list, a sentence or longer pieces, in which they
    belong to the text."""
    text = as_text(cell) if isinstance(_parsed(cell), str | bytes) else None
    if text is None or _SENTENCE.search(text):
        return ()
    parts = [part for part in _BETWEEN.split(text) if part]
    return tuple(mark for mark in "；;" if mark in text) if len(parts) > 1 and max(map(len, parts)) <= _SHORT else ()


def answers_in(cell: Any, options: Mapping[str, str], *, by_column: bool = False) -> tuple[str, ...]:
    """The answers in a cell, each the text of one of `options` (by letter) where it means one; as they stand where it does not.

    `by_column`: the options are the table's columns A, B, …, so that a letter is a column before it is a text.
    """
    if not options:
        return listed_answers(cell)
    whole = None if isinstance(_parsed(cell), list | tuple | Mapping) else as_text(cell)
    if whole is not None and (meant := choice_meant(whole, options, by_column=by_column)) is not None:
        return (meant,)  # a choice may hold a semicolon itself
    several = [choice_meant(one, options, by_column=by_column) for one in listed(cell)]
    meant_all = tuple(text for text in several if text is not None)
    if len(meant_all) == len(several):
        return meant_all  # however they are divided
    return tuple(choice_meant(one, options, by_column=by_column) or one for one in listed_answers(cell))


def choice_meant(answer: str, options: Mapping[str, str], *, by_column: bool = False) -> str | None:
    """The text of the option that an answer means: its letter, its text (in another width or case, or as another number), both, or yes
    and no in other words. None where it means none, or its letter and its text are two options."""
    texts = list(options.values())
    letter = bare_letter(answer)
    if by_column and letter in options:
        return options[letter]
    if answer in texts:
        return answer
    if letter in options:
        return options[letter]
    if (marked := mark_of(answer)) is not None and marked[0] in options:
        return options[marked[0]] if _alike(marked[1], options[marked[0]]) else None
    same = [text for text in texts if _alike(answer, text)] or [text for text in texts if _agrees(answer, text)]
    return same[0] if len(same) == 1 else None


def bare_letter(answer: str) -> str:
    """`B` for an answer that is nothing but a letter: b, (B), Ｂ., 选 B, 答案：B; empty for others."""
    plain = _TOLD.sub("", unicodedata.normalize("NFKC", answer).strip(), count=1).strip(" ().[]。、:")
    return plain.upper() if len(plain) == 1 and plain.isascii() and plain.isalpha() else ""


def several_letters(answer: str, options: Mapping[str, str]) -> list[str]:
    """The letters of an answer that names several options: AC, `A, C`, A和C; none for others."""
    plain = unicodedata.normalize("NFKC", answer).strip(" ().。")
    letters = re.findall(r"[A-J]", plain) if _SEVERAL.fullmatch(plain) else []
    return letters if letters == sorted({*letters}) and options.keys() >= {*letters} else []


def mark_of(answer: str) -> tuple[str, str] | None:
    """(letter, text) of an answer such as "B. 猫", None for others."""
    mark = _MARK.match(answer)
    return (_letter(mark), answer[mark.end() :].strip()) if mark else None


def _alike(one: str, other: str) -> bool:
    """Equal but for width, case, spaces and a full stop, or as numbers."""
    a, b = (" ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .。") for text in (one, other))
    if a == b:
        return True
    try:
        return float(a) == float(b)
    except ValueError:
        return False


def _agrees(one: str, other: str) -> bool:
    """Whether both say yes, or both no."""
    a, b = (unicodedata.normalize("NFKC", text).casefold().strip(" .。") for text in (one, other))
    return any(a in said and b in said for said in (_YES, _NO))


def _first(plain: Mapping[str, str], known: Sequence[str]) -> str | None:
    return next((plain[name] for name in known if name in plain), None)
