"""What requests are made of: texts, and pictures, sounds and clips as the chat API's content parts.

Pictures and clips come as data URIs only, sounds as these or as base64: a server that fetched URLs or opened paths for its
callers could be made to read what they must not see.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import pydantic

from tonggan.data.resolve import SERVER, resolve
from tonggan.data.text import is_unicode
from tonggan.types import Audio, Image, Text, UsageError, Video

DATA_URI = re.compile(r"data:(?:[\w.+-]+/[\w.+*-]+[;,]|;base64,)", re.IGNORECASE)


class Strict(pydantic.BaseModel):
    """A misspelt field is an error, not a default in silence."""

    model_config = pydantic.ConfigDict(extra="forbid")


def _whole(word: str) -> str:
    if not is_unicode(word):
        raise ValueError("not valid Unicode (a lone surrogate)")
    return word


Words = Annotated[str, pydantic.AfterValidator(_whole)]


class Url(Strict):
    """OpenAI's `image_url` object, and the `video_url` that others made after it; `detail` makes no difference here."""

    url: str
    detail: str | None = None


class Sound(Strict):
    """OpenAI's `input_audio` object. `data` is base64 or a data URI; the file itself says its `format`."""

    data: str
    format: str | None = None


class ContentPart(Strict):
    """One content part as in the chat API."""

    type: Literal["text", "image_url", "input_audio", "video_url"]
    text: Words | None = None
    image_url: Url | None = None
    input_audio: Sound | None = None
    video_url: Url | None = None


class ChatMessage(Strict):
    """vLLM's form of a multimodal embedding request wraps one item in a message."""

    role: str = "user"
    content: Words | list[ContentPart]


def item_of(one: str | ContentPart, modality: str | None = None) -> Text | Image | Audio | Video:
    """A request's text or content part as ours."""
    if isinstance(one, ContentPart):
        if one.type == "image_url" and one.image_url is not None:
            return picture_of(one.image_url.url)
        if one.type == "video_url" and one.video_url is not None:
            return resolve(Video(url=one.video_url.url), SERVER)
        if one.type == "input_audio" and one.input_audio is not None:
            data = one.input_audio.data
            return resolve(Audio(url=data if DATA_URI.match(data) else f"data:;base64,{data}"), SERVER)
        if one.type == "text" and one.text is not None:
            return text_of(one.text)
        raise UsageError(f"a content part of type {one.type} needs its field {one.type!r}")
    if modality == "image" or (modality is None and DATA_URI.match(one)):
        return picture_of(one)
    return text_of(one)


def text_of(words: str) -> Text:
    """A text that is not empty."""
    if not words.strip():
        raise UsageError("an empty text has no meaning to embed")
    return Text(words)


def picture_of(uri: str) -> Image:
    """A picture out of a data URI, decoded here (from base64 or per cents) so that a malformed one is refused at once."""
    return resolve(Image(url=uri), SERVER)
