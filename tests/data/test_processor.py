"""The record of a processor that hears and watches: every setting shows, the last digits of a machine do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tonggan.data.audio import AudioProcessing, AudioProcessor
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import train_bpe
from tonggan.data.video import VideoProcessing, VideoProcessor
from tonggan.hub.identity import check, flat
from tonggan.types import Identity, TongganError

VIDEO = VideoProcessing(frames=3, image=ImageProcessing(size=8))
MEL = AudioProcessing(bins=20, seconds=2)
WAVES = AudioProcessing(kind="waveform", normalize="unit", seconds=2)


def hearing(config: AudioProcessing) -> dict[str, Any]:
    return dict(flat(Processor(audio=AudioProcessor(config)).record()))


def test_pictures_and_text_have_the_record_that_they_had() -> None:
    """Models that were saved before sounds and clips came must still be the same."""
    tokenizer = train_bpe(["a red bird"] * 2, 300, max_length=16)
    record = Processor(ImageProcessor(ImageProcessing(size=16)), tokenizer).record()
    assert set(record) == {"image", "text"}
    more = Processor(ImageProcessor(ImageProcessing(size=16)), tokenizer, AudioProcessor(MEL), VideoProcessor(VIDEO)).record()
    assert {kind: more[kind] for kind in record} == record and set(more) == {"image", "text", "audio", "video"}


@pytest.mark.parametrize(
    "change",
    [{"bins": 21}, {"n_fft": 402}, {"hop": 161}, {"scale": "htk"}, {"norm": "log"}, {"rate": 22_050}, {"seconds": 1.5}, {"pad": "whole"}],
    ids=str,
)
def test_settings_of_spectrograms_show(change: dict[str, Any]) -> None:
    plain, other = hearing(MEL), hearing(AudioProcessing(**MEL.model_dump() | change))
    (name,) = change
    assert plain[f"audio.{name}"] != other[f"audio.{name}"]
    assert len(plain["audio.mel"]) == len(other["audio.mel"]) == 64
    if name != "pad":  # what fills a row is no part of the sound
        difference = Identity(plain, "").difference(Identity(other, ""))
        (line,) = (line for line in difference if line.startswith("audio.mel"))
        assert len(line) < 60, "not 64 values"


@pytest.mark.parametrize("change", [{"normalize": "none"}, {"seconds": 1.0}, {"rate": 8_000}], ids=str)
def test_settings_of_waveforms_show(change: dict[str, Any]) -> None:
    plain, other = hearing(WAVES), hearing(AudioProcessing(**WAVES.model_dump() | change))
    assert plain["audio.samples"] != other["audio.samples"]


def test_measured_values_may_differ_in_the_last_digits_only() -> None:
    record = json.loads(json.dumps(hearing(MEL)))
    found = Identity(hearing(MEL), "w")
    near = record | {"audio.mel": [value + 9e-5 for value in record["audio.mel"]]}
    check(found, Identity(near, "w"), "here")
    far = record | {"audio.mel": [*record["audio.mel"][:-1], record["audio.mel"][-1] + 2e-4]}
    for wrong in (far, record | {"audio.mel": record["audio.mel"][:-1]}, record | {"audio.mel": None}, record | {"audio.bins": 21}):
        with pytest.raises(TongganError, match=r"not the model that was saved here.*\n  audio\."):
            check(found, Identity(wrong, "w"), "here")


def test_other_numbers_are_compared_exactly() -> None:
    record = dict(flat(Processor(ImageProcessor(ImageProcessing(size=8))).record()))
    moved = record | {"image.mean": [record["image.mean"][0] + 1e-6, *record["image.mean"][1:]]}
    assert len(Identity(record, "").difference(Identity(moved, ""))) == 1


@pytest.mark.parametrize("audio", [MEL, WAVES], ids=lambda config: config.kind)
def test_saved_and_read_again(tmp_path: Path, audio: AudioProcessing) -> None:
    made = Processor(text=train_bpe(["a red bird"] * 2, 300), audio=AudioProcessor(audio), video=VideoProcessor(VIDEO))
    settings = json.loads(json.dumps(made.save(tmp_path)))
    again = Processor.read(tmp_path, settings)
    assert again.record() == made.record() and again.image is None
    with pytest.raises(TongganError, match=r"processor\.audio: 1 wrong field\s+hopp"):
        Processor.read(tmp_path, {"audio": {"hopp": 3}})
