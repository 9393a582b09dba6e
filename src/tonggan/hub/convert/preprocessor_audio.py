"""preprocessor_config.json of models that hear and that watch clips, both ways: Whisper's, wav2vec 2.0's, VideoMAE's.

As for pictures (`convert.preprocessor`), every setting is honoured or refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tonggan.data.audio import AudioProcessing, mel_filters
from tonggan.data.video import VideoProcessing
from tonggan.hub.convert.preprocessor import BOOKKEEPING, image_in, image_misfit, image_out
from tonggan.types import TongganError

WHISPER, WAV2VEC2, VIDEOMAE = "WhisperFeatureExtractor", "Wav2Vec2FeatureExtractor", "VideoMAEImageProcessor"
DEFAULTS: dict[str, dict[str, Any]] = {
    WHISPER: {"feature_size": 80, "sampling_rate": 16_000, "hop_length": 160, "chunk_length": 30, "n_fft": 400},
    WAV2VEC2: {"feature_size": 1, "sampling_rate": 16_000, "do_normalize": True},
}
"""What the library does where a file of this type is silent."""
ONLY: dict[str, tuple[Any, ...]] = {"padding_value": (0, None), "padding_side": ("right", None), "dither": (0, None)}
"""Settings that are understood only at the values at which they do nothing."""
HABITS = BOOKKEEPING | {"return_attention_mask"}
"""Our batches always say where a sound ends; a model that attends to its padding (a setting of its tower) passes over it."""
WHISPER_RATE = 16_000
"""Whisper's filters end at 8 kHz whatever the rate; ours end at half of it."""


def audio_in(settings: Mapping[str, Any], where: str) -> AudioProcessing:
    """Their settings as ours; raises `TongganError` naming each setting that we cannot do.

    Where their files have no longest sound (wav2vec 2.0), there is none. Such sounds are normalised each for itself, as the library
    does for a single one, and in batches where it makes an attention mask.
    """
    kind = settings.get("feature_extractor_type")
    if kind not in DEFAULTS:
        raise TongganError(f"{where}: feature_extractor_type {kind!r} is not supported; supported are: {', '.join(DEFAULTS)}")
    given = DEFAULTS[kind] | {name: value for name, value in settings.items() if name in DEFAULTS[kind] and value is not None}
    known = {*DEFAULTS[kind], *ONLY, *HABITS}
    refused = [f"{name}={value!r}" for name, value in settings.items() if name in ONLY and value not in ONLY[name]]
    if kind == WHISPER:
        known |= {"mel_filters", "n_samples", "nb_max_frames"}
        refused += _whisper_refused(settings, given)
        ours = {"kind": "log_mel", "pad": "whole", "seconds": given["chunk_length"], "bins": given["feature_size"]}
        ours |= {"n_fft": given["n_fft"], "hop": given["hop_length"], "scale": "slaney", "norm": "whisper"}
    else:
        refused += [f"feature_size={given['feature_size']!r}"] if given["feature_size"] != 1 else []
        ours = {"kind": "waveform", "seconds": None, "normalize": "unit" if given["do_normalize"] else "none"}
    refused += [f"{name}={value!r} (unknown)" for name, value in settings.items() if name not in known]
    if refused:
        raise TongganError(f"{where}: preprocessing that is not supported: {'; '.join(refused)}")
    return AudioProcessing.parse(ours | {"rate": given["sampling_rate"]}, where)


def audio_out(config: AudioProcessing) -> dict[str, Any]:
    """Our settings as theirs; `audio_misfit` must have found nothing."""
    common = {"padding_value": 0.0, "padding_side": "right", "sampling_rate": config.rate}
    if config.kind == "waveform":
        normalized = config.normalize == "unit"
        own = {"feature_extractor_type": WAV2VEC2, "feature_size": 1, "do_normalize": normalized, "return_attention_mask": True}
        return common | own
    assert config.seconds is not None
    return common | {
        "feature_extractor_type": WHISPER,
        "feature_size": config.bins,
        "chunk_length": int(config.seconds),
        "n_fft": config.n_fft,
        "hop_length": config.hop,
        "dither": 0.0,
        "return_attention_mask": False,
    }


def audio_misfit(config: AudioProcessing) -> str | None:
    """Why their file cannot say these settings; None when it can."""
    if config.kind == "waveform":
        return None if (config.seconds, config.pad) == (None, "batch") else "its sounds are cut or padded to a length"
    if (config.scale, config.norm, config.pad, config.rate) != ("slaney", "whisper", "whole", WHISPER_RATE):
        return "its spectrograms are not Whisper's (scale, norm, pad, rate)"
    if config.seconds is None or config.seconds != int(config.seconds):
        return "its longest sound is no whole number of seconds"
    return None


def video_in(settings: Mapping[str, Any], where: str, *, frames: int = 16) -> VideoProcessing:
    """Their settings as ours; raises `TongganError` naming each setting that we cannot do.

    How many `frames` a model reads is in its config.json (`num_frames`); which ones, the format leaves to who calls.
    """
    return VideoProcessing(frames=frames, image=image_in(settings, where, "VideoMAE"))


def video_out(config: VideoProcessing) -> dict[str, Any]:
    """Our settings as theirs; `video_misfit` must have found nothing."""
    return image_out(config.image) | {"image_processor_type": VIDEOMAE}


def video_misfit(config: VideoProcessing) -> str | None:
    """Why their file cannot say these settings; None when it can."""
    return image_misfit(config.image) or (None if config.sampling == "segments" else "its frames are taken in our other way (sampling)")


def _whisper_refused(settings: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """What older files repeat must agree with what it follows from; the filters themselves are stored in some."""
    samples = given["chunk_length"] * given["sampling_rate"]
    derived = {"n_samples": samples, "nb_max_frames": samples // given["hop_length"]}
    refused = [f"{name}={settings[name]!r} (not {value})" for name, value in derived.items() if settings.get(name, value) != value]
    if given["sampling_rate"] != WHISPER_RATE:
        return [*refused, f"sampling_rate={given['sampling_rate']!r}"]
    if "mel_filters" in settings:
        stored = np.asarray(settings["mel_filters"], np.float64)
        ours = mel_filters(given["sampling_rate"], given["n_fft"], given["feature_size"], "slaney")
        if stored.shape not in (ours.shape, ours.T.shape) or abs((stored if stored.shape == ours.shape else stored.T) - ours).max() > 1e-6:
            refused.append("mel_filters (not Slaney's of these bins)")
    return refused
