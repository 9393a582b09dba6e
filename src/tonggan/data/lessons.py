"""Rows become conversations, conversations lessons, lessons batches: all that a model that talks is taught with.

batch = LessonCollate(processor.chat, seed=0, pack=True)(rows, epochs)
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence

from tonggan.data.chat import ChatProcessor, Lesson
from tonggan.data.language import language_of
from tonggan.data.pairs import stable_hash
from tonggan.data.prompts import CAPTIONING
from tonggan.tensors import Batch
from tonggan.types import Dropped, Media, Message, Row, Text, TongganError, UsageError


def conversation_of(row: Row, seed: int = 0, epoch: int = 0) -> tuple[Message, ...]:
    """What a row teaches: its messages as they are; or its question, after what it is about, and one of its answers; or one of its captions
    (in Chinese or English), asked for in that language. Which answer, caption and wording is drawn from seed, row and epoch.

    Raises `TongganError` for a row that has none of them.
    """

    def draw(what: str, number: int) -> int:
        return (stable_hash(f"{seed}\0{what}\0{row.id}\0{epoch}") >> 1) % number

    if row.messages:
        return row.messages
    seen: tuple[Media, ...] = (*row.images, *row.audios, *row.videos)
    if row.question is not None:
        if not row.answers:
            raise TongganError(f"row {row.id} has a question and no answer")
        choices = [f"{chr(ord('A') + number)}. {choice}" for number, choice in enumerate(row.choices)]
        return _turns(seen, "\n".join([row.question, *choices]), row.answers[draw("answer", len(row.answers))])
    captions = [(text.text, lang) for text in row.texts if text.text.strip() and (lang := _prompted(text)) is not None]
    if not seen or not captions:
        raise TongganError(f"row {row.id} has no messages, no question, and no {'caption in Chinese or English' if seen else 'picture'}")
    said, lang = captions[draw("caption", len(captions))]
    prompts = CAPTIONING[seen[0].kind][lang]
    return _turns(seen, prompts[draw("prompt", len(prompts))], said)


def pack(lessons: Sequence[Lesson], room: int) -> list[tuple[Lesson, ...]]:
    """Lessons in as few rows of at most `room` ids as first-fit-decreasing finds: the longest first, each into the first row with room.

    A row has one with sounds at most, as batches have one sound per row. Raises `UsageError` for a lesson longer than a row.
    """
    rows: list[list[Lesson]] = []
    left: list[int] = []
    for lesson in sorted(lessons, key=lambda one: -len(one.ids)):
        if len(lesson.ids) > room:
            raise UsageError(f"{lesson.id}: {len(lesson.ids)} tokens do not fit into a row of {room}")
        fits = (n for n, free in enumerate(left) if free >= len(lesson.ids) and not (lesson.sounds and any(one.sounds for one in rows[n])))
        place = next(fits, len(rows))
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
    so that batches have other numbers of rows, and none needs to stand in.
    """

    def __init__(self, chat: ChatProcessor, *, seed: int, pack: bool = False, room: int | None = None) -> None:
        if room is not None and not pack:
            raise UsageError("room is for packed rows; set pack, or leave it out")
        self.chat, self.seed, self.pack, self.room = chat, seed, pack, room
        self.dropped: dict[str, Dropped] = {}
        self._lock = threading.Lock()

    def apart(self) -> LessonCollate:
        """The same, with its own list of what was dropped."""
        other = copy.copy(self)
        other.dropped = {}
        return other

    def __call__(self, rows: Sequence[Row], epochs: Sequence[int]) -> Batch:
        lessons: list[Lesson] = []
        for row, epoch in zip(rows, epochs, strict=True):
            try:
                lesson = self.chat.lesson(conversation_of(row, self.seed, epoch), id=row.id)
                if self.room is not None and len(lesson.ids) > self.room:
                    raise TongganError(f"{len(lesson.ids)} tokens, where a row has room for {self.room}")
            except TongganError as error:
                with self._lock:
                    self.dropped[row.id] = Dropped(row.id, str(error).removeprefix(f"{row.id}: "))
                continue
            lessons.append(lesson)
        if not lessons:
            raise TongganError(f"no row of a whole batch could be used; the first: {next(iter(self.dropped.values()))}")
        if not self.pack:
            return self.chat.collate([lessons[number % len(lessons)] for number in range(len(rows))])
        return self.chat.collate_packed(pack(lessons, self.room or max(len(lesson.ids) for lesson in lessons)))


def _turns(seen: Sequence[Media], asked: str, answer: str) -> tuple[Message, ...]:
    return Message("user", (*seen, Text(asked))), Message("assistant", (Text(answer),))  # type: ignore[arg-type]


def _prompted(text: Text) -> str | None:
    """Chinese or English, if a caption is in either."""
    lang = (text.lang or language_of(text.text) or "").split("-")[0]
    return lang if lang in ("zh", "en") else None
