"""Reading a free reply as one of the options, or as yes or no: by rules, never by a guess.

Every reply is *read* in one of these ways, and a result should say how often each happened (`audit`):

- `exact`: the reply is nothing but an option's letter or text (or nothing but yes or no);
- `letter`: a longer reply names one option by its letter ("The answer is B", "故选 C", "(D)");
- `text`: a longer reply names one option by its text, or says yes or no in so many words;
- `judge`: rules read nothing, and a model that was asked to (`evaluate.judge`) did;
- `unparsed`: none of these, or several that contradict each other.

What cannot be read is neither right nor wrong: `bounds` gives the score with all such replies wrong (strict) and all right (lenient);
whatever another reader would make of them lies between. A letter must stand alone and in capitals, so "The answer is dog" is not read as D.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Literal, TypeAlias, get_args

import numpy as np

from tonggan.types import UsageError

How: TypeAlias = Literal["exact", "letter", "text", "judge", "unparsed"]
CHOICE = (
    "choice/v1: read by rules (whole reply, letter after a cue, marked letter, option's text), no judge, no guess; strict and lenient bound"
)
YES_NO = "yes-no/v1: read by rules (whole reply, first word, whole clause, after a cue), no judge, no guess; strict and lenient bound"
YES, NO = 0, 1


@dataclass(frozen=True, slots=True)
class Reading:
    """The option's number (of `read_yes_no`: `YES` or `NO`; None where unparsed) and how it was read."""

    choice: int | None
    how: How


UNPARSED = Reading(None, "unparsed")


def audit(readings: Sequence[Reading]) -> dict[How, int]:
    """How many replies were read in each way."""
    counts = Counter(reading.how for reading in readings)
    return {how: counts[how] for how in get_args(How)}


def bounds(readings: Sequence[Reading], truth: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Which replies are right, each [n] of 0 and 1: with unparsed ones wrong (strict), and with them right (lenient)."""
    if len(readings) != len(truth):
        raise UsageError(f"{len(readings)} replies but {len(truth)} right answers; give one to each question")
    strict = np.array([reading.choice == right for reading, right in zip(readings, truth, strict=True)], dtype=np.float64)
    return strict, np.maximum(strict, [reading.choice is None for reading in readings])


def all_right(right: Sequence[float] | np.ndarray, groups: Sequence[Hashable]) -> tuple[list[Hashable], np.ndarray]:
    """The groups in order of appearance, and for each 1 where all of its items are right, else 0.

    Rotations of one question (MMBench's circular score), both questions on one picture (MME's acc+), all questions on one figure
    (HallusionBench's fAcc).
    """
    worst: dict[Hashable, float] = {}
    for value, group in zip(np.asarray(right).tolist(), groups, strict=True):
        worst[group] = min(worst.get(group, 1.0), float(value))
    return list(worst), np.array(list(worst.values()))


# ----------------------------------------------------------------------------------------- what is read

_EDGES = " \t\n.,;:!?。、，；：！？\"'“”‘’「」()[]{}<>*`"


def plain_reply(answer: str) -> str:
    """A reply without thoughts and markup, full-width forms as half-width ones."""
    text = unicodedata.normalize("NFKC", answer)
    if "</think>" in text:
        text = text.rsplit("</think>", 1)[1]
    elif text.lstrip().startswith("<think>"):
        return ""  # cut off while thinking: no answer yet
    text = re.sub(r"\\boxed\{(?:\\text\{)?([^{}]*)\}*", r" answer: \1 ", text)
    return re.sub(r"\*\*|__|`|^#+\s", "", text, flags=re.MULTILINE)


def _bare(text: str) -> str:
    return " ".join(text.casefold().split()).strip(_EDGES)


# ---------------------------------------------------------------------------------------------- options

_LETTER = r"[(\[\"'“*]*(?P<letter>[A-Z])(?![A-Za-z0-9'’])"
_DENIED = r"(?![ )\]]*(?:(?:is|was|does|can|would)\s*(?:not|n't)|(?:is|was)\s+(?:wrong|incorrect|false)|isn't|不|错|是错|并非|排除))"
_FINAL = re.compile(
    r"(?:\b(?i:(?:answer|option|choice)\s*(?:is|would\s+be|should\s+be|:|=)|i\s+(?:choose|pick|select)|go\s+with)"
    r"|答案\s*(?:应该?|就)?(?:是|为|选|:)|(?<![不别勿没非可])选择?)\s*:?\s*"
    r"(?:(?i:the|option|choice)\s+|选项\s*){0,2}" + _LETTER + _DENIED
)
_MARKED = re.compile(
    r"(?:(?:\A|\n)\s*[(\[]?(?P<first>[A-Z])(?=[)\].:、,]+(?![A-Za-z0-9])|\s*\n)"
    r"|\((?P<bracketed>[A-Z])\)"
    r"|\b(?<!not\s)(?i:option|choice)\s+(?P<option>[A-Z])(?![A-Za-z0-9'’])|选项\s*(?P<选项>[A-Z])(?![A-Za-z0-9])"
    r"|(?<![A-Za-z0-9])(?P<right>[A-Z])(?=\s+is\s+(?:the\s+)?(?:correct|right|best)|\s*(?:选项|项)?\s*(?:是)?(?:正确|对的))"
    r"|\n\s*[(\[]?(?P<last>[A-Z])[)\].。]*\s*\Z)" + _DENIED
)
_AND_ANOTHER = re.compile(r"[)\]\s]*(?:,|、|/|&|\+|and\b|or\b|和|或|与|及)+\s*[(\[]?(?P<other>[A-Z])(?![A-Za-z0-9'’])")
_NOT_BEFORE = re.compile(
    r"(?:\b(?:not|no|neither|nor|without|rather\s+than)|n['’]t|不是|不|没有|并非|而非|非)\s*(?:(?:an?|the|any)\s+|一?[只个条张辆头匹种位名台架座棵朵]\s*)?\Z"
)


def read_choice(answer: str, choices: Sequence[str]) -> Reading:
    """A reply to a question whose options are A, B, C … with the texts `choices` (an empty text is a picture, read by its letter only)."""
    if not 2 <= len(choices) <= len(ascii_uppercase):
        raise UsageError(f"a multiple choice question has 2 to {len(ascii_uppercase)} options; this one has {len(choices)}")
    text, options = plain_reply(answer), [_bare(plain_reply(choice)) for choice in choices]
    whole = _bare(text)
    exact = {i for i, option in enumerate(options) if option and option == whole}
    if len(whole) == 1 and whole.upper() in ascii_uppercase[: len(choices)]:
        exact.add(ascii_uppercase.index(whole.upper()))
    if exact:
        return Reading(exact.pop(), "exact") if len(exact) == 1 else UNPARSED
    if (lettered := _by_letter(text, options)) is not None:
        return lettered
    named = _named(" ".join(text.casefold().split()), options)
    return Reading(named.pop(), "text") if len(named) == 1 else UNPARSED


def _by_letter(text: str, options: Sequence[str]) -> Reading | None:
    """The option that the reply names by letter; None where it names none; unparsed where it names several, or one that is not there."""
    letters = ascii_uppercase[: len(options)]
    found = [(match["letter"], match.end("letter")) for match in _FINAL.finditer(text)]
    if not found:
        marked = ((match, next(name for name, value in match.groupdict().items() if value)) for match in _MARKED.finditer(text))
        found = [(match[name], match.end(name)) for match, name in marked if match[name] in letters]
    if not found:
        return None
    if len({letter for letter, _ in found}) > 1 or found[0][0] not in letters:
        return UNPARSED
    choice = letters.index(found[0][0])
    if any(_contradicted(text[end:], choice, options) for _, end in found):
        return UNPARSED
    return Reading(choice, "letter")


def _contradicted(rest: str, choice: int, options: Sequence[str]) -> bool:
    """Whether what follows a letter names another one ("A and B"), or another option's text ("B. cat" where cat is A)."""
    another = _AND_ANOTHER.match(rest)
    if another is not None and another["other"] in ascii_uppercase[: len(options)]:
        return True
    text = _bare(rest)
    following = {i: len(option) for i, option in enumerate(options) if option and re.match(standing(option), text)}
    return bool(following) and following.get(choice) != max(following.values())


def _named(text: str, options: Sequence[str]) -> set[int]:
    """Options whose text stands in the reply, not denied, and not merely inside the longer text of another ("cat" in "black cat")."""
    spans = [
        (match.start(), match.end(), i)
        for i, option in enumerate(options)
        if option and not (len(option) == 1 and option.isascii() and option.isalpha())  # "a" is in every sentence
        for match in re.finditer(standing(option), text)
        if not _NOT_BEFORE.search(text[max(0, match.start() - 30) : match.start()])
    ]
    return {i for start, end, i in spans if not any(a <= start and end <= b and b - a > end - start for a, b, _ in spans)}


def standing(option: str) -> str:
    """A pattern for `option` as words of their own: not `cat` in `cats`, not `3` in `3.5`. Chinese has no spaces to go by."""
    before = r"(?<![a-z0-9])(?<!\d[.,])(?<!-)" if option[0].isascii() and option[0].isalnum() else ""
    after = r"(?![a-z0-9]|[.,]\d)" if option[-1].isascii() and option[-1].isalnum() else ""
    return before + re.escape(option) + after


# ------------------------------------------------------------------------------------------- yes and no

_YES = "yes yeah yep true correct 是 是的 对 对的 有 有的 正确 没错 存在"
_NO = "no nope false incorrect 否 不 不是 不是的 不对 错 错的 错误 没有 没 无 不正确 不存在"
_POLARITY = {**dict.fromkeys(_YES.split(), YES), **dict.fromkeys(_NO.split(), NO)}
_EITHER = "|".join(sorted(_POLARITY, key=len, reverse=True))
_QUESTION = re.compile(r"yes\s*(?:or|and|/)\s*no|true\s*(?:or|/)\s*false|是或否|是/否|有或没有|对或错|是否|是不是|有没有|对不对")
_FIRST = re.compile(
    r"\W*((?:yes|yeah|yep|true|nope|false)\b|no\b(?=\s*(?:[^\w\s]|\Z)|\s+(?:there|it|this|that|they|he|she|the|i|we|you)\b))"
)
_SAID = re.compile(rf"(?:\banswer\s*(?:is|:)|(?:答案|回答)\s*(?:应该?|就)?(?:是|为|:))\s*:?[\s\"'“(]*({_EITHER})(?!\w)")
_CLAUSE = re.compile(r"[.,;:!?。、;\n()\"“”]+")


def read_yes_no(answer: str) -> Reading:
    """A reply to a yes-or-no question: `YES` or `NO`. 是, 对, 有, 正确 and 否, 错, 没有, 不是 are read too.

    Counted are the reply's first word (English), clauses that are nothing but such a word, and such a word after "the answer is" or
    "答案是". Words inside a sentence are not: "There is no dog" would then be read and "There is a dog" would not, which shifts every
    score towards no.
    """
    text = plain_reply(answer).casefold()
    whole = _bare(text)
    if whole in _POLARITY:
        return Reading(_POLARITY[whole], "exact")
    said = set(_votes(_QUESTION.sub(" ", text)))
    return Reading(said.pop(), "text") if len(said) == 1 else UNPARSED


def _votes(text: str) -> Iterator[int]:
    if (first := _FIRST.match(text)) is not None:
        yield _POLARITY[first[1]]
    for clause in _CLAUSE.split(text):
        if (word := re.sub(r"[啊呀呢哦吧]$", "", clause.strip(_EDGES))) in _POLARITY:
            yield _POLARITY[word]
    for match in _SAID.finditer(text):
        yield _POLARITY[match[1]]
