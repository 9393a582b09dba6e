"""Questions with choices, asked of any model in the way that it can be asked; the way is part of the protocol.

- `embed`: the choice whose vector is nearest to the picture's. The question itself is not read: an honest floor for two-tower models.
- `chat`: choices with letters, the reply is read by rules (`metrics.reading`); vanilla, or circular (Liu et al. 2023, MMBench): every
  rotation of the choices is asked, and a question counts when all are right.
- `logprob`: the choice that the model finds likeliest as its answer, by the mean log-probability of its characters.

Beside the score stand chance, and the same questions asked without their picture (`blind`): what needs no looking is no vision.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from tonggan.evaluate.metrics.reading import CHOICE, How, Reading, bounds, read_choice
from tonggan.evaluate.metrics.summary import summary
from tonggan.evaluate.result import Result
from tonggan.evaluate.tasks.questions import LETTERS, asked_in
from tonggan.types import Answer, CannotError, ChatOptions, Dropped, Message, Model, Outcome, Part, Row, Text, TongganError, UsageError

Way: TypeAlias = Literal["embed", "chat", "logprob"]
PROMPTS = {
    "zh": "{question}\n{choices}\n请只回答正确选项的字母。",
    "en": "{question}\n{choices}\nAnswer with the letter of the right option only.",
}
PLAIN = {"zh": "{question}\n请简短回答。", "en": "{question}\nAnswer briefly."}
MAX_TOKENS = 512
"""Room for models that think aloud before they answer; a reply that is cut is an outcome of its own."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One way of putting one question: the order of its choices, and what came back."""

    row: Row
    order: tuple[int, ...]
    reading: Reading
    answer: Answer | None = None

    @property
    def outcome(self) -> Outcome:
        """How it ended; a choice by numbers alone always is an answer."""
        return "answered" if self.answer is None else self.answer.outcome


def ways(model: Model) -> list[Way]:
    """How a model can be asked, best first."""
    can: list[Way] = []
    if "chat" in model.can:
        can.append("chat")
    if "logprob" in model.can:
        can.append("logprob")
    if "embed" in model.can and {"text", "image"} <= model.modalities:
        can.append("embed")
    return can


def choice(
    model: Model, rows: Sequence[Row], *, way: Way | None = None, circular: bool = False, blind: bool = False, data: str = ""
) -> Result:
    """Accuracy on questions with choices (`tasks.questions` makes such rows).

    `blind` leaves the pictures out (not for `embed`, which has nothing else to go by). Refusals, filtered, cut and failed answers are
    outcomes of their own: they are not right, not read, and counted in `extra`.
    """
    kept = [row for row in rows if row.choices]
    if not kept:
        raise UsageError("no row has choices; questions with free answers are another task")
    possible = ways(model)
    used = way or (possible[0] if possible else None)
    if used is None or used not in possible:
        raise CannotError(f"{model.name} cannot be asked {'by ' + used if used else 'questions'}; it can: {', '.join(sorted(model.can))}")
    if used == "embed" and (blind or circular):
        raise UsageError("asked by embed, a question has no order of choices to turn, and without its picture nothing to go by")
    if used == "embed":
        asked, dropped = _embedded(model, kept)
    else:
        turns = [(row, turn) for row in kept for turn in range(len(row.choices) if circular else 1)]
        asked, dropped = (_chatted if used == "chat" else _scored)(model, turns, blind)
    return _result(model, asked, dropped, used, circular, blind, data)


def prompt(row: Row, order: Sequence[int], *, blind: bool = False) -> list[Message]:
    """The conversation that asks a question with its choices in this order."""
    lettered = "\n".join(f"{LETTERS[place]}. {row.choices[i]}" for place, i in enumerate(order))
    words = _template(PROMPTS, row).format(question=row.question, choices=lettered)
    return _message(row, words, blind)


def _template(templates: dict[str, str], row: Row) -> str:
    return templates["zh" if asked_in(row) == "zh" else "en"]


def _message(row: Row, words: str, blind: bool) -> list[Message]:
    parts: tuple[Part, ...] = (Text(words),) if blind else (*row.images, Text(words))
    return [Message("user", parts)]


def order_of(row: Row, turn: int) -> tuple[int, ...]:
    """A question's choices in an order of its own, drawn from its id so that the right one is not always where the file has it; turned."""
    seed = int.from_bytes(hashlib.sha256(row.id.encode()).digest()[:8], "big")
    drawn = np.random.default_rng(seed).permutation(len(row.choices)).tolist()
    return tuple(drawn[turn:] + drawn[:turn])


def _chatted(model: Model, turns: Sequence[tuple[Row, int]], blind: bool) -> tuple[list[Asked], list[Dropped]]:
    orders = [order_of(row, turn) for row, turn in turns]
    conversations = [prompt(row, order, blind=blind) for (row, _), order in zip(turns, orders, strict=True)]
    answers = model.chat(conversations, ChatOptions(max_tokens=MAX_TOKENS))
    asked = []
    for (row, _), order, answer in zip(turns, orders, answers, strict=True):
        shown = [row.choices[i] for i in order]
        reading = read_choice(answer.text, shown) if answer.outcome == "answered" else Reading(None, "unparsed")
        chosen = None if reading.choice is None else order[reading.choice]
        asked.append(Asked(row, order, Reading(chosen, reading.how), answer))
    return asked, []


def _scored(model: Model, turns: Sequence[tuple[Row, int]], blind: bool) -> tuple[list[Asked], list[Dropped]]:
    conversations = [_message(row, _template(PLAIN, row).format(question=row.question), blind) for row, _ in turns]
    scores = model.logprob(conversations, [row.choices for row, _ in turns])
    asked = []
    for (row, _), values in zip(turns, scores, strict=True):
        each = [value / max(1, len(text)) for value, text in zip(values, row.choices, strict=True)]
        asked.append(Asked(row, tuple(range(len(each))), Reading(_best(each, row), "exact")))
    return asked, []


def _embedded(model: Model, rows: Sequence[Row]) -> tuple[list[Asked], list[Dropped]]:
    seen = [row for row in rows if row.images]
    pictures = model.embed([row.images[0] for row in seen])
    words = sorted({text for row in seen for text in row.choices})
    vectors = dict(zip(words, model.embed(words).vectors, strict=True))
    dropped = [Dropped(row.id, "no picture") for row in rows if not row.images]
    asked = []
    for i, row in enumerate(seen):
        if i in pictures.errors:
            dropped.append(Dropped(row.id, pictures.errors[i]))
            continue
        scores = [float(pictures[i] @ vectors[text]) for text in row.choices]
        asked.append(Asked(row, tuple(range(len(scores))), Reading(_best(scores, row), "exact")))
    return asked, dropped


def _best(scores: Sequence[float], row: Row) -> int:
    """The best choice; a tie with the right one counts against the model."""
    right = row.choices.index(row.answers[0])
    top = max(value for value in scores) if not any(np.isnan(scores)) else float("nan")
    best = [i for i, value in enumerate(scores) if value == top]
    return next((i for i in best if i != right), best[0] if best else (right + 1) % len(scores))


def _result(model: Model, asked: Sequence[Asked], dropped: Sequence[Dropped], way: Way, circular: bool, blind: bool, data: str) -> Result:
    if not asked:
        raise TongganError(f"none of the questions could be asked; the first: {dropped[0].where}: {dropped[0].reason}")
    strict, lenient = bounds([one.reading for one in asked], [one.row.choices.index(one.row.answers[0]) for one in asked])
    by_row: dict[str, list[int]] = {}
    for place, one in enumerate(asked):
        by_row.setdefault(one.row.id, []).append(place)
    items: list[dict[str, Any]] = []
    for places in by_row.values():
        row = asked[places[0]].row
        task = f"choice {asked_in(row)}"
        items.append(
            {
                "id": f"{task} {row.id}",
                "task": task,
                "cluster": row.group or row.id,
                "right": row.answers[0],
                "candidates": len(row.choices),
                "question": row.question,
                "acc": int(min(strict[p] for p in places)),
                "acc lenient": int(min(lenient[p] for p in places)),
                "read": [asked[p].reading.how for p in places],
                "said": [_said(asked[p]) for p in places],
                "outcome": [asked[p].outcome for p in places],
            }
        )
    power = {item["id"]: item["candidates"] if circular else 1 for item in items}
    chance: dict[str, float] = {}
    for task in sorted({item["task"] for item in items}):
        odds = [(1 / item["candidates"]) ** power[item["id"]] for item in items if item["task"] == task]
        chance |= {f"{task} acc": float(np.mean(odds))}
    digest = hashlib.sha256(json.dumps([PROMPTS, PLAIN], ensure_ascii=False).encode()).hexdigest()[:8]
    asking = {
        "embed": "embed: argmax cosine of picture and choice, question not read",
        "chat": f"chat: lettered, order drawn by id, {'circular' if circular else 'vanilla'}, prompts {digest}; {CHOICE}",
        "logprob": f"logprob: mean over characters, prompts {digest}",
    }[way]
    return Result(
        protocol=f"choice/v1 {asking}{'; without pictures' if blind else ''}; clusters group, bootstrap 2000 seed 0",
        model=model.name,
        weights=model.identity.weights,
        data=data,
        primary=next(name for name in (f"{items[0]['task']} acc",)),
        metrics=summary(items, chance=chance),
        items=items,
        dropped=dropped,
        extra={"way": way, "read": dict(_counts(asked)), "outcomes": dict(Counter(one.outcome for one in asked))},
    )


def _counts(asked: Sequence[Asked]) -> Counter[How]:
    return Counter(one.reading.how for one in asked)


def _said(one: Asked) -> str:
    if one.answer is not None:
        return one.answer.text or (one.answer.error or "")
    return "" if one.reading.choice is None else one.row.choices[one.reading.choice]
