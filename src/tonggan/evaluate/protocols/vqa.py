"""Free answers with several annotators (VQA) as published programs mark them: the formula is one, the normalisation is not.

- `official`: the VQA program, which normalises only where the annotators differ;
- `vlmevalkit`: always, and a period after a digit stays (`vlmeval/dataset/utils/vqa_eval.py`, its `vqa_score`);
- `lmms_eval`: always, as its VQAv2 task;
- `evalai`: always, with EvalAI's tokenisation, as lmms-eval's TextVQA and VizWiz tasks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tonggan.evaluate.metrics.answers import (
    MARKS,
    agreement,
    normalised,
    normalised_evalai,
    plain_words,
    spaced,
    vqa_accuracy,
    vqa_accuracy_evalai,
)
from tonggan.evaluate.protocols.read import Read


def official(reply: str, answers: Sequence[str]) -> tuple[float, Read]:
    """As the VQA program."""
    differ = len({spaced(answer) for answer in answers}) > 1
    read = Read("normalised", seen=normalised(reply)) if differ else Read("as-is", seen=spaced(reply))
    return vqa_accuracy(reply, answers), read


def evalai(reply: str, answers: Sequence[str]) -> tuple[float, Read]:
    """As EvalAI for TextVQA and VizWiz."""
    return vqa_accuracy_evalai(reply, answers), Read("normalised-evalai", seen=normalised_evalai(reply))


def vlmevalkit(reply: str, answers: Sequence[str]) -> tuple[float, Read]:
    """As VLMEvalKit's `vqa_score`; an empty reply is an empty cell, which its table reader turns into the word "nan"."""
    return _marked(reply or "nan", answers, normalised_vlmevalkit, "normalised-periods")


def lmms_eval(reply: str, answers: Sequence[str]) -> tuple[float, Read]:
    """As lmms-eval's VQAv2 task."""
    return _marked(reply, answers, normalised_lmms_eval, "normalised")


def _marked(reply: str, answers: Sequence[str], normal: Callable[[str], str], rule: str) -> tuple[float, Read]:
    said = normal(reply)
    return agreement(said, [normal(answer) for answer in answers]), Read(rule, seen=said)


def normalised_vlmevalkit(text: str) -> str:
    """An answer as VLMEvalKit compares it."""
    line = spaced(text)
    return plain_words(_without_marks(line, r"\d,\d", r"(?<!\d)\.(?!\d)"))


def normalised_lmms_eval(text: str) -> str:
    """An answer as lmms-eval's VQAv2 task compares it: as the official program, but that several commas between digits are one."""
    line = spaced(text)
    return plain_words(_without_marks(line, r"\d,+\d", r"\.(?!\d)"))


def _without_marks(text: str, comma: str, period: str) -> str:
    """A mark beside a space, or any mark where `comma` is found, goes; elsewhere it becomes a space. Then up to 32 periods go."""
    joined, found = re.search(comma, text) is not None, text
    for mark in MARKS:
        found = found.replace(mark, "" if joined or f"{mark} " in text or f" {mark}" in text else " ")
    return re.sub(period, "", found, count=32)
