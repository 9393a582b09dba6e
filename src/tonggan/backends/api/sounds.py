"""Sounds as they leave: WAV and MP3 as they are, everything else as WAV."""

from __future__ import annotations

import base64
import io
import wave
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tonggan.backends.api.presets import AudioLimits
from tonggan.data.media import read_bytes
from tonggan.data.resolve import resolve
from tonggan.types import Audio, MediaError, MissingExtra

Kind = Literal["wav", "mp3"]


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound as it leaves: the file and its type."""

    data: bytes
    kind: Kind


def sound(part: Audio, limits: AudioLimits) -> Sound:
    """The file that is sent for a sound. Raises `MediaError` for one that cannot be read, and for one that would have to be converted
    while the extra `audio` is not installed."""
    local = resolve(part)
    if local.array is not None:
        return Sound(_wav(local), "wav")
    data = read_bytes(local)
    if not data:
        raise MediaError(part.where, "empty file")
    kind = sniff(data)
    if kind is not None and kind in limits.formats:
        return Sound(data, kind)  # encoding it again would change what the model hears
    return Sound(_converted(data, part.where), "wav")


def part_of(made: Sound, limits: AudioLimits) -> dict[str, object]:
    """The content part `input_audio`."""
    text = base64.b64encode(made.data).decode()
    data = f"data:;base64,{text}" if limits.data_uris else text
    return {"type": "input_audio", "input_audio": {"data": data, "format": made.kind}}


def sniff(data: bytes) -> Kind | None:
    """The kind of a sound file by its first bytes, None when it is neither WAV nor MP3."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    # A frame header of MPEG audio: eleven bits set, then the version, and layer III (01).
    frame = len(data) > 2 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2 and data[2] >> 4 not in (0, 15)
    return "mp3" if frame or data[:3] == b"ID3" else None


def _wav(part: Audio) -> bytes:
    """An array, float [samples] or [channels, samples] in -1..1, as 16-bit WAV."""
    samples = np.asarray(part.array)
    if part.rate is None or samples.ndim not in (1, 2) or samples.size == 0 or samples.dtype.kind != "f":
        raise MediaError(part.where, "a sound is float [samples] or [channels, samples], not empty, and says its rate")
    if not np.isfinite(samples).all():
        raise MediaError(part.where, "a sound with samples that are no numbers")
    channels = np.atleast_2d(samples)
    whole = np.round(np.clip(channels.T, -1.0, 1.0) * 32767).astype("<i2")  # [samples, channels], as WAV interleaves them
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(whole.shape[1])
        file.setsampwidth(2)
        file.setframerate(part.rate)
        file.writeframes(whole.tobytes())
    return buffer.getvalue()


def _converted(data: bytes, where: str) -> bytes:
    """Any other file as 16-bit WAV, its rate and channels kept."""
    try:
        import soundfile
    except ImportError:
        raise MediaError(where, str(MissingExtra("sending a sound that is neither WAV nor MP3", "audio"))) from None
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (RuntimeError, ValueError, OSError) as error:
        raise MediaError(where, f"not a sound that can be read ({str(error)[:60]})") from None
    return _wav(Audio(array=samples.T, rate=int(rate)))
