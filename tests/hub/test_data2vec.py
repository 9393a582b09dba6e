"""data2vec directories for pictures and for speech: equal states and gradients, hidden places too, saved back as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Data2VecAudioModel, Data2VecVisionModel

from hub.references import close, picture
from hub.references_sound_sight import (
    data2vec_audio,
    data2vec_vision,
    gradients,
    same_gradients,
    save_data2vec_audio,
    save_data2vec_vision,
)
from tonggan import hub
from tonggan.hub.convert import data2vec_audio as audio_format
from tonggan.hub.convert import data2vec_vision as vision_format
from tonggan.tensors import Sounds
from tonggan.types import TongganError

VISION: dict[str, dict[str, Any]] = {
    "each block's distances": {},
    "distances shared": {"use_relative_position_bias": False, "use_shared_relative_position_bias": True},
    "places": {"use_relative_position_bias": False, "use_absolute_position_embeddings": True},
    "class token": {"use_mean_pooling": False, "hidden_act": "gelu_new"},
    "no layer scale": {"layer_scale_init_value": 0.0, "num_attention_heads": 1, "layer_norm_eps": 1e-3},
}
AUDIO: dict[str, dict[str, Any]] = {
    "even kernel": {},
    "odd kernel": {"conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 3},
    "bias and the other GELU": {"conv_bias": True, "feat_extract_activation": "gelu_new", "hidden_act": "gelu_new"},
    "no mask token": {"mask_time_prob": 0.0, "num_attention_heads": 1},
}


@pytest.mark.parametrize("what", VISION)
def test_pictures(tmp_path: Path, what: str) -> None:
    theirs = data2vec_vision(**VISION[what])
    checkpoint = hub.read(save_data2vec_vision(tmp_path / "vision", theirs))
    generator = torch.Generator().manual_seed(2)
    given = {"pixel_values": torch.randn(3, 3, 24, 24, generator=generator), "bool_masked_pos": torch.rand(3, 9, generator=generator) < 0.4}
    plain = {"pixel_values": given["pixel_values"]}
    with torch.no_grad():
        close(hub.outputs(checkpoint.module, plain)["last_hidden_state"], theirs(**plain).last_hidden_state)
    expected, ours = theirs(**given).last_hidden_state, hub.outputs(checkpoint.module, given)["last_hidden_state"]
    close(ours, expected)
    goal = torch.randn_like(expected)
    (expected * goal).sum().backward()
    (ours * goal).sum().backward()
    same_gradients(vision_format.TABLE.export(gradients(checkpoint.module)), gradients(theirs))
    states = theirs(**plain).last_hidden_state
    pooled = states[:, 1:].mean(dim=1) if theirs.config.use_mean_pooling else states[:, 0]
    close(checkpoint.module.features("image", given["pixel_values"]), pooled)


def speech(lengths: list[int]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    own = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"input_values": torch.randn(len(lengths), max(lengths), generator=generator) * own, "attention_mask": own.long()}


@pytest.mark.parametrize("what", AUDIO)
def test_speech(tmp_path: Path, what: str) -> None:
    theirs = data2vec_audio(**AUDIO[what])
    checkpoint = hub.read(save_data2vec_audio(tmp_path / "audio", theirs))
    given = speech([131, 200, 75])
    frames = checkpoint.module.audio.stem.lengths(torch.tensor([131, 200, 75]))
    seen = torch.arange(int(frames.max())) < frames[:, None]
    if theirs.config.mask_time_prob:
        given["mask_time_indices"] = (torch.rand(seen.shape, generator=torch.Generator().manual_seed(4)) < 0.3) & seen
    theirs_seen, ours = theirs(**given), hub.outputs(checkpoint.module, given)
    close(ours["last_hidden_state"][seen], theirs_seen.last_hidden_state[seen])
    close(ours["extract_features"][seen], theirs_seen.extract_features[seen])
    goal = torch.randn(int(seen.sum()), 21)
    (theirs_seen.last_hidden_state[seen] * goal).sum().backward()
    (ours["last_hidden_state"][seen] * goal).sum().backward()
    same_gradients(audio_format.TABLE.export(gradients(checkpoint.module)), gradients(theirs))
    alone = {"input_values": given["input_values"][1:2]}
    with torch.no_grad():
        close(hub.outputs(checkpoint.module, alone)["last_hidden_state"], theirs(**alone).last_hidden_state)


def test_padding_changes_what_the_library_hears_and_not_what_ours_does(tmp_path: Path) -> None:
    """The library's positions see what lies behind a row's end, so a row in a batch is not the row alone; of the two, ours is always
    the row alone, and agrees with the library's there."""
    theirs = data2vec_audio()
    tower = hub.read(save_data2vec_audio(tmp_path / "audio", theirs)).module.audio
    short = speech([131])["input_values"]
    padded = torch.nn.functional.pad(short, (0, 90))
    mask = (torch.arange(221) < 131).long()[None]
    with torch.no_grad():
        alone = theirs(short).last_hidden_state
        frames = alone.shape[1]
        assert float((theirs(padded, attention_mask=mask).last_hidden_state[:, :frames] - alone).abs().max()) > 1e-3
        close(tower.tokens(Sounds(padded, torch.tensor([131]))).states[:, :frames], alone)
        close(tower(Sounds(padded, torch.tensor([131]))), alone.mean(dim=1))


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_saved_back_transformers_has_the_same_weights(tmp_path: Path, kind: str) -> None:
    theirs: Any
    if kind == "image":
        theirs, again_of = data2vec_vision(), Data2VecVisionModel
        checkpoint = hub.read(save_data2vec_vision(tmp_path / "one", theirs))
    else:
        theirs, again_of = data2vec_audio(), Data2VecAudioModel
        checkpoint = hub.read(save_data2vec_audio(tmp_path / "one", theirs))
    hub.save(tmp_path / "saved", checkpoint.module, checkpoint.config, checkpoint.processor)
    written = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert written["model_type"] == {"image": "data2vec-vision", "audio": "data2vec-audio"}[kind]
    again = again_of.from_pretrained(tmp_path / "saved").eval()
    assert {n: v.shape for n, v in again.state_dict().items()} == {n: v.shape for n, v in theirs.state_dict().items()}
    for name, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert hub.read(tmp_path / "saved").identity.verified


CHANGES: list[tuple[str, str, dict[str, Any], str]] = [
    ("image", "config.json", {"num_attention_heads": 7}, "distances|bias|table|heads"),
    ("image", "config.json", {"hidden_act": "quick_gelu"}, "activation"),
    ("image", "config.json", {"layer_scale_init_value": 0.0}, "lambda_1"),
    ("image", "config.json", {"use_mean_pooling": False}, "layernorm"),
    ("image", "config.json", {"use_shared_relative_position_bias": True}, "together"),
    ("image", "preprocessor_config.json", {"resample": 2}, "interpolation"),
    ("audio", "config.json", {"num_attention_heads": 7}, "heads"),
    ("audio", "config.json", {"conv_stride": [2, 3]}, "strides"),
    ("audio", "config.json", {"add_adapter": True}, "add_adapter=True"),
    ("audio", "config.json", {"feat_extract_activation": "relu"}, "stem_activation"),
    ("audio", "preprocessor_config.json", {"do_normalize": False}, "normalize"),
]


@pytest.mark.parametrize(("kind", "file", "change", "message"), CHANGES, ids=[f"{k} {next(iter(c))}" for k, _, c, _ in CHANGES])
def test_a_changed_setting_is_refused_by_name(tmp_path: Path, kind: str, file: str, change: dict[str, Any], message: str) -> None:
    directory = (
        save_data2vec_vision(tmp_path / "one", data2vec_vision())
        if kind == "image"
        else save_data2vec_audio(tmp_path / "one", data2vec_audio())
    )
    checkpoint = hub.read(directory)
    hub.save(tmp_path / "saved", checkpoint.module, checkpoint.config, checkpoint.processor)
    path = tmp_path / "saved" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TongganError, match=message):
        hub.read(tmp_path / "saved")


def test_pictures_that_are_not_square_are_refused(tmp_path: Path) -> None:
    """The library builds such a model and cannot run it: its tables are taken for those of a square."""
    directory = save_data2vec_vision(tmp_path / "one", data2vec_vision())
    settings = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(settings | {"image_size": [16, 32]}))
    with pytest.raises(TongganError, match="not square"):
        hub.read(directory)


def test_from_picture_to_states(tmp_path: Path) -> None:
    from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil

    theirs = data2vec_vision()
    directory = save_data2vec_vision(tmp_path / "vision", theirs)
    pictures = [picture(61, 47), picture(30, 80, 1)]
    given = BeitImageProcessorPil.from_pretrained(directory)(pictures, return_tensors="pt")
    checkpoint = hub.read(directory)
    with torch.no_grad():
        expected = theirs(pixel_values=given["pixel_values"]).last_hidden_state
        close(checkpoint.module.image.tokens(checkpoint.processor.pixels(pictures)).states, expected)


def test_from_waveform_to_states(tmp_path: Path) -> None:
    import numpy as np
    from transformers import Wav2Vec2FeatureExtractor

    theirs = data2vec_audio()
    directory = save_data2vec_audio(tmp_path / "audio", theirs)
    sounds = [np.sin(np.arange(n) * 0.05).astype("float32") * 0.3 + 0.01 for n in (400, 250)]
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(directory)
    checkpoint = hub.read(directory)
    audio = checkpoint.processor.audio
    ours = audio.collate([audio(sound) for sound in sounds])
    with torch.no_grad():
        found = checkpoint.module.audio.tokens(ours).states
        for row, sound in enumerate(sounds):
            expected = theirs(**extractor(sound, sampling_rate=16_000, return_tensors="pt")).last_hidden_state[0]
            close(found[row, : len(expected)], expected, 1e-4)  # the extractor normalises in single precision, ours in double
