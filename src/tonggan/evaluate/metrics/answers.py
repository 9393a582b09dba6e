"""Short answers against the answers of people: VQA accuracy in its two forms, ANLS, relaxed accuracy.

Each function scores one question, between 0 and 1; a benchmark's score is the mean. Quirks of the published programs are kept, because
numbers in papers have them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tonggan.evaluate.metrics.speech import edit_distance
from tonggan.types import UsageError

VQA = "vqa/v1: mean over annotators of min(1, others who agree / 3); normalised only where the annotators differ, as the official program"
VQA_EVALAI = "vqa-evalai/v1: mean over annotators of min(1, others who agree / 3); always normalised, as EvalAI for TextVQA and VizWiz"
ANLS = "anls/v1: 1 - edit distance / longer length on lower case with single spaces, best answer counts, below 0.5 is 0"
RELAXED = "relaxed/v1: numbers within 5 % of the answer (% is read as hundredths), else equal but for case, best answer counts"

MARKS = ';/[]"{}()=+\\_-><@`,?!'
"""What the VQA program and its descendants take for punctuation, in their order."""
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES = frozenset(("a", "an", "the"))
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's how'd how'll
    how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't
    she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd
    something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've
    we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's
    won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_CONTRACTIONS = {word[:i] + word[i + 1 :]: word for word in _CONTRACTED.split() for i, c in enumerate(word) if c == "'"}
"""Forms that lack one apostrophe, and the form that has it."""
_CONTRACTIONS["somebody'd"] = "somebodyd"  # the wrong way round in the official table


def vqa_accuracy(answer: str, answers: Sequence[str]) -> float:
    """VQA accuracy (Antol et al. 2015, section 4.2; Goyal et al. 2017) by the official program, of one question.

    For each annotator: the number of *other* annotators who gave this answer, by 3, at most 1; then the mean. With ten annotators 0, 1, 2,
    3 and 4 agreeing ones give 0, 0.3, 0.6, 0.9 and 1. Where all annotators agree to the letter nothing is normalised: then `Yes` does
    not match `yes`.
    """
    said, given = spaced(answer), [spaced(a) for a in _some(answers)]
    if len(set(given)) > 1:
        said, given = normalised(said), [normalised(a) for a in given]
    return agreement(said, given)


def vqa_accuracy_evalai(answer: str, answers: Sequence[str]) -> float:
    """VQA accuracy with EvalAI's normalisation, always applied (TextVQA, VizWiz), of one question; `vqa_accuracy` has the formula."""
    return agreement(normalised_evalai(answer), [normalised_evalai(a) for a in _some(answers)])


def agreement(said: str, given: Sequence[str]) -> float:
    """The formula that all forms of VQA accuracy share, of a reply and the annotators' answers, all in the form in which they are compared.

    It is `min(1, others who agree / 3)`, the mean over annotators; a single annotator has no others, so that nothing can be right.
    """
    agree = given.count(said)
    others = [agree - (a == said) for a in given]
    return sum(min(1.0, n / 3) for n in others) / len(given)


def spaced(text: str) -> str:
    """Line ends and tabs as spaces, none at either end."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def normalised(text: str) -> str:
    """An answer as the official VQA program compares it where the annotators differ."""
    line = spaced(text)
    return plain_words(_without_marks(line, joined=re.search(r"\d,\d", line) is not None))


def normalised_evalai(text: str) -> str:
    """An answer as EvalAI compares it."""
    bare = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    # EvalAI looks for a comma between digits too, but by now there is none.
    return plain_words(_without_marks(spaced(bare), joined=False))


def _without_marks(text: str, *, joined: bool) -> str:
    """A mark beside a space, or any mark where digits are `joined` by a comma, goes; elsewhere it becomes a space."""
    found = text
    for mark in MARKS:
        found = found.replace(mark, "" if joined or f"{mark} " in text or f" {mark}" in text else " ")
    # The programs pass re.UNICODE, which is 32, where the count belongs. Their look-behind is misspelt, so "3." loses its period too.
    return re.sub(r"\.(?!\d)", "", found, count=32)


def plain_words(text: str) -> str:
    """Numbers as digits, no articles, apostrophes where they belong, in lower case."""
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def anls(answer: str, answers: Sequence[str], threshold: float = 0.5) -> float:
    """Average normalised Levenshtein similarity (Biten et al. 2019, section 3) of one question.

    1 - edit distance / length of the longer, on lower case with single spaces; the best answer counts. Below `threshold` it is 0; at the
    threshold it stays, as in the programs in use (the paper drops it there).
    """
    said, given = _collapsed(answer), [_collapsed(a) for a in _some(answers)]
    best = max(1 - edit_distance(said, a) / max(len(said), len(a), 1) for a in given)
    return best if best >= threshold else 0.0


def _collapsed(text: str) -> str:
    return " ".join(text.lower().split())


def relaxed_accuracy(answer: str, answers: Sequence[str], tolerance: float = 0.05) -> float:
    """Relaxed accuracy (Masry et al. 2022, section 5.1) of one question, 0 or 1; the best answer counts.

    Where both are numbers as Python reads them (`5%` is 0.05; `1,000` is none), they may differ by `tolerance` of the right one;
    otherwise, and where the right one is 0, they must be equal but for case.
    """
    return max(float(_near(answer.strip(), right, tolerance)) for right in _some(answers))


def _near(said: str, right: str, tolerance: float) -> bool:
    one, other = _number(said), _number(right)
    if one is not None and other:
        return abs(one - other) / abs(other) <= tolerance
    return said.lower() == right.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _some(answers: Sequence[str]) -> Sequence[str]:
    if isinstance(answers, str) or not answers:
        raise UsageError(f"a question needs a list of right answers, at least one; this one has {answers!r}")
    return answers
