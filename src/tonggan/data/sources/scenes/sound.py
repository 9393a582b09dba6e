"""What a scene sounds like: a tone for each thing, in an order or at its time; and captions read aloud where `espeak-ng` is installed.

| of a thing | of its tone |
|---|---|
| colour | pitch: `PITCHES`, a pentatonic scale of ten notes from 220 to 784 Hz |
| shape | timbre: `TIMBRES`, nine waveforms |
| size | length and loudness: `LENGTHS` in seconds, `LEVELS` as root mean square of full scale |

Shape letters: S samples, at 16,000 a second.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
from jaxtyping import Float32

from tonggan.data.sources.scenes.events import Film
from tonggan.data.sources.scenes.motion import FPS, FRAMES
from tonggan.data.sources.scenes.words import Look
from tonggan.data.sources.scenes.world import COLORS, Scene, Size
from tonggan.types import Audio, TongganError

RATE = 16_000
GAP = 0.1
"""Seconds of silence after each tone of an order."""
LENGTHS: dict[Size, float] = {"small": 0.2, "large": 0.4}
LEVELS: dict[Size, float] = {"small": 0.04, "large": 0.12}
PITCHES: dict[str, float] = dict(
    zip(COLORS, (round(220 * 2 ** (step / 12), 2) for step in (0, 3, 5, 7, 10, 12, 15, 17, 19, 22)), strict=True)
)
"""Hertz."""
VOICES = {"en": "en-us", "zh": "cmn-latn-pinyin"}
"""Of `espeak-ng`. Its plain Mandarin voice spells out most characters as English letters (1.51): its dictionary writes them in Pinyin,
which that voice takes for English."""
_RAMP = 0.01

Samples = Float32[np.ndarray, "S"]


def sound_of(scene: Scene) -> Samples:
    """The tones of all things of a scene, one after another, from left to right."""
    return in_order([thing.look for thing in sorted(scene.things, key=lambda thing: (thing.x, thing.y))])


def sound_of_film(film: Film) -> Samples:
    """The tone of each thing that does something, when it begins: mixed, and as long as the clip or its last tone."""
    first: dict[int, int] = {}
    for event in film.events:
        first.setdefault(event.who, event.start)
    return mixed(((film.things[who].look, frame / FPS) for who, frame in first.items()), FRAMES / FPS)


def in_order(looks: Sequence[Look]) -> Samples:
    """Tones one after another, each followed by `GAP` seconds of silence."""
    silence = np.zeros(round(GAP * RATE), np.float32)
    return np.concatenate([part for look in looks for part in (tone(look), silence)])


def mixed(timed: Iterable[tuple[Look, float]], seconds: float) -> Samples:
    """Tones, each from its time (seconds) on, over one another; at least `seconds` long."""
    placed = [(tone(look), round(start * RATE)) for look, start in timed]
    whole = np.zeros(max(round(seconds * RATE), *(start + len(one) for one, start in placed)), np.float32)
    for one, start in placed:
        whole[start : start + len(one)] += one
    return whole


@cache
def tone(look: Look) -> Samples:
    """The tone of a thing."""
    size, color, shape = look
    t = np.arange(round(LENGTHS[size] * RATE)) / RATE
    wave_ = TIMBRES[shape](2 * np.pi * PITCHES[color] * t, t / LENGTHS[size])
    wave_ *= np.minimum(1, np.minimum(t, t[::-1]) / _RAMP)
    samples: Samples = (wave_ * (LEVELS[size] / np.sqrt(np.mean(wave_**2)))).astype(np.float32)
    return samples


# ---------------------------------------------------------------------------------------------- timbres
# Of the phase of the fundamental, and of the time from 0 to 1.


def _harmonics(phase: np.ndarray, weights: dict[float, float]) -> np.ndarray:
    return np.sum([weight * np.sin(k * phase) for k, weight in weights.items()], axis=0)


TIMBRES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda phase, t: np.sin(phase),  # pure
    "square": lambda phase, t: _harmonics(phase, {k: 1 / k for k in (1, 3, 5, 7, 9)}),  # hollow, as a square wave
    "triangle": lambda phase, t: _harmonics(phase, {k: 1 / k for k in range(1, 9)}),  # bright, as a sawtooth
    "diamond": lambda phase, t: _harmonics(phase, {1: 1, 2: 1}),  # with its octave
    "star": lambda phase, t: _harmonics(phase, {1: 1, 2.76: 0.8, 5.4: 0.5}) * np.exp(-3 * t),  # a bell
    "heart": lambda phase, t: np.sin(phase) * np.clip(4 * np.abs(t - 0.45) - 0.2, 0, 1),  # two beats
    "cross": lambda phase, t: _harmonics(phase, {1: 1, 1.5: 1}),  # with its fifth
    "ring": lambda phase, t: _harmonics(phase, {k: 1 / k for k in range(1, 7)}) * np.exp(-5 * t),  # plucked
    "moon": lambda phase, t: np.sin(phase + 4 * np.sin(6 * np.pi * t)),  # trembling: three waves of vibrato
}


# ----------------------------------------------------------------------------------------------- speech


def can_speak() -> bool:
    """Whether `espeak-ng` is on this machine."""
    return shutil.which("espeak-ng") is not None


def speak(text: str, lang: str) -> Audio:
    """The text read aloud, `en` or `zh`, as a WAV file of 22,050 samples a second. Raises `TongganError` where there is no `espeak-ng`."""
    if not can_speak():
        raise TongganError(
            "what is spoken is made by espeak-ng, which is not on this machine: install it "
            "(apt install espeak-ng, brew install espeak-ng), or leave `spoken` out"
        )
    call = ["espeak-ng", "-b", "1", "-v", VOICES[lang], "--stdout", "--", text]  # -b 1: the text is UTF-8, whatever the locale
    done = subprocess.run(call, capture_output=True, check=False)
    if done.returncode or not done.stdout.startswith(b"RIFF"):
        raise TongganError(
            f"espeak-ng could not say {text!r} with the voice {VOICES[lang]}: {done.stderr.decode(errors='replace').strip()}"
        )
    rate = int.from_bytes(done.stdout[24:28], "little")
    return Audio(data=_wav(done.stdout[44:], rate), rate=rate)  # written anew: a stream's header does not know its length


def encode_wav(samples: Samples) -> bytes:
    """A WAV file of 16 bits."""
    return _wav(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes(), RATE)


def _wav(data: bytes, rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(data)
    return buffer.getvalue()
