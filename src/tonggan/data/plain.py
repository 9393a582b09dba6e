"""One message to a model without a template: a captioner's picture, an encoder's text or sound, words that a decoder goes on from.

What such a model is asked with and what it learns from are written by the same code, as `data.chat` does for conversations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from tonggan.data.chat import ChatProcessor, Lesson, Prompt
from tonggan.data.kept import Kept, Prepared
from tonggan.data.processor import Processor
from tonggan.tensors import IGNORE, Batch, pad
from tonggan.types import Audio, CannotError, Image, Media, Message, Text, TongganError, UsageError


class PlainProcessor:
    """Writes one message, or one message and its answer, for a model that says words in its own way.

    `start` is what the model says first without being asked for, `ends` are the tokens that end an answer; with `reads` it reads a text or
    a sound before it says anything. `languages` (what a listener is told behind `start`, by the code of a sound's language) and `behind`
    (what it is told after the language) are Whisper's.
    """

    def __init__(
        self,
        name: str,
        processor: Processor,
        *,
        context: int,
        start: Sequence[int] = (),
        ends: Sequence[int] = (),
        reads: bool = False,
        languages: Mapping[str, int] | None = None,
        behind: Sequence[int] = (),
    ) -> None:
        if processor.text is None:
            raise UsageError(f"{name} has no tokenizer, so there are no words for it")
        self.name, self.context, self.start, self.ends, self.reads = name, context, tuple(start), tuple(ends), reads
        self.languages, self.behind = dict(languages or {}), tuple(behind)
        self._processor, self._words = processor, processor.text

    @property
    def unnamed(self) -> bool:
        """Whether it must be told a language that neither its start nor a sound without a role names."""
        return bool(self.languages) and not self._named

    @property
    def _named(self) -> bool:
        return any(one in self.languages.values() for one in self.start)

    @property
    def listens(self) -> bool:
        """Whether what it reads is a sound."""
        return self.reads and self._processor.audio is not None

    @property
    def goes_on(self) -> bool:
        """Whether its answer goes on from the message's own words, to the letter: a language model alone."""
        return not self.reads and not self._takes

    @property
    def instructed(self) -> bool:
        """Whether words tell the model what to do: those that it reads. In others they would be the beginning of its answer."""
        return self.reads and not self.listens

    def prompt(self, conversation: Sequence[Message], *, id: str = "conversation", kept: Kept | None = None) -> Prompt:
        """What is read, and said, before the answer; its media as they are `kept`, where they are.

        Raises `CannotError` for several messages, or media that the model does not take, `UsageError` for words that are missing or too
        many.
        """
        if len(conversation) > 1:
            raise CannotError(f"{self.name} has no template for conversations: it takes one message, not {len(conversation)}")
        (message,) = conversation
        words = "\n".join(part.text for part in message.parts if isinstance(part, Text))
        if self._takes:
            words = words.strip()  # as the processors of those that see or hear do
        media: Any = self._media(message, kept)
        if self.listens:
            if words:
                raise CannotError(f"{self.name} writes down what it hears; it takes a sound and no words")
            return Prompt(id, self._told(message), **media)
        if self.reads:
            return Prompt(id, self.start, source=self._source(words), **media)
        (ids,) = self._words.pieces([words])
        if not self.start and not ids:
            raise UsageError(f"{self.name} goes on from words; the message has none")
        return Prompt(id, (*self.start, *ids), **media)

    def lesson(self, conversation: Sequence[Message], *, id: str = "conversation", kept: Kept | None = None) -> Lesson:
        """A message and its answer, or an answer alone, to learn from: the model is asked for the answer and its end.

        Raises as `prompt` does, and `TongganError` where nobody answers, or the whole is longer than the model's context.
        """
        *asked, answer = conversation
        if answer.role != "assistant" or any(message.role != "user" for message in asked):
            raise TongganError(f"{id}: {self.name} has no template: it learns from one message and its answer")
        (ids,) = self._words.pieces(["".join(part.text for part in answer.parts if isinstance(part, Text))])
        if not ids:
            raise TongganError(f"{id}: the assistant says nothing in this conversation, there is nothing to learn")
        # A text without a message is learnt from by decoders alone: whatever else reads or sees needs what it answers.
        before = self.prompt(asked, id=id, kept=kept) if asked or self.reads or self._takes else Prompt(id, self.start)
        said = [*before.ids, *ids, *self.ends[:1]]
        if len(said) - 1 > self.context:
            raise TongganError(f"{id}: {len(said) - 1} tokens, where the model has room for {self.context}; shorten it")
        targets = [IGNORE] * len(before.ids) + said[len(before.ids) :]
        ids_in, wanted = tuple(said[:-1]), tuple(targets[1:])
        return Lesson(id, ids_in, before.pictures, before.sounds, source=before.source, targets=wanted)

    def collate(self, prompts: Sequence[Prompt]) -> Batch:
        """Prompts, or lessons, a row each: each kind of input as models with one of a kind take it (`pixels`, `sounds`, `source`)."""
        audio = self._processor.audio
        pictures, sounds = [one for p in prompts for one in p.pictures], [one for p in prompts for one in p.sounds]
        lessons = [prompt for prompt in prompts if isinstance(prompt, Lesson)]
        fill = self._words.pad_id
        return Batch(
            ids=tuple(prompt.id for prompt in prompts),
            pixels=torch.from_numpy(np.stack(pictures)) if pictures else None,
            sounds=audio.collate(sounds) if sounds and audio is not None else None,
            source=self._processor.collate([p.source for p in prompts]) if any(p.source for p in prompts) else None,
            tokens=pad([prompt.ids for prompt in prompts], fill),
            targets=pad([one.targets for one in lessons], IGNORE).ids if len(lessons) == len(prompts) else None,
        )

    @property
    def _takes(self) -> tuple[str, ...]:
        """The kinds of media that a message has one of."""
        return tuple(kind for kind in ("image", "audio") if getattr(self._processor, kind) is not None)

    def _media(self, message: Message, kept: Kept | None) -> dict[str, tuple[np.ndarray, ...]]:
        """Its picture or sound, prepared: as many as the model takes, which is one or none of a kind."""
        made: dict[str, tuple[np.ndarray, ...]] = {}
        for kind in ("image", "audio"):
            parts: list[Media] = [part for part in message.parts if isinstance(part, Image | Audio) and part.kind == kind]
            takes = kind in self._takes
            if len(parts) != takes:
                raise CannotError(f"{self.name} takes {'one' if takes else 'no'} {kind} with a message, not {len(parts)}")
            if parts:
                prepare = partial(self._prepared, parts[0])
                made["pictures" if kind == "image" else "sounds"] = (prepare() if kept is None else kept(parts[0], prepare)).arrays
        if other := [part.kind for part in message.parts if part.kind not in ("text", "image", "audio")]:
            raise CannotError(f"{self.name} takes no {other[0]}")
        return made

    def _prepared(self, part: Media) -> Prepared:
        image, audio = self._processor.image, self._processor.audio
        if isinstance(part, Image):
            assert image is not None
            return Prepared((image(part),))
        assert isinstance(part, Audio) and audio is not None
        return Prepared((audio(part),))

    def _source(self, words: str) -> tuple[int, ...]:
        if not words:
            raise UsageError(f"{self.name} reads words before it answers; the message has none")
        (framed,), cut = self._words.encode([words])
        if cut:
            (whole,), most = self._words.pieces([words]), self._words.config.max_length
            raise UsageError(f"{self.name}: the text has {len(whole)} tokens, the model takes {most}; shorten it")
        return tuple(framed)

    def _told(self, message: Message) -> tuple[int, ...]:
        """What a listener says before it writes: its start, in which the language of a sound's role takes the place of another."""
        lang = next(part for part in message.parts if isinstance(part, Audio)).role
        if not self.languages or lang is None:
            return self.start
        if lang not in self.languages:
            raise UsageError(f"{self.name} does not write {lang!r}; it writes: {', '.join(sorted(self.languages))}")
        begin = next((place for place, one in enumerate(self.start) if one in self.languages.values()), len(self.start))
        return (*self.start[:begin], self.languages[lang], *self.behind)


def writer_of(name: str, config: Any, processor: Processor, *, context: int, reads: bool) -> ChatProcessor | PlainProcessor:
    """What writes conversations out for a model: its template where it has one. `config` is the model's, `reads` its `reads_prompt`."""
    if processor.chat is not None:
        return processor.chat
    told = getattr(config, "listening", None)
    behind = [] if told is None else [one for one in (told.tasks.get("transcribe"), told.no_times) if one is not None]
    return PlainProcessor(
        name,
        processor,
        context=context,
        start=getattr(config, "start", ()),
        ends=getattr(config, "ends", ()),
        reads=reads,
        languages=None if told is None else told.languages,
        behind=behind,
    )
