"""A model of ours that hears and watches, from a saved directory: order, batches of like length, cuts, and items that cannot be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tonggan
from sounds import frames, sound, sound_file, tones, video_file
from tonggan import hub, models
from tonggan.backends.local import LocalModel
from tonggan.data.audio import AudioProcessing, AudioProcessor
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import train_bpe
from tonggan.data.video import VideoProcessing, VideoProcessor
from tonggan.hub import Checkpoint
from tonggan.models import Data2VecConfig, DualEncoderConfig, SingleStreamConfig
from tonggan.models.towers import FramesConfig, LogMelConfig, TransformerTextConfig, ViTConfig, WaveformConfig
from tonggan.nn.transformer import Trace
from tonggan.types import Audio, CannotError, EmbedOptions, Identity, Image, Text, TongganError, Video

PLAIN = (0.5, 0.5, 0.5)
VIT = ViTConfig(image_size=16, patch_size=8, width=18, layers=1, heads=3, mlp_width=20, mean=PLAIN, std=PLAIN)
IMAGE = ImageProcessing(size=16, mean=PLAIN, std=PLAIN)
TEXT = TransformerTextConfig(vocab_size=400, context=16, width=20, layers=1, heads=2, mlp_width=24)
LOG_MEL = LogMelConfig(bins=11, context=50, width=20, layers=1, heads=2, mlp_width=24)
WAVEFORM = WaveformConfig(
    channels=(9, 9), kernels=(10, 4), strides=(5, 4), width=18, layers=1, heads=3, mlp_width=20, position_layers=2, position_kernel=3,
    position_groups=3,
)  # fmt: skip


def made(audio: LogMelConfig | WaveformConfig, heard: AudioProcessing) -> tuple[torch.nn.Module, DualEncoderConfig, Processor]:
    torch.manual_seed(0)
    config = DualEncoderConfig(image=VIT, text=TEXT, audio=audio, video=FramesConfig(image=VIT, frames=3), dim=7)
    tokenizer = train_bpe(["a red bird"] * 2, 320, max_length=16)
    processor = Processor(ImageProcessor(IMAGE), tokenizer, AudioProcessor(heard), VideoProcessor(VideoProcessing(frames=3, image=IMAGE)))
    return models.build(config).eval(), config, processor


@pytest.fixture(scope="module", params=["log_mel", "waveform"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    where = tmp_path_factory.mktemp("model")
    if request.param == "log_mel":
        hub.save(where, *made(LOG_MEL, AudioProcessing(bins=11, seconds=1)))
    else:
        hub.save(where, *made(WAVEFORM, AudioProcessing(kind="waveform", normalize="unit", seconds=1)))
    loaded = tonggan.load(str(where))
    assert isinstance(loaded, LocalModel)
    return loaded


def items() -> list[Any]:
    """Every kind among every other, lengths mixed, some damaged, some too long."""
    picture = Image(array=np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8))
    return [
        sound(5_000),
        Video(array=frames(7)),
        "a red bird",
        sound(900, 1),
        picture,
        Audio(data=b"nothing of the kind"),
        sound(16_400, 2),
        Video(data=video_file(frames(9))),
        Video(data=b"nothing of the kind"),
        Audio(array=tones(8_000, 3, rate=8_000), rate=8_000),
        Text("a bird"),
        sound(3_000, 4),
    ]


def test_every_item_is_what_it_is_alone(model: LocalModel) -> None:
    given = items()
    together = model.embed(given, EmbedOptions(batch_size=4))
    assert sorted(together.errors) == [5, 8] and together.truncated == (6,)
    assert together.errors[5] == "not a sound that can be read" and together.errors[8] == "not a clip that can be read"
    for i, item in enumerate(given):
        alone = model.embed([item])
        assert np.abs(alone.vectors[0] - together.vectors[i]).max() <= 1e-5, i
        assert np.linalg.norm(together.vectors[i]) == pytest.approx(0 if i in (5, 8) else 1, abs=1e-5)


def test_a_cut_sound_is_its_beginning(model: LocalModel) -> None:
    whole = tones(30_000)
    long, start = (model.embed([Audio(data=sound_file(wave, subtype="FLOAT"))]) for wave in (whole, whole[:16_000]))
    assert long.truncated == (0,) and start.truncated == ()
    assert np.array_equal(long.vectors, start.vectors)


def test_a_sound_shorter_than_one_frame_is_the_same_alone_and_in_a_batch(model: LocalModel) -> None:
    """A waveform's tower takes 25 samples for a frame, a spectrogram has one of any sound."""
    given = [sound(24), sound(900, 1), sound(25, 2)]
    together = model.embed(given)
    refused = model.config.audio.kind == "waveform"  # type: ignore[union-attr]
    assert sorted(together.errors) == ([0] if refused else [])
    for i, item in enumerate(given):
        alone = model.embed([item])
        assert alone.errors.get(0) == together.errors.get(i)
        assert np.abs(alone.vectors[0] - together.vectors[i]).max() <= 1e-5
    if refused:
        assert together.errors[0] == "0.0015 s is too short: the model hears no less than 0.001563 s (25 samples)"


def test_sounds_of_like_length_share_a_batch(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[list[int]] = []
    collate = model.processor.audio.collate  # type: ignore[union-attr]
    monkeypatch.setattr(model.processor.audio, "collate", lambda some: (widths.append([s.shape[-1] for s in some]), collate(some))[1])
    given = [sound(1_000 * (1 + i * 5 % 8), i) for i in range(8)]
    model.embed(given, EmbedOptions(batch_size=2))
    assert [len(some) for some in widths] == [2] * 4
    flat = [width for some in widths for width in some]
    assert flat == sorted(flat, reverse=True) and len(set(flat)) == 8


def test_features_of_sounds_and_clips(model: LocalModel) -> None:
    found = model.features([Video(array=frames(4)), Video(data=b"nothing of the kind")])
    assert found.shape == (2, 18) and np.isfinite(found[0]).all() and np.isnan(found[1]).all()
    assert len(model.features([sound(4_000)])[0]) == model.config.audio.width  # type: ignore[union-attr]


def test_a_model_without_ears_says_so(model: LocalModel) -> None:
    _, config, _ = made(LOG_MEL, AudioProcessing(bins=11, seconds=1))
    deaf = models.build(config.model_copy(update={"audio": None})).eval()
    checkpoint = replace(model.checkpoint, module=deaf, name="deaf")
    with pytest.raises(CannotError, match="deaf does not take audio; it takes: image, text, video"):
        LocalModel(checkpoint).embed([sound(900)])


def test_a_changed_setting_is_found_when_it_is_loaded(tmp_path: Path) -> None:
    hub.save(tmp_path, *made(LOG_MEL, AudioProcessing(bins=11, seconds=1)))
    record = tmp_path / "tonggan.json"
    text = record.read_text("utf-8")
    changed = text.replace('"scale": "slaney"', '"scale": "htk"')
    assert text.count('"scale": "slaney"') == 1, "in the processor's settings; the identity has flat names"
    record.write_text(changed, "utf-8")
    with pytest.raises(TongganError, match=r"audio\.mel: .*\n  audio\.scale: 'htk' != 'slaney'"):
        tonggan.load(str(tmp_path))


def test_half_a_character_spoils_no_other_pair_of_a_batch() -> None:
    torch.manual_seed(0)
    shape = {"width": 18, "layers": 1, "heads": 3, "mlp_width": 20}
    config = SingleStreamConfig.parse({"image": {"image_size": 16, "patch_size": 8}, "text": {"vocab_size": 400, "context": 16}, **shape})
    processor = Processor(ImageProcessor(IMAGE), train_bpe(["a red bird"] * 2, 320, max_length=16))
    reader = LocalModel(Checkpoint(models.build(config).eval(), config, processor, Identity({}, ""), "reader"), "cpu")
    picture = Image(array=np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8))
    texts = ["a red bird", "\ud83d", "a bird", "half \udc00 of one"]
    found = reader.match([(picture, text) for text in texts])
    assert np.isnan(found).tolist() == [False, True, False, True]
    assert found[[0, 2]] == pytest.approx(reader.match([(picture, "a red bird"), (picture, "a bird")]), abs=1e-6)
    assert np.isnan(reader.match([(picture, "\ud83d")])).all()


def test_features_after_a_block_are_the_mean_over_a_sounds_own_frames() -> None:
    torch.manual_seed(0)
    config = Data2VecConfig(audio=WAVEFORM.model_copy(update={"layers": 3}))
    processor = Processor(audio=AudioProcessor(AudioProcessing(kind="waveform", normalize="unit")))
    student = LocalModel(Checkpoint(models.build(config).eval(), config, processor, Identity({}, "0"), "student"), "cpu")
    sounds = [sound(6400), sound(3200)]
    found = student.features(sounds, "block 2")
    trace = Trace()
    with torch.no_grad():
        alone = processor.audio.collate([processor.audio(sounds[1])])  # type: ignore[union-attr]
        student.module.fill("audio", alone, trace=trace)
    np.testing.assert_allclose(found[1], trace.blocks[1][0].mean(dim=0).numpy(), atol=1e-5)
    np.testing.assert_allclose(student.features(sounds, "block 3"), student.features(sounds), atol=1e-5)
    with pytest.raises(CannotError, match="no features of layer 'block 4'; it has: pooled, block 1, block 2, block 3"):
        student.features(sounds, "block 4")
