"""What a run would fail by is said before its first update; an adapter on an adapted model; streams of any name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tonggan import hub, load
from tonggan.config import ConfigError
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import train_bpe
from tonggan.models import DualEncoderConfig, build
from tonggan.recipes.config import RunConfig
from tonggan.recipes.run import Run
from tonggan.types import UsageError


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONGGAN_HOME", str(tmp_path / "home"))


IMAGE = {"kind": "vit", "image_size": 32, "patch_size": 16, "width": 24, "layers": 1, "heads": 2, "mlp_width": 32}
TEXT = {"kind": "transformer", "vocab_size": 300, "context": 48, "width": 24, "layers": 1, "heads": 2, "mlp_width": 32}
TWO = {"kind": "dual_encoder", "image": IMAGE, "text": TEXT, "dim": 8}
BERT = {"kind": "bert", "text": {**TEXT, "kind": "bert"}}
VLMO = {
    "kind": "vlmo", "image": {"image_size": 32, "patch_size": 16}, "text": {"vocab_size": 300, "context": 48},
    "width": 24, "layers": 2, "heads": 2, "mlp_width": 32, "fused_layers": 1, "dim": 8,
}  # fmt: skip
SCENES = {"source": "scenes", "options": {"n": 24, "size": 32}, "split": None, "langs": ["en"]}
BOTH = {**SCENES, "langs": None}
MASKED = {"step": {"kind": "masked_language"}}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("start") / "model"
    tokenizer = train_bpe(["a red circle", "a blue square"], 300, max_length=48)
    shape = DualEncoderConfig.parse({**TWO, "text": {**TEXT, "vocab_size": tokenizer.vocab_size}})
    hub.save(directory, build(shape).eval(), shape, Processor(ImageProcessor(ImageProcessing(size=32)), tokenizer))
    return directory


def config(model: dict[str, Any], stream: dict[str, Any] | None = None, *, whole: dict[str, Any] | None = None, **stage: Any) -> RunConfig:
    one = {"data": SCENES, "loader": {"batch_size": 8}} | (stream or {})
    settings = {"streams": [one], "train": {"steps": 2, "log_every": 1}, "optim": {"lr": 1e-2, "warmup": 1}} | stage
    return RunConfig.parse({"name": "tiny", "model": model, "stages": [settings], **(whole or {})})


def shape(of: dict[str, Any]) -> dict[str, Any]:
    return {"config": of, "vocab_size": 300}


def lora(*parts: str, **more: Any) -> dict[str, Any]:
    return {"kind": "lora", "rank": 2, "parts": list(parts), **more}


def test_an_adapter_beside_an_adapted_start_is_loaded_as_it_was_trained(start: Path, tmp_path: Path) -> None:
    Run(config({"start": str(start)}, adapt=lora("text")), tmp_path / "a", quiet=True).train()
    second = Run(config({"start": str(tmp_path / "a")}, adapt=lora("image", alpha=8.0)), tmp_path / "b", quiet=True)
    second.train()
    picture = second.rows(second.config.stages[0].streams[0].data)[0].images[0]
    plain, one, two = (load(where).embed([picture, "a red circle"]).vectors for where in (start, tmp_path / "a", tmp_path / "b"))
    assert np.array_equal(two, second.local().embed([picture, "a red circle"]).vectors)
    assert np.array_equal(two[1], one[1]) and not np.allclose(two[1], plain[1]), "the first adapter is still there"
    assert not np.allclose(two[0], one[0]), "and so is the second"


def test_an_adapted_start_is_not_trained_without_an_adapter(start: Path, tmp_path: Path) -> None:
    Run(config({"start": str(start)}, adapt=lora("text")), tmp_path / "a", quiet=True).train()
    with pytest.raises(UsageError, match=r"has an adapter.*tonggan merge .*/a DIRECTORY"):
        Run(config({"start": str(tmp_path / "a")}), tmp_path / "b", quiet=True).train()
    assert not (tmp_path / "b" / "last").exists()


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ({"freeze": ["image"], "adapt": lora()}, "image is frozen, but the adapter goes into it"),
        ({"freeze": ["text.transformer"], "adapt": lora("text")}, r"text\.transformer is frozen, but the adapter goes into it"),
        ({"freeze": ["text.*"], "adapt": lora("text", whole=["image_head"])}, "is frozen, but the adapter goes into it"),
        ({"freeze": ["image_head"], "adapt": lora("text", whole=["image_head"])}, "image_head is frozen, but the adapter"),
        ({"adapt": lora("txt")}, "adapt: no part 'txt'"),
        ({"freeze": ["image"], "stream": {"augment": {}}}, "augment changes nothing where a frozen picture tower .* use views"),
    ],
    ids=str,
)
def test_what_a_stage_freezes_and_adapts_is_held_against_the_model(start: Path, tmp_path: Path, stage: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Run(config({"start": str(start)}, **stage), tmp_path / "run", quiet=True).train()
    assert not (tmp_path / "run" / "last").exists()


def test_a_model_that_is_frozen_whole_has_nothing_to_train(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing to train: .*; take parts out of freeze \(text, head\)"):
        Run(config(shape(BERT), MASKED, freeze=["text", "head"]), tmp_path, quiet=True).train()


def test_a_stage_of_adapters_is_checked_before_the_one_before_it_is_trained(tmp_path: Path) -> None:
    first = json.loads(config(shape(TWO)).model_dump_json())["stages"][0]
    second = first | {"name": "second", "freeze": ["text.transformer"], "adapt": lora("text")}
    two = config(shape(TWO), whole={"stages": [first, second]})
    with pytest.raises(UsageError, match=r"stage second: text\.transformer is frozen"):
        Run(two, tmp_path, quiet=True).train()
    assert not (tmp_path / "stages").exists()


def test_looking_at_an_adapter_beforehand_draws_nothing_and_freezes_nothing(start: Path, tmp_path: Path) -> None:
    import torch

    from tonggan.recipes.checks import check
    from tonggan.recipes.rows import RunRows

    settings = config({"start": str(start)}, freeze=["image"], adapt=lora("text"))
    run = Run(settings, tmp_path, quiet=True)
    state = torch.get_rng_state()
    check(settings, run.model, RunRows(settings), None)
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.requires_grad for parameter in run.model.parameters())


def test_a_frozen_part_of_one_transformer_is_not_encoded_once(tmp_path: Path) -> None:
    Run(config(shape(VLMO), {"augment": {}}, freeze=["image"]), tmp_path / "augmented", quiet=True).train()
    with pytest.raises(UsageError, match="only those of two-tower models do, and this is none: leave views out"):
        Run(config(shape(VLMO), freeze=["image"], views=4), tmp_path / "views", quiet=True).train()


@pytest.mark.parametrize(
    ("model", "stream", "whole", "says"),
    [
        (BERT, MASKED, {"evaluation": {"data": SCENES}}, "stage train: evaluation: retrieval needs a model that embeds"),
        (BERT, MASKED, {"evaluation": {"kind": "matching", "data": SCENES}}, "matching needs a model that reads a picture and a text"),
        (BERT, MASKED, {"evaluation": {"kind": "probe", "label": "look", "data": SCENES}}, "the model reads: text"),
        (TWO, {}, {"evaluation": {"data": SCENES, "between": ["video", "text"]}}, "it reads: image, text|no row of split"),
        (
            TWO,
            {},
            {"evaluation": {"data": SCENES}, "looks": [{"kind": "retrieval", "data": SCENES, "langs": ["xx"]}]},
            "looks.0: no .*'xx'",
        ),
        (TWO, {"data": BOTH, "step": {"kind": "transfer"}}, {"evaluation": {"kind": "loss", "data": BOTH}}, "take kind: retrieval"),
        (
            TWO,
            {},
            {"evaluation": {"kind": "probe", "label": "look", "data": {**SCENES, "split": "train"}}},
            r"no row of split test has a class in column 'look'; set data\.split: null",
        ),
    ],
    ids=["retrieval of a bert", "matching of a bert", "probe of a bert", "clips", "looks", "transfer", "probe of one split"],
)
def test_evaluations_that_cannot_work_are_found_first(
    tmp_path: Path, model: dict[str, Any], stream: dict[str, Any], whole: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        Run(config(shape(model), stream, whole=whole), tmp_path, quiet=True).train()
    assert not (tmp_path / "last").exists()


@pytest.mark.parametrize(
    ("model", "whole", "says"),
    [
        (shape(TWO), {"looks": [{"kind": "retrieval", "data": SCENES}]}, "looks are taken when the evaluation is, which is not set"),
        ({"start": "runs/a", "resize_positions": True}, {}, "start keeps its size: .*take towers: {image: runs/a"),
        ({"start": "runs/a", "vocab_size": 300}, {}, "start brings its own: leave it out"),
        ({"preset": "mini", "towers": {"text": "runs/a"}, "vocab_size": 300}, {}, "towers.text brings its own: leave it out"),
        (shape(TWO), {"evaluation": {"kind": "probe", "label": "look", "of": "text", "data": SCENES}}, r"evaluation.*of"),
    ],
    ids=["looks", "positions", "vocabulary", "vocabulary beside a tower", "probe of text"],
)
def test_settings_that_would_do_nothing_are_refused(model: dict[str, Any], whole: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config(model, whole=whole)


def test_streams_may_be_called_as_modules_call_their_own(tmp_path: Path) -> None:
    names = ("train", "type", "语 料")
    streams = [{"name": name, "data": SCENES, "loader": {"batch_size": 8}} for name in names]
    Run(config(shape(TWO), streams=streams), tmp_path, quiet=True).train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert all(f"{name}/loss" in lines[-1] for name in names)
