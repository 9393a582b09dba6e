"""`chat`, `stream` and `logprob` of a model of ours: conversations become prompts, prompts batches, and what is said answers.

A model with a template has its conversations written out by it (`data.chat`). One without takes one message (`data.plain`).
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tonggan.data.chat import ChatProcessor, Prompt
from tonggan.data.plain import PlainProcessor, writer_of
from tonggan.data.processor import Processor
from tonggan.data.text import is_unicode
from tonggan.generate import Prefixes, Said, Sampling, Shared, Talker, generate, logprob, stream
from tonggan.types import (
    Answer,
    ChatOptions,
    Message,
    Text,
    TongganError,
    Usage,
    UsageError,
)

log = logging.getLogger("tonggan")
SETTINGS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "beams", "length_penalty", "samples", "seed", "stop")
"""Of `ChatOptions`, named as in `Sampling`; what is left open there is what `Sampling` begins with."""
ROWS = 8
"""Conversations that are answered together: more cost memory, and wait for the longest answer among them."""


class Voice:
    """What a talker and its processor need to answer conversations."""

    def __init__(self, name: str, module: nn.Module, config: Any, processor: Processor, device: torch.device) -> None:
        assert isinstance(module, Talker) and processor.text is not None
        self._name, self._module, self._config, self._device = name, module, config, device
        self._words = processor.text
        self._writer = writer_of(name, config, processor, context=module.context, reads=module.reads_prompt)
        self._silent: dict[str, Any] = {name: getattr(config, name, ()) for name in ("suppressed", "suppressed_first")}
        """Words that never come, or do not come first."""
        self._prefixes, self._weights = Prefixes(), self._made_of()
        self._goes_on = isinstance(self._writer, PlainProcessor) and self._writer.goes_on

    @property
    def languages(self) -> frozenset[str]:
        """Codes of the languages that it can be told a sound is in."""
        return frozenset(self._writer.languages) if isinstance(self._writer, PlainProcessor) else frozenset()

    @property
    def instructed(self) -> bool:
        """Whether words tell the model what to do."""
        return self._writer.instructed

    @property
    def remembers(self) -> bool:
        """Whether there is a template, which writes out several messages."""
        return isinstance(self._writer, ChatProcessor)

    @staticmethod
    def speaks(module: nn.Module, processor: Processor) -> bool:
        """Whether a module can answer conversations: it says words, and there is a way to write them out. Pictures among words have one
        with a template only."""
        if not isinstance(module, Talker) or processor.text is None:
            return False
        return processor.chat is not None or not hasattr(getattr(module, "config", None), "image_token")

    # ------------------------------------------------------------------------------------------------- verbs

    def chat(self, conversations: Sequence[Sequence[Message]], options: ChatOptions) -> list[Answer]:
        """An answer per conversation; one that cannot be asked has its error."""
        answers: dict[int, Answer] = {}
        ready: dict[int, Prompt] = {}
        for number, conversation in enumerate(conversations):
            try:
                ready[number] = self._prompt(conversation)
            except TongganError as error:
                answers[number] = _failed(error)
        for some in self._together(ready):
            answers |= self._answered({number: ready[number] for number in some}, options)
        return [answers[number] for number in range(len(conversations))]

    def stream(self, conversation: Sequence[Message], options: ChatOptions) -> Generator[str, None, Answer]:
        """The answer to one conversation in pieces; what beams find, and several answers, as a whole."""
        if options.samples > 1 or (options.beams or 1) > 1:
            (answer,) = self.chat([conversation], options)
            yield from [answer.text] if answer.text else []
            return answer
        begun = time.monotonic()
        try:
            prompt = self._prompt(conversation)
            sampling, batch = self._sampling(prompt, options), self._writer.collate([prompt]).to(self._device)
            (shared,) = self._shared([prompt]) or (None,)
            said = yield from stream(
                self._module, batch, sampling, ends=self._writer.ends, decode=self._words.decode,
                **self._silent, shared=shared, prefixes=self._known(),
            )  # fmt: skip
        except TongganError as error:
            return _failed(error)
        return self._answer(prompt, said, time.monotonic() - begun, tokens=options.logprobs)

    def logprob(self, conversations: Sequence[Sequence[Message]], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        """Summed log-probabilities of continuations; NaN (and a warning in the log) for all of a conversation that cannot be asked."""
        found: list[list[float]] = []
        for conversation, some in zip(conversations, continuations, strict=True):
            ids = self._words.pieces(list(some))
            if empty := next((text for text, one in zip(some, ids, strict=True) if not one), None):
                raise TongganError(f"{self._name}: the continuation {empty!r} has no tokens")
            try:
                found += logprob(self._module, self._writer.collate([self._prompt(conversation)]).to(self._device), [ids])
            except TongganError as error:
                log.warning("not scored: %s", error)
                found.append([float("nan")] * len(some))
        return found

    # --------------------------------------------------------------------------------------------- in batches

    def _together(self, ready: Mapping[int, Prompt]) -> list[list[int]]:
        """Conversations of like length and of like media, a batch each."""
        alike: dict[Any, list[int]] = defaultdict(list)
        for number in sorted(ready, key=lambda number: len(ready[number].ids)):
            alike[tuple(sorted({one.shape for one in ready[number].pictures}))].append(number)
        return [group[start : start + ROWS] for group in alike.values() for start in range(0, len(group), ROWS)]

    def _answered(self, some: Mapping[int, Prompt], options: ChatOptions) -> dict[int, Answer]:
        begun = time.monotonic()
        try:
            prompts = list(some.values())
            samplings = [self._sampling(prompt, options) for prompt in prompts]
            batch = self._writer.collate(prompts)
            found = generate(
                self._module, batch.to(self._device), samplings, ends=self._writer.ends, decode=self._words.decode,
                **self._silent, shared=self._shared(prompts), prefixes=self._known(),
            )  # fmt: skip
        except TongganError as error:
            if len(some) > 1:  # one that does not fit must not fail the others
                return {number: answer for number, one in some.items() for answer in self._answered({number: one}, options).values()}
            return dict.fromkeys(some, _failed(error))
        seconds = time.monotonic() - begun
        answers = {}
        for (number, prompt), several in zip(some.items(), found, strict=True):
            first, *others = (self._answer(prompt, said, seconds, tokens=options.logprobs) for said in several)
            answers[number] = replace(first, others=tuple(others))
        return answers

    def _shared(self, prompts: Sequence[Prompt]) -> list[Shared] | None:
        """What conversations say up to the last of their media, which is computed once where it is the same."""
        if not isinstance(self._writer, ChatProcessor) or not all(one.pictures or one.sounds for one in prompts):
            return None
        places = frozenset(one.id for one in self._writer.config.placeholders.values())
        shared = [_prefix(prompt, places) for prompt in prompts]
        return shared if all(0 < one.length < len(prompt.ids) for one, prompt in zip(shared, prompts, strict=True)) else None

    def _known(self) -> Prefixes:
        """What is kept of earlier prompts, by the weights that the model has now."""
        if (now := self._made_of()) != self._weights:
            self._prefixes, self._weights = Prefixes(), now
        return self._prefixes

    def _made_of(self) -> list[tuple[int, int | None]]:
        """Where each weight lies, and how often it was changed there."""
        return [(one.data_ptr(), None if one.is_inference() else one._version) for one in self._module.parameters()]

    def _sampling(self, prompt: Prompt, options: ChatOptions) -> Sampling:
        room = self._module.context - len(prompt.ids)
        if room < 1:
            raise UsageError(
                f"{self._name}: a prompt of {len(prompt.ids)} tokens, where the model has room for {self._module.context}; shorten it"
            )
        if options.length_penalty is not None and (options.beams or 1) == 1:
            raise UsageError(f"{self._name}: a length penalty compares beams: ask for several, or leave it out")
        # What does not fit is not asked for: an answer that comes so far is called truncated.
        wanted = {"max_tokens": min(options.max_tokens, room)} | {name: getattr(options, name) for name in SETTINGS}
        return Sampling.parse({name: value for name, value in wanted.items() if value is not None}, "options")

    def _answer(self, prompt: Prompt, said: Said, seconds: float, *, tokens: bool) -> Answer:
        cut = said.reason == "length"
        told, logprobs = self._within(said) if tokens or len(self._words.decode(said.ids)) > len(said.text) else ([], said.logprobs)
        return Answer(
            text=said.text if self._goes_on else said.text.strip(),
            outcome="truncated" if cut else "answered",
            finish_reason="length" if cut else "stop",
            usage=Usage(len(prompt.ids) + len(prompt.source), len(said.ids)),
            logprobs=logprobs,
            tokens=tuple(told) if tokens else None,
            model=self._name,
            seconds=seconds,
        )

    def _within(self, said: Said) -> tuple[list[str], tuple[float, ...]]:
        """What each token adds, and its log-probability, as far as the text goes: a stop text at which it ended is no part of it."""
        told, room = list(self._tokens(said.ids)), len(said.text)
        if sum(map(len, told)) <= room:
            return told, said.logprobs
        kept: list[str] = []
        while room:
            kept.append(told[len(kept)][:room])
            room -= len(kept[-1])
        return kept, said.logprobs[: len(kept)]

    def _tokens(self, ids: Sequence[int]) -> Iterator[str]:
        """What each token adds to the text: nothing, as long as a character is not whole."""
        told = ""
        for count in range(1, len(ids) + 1):
            text = self._words.decode(ids[:count])
            certain = text if count == len(ids) else text.rstrip("\N{REPLACEMENT CHARACTER}")
            goes_on = certain.startswith(told)
            yield certain[len(told) :] if goes_on else ""
            told = certain if goes_on else told

    # ----------------------------------------------------------------------------------------- one conversation

    def _prompt(self, conversation: Sequence[Message]) -> Prompt:
        if not conversation or conversation[-1].role != "user":
            raise UsageError(f"{self._name}: a conversation ends with the user's message, which is answered")
        texts = (part.text for message in conversation for part in message.parts if isinstance(part, Text))
        if (odd := next((text for text in texts if not is_unicode(text)), None)) is not None:
            raise UsageError(f"{self._name}: {ascii(odd)[:60]} holds half a character; read it again in its right encoding")
        prompt = self._writer.prompt(conversation)
        if isinstance(self._writer, PlainProcessor) and self._writer.unnamed and prompt.ids == self._writer.start:
            prompt = replace(prompt, ids=(*prompt.ids, self._heard(prompt, list(self._writer.languages.values())), *self._writer.behind))
        return prompt

    def _heard(self, prompt: Prompt, languages: Sequence[int]) -> int:
        """The likeliest language of a sound (Radford et al. 2023, section 2.3)."""
        scores = logprob(self._module, self._writer.collate([prompt]).to(self._device), [[[one] for one in languages]])[0]
        return languages[scores.index(max(scores))]


def _prefix(prompt: Prompt, placeholders: frozenset[int]) -> Shared:
    """A prompt up to the last of its media, by its content."""
    length = 1 + max((place for place, one in enumerate(prompt.ids) if one in placeholders), default=0)
    digest = hashlib.sha256(repr((prompt.ids[:length], prompt.cuts)).encode())
    for one in (*prompt.pictures, *prompt.sounds):
        digest.update(repr(one.shape).encode() + one.tobytes())
    return Shared(digest.hexdigest(), length)


def _failed(error: TongganError) -> Answer:
    return Answer(outcome="error", error=str(error))
