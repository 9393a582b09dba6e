"""preprocessor_config.json of what hears and watches: read as the libraries mean it, written so that they read the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from sounds import frames, tones
from tonggan.data.audio import AudioProcessing, AudioProcessor
from tonggan.data.images import ImageProcessing
from tonggan.data.video import VideoProcessing, VideoProcessor
from tonggan.hub.convert.preprocessor import read_settings
from tonggan.hub.convert.preprocessor_audio import audio_in, audio_misfit, audio_out, video_in, video_misfit, video_out
from tonggan.types import TongganError, Video


def file(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "preprocessor_config.json").read_text("utf-8")))


@pytest.mark.parametrize("settings", [{}, {"feature_size": 128}, {"feature_size": 37, "chunk_length": 3, "hop_length": 177, "n_fft": 510}])
def test_whispers(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = WhisperFeatureExtractor(**settings)
    theirs.save_pretrained(tmp_path)
    config = audio_in(*read_settings(tmp_path, "feature_extractor"))
    process, given = AudioProcessor(config), tones(20_011)
    expected = theirs(given, sampling_rate=16_000, return_tensors="np")["input_features"]
    assert np.abs(process.collate([process(given)]).values.numpy() - expected).max() < 1e-4
    assert audio_misfit(config) is None and audio_in(audio_out(config), "here") == config
    again = WhisperFeatureExtractor.from_dict(audio_out(config))
    assert np.array_equal(again(given, sampling_rate=16_000, return_tensors="np")["input_features"], expected)


def test_whispers_older_files_repeat_themselves() -> None:
    old = WhisperFeatureExtractor()
    stored = {"feature_extractor_type": "WhisperFeatureExtractor", "n_samples": 480_000, "nb_max_frames": 3000}
    assert audio_in(stored | {"mel_filters": np.float32(old.mel_filters.T).tolist()}, "here") == audio_in(stored, "here")
    with pytest.raises(TongganError, match=r"mel_filters \(not Slaney's of these bins\)"):
        audio_in(stored | {"mel_filters": (1.01 * old.mel_filters.T).tolist()}, "here")
    with pytest.raises(TongganError, match=r"n_samples=160000 \(not 480000\)"):
        audio_in(stored | {"n_samples": 160_000}, "here")


@pytest.mark.parametrize("settings", [{}, {"do_normalize": False, "sampling_rate": 8_000}])
def test_wav2vecs(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = Wav2Vec2FeatureExtractor(return_attention_mask=True, **settings)
    theirs.save_pretrained(tmp_path)
    config = audio_in(file(tmp_path), "here")
    process, given = AudioProcessor(config), [tones(5_003), tones(777, 1)]
    expected = theirs(given, sampling_rate=config.rate, padding=True, return_tensors="np")["input_values"]
    assert np.abs(process.collate([process(one) for one in given]).values.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()
    assert config.seconds is None and audio_misfit(config) is None and audio_in(audio_out(config), "here") == config
    assert np.array_equal(
        Wav2Vec2FeatureExtractor.from_dict(audio_out(config))(given, sampling_rate=config.rate, padding=True)["input_values"], expected
    )


@pytest.mark.parametrize("settings", [{}, {"size": {"shortest_edge": 29}, "crop_size": {"height": 24, "width": 24}, "resample": 3}])
def test_videomaes(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = VideoMAEImageProcessorPil(**settings)
    theirs.save_pretrained(tmp_path)
    config = video_in(file(tmp_path), "here", frames=4)
    clip = frames(4, 51, 67)
    pixels = VideoProcessor(config)(Video(array=clip)) / 255
    mean, std = (np.array(values)[:, None, None] for values in (config.image.mean, config.image.std))
    expected = np.asarray(theirs(list(clip), return_tensors="np")["pixel_values"][0])
    assert np.abs((pixels - mean) / std - expected).max() <= 1 / 255 / std.min() + 1e-6
    assert video_misfit(config) is None and video_in(video_out(config), "here", frames=4) == config


def test_the_newer_file_is_read_and_named(tmp_path: Path) -> None:
    newer, settings = tmp_path / "processor_config.json", WhisperFeatureExtractor(feature_size=9).to_dict()
    newer.write_text(json.dumps({"feature_extractor": settings}))
    assert audio_in(*read_settings(tmp_path, "feature_extractor")).bins == 9
    newer.write_text(json.dumps({"feature_extractor": settings | {"feature_extractor_type": "ASTFeatureExtractor"}}))
    with pytest.raises(TongganError, match=r"/processor_config\.json.*ASTFeatureExtractor"):
        audio_in(*read_settings(tmp_path, "feature_extractor"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"feature_extractor_type": "ASTFeatureExtractor"}, "feature_extractor_type 'ASTFeatureExtractor' is not supported"),
        ({}, "feature_extractor_type None"),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "dither": 0.1}, "dither=0.1"),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "sampling_rate": 8000}, "sampling_rate=8000"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "padding_value": 1.0}, "padding_value=1.0"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "padding_side": "left"}, "padding_side='left'"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 2}, "feature_size=2"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "hop_length": 160}, r"hop_length=160 \(unknown\)"),
    ],
)
def test_what_we_cannot_do_is_refused_by_name(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(TongganError, match=said):
        audio_in(settings, "here")


def test_clips_are_refused_by_name_too() -> None:
    with pytest.raises(TongganError, match=r"do_sample_frames=True \(unknown\)"):
        video_in({"do_sample_frames": True}, "here")


def test_what_their_files_cannot_say() -> None:
    odd = [{"norm": "log"}, {"scale": "htk"}, {"pad": "batch"}, {"seconds": 2.5}, {"rate": 8_000}]
    for change in odd:
        assert audio_misfit(AudioProcessing(**{"pad": "whole"} | change)) is not None, change
    for change in ({"seconds": 3.0}, {"seconds": 3.0, "pad": "whole"}):
        assert audio_misfit(AudioProcessing(kind="waveform", **change)) is not None, change
    theirs = ImageProcessing(transparency="ignore")
    assert video_misfit(VideoProcessing(image=theirs)) is None
    assert video_misfit(VideoProcessing(image=theirs, sampling="uniform")) is not None
    assert video_misfit(VideoProcessing(image=ImageProcessing(mode="pad"))) is not None
