"""`chat`, `stream` and `logprob` of a model of ours: conversations become prompts, prompts batches, and what is said answers.

A model with a template has its conversations written out by it. One without takes one message: an encoder-decoder reads its words, its
picture or its sound; a decoder goes on from its words.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tonggan.data.chat import Prompt
from tonggan.data.processor import Processor
from tonggan.generate import Prefixes, Said, Sampling, Shared, Talker, generate, logprob, stream
from tonggan.tensors import Batch, pad
from tonggan.types import (
    Answer,
    Audio,
    CannotError,
    ChatOptions,
    Image,
    Message,
    Text,
    TongganError,
    Usage,
    UsageError,
)

log = logging.getLogger("tonggan")
ROWS = 8
"""Conversations that are answered together: more cost memory, and wait for the longest answer among them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One conversation, ready for the model."""

    batch: Batch
    """Of one row."""
    prompt: Prompt | None = None
    """Where a template wrote it."""

    @property
    def said(self) -> int:
        """Tokens that stand before the answer."""
        assert self.batch.tokens is not None
        return int(self.batch.tokens.lengths[0])

    @property
    def read(self) -> int:
        """All tokens that were read."""
        return self.said + (0 if self.batch.source is None else int(self.batch.source.lengths[0]))


class Voice:
    """What a talker and its processor need to answer conversations."""

    def __init__(self, name: str, module: nn.Module, config: Any, processor: Processor, device: torch.device) -> None:
        assert isinstance(module, Talker) and processor.text is not None
        self._name, self._module, self._config, self._processor, self._device = name, module, config, processor, device
        self._words = processor.text
        self._ends: tuple[int, ...] = processor.chat.ends if processor.chat is not None else getattr(config, "ends", ())
        self._silent = {name: getattr(config, name, ()) for name in ("suppressed", "suppressed_first")}
        """Words that never come, or do not come first."""
        self._prefixes = Prefixes()

    @property
    def instructed(self) -> bool:
        """Whether words tell the model what to do; without a template only where it reads them before it answers."""
        return self._processor.chat is not None or self._module.reads_prompt

    @property
    def remembers(self) -> bool:
        """Whether there is a template, which writes out several messages."""
        return self._processor.chat is not None

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
        ready: dict[int, Asked] = {}
        for number, conversation in enumerate(conversations):
            try:
                ready[number] = self._asked(conversation)
            except TongganError as error:
                answers[number] = _failed(error)
        for some in self._together(ready):
            answers |= self._answered({number: ready[number] for number in some}, options)
        return [answers[number] for number in range(len(conversations))]

    def stream(self, conversation: Sequence[Message], options: ChatOptions) -> Generator[str, None, Answer]:
        """The answer to one conversation in pieces."""
        begun = time.monotonic()
        try:
            asked = self._asked(conversation)
            sampling = self._sampling(asked, options)
            pieces = stream(self._module, asked.batch.to(self._device), sampling, ends=self._ends, decode=self._decode, **self._silent)
            said = yield from pieces
        except TongganError as error:
            return _failed(error)
        return self._answer(asked, said, time.monotonic() - begun)

    def logprob(self, conversations: Sequence[Sequence[Message]], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        """Summed log-probabilities of continuations; NaN (and a warning in the log) for all of a conversation that cannot be asked."""
        found: list[list[float]] = []
        for conversation, some in zip(conversations, continuations, strict=True):
            ids = self._words.pieces(list(some))
            if empty := next((text for text, one in zip(some, ids, strict=True) if not one), None):
                raise TongganError(f"{self._name}: the continuation {empty!r} has no tokens")
            try:
                asked = self._asked(conversation)
                found += logprob(self._module, asked.batch.to(self._device), [ids])
            except TongganError as error:
                log.warning("not scored: %s", error)
                found.append([float("nan")] * len(some))
        return found

    # --------------------------------------------------------------------------------------------- in batches

    def _together(self, ready: Mapping[int, Asked]) -> list[list[int]]:
        """Conversations of like length and of like media, a batch each."""
        alike: dict[Any, list[int]] = defaultdict(list)
        for number in sorted(ready, key=lambda number: ready[number].said):
            batch = ready[number].batch
            shapes = (batch.pixels, batch.clips, None if batch.pictures is None else batch.pictures.values)
            alike[tuple(None if one is None else tuple(one.shape[1:]) for one in shapes)].append(number)
        return [group[start : start + ROWS] for group in alike.values() for start in range(0, len(group), ROWS)]

    def _answered(self, some: Mapping[int, Asked], options: ChatOptions) -> dict[int, Answer]:
        begun = time.monotonic()
        try:
            samplings = [self._sampling(asked, options) for asked in some.values()]
            batch, shared = self._joined(list(some.values()))
            found = generate(
                self._module, batch.to(self._device), samplings, ends=self._ends, decode=self._decode, **self._silent,
                shared=shared, prefixes=self._prefixes,
            )  # fmt: skip
        except TongganError as error:
            if len(some) > 1:  # one that does not fit must not fail the others
                return {number: answer for number, one in some.items() for answer in self._answered({number: one}, options).values()}
            return dict.fromkeys(some, _failed(error))
        seconds = time.monotonic() - begun
        return {number: self._answer(asked, said, seconds) for (number, asked), (said,) in zip(some.items(), found, strict=True)}

    def _joined(self, some: Sequence[Asked]) -> tuple[Batch, list[Shared] | None]:
        """Several conversations as one batch; what they say of media is shared where it is the same."""
        prompts = [asked.prompt for asked in some if asked.prompt is not None]
        if self._processor.chat is not None and len(prompts) == len(some):
            batch = self._processor.chat.collate(prompts)
            shared = [_prefix(prompt, self._placeholders()) for prompt in prompts]
            with_media = all(prompt.pictures for prompt in prompts) and not any(prompt.sounds for prompt in prompts)
            return batch, shared if with_media and all(
                0 < one.length < len(p.ids) for one, p in zip(shared, prompts, strict=True)
            ) else None
        each = [asked.batch for asked in some]
        return each[0] if len(each) == 1 else _rows(each, self._words.pad_id), None

    def _placeholders(self) -> frozenset[int]:
        chat = self._processor.chat
        return frozenset() if chat is None else frozenset(one.id for one in chat.config.placeholders.values())

    def _sampling(self, asked: Asked, options: ChatOptions) -> Sampling:
        room = self._module.context - asked.said
        if room < 1:
            raise UsageError(
                f"{self._name}: a prompt of {asked.said} tokens, where the model has room for {self._module.context}; shorten it"
            )
        # What does not fit is not asked for: an answer that comes so far is called truncated.
        asked_for = {"temperature": options.temperature or 0.0, "top_p": options.top_p, "seed": options.seed, "stop": options.stop}
        return Sampling.parse({"max_tokens": min(options.max_tokens, room), **asked_for}, "options")

    def _answer(self, asked: Asked, said: Said, seconds: float) -> Answer:
        cut = said.reason == "length"
        return Answer(
            text=said.text.strip(),
            outcome="truncated" if cut else "answered",
            finish_reason="length" if cut else "stop",
            usage=Usage(asked.read, len(said.ids)),
            logprobs=said.logprobs,
            model=self._name,
            seconds=seconds,
        )

    def _decode(self, ids: Sequence[int]) -> str:
        return self._words.decode(ids)

    # ----------------------------------------------------------------------------------------- one conversation

    def _asked(self, conversation: Sequence[Message]) -> Asked:
        if not conversation or conversation[-1].role != "user":
            raise UsageError(f"{self._name}: a conversation ends with the user's message, which is answered")
        if self._processor.chat is not None:
            prompt = self._processor.chat.prompt(conversation)
            return Asked(self._processor.chat.collate([prompt]), prompt)
        if len(conversation) > 1:
            raise CannotError(f"{self._name} has no template for conversations: it takes one message, not {len(conversation)}")
        return Asked(self._plain(conversation[0]))

    def _plain(self, message: Message) -> Batch:
        """One message to a model without a template."""
        words = "\n".join(part.text for part in message.parts if isinstance(part, Text)).strip()
        batch = Batch(("conversation",), **self._seen(message))
        start = [*getattr(self._config, "start", ())]
        if self._module.reads_prompt and batch.sounds is None:
            if not words:
                raise UsageError(f"{self._name} reads words before it answers; the message has none")
            framed, cut = self._words.encode([words])
            if cut:
                (whole,), most = self._words.pieces([words]), self._words.config.max_length
                raise UsageError(f"{self._name}: the text has {len(whole)} tokens, the model takes {most}; shorten it")
            return replace(batch, source=self._processor.collate(framed), tokens=pad([start]))
        if self._module.reads_prompt:
            if words:
                raise CannotError(f"{self._name} writes down what it hears; it takes a sound and no words")
            sounds = next(part for part in message.parts if isinstance(part, Audio))
            return replace(batch, tokens=pad([[*start, *self._listening(batch, sounds.role)]]))
        (ids,) = self._words.pieces([words])
        if not start and not ids:
            raise UsageError(f"{self._name} goes on from words; the message has none")
        return replace(batch, tokens=pad([[*start, *ids]]))

    def _seen(self, message: Message) -> dict[str, Any]:
        """Its picture or sound, as the model reads it: as many as it takes, which is one or none."""
        takes = {"image": self._processor.image, "audio": self._processor.audio}
        found: dict[str, Any] = {}
        for kind, reader in takes.items():
            parts = [part for part in message.parts if part.kind == kind]
            if len(parts) != (reader is not None):
                raise CannotError(f"{self._name} takes {'one' if reader else 'no'} {kind} with a message, not {len(parts)}")
            if isinstance(parts[0] if parts else None, Image):
                found["pixels"] = self._processor.pixels([part for part in parts if isinstance(part, Image)])
            elif parts and self._processor.audio is not None:
                found["sounds"] = self._processor.audio.collate([self._processor.audio(part) for part in parts if isinstance(part, Audio)])
        if other := [part.kind for part in message.parts if part.kind not in ("text", *takes)]:
            raise CannotError(f"{self._name} takes no {other[0]}")
        return found

    def _listening(self, batch: Batch, lang: str | None) -> list[int]:
        """What Whisper is told behind its start: the language (heard, unless the sound's role names it), to transcribe, without times."""
        told = getattr(self._config, "listening", None)
        if told is None or not told.languages:
            return []
        if lang is not None and lang not in told.languages:
            raise UsageError(f"{self._name} does not write {lang!r}; it writes: {', '.join(sorted(told.languages))}")
        language = told.languages[lang] if lang is not None else self._heard(batch, list(told.languages.values()))
        tasks = [told.tasks["transcribe"]] if "transcribe" in told.tasks else []
        return [language, *tasks, *([] if told.no_times is None else [told.no_times])]

    def _heard(self, batch: Batch, languages: Sequence[int]) -> int:
        """The likeliest language of a sound (Radford et al. 2023, section 2.3)."""
        batch = replace(batch, tokens=pad([[*self._config.start]])).to(self._device)
        scores = logprob(self._module, batch, [[[one] for one in languages]])[0]
        return languages[scores.index(max(scores))]


def _prefix(prompt: Prompt, placeholders: frozenset[int]) -> Shared:
    """A prompt up to its last picture, by its content."""
    length = 1 + max((place for place, one in enumerate(prompt.ids) if one in placeholders), default=0)
    digest = hashlib.sha256(repr((prompt.ids[:length], prompt.cuts)).encode())
    for picture in prompt.pictures:
        digest.update(picture.tobytes())
    return Shared(digest.hexdigest(), length)


def _rows(each: Sequence[Batch], fill: int) -> Batch:
    """Batches of one row as one batch."""

    def stacked(name: str) -> Any:
        values = [getattr(batch, name) for batch in each]
        return None if values[0] is None else torch.cat(values)

    def said(name: str) -> Any:
        values = [getattr(batch, name) for batch in each]
        return None if values[0] is None else pad([one.ids[0, : int(one.lengths[0])].tolist() for one in values], fill)

    sounds = None
    if each[0].sounds is not None:
        heard = [batch.sounds for batch in each if batch.sounds is not None]
        longest = max(one.values.shape[-1] for one in heard)
        values = torch.cat([nn.functional.pad(one.values, (0, longest - one.values.shape[-1])) for one in heard])
        sounds = type(heard[0])(values, torch.cat([one.lengths for one in heard]))
    return Batch(
        tuple(batch.ids[0] for batch in each), pixels=stacked("pixels"), sounds=sounds, tokens=said("tokens"), source=said("source")
    )


def _failed(error: TongganError) -> Answer:
    return Answer(outcome="error", error=str(error))
