"""A run's evaluations: which numbers each gives of the model as it is now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from tonggan.backends.local import LocalModel
from tonggan.data.language import language_of
from tonggan.data.lessons import LessonCollate
from tonggan.data.pairs import PairCollate
from tonggan.evaluate import Result, retrieval
from tonggan.evaluate.tasks.answers import answers
from tonggan.evaluate.tasks.captions import captions
from tonggan.evaluate.tasks.matching import matching
from tonggan.evaluate.tasks.probe import probe
from tonggan.recipes.config import (
    AnswersEvaluation,
    CaptionsEvaluation,
    EvaluationConfig,
    LossEvaluation,
    MatchingEvaluation,
    ProbeEvaluation,
    RetrievalEvaluation,
)
from tonggan.types import ChatOptions, Dropped, Message, Row, Text, TongganError, UsageError

SEED = 0
"""Of what is drawn while a loss is measured (masks, wrong pairs): the same at every look."""


@dataclass(frozen=True)
class Measured:
    """Numbers by name, and the rows that could not be used."""

    metrics: dict[str, float]
    dropped: Sequence[Dropped] = ()


def measure(evaluation: EvaluationConfig, model: LocalModel, rows: Sequence[Row], langs: Sequence[str] | None) -> Measured:
    """What a model does on rows that it doesn't learn from. For a loss see `held_out_loss`."""
    match evaluation:
        case RetrievalEvaluation():
            found = retrieval(model, rows, langs=langs, between=evaluation.between, intervals=False)
            return _of(found, (name for name in found.metrics if "recall" in name or "R@" in name))
        case ProbeEvaluation():
            found = probe(model, rows, label=evaluation.label, kind=evaluation.of)
            return _of(found, found.metrics)
        case MatchingEvaluation():
            found = matching(model, rows, langs=langs, intervals=False)
            return _of(found, found.metrics)
        case CaptionsEvaluation():
            found = captions(model, rows, langs=langs)
            return _of(found, found.metrics, "captions")
        case AnswersEvaluation():
            asked = rows if langs is None else [row for row in rows if _lang_of(row) in langs]
            if not asked:
                raise UsageError(f"evaluation of answers: none of {len(rows)} questions is in {' or '.join(langs or ())}; leave langs out")
            found = answers(model, asked, metric=evaluation.metric)
            value = found.metrics[found.primary].value
            right = 1 - value if found.primary == "error rate" else value
            return Measured({"right": right} | _of(found, found.metrics, "answers").metrics, found.dropped)
        case LossEvaluation():
            raise AssertionError("a loss belongs to a step: held_out_loss")


def _lang_of(row: Row) -> str | None:
    """The language in which a row is asked."""
    said = next((message for message in reversed(row.messages) if message.role == "user"), None)
    words = row.question or (_words([said]) if said is not None else "")
    return str(row.meta["lang"]) if row.meta.get("lang") else language_of(words)


def shown(model: LocalModel, collate: LessonCollate, rows: Iterable[Row], many: int) -> list[dict[str, str]]:
    """What a model says where its rows have an answer: each question, the right answer and its own, as text. Of so `many` rows; those
    in which nothing is asked and answered are passed over."""
    conversations = dict(islice(_asking(collate, rows), many))
    given = model.chat([list(one[:-1]) for one in conversations.values()], ChatOptions(max_tokens=128))
    return [
        {"row": id, "asked": _words(one[-2:-1]), "right": _words(one[-1:]), "said": answer.text or answer.error or ""}
        for (id, one), answer in zip(conversations.items(), given, strict=True)
    ]


def _asking(collate: LessonCollate, rows: Iterable[Row]) -> Iterator[tuple[str, Sequence[Message]]]:
    for row in rows:
        with suppress(TongganError):  # a row that teaches nothing is listed where it is measured
            *asked, answer = collate.conversation(row)
            if asked and answer.role == "assistant":
                yield row.id, (*asked, answer)


def _words(messages: Sequence[Message]) -> str:
    """What is said in messages; a medium is its kind."""
    parts = [part for message in messages for part in message.parts]
    return " ".join(part.text if isinstance(part, Text) else f"<{part.kind}>" for part in parts)


def held_out_loss(
    step: nn.Module, collate: PairCollate | LessonCollate, rows: Sequence[Row], batch_size: int, device: torch.device
) -> Measured:
    """The step's loss on rows in their order, in evaluation mode, and whatever else the step reports; means over rows."""
    sums: dict[str, float] = {}
    step.eval()
    torch.manual_seed(SEED)  # the trainer puts its own random numbers back
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            some = rows[start : start + batch_size]
            output = step(collate(some, [0] * len(some)).to(device))
            for name, value in ({"loss": float(output.loss)} | output.report).items():
                sums[name] = sums.get(name, 0.0) + value * len(some)
    means = {name: value / len(rows) for name, value in sums.items()}
    return Measured({"negative loss": -means["loss"], **means}, tuple(collate.dropped.values()))


def _of(found: Result, names: Iterable[str], task: str = "") -> Measured:
    """The metrics under their names, without that of the task."""
    return Measured({name.removeprefix(f"{task} "): found.metrics[name].value for name in names}, found.dropped)
