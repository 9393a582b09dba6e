"""One model on one task: its result, the same without pictures, and what that took."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from tonggan import devices
from tonggan.compare.tasks import Kind, Task
from tonggan.data.language import language_of
from tonggan.data.prompts import TEMPLATES
from tonggan.evaluate.judge import Judge
from tonggan.evaluate.metrics.captioning import BLEU, CIDER_D, ROUGE_L
from tonggan.evaluate.metrics.reading import CHOICE
from tonggan.evaluate.result import Result
from tonggan.evaluate.tasks import answers, captions, choice
from tonggan.evaluate.tasks.asking import digest
from tonggan.evaluate.tasks.choice import Way
from tonggan.evaluate.tasks.classification import PROTOCOL as ZERO_SHOT
from tonggan.evaluate.tasks.classification import classification
from tonggan.evaluate.tasks.retrieval import PROTOCOL as RETRIEVAL
from tonggan.evaluate.tasks.retrieval import retrieval
from tonggan.types import Answer, CannotError, ChatOptions, Embeddings, EmbedOptions, Item, Message, Model, Row, TongganError

log = logging.getLogger("tonggan")
T = TypeVar("T")
WITHOUT = "without pictures: "
"""How the note begins that says why there is no run without pictures."""


@dataclass(frozen=True)
class How:
    """What holds for every model of a comparison."""

    circular: bool = False
    """Chat models are asked every rotation of the choices."""
    way: Way | None = None
    """Ask questions with choices in this way only. None: in the best that each model can."""
    judge: Judge | None = None
    scorer: Model | None = None
    """Gives captions their CLIPScore."""

    def __post_init__(self) -> None:
        if self.scorer is not None and "embed" not in self.scorer.can:
            raise CannotError(f"{self.scorer.name} cannot give CLIPScore: it does not embed; name a two-tower model as the scorer")

    @property
    def key(self) -> str:
        """Differs where results would."""
        parts = [
            *(["circular"] if self.circular else []),
            *([f"by {self.way}"] if self.way else []),
            *([self.judge.id] if self.judge else []),
            *([f"scorer {self.scorer.name} {identity_of(self.scorer)}"] if self.scorer else []),
        ]
        return "; ".join(parts)


@dataclass(frozen=True)
class Cell:
    """One model on one task: its result, or why there is none; and the same without pictures, where that can be asked."""

    result: Result | None = None
    why: str = ""
    cannot: bool = False
    """It lacks the verb; not a failure."""
    blind: Result | None = None

    @property
    def footprint(self) -> dict[str, Any]:
        """seconds, memory (peak bytes), parameters, items, as far as they are known."""
        return dict(self.result.extra.get("footprint", {})) if self.result is not None else {}


def measure(model: Model, task: Task, how: How, data: str) -> Cell:
    """A failure costs this cell only: what went wrong stands in it."""
    try:
        return _measured(model, task, how, data)
    except CannotError as error:
        return Cell(why=str(error), cannot=True)
    except TongganError as error:
        return Cell(why=str(error))
    except Exception as error:  # whatever a model runs into (its device's memory, say), the others are still measured
        log.debug("%s on %s", model.name, task.name, exc_info=True)
        return Cell(why=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300])


def _measured(model: Model, task: Task, how: How, data: str) -> Cell:
    clock = _Clock(model)
    run = _runner(clock, task, how, data)
    remote = model.identity.preprocessing.get("endpoint") is not None
    if remote and task.kind in _QUESTIONS:  # one question first, before a thousand fail for the same reason
        try:
            _runner(model, replace(task, rows=_askable(model, task)), replace(how, judge=None), data)(False)
        except TongganError as error:
            raise TongganError(f"the first question was not answered: {error}") from None
    device = torch.device("cpu") if remote else getattr(model, "device", torch.device("cpu"))
    before = devices.start_measuring(device)
    result = run(False)
    footprint = {
        "seconds": clock.seconds,
        "memory": None if remote else max(0, devices.peak(device) - before) + _bytes(model),
        "parameters": _parameters(model),
        "items": len({str(item.get("row", item["cluster"])) for item in result.items}),
        "device": None if remote else str(device),
    }
    result = replace(result, extra={**result.extra, "footprint": footprint, "identity": identity_of(model)})
    blind: Result | None = None
    if goes_blind(task):
        try:
            blind = run(True)
            blind = replace(blind, extra={**blind.extra, "identity": identity_of(model)})
        except TongganError as error:  # a model that answers nothing without a picture, or a budget that is used up
            result = replace(result, notes=[*result.notes, f"{WITHOUT}{error}"])
    return Cell(result, blind=blind)


def goes_blind(task: Task) -> bool:
    """Whether the task is asked without pictures as well."""
    return task.kind in _QUESTIONS and any(row.images or row.audios or row.videos for row in task.rows)


class _Clock(Model):
    """The model, and how long its verbs took: the statistics afterwards are no part of its time."""

    def __init__(self, model: Model) -> None:
        self._model, self.seconds = model, 0.0
        self.name, self.can, self.modalities, self.identity = model.name, model.can, model.modalities, model.identity

    def embed(self, items: Sequence[Item], options: EmbedOptions | None = None) -> Embeddings:
        return self._timed(lambda: self._model.embed(items, options))

    def chat(self, conversations: Sequence[Sequence[Message]], options: ChatOptions | None = None) -> list[Answer]:
        return self._timed(lambda: self._model.chat(conversations, options))

    def logprob(self, conversations: Sequence[Sequence[Message]], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        return self._timed(lambda: self._model.logprob(conversations, continuations))

    def _timed(self, call: Callable[[], T]) -> T:
        begun = time.monotonic()
        try:
            return call()
        finally:
            self.seconds += time.monotonic() - begun


def _askable(model: Model, task: Task) -> tuple[Row, ...]:
    """The first row whose question could be sent: a picture that cannot be read says nothing about the endpoint."""
    preview = getattr(model, "preview", None)
    for row in task.rows:
        asked = conversations(replace(task, rows=(row,)), How())[:1]
        if preview is None or (asked and not preview(asked).unsent):
            return (row,)
    return task.rows[:1]


def identity_of(model: Model) -> str:
    """Twelve characters that change with the weights and with how items are seen."""
    seen = json.dumps(dict(model.identity.preprocessing), sort_keys=True, default=str)
    return hashlib.sha256(f"{model.identity.weights} {seen}".encode()).hexdigest()[:12]


def asking(kind: Kind) -> str:
    """The words and rules by which a kind of task is asked and marked; results of others are not taken for these."""
    rules: dict[Kind, object] = {
        "choice": (choice.PROMPTS, choice.PLAIN, CHOICE),
        "answers": (answers.PROMPTS, answers.METRICS),
        "captions": (captions.PROMPTS, BLEU, ROUGE_L, CIDER_D, captions.CLIPSCORE),
        "retrieval": RETRIEVAL,
        "classification": (ZERO_SHOT, TEMPLATES),
    }
    return digest(rules[kind])


_QUESTIONS = ("choice", "answers", "captions")


def conversations(task: Task, how: How) -> list[list[Message]]:
    """All that a chat model would be asked on a task, with and without pictures."""
    found: list[list[Message]] = []
    for blind in (False, True):
        match task.kind:
            case "choice":
                found += choice.questions_of(task.rows, circular=how.circular, blind=blind)
            case "answers":
                found += answers.questions_of(task.rows, metric=task.config.metric, blind=blind)
            case "captions":
                found += captions.questions_of(task.rows, langs=task.langs, blind=blind)
            case _:
                pass
    return found


def _runner(model: Model, task: Task, how: How, data: str) -> Callable[[bool], Result]:
    """The task on the model, as a function of whether the pictures are left out."""
    rows, config = task.rows, task.config
    match task.kind:
        case "choice":
            circular = how.circular and (how.way or "chat") == "chat" and "chat" in model.can
            return lambda blind: choice.choice(model, rows, way=how.way, circular=circular, blind=blind, judge=how.judge, data=data)
        case "answers":
            return lambda blind: answers.answers(model, rows, metric=config.metric, blind=blind, judge=how.judge, data=data)
        case "captions":
            more: dict[str, Any] = {"langs": task.langs, "chinese": config.chinese, "scorer": how.scorer}
            return lambda blind: captions.captions(model, rows, blind=blind, data=data, **more)
        case "retrieval":
            _embeds(model)
            return lambda blind: retrieval(model, rows, langs=task.langs, data=data)
        case "classification":
            _embeds(model)
            lang = config.langs[0] if config.langs else _language_of_classes(task)
            return lambda blind: classification(model, rows, label=config.label, lang=lang, data=data)


def _language_of_classes(task: Task) -> str:
    """That of most class names: Chinese ones do not belong into English sentences."""
    names = {row.meta.get(task.config.label, "") for row in task.rows}
    return "zh" if sum(language_of(name) == "zh" for name in names) > len(names) / 2 else "en"


def _embeds(model: Model) -> None:
    if "embed" not in model.can:
        raise CannotError(f"{model.name} does not embed; it can: {', '.join(sorted(model.can))}")


def _weights(model: Model) -> Sequence[torch.Tensor]:
    module = getattr(model, "module", None)
    return [*module.parameters(), *module.buffers()] if isinstance(module, torch.nn.Module) else []


def _parameters(model: Model) -> int | None:
    module = getattr(model, "module", None)
    return sum(one.numel() for one in module.parameters()) if isinstance(module, torch.nn.Module) else None


def _bytes(model: Model) -> int:
    return sum(one.numel() * one.element_size() for one in _weights(model))
