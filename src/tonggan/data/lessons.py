"""Rows become conversations, conversations lessons, lessons batches: all that a model that talks is taught with.

batch = LessonCollate(processor.chat, seed=0, pack=True)(rows, epochs)
"""

from __future__ import annotations

import contextlib
import copy
import re
import threading
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

from tonggan.data.chat import ChatProcessor, Lesson
from tonggan.data.kept import CACHE_BYTES, NAMES, Kept, stable_hash
from tonggan.data.language import language_of
from tonggan.data.plain import PlainProcessor
from tonggan.data.prompts import CAPTIONING, LETTER, SHORT
from tonggan.tensors import Batch, Modality
from tonggan.types import Audio, Dropped, Media, Message, Row, Text, TongganError, UsageError

Conversation: TypeAlias = tuple[Message, ...]
_WORD = re.compile(r"[一-鿿]|[^\W一-鿿]+")
_GOES_ON = re.compile(r"[.!?](?=\s+\S)|[。！？](?=\s*\S)|\n(?=\s*\S)")


def conversation_of(
    row: Row,
    seed: int = 0,
    epoch: int = 0,
    *,
    langs: Sequence[str] | None = None,
    of: Collection[Modality] | None = None,
    instructed: bool = True,
) -> Conversation:
    """What a row teaches: its messages as they are; or its question, after what it is about, and one of its answers; or one of its captions
    (in Chinese or English), asked for in that language; or one of its texts, as what the model says by itself.

    Which answer, caption and wording is drawn from seed, row and epoch; half of the questions with short answers are asked in the words in
    which models are measured, so that these are known. `langs` restricts captions and texts, `of` the media that captions and questions are
    about (none: the texts alone); of speech (`Audio.role`) the text is in its language. Who is not `instructed` is not told what to do:
    captions come without being asked for. Raises `TongganError` for a row that has none of them, or none of the media that its captions are
    to be about.
    """

    def draw(what: str, number: int) -> int:
        return (stable_hash(f"{seed}\0{what}\0{row.id}\0{epoch}") >> 1) % number

    if row.messages:
        return row.messages
    seen = tuple(part for part in (*row.images, *row.audios, *row.videos) if of is None or part.kind in of)
    if row.question is not None:
        if not row.answers:
            raise TongganError(f"row {row.id} has a question and no answer")
        return _turns(seen, *_asked(row, draw("answer", len(row.answers)), measured=instructed and draw("wording", 2) == 1))
    said = [text for text in row.texts if text.text.strip() and (langs is None or (text.lang or "und") in langs)]
    # The role of a sound in which somebody speaks is its language, and what is written down of it is in that one.
    if spoken := {part.role for part in seen if isinstance(part, Audio)} - {None, "effect"}:
        said = [text for text in said if text.lang in spoken]
        if not said:
            raise TongganError(f"row {row.id} has no text in the language of its sound ({', '.join(sorted(map(str, spoken)))})")
    if not seen and of:
        raise TongganError(f"row {row.id} has no {' or '.join(name for kind, name in NAMES.items() if kind in of)}")
    if not seen and said:
        return (Message("assistant", (Text(said[draw("caption", len(said))].text),)),)
    captions = [(text.text, lang) for text in said if (lang := _prompted(text)) is not None]
    if not captions:
        among = f" (languages: {', '.join(langs)})" if langs else ""
        raise TongganError(f"row {row.id} has no messages, no question, and no caption in Chinese or English{among}")
    caption, lang = captions[draw("caption", len(captions))]
    if not instructed:
        return _turns(seen, "", caption)
    prompts = CAPTIONING[seen[0].kind][lang]
    return _turns(seen, prompts[draw("prompt", len(prompts))], caption)


def words_of(row: Row, *, asked: bool = False) -> Iterator[str]:
    """Every text of a row that a model may read or say: what a tokenizer is trained on. With `asked` also who says it, and the words in
    which models that talk are asked for it: spelled letter by letter they would be longer than all the rest."""
    yield from (text.text for text in row.texts)
    if asked:
        with contextlib.suppress(TongganError):  # a row that teaches nothing is dropped later, with its reason
            for epoch in range(2):
                for message in conversation_of(row, epoch=epoch):
                    yield f"{message.role}\n"
                    yield from (part.text for part in message.parts if isinstance(part, Text))
        return
    yield from (part.text for message in row.messages for part in message.parts if isinstance(part, Text))
    if row.question is not None:
        yield from (row.question, *row.choices, *row.answers)


def pack(lessons: Sequence[Lesson], room: int) -> list[tuple[Lesson, ...]]:
    """Lessons in as few rows of at most `room` ids as first-fit-decreasing finds: the longest first, each into the first row with room.

    Raises `UsageError` for a lesson longer than a row.
    """
    rows: list[list[Lesson]] = []
    left: list[int] = []
    for lesson in sorted(lessons, key=lambda one: -len(one.ids)):
        if len(lesson.ids) > room:
            raise UsageError(f"{lesson.id}: {len(lesson.ids)} tokens do not fit into a row of {room}")
        place = next((n for n, free in enumerate(left) if free >= len(lesson.ids)), len(rows))
        if place == len(rows):
            rows.append([])
            left.append(room)
        rows[place].append(lesson)
        left[place] -= len(lesson.ids)
    return [tuple(row) for row in rows]


class LessonCollate:
    """Rows, with the epoch of each, as one batch of lessons: the loader's collate function.

    A row that cannot be used (too long, unreadable, another number of media than its text says, nobody answers) is counted in `dropped`
    with its reason, and another row of the batch stands in for it. `pack`: several in a row of at most `room` ids (None: of the longest),
    so that batches have other numbers of rows, and none needs to stand in. Media are prepared once, whatever is asked about them, as far as
    the memory that is set aside for them reaches. `shots`: rows follow one another in conversations of one to `shots` + 1 (drawn for each);
    where such a conversation cannot be made, each of its rows stands alone.
    """

    def __init__(
        self,
        writer: ChatProcessor | PlainProcessor,
        *,
        seed: int,
        langs: Sequence[str] | None = None,
        of: Collection[Modality] | None = None,
        pack: bool = False,
        room: int | None = None,
        shots: int = 0,
    ) -> None:
        if room is not None and not pack:
            raise UsageError("room is for packed rows; set pack, or leave it out")
        if pack and isinstance(writer, PlainProcessor):
            raise UsageError(f"pack: {writer.name} looks at what a whole row is about, so each row has one lesson; leave pack out")
        if shots and isinstance(writer, PlainProcessor):
            raise UsageError(f"shots: {writer.name} takes one message, and no examples before it; leave shots out")
        self.writer, self.seed, self.pack, self.room, self.shots = writer, seed, pack, room, shots
        self.langs, self.of = tuple(langs) if langs else None, of
        self.dropped: dict[str, Dropped] = {}
        self._kept = Kept()
        self._lock = threading.Lock()

    def apart(self) -> LessonCollate:
        """The same, with its own list of what was dropped."""
        other = copy.copy(self)
        other.dropped, other._kept = {}, Kept()
        return other

    def fills(self, rows: int) -> int:
        """Most bytes of media that are kept; none before training begins, when nobody knows them."""
        return CACHE_BYTES if self._kept else 0

    def longest(self, rows: Sequence[Row], count: int) -> list[Row]:
        """So many of the rows that can be used whose conversations are the longest: in media, then in bytes of text.

        Raises `TongganError` where none can.
        """

        def size(row: Row) -> tuple[int, int]:
            conversation = row.messages or (Message("user", (*row.images, *row.audios, *row.videos)),)
            parts = [part for message in conversation for part in message.parts]
            return sum(not isinstance(part, Text) for part in parts), max((len(text.encode()) for text in words_of(row)), default=0)

        alone = self.apart()
        found = list(islice((row for row in sorted(rows, key=size, reverse=True) if alone._lessons([(row, 0)])), count))
        if not found:
            raise TongganError(f"no row can be used; the first: {next(iter(alone.dropped.values()), 'there is none')}")
        return found

    def __call__(self, rows: Sequence[Row], epochs: Sequence[int]) -> Batch:
        lessons = [lesson for some in self._together(list(zip(rows, epochs, strict=True))) for lesson in self._lessons(some)]
        if not lessons:
            raise TongganError(f"no row of a whole batch could be used; the first: {next(iter(self.dropped.values()))}")
        if isinstance(self.writer, ChatProcessor) and self.pack:
            return self.writer.collate_packed(pack(lessons, self.room or max(len(lesson.ids) for lesson in lessons)))
        if self.shots:
            return self.writer.collate(lessons)
        return self.writer.collate([lessons[number % len(lessons)] for number in range(len(rows))])

    def conversation(self, row: Row, epoch: int = 0) -> Conversation:
        """What a row teaches in an epoch."""
        return conversation_of(row, self.seed, epoch, langs=self.langs, of=self.of, instructed=self.writer.instructed)

    def _together(self, rows: Sequence[tuple[Row, int]]) -> Iterator[Sequence[tuple[Row, int]]]:
        """Rows that have one conversation, each with its epoch."""
        start = 0
        while start < len(rows):
            row, epoch = rows[start]
            count = 1 + (stable_hash(f"{self.seed}\0shots\0{row.id}\0{epoch}") >> 1) % (self.shots + 1)
            yield rows[start : start + count]
            start += count

    def _lessons(self, rows: Sequence[tuple[Row, int]]) -> list[Lesson]:
        """The lesson of one conversation, or one of each row that can be used where they cannot be together."""
        try:
            return [self._lesson(rows)]
        except TongganError as error:
            if len(rows) > 1:
                return [lesson for one in rows for lesson in self._lessons([one])]
            ((row, _),) = rows
            with self._lock:
                self.dropped[row.id] = Dropped(row.id, str(error).removeprefix(f"{row.id}: "))
            return []

    def _lesson(self, rows: Sequence[tuple[Row, int]]) -> Lesson:
        conversation = [message for row, epoch in rows for message in self.conversation(row, epoch)]
        lesson = self.writer.lesson(conversation, id="+".join(row.id for row, _ in rows), kept=self._kept)
        if self.room is not None and len(lesson.ids) > self.room:
            raise TongganError(f"{len(lesson.ids)} tokens, where a row has room for {self.room}")
        return lesson


def _asked(row: Row, number: int, *, measured: bool) -> tuple[str, str]:
    """A row's question and its answer of this number; `measured`: as models are asked where their answers are marked."""
    question, answer = row.question or "", row.answers[number]
    lang = "zh" if (row.meta.get("lang") or language_of(question)) == "zh" else "en"
    if not row.choices:
        # An answer of several sentences under "a single word or phrase" would teach not to listen.
        return (SHORT[lang].format(question=question) if measured and is_short(answer) else question), answer
    letters = [chr(ord("A") + place) for place in range(len(row.choices))]
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(letters, row.choices, strict=True))
    if measured and answer in row.choices:
        return LETTER[lang].format(question=question, choices=listed), letters[row.choices.index(answer)]
    return f"{question}\n{listed}", answer


def is_short(answer: str) -> bool:
    """Whether an answer is a word or a phrase: a dozen words at most, a Chinese character being one, and nothing behind a full stop."""
    return len(_WORD.findall(answer)) <= 12 and _GOES_ON.search(answer) is None


def _turns(seen: Sequence[Media], asked: str, answer: str) -> Conversation:
    parts: list[Any] = [*seen, *([Text(asked)] if asked else [])]
    return Message("user", tuple(parts)), Message("assistant", (Text(answer),))


def _prompted(text: Text) -> str | None:
    """Chinese or English, if a caption is in either."""
    lang = (text.lang or language_of(text.text) or "").split("-")[0]
    return lang if lang in ("zh", "en") else None
