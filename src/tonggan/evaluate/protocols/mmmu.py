"""How MMMU's own program (`mmmu/utils/eval_utils.py`) and lmms-eval (`tasks/_task_utils/mmmu_mcq_utils.py`) read a reply.

Both: letters in brackets, then letters with spaces, then, in replies of more than five words, the options' texts; of several the last;
where nothing is found, an option drawn at random. They differ in what a letter with spaces is: MMMU wants a space on both sides, lmms-eval
one after it, and then also takes a letter before a period. Words are what stands between spaces, so a Chinese reply is one word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from string import ascii_uppercase

from tonggan.evaluate.protocols.read import Read

_ENDS = ",.!?;:'"
_FEW_WORDS = 5


def official(reply: str, options: Sequence[str]) -> Read:
    """As MMMU's own program."""
    said, letters = _padded(reply), ascii_uppercase[: len(options)]
    if bracketed := [letter for letter in letters if f"({letter})" in said]:
        return _last("bracket", bracketed, lambda letter: said.rfind(f"({letter})"))
    if alone := [letter for letter in letters if f" {letter} " in said]:
        return _alone(said, alone)
    return _by_content(said, options)


def lmms_eval(reply: str, options: Sequence[str]) -> Read:
    """As lmms-eval's MMMU tasks; its other tasks have readers of their own."""
    said, letters = _padded(reply), ascii_uppercase[: len(options)]
    if bracketed := [letter for letter in letters if f"({letter})" in said]:
        return _last("bracket", bracketed, lambda letter: said.rfind(f"({letter})"))
    if spaced := [letter for letter in letters if f"{letter} " in said]:
        # Of several the last that has a space before it too; where none has, the first in the alphabet.
        return _alone(said, spaced) if any(f" {letter} " in said for letter in spaced) else _word_end(said, spaced[0], " ")
    if ending := [letter for letter in letters if f"{letter}." in said]:
        if not re.search(rf"(?<![^\W_]){ending[0]}\.", said):
            return _word_end(said, ending[0], ".")
        return Read("period" if len(ending) == 1 else "period-first", ascii_uppercase.index(ending[0]), f"{ending[0]}.")
    return _by_content(said, options)


def _padded(reply: str) -> str:
    """Without marks at its ends, each kind once and in this order (`A.'` loses both, `A'.` keeps the first), and with a space there."""
    for mark in _ENDS:
        reply = reply.strip(mark)
    return f" {reply} "


def _alone(said: str, letters: Sequence[str]) -> Read:
    found = _last("alone", letters, lambda letter: said.rfind(f" {letter} "))
    letter = ascii_uppercase[found.choice or 0]
    if letter in "AI" and re.match(rf" {letter} [a-z]", said[said.rfind(f" {letter} ") :]):
        return Read("perhaps-article", found.choice, _around(said, said.rfind(f" {letter} ") + 1))
    return found


def _word_end(said: str, letter: str, after: str) -> Read:
    """A letter without a space before it: the end of a word ("NASA"), or of text that has no spaces ("答案是A")."""
    place = said.rfind(letter + after)
    inside = said[place - 1].isascii() and said[place - 1].isalnum()
    return Read("word-end" if inside else "tail", ascii_uppercase.index(letter), _around(said, place))


def _around(said: str, place: int) -> str:
    """The word at a place and the next one."""
    start = said.rfind(" ", 0, place) + 1
    return " ".join(said[start:].split()[:2])


def _by_content(said: str, options: Sequence[str]) -> Read:
    reply = said.lower()
    found = [letter for letter, text in zip(ascii_uppercase, options, strict=False) if text.lower() in reply]
    if len(said.split()) <= _FEW_WORDS or not found:
        return Read("random", left="random")
    return _last("content", found, lambda letter: reply.rfind(options[ascii_uppercase.index(letter)].lower()))


def _last(rule: str, letters: Sequence[str], place: Callable[[str], int]) -> Read:
    """The letter that stands last; of equals the first in the alphabet."""
    letter = max(letters, key=place)
    return Read(rule if len(letters) == 1 else f"{rule}-last", ascii_uppercase.index(letter), letter)
