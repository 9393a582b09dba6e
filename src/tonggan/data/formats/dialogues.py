"""Dialogues as they are published: LLaVA's and ShareGPT's `conversations`, `messages` with tags or with the content parts of OpenAI.

    {"id": "7", "image": "7.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A cat"}]}
    {"messages": [{"role": "user", "content": "<image>What is it?"}, …], "images": ["7.jpg"], "videos": […], "audios": […]}
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "7.jpg"}}, {"type": "text", "text": "…"}]}, …]}

A tag stands for the next medium of its kind that the record names; there must be as many of the one as of the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tonggan.data.formats.base import Finder, Located, Reading, normal_split
from tonggan.data.formats.cells import Record, as_text
from tonggan.data.formats.pictures import picture_of
from tonggan.data.resolve import decode_base64
from tonggan.types import Audio, Image, Message, Part, Row, Text, Video

Role: TypeAlias = Literal["system", "user", "assistant"]
Medium: TypeAlias = Literal["image", "audio", "video"]

ROLES: dict[str, Role] = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
LISTS: dict[Medium, tuple[str, ...]] = {"image": ("images", "image"), "audio": ("audios", "audio"), "video": ("videos", "video")}
"""Where a record names its media; LLaVA has one `image`, or a list under that name."""
PARTS: dict[str, tuple[Medium, str]] = {
    "image": ("image", "image"),
    "image_url": ("image", "image_url"),
    "audio": ("audio", "audio"),
    "audio_url": ("audio", "audio_url"),
    "input_audio": ("audio", "input_audio"),
    "video": ("video", "video"),
    "video_url": ("video", "video_url"),
}
"""Content parts: the kind of each, and the field that holds it."""
_TURNS = ("messages", "conversations")
_TAG = re.compile(r"<(image|audio|video)>\n?|\n<(image|audio|video)>(?=\s*$)")
"""With the line end that divides a tag from the words: templates have their own."""
_PLURAL: dict[Medium, str] = {"image": "pictures", "audio": "sounds", "video": "clips"}


class _Fault(Exception):
    """Why a record is no dialogue."""


@dataclass(slots=True)
class _Named:
    """The media of one kind that a record names, which its places take one after the other."""

    cells: list[Any]
    places: int = 0

    def next(self) -> Any:
        """The next; None where there is none left, which is known to be wrong once all places are counted."""
        self.places += 1
        return self.cells[self.places - 1] if self.places <= len(self.cells) else None


def is_dialogue(record: Mapping[str, Any]) -> bool:
    """Whether a record is a list of turns; one with a question of its own is read as a question."""
    turns = next((record[name] for name in _TURNS if isinstance(record.get(name), list)), None)
    return turns is not None and "question" not in record and all(isinstance(turn, dict) for turn in turns)


def read_dialogues(records: Iterable[Record], job: Reading) -> Iterator[Located]:
    """Rows with messages; one question with its answer and nothing else is a row with those. What is neither is dropped with its reason."""
    finder = Finder(job.base)
    for where, record in records:
        try:
            yield where, _row(record, where, finder)
        except _Fault as fault:
            job.drop(where, str(fault))
    finder.report(job)


def _row(record: Mapping[str, Any], where: str, finder: Finder) -> Row:
    if not is_dialogue(record):
        raise _Fault("no list of turns, unlike the first record")
    name = next(name for name in _TURNS if isinstance(record.get(name), list))
    named = {kind: _Named(_listed(record, names)) for kind, names in LISTS.items()}
    messages = [_message(turn, named, finder) for turn in record[name]]
    for kind, one in named.items():
        if one.places != len(one.cells):
            raise _Fault(f"<{kind}> stands {one.places} times in the text, the record names {len(one.cells)}: each needs its own")
    system = as_text(record.get("system"))
    if system is not None:
        messages.insert(0, Message("system", (Text(system),)))
    own = {name, "id", "split", "group", "system", *(one for names in LISTS.values() for one in names)}
    meta = {str(key): word for key, cell in record.items() if key not in own and (word := as_text(cell)) is not None}
    row = Row(as_text(record.get("id")) or where, group=as_text(record.get("group")), split=normal_split(record.get("split")), meta=meta)
    if not any(message.role == "assistant" for message in messages):
        raise _Fault("nobody answers in it")
    return _asked(row, messages) or row.with_(messages=tuple(messages))


def _asked(row: Row, messages: list[Message]) -> Row | None:
    """One question, and its answer, as such; None for other dialogues. Wherever a question's media stood, they now come before it."""
    if [message.role for message in messages] != ["user", "assistant"]:
        return None
    asked = [part.text for part in messages[0].parts if isinstance(part, Text)]
    said = [part.text for part in messages[1].parts if isinstance(part, Text)]
    if len(asked) != 1 or len(said) != 1 or len(messages[1].parts) != 1:
        return None
    parts = messages[0].parts
    images = tuple(part for part in parts if isinstance(part, Image))
    audios = tuple(part for part in parts if isinstance(part, Audio))
    videos = tuple(part for part in parts if isinstance(part, Video))
    return row.with_(images=images, audios=audios, videos=videos, question=asked[0].strip(), answers=(said[0],))


def _message(turn: Mapping[str, Any], named: Mapping[Medium, _Named], finder: Finder) -> Message:
    speaker = turn.get("role", turn.get("from"))
    role = ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise _Fault(f"the role {speaker!r} is none of {', '.join(ROLES)}")
    content = turn.get("content", turn.get("value"))
    if isinstance(content, str):
        return Message(role, tuple(_tagged(content, named, finder)))
    if not isinstance(content, list):
        raise _Fault(f"what the {role} says is of type {type(content).__name__}, where text or parts belong")
    return Message(role, tuple(part for one in content for part in _parts(one, named, finder)))


def _tagged(text: str, named: Mapping[Medium, _Named], finder: Finder) -> Iterator[Part]:
    """A text in which tags stand for media."""
    at = 0
    for tag in _TAG.finditer(text):
        if text[at : tag.start()].strip():
            yield Text(text[at : tag.start()])
        kind: Medium = tag[1] or tag[2]  # type: ignore[assignment]
        yield _next(kind, named, finder)
        at = tag.end()
    if text[at:].strip() or not at:
        yield Text(text[at:])


def _parts(one: Any, named: Mapping[Medium, _Named], finder: Finder) -> Iterator[Part]:
    if isinstance(one, str):
        one = {"type": "text", "text": one}
    kind = one.get("type") if isinstance(one, dict) else None
    if kind == "text" and isinstance(one.get("text"), str):
        yield Text(one["text"])
    elif kind in PARTS:
        medium, field = PARTS[kind]
        yield _medium(medium, one[field], finder) if one.get(field) else _next(medium, named, finder)
    else:
        raise _Fault(f"a content part of type {kind!r}, which is none of text, {', '.join(PARTS)}")


def _next(kind: Medium, named: Mapping[Medium, _Named], finder: Finder) -> Part:
    cell = named[kind].next()
    return Text("") if cell is None else _medium(kind, cell, finder)


def _medium(kind: Medium, cell: Any, finder: Finder) -> Image | Audio | Video:
    """A path, an address, a data URI, base64, `{"url"}`, `{"bytes", "path"}`, OpenAI's `{"data", "format"}`."""
    if isinstance(cell, Mapping) and isinstance(cell.get("data"), str):
        try:
            return Audio(data=decode_base64(cell["data"]))
        except ValueError:
            raise _Fault("a sound whose base64 is damaged") from None
    found: Image | Audio | Video | str = picture_of(cell, finder) if kind == "image" else _sound_or_clip(kind, cell, finder)
    if isinstance(found, str):
        raise _Fault(found)
    return found


def _sound_or_clip(kind: Medium, cell: Any, finder: Finder) -> Audio | Video | str:
    made = Audio if kind == "audio" else Video
    if isinstance(cell, Mapping):
        if cell.get("bytes"):
            return made(data=bytes(cell["bytes"]))
        cell = cell.get("path") or cell.get("url")
    word = as_text(cell)
    if word is None:
        return f"one of its {_PLURAL[kind]} is not named"
    if re.match(r"data:|https?://", word, re.IGNORECASE):
        return made(url=word)
    found = finder.find(word)
    return made(path=found) if isinstance(found, Path) else f"{word[:200]}: {found}"


def _listed(record: Mapping[str, Any], names: tuple[str, ...]) -> list[Any]:
    cells = [record[name] for name in names if record.get(name)]
    return [one for cell in cells for one in (cell if isinstance(cell, list) else [cell])]
