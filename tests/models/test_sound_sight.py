"""Towers for sound and clips, and data2vec's students: contracts of the small presets, what their parts do, published sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tonggan import hub, steps
from tonggan.config import ConfigError
from tonggan.data.audio import AudioProcessing, AudioProcessor
from tonggan.data.processor import Processor
from tonggan.models import Data2Vec, Data2VecConfig, DualEncoder, DualEncoderConfig, build, parse, presets
from tonggan.models.base import Embedder, Featurizer, LatentLearner
from tonggan.models.towers import (
    BeitConfig,
    Frames,
    FramesConfig,
    LogMel,
    LogMelConfig,
    TubeletConfig,
    Tubelets,
    ViTConfig,
    Waveform,
    WaveformConfig,
)
from tonggan.nn.transformer import Trace
from tonggan.steps.contrastive import ContrastiveConfig, ContrastiveStep
from tonggan.steps.latent import LatentConfig
from tonggan.tensors import Batch, Mask, Modality, Sounds, Tokens, Vocabulary, pad
from tonggan.types import TongganError, UsageError

PAIRS: dict[str, tuple[Modality, Modality]] = {
    "mini-audio-text": ("audio", "text"),
    "mini-speech-picture": ("audio", "image"),
    "mini-video-text": ("video", "text"),
    "mini-frames-text": ("video", "text"),
}
QUICK = ("mini-audio-text", "mini-video-text")
STUDENTS: dict[str, Modality] = {"mini-data2vec-image": "image", "mini-data2vec-audio": "audio", "mini-data2vec-text": "text"}


def mels(n: int) -> Sounds:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([20 + 7 * (i % 5) for i in range(n)])
    own = torch.arange(int(lengths.max())) < lengths[:, None]
    return Sounds(torch.randn(n, 80, own.shape[1], generator=generator) * own[:, None], lengths)


def waves(n: int) -> Sounds:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.tensor([4000 - 700 * (i % 4) for i in range(n)])
    return Sounds(torch.randn(n, 4000, generator=generator) * (torch.arange(4000) < lengths[:, None]), lengths)


def given(n: int, side: int = 64) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def pixels(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    tokens = pad([[1, *torch.randint(5, 300, (2 + i % 5,), generator=generator).tolist(), 2] for i in range(n)])
    return Batch(tuple(map(str, range(n))), pixels=pixels(n, 3, side, side), tokens=tokens, sounds=mels(n), clips=pixels(n, 8, 3, 64, 64))


def side(model: Any) -> int:
    """Of the pictures that it reads, if it reads any."""
    return int(model.image.config.image_size) if model.image is not None else 64


def wider(inputs: Any) -> Any:
    """The same with more padding, which holds what it likes."""
    if isinstance(inputs, Tokens):
        return Tokens(F.pad(inputs.ids, (0, 9), value=7), inputs.lengths)
    if isinstance(inputs, Sounds):
        spread = F.pad(inputs.values, (0, 33))
        own = torch.arange(spread.shape[-1]) < inputs.lengths[:, None]
        return Sounds(torch.where(own[:, None] if spread.dim() == 3 else own, spread, 3.0), inputs.lengths)
    return inputs


def first(inputs: Any) -> Any:
    """The first row by itself, without padding."""
    if isinstance(inputs, Tokens):
        return Tokens(inputs.ids[:1, : int(inputs.lengths[0])], inputs.lengths[:1])
    if isinstance(inputs, Sounds):
        return Sounds(inputs.values[:1, ..., : int(inputs.lengths[0])], inputs.lengths[:1])
    return inputs[:1]


@pytest.mark.parametrize("name", PAIRS)
def test_mini_presets_keep_every_contract(name: str) -> None:
    torch.manual_seed(0)
    model: Any = build(presets()[name]).eval()
    assert isinstance(model, Embedder) and model.modalities == set(PAIRS[name])
    assert sum(p.numel() for p in model.parameters()) < 5_000_000
    batch, again = given(3), build(presets()[name]).eval()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        for kind in PAIRS[name]:
            inputs = batch.input(kind)
            found = model.encode(kind, inputs)
            assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-5)
            assert torch.allclose(model.encode(kind, first(inputs)), found[:1], atol=1e-5), f"{kind}: the batch's size changes it"
            assert torch.allclose(model.encode(kind, wider(inputs)), found, atol=1e-5), f"{kind}: padding changes it"
            assert torch.equal(again.encode(kind, inputs), found)  # type: ignore[operator]
    ContrastiveStep(model.train(), ContrastiveConfig(between=PAIRS[name]))(batch).loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), parameter_name


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PAIRS])
def test_mini_presets_learn_one_batch_by_heart(name: str) -> None:
    torch.manual_seed(0)
    model: Any = build(presets()[name])
    step, batch = ContrastiveStep(model, ContrastiveConfig(between=PAIRS[name])), given(16)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(60):
        out = step(batch)
        if out.report["loss"] < 0.1:
            break
        adam.zero_grad()
        out.loss.backward()
        adam.step()
    assert out.report["loss"] < 0.3


@pytest.mark.parametrize("name", STUDENTS)
def test_mini_students_keep_every_contract(name: str) -> None:
    torch.manual_seed(0)
    kind, model = STUDENTS[name], build(presets()[name]).eval()
    assert isinstance(model, Data2Vec) and isinstance(model, Featurizer) and isinstance(model, LatentLearner)
    assert not isinstance(model, Embedder), "its states were never trained to be compared"
    assert sum(p.numel() for p in model.parameters()) < 5_000_000
    inputs = waves(3) if kind == "audio" else given(3, side(model)).input(kind)
    again: Any = build(presets()[name]).eval()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        found = model.features(kind, inputs)
        assert torch.allclose(model.features(kind, first(inputs)), found[:1], atol=1e-5)
        assert torch.allclose(model.features(kind, wider(inputs)), found, atol=1e-5)
        assert torch.equal(again.features(kind, inputs), found)
        places = model.places(kind, inputs)
        assert model.fill(kind, inputs).states.shape == (places.rows, places.count, model.width)
    with pytest.raises(UsageError, match=f"this model reads {kind}, not video"):
        model.features("video", inputs)
    model.train().features(kind, inputs).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        # Only what is hidden reads the mask token.
        learnt = parameter.grad is not None and bool(parameter.grad.isfinite().all())
        assert learnt or parameter_name.endswith("mask_token"), parameter_name


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDENTS)
def test_mini_students_learn_one_batch_by_heart(name: str) -> None:
    """The same places hidden each time, and a teacher that stays: a third of what the mean target costs is left at most."""
    torch.manual_seed(0)
    kind, model = STUDENTS[name], build(presets()[name])
    vocabulary = Vocabulary(size=2000, mask=3, special=frozenset({0, 1, 2, 3}))
    step = steps.build(model, LatentConfig(modality=kind, top_layers=2, smallest_block=4, decay=1, decay_end=1), vocabulary=vocabulary)
    # Four colours a picture: what is hidden can be told from what is seen.
    colours = torch.randint(0, 256, (16, 3, 2, 2), generator=torch.Generator().manual_seed(0)).float()
    batch = replace(given(16), pixels=F.interpolate(colours, size=side(model)).to(torch.uint8), sounds=waves(16))
    adam = torch.optim.AdamW([p for p in step.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(60):
        torch.manual_seed(3)
        out = step(batch)
        if out.report["loss"] < out.report["chance"] / 3:
            break
        adam.zero_grad()
        out.loss.backward()
        adam.step()
    assert out.report["loss"] < out.report["chance"] / 3


# ------------------------------------------------------------------------------------------------ sounds


def test_frames_of_a_waveform_are_counted_as_convolutions_count_them() -> None:
    tower = Waveform(WaveformConfig(channels=(3,) * 7, width=4, layers=1, heads=1, mlp_width=4, position_groups=1))
    assert tower.stem.shortest == 400, "25 ms at 16 kHz, as the paper says"
    for samples in (400, 719, 720, 16_000):
        assert tower.stem(torch.zeros(1, samples)).shape[1] == tower.stem.count(samples) == (samples - 400) // 320 + 1
    with pytest.raises(ValueError, match="399 samples is too short: one frame takes 400"):
        tower.stem(torch.zeros(1, 399))


def test_a_spectrogram_longer_than_the_table_is_refused() -> None:
    tower = LogMel(LogMelConfig(bins=4, context=5, width=4, layers=1, heads=1, mlp_width=4))
    with pytest.raises(ValueError, match="spectrograms of 11 frames; this tower reads at most 10"):
        tower(Sounds(torch.zeros(1, 4, 11), torch.tensor([11])))


def test_convolutions_need_one_of_each() -> None:
    with pytest.raises(ConfigError, match="2 channels, 7 kernels"):
        parse({"kind": "dual_encoder", "audio": {"kind": "waveform", "channels": [8, 8]}}, "model")


# ------------------------------------------------------------------------------------------------- clips


def pictures() -> ViTConfig:
    return ViTConfig(image_size=16, patch_size=8, width=12, layers=1, heads=3, mlp_width=20)


def test_frames_without_weights_are_the_mean_of_the_pictures_and_know_no_order() -> None:
    torch.manual_seed(0)
    tower, clips = Frames(FramesConfig(image=pictures(), frames=5)).eval(), torch.randint(0, 256, (2, 5, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        one_by_one = torch.stack([tower.image(frame) for frame in clips.unbind(dim=1)]).mean(dim=0)
        assert torch.allclose(tower(clips), one_by_one, atol=1e-5)
        assert torch.allclose(tower(clips.flip(1)), one_by_one, atol=1e-5)


@pytest.mark.parametrize("what", ["frames", "tubelets"])
def test_a_clip_played_backwards_is_another(what: str) -> None:
    torch.manual_seed(0)
    tower = (
        Frames(FramesConfig(image=pictures(), frames=6, pooling="transformer", layers=1, heads=3))
        if what == "frames"
        else Tubelets(TubeletConfig(image_size=16, patch_size=8, frames=6, width=12, layers=1, heads=3, mlp_width=20))
    ).eval()
    clips = torch.randint(0, 256, (2, 6, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        assert float((tower(clips) - tower(clips.flip(1))).abs().max()) > 1e-3


def test_tubelets_are_a_convolution_in_time_and_space() -> None:
    torch.manual_seed(0)
    tower = Tubelets(TubeletConfig(image_size=(8, 12), patch_size=4, frames=6, tubelet=3, width=10, layers=1, heads=1, mlp_width=8))
    clips = torch.randn(2, 6, 3, 8, 12)
    expected = F.conv3d(clips.transpose(1, 2), tower.tubelets.weight, tower.tubelets.bias, stride=(3, 4, 4)).flatten(2).transpose(1, 2)
    assert torch.allclose(tower.tubelets(clips), expected, atol=1e-5)
    with pytest.raises(ValueError, match="clips of 3 x 8 x 12; this tower reads 6 x 8 x 12"):
        tower(clips[:, :3])


def test_bytes_are_normalised_as_pictures_are() -> None:
    torch.manual_seed(0)
    config = TubeletConfig(
        image_size=8, patch_size=4, frames=2, width=8, layers=1, heads=1, mlp_width=8, mean=(0.1, 0.2, 0.3), std=(0.4,) * 3
    )
    tower, clips = Tubelets(config), torch.randint(0, 256, (1, 2, 3, 8, 8), dtype=torch.uint8)
    by_hand = (clips / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.4
    assert torch.allclose(tower(clips), tower(by_hand), atol=1e-5)


# ---------------------------------------------------------------------------------------------- data2vec


def test_data2vec_reads_one_kind() -> None:
    with pytest.raises(ConfigError, match="one of image, audio and text, not none"):
        parse({"kind": "data2vec"}, "model")
    with pytest.raises(ConfigError, match="not image and audio"):
        parse({"kind": "data2vec", "image": {"kind": "beit"}, "audio": {"kind": "waveform"}}, "model")


def test_its_picture_tower_fits_a_dual_encoder_weight_for_weight() -> None:
    student = Data2Vec(Data2VecConfig(image=BeitConfig(image_size=16, patch_size=8, width=12, layers=2, heads=3, mlp_width=20)))
    model = DualEncoder(DualEncoderConfig(image=student.config.image, dim=7))
    assert model.image is not None
    model.image.load_state_dict(student.image.state_dict())  # type: ignore[union-attr]
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(model.features("image", pixels), student.features("image", pixels))


def test_data2vec_reads_spectrograms_too() -> None:
    """Hidden positions hold the mask token, so what was heard there is not seen; a row's states are those it has alone."""
    tower = LogMelConfig(context=40, width=18, layers=2, heads=3, mlp_width=22, mask_token=True)
    torch.manual_seed(0)
    student, sounds = Data2Vec(Data2VecConfig(audio=tower)).eval(), mels(3)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    places = student.places("audio", sounds)
    assert places.lengths is not None and places.lengths.tolist() == [10, 14, 17] and places.count == 17
    hidden = torch.zeros(3, 17, dtype=torch.bool)
    hidden[:, 3:7] = True
    audio: Any = student.audio
    x = torch.where(hidden[:, :, None], audio.mask_token, audio.stem(sounds.values, sounds.lengths)) + audio.positions.weight[:17]
    trace = Trace()
    found = student.fill("audio", sounds, hidden, trace=trace)
    expected = audio.post_norm(audio.transformer(x, mask=Mask(lengths=places.lengths)))
    own = torch.arange(17) < places.lengths[:, None]
    assert torch.allclose(found.states[own], expected[own], atol=1e-5) and len(trace.blocks) == 2
    assert not torch.allclose(found.states[own], student.fill("audio", sounds).states[own], atol=1e-2)
    for row, (length, frames) in enumerate(zip(places.lengths.tolist(), sounds.lengths.tolist(), strict=True)):
        alone = Sounds(sounds.values[row : row + 1, :, :frames], sounds.lengths[row : row + 1])
        states = student.fill("audio", alone, hidden[row : row + 1, :length]).states
        assert torch.allclose(states[0], found.states[row, :length], atol=1e-5)


def test_a_student_of_spectrograms_learns_by_filling_in() -> None:
    """One batch, a teacher held still: better than any constant, in all of its parts."""
    torch.manual_seed(0)
    tower = LogMelConfig(context=40, width=18, layers=3, heads=3, mlp_width=22, mask_token=True)
    student, sounds = Data2Vec(Data2VecConfig(audio=tower)), mels(4)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    step = steps.build(student, LatentConfig(modality="audio", top_layers=2, share=0.3, span=3, decay=1.0, decay_end=1.0))
    adam = torch.optim.AdamW([p for p in step.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(50):
        out = step(Batch(("a", "b", "c", "d"), sounds=sounds))
        adam.zero_grad()
        out.loss.backward()
        adam.step()
    last = [step(Batch(("a", "b", "c", "d"), sounds=sounds)).report for _ in range(10)]
    assert sum(report["loss"] for report in last) < 0.9 * sum(report["chance"] for report in last)
    mask = student.get_parameter("audio.mask_token").grad
    assert mask is not None and bool(mask.abs().sum() > 0)


def test_spectrograms_have_no_place_in_the_published_format(tmp_path: Path) -> None:
    config = Data2VecConfig(audio=LogMelConfig(context=40, width=18, layers=1, heads=3, mlp_width=22))
    processor = Processor(audio=AudioProcessor(AudioProcessing(kind="log_mel", seconds=0.8)))
    with pytest.raises(TongganError, match="data2vec-audio: it reads spectrograms; the format has a place for waveforms"):
        hub.save(tmp_path / "model", Data2Vec(config), config, processor, format="transformers")
    hub.save(tmp_path / "model", Data2Vec(config), config, processor)
    assert hub.read(tmp_path / "model").identity.verified


def test_published_sizes() -> None:
    from transformers import (
        Data2VecAudioConfig,
        Data2VecAudioModel,
        Data2VecVisionConfig,
        Data2VecVisionModel,
        VideoMAEConfig,
        VideoMAEModel,
        WhisperConfig,
    )
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    with torch.device("meta"):
        pairs: list[tuple[Any, Any]] = [
            (Data2VecVisionModel(Data2VecVisionConfig(use_relative_position_bias=True)), Data2Vec(Data2VecConfig(image=BeitConfig()))),
            (Data2VecAudioModel(Data2VecAudioConfig()), Data2Vec(Data2VecConfig(audio=WaveformConfig(mask_token=True)))),
            (VideoMAEModel(VideoMAEConfig()), Tubelets(TubeletConfig())),
            (WhisperEncoder(WhisperConfig()), LogMel(LogMelConfig())),
        ]
        # The table of positions is a parameter of theirs that is not learnt, and a buffer of ours.
        pairs[-1][1].register_parameter("table", torch.nn.Parameter(torch.empty(1500, 384)))
    for theirs, ours in pairs:
        counts = [sum(p.numel() for p in model.parameters()) for model in (theirs, ours)]
        assert counts[0] == counts[1], (type(theirs).__name__, counts)
