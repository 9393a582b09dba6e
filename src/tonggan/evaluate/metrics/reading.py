"""Reading a free reply as one of the options, or as yes or no: by rules, never by a guess.

Every reply is *read* in one of these ways, and a result should say how often each happened (`audit`):

- `exact`: the reply is nothing but an option's letter or text (or nothing but yes or no);
- `letter`: a longer reply names one option by its letter ("The answer is B", "故选 C", "(D)");
- `text`: a longer reply names one option by its text, or says yes or no in so many words;
- `judge`: rules read nothing, and a model that was asked to (`evaluate.judge`) did;
- `unparsed`: none of these, or several that contradict each other.

What cannot be read is neither right nor wrong: `bounds` gives the score with all such replies wrong (strict) and all right (lenient);
whatever another reader would make of them lies between. A letter must stand alone and in capitals, so "The answer is dog" is not read as D.
What is read in English has its twin read in Chinese, and the other way round: or the reader would move the gap between the languages.
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
    "choice/v2: read by rules (whole reply, letter after a cue, marked letter, option's text), no judge, no guess; strict and lenient bound"
)
YES_NO = "yes-no/v2: read by rules (whole reply, first word, whole clause, after a cue), no judge, no guess; strict and lenient bound"
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
_BOX = re.compile(
    r"\\boxed\{(?:\\text\{)?(?P<tex>[^{}]*)\}*|<\|begin_of_box\|>(?P<glm>.*?)<\|end_of_box\|>|<answer>(?P<tag>.*?)</answer>", re.DOTALL
)


def without_thoughts(answer: str) -> str:
    """A reply without `<think>…</think>`; empty where it was cut off while thinking. Nothing else is changed.

    Where the prompt itself opens the thought, the reply holds its end only: all up to there is thought.
    """
    text = re.sub(r"<think>.*?</think>", "", answer, flags=re.DOTALL).rsplit("</think>", 1)[-1]
    return "" if text.lstrip().startswith("<think>") else text


def plain_reply(answer: str) -> str:
    """A reply without thoughts and markup, full-width forms as half-width ones. A box around it all is taken off, any other is a cue."""
    text = unicodedata.normalize("NFKC", without_thoughts(answer))
    whole = _BOX.fullmatch(text.strip().strip("$ "))
    text = whole[whole.lastgroup or 0] if whole else _BOX.sub(lambda box: f" answer: {box[box.lastgroup or 0]} ", text)
    return re.sub(r"\*\*|__|`|^#+\s", "", text, flags=re.MULTILINE)


def _bare(text: str) -> str:
    return " ".join(text.casefold().split()).strip(_EDGES)


# ------------------------------------------------------------------------------- letters, and what is said of them

_LETTER = re.compile(r"[(\[\"'“‘*]*(?<![A-Za-z0-9])(?<![A-Za-z]['’])(?P<letter>[A-Z])(?![A-Za-z0-9#]|\+\+|['’][A-Za-z])")
_CLOSING = r"[)\]\"'”’*\s]*"
_AND = re.compile(rf"{_CLOSING}(?:选?项)?\s*(?:[,、/&+:]|\band\b|\bor\b|和|或|与|及|跟|还是)+\s*(?:选项\s*|options?\s+)?")
_SURELY = (
    r"(?:(?:clearly|obviously|therefore|thus|definitely|probably|likely|most\s+likely|certainly)\s+)*",
    r"(?:很?明显|显然|最?可能|很可能|最有可能|应该?|应当|就|只能|必然|当然|确实|肯定|一定|大概)*",
)
_NOT_WRONG = r"(?<!wrong\s)(?<!incorrect\s)(?<!错误)(?<!错误的)(?<!不正确)(?<!不正确的)(?<!不对的)"  # "the wrong option is A"
# Before a letter, from the strongest: a cue that makes it the answer; one that does so only where the clause ends with the letter; a label.
_SAID = re.compile(
    rf"(?:(?i:\b{_NOT_WRONG}(?:answer|ans|option|choice|(?:correct|right|best)\s+(?:one|statement|description))[\"']?\s*\]?\s*"
    rf"(?:to\s+(?:\w+\s+){{1,4}})?(?:(?:is|would\s+be|should\s+be|must\s+be)\b|:|=|(?<=\]))\s*{_SURELY[0]})"
    r"|(?i:(?<!not\s)(?<!n['’]t\s)(?<!never\s)\b(?:choose|pick|select|go(?:ing)?\s+(?:with|for)))"
    rf"|{_NOT_WRONG}(?:答案?|选项|选择|正确项)[\"']?\s*[】\]]?\s*{_SURELY[1]}(?:是|为|选择?|:|(?<=[】\]]))"
    r"|(?<!不)(?:正确|合适|恰当|准确|符合[一-鿿]{0,4}|吻合)的?[一-鿿]{0,3}?(?:是|为)"
    r"|(?<![不别勿没非可备候])(?<!不[能会应该要])(?<!不应该)(?<!不应当)选择?)"
    r"\s*:?\s*(?:(?i:the|option|choice|letter)\s+|选项\s*){0,2}\Z"
)
_SO = r"(?:\b(?i:so|thus|therefore|hence|in\s+conclusion)|因此|所以|故|综上(?:所述)?|总之)\s*,?\s*"
_HELD = re.compile(
    rf"(?:\b(?i:it|that|this)(?:['’]s|\s+(?:is|must\s+be|should\s+be|would\s+be|has\s+to\s+be))\s+{_SURELY[0]}"
    r"|\bI(?:['’]d|\s+would)?\s+(?:say|think|believe|guess)\s+(?:that\s+)?"
    r"|\bbut\s+(?:rather\s+)?"
    rf"|(?:我(?:认为|觉得|想|猜)|应该?|应当|只能|就|而|那|一定|肯定|显然|最可能|{_SO}|\A|[,。;!?\n])\s*(?:是|为)\s*"
    rf"|我(?:认为|觉得|想|猜)\s*|{_SO})\Z"
)
_LABEL = re.compile(rf"{_NOT_WRONG}(?:\b(?i:option|choice|answer)\s+|选项\s*|答案\s*)\Z", re.IGNORECASE)
_NOT_LETTER = re.compile(
    r"(?:\b(?i:not|neither|nor|without|except|exclud(?:e|es|ing)|eliminat(?:e|es|ing)|rul(?:e|es|ing)\s+out|rather\s+than|instead\s+of|than)"
    r"|不(?:可?能|会|应该?|应当|要)?(?:是|选择?|为)?|并非|没有|非|别选?|排除(?:了|掉)?|除了?|去掉)"
    r"\s*:?\s*(?:(?i:option|choice|answer)\s+|选项\s*)?\Z"
)
_SUPPOSED = re.compile(  # "if the answer is A", "I don't think it is A"
    r"(?:\b(?i:if|whether|unless|(?:don['’]t|not|never)\s+(?:think|believe|say|sure|certain))\b"
    r"|如果|假如|假设|若(?!干)|是否|是不是|不(?:认为|觉得|确定))[^.,;!?。\n]*\Z"
)
_NOT_IN_CLAUSE = re.compile(r"(?:\b(?i:not|never|nor|cannot)\b|n['’]t\b|不|没|非)(?:(?!\bbut\b|而是)[^.,;!?。\n])*\Z")
# After a letter and its option's text.
_WRONG = (
    r"(?:(?:both|all)\s+)?(?:(?:is|are|was|were|does|do|did|can|could|would|will|should|must|has|have)\s*(?:not\b|n['’]t\b)|cannot\b"
    r"|(?:is|are|was|were|seems?)\s+(?:\w+\s+)?(?:wrong|incorrect|false|out|impossible|unlikely)\b"
    r"|(?:(?:is|are|can\s+be|could\s+be|should\s+be|must\s+be)\s+)?(?:excluded|eliminated|ruled\s+out|rejected)\b"
    r"|[-–—:(]\s*(?:wrong\b|incorrect\b|错|不对|不正确|有误)|[:\s]*[×✗✘❌]"
    r"|(?:都|均|也)?(?:似乎|看起来)?(?:(?:是|为)?(?:错|不(?!错|选|是\s*[A-Z])|有误|误)|并不|并?非|没(?!错)|(?:可以?|应该?|被)*排除))"
)
_DENIED = re.compile(rf"{_CLOSING}(?:选项|项)?\s*(?:{_WRONG}|[吗呢]?\s*\?|吗)", re.IGNORECASE)
_TEXT_WRONG = re.compile(
    r"[)\]\"'”’*\s]*(?:(?:is|are|was|were)\s+(?:wrong|incorrect|false|not\s+(?:the\s+)?(?:right|correct|answer))"
    r"|(?:is|are)n['’]t\s+(?:the\s+)?(?:right|correct|answer)|(?:是|为)?(?:错|不对(?!称)|不正确|有误)|(?:可以?|应该?|被)*排除)"
)
_RIGHT = re.compile(
    rf"{_CLOSING}(?:选项|项)?\s*(?:(?:is|are|seems|would\s+be|should\s+be|must\s+be)\s+(?:\w+ly\s+)?(?:both\s+)?(?:the\s+|my\s+)?(?:only\s+|most\s+)?"
    r"(?:correct|right(?!\s+(?:of|next|side|angle))|best|better|(?:more\s+)?appropriate|answer|accurate)\b|(?:fits|matches)\b|[-–—:(]\s*correct\b"
    r"|[-–—:(]?\s*(?:似乎|看起来)?(?:才|就|都|更|最|完全)?(?:是|为)?(?:唯一|最)?(?:的)?(?:正确|(?:我的|最佳|标准)?答案|合适|恰当|准确|符合|吻合|对(?:的|了)?(?![一-鿿]))"
    r"|\s*[✓✔√✅])(?!的?\s*[吗呢?])",
    re.IGNORECASE,
)
_ENDS = re.compile(rf"{_CLOSING}(?:选项|项)?(?:吧|了)?\s*(?:[.,;!。]|\n|\Z|\b(?i:because|since|option)\b|因为|由于)")
_LEADS = re.compile(r"[)\].:、,]+(?![A-Za-z0-9])")
_LEADS_TO_WRONG = re.compile(r"(?:(?![A-Z](?![A-Za-z]))[^.,;!?。\n])*?(?:\b(?:wrong|incorrect)\b|错误|不对(?!称)|不正确|不符)")
_NOT_BEFORE = re.compile(
    r"(?:\b(?:not|no|neither|nor|without|rather\s+than|instead\s+of|rul(?:e|es|ing)\s+out|exclud(?:e|es|ing))|n['’]t|不是|不|没有|并非|而非|非|排除)"
    r"\s*(?:(?:an?|the|any)\s+|一?[只个条张辆头匹种位名台架座棵朵]\s*)?\Z"
)


@dataclass(frozen=True, slots=True)
class _Letters:
    """Letters named together ("A", "A and C"): where they start, opening brackets included, where the last letter and its text end."""

    letters: str
    start: int
    after_letter: int
    after_text: int


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
    lettered, denied = _by_letter(text, options)
    if lettered is not None:
        return lettered
    named = _named(" ".join(text.casefold().split()), options) - denied
    return Reading(named.pop(), "text") if len(named) == 1 else UNPARSED


def _by_letter(text: str, options: Sequence[str]) -> tuple[Reading | None, set[int]]:
    """The option that the reply names by letter, and the options that it denies by letter.

    None where it names none; unparsed where it names several, or one that is not there. A letter that is said to be the answer outranks
    one that leads a line or is called right ("A is right, C is right, so the answer is B", of what is wrong), which outranks a mere label
    ("B. Option A is a cat").
    """
    text = re.sub(r"\s+", lambda run: "\n" if "\n" in run[0] else " ", text)  # or long runs of spaces would take the patterns very long
    known = ascii_uppercase[: len(options)]
    found: dict[int, set[str]] = {1: set(), 2: set(), 3: set()}
    denied: set[int] = set()
    for group in _groups(text, options):
        rank = _rank(text, group)
        if rank is not None and group.letters in known and _contradicted(text[group.after_letter :], known.index(group.letters), options):
            found[rank].add("another option's text")
        elif _NOT_LETTER.search(text[max(0, group.start - 60) : group.start]) or _DENIED.match(text, group.after_text):
            denied |= {known.index(letter) for letter in group.letters if letter in known}
        elif rank == 1 or (rank is not None and group.letters[0] in known):
            found[rank] |= set(group.letters)
    for letters in found.values():
        if letters:
            letter = letters.pop()
            return (UNPARSED if letters or letter not in known else Reading(known.index(letter), "letter")), denied
    return None, denied


def _groups(text: str, options: Sequence[str]) -> Iterator[_Letters]:
    known = ascii_uppercase[: len(options)]
    group: _Letters | None = None
    for match in _LETTER.finditer(text):
        letter, end = match["letter"], match.end()
        after = end
        if letter in known and (own := options[known.index(letter)]):
            pattern = rf"[)\].:、,(\"'“ \t-]*(?:\b(?:an?|the)\s+)?{standing(own)}"
            after = said.end() if (said := re.compile(pattern, re.IGNORECASE).match(text, end)) else end
        if group is not None:
            joined = _AND.fullmatch(text, group.after_text, match.start()) if letter in known and group.letters[0] in known else None
            if joined is not None and joined[0].strip(") ") == "," and _DENIED.match(text, after):
                joined = None  # "B, A is wrong"
            if joined is not None and not (letter == "I" and re.match(r"I\s+[a-z]", text[end - 1 :])):  # "B, I think"
                group = _Letters(group.letters + letter, group.start, end, after)
                continue
            yield group
        group = _Letters(letter, match.start(), end, after)
    if group is not None:
        yield group


def _rank(text: str, group: _Letters) -> int | None:
    """How firmly the reply answers with these letters: 1 said to be the answer, 2 leading a line or called right, 3 a label, None not."""
    before, line = text[max(0, group.start - 200) : group.start], text[text.rfind("\n", 0, group.start) + 1 : group.start].strip()
    if _SAID.search(before):
        return None if _SUPPOSED.search(before) else 1
    after = text[group.after_letter :]
    if not line and "\n" in text.strip() and re.match(r"[)\].。]*\s*(?:\n|\Z)", after):
        return 1
    inside = re.match(r"[(\[]+[A-Z][)\]]", text[group.start : group.start + 8])
    if not line and not inside and _LEADS.match(after) and not _LEADS_TO_WRONG.match(text, group.after_text):
        return 2
    if _SUPPOSED.search(before):
        return None
    if _RIGHT.match(text, group.after_text) or (
        _HELD.search(before) and _ENDS.match(text, group.after_text) and not _NOT_IN_CLAUSE.search(before)
    ):
        return 2
    return 3 if inside or _LABEL.search(before) or re.match(rf"{_CLOSING}(?:选项|项(?![链目]))", after) else None


def _contradicted(rest: str, choice: int, options: Sequence[str]) -> bool:
    """Whether another option's text follows a letter ("B. cat" where cat is A)."""
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
        if not _NOT_BEFORE.search(text[max(0, match.start() - 30) : match.start()]) and not _TEXT_WRONG.match(text, match.end())
    ]
    return {i for start, end, i in spans if not any(a <= start and end <= b and b - a > end - start for a, b, _ in spans)}


def standing(option: str) -> str:
    """A pattern for `option` as words of their own: not `cat` in `cats`, not `3` in `3.5`. Chinese has no spaces to go by."""
    before = r"(?<![a-z0-9])(?<!\d[.,])(?<!-)" if option[0].isascii() and option[0].isalnum() else ""
    after = r"(?![a-z0-9]|[.,]\d)" if option[-1].isascii() and option[-1].isalnum() else ""
    return before + re.escape(option) + after


# ------------------------------------------------------------------------------------------- yes and no

_YES = (
    "yes|yeah|yep|true|correct|of course|exactly|i think so|i believe so|是|是的|对|对的|有|有的|正确|正确的|没错|存在|当然|可以|能|会|在"
)
_NO = (
    "no|nope|false|incorrect|wrong|not correct|not true|of course not|i don't think so|i think not|not at all"
    "|否|不|不是|不是的|不对|错|错的|错误|错误的|没有|没有的|没|无|不正确|不存在|当然不|不可以|不能|不会|不在|并不|并非|并无"
)
_POLARITY = {**dict.fromkeys(_YES.split("|"), YES), **dict.fromkeys(_NO.split("|"), NO)}
_EITHER = "|".join(sorted(_POLARITY, key=len, reverse=True))
_QUESTION = re.compile(r"yes\s*(?:or|and|/)\s*no|true\s*(?:or|/)\s*false|是或否|是/否|有或没有|对或错|是否|是不是|有没有|对不对")
_FIRST = re.compile(
    r"\W*((?:yes|yeah|yep|true|nope|false)\b|no\b(?=\s*(?:[^\w\s]|\Z)|\s+(?:there|it|this|that|they|he|she|the|i|we|you)\b)"
    r"|是的(?!士)|没错|不是的)"
)
_ANSWER = re.compile(
    r"(?:\banswer\s*(?:is|would\s+be|should\s+be|must\s+be|:)|(?:答案|回答)\s*(?:应该?|应当|就)?(?:是|为|:))\s*:?[\s\"'“(]*"
    + rf"({_EITHER})(?!\w)"
)
_CLAUSE = re.compile(r"([^.,;:!?。、;\n()\"“”]+)([.,;:!?。、;\n()\"“”]*)")
_OPENING = re.compile(
    r"(?:因此|所以|那么|其实)?(?:我(?:认为|觉得|想))?(?:图(?:片|像)?[中里]|画面[中里]|这里|它们?|他们?|她们?|这个?|那个?)?"
    r"(?:(?:确实|的确|显然|应该|肯定|一定|当然)|(?:并|根本|完全)(?=不|没|非|无))?"
)
_VERB = r"(?:is|are|was|were|does|do|did|has|have|can|could|will|would|exists?)"
_SHORT = re.compile(
    rf"(?:(?:yes|no|so|therefore|thus|indeed|actually|in fact|i think|i believe),?\s+)?"
    rf"(?:it|there|this|that|they|he|she)\s+(?:{_VERB}(?P<no>\s*(?:not|n['’]t)(?:\s+exist)?)?|(?P<never>can['’]?t|cannot|won['’]t)|['’]s\s+not)"
    r"(?:\s+(?:indeed|there))?"
)


def read_yes_no(answer: str) -> Reading:
    """A reply to a yes-or-no question: `YES` or `NO`. 是, 对, 有, 正确 and 否, 错, 没有, 不是 are read too.

    Counted are the reply's first word, clauses that are nothing but such a word ("图中没有" too), sentences that are nothing but a subject
    and a verb ("It is not", "There is"), and such a word after "the answer is" or "答案是". Words inside a sentence are not, in neither
    language: "There is no dog" and 没有红色 would then be read and "There is a dog" and 有红色 would not (it may say what is there
    *instead*, as "It is red" and 是红色的 may), which shifts every score towards no.
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
    for clause, stop in _CLAUSE.findall(text):
        word = re.sub(r"[啊呀呢哦吧]$", "", clause.strip(_EDGES).replace("’", "'"))
        said = _POLARITY.get(word, _POLARITY.get(_OPENING.sub("", word, count=1)))
        if said is not None and not re.match(r"[?:]", stop):  # 有：一只猫 goes on to say what is there
            yield said
    for sentence in re.split(r"[.;!。\n]+", text):
        if (short := _SHORT.fullmatch(sentence.strip(" \t\"'“”*"))) is not None:
            yield NO if "not" in short[0].split() or short["no"] or short["never"] else YES
    for match in _ANSWER.finditer(text):
        yield _POLARITY[match[1]]
