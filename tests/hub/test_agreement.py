"""A processor that hears or watches otherwise than the model does is refused, and both numbers are named."""

from __future__ import annotations

from typing import Any

import pytest

from tonggan.data.audio import AudioProcessing, AudioProcessor
from tonggan.data.images import ImageProcessing
from tonggan.data.processor import Processor
from tonggan.data.video import VideoProcessing, VideoProcessor
from tonggan.hub.families import agree
from tonggan.models import DualEncoderConfig
from tonggan.models.towers import AudioTowerConfig, FramesConfig, LogMelConfig, TubeletConfig, VideoTowerConfig, ViTConfig, WaveformConfig
from tonggan.types import TongganError

PLAIN = (0.5, 0.5, 0.5)
VIT = ViTConfig(image_size=16, patch_size=8, width=18, layers=1, heads=3, mlp_width=20, mean=PLAIN, std=PLAIN)
TUBELETS = TubeletConfig(image_size=16, patch_size=8, frames=6, width=18, layers=1, heads=3, mlp_width=20, mean=PLAIN, std=PLAIN)
FRAMES = FramesConfig(image=VIT, frames=6)
LOG_MEL = LogMelConfig(bins=11, context=50, width=18, layers=1, heads=3, mlp_width=20)
SEEN = LOG_MEL.model_copy(update={"padding": "seen"})
WAVEFORM = WaveformConfig(width=18, layers=1, heads=3, mlp_width=20, position_groups=3)
PICTURES = ImageProcessing(size=16, mean=PLAIN, std=PLAIN)


def refusal(config: DualEncoderConfig, processor: Processor) -> str:
    """What is said; nothing when the two fit."""
    try:
        agree(config, processor, "here")
    except TongganError as error:
        return str(error)
    return ""


def hears(tower: AudioTowerConfig, **settings: Any) -> str:
    config = DualEncoderConfig(audio=tower, image=VIT, dim=7)
    return refusal(config, Processor(None, None, AudioProcessor(AudioProcessing(**settings)), None))


def watches(tower: VideoTowerConfig, frames: int = 6, **settings: Any) -> str:
    config = DualEncoderConfig(video=tower, image=VIT, dim=7)
    made = VideoProcessing(frames=frames, image=PICTURES.model_copy(update=settings))
    return refusal(config, Processor(None, None, None, VideoProcessor(made)))


@pytest.mark.parametrize(
    ("tower", "settings", "says", "remedy"),
    [
        (LOG_MEL, {"kind": "waveform"}, "sound kind: waveform by the processor, log_mel by the model", "'s to log_mel)"),
        (WAVEFORM, {"bins": 11}, "sound kind: log_mel by the processor, waveform by the model", "'s to waveform)"),
        (LOG_MEL, {"bins": 13, "seconds": 1}, "sound bins: 13 by the processor, 11 by the model", "'s to 11)"),
        (LOG_MEL, {"bins": 11, "seconds": 1.01}, "sound length: up to 101 frames by the processor, 100 by the model", "seconds to 1)"),
        (
            LOG_MEL,
            {"bins": 11, "seconds": 1, "hop": 80},
            "sound length: up to 200 frames by the processor, 100 by the model",
            "seconds to 0.5)",
        ),
        (LOG_MEL, {"bins": 11, "seconds": None}, "sound length: any number of frames by the processor, 100 by", "seconds to 1)"),
        (
            SEEN,
            {"bins": 11, "seconds": 1},
            "sound padding: pad batch to 100 frames by the processor, always 100 by",
            "pad to whole and seconds to 1)",
        ),
        (SEEN, {"bins": 11, "seconds": 0.5, "pad": "whole"}, "sound padding: pad whole to 50 frames by the", "and seconds to 1)"),
    ],
)
def test_sounds(tower: AudioTowerConfig, settings: dict[str, Any], says: str, remedy: str) -> None:
    said = refusal_of_one_thing(hears(tower, **settings))
    assert said.startswith(says) and said.endswith(remedy)


@pytest.mark.parametrize(
    ("tower", "settings"),
    [
        (LOG_MEL, {"bins": 11, "seconds": 1}),
        (LOG_MEL, {"bins": 11, "seconds": 0.5}),
        (SEEN, {"bins": 11, "seconds": 1, "pad": "whole"}),
        (WAVEFORM, {"kind": "waveform", "seconds": None}),
    ],
)
def test_sounds_that_fit(tower: AudioTowerConfig, settings: dict[str, Any]) -> None:
    assert hears(tower, **settings) == ""


@pytest.mark.parametrize("tower", [TUBELETS, FRAMES], ids=["tubelets", "frames"])
def test_clips(tower: VideoTowerConfig) -> None:
    assert watches(tower) == ""
    assert refusal_of_one_thing(watches(tower, 7)) == "video frames: 7 by the processor, 6 by the model (set the processor's to 6)"
    assert refusal_of_one_thing(watches(tower, size=24)) == "video size: 24 by the processor, 16 by the model (set the processor's to 16)"
    for name in ("mean", "std"):
        said = refusal_of_one_thing(watches(tower, **{name: (0.5, 0.5, 0.4)}))
        assert said.startswith(f"video {name}: (0.5, 0.5, 0.4) by the processor, (0.5, 0.5, 0.5) by the model (set the")


def test_fewer_frames_are_enough_where_each_is_a_picture() -> None:
    assert watches(FRAMES, 4) == ""
    assert refusal_of_one_thing(watches(TUBELETS, 4)) == "video frames: 4 by the processor, 6 by the model (set the processor's to 6)"


def refusal_of_one_thing(said: str) -> str:
    """The one difference that is named."""
    head, found, told = said.partition("here: processor and model do not fit: ")
    assert found and not head and "; " not in told, said
    return told
