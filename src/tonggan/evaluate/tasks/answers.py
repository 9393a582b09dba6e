"""Questions with free answers, asked of models that chat; how an answer is marked is part of the protocol.

- `match`: equal to a right answer but for case, full-width forms, marks around it and articles. Its lenient bound also counts replies in
  which a right answer stands among other words ("It is 3 apples").
- `yes-no`: read by rules (`metrics.reading`), also in Chinese; F1 of yes beside accuracy.
- `vqa`, `vqa-evalai`, `anls`, `relaxed`: see `metrics.answers`.
- `wer`, `cer`, `cer-zh`: text that was to be read or heard, see `metrics.speech`; of rows without a question, what their sound says.

`auto` takes `vqa` where most questions have five annotators or more, some of whom agree, `yes-no` where every answer is yes or no, else
`match`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tonggan.config import one_of
from tonggan.data.prompts import CAPTIONING, SHORT
from tonggan.evaluate.judge import Case, Judge
from tonggan.evaluate.metrics import answers as marks
from tonggan.evaluate.metrics import speech
from tonggan.evaluate.metrics.classification import f1
from tonggan.evaluate.metrics.reading import YES, YES_NO, plain_reply, read_yes_no, standing, without_thoughts
from tonggan.evaluate.metrics.summary import failed, summary
from tonggan.evaluate.resample import statistic_interval
from tonggan.evaluate.result import Result
from tonggan.evaluate.tasks.asking import (
    MAX_TOKENS,
    Read,
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
from tonggan.evaluate.tasks.questions import asked_in, whole_answer
from tonggan.types import Answer, CannotError, ChatOptions, Dropped, Message, Model, Row, Text, UsageError

PROMPTS = SHORT
MATCH = "match/v1: equal but for case, width, marks around it and articles; lenient: a right answer stands among other words"
METRICS = {
    "match": MATCH,
    "yes-no": YES_NO,
    "vqa": marks.VQA,
    "vqa-evalai": marks.VQA_EVALAI,
    "anls": marks.ANLS,
    "relaxed": marks.RELAXED,
    "wer": speech.WER,
    "cer": speech.CER,
    "cer-zh": speech.CER_ZH,
}
"""Ways of marking by name, with their protocol ids."""
RATES: dict[str, Callable[[str], Sequence[str]]] = {"wer": speech.words, "cer": speech.characters, "cer-zh": speech.zh_characters}
GRADED: dict[str, Callable[[str, Sequence[str]], float]] = {
    "vqa": marks.vqa_accuracy,
    "vqa-evalai": marks.vqa_accuracy_evalai,
    "anls": marks.anls,
    "relaxed": marks.relaxed_accuracy,
}


def answers(
    model: Model, rows: Sequence[Row], *, metric: str = "auto", blind: bool = False, judge: Judge | None = None, data: str = ""
) -> Result:
    """Free answers marked by `metric`; `blind` leaves the pictures out; `judge` decides where `match` finds no right answer.

    Refusals, filtered and cut answers are outcomes of their own, counted in `extra`; they score as an empty answer would. Failed requests
    are no answers: they take no part in any number. Raises `UsageError` for a metric that is not known, `CannotError` for a model that does
    not chat, `TongganError` where every request failed.
    """
    kept, dropped = _markable([_transcript(row, model.instructed) if metric in RATES else row for row in rows], metric)
    if not kept:
        raise UsageError("no row has a question and an answer to mark by")
    used = choose_metric(kept) if metric == "auto" else one_of(metric, METRICS, "metric")
    if "chat" not in model.can:
        raise CannotError(f"{model.name} cannot be asked for free answers; it can: {', '.join(sorted(model.can))}")
    if used == "yes-no" and (strange := next((row for row in kept if read_yes_no(row.answers[0]).choice is None), None)) is not None:
        raise UsageError(f"yes-no: the right answer of {strange.id} is {strange.answers[0]!r}, neither yes nor no; take another metric")
    given = model.chat([_conversation(row, used, blind) for row in kept], ChatOptions(max_tokens=MAX_TOKENS))
    items = [_item(row, answer, used) for row, answer in zip(kept, given, strict=True)]
    if all(failed(item) for item in items):
        raise none_answered(items)
    if judge is not None and used == "match":
        _judged(judge, kept, items)
    items = without_marks(items)
    extra: dict[str, Any] = {"way": "chat", "metric": used} | counts(items)
    if used == "yes-no":
        extra["f1 of yes"] = _f1(items)
    if blind:
        extra["text"] = text_cost(kept, [_words(row, used) for row in kept], given)
    read_by = f"; where rules find no match: {judge.id}" if judge is not None and used == "match" else ""
    return Result(
        protocol=f"answers/v1 chat: prompts {digest(PROMPTS)}; {METRICS[used]}{read_by}{'; without pictures' if blind else ''}; "
        "clusters group, bootstrap 2000 seed 0",
        model=model.name,
        weights=model.identity.weights,
        data=data,
        primary=_primary(used),
        metrics=summary(items, chance=_chance(items) if used == "yes-no" else None),
        items=items,
        dropped=dropped,
        notes=_notes(kept, items, used),
        extra=extra,
    )


def _transcript(row: Row, instructed: bool) -> Row:
    """A row without a question, but with a sound in which one of its texts is spoken: what is said is to be written down."""
    if row.question is not None or not row.audios or not row.texts:
        return row
    spoken = {text.lang: text for text in row.texts} | ({row.audios[0].role: row.texts[0]} if len(row.texts) == 1 else {})
    found = next(((sound, spoken[sound.role]) for sound in row.audios if sound.role in spoken), None)
    if found is None:
        return row
    sound, text = found
    lang = text.lang or "und"
    asked = in_language({name: prompts[-1] for name, prompts in CAPTIONING["audio"].items()}, lang) if instructed else ""
    return row.with_(question=asked, answers=(text.text,), images=(), videos=(), audios=(sound,), meta={**row.meta, "lang": lang})


def _markable(rows: Sequence[Row], metric: str) -> tuple[list[Row], list[Dropped]]:
    """Rows that can be marked, and why others cannot."""
    kept: list[Row] = []
    dropped: list[Dropped] = []
    for row in rows:
        if not (row.question or (row.question is not None and metric in RATES)) or not row.answers:
            dropped.append(Dropped(row.id, "no question" if not row.question else "no answer to mark by"))
        elif metric in RATES and not RATES[metric](whole_answer(row)):
            dropped.append(Dropped(row.id, "nothing is left of its transcript that could be recognised"))
        else:
            kept.append(row)
    return kept, dropped


def _notes(rows: Sequence[Row], items: Sequence[dict[str, Any]], metric: str) -> list[str]:
    notes = []
    if metric.startswith("vqa") and (few := sum(len(row.answers) < 4 for row in rows)):
        notes.append(f"{few} questions have fewer than 4 answers, with which VQA accuracy cannot reach 100 %")
    if lost := sum(bool(item.get("judge failed")) for item in items):
        notes.append(f"the judge failed on {lost} of {len(items)} replies: they take no part; run again to ask it again")
    return notes


def questions_of(rows: Sequence[Row], *, metric: str = "auto", blind: bool = False) -> list[list[Message]]:
    """The conversations that `answers` would have."""
    kept, _ = _markable(rows, metric)
    used = choose_metric(kept) if metric == "auto" else one_of(metric, METRICS, "metric")
    return [_conversation(row, used, blind) for row in kept]


def _conversation(row: Row, metric: str, blind: bool) -> list[Message]:
    """How a row is asked: a dialogue by what stands before its last answer, as it is."""
    if not row.messages:
        return conversation(row, _words(row, metric), blind=blind)
    before = row.messages[:-1]
    if blind:
        before = tuple(Message(one.role, tuple(part for part in one.parts if isinstance(part, Text))) for one in before)
    return list(before)


def _words(row: Row, metric: str) -> str:
    """What is to be read or heard is asked for as it stands; for anything else the form of the answer is asked for as well."""
    return row.question or "" if metric in RATES else in_language(PROMPTS, asked_in(row)).format(question=row.question)


def choose_metric(rows: Sequence[Row]) -> str:
    """What suits the right answers: several annotators, yes or no, or anything else."""
    # Ten annotators, not three wordings that are all accepted.
    if np.mean([len(row.answers) >= 5 and len(set(row.answers)) < len(row.answers) for row in rows]) > 0.5:
        return "vqa"
    return "yes-no" if all(read_yes_no(answer).how == "exact" for row in rows for answer in row.answers) else "match"


def _primary(metric: str) -> str:
    return "error rate" if metric in RATES else "acc" if metric in ("match", "yes-no") else metric


def _item(row: Row, answer: Answer, metric: str) -> dict[str, Any]:
    reply = without_thoughts(answer.text).strip() if answer.outcome == "answered" else ""
    equal, among = matches(reply, row.answers)
    how: Read = "unparsed" if not reply else "exact" if equal else "text" if among else "whole"
    values: dict[str, Any]
    if metric in RATES:
        values = {"errors": speech.errors([whole_answer(row)], [reply], RATES[metric])[0].tolist()}
    elif metric in GRADED:
        values = {metric: GRADED[metric](reply, row.answers)}
    elif metric == "yes-no":
        reading, truth = read_yes_no(reply), read_yes_no(row.answers[0]).choice
        how = reading.how
        values = {"acc": int(reading.choice == truth), "acc lenient": int(reading.choice in (truth, None))}
        values |= {"yes": [int(reading.choice == YES), int(truth == YES)]}
    else:
        values = {"acc": int(equal), "acc lenient": int(equal or among or not reply)}
    right = [whole_answer(row)] if metric in RATES else list(row.answers)
    facts = {"right": " | ".join(dict.fromkeys(right)), "answers": right}
    return record(row, f"answers {asked_in(row)}", [Turn(said(answer), how, answer)], **facts, **values)


def matches(reply: str, right: Sequence[str]) -> tuple[bool, bool]:
    """Whether a reply equals a right answer, and whether one stands in it as words of its own."""
    whole, wanted = _bare(plain_reply(reply)), [bare for answer in right if (bare := _bare(plain_reply(answer)))]
    return whole in wanted, any(re.search(standing(answer), whole) for answer in wanted)


def _bare(text: str) -> str:
    """Lower case, half-width, without marks at either end and English articles; where nothing else is there, these."""
    words = unicodedata.normalize("NFKC", text).casefold().split()
    named = [word for word in words if word not in ("a", "an", "the")] or words
    joined = " ".join(named)
    return joined.strip(" \t\n.,;:!?。、，；：！？\"'“”‘’「」()[]{}*`") or joined


def _judged(judge: Judge, rows: Sequence[Row], items: Sequence[dict[str, Any]]) -> None:
    """Set the marks of answers that match nothing literally to what the judge says of them."""
    open_ = {
        i: Case(row.question or "", row.answers, item["said"][0], asked_in(row))
        for i, (row, item) in enumerate(zip(rows, items, strict=True))
        if not failed(item) and not item["acc"] and item["read"] != ["unparsed"]
    }
    for i, verdict in zip(open_, judge.same(list(open_.values())), strict=True):
        if verdict.failed:
            items[i]["judge failed"] = 1
        elif verdict.same is not None:
            items[i] |= {"acc": int(verdict.same), "acc lenient": int(verdict.same), "read": ["judge"]}


def _chance(items: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of a coin."""
    return dict.fromkeys(("acc", *{f"{item['task']} acc" for item in items}), 0.5)


def _f1(items: Sequence[dict[str, Any]]) -> dict[str, float]:
    answered = [item for item in items if not failed(item)]
    found = statistic_interval(np.array([item["yes"] for item in answered]), [item["cluster"] for item in answered], f1)
    return {"value": found.value, "low": found.low, "high": found.high, "said yes": float(np.mean([item["yes"][0] for item in answered]))}
