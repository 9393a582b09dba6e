"""Models that need no training: one embeds the mean colour of a picture and the colour words of a text, one repeats what it hears."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np

from tonggan.data.media import load_image
from tonggan.types import (
    Answer,
    ChatOptions,
    Embeddings,
    EmbedOptions,
    Identity,
    Image,
    Item,
    Media,
    MediaError,
    Message,
    Model,
    Row,
    Text,
    Usage,
    as_part,
)

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "红": (1, 0, 0), "绿": (0, 1, 0), "蓝": (0, 0, 1)}


class ColourModel(Model):
    """Three numbers per item: red, green and blue. Counts its forward passes in `calls`."""

    def __init__(self, weights: str = "w" * 64, **preprocessing: object) -> None:
        self.name = "colours"
        self.can, self.modalities = frozenset({"embed"}), frozenset({"text", "image"})
        self.identity = Identity({"image.size": 8, **preprocessing}, weights)
        self.calls: list[int] = []

    def embed(self, items: Sequence[Item], options: EmbedOptions | None = None) -> Embeddings:
        self.calls.append(len(items))
        vectors, errors, truncated = np.zeros((len(items), 3), np.float32), {}, []
        for i, part in enumerate(map(as_part, items)):
            if isinstance(part, Text):
                colour = np.array([v for k, v in COLOURS.items() if k in part.text] or [(1, 1, 1)], dtype=np.float32).sum(0)
                if len(part.text) > 100:
                    truncated.append(i)
            else:
                assert isinstance(part, Image)
                try:
                    colour = np.asarray(load_image(part), dtype=np.float32).reshape(-1, 3).mean(0) + 1e-3
                except MediaError as error:
                    errors[i] = error.reason
                    continue
            vectors[i] = colour / np.linalg.norm(colour)
        return Embeddings(vectors, errors, tuple(truncated), tokens=len(items))


class Parrot(Model):
    """Repeats the last words and counts what it was shown; falls silent at `boom`, is cut at `long`."""

    name, identity = "parrot", Identity({}, "0" * 64)

    def __init__(self, *modalities: str) -> None:
        self.can, self.modalities = frozenset({"chat"}), frozenset(modalities or ("text", "image"))
        self.heard: list[list[Message]] = []
        self.options: list[ChatOptions | None] = []
        self.counts = True
        """Whether it says log-probabilities when asked to: minus a half for each letter."""

    def chat(self, conversations: Sequence[Sequence[Message]], options: ChatOptions | None = None) -> list[Answer]:
        return [self._one(conversation, options) for conversation in conversations]

    def _one(self, conversation: Sequence[Message], options: ChatOptions | None) -> Answer:
        self.heard.append(list(conversation))
        self.options.append(options)
        parts = [part for message in conversation for part in message.parts]
        words = next(part.text for part in reversed(parts) if isinstance(part, Text))
        if "boom" in words:
            return Answer(outcome="error", error="no answer came")
        told = f"{words} ({sum(isinstance(part, Media) for part in parts)})"
        first, *others = (
            self._said(told + f" {n}" * (n > 0), words, len(parts), options) for n in range(options.samples if options else 1)
        )
        return replace(first, others=tuple(others))

    def _said(self, told: str, words: str, read: int, options: ChatOptions | None) -> Answer:
        answer = Answer(text=told, outcome="truncated" if "long" in words else "answered", usage=Usage(read, len(told)))
        likely = options is not None and options.logprobs and self.counts
        return replace(answer, tokens=tuple(told), logprobs=(-0.5,) * len(told)) if likely else answer

    def stream(self, conversation: Sequence[Message], options: ChatOptions | None = None) -> Generator[str, None, Answer]:
        answer = self._one(conversation, options)
        yield from answer.text
        return answer


def square(*colour: int, size: int = 24) -> Image:
    """A picture of one colour."""
    return Image(array=np.broadcast_to(np.array(colour, np.uint8), (size, size, 3)).copy())


def colour_rows() -> list[Row]:
    """Three rows with one colour each."""
    return [
        Row(id="r", images=(square(250, 5, 5),), texts=(Text("a red square", "en"), Text("红色的方块", "zh")), meta={"licence": "CC0"}),
        Row(id="g", images=(square(5, 250, 5),), texts=(Text("a green square", "en"), Text("绿色的方块", "zh"))),
        Row(id="b", images=(square(5, 5, 250),), texts=(Text("a blue square", "en"), Text("蓝色的方块", "zh"))),
    ]
