"""Conversations become token ids with pictures and sounds among them: as prompts to be answered, and as lessons to learn from.

A template writes a conversation out; where it writes the placeholder of a medium, that medium's ids are put. Which words the assistant
says is found by writing out the conversation up to each of its turns, and what stands before them is spelled as in a prompt. Words of a
user that look like a placeholder or a control token are spelled out in ordinary pieces: nobody can put a picture, or an end of his turn,
into a text by typing it.

Shape letters: B rows, L tokens, N pictures of a batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from tonggan.config import Config
from tonggan.data.audio import AudioProcessor
from tonggan.data.images import ImageProcessor
from tonggan.data.kept import Kept, Prepared
from tonggan.data.spelling import Piece, Speller
from tonggan.data.templates import CHATML, Template
from tonggan.data.text import END, START, Tokenizer
from tonggan.data.tiles import TileProcessor
from tonggan.data.video import VideoProcessor
from tonggan.tensors import IGNORE, Batch, Frames, Pieces, Sounds, Tiles, Tokens, pad
from tonggan.types import Audio, Image, Media, Message, Text, TongganError, UsageError, Video

Medium: TypeAlias = Literal["image", "audio", "video"]
NAMES: dict[Medium, str] = {"image": "pictures", "audio": "sounds", "video": "clips"}


class Placeholder(Config):
    """The word that stands where a medium is."""

    text: str
    """As the template writes it. It need not be in the tokenizer's vocabulary."""
    id: NonNegativeInt
    """As the model knows it."""
    count: PositiveInt = 1
    """How many ids a picture, a frame of a clip or a sound takes."""
    every: PositiveInt | None = None
    """For sounds that take as many as they are long: one for each so many frames (or samples), rounded up, in place of `count`."""


class TileProcessing(Config):
    """Pictures of any resolution in tiles, where a conversation has one picture only; and clips that take ids of their own number."""

    grids: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(min_length=1)
    """Rows and columns of tiles that a picture may have."""
    most: PositiveInt = 9
    """Of more tiles a picture takes as many ids as it would of these."""
    side: PositiveInt
    """Patches that the model makes of a tile's side."""


class ChatProcessing(Config):
    """How conversations are written out."""

    template: str = CHATML
    """In Jinja, as published: see `data.templates`."""
    bos_token: str = START
    eos_token: str = END
    """What the template is given under these names."""
    ends: tuple[str, ...] = (END,)
    """Tokens that end what the assistant says: the last thing it learns to say, and where its answer stops."""
    image: Placeholder | None = None
    audio: Placeholder | None = None
    video: Placeholder | None = None
    clips: Literal["frames", "whole"] = "frames"
    """A clip's frames are pictures, one after the other; or it is one of the pictures as a whole, [T, 3, H, W], of `count` ids."""
    tiles: TileProcessing | None = None
    """None: a picture is one piece, and `count` says how many ids it takes."""
    context: PositiveInt | None = None
    """Most ids of a conversation; None: any number."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        texts = [one.text for one in self.placeholders.values()]
        if "" in texts or any(a in b for i, a in enumerate(texts) for j, b in enumerate(texts) if i != j):
            raise ValueError(f"placeholders {', '.join(map(repr, texts))}: each needs a text, and none may be in another")
        if self.tiles is not None and self.clips == "whole":
            raise ValueError("clips are whole in models that read each picture in one piece; leave tiles out")
        return self

    @property
    def placeholders(self) -> dict[Medium, Placeholder]:
        """Those there are."""
        every: dict[Medium, Placeholder | None] = {"image": self.image, "audio": self.audio, "video": self.video}
        return {kind: one for kind, one in every.items() if one is not None}


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What a model reads before it answers."""

    id: str
    ids: tuple[int, ...]
    pictures: tuple[np.ndarray, ...] = ()
    """uint8 [3, H, W] each, in reading order, frames of clips among them; or whole clips [T, 3, H, W]."""
    sounds: tuple[np.ndarray, ...] = ()
    """As the processor of sounds gives them, in reading order."""
    cuts: tuple[Tiles | Frames, ...] = ()
    """Which of the pictures are tiles of one, or frames of a clip, in models that tell them apart (see `tensors.Pieces`)."""
    source: tuple[int, ...] = ()
    """Ids of what an encoder reads, where a model has one."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesson(Prompt):
    """A conversation to learn from; of its last id only the word is wanted, so it is a target and no input."""

    targets: tuple[int, ...] = ()
    """The id after each of `ids` where the assistant says it, IGNORE elsewhere."""


class ChatProcessor:
    """Writes conversations out for one model: its template, tokenizer, placeholders, and what prepares its media.

    `counts` are for media that take other numbers of ids than the configuration can say: from what the processor made of one to its number.
    Raises `UsageError` for a template that is no Jinja, an end that the tokenizer lacks, or a placeholder of what nothing prepares.
    """

    instructed = True
    """Words tell the model what to do."""

    def __init__(
        self,
        config: ChatProcessing,
        tokenizer: Tokenizer,
        image: ImageProcessor | None = None,
        audio: AudioProcessor | None = None,
        video: VideoProcessor | None = None,
        *,
        counts: Mapping[Medium, Callable[[np.ndarray], int]] | None = None,
    ) -> None:
        self.config, self.tokenizer, self.counts = config, tokenizer, dict(counts or {})
        self.image, self.audio, self.video = image, audio, video
        self.template = Template(config.template, bos_token=config.bos_token, eos_token=config.eos_token)
        if lacking := [word for word in config.ends if tokenizer.id_of(word) is None]:
            raise UsageError(f"chat.ends: the tokenizer has no token {lacking[0]!r}; name those of its tokens that end a turn")
        self.ends = tuple(id for word in config.ends if (id := tokenizer.id_of(word)) is not None)
        readers = {"image": image, "audio": audio, "video": video}
        if idle := [kind for kind in config.placeholders if readers[kind] is None]:
            raise UsageError(f"chat.{idle[0]}: there is a placeholder for {NAMES[idle[0]]}, but nothing that prepares them")
        self._tiler = TileProcessor(image, config.tiles.grids) if config.tiles is not None and image is not None else None
        self._speller = Speller(tokenizer, [one.text for one in config.placeholders.values()])

    # ------------------------------------------------------------------------------------------ one conversation

    def prompt(self, conversation: Sequence[Message], *, id: str = "conversation") -> Prompt:
        """What a model reads before it answers the last message.

        Raises `TongganError` naming `id`: where placeholders and media differ in number (both are named), where the prompt is longer than
        the context (both are named), where the template refuses it; `MediaError` for a medium that cannot be read.
        """
        made = self._written(conversation, id, prompt=True)
        self._fits(len(made.ids), id)
        return Prompt(id, tuple(one for one, _, _ in made.ids), tuple(made.pictures), tuple(made.sounds), tuple(made.cuts))

    def lesson(self, conversation: Sequence[Message], *, id: str = "conversation", kept: Kept | None = None) -> Lesson:
        """What a model learns from: it is asked for what the assistant says, up to the end of each turn, and for nothing else.

        A template that ends no turn has the last one ended by the first of `ends`. With `kept` its media are prepared once for all lessons
        that are about them. Raises as `prompt` does, and `TongganError` where nobody answers, or where the template writes the turns before
        one otherwise than in the whole, naming the turn.
        """
        made = self._written(conversation, id, prompt=False, kept=kept)
        asked = [False] * len(made.ids)
        for begin, end in made.turns:
            for at, (one, start, stop) in enumerate(made.ids):
                if begin < stop and start < end:
                    asked[at] = True
                    if one in self.ends:
                        break
        if not any(asked):
            raise TongganError(f"{id}: the assistant says nothing in this conversation, there is nothing to learn")
        said = [one for one, _, _ in made.ids]
        if conversation[-1].role == "assistant":  # what the template writes behind the last word asked for teaches nothing
            while not asked[-1]:
                said.pop()
                asked.pop()
        if asked[-1] and said[-1] not in self.ends and self.ends:
            said, asked = [*said, self.ends[0]], [*asked, True]
        self._fits(len(said), id)
        targets = tuple(one if wanted else IGNORE for one, wanted in zip(said[1:], asked[1:], strict=True))
        return Lesson(id, tuple(said[:-1]), tuple(made.pictures), tuple(made.sounds), tuple(made.cuts), targets=targets)

    def _written(self, conversation: Sequence[Message], id: str, *, prompt: bool, kept: Kept | None = None) -> _Written:
        given: dict[Medium, list[Media]] = {"image": [], "audio": [], "video": []}
        try:
            plain = [self._plain(message, given) for message in conversation]
            written = self.template.render(plain, prompt=prompt)
            turns = self._turns(plain, written, strict=not prompt)
        except TongganError as error:
            raise TongganError(f"{id}: {error}") from None
        pieces = self._pieces(written, turns)
        kinds: list[Medium] = list(self.config.placeholders)
        for number, kind in enumerate(kinds):
            stand = sum(piece.placeholder == number for piece in pieces)
            if stand != len(given[kind]):
                raise TongganError(
                    f"{id}: the text has {stand} placeholders {self.config.placeholders[kind].text}, the conversation has "
                    f"{len(given[kind])} {NAMES[kind]}; each needs its own"
                )
        made = _Written(turns)
        queues = {kind: iter(parts) for kind, parts in given.items()}
        for piece in pieces:
            run: Iterable[int] = piece.ids
            if piece.placeholder is not None:
                kind = kinds[piece.placeholder]
                alone = kind == "image" and len(given["image"]) == 1
                part = next(queues[kind])
                prepare = partial(self._prepared, kind, part, alone=alone)
                one = prepare() if kept is None else kept(part, prepare, alone=alone)
                (made.sounds if kind == "audio" else made.pictures).extend(one.arrays)
                made.cuts.extend([] if one.cut is None else [one.cut])
                run = one.ids
            made.ids.extend((one, piece.start, piece.stop) for one in run)
        return made

    def _pieces(self, written: str, turns: Sequence[tuple[int, int]]) -> list[Piece]:
        """The tokens of a text. It is cut before an answer only where the tokenizer would otherwise spell what stands before it in another
        way than alone, as it is when that answer is asked for (rules that strip blanks, merges across the border)."""
        cuts = [0]
        for begin, end in turns:
            before, through = self._speller(written[cuts[-1] : begin]), self._speller(written[cuts[-1] : end])
            if through[: len(before)] != before or any(one.start < begin - cuts[-1] for one in through[len(before) :]):
                cuts.append(begin)
        stretches = pairwise([*cuts, len(written)])
        return [replace(one, start=one.start + a, stop=one.stop + a) for a, b in stretches for one in self._speller(written[a:b])]

    def _plain(self, message: Message, given: dict[Medium, list[Media]]) -> dict[str, Any]:
        """A message as templates have them; its media are added to `given`."""
        parts: list[dict[str, str]] = []
        for part in message.parts:
            if isinstance(part, Text):
                parts.append({"type": "text", "text": self._speller.guarded(part.text)})
                continue
            kind: Medium = "image" if isinstance(part, Image) else "audio" if isinstance(part, Audio) else "video"
            if message.role == "assistant":
                raise TongganError(f"{NAMES[kind]} in an assistant's message are to be made, which this model does not")
            if kind not in self.config.placeholders:
                takes = " and ".join(NAMES[one] for one in self.config.placeholders) or "text only"
                raise TongganError(f"the conversation has {NAMES[kind]}; this model takes {takes}")
            given[kind].append(part)
            parts.append({"type": kind})
        if self.template.takes_parts:
            return {"role": message.role, "content": parts}
        # In one string media come as LLaVA writes them: the placeholder and a new line before the text.
        words = [part["text"] if "text" in part else self.config.placeholders[part["type"]].text + "\n" for part in parts]  # type: ignore[index]
        return {"role": message.role, "content": "".join(words)}

    def _prepared(self, kind: Medium, part: Media, *, alone: bool) -> Prepared:
        """What is made of a medium; whether it is the only picture of a conversation matters where pictures are cut into tiles."""
        place, tiles = self.config.placeholders[kind], self.config.tiles
        cut: Tiles | Frames | None = None
        if isinstance(part, Image):
            assert self.image is not None
            if self._tiler is None:
                made = [self.image(part)]
            else:
                pieces, cut = self._tiler(part) if alone else self._tiler.among_others(part)
                made = list(pieces)
        elif isinstance(part, Audio):
            assert self.audio is not None
            made = [self.audio(part)]
        else:
            assert isinstance(part, Video) and self.video is not None
            clip = self.video(part)
            made = list(clip) if self.config.clips == "frames" else [clip]
            cut = None if tiles is None else Frames(len(made))
        if kind in self.counts:
            number = sum(map(self.counts[kind], made))
        elif tiles is not None and cut is not None:
            number = cut.features(tiles.side, tiles.most)
        elif place.every is not None:
            number = sum(-(-one.shape[-1] // place.every) for one in made)
        else:
            number = place.count * len(made)
        return Prepared(tuple(made), (place.id,) * number, cut)

    def _turns(self, plain: Sequence[Mapping[str, Any]], written: str, *, strict: bool) -> list[tuple[int, int]]:
        """From where to where in the text the assistant speaks; not `strict`: as far as the template lets it be known."""
        found = []
        for number, message in enumerate(plain):
            if message["role"] != "assistant":
                continue
            before, after = self.template.render(plain[:number], prompt=True), self.template.render(plain[: number + 1])
            if written.startswith(before) and after.startswith(before) and written.startswith(after):
                found.append((len(before), len(after)))
            elif strict:
                raise TongganError(
                    f"the template writes what stands before message {number + 1} otherwise when it asks for that answer than in the whole "
                    "conversation, so that what would be learnt is not what is said later; take a template of which each prompt is the "
                    "beginning of the whole (the default is one)"
                )
        return found

    def _fits(self, length: int, id: str) -> None:
        if self.config.context is not None and length > self.config.context:
            room = self.config.context
            raise TongganError(f"{id}: {length} tokens, where the model has room for {room}; shorten it, or give fewer media")

    # -------------------------------------------------------------------------------------------------- batches

    def collate(self, prompts: Sequence[Prompt]) -> Batch:
        """Prompts, or lessons, a row each: tokens right-padded, targets IGNORE behind each row's end, pictures and sounds in reading order.

        Raises `UsageError` for pictures of unequal sizes.
        """
        return self._batch([(prompt,) for prompt in prompts])

    def collate_packed(self, rows: Sequence[Sequence[Lesson]]) -> Batch:
        """The same with several lessons in a row, as `data.lessons.pack` puts them together: `tokens.segments` tell them apart."""
        return self._batch(rows, packed=True)

    def _batch(self, rows: Sequence[Sequence[Prompt]], *, packed: bool = False) -> Batch:
        tokens = pad([[one for prompt in row for one in prompt.ids] for row in rows], self.tokenizer.pad_id)
        if packed:
            runs = [[number for number, prompt in enumerate(row) for _ in prompt.ids] for row in rows]
            tokens = Tokens(tokens.ids, tokens.lengths, segments=pad(runs, fill=max(map(len, rows))).ids)
        targets = None
        if all(isinstance(prompt, Lesson) for row in rows for prompt in row):
            wanted = [[one for prompt in row if isinstance(prompt, Lesson) for one in prompt.targets] for row in rows]
            targets = pad(wanted, IGNORE).ids
        pictures = [picture for row in rows for prompt in row for picture in prompt.pictures]
        if len(sizes := {picture.shape for picture in pictures}) > 1:
            raise UsageError(f"pictures of unequal sizes in one batch: {', '.join(map(str, sorted(sizes)))}; give them apart")
        counts = tuple(sum(len(prompt.pictures) for prompt in row) for row in rows)
        cuts = tuple(tuple(cut for prompt in row for cut in prompt.cuts) for row in rows)
        return Batch(
            ids=tuple("+".join(prompt.id for prompt in row) for row in rows),
            tokens=tokens,
            targets=targets,
            pictures=Pieces(torch.from_numpy(np.stack(pictures)), counts, cuts if any(cuts) else None) if pictures else None,
            sounds=self._sounds(rows),
        )

    def _sounds(self, rows: Sequence[Sequence[Prompt]]) -> Sounds | None:
        sounds = [sound for row in rows for prompt in row for sound in prompt.sounds]
        if not sounds or self.audio is None:
            return None
        return replace(self.audio.collate(sounds), counts=tuple(sum(len(prompt.sounds) for prompt in row) for row in rows))

    def record(self) -> dict[str, Any]:
        """Every setting, the template as a hash, and what a conversation becomes: a part of a model's identity."""
        words: tuple[tuple[Literal["user", "assistant"], str], ...]
        words = (("user", "看 a cat’s  <image>？\n"), ("assistant", "好。Fine."), ("user", "？"))
        said = [Message(role, (Text(text),)) for role, text in words]
        try:
            ids = list(self.prompt(said).ids)
        except TongganError:
            ids = []  # over the context, or refused by the template
        settings = self.config.model_dump(mode="json", exclude={"template"})
        return settings | {"template": _digest(self.config.template), "end_ids": list(self.ends), "ids": _digest(json.dumps(ids))}


@dataclass(frozen=True, slots=True)
class _Written:
    """A conversation as ids."""

    turns: list[tuple[int, int]]
    """From where to where in the text the assistant speaks."""
    ids: list[tuple[int, int, int]] = field(default_factory=list)
    """Each with where in the text it begins and ends."""
    pictures: list[np.ndarray] = field(default_factory=list)
    sounds: list[np.ndarray] = field(default_factory=list)
    cuts: list[Tiles | Frames] = field(default_factory=list)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
