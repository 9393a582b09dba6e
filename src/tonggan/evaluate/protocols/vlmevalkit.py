"""How VLMEvalKit reads a reply to a multiple choice question (`vlmeval/utils/matching_util.py` and `dataset/utils/multiple_choice.py`).

In this order: a list of refusals; the only option letter among the reply's words, if it is one of the last four; a letter after "answer
is"; the only option whose text is in a short reply; then a judge, and where none is set up ("exact matching") the reply is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from tonggan.evaluate.metrics.reading import standing
from tonggan.evaluate.protocols.read import Read

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_FAILED = "Failed to obtain answer via API"
_BLANKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_NEAR_END = 5
_ANSWER_IS = re.compile(r"answer\s+is\s+\**(?P<letter>[ABCD])", re.IGNORECASE)
"""Nothing need follow the letter: "the answer is dog" is read as D, "the answer is a cat" as A. Options after D are not read so."""


def read(reply: str, options: Sequence[str]) -> Read:
    """A reply to a question with options A, B, C …; an empty text is an option that the table does not have.

    An empty reply is an empty cell, which VLMEvalKit's table reader turns into the word "nan".
    """
    said = reply or "nan"
    texts = {letter: text for letter, text in zip(ascii_uppercase, options, strict=False) if text}
    found = None if _FAILED in said else _by_letter(said, texts)
    return found or _by_text(said, texts)


def _by_letter(said: str, texts: Mapping[str, str]) -> Read | None:
    if refusal := next((phrase for phrase in _REFUSALS if phrase in said), None):
        return Read("refusal", seen=refusal)
    words = said.translate(_BLANKS).split()
    named = [letter for letter in texts if letter in words]
    if not named and "Z" in words:
        return Read("none", seen="Z")
    if len(named) == 1 and (place := words.index(named[0])) > len(words) - _NEAR_END:
        after = words[place + 1][0] if place + 1 < len(words) else ""
        article = named[0] in "AI" and after.isascii() and after.islower()
        seen = " ".join(words[max(0, place - 2) : place + 3])
        return Read("perhaps-article" if article else "token", ascii_uppercase.index(named[0]), seen)
    match = _ANSWER_IS.search(said)
    if match is None or match["letter"].upper() not in texts:
        return None
    rest = said[match.end() :]
    rule = "answer-is"
    if rest[:1].isalnum():
        rule = "answer-is-inside"
    elif match["letter"] == "a" and re.match(r"\s+\w", rest):
        rule = "answer-is-article"
    return Read(rule, ascii_uppercase.index(match["letter"].upper()), match[0] + re.split(r"\W", rest, maxsplit=1)[0])


def _by_text(said: str, texts: Mapping[str, str]) -> Read:
    reply = said.lower()
    found = [letter for letter, text in texts.items() if text.lower() in reply]
    if len(found) != 1 or len(reply) > 2 * sum(map(len, texts.values())):
        return Read("judge", left="judge")
    text = texts[found[0]].lower()
    rule = "text" if re.search(standing(text), reply) else "text-inside"
    return Read(rule, ascii_uppercase.index(found[0]), text)
