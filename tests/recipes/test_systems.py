"""Every shipped recipe runs; runs of models that are no two towers; adapters as a stage; evaluations of each kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tonggan import load, recipes
from tonggan.backends import load_local
from tonggan.config import ConfigError
from tonggan.data.sources import SOURCES
from tonggan.data.sources.scenes import can_speak
from tonggan.models.adapt import is_adapted
from tonggan.recipes.config import RunConfig
from tonggan.recipes.run import Run
from tonggan.tensors import Batch
from tonggan.train.planner import Plan, preflight
from tonggan.train.trainer import Stream, Trainer
from tonggan.types import UsageError


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONGGAN_FEATURES", str(tmp_path / "features"))


def short(name: str, steps: int = 3, needed: Path | None = None) -> RunConfig:
    """A recipe with so many updates per stage, or none where it has none, on few scenes; runs that it starts from are looked for in
    `needed`."""
    config = json.loads(RunConfig.read(recipes.path(name)).model_dump_json())
    for stage in config["stages"]:
        if stage["train"]["steps"] != 0:
            stage["train"] |= {"steps": steps, "minutes": None, "epochs": None, "log_every": 1, "eval_every": None, "eval_first": False}
    for data in _data(config):
        if data["source"] == "scenes" and "n" in data["options"]:
            data["options"]["n"] = min(data["options"]["n"], 1200 if data["label"] is not None else 400)
    if needed is not None:
        towers = config["model"]["towers"]
        towers |= {kind: str(needed / where) for kind, where in towers.items() if where.startswith("runs/")}
    return RunConfig.parse(config)


def _data(config: dict[str, Any]) -> list[dict[str, Any]]:
    measured = [one["data"] for one in (config["evaluation"], *config["looks"]) if one is not None]
    return [stream["data"] for stage in config["stages"] for stream in stage["streams"]] + measured


def prepared(name: str, folder: Path) -> None:
    """Train the runs whose towers a recipe takes, in small."""
    for where in RunConfig.read(recipes.path(name)).model.towers.values():
        if where.startswith("runs/"):
            Run(short(Path(where).name), folder / where, quiet=True).train()


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_plans_its_memory_and_runs_three_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    prepared(name, tmp_path)
    config = short(name, needed=tmp_path)
    data = [stream.data for stage in config.stages for stream in stage.streams] + [e.data for e in (config.evaluation, *config.looks) if e]
    if absent := sorted({one.source for one in data if one.source in SOURCES and not SOURCES[one.source].available()}):
        pytest.skip(f"not on this machine: {', '.join(absent)}")
    if any(one.options.get("spoken") for one in data) and not can_speak():
        pytest.skip("not on this machine: espeak-ng")
    planned: list[tuple[str, int]] = []

    def noted(trainer: Trainer, stream: Stream, batch: Batch, kept: int = 0) -> Plan:
        plan = preflight(trainer, stream, batch, kept)
        planned.append((stream.name, plan.needed))
        return plan

    monkeypatch.setattr("tonggan.recipes.run.preflight", noted)
    run = Run(config, tmp_path / "run", limit=None if any(one.label == "look" for one in data) else 40, quiet=True)
    finished = run.train()
    assert finished.stopped == "done"
    assert [stream for stream, _ in planned] == [stream.name for stage in config.stages for stream in stage.streams]
    assert all(needed > 0 for _, needed in planned)
    model = load(tmp_path / "run")
    assert model.can, "what was trained can be opened and used"


SHAPE = {"kind": "vit", "image_size": 32, "patch_size": 16, "width": 24, "layers": 1, "heads": 2, "mlp_width": 32}
WORDS = {"kind": "transformer", "vocab_size": 400, "context": 48, "width": 24, "layers": 1, "heads": 2, "mlp_width": 32}
SCENES = {"source": "scenes", "options": {"n": 60, "size": 32}, "split": None, "langs": ["en"]}
BERT = {"kind": "bert", "vocab_size": 400, "context": 48, "width": 24, "layers": 1, "heads": 2, "mlp_width": 32, "type_vocab": 1}
DATA2VEC = {"kind": "beit", "mask_token": True, "image_size": 32, "patch_size": 8, "width": 24, "layers": 2, "heads": 2, "mlp_width": 32}


def run_of(model: dict[str, Any], *streams: dict[str, Any], **more: Any) -> RunConfig:
    stage = {"streams": [{"loader": {"batch_size": 8}, **stream} for stream in streams], "train": {"steps": 3, "log_every": 1}}
    stage |= {"optim": {"lr": 1e-3, "warmup": 1}} | more.pop("stage", {})
    return RunConfig.parse({"name": "tiny", "model": {"config": model, "vocab_size": 400}, "stages": [stage], **more})


def numbers(run: Path) -> dict[str, float]:
    """The last evaluation's."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if any(name.startswith("eval/") for name in line)][-1]


def test_masked_words_are_learnt_without_pictures_and_judged_by_their_loss(tmp_path: Path) -> None:
    held = {"kind": "loss", "data": {**SCENES, "options": {"n": 20, "size": 32, "seed": 1}}}
    config = run_of({"kind": "bert", "text": BERT}, {"data": SCENES, "step": {"kind": "masked_language"}}, evaluation=held)
    Run(config, tmp_path / "run", quiet=True).train()
    found = numbers(tmp_path / "run")
    assert found["eval/loss"] == -found["eval/negative loss"]
    assert 0 <= found["eval/word_top1"] <= 1
    model = load_local(tmp_path / "run")
    assert model.can == {"features"}
    assert model.processor.text is not None and model.processor.text.vocabulary().mask


def test_the_loss_is_measured_by_the_same_draws_each_time_and_disturbs_no_training(tmp_path: Path) -> None:
    stream = {"data": SCENES, "step": {"kind": "masked_language"}}
    shape = {"kind": "bert", "text": BERT}
    frozen = {"train": {"steps": 4, "log_every": 1, "eval_every": 2}, "optim": {"lr": 0.0, "warmup": 0}}
    looking = run_of(shape, stream, evaluation={"kind": "loss", "data": SCENES}, stage=frozen)
    Run(looking, tmp_path / "looking", quiet=True).train()
    lines = [json.loads(line) for line in (tmp_path / "looking" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["eval/loss"] for line in lines if "eval/loss" in line]
    assert losses[0] == losses[1]
    blind = {**frozen, "train": {"steps": 4, "log_every": 1}}
    Run(run_of(shape, stream, stage=blind), tmp_path / "blind", quiet=True).train()
    unseen = [json.loads(line) for line in (tmp_path / "blind" / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in unseen] == [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_latent_learning_is_probed_and_its_teacher_is_kept(tmp_path: Path) -> None:
    probe = {
        "kind": "probe",
        "label": "look",
        "choose": False,
        "data": {"source": "scenes", "options": {"n": 300, "size": 32}, "split": None},
    }
    step = {"kind": "latent", "modality": "image", "top_layers": 2, "smallest_block": 2}
    config = run_of({"kind": "data2vec", "image": DATA2VEC}, {"data": SCENES, "step": step}, evaluation=probe)
    Run(config, tmp_path / "run", quiet=True).train()
    assert 0 <= numbers(tmp_path / "run")["eval/probe acc1"] <= 1
    from safetensors.torch import load_file

    kept = load_file(tmp_path / "run" / "last" / "trainer.safetensors")
    assert any(name.startswith("steps/pairs.") for name in kept), "the teacher is not the model: it needs keeping"


def test_three_tasks_at_once_say_their_shares_and_two_evaluations_look(tmp_path: Path) -> None:
    words = {"vocab_size": 400, "context": 48}
    model = {"kind": "vlmo", "image": {"image_size": 32, "patch_size": 16}, "text": words}
    model |= {"width": 24, "layers": 2, "heads": 2, "mlp_width": 32, "fused_layers": 1, "dim": 8}
    steps = [{"kind": "contrastive"}, {"kind": "matching", "negatives": "hard"}, {"kind": "masked_language", "with_pictures": True}]
    streams = [{"name": str(step["kind"]), "data": SCENES, "step": step} for step in steps]
    held = {**SCENES, "options": {"n": 20, "size": 32, "seed": 1}}
    config = run_of(
        model, *streams, evaluation={"data": held}, looks=[{"kind": "matching", "data": held}],
        stage={"train": {"steps": 3, "log_every": 1, "shares_every": 1}},
    )  # fmt: skip
    Run(config, tmp_path / "run", quiet=True).train()
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    shares = [first[f"{stream['name']}/gradient_share"] for stream in streams]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0
    found = numbers(tmp_path / "run")
    assert {"eval/mean recall", "eval/matching acc"} <= set(found)
    assert load(tmp_path / "run").can >= {"embed", "match", "features"}


def test_hiding_without_a_mask_token_says_what_to_set(tmp_path: Path) -> None:
    step = {"kind": "latent", "modality": "image", "top_layers": 2, "smallest_block": 2}
    config = run_of({"kind": "data2vec", "image": {**DATA2VEC, "mask_token": False}}, {"data": SCENES, "step": step})
    with pytest.raises(UsageError, match=r"stage train: step latent: .* set model\.config\.image\.mask_token: true"):
        Run(config, tmp_path, quiet=True).train()


def test_streams_of_one_task_share_its_teacher_which_moves_once_an_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tonggan.steps.latent import LatentStep

    moves = 0
    real = LatentStep.after_update

    def counted(step: LatentStep) -> None:
        nonlocal moves
        moves += 1
        real(step)

    monkeypatch.setattr(LatentStep, "after_update", counted)
    step = {"kind": "latent", "modality": "image", "top_layers": 2, "smallest_block": 2}
    streams = [{"name": name, "data": SCENES, "step": step} for name in ("one", "other")]
    run = Run(run_of({"kind": "data2vec", "image": DATA2VEC}, *streams), tmp_path / "run", quiet=True)
    run.train()
    assert moves == 3
    trainer = run.trainer(0, run.config.stages[0])
    assert trainer.streams[0].step is trainer.streams[1].step
    from safetensors.torch import load_file

    kept = {name.split(".")[0] for name in load_file(tmp_path / "run" / "last" / "trainer.safetensors") if name.startswith("steps/")}
    assert kept == {"steps/one"}, "once, not twice"


def test_looks_keep_their_languages_whatever_the_stage_is_evaluated_by(tmp_path: Path) -> None:
    both = {"source": "scenes", "options": {"n": 30, "size": 32}, "split": None}
    model = {"kind": "dual_encoder", "image": SHAPE, "text": WORDS, "dim": 8}
    looks = [{"kind": "retrieval", "data": both, "langs": ["en"]}]
    config = run_of(model, {"data": SCENES}, evaluation={"data": both}, looks=looks, stage={"langs": ["zh"]})
    Run(config, tmp_path / "run", quiet=True).train()
    found = numbers(tmp_path / "run")
    assert {"eval/t2i zh R@1", "eval/retrieval t2i en R@1"} <= set(found)
    assert not {"eval/t2i en R@1", "eval/retrieval t2i zh R@1"} & set(found)


def two_stages(**adapt: Any) -> RunConfig:
    streams = [{"data": SCENES, "loader": {"batch_size": 8}}]
    train, optim = {"steps": 3, "log_every": 1}, {"lr": 1e-2, "warmup": 1}
    stages = [
        {"name": "base", "streams": streams, "train": train, "optim": optim},
        {"name": "adapter", "streams": streams, "train": {**train, "checkpoint_every": 1}, "optim": optim, "adapt": adapt},
    ]
    model = {"config": {"kind": "dual_encoder", "image": SHAPE, "text": WORDS, "dim": 8}, "vocab_size": 400}
    return RunConfig.parse({"name": "tiny", "model": model, "stages": stages})


def test_an_adapter_is_a_stage_and_is_saved_beside_its_base(tmp_path: Path) -> None:
    config = two_stages(kind="lora", rank=2, parts=["text"], whole=["text_head"])
    Run(config, tmp_path / "run", quiet=True).train()
    assert (tmp_path / "run" / "last" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "run" / "last" / "model.safetensors").exists()
    model, base = load_local(tmp_path / "run"), load_local(tmp_path / "run" / "stages" / "base" / "last")
    assert is_adapted(model.module)
    before, after = base.module.state_dict(), model.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("text_head"))
    assert not torch.equal(before["text_head.weight"], after["text_head.weight"])


def test_an_adapter_resumes_where_it_was(tmp_path: Path) -> None:
    config = two_stages(kind="lora", rank=2, dropout=0.3)
    Run(config, tmp_path / "whole", quiet=True).train()
    part = Run(config, tmp_path / "part", quiet=True)
    update, done = "tonggan.train.trainer.Trainer.update", 0
    with pytest.MonkeyPatch.context() as patch:
        real = Trainer.update

        def stops(trainer: Trainer) -> Any:
            nonlocal done
            done += 1
            if done == 6:
                raise KeyboardInterrupt
            return real(trainer)

        patch.setattr(update, stops)
        with pytest.raises(KeyboardInterrupt):
            part.train()
    Run(config, tmp_path / "part", quiet=True).train(resume=True)
    whole, parts = (load(tmp_path / name) for name in ("whole", "part"))
    assert whole.identity.weights == parts.identity.weights


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"adapt": {"kind": "lora"}}, "adapt needs a base to stand beside"),
        ({"adapt": {"kind": "lora"}, "centre": True}, "change the base that an adapter stands beside"),
    ],
    ids=["no base", "a base that moves"],
)
def test_adapters_that_cannot_be_meant_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run_of({"kind": "dual_encoder", "image": SHAPE, "text": WORDS, "dim": 8}, {"data": SCENES}, stage=change)


def test_parts_are_frozen_by_a_pattern(tmp_path: Path) -> None:
    model = {"kind": "dual_encoder", "image": SHAPE, "text": WORDS, "dim": 8}
    config = run_of(model, {"data": SCENES}, stage={"freeze": ["text.transformer.blocks.*.attention"]})
    run = Run(config, tmp_path / "run", quiet=True)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train()
    moved = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(".attention." in name for name in moved if name.startswith("text"))
    assert any(".attention." in name for name in moved if name.startswith("image"))
    with pytest.raises(UsageError, match="no part"):
        Run(run_of(model, {"data": SCENES}, stage={"freeze": ["no.*.such"]}), tmp_path / "other", quiet=True).train()


def test_what_the_model_has_no_tower_for_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="reads no pictures, which its streams learn from; it takes: text"):
        Run(run_of({"kind": "bert", "text": BERT}, {"data": SCENES}), tmp_path, quiet=True)
