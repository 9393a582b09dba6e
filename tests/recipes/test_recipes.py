"""Recipes parse, runs keep their promises: cached features equal the uncached run, frozen parts stay, stages follow each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tonggan import load, recipes
from tonggan.config import ConfigError
from tonggan.data.sources import scenes
from tonggan.recipes import cache
from tonggan.recipes.config import RunConfig
from tonggan.recipes.run import Run
from tonggan.types import UsageError


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONGGAN_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_parses_and_says_what_it_does(name: str) -> None:
    config = RunConfig.read(recipes.path(name))
    assert RunConfig.parse(json.loads(config.model_dump_json())) == config
    assert len(recipes.about(name)) > 20


TINY = {
    "kind": "dual_encoder",
    "image": {"kind": "vit", "image_size": 64, "patch_size": 16, "width": 32, "layers": 1, "heads": 2, "mlp_width": 64},
    "text": {"kind": "transformer", "vocab_size": 400, "context": 48, "width": 32, "layers": 1, "heads": 2, "mlp_width": 64},
    "dim": 16,
}


def config(**stage: Any) -> RunConfig:
    settings = {
        "streams": [{"data": {"source": "scenes", "options": {"n": 60}, "split": None, "langs": ["en"]}, "loader": {"batch_size": 16}}],
        "train": {"steps": 5, "log_every": 1},
        "optim": {"lr": 1e-2, "warmup": 2},
    } | stage
    return RunConfig.parse({"name": "tiny", "model": {"config": TINY, "vocab_size": 400}, "stages": [settings]})


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_cached_tower_equals_the_uncached_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Run(config(freeze=["image", "text"]), tmp_path / "cached", quiet=True).train()
    # The same run with nothing cached: pixels and tokens go through the frozen towers at every update.
    monkeypatch.setattr("tonggan.recipes.run.image_features", lambda model, rows, views=1: (_Absent(), []))
    plain = Run(config(freeze=["image", "text"]), tmp_path / "plain", quiet=True)
    monkeypatch.setattr(plain, "_stream", _without_cache(plain))
    plain.train()
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    a, b = load(tmp_path / "cached"), load(tmp_path / "plain")
    assert np.allclose(a.embed(["a red circle"]).vectors, b.embed(["a red circle"]).vectors, atol=1e-5)


class _Absent(dict[str, torch.Tensor]):
    pass


def _without_cache(run: Run) -> Any:
    original = Run._stream

    def stream(stage: Any, one: Any) -> Any:
        return original(run, stage.model_copy(update={"freeze": ()}), one)

    return stream


def test_frozen_parts_stay_bit_for_bit_and_the_others_move(tmp_path: Path) -> None:
    run = Run(config(freeze=["image"]), tmp_path, quiet=True)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train()
    after = run.model.state_dict()
    for name, value in before.items():
        if name.startswith("image."):
            assert torch.equal(value, after[name]), name
    assert not torch.equal(before["text_head.weight"], after["text_head.weight"])
    assert not torch.equal(before["image_head.weight"], after["image_head.weight"])


def test_features_come_from_disk_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(config(), tmp_path, quiet=True)
    rows = list(scenes.generate(12, seed=1, size=64))
    first, dropped = cache.image_features(run.local(), rows, views=2)
    assert not dropped
    assert next(iter(first.values())).shape == (2, 32)
    monkeypatch.setattr(run.model, "image_features", None)  # would fail if it were used
    second, _ = cache.image_features(run.local(), rows, views=2)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_changed_weights_are_encoded_again(tmp_path: Path) -> None:
    run = Run(config(), tmp_path, quiet=True)
    rows = list(scenes.generate(4, seed=1, size=64))
    first, _ = cache.image_features(run.local(), rows)
    with torch.no_grad():
        next(run.model.image.parameters()).add_(0.1)  # type: ignore[union-attr]
    second, _ = cache.image_features(run.local(), rows)
    assert not any(torch.equal(first[name], second[name]) for name in first)


def test_a_wrong_recipe_names_the_field(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("name: x\nmodel: {preset: mini}\nstages:\n- streams: []\n  train: {steps: 1}\n  optimm: {}\n")
    with pytest.raises(ConfigError, match=r"stages\.0\.optimm: no such field \(did you mean 'optim'\?\)"):
        RunConfig.read(file)
    with pytest.raises(ConfigError, match="exactly one of preset, config and start"):
        RunConfig.parse({"name": "x", "model": {}, "stages": []})
    with pytest.raises(UsageError, match=r"no part 'imgae' \(did you mean 'image'\?\)"):
        Run(config(freeze=["imgae"]), tmp_path / "out", quiet=True).train()


def test_resume_refuses_other_settings(tmp_path: Path) -> None:
    Run(config(), tmp_path, quiet=True).train()
    with pytest.raises(UsageError, match="has a run already"):
        Run(config(), tmp_path, quiet=True).train()
    with pytest.raises(UsageError, match="other settings"):
        Run(config(train={"steps": 9}), tmp_path, quiet=True).train(resume=True)


def test_two_stages_go_on_from_each_other(tmp_path: Path) -> None:
    one = json.loads(config().model_dump_json())
    second = json.loads(json.dumps(one["stages"][0])) | {"name": "second", "freeze": ["image", "text"]}
    both = RunConfig.parse(one | {"stages": [one["stages"][0] | {"name": "first"}, second]})
    Run(both, tmp_path, quiet=True).train()
    first = load(tmp_path / "stages" / "first")
    last = load(tmp_path)
    mine, theirs = last.checkpoint.module.state_dict(), first.checkpoint.module.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(mine[n], theirs[n]) for n in mine if n.startswith(("image.", "text.")))
    assert not torch.equal(mine["image_head.weight"], theirs["image_head.weight"])
