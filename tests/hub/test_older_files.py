"""Directories that releases of transformers saved years ago: read as they are, with the outputs that those releases gave.

`fixtures/make.py` says how they were made: pickles in two formats, vocabularies instead of tokenizer.json, picture settings as bare
numbers, positions stored as weights, LayerNorms with `gamma` and `beta`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hub.fixtures.make import HERE, TEXTS, pictures
from hub.references import close
from tonggan import hub
from tonggan.types import TongganError

RELEASES = ["4.6.1", "4.26.1"]


def golden(directory: Path) -> dict[str, torch.Tensor]:
    with np.load(directory / "golden.npz") as found:
        return {name: torch.from_numpy(found[name]) for name in found.files}


@pytest.mark.parametrize("name", ["clip-4.6.1", "clip-4.26.1", "chinese-clip-4.26.1"])
def test_two_towers(name: str) -> None:
    checkpoint = hub.read(HERE / name)
    expected, processor = golden(HERE / name), checkpoint.processor
    assert processor.text is not None
    ids, _ = processor.text.encode(TEXTS)
    assert ids == [expected[f"input_ids.{i}"][0].tolist() for i in range(len(TEXTS))]
    assert processor.image is not None
    mean, std = (torch.tensor(values)[:, None, None] for values in (processor.image.config.mean, processor.image.config.std))
    theirs = (expected["pixel_values"] * std + mean) * 255
    # 4.6.1 scaled both sides to `size`; later releases read the same number as the short side, as OpenAI's code does. So do we.
    alike = slice(None, 1) if name == "clip-4.6.1" else slice(None)
    # Releases of Pillow round its filters differently, by one of 255.
    assert float((processor.pixels(pictures())[alike] - theirs[alike]).abs().max()) < 1.01
    for i in range(len(TEXTS)):
        with torch.no_grad():
            ours = hub.outputs(checkpoint.module, {"pixel_values": expected["pixel_values"], "input_ids": expected[f"input_ids.{i}"]})
        close(ours["image_embeds"], expected["image_embeds"])
        close(ours["text_embeds"], expected[f"text_embeds.{i}"])
        close(ours["logits_per_text"], expected[f"logits_per_text.{i}"])


@pytest.mark.parametrize("release", RELEASES)
def test_bert(release: str) -> None:
    checkpoint = hub.read(HERE / f"bert-{release}")
    expected, tokenizer = golden(HERE / f"bert-{release}"), checkpoint.processor.text
    assert tokenizer is not None
    ids, _ = tokenizer.encode(TEXTS)
    assert ids == [expected[f"input_ids.{i}"][0].tolist() for i in range(len(TEXTS))]
    for i in range(len(TEXTS)):
        with torch.no_grad():
            ours = hub.outputs(checkpoint.module, {"input_ids": expected[f"input_ids.{i}"]})
        close(ours["last_hidden_state"], expected[f"last_hidden_state.{i}"])
        if f"logits.{i}" in expected:
            close(ours["logits"], expected[f"logits.{i}"])


def test_the_fixtures_are_what_they_are_said_to_be() -> None:
    """Otherwise the tests above would hold without anything old in the files."""
    directories = sorted(directory for directory in HERE.iterdir() if (directory / "config.json").is_file())
    assert len(directories) == 5
    for directory in directories:
        names = {file.name for file in directory.iterdir()}
        assert "pytorch_model.bin" in names and not names & {"model.safetensors", "tokenizer.json", "processor_config.json"}
    settings = [json.loads((HERE / f"clip-{release}" / "preprocessor_config.json").read_text()) for release in RELEASES]
    assert settings[0]["size"] == settings[0]["crop_size"] == 16 and settings[0]["feature_extractor_type"] == "CLIPFeatureExtractor"
    assert settings[1]["image_processor_type"] == "CLIPFeatureExtractor"
    config = json.loads((HERE / "clip-4.6.1" / "config.json").read_text())
    assert config["text_config_dict"]["hidden_size"] == 9  # both names are there; newer releases write one
    clip = torch.load(HERE / "clip-4.6.1" / "pytorch_model.bin", weights_only=True)
    assert "text_model.embeddings.position_ids" in clip and "vision_model.embeddings.position_ids" in clip
    bert = torch.load(HERE / "bert-4.6.1" / "pytorch_model.bin", weights_only=True)
    assert "bert.embeddings.LayerNorm.gamma" in bert and "bert.embeddings.LayerNorm.weight" not in bert
    assert (HERE / "bert-4.6.1" / "pytorch_model.bin").read_bytes()[:2] != b"PK"  # the pickle format of before 2020
    assert sum(file.stat().st_size for directory in directories for file in directory.iterdir()) < 300_000


@pytest.mark.parametrize("name", ["clip-4.6.1", "bert-4.6.1", "chinese-clip-4.26.1"])
def test_saved_anew_they_are_the_same_model(name: str, tmp_path: Path) -> None:
    first = hub.read(HERE / name)
    hub.save(tmp_path / "new", first.module, first.config, first.processor)
    second = hub.read(tmp_path / "new")
    assert second.identity.weights == first.identity.weights and second.identity.difference(first.identity) == []


def test_a_setting_that_changes_pixels_is_not_passed_over(tmp_path: Path) -> None:
    for file in (HERE / "clip-4.6.1").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**settings, "do_sharpen": True}))
    with pytest.raises(TongganError, match=r"do_sharpen=True \(unknown\)"):
        hub.read(tmp_path)
