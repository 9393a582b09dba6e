"""Whisper directories: the encoder is read out of them, gives the same states and gradients, and is saved in our own format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hub.references import close
from hub.references_sound_sight import gradients, same_gradients, save_whisper, whisper
from tonggan import hub
from tonggan.hub.convert.whisper import TABLE
from tonggan.tensors import Sounds
from tonggan.types import TongganError


@pytest.mark.parametrize(
    "settings",
    [{}, {"heads": 1, "act": "gelu_new"}, {"bins": 5}],
    ids=["model alone", "one head, the other GELU", "five bins"],
)
def test_states_and_gradients_are_those_of_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = whisper(positions=50, **settings)
    checkpoint = hub.read(save_whisper(tmp_path / "whisper", theirs))
    mels = torch.randn(2, theirs.config.num_mel_bins, 100, generator=torch.Generator().manual_seed(2))
    expected = theirs.get_encoder()(mels).last_hidden_state
    ours = hub.outputs(checkpoint.module, {"input_features": mels})["last_hidden_state"]
    close(ours, expected)
    goal = torch.randn_like(expected)
    (expected * goal).sum().backward()
    (ours * goal).sum().backward()
    mine = {name: value for name, value in gradients(checkpoint.module).items() if name.startswith("audio.")}
    same_gradients(TABLE.export(mine), gradients(theirs))


def test_the_silence_behind_a_sound_is_heard_and_not_pooled(tmp_path: Path) -> None:
    checkpoint = hub.read(save_whisper(tmp_path / "whisper", whisper(positions=50)))
    tower = checkpoint.module.audio
    mels = torch.randn(1, 7, 100)
    states = tower.tokens(Sounds(mels, torch.tensor([41]))).states
    assert torch.allclose(tower(Sounds(mels, torch.tensor([41]))), states[:, :21].mean(dim=1), atol=1e-6)
    louder = mels.clone()
    louder[..., 60:] += 1
    assert not torch.allclose(tower(Sounds(louder, torch.tensor([41]))), states[:, :21].mean(dim=1), atol=1e-3)
    with pytest.raises(ValueError, match="99 frames; this tower reads exactly 100"):
        tower(Sounds(mels[..., :99], torch.tensor([99])))


def test_it_is_saved_as_ours_because_the_decoder_is_gone(tmp_path: Path) -> None:
    checkpoint = hub.read(save_whisper(tmp_path / "whisper", whisper(positions=50)))
    with pytest.raises(TongganError, match="whisper: it is the encoder alone, and the format wants a decoder"):
        hub.save(tmp_path / "no", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    hub.save(tmp_path / "saved", checkpoint.module, checkpoint.config, checkpoint.processor)
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["model_type"] == "tonggan-dual-encoder"
    again = hub.read(tmp_path / "saved")
    assert again.identity.verified
    for name, value in checkpoint.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], value), name


def test_published_positions_are_read_not_computed_anew(tmp_path: Path) -> None:
    theirs = whisper(positions=50)
    checkpoint = hub.read(save_whisper(tmp_path / "whisper", theirs))
    assert torch.equal(checkpoint.module.audio.positions.weight, theirs.encoder.embed_positions.weight)


def test_fresh_positions_are_whispers_own() -> None:
    from transformers.models.whisper.modeling_whisper import sinusoids

    from tonggan.models.towers import LogMel, LogMelConfig

    tower = LogMel(LogMelConfig(layers=1))
    assert float((tower.positions.weight - sinusoids(1500, 384)).abs().max()) < 2e-4, "theirs are computed in single precision"


def test_unknown_weights_are_named(tmp_path: Path) -> None:
    directory = save_whisper(tmp_path / "whisper", whisper(positions=50))
    state = load_file(directory / "model.safetensors")
    save_file({**state, "encoder.layers.0.gate": torch.zeros(1)}, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TongganError, match=r"unknown: encoder\.layers\.0\.gate"):
        hub.read(directory)


MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"feature_size": 5}, "sound bins: 5 by the processor, 7 by the model"),
    ({"chunk_length": 2, "n_samples": 32_000, "nb_max_frames": 200}, "up to 200 frames by the processor, 100 by the model"),
    ({"sampling_rate": 8000}, "sampling_rate=8000"),
]


@pytest.mark.parametrize(("change", "message"), MISFITS, ids=["bins", "length", "rate"])
def test_a_processor_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    directory = save_whisper(tmp_path / "whisper", whisper(positions=50))
    file = directory / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(TongganError, match=message):
        hub.read(directory)


def test_a_tower_changed_after_saving_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint = hub.read(save_whisper(tmp_path / "whisper", whisper(positions=50)))
    hub.save(tmp_path / "saved", checkpoint.module, checkpoint.config, checkpoint.processor)
    file = tmp_path / "saved" / "config.json"
    said = json.loads(file.read_text())
    for name, value in {"padding": "hidden", "heads": 9, "activation": "relu"}.items():
        file.write_text(json.dumps(said | {"audio": said["audio"] | {name: value}}))
        with pytest.raises(TongganError, match=rf"model\.audio\.{name}: {value!r} != "):
            hub.read(tmp_path / "saved")


def test_from_file_to_states(tmp_path: Path) -> None:
    """A sound file through our processor and tower, against the library's extractor and encoder."""
    import wave

    import numpy as np
    from transformers import WhisperFeatureExtractor

    from tonggan.types import Audio

    theirs = whisper(positions=100)
    directory = save_whisper(tmp_path / "whisper", theirs)
    samples = (np.sin(np.arange(20_000) * 0.05) * 9_000).astype("<i2")
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())
    given = WhisperFeatureExtractor.from_pretrained(directory)(samples / 2**15, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        expected = theirs.get_encoder()(given["input_features"]).last_hidden_state
    checkpoint = hub.read(directory)
    audio = checkpoint.processor.audio
    sounds = audio.collate([audio(Audio.open(tmp_path / "tone.wav"))])
    with torch.no_grad():
        found = checkpoint.module.audio.tokens(sounds).states
    close(found, expected, 1e-4)  # log-mel spectrograms agree to 1e-4, being computed in other precisions
