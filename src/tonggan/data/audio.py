"""A sound becomes what a tower hears, by settings that are all named: a waveform, or a log-mel spectrogram.

Every sound is decoded, mixed to one channel and resampled; nothing is made louder or trimmed unless a setting says so.

Shape letters: S samples, C channels, N samples of one window, K frequencies (N // 2 + 1), M mel bins, F frames, B sounds of a batch.
"""

from __future__ import annotations

import math
import struct
import wave
from collections.abc import Sequence
from functools import cache
from typing import IO, Literal, Self, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32
from pydantic import Field, model_validator

from tonggan.config import Config
from tonggan.data.media import open_stream, reason_of, what_else
from tonggan.tensors import Sounds
from tonggan.types import Audio, MediaError, MissingExtra

MAX_SECONDS = 3600
"""A sound that is wanted whole and is longer than this is taken for a mistake."""
FLOOR = 1e-10
"""Mel energies below this are silence."""
MARGIN = 0.1
"""Seconds that are decoded beyond a cut: whether there was more, and so that the resampler's end is not heard before it."""
_STREAMED = 2**31 - 2**16
"""Programs that write a WAV before they know its length declare one from here on."""

Scale: TypeAlias = Literal["slaney", "htk"]


class AudioProcessing(Config):
    """How sounds are prepared."""

    kind: Literal["waveform", "log_mel"] = "log_mel"
    rate: int = Field(default=16_000, ge=1)
    """Samples per second."""
    seconds: float | None = Field(default=30.0, gt=0)
    """Longest sound; what is longer is cut and reported, as long texts are. None: no limit."""
    pad: Literal["batch", "whole"] = "batch"
    """`batch`: zeros up to the longest sound of a batch. `whole`: silence up to `seconds`, for models that attend to their padding
    (Whisper). The lengths of a batch say in both where each sound ends."""
    normalize: Literal["none", "unit"] = "none"
    """Of a waveform. `unit`: zero mean and unit variance over the sound (Baevski et al. 2020, wav2vec 2.0)."""
    bins: int = Field(default=80, ge=1)
    n_fft: int = Field(default=400, ge=2)
    """Samples of one Hann window."""
    hop: int = Field(default=160, ge=1)
    """Samples between windows."""
    scale: Scale = "slaney"
    """`slaney`: linear below 1 kHz, triangles of equal area (librosa, Whisper). `htk`: 2595 log10(1 + f / 700), triangles of equal
    height. Both from 0 Hz to half the rate."""
    norm: Literal["whisper", "log"] = "whisper"
    """`log`: the natural logarithm. `whisper`: log10, at most 8 below the sound's loudest, then (x + 4) / 4."""

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        own = {"waveform": ("normalize",), "log_mel": ("bins", "n_fft", "hop", "scale", "norm")}
        idle = [
            n for kind, names in own.items() if kind != self.kind for n in names if getattr(self, n) != type(self).model_fields[n].default
        ]
        if idle:
            raise ValueError(f"kind {self.kind} has no {' and no '.join(idle)}")
        if self.pad == "whole" and self.seconds is None:
            raise ValueError("pad whole needs a length: set seconds")
        if self.limit is not None and self.limit < (self.n_fft if self.kind == "log_mel" else 1):
            raise ValueError(f"seconds={self.seconds} is shorter than one window")
        return self

    @property
    def limit(self) -> int | None:
        """Samples of the longest sound."""
        return None if self.seconds is None else round(self.seconds * self.rate)

    @property
    def most_bytes(self) -> int:
        """What the longest sound takes in memory."""
        samples = self.limit or MAX_SECONDS * self.rate
        return 4 * (samples if self.kind == "waveform" else self.bins * (samples // self.hop))


class AudioProcessor:
    """Calls give float32 [S] or [M, F] of the sound alone; `collate` pads. Raises `MediaError` for what cannot be read.

    `shortest` is how many samples the tower takes at least; fewer are refused, alone and in a batch, where padding would hide that. A
    spectrogram has a frame of any sound: what is shorter than one window has silence behind it, as in Whisper.
    """

    def __init__(self, config: AudioProcessing, shortest: int = 1) -> None:
        self.config, self.shortest = config, shortest

    def __call__(self, audio: Audio | np.ndarray) -> Float32[np.ndarray, "..."]:
        """One sound; an array is a waveform [S] or [C, S] at the rate of the settings."""
        return self.fit(self.open(audio)[0])

    def open(self, audio: Audio | np.ndarray) -> tuple[Float32[np.ndarray, "S"], bool]:
        """The waveform, and whether it had to be cut; one that is too short for the tower raises `MediaError`."""
        config = self.config
        sound = audio if isinstance(audio, Audio) else Audio(array=audio, rate=config.rate)
        samples = load_audio(sound, config.rate, seconds=config.seconds and config.seconds + MARGIN)
        if len(samples) < self.shortest:
            had, least = len(samples) / config.rate, self.shortest / config.rate
            raise MediaError(sound.where, f"{had:.4g} s is too short: the model hears no less than {least:.4g} s ({self.shortest} samples)")
        return samples[: config.limit], config.limit is not None and len(samples) > config.limit

    def fit(self, samples: Float[np.ndarray, "S"]) -> Float32[np.ndarray, "..."]:
        """What the tower hears of a waveform. With `pad="whole"`, a spectrogram has the frames that reach into the sound."""
        config = self.config
        if config.kind == "log_mel":
            return _log_mel(samples, config)
        if config.normalize == "none":
            return samples.astype(np.float32)
        exact = samples.astype(np.float64)
        return ((exact - exact.mean()) / np.sqrt(exact.var() + 1e-7)).astype(np.float32)

    def collate(self, sounds: Sequence[Float32[np.ndarray, "..."]]) -> Sounds:
        """Sounds as one batch, values [B, S] or [B, M, F]."""
        config = self.config
        lengths = [sound.shape[-1] for sound in sounds]
        longest = max(lengths)
        if config.pad == "whole" and config.limit is not None:
            longest = config.limit if config.kind == "waveform" else config.limit // config.hop
        values = torch.zeros(len(sounds), *sounds[0].shape[:-1], longest)
        for row, sound, length in zip(values, sounds, lengths, strict=True):
            row[..., :length] = torch.from_numpy(sound)
            row[..., length:] = self._silence(sound)
        return Sounds(values, torch.tensor(lengths))

    def _silence(self, sound: Float32[np.ndarray, "..."]) -> float:
        """What fills a row: zeros or, where the padding is part of the sound, what a frame of silence would have become beside it."""
        if self.config.pad == "batch" or self.config.kind == "waveform":
            return 0.0
        return math.log(FLOOR) if self.config.norm == "log" else max((math.log10(FLOOR) + 4) / 4, float(sound.max()) - 2)


# --------------------------------------------------------------------------------------------- decoding


def load_audio(audio: Audio, rate: int, *, seconds: float | None = None) -> Float32[np.ndarray, "S"]:
    """A sound as one channel at `rate` samples per second, of which at most the first `seconds` are decoded.

    WAV, FLAC, Ogg and MP3 by the extra `audio`; without it, plain WAV at this very rate. Raises `MediaError` with a clause for what is
    damaged, empty, no numbers, or (with `seconds` None) longer than an hour.
    """
    samples, own = _from_array(audio) if audio.array is not None else _from_file(audio, seconds)
    if seconds is None and len(samples) > MAX_SECONDS * own:
        raise MediaError(audio.where, f"longer than {MAX_SECONDS // 60} minutes")
    mono = samples[: _count(seconds, own)].mean(axis=1, dtype=np.float32)
    if not len(mono):
        raise MediaError(audio.where, "has no samples")
    if not np.isfinite(mono).all():
        raise MediaError(audio.where, "has samples that are no numbers")
    return mono if own == rate else _resampled(mono, own, rate, audio.where)


def duration(audio: Audio) -> float:
    """Seconds of a sound by its header, nothing decoded; 0 for one that cannot be read: why is said by whoever decodes it."""
    frames, rate = _declared(audio)
    return frames / rate if rate else 0.0


def own_rate(audio: Audio) -> int | None:
    """Samples per second of a sound by its header, nothing decoded; None for one that cannot be read."""
    return _declared(audio)[1] or None


def _declared(audio: Audio) -> tuple[int, int]:
    """Samples, and samples per second; zeros for what cannot be read."""
    try:
        if audio.array is not None:
            samples, rate = _from_array(audio)
            return len(samples), rate
        with open_stream(audio, audio.where) as stream:
            return _header(stream)
    except (MediaError, OSError, EOFError, RuntimeError, ValueError, TypeError, struct.error, wave.Error):
        return 0, 0


def _header(stream: IO[bytes]) -> tuple[int, int]:
    try:
        import soundfile
    except (ImportError, OSError):
        with wave.open(stream) as plain:
            return plain.getnframes(), plain.getframerate()
    with soundfile.SoundFile(stream) as file:
        return int(file.frames), int(file.samplerate)


def _count(seconds: float | None, rate: int) -> int | None:
    return None if seconds is None else math.ceil(seconds * rate)


def _from_array(audio: Audio) -> tuple[Float[np.ndarray, "S C"], int]:
    samples = np.asarray(audio.array)
    if samples.ndim not in (1, 2) or samples.dtype.kind != "f":
        raise MediaError(
            audio.where, f"an array of {samples.dtype} {list(samples.shape)}; a sound is float [samples] or [channels, samples]"
        )
    if audio.rate is None:
        raise MediaError(audio.where, "an array that does not say its rate")
    return np.atleast_2d(samples).T, audio.rate


def _from_file(audio: Audio, seconds: float | None) -> tuple[Float32[np.ndarray, "S C"], int]:
    try:
        with open_stream(audio, audio.where) as stream:
            head = stream.read(1024)
            if not head:
                raise MediaError(audio.where, "empty file")
            size = stream.seek(0, 2)
            stream.seek(0)
            order = {b"RIFF": "<I", b"FORM": ">I"}.get(head[:4])  # WAV, AIFF: decoders take a shorter file for a shorter sound
            if order and size < struct.unpack(order, head[4:8])[0] + 8 <= _STREAMED:
                raise MediaError(audio.where, "truncated")
            return _decoded(stream, head, audio.where, seconds)
    except (OSError, EOFError, MemoryError, struct.error) as error:
        raise MediaError(audio.where, reason_of(error)) from None


def _decoded(stream: IO[bytes], head: bytes, where: str, seconds: float | None) -> tuple[Float32[np.ndarray, "S C"], int]:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the package is there, its library is not
        return _plain_wav(stream, where, seconds)
    try:
        with soundfile.SoundFile(stream) as file:
            rate = int(file.samplerate)
            most = _count(MAX_SECONDS + 1 if seconds is None else seconds, rate)
            samples = file.read(min(file.frames, most), dtype="float32", always_2d=True)
            if len(samples) < min(file.frames, most):
                raise MediaError(where, "truncated")
            return samples, rate
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        known = head[:4] in (b"RIFF", b"FORM", b"OggS", b"fLaC") or head[:3] == b"ID3"
        said = str(error).rpartition(": ")[2].strip(" .")  # what stands before is our own stream's address
        raise MediaError(where, f"corrupt ({said[:60]})" if known else what_else(head, "sound")) from None


def _plain_wav(stream: IO[bytes], where: str, seconds: float | None) -> tuple[Float32[np.ndarray, "S C"], int]:
    """Whole numbers of 8, 16, 24 or 32 bits, by the standard library alone."""
    try:
        with wave.open(stream) as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            data = file.readframes(min(file.getnframes(), _count(MAX_SECONDS + 1 if seconds is None else seconds, rate) or 0))
    except wave.Error:
        raise MediaError(where, str(MissingExtra("a sound that is no plain WAV", "audio"))) from None
    if width == 1:  # 8 bits alone have no sign
        return (np.frombuffer(data, np.uint8).reshape(-1, channels).astype(np.float32) - 128) / 128, rate
    # The bytes of a sample become the upper ones of 32 bits: every width has the same scale.
    wide = np.zeros((len(data) // width, 4), np.uint8)
    wide[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width)
    return (wide.view("<i4").reshape(-1, channels) / 2.0**31).astype(np.float32), rate


def _resampled(mono: Float32[np.ndarray, "S"], own: int, rate: int, where: str) -> Float32[np.ndarray, "S"]:
    try:
        import soxr
    except ImportError:
        raise MediaError(where, str(MissingExtra(f"bringing a sound from {own} Hz to {rate} Hz", "audio"))) from None
    samples: np.ndarray = soxr.resample(mono, own, rate, quality="HQ")
    return samples


# ---------------------------------------------------------------------------------------------- log-mel


def _log_mel(samples: Float[np.ndarray, "S"], config: AudioProcessing) -> Float32[np.ndarray, "M F"]:
    """Frame f is centred on sample f * hop; the ends are mirrored, and as in Whisper the frame at the very end is left out."""
    window, hop = config.n_fft, config.hop
    if config.pad == "whole" and config.limit is not None:
        # Only frames that reach into the sound are computed: all further ones are silence, which `collate` knows the value of.
        count = min(config.limit // hop, -(-(len(samples) + window // 2) // hop))
        samples = _lengthened(samples, min(config.limit, len(samples) + 2 * window))
    else:
        samples = _lengthened(samples, window)
        count = max(1, len(samples) // hop)
    padded = np.pad(samples.astype(np.float64), window // 2, mode="reflect")
    framed = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:count]
    spectrum = np.fft.rfft(framed * _hann(window))
    energy = mel_filters(config.rate, window, config.bins, config.scale) @ (spectrum.real**2 + spectrum.imag**2).T
    energy = np.maximum(energy, FLOOR)
    if config.norm == "log":
        return np.log(energy).astype(np.float32)
    level = np.log10(energy)
    return ((np.maximum(level, level.max() - 8) + 4) / 4).astype(np.float32)


def _lengthened(samples: Float[np.ndarray, "S"], count: int) -> Float[np.ndarray, "S"]:
    """With silence behind, at least `count` samples."""
    return np.pad(samples, (0, max(0, count - len(samples))))


@cache
def _hann(n: int) -> Float[np.ndarray, "N"]:
    """Periodic: the one whose copies, half a window apart, add up to 1."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)


@cache
def mel_filters(rate: int, n_fft: int, bins: int, scale: Scale) -> Float[np.ndarray, "M K"]:
    """Weights of the transform's frequencies: triangles that rise from the peak before their own and fall to the next one's."""
    frequencies = np.fft.rfftfreq(n_fft, 1 / rate)
    to_mel, to_hertz = {"slaney": (_slaney_mel, _slaney_hertz), "htk": (_htk_mel, _htk_hertz)}[scale]
    peaks = to_hertz(np.linspace(0.0, to_mel(np.array(rate / 2)), bins + 2))
    low, peak, high = peaks[:-2, None], peaks[1:-1, None], peaks[2:, None]
    triangles = np.maximum(0.0, np.minimum((frequencies - low) / (peak - low), (high - frequencies) / (high - peak)))
    return triangles * (2 / (high - low)) if scale == "slaney" else triangles


def _htk_mel(hertz: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return 2595 * np.log10(1 + hertz / 700)


def _htk_hertz(mel: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return 700 * (10 ** (mel / 2595) - 1)


# Slaney's Auditory Toolbox: 200/3 Hz to a mel up to 1 kHz (mel 15), from there 27 mels to a factor of 6.4.
def _slaney_mel(hertz: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.where(hertz < 1000, hertz * 3 / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


def _slaney_hertz(mel: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) * (np.maximum(mel, 15) - 15) / 27))


def canonical_sound(rate: int) -> Float32[np.ndarray, "S"]:
    """Nearly two seconds whose processing tells every setting apart: a rising tone, a hum of many unrelated tones, and a silent end.

    Rounded to 16 bits, so that every machine makes the same one.
    """
    time = np.arange(round(1.83 * rate)) / rate
    chirp = 0.4 * np.sin(2 * np.pi * rate * (0.01 * time + 0.1 * time**2))
    hum = sum(np.sin(2 * np.pi * rate * 0.48 * math.sqrt(p) % rate * time) for p in (0.003, 0.017, 0.059, 0.137, 0.311, 0.613, 0.911))
    sound = np.where(time < 1.5, chirp + 0.05 * hum + 0.03, 0.0)
    return (np.round(sound * 32767) / 32768).astype(np.float32)
