"""Conversations as the content parts of the OpenAI chat API, pictures and sounds brought under the provider's limits once."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import PIL.Image

from tonggan.backends.api.presets import AudioLimits, PictureLimits
from tonggan.backends.api.sounds import Sound, part_of, sound
from tonggan.data.media import load_image, read_bytes, sniff
from tonggan.data.resolve import resolve
from tonggan.types import Audio, CannotError, Image, MediaError, Message, Part, Text

SIDE = 2048
"""Longer side that a picture is brought to, unless the provider allows less: one stated budget for all models."""
BYTES = 4_000_000
"""The largest that a picture of our encoding is sent as, unless the provider takes less."""
_SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "gif": ".gif"}


@dataclass(frozen=True, slots=True)
class Sent:
    """A picture as it leaves: the file, its type, and its size in pixels."""

    data: bytes
    kind: str
    width: int
    height: int

    @property
    def uri(self) -> str:
        """As a data URI."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class Request:
    """One conversation ready to be sent: its messages, the pictures and sounds in them, and the UTF-8 bytes of its text."""

    messages: list[dict[str, Any]]
    pictures: tuple[Sent, ...]
    sounds: tuple[Sound, ...]
    text_bytes: int

    @property
    def bytes(self) -> int:
        """What goes over the wire, but for a few braces."""
        files = [picture.data for picture in self.pictures] + [sound.data for sound in self.sounds]
        return self.text_bytes + sum(4 * ((len(file) + 2) // 3) for file in files)


def request(conversation: Sequence[Message], limits: PictureLimits, side: int = SIDE, audio: AudioLimits | None = None) -> Request:
    """The messages of one conversation. Raises `MediaError` for a picture or a sound that cannot be read or is not taken."""
    pictures: list[Sent] = []
    sounds: list[Sound] = []
    text = 0
    messages = []
    for message in conversation:
        parts: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, Text):
                text += len(part.text.encode())
                parts.append({"type": "text", "text": part.text})
            elif isinstance(part, Audio):
                heard = audio or AudioLimits()
                sounds.append(sound(part, heard))
                parts.append(part_of(sounds[-1], heard))
            else:
                sent = _picture(part, limits, side)
                pictures.append(sent)
                detail = {"detail": str(limits.detail)} if limits.detail else {}
                address = {"url": sent.uri} | detail
                parts.append({"type": "image_url", "image_url": address})
        # Words alone go as a string: not every server takes a list from the system or the assistant.
        plain = parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
        messages.append({"role": message.role, "content": plain})
    return Request(messages, tuple(pictures), tuple(sounds), text)


def _picture(part: Part, limits: PictureLimits, side: int) -> Sent:
    if not isinstance(part, Image):
        raise CannotError(f"{part.kind} is not sent to endpoints yet; text, pictures and sounds are")
    longest = min(side, limits.max_side or side)
    local = resolve(part)
    picture = load_image(local)
    _check(picture, limits, part.where)
    if local.array is None:
        data = read_bytes(local)
        kind = next((name for name, suffix in _SUFFIXES.items() if sniff(data[:32]) == suffix), None)
        if kind in limits.formats and max(picture.size) <= longest and (limits.room is None or len(data) <= limits.room):
            with PIL.Image.open(io.BytesIO(data)) as opened:
                # A file that needs nothing travels as it is: encoding it again would change what the model sees.
                plain = opened.getexif().get(0x0112, 1) == 1 and getattr(opened, "n_frames", 1) == 1
            if plain:
                return Sent(data, str(kind), *picture.size)
    if max(picture.size) > longest:
        picture.thumbnail((longest, longest), PIL.Image.Resampling.LANCZOS)
        _check(picture, limits, part.where)
    return _encoded(picture, limits, part.where)


def _encoded(picture: PIL.Image.Image, limits: PictureLimits, where: str) -> Sent:
    """PNG where it fits, else JPEG, smaller and smaller."""
    room = min(BYTES, limits.room or BYTES)
    while True:
        for kind, settings in (("png", {}), ("jpeg", {"quality": 95, "subsampling": 0}), ("jpeg", {"quality": 85})):
            buffer = io.BytesIO()
            picture.save(buffer, kind, **settings)
            if kind in limits.formats and buffer.tell() <= room:
                return Sent(buffer.getvalue(), kind, *picture.size)
        if min(picture.size) < 32:
            raise MediaError(where, f"does not fit into the {limits.max_bytes} bytes that the provider takes")
        picture = picture.resize((picture.width * 3 // 4, picture.height * 3 // 4), PIL.Image.Resampling.LANCZOS)


def _check(picture: PIL.Image.Image, limits: PictureLimits, where: str) -> None:
    if limits.min_side is not None and min(picture.size) < limits.min_side:
        raise MediaError(where, f"{picture.width} x {picture.height} pixels; the provider wants at least {limits.min_side} a side")
    if limits.max_ratio is not None and max(picture.size) > limits.max_ratio * min(picture.size):
        raise MediaError(where, f"{picture.width} x {picture.height} pixels; the provider takes at most {limits.max_ratio:g} to 1")
