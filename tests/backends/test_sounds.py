"""Sounds on their way to an endpoint: WAV and MP3 as they are, others converted, and nothing sent where nobody says that it is taken."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from standin import Running
from tonggan.backends.api import Budget, Endpoint, Price, named, presets
from tonggan.backends.api.presets import AudioLimits, Preset
from tonggan.backends.api.sounds import part_of, sniff, sound
from tonggan.types import Audio, MediaError, Message, Part, Text, UsageError, Video

pytest.importorskip("openai", reason="the extra 'api' is not installed")
TONE = np.sin(np.arange(1600) * 0.1).astype(np.float32) * 0.5


@pytest.fixture
def provider() -> Iterator[Running]:
    with Running() as one:
        yield one


def asking(*parts: Part) -> list[list[Message]]:
    return [[Message("user", (Text("what is heard: bell"), *parts))]]


def read(data: bytes) -> tuple[np.ndarray, int]:
    """Samples [samples, channels] of 16 bits, and the rate."""
    with wave.open(io.BytesIO(data)) as file:
        assert file.getsampwidth() == 2
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels()), file.getframerate()


def stored(path: Path) -> Audio:
    path.write_bytes(sound(Audio(array=TONE, rate=16000), AudioLimits()).data)
    return Audio.open(path)


def test_files_travel_as_they_are(tmp_path: Path) -> None:
    file = stored(tmp_path / "a.wav")
    made = sound(file, AudioLimits())
    assert (made.data, made.kind) == ((tmp_path / "a.wav").read_bytes(), "wav")
    for head in (b"ID3\x04" + b"\0" * 20, b"\xff\xfb\x90\x64" + b"\0" * 20):
        assert sound(Audio(data=head), AudioLimits()).kind == "mp3"
    part: Any = part_of(made, AudioLimits())
    assert part["type"] == "input_audio" and base64.b64decode(part["input_audio"]["data"]) == made.data
    as_uri: Any = part_of(made, AudioLimits(data_uris=True))
    assert as_uri["input_audio"]["data"].startswith("data:;base64,UklGR") and as_uri["input_audio"]["format"] == "wav"


@pytest.mark.parametrize("data", [b"\xff\xd8\xff\xe0JFIF", b"RIFF\0\0\0\0WEBP", b"OggS\0", b"fLaC", b"", b"\xff\xf1\x50\x80", b"<html>"])
def test_what_is_neither_wav_nor_mp3_is_not_taken_for_one(data: bytes) -> None:
    assert sniff(data) is None


def test_arrays_become_wav() -> None:
    samples, rate = read(sound(Audio(array=np.stack([TONE, -TONE]), rate=8000), AudioLimits(formats=("mp3",))).data)
    assert rate == 8000 and samples.shape == (1600, 2)
    np.testing.assert_allclose(samples[:, 0] / 32767, TONE, atol=1e-4)
    np.testing.assert_array_equal(samples[:, 0], -samples[:, 1])
    loud, _ = read(sound(Audio(array=np.array([2.0, -2.0]), rate=8000), AudioLimits()).data)
    np.testing.assert_array_equal(loud[:, 0], [32767, -32767])  # clipped, not wrapped around


@pytest.mark.parametrize(
    "broken", [Audio(array=TONE), Audio(array=TONE[:0], rate=8000), Audio(array=np.full(5, np.nan), rate=8), Audio(data=b"")]
)
def test_what_is_no_sound_is_said(broken: Audio) -> None:
    with pytest.raises(MediaError):
        sound(broken, AudioLimits())


def test_other_files_are_converted(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="the extra 'audio' is not installed")
    for name in ("a.flac", "a.ogg", "a.mp3"):
        soundfile.write(tmp_path / name, np.stack([TONE, TONE], axis=1), 16000)
        made = sound(Audio.open(tmp_path / name), AudioLimits(formats=("wav",)))
        samples, rate = read(made.data)
        assert (made.kind, rate, samples.shape[1]) == ("wav", 16000, 2)
        heard = samples[: len(TONE), 0] / 32767
        assert np.abs(heard[200:1400] - TONE[200:1400]).max() < (1e-4 if name == "a.flac" else 0.1), name
    with pytest.raises(MediaError, match="not a sound that can be read"):
        sound(Audio(data=b"<html>404</html>"), AudioLimits())


def test_without_the_extra_the_way_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(MediaError, match=r"neither WAV nor MP3 needs .*tonggan\[audio\]"):
        sound(Audio(data=b"OggS" + b"\0" * 50), AudioLimits())


def test_sounds_arrive(provider: Running, tmp_path: Path) -> None:
    found = named(f"openai+{provider.url}#tiny")
    assert found is not None
    model = Endpoint("own", *found)
    assert model.modalities == {"text", "image", "audio"}, "what is not known is tried on a server of one's own"
    (answer,) = model.chat(asking(stored(tmp_path / "a.wav")))
    assert answer.text == "bell"
    (heard,) = provider.counts()["sounds"]
    assert heard["format"] == "wav" and base64.b64decode(heard["data"]) == (tmp_path / "a.wav").read_bytes()
    told = model.preview(asking(Audio(array=TONE, rate=16000)))
    assert (told.sounds, told.input_tokens) == (1, None) and told.bytes > 1600 * 2 * 4 // 3


def test_nothing_is_sent_where_nobody_says_that_sounds_are_taken(provider: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DASHSCOPE_API_KEY", "ZHIPUAI_API_KEY"):
        monkeypatch.setenv(name, "sk-0123456789abcdef")

    def model(name: str, model: str) -> Endpoint:
        return Endpoint(f"{name}:{model}", name, presets()[name].model_copy(update={"base_url": provider.url}), model)

    unknown, deaf, omni = model("zhipu", "glm-4.5v"), model("dashscope", "qwen-vl-max"), model("dashscope", "qwen3-omni-flash")
    note = Audio(array=TONE, rate=16000)
    (answer,) = unknown.chat(asking(note))
    assert answer.outcome == "error" and "whether zhipu:glm-4.5v takes sounds is not known" in str(answer.error)
    (answer,) = deaf.chat(asking(note))
    assert answer.outcome == "error" and answer.error == "dashscope:qwen-vl-max takes no sounds"
    (answer,) = unknown.chat(asking(Video(data=b"clip")))
    assert "video is not sent to endpoints yet" in str(answer.error)
    assert not provider.counts()["seen"]
    assert ["audio" in one.modalities for one in (unknown, deaf, omni)] == [False, False, True]
    (answer,) = omni.chat(asking(note))
    assert answer.text == "bell" and provider.counts()["sounds"][0]["data"].startswith("data:;base64,")
    assert deaf.preview(asking(note)).unsent == 1


def test_sounds_under_a_budget_in_money_are_refused_before_anything_is_sent(provider: Running) -> None:
    found = named(f"openai+{provider.url}#tiny")
    assert found is not None
    price = Price(input=1, output=1, currency="CNY", picture_tokens=100)
    model = Endpoint("own", *found, budget=Budget(money=5.0, currency="CNY"), price=price)
    with pytest.raises(UsageError, match="of sounds nobody says it"):
        model.chat([*asking(), *asking(Audio(array=TONE, rate=16000))])
    assert not provider.counts()["seen"]


def test_patterns_are_of_the_whole_name() -> None:
    preset = Preset.parse(
        {"title": {"en": "x", "zh": "x"}, "base_url": "http://x", "keys": [], "audio": {"input_audio": True, "models": ["*omni*"]}}
    )
    assert preset.listens("Qwen3-Omni-Flash") is True and preset.listens("qwen-vl-max") is False
