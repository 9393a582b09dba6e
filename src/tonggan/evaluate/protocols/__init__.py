"""How published programs read one and the same reply, as pure functions that name the rule that fired.

Behaviour is reproduced with its quirks, from the versions named in the ids, and held by what the programs themselves gave
(`tests/evaluate/golden/protocols.json`). Where a program draws at random we do not: the expected value stands, between both ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from tonggan.evaluate.metrics.answers import VQA, VQA_EVALAI
from tonggan.evaluate.metrics.reading import CHOICE, read_choice
from tonggan.evaluate.protocols import mmmu, vlmevalkit, vqa
from tonggan.evaluate.protocols.read import RULES, Read

__all__ = ["CHOICES", "FREE", "NAMES", "RULES", "ChoiceReader", "Protocol", "Read"]

ChoiceReader: TypeAlias = Callable[[str, Sequence[str]], Read]
"""(reply, texts of the options in the order of their letters) -> what is read."""
FreeMarker: TypeAlias = Callable[[str, Sequence[str]], tuple[float, Read]]
"""(reply, the annotators' answers) -> score between 0 and 1, and by which rule."""


F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Protocol(Generic[F]):
    """A way of reading replies, its full id for reports, and the function."""

    id: str
    read: F


def _ours(reply: str, options: Sequence[str]) -> Read:
    found = read_choice(reply, options)
    return Read("unread", left="unread") if found.choice is None else Read(found.how, found.choice)


CHOICES: dict[str, Protocol[ChoiceReader]] = {
    "ours": Protocol(CHOICE, _ours),
    "vlmevalkit": Protocol(
        'vlmevalkit-mcq/e8e78f0: refusals, letter near the end, "answer is", unique text; else a judge, without one wrong', vlmevalkit.read
    ),
    "lmms-eval": Protocol(
        "lmms-eval-mmmu/75571cf: brackets, letter before space or period, content, last wins; nothing read: a random option",
        mmmu.lmms_eval,
    ),
    "official": Protocol("mmmu-official/aa9b70d: brackets, spaces, content, last wins; nothing read: a random option", mmmu.official),
}
FREE: dict[str, Protocol[FreeMarker]] = {
    "evalai": Protocol(VQA_EVALAI, vqa.evalai),
    "vlmevalkit": Protocol("vlmevalkit-vqa/e8e78f0: vqa_score, always normalised, periods after digits stay", vqa.vlmevalkit),
    "lmms-eval": Protocol("lmms-eval-vqav2/75571cf: always normalised as the official program", vqa.lmms_eval),
    "official": Protocol(VQA, vqa.official),
}
"""Protocols by name, the benchmark's own program last: it is what the others are held against."""
NAMES = tuple(dict.fromkeys((*CHOICES, *FREE)))
