"""A tiny model that sees, reads, hears and watches, as a saved directory, with random weights; and files of sounds and clips."""

from __future__ import annotations

from pathlib import Path

import torch

from sounds import frames, sound_file, tones, video_file
from tonggan import hub, models
from tonggan.data.audio import AudioProcessing, AudioProcessor
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import train_bpe
from tonggan.data.video import VideoProcessing, VideoProcessor
from tonggan.models import DualEncoderConfig
from tonggan.models.towers import FramesConfig, LogMelConfig, TransformerTextConfig, ViTConfig
from tonggan.tensors import Modality
from tonggan.types import Audio, Row, Text, Video

PLAIN = (0.5, 0.5, 0.5)
VIT = ViTConfig(image_size=16, patch_size=8, width=18, layers=1, heads=3, mlp_width=20, mean=PLAIN, std=PLAIN)
PICTURES = ImageProcessing(size=16, mean=PLAIN, std=PLAIN)


def model_of(where: Path, *kinds: Modality) -> Path:
    """A model that embeds these kinds of input, 7 numbers each."""
    torch.manual_seed(0)
    towers = {
        "image": VIT,
        "text": TransformerTextConfig(vocab_size=400, context=16, width=20, layers=1, heads=2, mlp_width=24),
        "audio": LogMelConfig(bins=11, context=50, width=20, layers=1, heads=2, mlp_width=24),
        "video": FramesConfig(image=VIT, frames=3),
    }
    processor = Processor(
        ImageProcessor(PICTURES) if "image" in kinds else None,
        train_bpe(["a red bird"] * 2, 320, max_length=16) if "text" in kinds else None,
        AudioProcessor(AudioProcessing(bins=11, seconds=1)) if "audio" in kinds else None,
        VideoProcessor(VideoProcessing(frames=3, image=PICTURES)) if "video" in kinds else None,
    )
    config = DualEncoderConfig(**{kind: towers[kind] for kind in kinds}, dim=7)
    hub.save(where, models.build(config).eval(), config, processor)
    return where


def sound_rows(folder: Path, count: int = 4) -> list[Row]:
    """Sounds that differ in their tones, as files."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        (folder / f"s{i}.wav").write_bytes(sound_file(tones(3_000 + 500 * i, i)))
    return [Row(id=f"s{i}", audios=(Audio.open(folder / f"s{i}.wav"),), texts=(Text(f"sound {i}", "en"),)) for i in range(count)]


def clip_rows(folder: Path, count: int = 3) -> list[Row]:
    """Clips of one frame's brightness to another's, each of another length and shape, as files."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        (folder / f"c{i}.mp4").write_bytes(video_file(frames(4 + 3 * i, 32 + 32 * i, 64)[:: (-1) ** i]))
    return [Row(id=f"c{i}", videos=(Video.open(folder / f"c{i}.mp4"),), texts=(Text(f"clip {i}", "en"),)) for i in range(count)]
