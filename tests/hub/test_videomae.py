"""VideoMAE directories: read as they are, equal states and gradients, saved back so that transformers agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import VideoMAEModel

from hub.references import close, picture
from hub.references_sound_sight import gradients, same_gradients, save_videomae, videomae
from tonggan import hub
from tonggan.config import height_width
from tonggan.hub.convert.videomae import TABLE
from tonggan.types import TongganError, Video


def clips(config: Any, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, config.num_frames, 3, *height_width(config.image_size), generator=generator)


OBLONG = {"image_size": [16, 24]}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        OBLONG,
        {"use_mean_pooling": False},
        {"tubelet_size": 3, "num_attention_heads": 5},
        {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3},
    ],
    ids=["mean", "not square", "last norm", "tubelets of three", "other GELU and eps"],
)
def test_states_and_gradients_are_those_of_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = videomae(**settings)
    checkpoint = hub.read(save_videomae(tmp_path / "videomae", theirs))
    given = clips(theirs.config)
    expected = theirs(pixel_values=given).last_hidden_state
    ours = hub.outputs(checkpoint.module, {"pixel_values": given})["last_hidden_state"]
    close(ours, expected)
    pooled = expected.mean(dim=1) if settings.get("use_mean_pooling", True) else expected[:, 0]
    close(checkpoint.module.features("video", given), pooled)
    goal = torch.randn_like(expected)
    (expected * goal).sum().backward()
    (ours * goal).sum().backward()
    named = {"q_bias": "query.bias", "v_bias": "value.bias"}  # in files, and in memory
    mine = TABLE.export({name: value for name, value in gradients(checkpoint.module).items() if name != "log_scale"})
    mine = {next((name.replace(a, b) for a, b in named.items() if name.endswith(a)), name): value for name, value in mine.items()}
    same_gradients(mine, gradients(theirs))


def test_clips_of_another_shape_are_refused(tmp_path: Path) -> None:
    theirs = videomae(**OBLONG)
    checkpoint = hub.read(save_videomae(tmp_path / "videomae", theirs))
    with pytest.raises(ValueError, match="clips of 6 x 24 x 16; this tower reads 6 x 16 x 24"):
        checkpoint.module.features("video", clips(theirs.config).transpose(3, 4))


@pytest.mark.parametrize("settings", [{}, OBLONG], ids=["square", "not square"])
def test_saved_back_transformers_gives_the_same(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = videomae(**settings)
    checkpoint = hub.read(save_videomae(tmp_path / "videomae", theirs))
    hub.save(tmp_path / "saved", checkpoint.module, checkpoint.config, checkpoint.processor)
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["model_type"] == "videomae"
    again = VideoMAEModel.from_pretrained(tmp_path / "saved").eval()
    for name, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    given = clips(theirs.config, 1)
    with torch.no_grad():
        assert torch.equal(again(pixel_values=given).last_hidden_state, theirs(pixel_values=given).last_hidden_state)
    assert hub.read(tmp_path / "saved").identity.verified


def test_of_a_pretrained_one_the_decoder_is_dropped(tmp_path: Path) -> None:
    theirs = videomae(whole=True)
    checkpoint = hub.read(save_videomae(tmp_path / "videomae", theirs))
    given = clips(theirs.config)
    with torch.no_grad():
        expected = theirs.videomae(pixel_values=given).last_hidden_state
    close(hub.outputs(checkpoint.module, {"pixel_values": given})["last_hidden_state"], expected)


@pytest.mark.parametrize("settings", [{}, OBLONG], ids=["square", "not square"])
def test_from_frames_to_states(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Frames through our processor and tower, against the library's."""
    import numpy as np
    from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

    theirs = videomae(**settings)
    directory = save_videomae(tmp_path / "videomae", theirs)
    frames = [np.asarray(picture(61, 47, seed)) for seed in range(6)]
    given = VideoMAEImageProcessorPil.from_pretrained(directory)(frames, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(pixel_values=given["pixel_values"]).last_hidden_state
    checkpoint = hub.read(directory)
    clip = torch.from_numpy(checkpoint.processor.video(Video(array=np.stack(frames), fps=6.0)))
    with torch.no_grad():
        close(checkpoint.module.video.tokens(clip[None]).states, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_attention_heads": 5}, "heads"), ({"tubelet_size": 1}, r"\[30, 3, 2, 8, 8\] in the file, \[30, 3, 1, 8, 8\]"),
     ({"num_frames": 4}, "4 != 6"), ({"use_mean_pooling": False}, "layernorm"),
     ({"hidden_act": "relu"}, "activation"), ({"qkv_bias": False}, "qkv_bias=False")],
    ids=["heads", "tubelet", "frames", "pooling", "activation", "bias"],
)  # fmt: skip
def test_a_changed_setting_is_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    checkpoint = hub.read(save_videomae(tmp_path / "videomae", videomae()))
    hub.save(tmp_path / "saved", checkpoint.module, checkpoint.config, checkpoint.processor)
    file = tmp_path / "saved" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(TongganError, match=message):
        hub.read(tmp_path / "saved")


def test_a_processor_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    directory = save_videomae(tmp_path / "videomae", videomae())
    file = directory / "preprocessor_config.json"
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    file.write_text(json.dumps(json.loads(file.read_text()) | size))
    with pytest.raises(TongganError, match="video size: 16 by the processor, 24 by the model"):
        hub.read(directory)
