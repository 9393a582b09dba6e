"""Sounds: decoded, resampled and prepared as the libraries that published models were trained with do it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from sounds import sound_file, tones
from tonggan.config import ConfigError
from tonggan.data.audio import MAX_SECONDS, AudioProcessing, AudioProcessor, canonical_sound, load_audio, mel_filters
from tonggan.types import Audio, MediaError

SOUNDS: dict[str, np.ndarray] = {
    "tones": tones(47_777),
    "one tone": 0.5 * np.sin(np.arange(20_123) * 0.3),
    "short": tones(133),
    "one sample": np.array([0.25]),
    "silence": np.zeros(9_001),
    "clicks": np.eye(1, 30_001, 15_000)[0],
    "just whole": tones(480_000 - 77),
    "too long": tones(480_321),
}


# --------------------------------------------------------------------------------------- as references do


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("bins", [80, 128])
def test_log_mel_is_whispers(name: str, bins: int) -> None:
    """Thirty seconds, of which most is silence."""
    given = SOUNDS[name].astype(np.float32)
    theirs = WhisperFeatureExtractor(feature_size=bins)(given, sampling_rate=16_000, return_tensors="np")["input_features"][0]
    process = AudioProcessor(AudioProcessing(bins=bins, pad="whole"))
    batch = process.collate([process(given)])
    assert batch.values.shape == (1, bins, 3000)
    assert np.abs(batch.values[0].numpy() - theirs).max() < 1e-4


@pytest.mark.parametrize("name", ["tones", "one tone", "silence", "just whole"])
def test_log_mel_of_a_sound_alone(name: str) -> None:
    given = SOUNDS[name].astype(np.float32)
    theirs = WhisperFeatureExtractor()(given, sampling_rate=16_000, padding=False, return_tensors="np")["input_features"][0]
    mine = AudioProcessor(AudioProcessing())(given)
    assert mine.shape == theirs.shape and np.abs(mine - theirs).max() < 1e-4


def test_other_windows() -> None:
    given = tones(30_011)
    theirs = WhisperFeatureExtractor(feature_size=37, n_fft=510, hop_length=177, chunk_length=3)
    expected = theirs(given, sampling_rate=16_000, return_tensors="np")["input_features"][0]
    process = AudioProcessor(AudioProcessing(bins=37, n_fft=510, hop=177, seconds=3, pad="whole"))
    assert np.abs(process.collate([process(given)]).values[0].numpy() - expected).max() < 1e-4


def test_a_batch_of_waveforms_is_wav2vecs() -> None:
    given = [tones(5_003), 0.3 + tones(777, 1), np.zeros(90, np.float32), tones(1, 2)]
    theirs = Wav2Vec2FeatureExtractor(return_attention_mask=True)(given, sampling_rate=16_000, padding=True, return_tensors="np")
    process = AudioProcessor(AudioProcessing(kind="waveform", normalize="unit"))
    batch = process.collate([process(one) for one in given])
    expected = theirs["input_values"]
    assert np.abs(batch.values.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()
    assert batch.lengths.tolist() == theirs["attention_mask"].sum(-1).tolist() == [5_003, 777, 90, 1]


def test_filters_of_the_other_scale() -> None:
    """Triangles of height 1 whose peaks are evenly spaced on the mel scale of HTK."""
    weights = mel_filters(16_000, 512, 23, "htk")
    frequencies = np.fft.rfftfreq(512, 1 / 16_000)
    mels = 2595 * np.log10(1 + frequencies / 700)
    peaks = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 25)[1:-1]
    for row, peak in zip(weights, peaks, strict=True):
        assert 0.5 < row.max() <= 1 and abs(mels[row.argmax()] - peak) <= np.diff(mels).max()
    assert np.allclose(weights[:, 15:200].sum(0), 1), "between the first peak and the last, two neighbours share each frequency"


# ------------------------------------------------------------------------------------------- batches


def test_lengths_say_where_sounds_end() -> None:
    waves = AudioProcessor(AudioProcessing(kind="waveform", seconds=1, pad="whole"))
    batch = waves.collate([waves(tones(100)), waves(tones(20_000))])
    assert batch.values.shape == (2, 16_000) and batch.lengths.tolist() == [100, 16_000]
    assert not batch.values[0, 100:].any() and batch.values[0, :100].any()
    mels = AudioProcessor(AudioProcessing(bins=8, n_fft=400, hop=160, pad="batch"))
    some = mels.collate([mels(tones(1_600)), mels(tones(4_000))])
    assert some.values.shape == (2, 8, 25) and some.lengths.tolist() == [10, 25]
    assert not some.values[0, :, 10:].any()


def test_the_other_logarithm_is_of_the_same_energies() -> None:
    given = tones(8_000)
    plain = AudioProcessor(AudioProcessing(norm="log"))(given)
    whisper = AudioProcessor(AudioProcessing())(given)
    assert np.abs((np.maximum(plain / np.log(10), plain.max() / np.log(10) - 8) + 4) / 4 - whisper).max() < 1e-5
    padded = AudioProcessor(AudioProcessing(norm="log", pad="whole", seconds=2))
    assert padded.collate([padded(given)]).values[0, :, -1].tolist() == pytest.approx([np.log(1e-10)] * 80)


def test_what_is_too_short_for_the_tower_is_refused_and_the_least_is_said() -> None:
    process = AudioProcessor(AudioProcessing(kind="waveform"), shortest=400)
    assert process(tones(400)).shape == (400,)
    with pytest.raises(MediaError, match=r"0\.02494 s is too short: the model hears no less than 0\.025 s \(400 samples\)"):
        process(tones(399))
    with pytest.raises(MediaError, match="too short"):  # counted at the model's rate, not at the file's
        process(Audio(data=sound_file(tones(700, rate=32_000), 32_000)))


def test_a_spectrogram_of_less_than_one_window_is_that_of_silence_behind_it() -> None:
    process = AudioProcessor(AudioProcessing())
    short = tones(133)
    assert np.array_equal(process(short), process(np.pad(short, (0, 267))))


def test_what_is_too_long_is_cut_and_said() -> None:
    process = AudioProcessor(AudioProcessing(kind="waveform", seconds=0.5))
    for samples, cut in ((8_000, False), (8_001, True)):
        whole = tones(samples)
        found, said = process.open(Audio(data=sound_file(whole, subtype="FLOAT")))
        assert said is cut and np.array_equal(found, whole[:8_000])


def test_a_cut_changes_nothing_before_it() -> None:
    """Only the beginning is decoded; the resampler must not notice."""
    file = Audio(data=sound_file(tones(88_200, rate=44_100), 44_100))
    whole = load_audio(file, 16_000)
    found, cut = AudioProcessor(AudioProcessing(kind="waveform", seconds=0.5)).open(file)
    assert cut and np.abs(found - whole[:8_000]).max() < 1e-6


# ------------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize(
    ("format", "subtype", "tolerance"),
    [("WAV", "PCM_16", 1e-4), ("WAV", "PCM_24", 1e-6), ("WAV", "FLOAT", 0.0), ("WAV", "PCM_U8", 0.01), ("FLAC", "PCM_16", 1e-4),
     ("OGG", "VORBIS", 0.1), ("MP3", "MPEG_LAYER_III", 0.1)],
)  # fmt: skip
def test_formats_are_decoded(tmp_path: Path, format: str, subtype: str, tolerance: float) -> None:
    time = np.arange(16_000) / 16_000
    wave = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    path = tmp_path / "sound.bin"
    path.write_bytes(sound_file(np.stack([wave, wave / 2], 1), format=format, subtype=subtype))
    for handle in (Audio.open(path), Audio(data=path.read_bytes())):
        found = load_audio(handle, 16_000)
        assert found.dtype == np.float32 and found.shape == wave.shape
        assert np.abs(found - 0.75 * wave)[500:-500].max() <= tolerance, "the mean of both channels"


def test_a_sound_is_resampled() -> None:
    """A tone stays the same tone; what lies above half the new rate is gone."""
    time = np.arange(44_100) / 44_100
    low, high = (np.sin(2 * np.pi * f * time).astype(np.float32) for f in (440, 9_000))
    found = load_audio(Audio(array=low, rate=44_100), 16_000)
    assert abs(len(found) - 16_000) <= 1
    expected = np.sin(2 * np.pi * 440 * np.arange(len(found)) / 16_000)
    assert np.abs(found - expected)[800:-800].max() < 1e-3
    assert np.abs(load_audio(Audio(array=high, rate=44_100), 16_000))[800:-800].max() < 1e-3


def test_arrays_of_several_channels() -> None:
    one, two = tones(900), tones(900, 1)
    assert np.array_equal(load_audio(Audio(array=np.stack([one, two]), rate=16_000), 16_000), np.stack([one, two]).mean(0))


def test_damage_is_a_clause(tmp_path: Path) -> None:
    wav, flac = sound_file(tones(9_000)), sound_file(tones(9_000), format="FLAC")
    nothing = np.zeros((0,), np.float32)
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    cases: list[tuple[Audio, str]] = [
        (Audio(path=tmp_path / "none.wav"), "no such file"),
        (Audio(path=empty), "empty file"),
        (Audio(data=wav[: len(wav) // 2]), "truncated"),
        (Audio(data=sound_file(tones(9_000), format="AIFF")[:5_000]), "truncated"),
        (Audio(data=flac[: len(flac) // 2]), "corrupt"),
        (Audio(data=b"<!DOCTYPE html><title>404</title>"), "a web page, not a sound"),
        (Audio(data=b"version https://git-lfs.github.com/spec/v1"), "a Git LFS pointer, not a sound"),
        (Audio(data=bytes(5_000)), "a file of zeros, not a sound"),
        (Audio(data=b"RIFF\x24\x00\x00\x00WAVEjunk" + bytes(40)), "corrupt"),
        (Audio(data=sound_file(nothing)), "has no samples"),
        (Audio(array=nothing, rate=16_000), "has no samples"),
        (Audio(array=np.array([0.0, np.nan], np.float32), rate=16_000), "no numbers"),
        (Audio(data=sound_file(np.array([0.0, np.inf], np.float32), subtype="FLOAT")), "no numbers"),
        (Audio(array=np.zeros(9, np.int16), rate=16_000), "an array of int16"),
        (Audio(array=np.zeros(9, np.float32)), "does not say its rate"),
        (Audio(array=np.zeros(MAX_SECONDS * 10 + 1, np.float32), rate=10), "longer than 60 minutes"),
        (Audio(url="https://host.example/a.wav"), "on the network"),
    ]
    for handle, clause in cases:
        with pytest.raises(MediaError) as caught:
            load_audio(handle, 16_000)
        assert clause in caught.value.reason, (clause, caught.value.reason)
        assert "0x" not in caught.value.reason and len(caught.value.reason) < 120


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "PCM_U8"])
def test_plain_wav_without_the_extra(monkeypatch: pytest.MonkeyPatch, subtype: str) -> None:
    data = sound_file(np.stack([tones(900), tones(900, 1)], 1), subtype=subtype)
    with_extra = load_audio(Audio(data=data), 16_000)
    for name in ("soundfile", "soxr"):
        monkeypatch.setitem(sys.modules, name, None)
    assert np.abs(load_audio(Audio(data=data), 16_000) - with_extra).max() < 1e-7
    for handle, rate in ((Audio(data=data), 8_000), (Audio(data=b"fLaC" + bytes(99)), 16_000)):
        with pytest.raises(MediaError, match=r"pip install 'tonggan\[audio\]'"):
            load_audio(handle, rate)


# ------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "waveform", "bins": 3}, "kind waveform has no bins"),
        ({"normalize": "unit"}, "kind log_mel has no normalize"),
        ({"pad": "whole", "seconds": None}, "set seconds"),
        ({"seconds": 0.001}, "shorter than one window"),
        ({"hop": 0}, "hop"),
        ({"scale": "mel"}, "scale"),
    ],
    ids=str,
)
def test_settings_without_sense_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        AudioProcessing.parse(wrong)


def test_the_canonical_sound_is_sixteen_bits_of_nearly_two_seconds() -> None:
    made = canonical_sound(16_000)
    assert np.array_equal(made, np.round(made * 32768) / 32768) and np.abs(made).max() < 1
    assert len(made) == 29_280 and not made[24_000:].any()
