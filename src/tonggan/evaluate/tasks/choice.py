"""Questions with choices, asked of any model in the way that it can be asked; the way is part of the protocol.

- `embed`: the choice whose vector is nearest to the picture's. The question itself is not read: an honest floor for two-tower models.
- `chat`: choices with letters, the reply is read by rules (`metrics.reading`); vanilla, or circular (Liu et al. 2023, MMBench): every
  rotation of the choices is asked, and a question counts when all are right.
- `logprob`: the choice that the model finds likeliest as its answer, by the mean log-probability of its characters.

Beside the score stand chance, and the same questions asked without their picture (`blind`; by embed: the choice nearest to the question):
what needs no looking is no vision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from tonggan.data.prompts import LETTER
from tonggan.evaluate.judge import Case, Judge
from tonggan.evaluate.metrics.reading import CHOICE, Reading, bounds, read_choice
from tonggan.evaluate.metrics.summary import failed, summary
from tonggan.evaluate.result import Result
from tonggan.evaluate.tasks.asking import (
    MAX_TOKENS,
    Turn,
    conversation,
    counts,
    digest,
    in_language,
    none_answered,
    record,
    said,
    text_cost,
    without_marks,
)
from tonggan.evaluate.tasks.questions import LETTERS, asked_in
from tonggan.types import Answer, CannotError, ChatOptions, Dropped, Message, Model, Row, TongganError, UsageError

Way: TypeAlias = Literal["embed", "chat", "logprob"]
PROMPTS = LETTER
PLAIN = {"zh": "{question}\n请简短回答。", "en": "{question}\nAnswer briefly."}


@dataclass(frozen=True, slots=True)
class Asked:
    """One way of putting one question: the order of its choices, and what came back."""

    row: Row
    order: tuple[int, ...]
    reading: Reading
    answer: Answer | None = None
    judge_failed: bool = False

    def turn(self) -> Turn:
        """As a record keeps it."""
        if self.answer is not None:
            return Turn(said(self.answer), self.reading.how, self.answer)
        return Turn("" if self.reading.choice is None else self.row.choices[self.reading.choice], self.reading.how)


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
    model: Model,
    rows: Sequence[Row],
    *,
    way: Way | None = None,
    circular: bool = False,
    blind: bool = False,
    judge: Judge | None = None,
    data: str = "",
) -> Result:
    """Accuracy on questions with choices (`tasks.questions` makes such rows).

    `blind` leaves the pictures out. Refusals, filtered and cut answers are outcomes of their own: they are not right, not read, and
    counted in `extra`. Failed requests are no answers: they take no part in any number; where all failed, `TongganError` says so. `judge`
    reads the replies that rules do not.
    """
    kept = [row for row in rows if row.choices]
    if not kept:
        raise UsageError("no row has choices; questions with free answers are another task")
    possible = ways(model)
    used = way or (possible[0] if possible else None)
    if used is None or used not in possible:
        raise CannotError(f"{model.name} cannot be asked {'by ' + used if used else 'questions'}; it can: {', '.join(sorted(model.can))}")
    if used == "embed" and circular:
        raise UsageError("asked by embed, a question has no order of choices to turn")
    extra: dict[str, Any] = {"way": used}
    if used == "embed":
        asked, dropped, extra["text"] = _embedded(model, kept, blind)
    else:
        turns = [(row, turn) for row in kept for turn in range(len(row.choices) if circular else 1)]
        asked, dropped = (_chatted if used == "chat" else _scored)(model, turns, blind), []
    if used == "chat" and judge is not None:
        asked = _judged(judge, asked)
    if used == "chat" and blind:
        words = [_words(one.row, one.order) for one in asked]
        extra["text"] = text_cost([one.row for one in asked], words, [one.answer for one in asked if one.answer is not None])
    if not asked:
        raise TongganError(f"none of the questions could be asked; the first: {dropped[0].where}: {dropped[0].reason}")
    items = without_marks(_items(asked))
    if all(failed(item) for item in items):
        raise none_answered(items)
    lost = sum(bool(item.get("judge failed")) for item in items)
    return Result(
        protocol=_protocol(used, circular, blind, judge if used == "chat" else None),
        model=model.name,
        weights=model.identity.weights,
        data=data,
        primary="acc",
        metrics=summary(items, chance=_chance(items, circular)),
        items=items,
        dropped=dropped,
        notes=[f"the judge failed on {lost} of {len(items)} replies: they take no part; run again to ask it again"] if lost else [],
        extra=extra | counts(items),
    )


def questions_of(rows: Sequence[Row], *, circular: bool = False, blind: bool = False) -> list[list[Message]]:
    """The conversations that a chat model would have."""
    asked = [row for row in rows if row.choices]
    return [prompt(row, order_of(row, turn), blind=blind) for row in asked for turn in range(len(row.choices) if circular else 1)]


def prompt(row: Row, order: Sequence[int], *, blind: bool = False) -> list[Message]:
    """The conversation that asks a question with its choices in this order."""
    return conversation(row, _words(row, order), blind=blind)


def _words(row: Row, order: Sequence[int]) -> str:
    lettered = "\n".join(f"{LETTERS[place]}. {row.choices[i]}" for place, i in enumerate(order))
    return in_language(PROMPTS, asked_in(row)).format(question=row.question, choices=lettered)


def order_of(row: Row, turn: int) -> tuple[int, ...]:
    """A question's choices in an order of its own, drawn from its id so that the right one is not always where the file has it; turned."""
    seed = int.from_bytes(hashlib.sha256(row.id.encode()).digest()[:8], "big")
    drawn = np.random.default_rng(seed).permutation(len(row.choices)).tolist()
    return tuple(drawn[turn:] + drawn[:turn])


def _chatted(model: Model, turns: Sequence[tuple[Row, int]], blind: bool) -> list[Asked]:
    orders = [order_of(row, turn) for row, turn in turns]
    conversations = [prompt(row, order, blind=blind) for (row, _), order in zip(turns, orders, strict=True)]
    answers = model.chat(conversations, ChatOptions(max_tokens=MAX_TOKENS))
    asked = []
    for (row, _), order, answer in zip(turns, orders, answers, strict=True):
        shown = [row.choices[i] for i in order]
        reading = read_choice(answer.text, shown) if answer.outcome == "answered" else Reading(None, "unparsed")
        chosen = None if reading.choice is None else order[reading.choice]
        asked.append(Asked(row, order, Reading(chosen, reading.how), answer))
    return asked


def _judged(judge: Judge, asked: Sequence[Asked]) -> list[Asked]:
    """With what the judge makes of answers that no rule reads."""
    unread = {
        i: Case(one.row.question or "", [one.row.choices[k] for k in one.order], one.answer.text, asked_in(one.row))
        for i, one in enumerate(asked)
        if one.reading.choice is None and one.answer is not None and one.answer.outcome == "answered" and one.answer.text.strip()
    }
    found = dict(zip(unread, judge.chosen(list(unread.values())), strict=True))

    def read(i: int, one: Asked) -> Asked:
        verdict = found.get(i)
        if verdict is None or (verdict.choice is None and not verdict.failed):
            return one
        if verdict.failed:
            return replace(one, judge_failed=True)
        assert verdict.choice is not None
        return replace(one, reading=Reading(one.order[verdict.choice], "judge"))  # it saw the letters that the model saw

    return [read(i, one) for i, one in enumerate(asked)]


def _scored(model: Model, turns: Sequence[tuple[Row, int]], blind: bool) -> list[Asked]:
    conversations = [conversation(row, in_language(PLAIN, asked_in(row)).format(question=row.question), blind=blind) for row, _ in turns]
    scores = model.logprob(conversations, [row.choices for row, _ in turns])
    asked = []
    for (row, _), values in zip(turns, scores, strict=True):
        if any(np.isnan(values)):
            lost = Answer(outcome="error", error="the log-probabilities could not be worked out")
            asked.append(Asked(row, tuple(range(len(values))), Reading(None, "unparsed"), lost))
            continue
        each = [value / max(1, len(text)) for value, text in zip(values, row.choices, strict=True)]
        asked.append(Asked(row, tuple(range(len(each))), Reading(_best(each, row), "exact")))
    return asked


def _embedded(model: Model, rows: Sequence[Row], blind: bool) -> tuple[list[Asked], list[Dropped], dict[str, dict[str, int]]]:
    """What is nearest; and by language how many tokens the texts took, and how many were cut."""
    seen = [row for row in rows if row.images or blind]
    dropped = [] if blind else [Dropped(row.id, "no picture") for row in rows if not row.images]
    shown = model.embed([row.question or "" if blind else row.images[0] for row in seen])
    vectors: dict[str, np.ndarray] = {}
    counted: dict[str, dict[str, int]] = {}
    for lang in sorted({asked_in(row) for row in seen}):
        words = sorted({text for row in seen if asked_in(row) == lang for text in row.choices})
        found = model.embed(words)
        vectors |= dict(zip(words, found.vectors, strict=True))
        if found.tokens:
            letters = sum(map(len, words))
            counted[lang] = {"texts": len(words), "characters": letters, "tokens": found.tokens, "cut": len(found.truncated)}
    asked = []
    for i, row in enumerate(seen):
        if i in shown.errors:
            dropped.append(Dropped(row.id, shown.errors[i]))
            continue
        scores = [float(shown[i] @ vectors[text]) for text in row.choices]
        asked.append(Asked(row, tuple(range(len(scores))), Reading(_best(scores, row), "exact")))
    return asked, dropped, counted


def _best(scores: Sequence[float], row: Row) -> int:
    """The best choice; a tie with the right one counts against the model."""
    right = row.choices.index(row.answers[0])
    top = max(value for value in scores) if not any(np.isnan(scores)) else float("nan")
    best = [i for i, value in enumerate(scores) if value == top]
    return next((i for i in best if i != right), best[0] if best else (right + 1) % len(scores))


def _items(asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """A record per question: right only where every turn of it is."""
    strict, lenient = bounds([one.reading for one in asked], [one.row.choices.index(one.row.answers[0]) for one in asked])
    by_row: dict[str, list[int]] = {}
    for place, one in enumerate(asked):
        by_row.setdefault(one.row.id, []).append(place)
    items = []
    for places in by_row.values():
        row = asked[places[0]].row
        right = {"acc": int(min(strict[p] for p in places)), "acc lenient": int(min(lenient[p] for p in places))}
        shown = [[row.choices[i] for i in asked[p].order] for p in places]
        more: dict[str, Any] = {"judge failed": 1} if any(asked[p].judge_failed for p in places) else {}
        facts = {"right": row.answers[0], "candidates": len(row.choices), "shown": shown}
        items.append(record(row, f"choice {asked_in(row)}", [asked[p].turn() for p in places], **facts, **right, **more))
    return items


def _chance(items: Sequence[dict[str, Any]], circular: bool) -> dict[str, float]:
    items = [item for item in items if not failed(item)]
    odds = [(1 / item["candidates"]) ** (item["candidates"] if circular else 1) for item in items]
    of_task = {
        f"{task} acc": float(np.mean([value for item, value in zip(items, odds, strict=True) if item["task"] == task]))
        for task in {item["task"] for item in items}
    }
    return of_task | {"acc": float(np.mean(odds))}


def _protocol(way: Way, circular: bool, blind: bool, judge: Judge | None) -> str:
    prompts = digest(PROMPTS, PLAIN)
    asking = {
        "embed": f"embed: argmax cosine of {'question' if blind else 'picture'} and choice{'' if blind else ', question not read'}",
        "chat": f"chat: lettered, order drawn by id, {'circular' if circular else 'vanilla'}, prompts {prompts}; {CHOICE}",
        "logprob": f"logprob: mean over characters, prompts {prompts}",
    }[way]
    read_by = f"; what rules do not read: {judge.id}" if judge is not None else ""
    return f"choice/v1 {asking}{read_by}{'; without pictures' if blind else ''}; clusters group, bootstrap 2000 seed 0"
