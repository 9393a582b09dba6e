"""What every task that asks in words shares: the conversation for a row, and the record of what came back."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from tonggan.evaluate.metrics.reading import How
from tonggan.evaluate.metrics.summary import TOGETHER, failed
from tonggan.evaluate.tasks.questions import asked_in
from tonggan.types import Answer, Message, Outcome, Part, Row, Text, TongganError

Read: TypeAlias = How | Literal["whole"]
"""How an answer was read; `whole`: marked as it stands, no right answer being in it."""
MARKS = (*TOGETHER, "yes")
"""Keys of an item that say how good its answer is."""
MAX_TOKENS = 512
"""Room for models that think aloud before they answer; a reply that is cut is an outcome of its own."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One way of putting one question: what was said, and how that was read. `answer` is None where a model chose by numbers."""

    said: str
    how: Read
    answer: Answer | None = None

    @property
    def outcome(self) -> Outcome:
        """How it ended; a choice by numbers always is an answer."""
        return "answered" if self.answer is None else self.answer.outcome


def conversation(row: Row, words: str, *, blind: bool = False) -> list[Message]:
    """A row's pictures, sounds and clips, then `words` where there are any, as the user's turn; `blind` leaves all but the words out."""
    seen: tuple[Part, ...] = () if blind else (*row.images, *row.audios, *row.videos)
    return [Message("user", (*seen, *([Text(words)] if words else [])))]


def in_language(templates: Mapping[str, str], lang: str) -> str:
    """The template of a language; what is neither Chinese nor English is asked in English."""
    return templates["zh" if lang == "zh" else "en"]


def digest(*templates: object) -> str:
    """Eight characters that change with any word of the prompts."""
    return hashlib.sha256(json.dumps(templates, ensure_ascii=False).encode()).hexdigest()[:8]


def record(row: Row, task: str, turns: Sequence[Turn], **more: Any) -> dict[str, Any]:
    """An item: which question it is, what was said in each turn, how that was read, and what it cost."""
    paid = [turn.answer for turn in turns if turn.answer is not None]
    return {
        "id": f"{task} {row.id}",
        "row": row.id,
        "task": task,
        "cluster": row.group or row.id,
        "question": row.question,
        "said": [turn.said for turn in turns],
        "read": [turn.how for turn in turns],
        "outcome": [turn.outcome for turn in turns],
        **({"model": [one.model for one in paid]} if any(one.model for one in paid) else {}),
        **({"unsent": 1} if any(one.finish_reason == "unsent" for one in paid) else {}),
        **({"seconds": [one.seconds for one in paid]} if paid else {}),
        **({"tokens": [[one.usage.input_tokens, one.usage.output_tokens] for one in paid]} if paid else {}),
        **more,
    }


def said(answer: Answer) -> str:
    """What is kept of an answer: its text, or why there is none."""
    return answer.text or (answer.error or "")


def without_marks(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Items of failed requests lose their marks and readings: whoever averages what is on file gets the score of the report."""
    return [{k: v for k, v in item.items() if k not in MARKS} | {"read": []} if failed(item) else dict(item) for item in items]


def none_answered(items: Sequence[Mapping[str, Any]]) -> TongganError:
    """What to raise where every request failed."""
    return TongganError(f"none of {len(items)} questions was answered; the first: {items[0]['said'][0]}")


def counts(items: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """How often answers were read in each way, how often asking ended in each way, and which models said that they had answered: the
    audit of a result."""
    keys = {"read": "read", "outcomes": "outcome", "resolved": "model"}
    return {name: dict(Counter(one for item in items for one in item.get(key, ()) if one is not None)) for name, key in keys.items()}


def text_cost(rows: Sequence[Row], words: Sequence[str], answers: Sequence[Answer]) -> dict[str, dict[str, int]]:
    """By language: characters of the questions, and the tokens that they were billed as, where every answer says so; for runs without
    pictures."""
    found: dict[str, dict[str, int]] = {}
    for row, text, answer in zip(rows, words, answers, strict=True):
        if answer.usage.input_tokens is None:
            return {}
        told = found.setdefault(asked_in(row), {"texts": 0, "characters": 0, "tokens": 0})
        told["texts"] += 1
        told["characters"] += len(text)
        told["tokens"] += answer.usage.input_tokens
    return found
