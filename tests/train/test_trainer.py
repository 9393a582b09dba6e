"""The loop: resume bit for bit, checkpoints that survive a full disk and a kill, parameter groups, averages, clear errors."""

from __future__ import annotations

import errno
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tonggan import devices
from tonggan.config import ConfigError
from tonggan.data.rows import Dataset
from tonggan.data.sources import scenes
from tonggan.models import build, presets
from tonggan.tensors import Batch, StepOutput
from tonggan.train import checkpoint
from tonggan.train.optim import Average, OptimConfig, groups, optimizer, rate
from tonggan.train.trainer import Stream, TrainConfig, Trainer, pick_precision
from tonggan.types import TongganError, UsageError


class Counting:
    """Batches that depend on a counter, and can be taken up again."""

    batches_per_epoch = 4.0

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.at += 1
        generator = torch.Generator().manual_seed(self.at)
        return Batch(ids=(str(self.at),) * 8, image_features=torch.randn(8, 6, generator=generator))

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


class Regress(nn.Module):
    """Learns a fixed linear map, with dropout so that random numbers matter."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.3), nn.Linear(12, 1))

    def forward(self, batch: Batch) -> StepOutput:
        assert batch.image_features is not None
        loss = (self.net(batch.image_features) - batch.image_features.sum(1, keepdim=True)).square().mean()
        return StepOutput(loss, {"loss": float(loss.detach())})


def make(run: Path, step: nn.Module | None = None, choose: bool = True, **train: Any) -> Trainer:
    torch.manual_seed(3)
    module = step or Regress()

    def save(directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        save_file(module.state_dict(), directory / "model.safetensors")

    settings = {"steps": 20, "log_every": 1} | train
    return Trainer(
        module,
        [Stream("only", module, Counting())],
        TrainConfig(**settings),
        OptimConfig(lr=1e-2, warmup=5, ema=0.9),
        run=run,
        save=save,
        evaluate=lambda: {"score": float(module.net[0].weight.sum())},  # type: ignore[union-attr,operator,index]
        score="score",
        choose=choose,
        quiet=True,
    )


def records(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("seconds", "items_per_second")} for r in found]


@pytest.mark.parametrize("stop", [1, 7, 19])
def test_resume_is_bit_for_bit(tmp_path: Path, stop: int) -> None:
    make(tmp_path / "whole", eval_every=6).fit()
    first = make(tmp_path / "parts", eval_every=6)
    first.progress = lambda: first.step / 20 if first.step < stop else 1.0  # type: ignore[method-assign]
    first._evaluation_due = lambda: first.step % 6 == 0  # type: ignore[method-assign]
    first.fit()
    torch.manual_seed(999)  # whatever came between must not matter
    make(tmp_path / "parts", eval_every=6).fit(resume=True)
    assert records(tmp_path / "whole") == records(tmp_path / "parts")
    whole, parts = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("choose", [True, False])
def test_an_evaluation_that_is_only_looked_at_chooses_nothing(tmp_path: Path, choose: bool) -> None:
    trainer = make(tmp_path, choose=choose, eval_every=5)
    scores = iter([3.0, 4.0, 2.0, 1.0])
    trainer._evaluate = lambda: {"score": next(scores)}
    trainer.fit()
    kept = json.loads((tmp_path / "best" / checkpoint.STATE).read_text())
    assert (kept["step"], kept["score"]) == ((10, 4.0) if choose else (20, 1.0))
    best, last = (load_file(tmp_path / name / "model.safetensors") for name in ("best", "last"))
    assert all(torch.equal(best[n], last[n]) for n in best) is not choose
    with pytest.raises(UsageError, match=r"train\.patience"):
        make(tmp_path / "other", choose=False, patience=2)


class Sums(nn.Module):
    """Regress without randomness and in two halves, for GradCache."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 1))

    def forward(self, batch: Batch) -> StepOutput:
        return self.couple(self.encode(batch), None)

    def encode(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.image_features is not None
        return {"off": self.net(batch.image_features) - batch.image_features.sum(1, keepdim=True)}

    def couple(self, reps: dict[str, torch.Tensor], keys: torch.Tensor | None) -> StepOutput:
        loss = reps["off"].square().mean()
        return StepOutput(loss, {"loss": float(loss.detach()), "most": float(reps["off"].detach().abs().max())})


def streamed(run: Path, every: int = 1, **train: Any) -> Trainer:
    torch.manual_seed(4)
    trainer = make(run, Sums(), **train)
    trainer.streams = [Stream("a", trainer.module, Counting()), Stream("b", trainer.module, Counting(), weight=3.0, every=every)]
    return trainer


def test_a_weight_counts_once_also_in_parts(tmp_path: Path) -> None:
    """In what is logged, and in what is learnt."""
    whole, parts = streamed(tmp_path / "whole"), streamed(tmp_path / "parts", micro_batch=3)
    whole.fit(), parts.fit()
    for one, other in zip(records(tmp_path / "whole"), records(tmp_path / "parts"), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
        if "loss" in one:
            assert one["loss"] == pytest.approx(one["a/loss"] + 3 * one["b/loss"])
    for mine, theirs in zip(whole.module.parameters(), parts.module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_stream_that_is_seldom_due_is_logged(tmp_path: Path) -> None:
    """Every fourth update has one: the numbers of updates 1, 5, 9, 13 and 17 stand in lines 1, 5, 10, 15 and 20, resumed or not."""
    streamed(tmp_path / "each", every=4, log_every=1).fit()
    streamed(tmp_path / "whole", every=4, log_every=5).fit()
    each = {r["step"]: r for r in records(tmp_path / "each") if "loss" in r}
    whole = {r["step"]: r for r in records(tmp_path / "whole") if "loss" in r}
    assert {step for step, r in each.items() if "b/loss" in r} == {1, 5, 9, 13, 17}
    for step, update in {1: 1, 5: 5, 10: 9, 15: 13, 20: 17}.items():
        assert whole[step]["b/most"] == each[update]["b/most"] and whole[step]["a/most"] == each[step]["a/most"]
        assert whole[step]["loss"] == pytest.approx(whole[step]["a/loss"] + 3 * whole[step]["b/loss"])
    first = streamed(tmp_path / "parts", every=4, log_every=5)
    first.progress = lambda: first.step / 20 if first.step < 14 else 1.0  # type: ignore[method-assign]
    first._evaluation_due = lambda: False  # type: ignore[method-assign]
    first.fit()
    streamed(tmp_path / "parts", every=4, log_every=5).fit(resume=True)
    assert whole == {r["step"]: r for r in records(tmp_path / "parts") if "loss" in r}


def test_interrupt_writes_a_checkpoint_and_resume_goes_on(tmp_path: Path) -> None:
    make(tmp_path / "whole").fit()
    first = make(tmp_path / "parts")
    update = first.update

    def interrupted() -> Any:
        if first.step == 8:
            signal.raise_signal(signal.SIGINT)
        return update()

    first.update = interrupted  # type: ignore[method-assign]
    assert first.fit().stopped == "interrupted"
    assert first.step == 9
    make(tmp_path / "parts").fit(resume=True)
    assert [r["loss"] for r in records(tmp_path / "parts") if "loss" in r] == [
        r["loss"] for r in records(tmp_path / "whole") if "loss" in r
    ]


def test_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path)
    trainer.update()
    trainer.write()
    before = {f.name: f.read_bytes() for f in (tmp_path / "last").iterdir()}
    trainer.update()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(TongganError, match=r"No space left.*previous one in .* is intact"):
        trainer.write()
    assert {f.name: f.read_bytes() for f in (tmp_path / "last").iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["last"], "no leftovers"


@pytest.mark.parametrize("room", [200, 3000, 12_000])
def test_a_disk_that_is_really_full(tmp_path: Path, room: int) -> None:
    """No file may grow past `room` bytes: the model or the trainer's state fails, as on a full disk."""
    trainer = make(tmp_path)
    trainer.update()
    trainer.write()
    before = {f.name: f.read_bytes() for f in (tmp_path / "last").iterdir()}
    assert max(map(len, before.values())) > room
    trainer.update()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, usual[1]))
    try:
        with pytest.raises(TongganError, match=r"could not be written.*previous one in .* is intact"):
            trainer.write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert {f.name: f.read_bytes() for f in (tmp_path / "last").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["last"], "no leftovers"
    trainer.write()
    assert checkpoint.read(tmp_path / "last")[1]["step"] == 2


def test_a_full_disk_is_told_where_metrics_are_written(tmp_path: Path) -> None:
    trainer = make(tmp_path, checkpoint_every=2)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    update = trainer.update

    def filling() -> Any:
        if trainer.step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "metrics.jsonl").stat().st_size, usual[1]))
        return update()

    trainer.update = filling  # type: ignore[method-assign]
    try:
        with pytest.raises(TongganError, match=r"metrics\.jsonl: could not be written.*--resume"):
            trainer.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    make(tmp_path).fit(resume=True)
    make(tmp_path / "whole").fit()
    assert [r["loss"] for r in records(tmp_path) if "loss" in r] == [r["loss"] for r in records(tmp_path / "whole") if "loss" in r]


def test_a_model_that_cannot_be_saved_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.update()
    trainer.write()

    def refuse(directory: Path) -> None:
        directory.mkdir()
        raise TongganError("no room for the model")

    trainer._save = refuse
    with pytest.raises(TongganError, match=r"no room for the model.*previous one in .* is intact"):
        trainer.write()
    assert [p.name for p in tmp_path.iterdir()] == ["last"], "no leftovers"


def test_a_kill_while_best_is_replaced_is_settled(tmp_path: Path) -> None:
    make(tmp_path, eval_every=5).fit()
    (tmp_path / "best").rename(tmp_path / ".best.previous")
    make(tmp_path, eval_every=5).fit(resume=True)
    assert (tmp_path / "best" / "model.safetensors").is_file()


def test_a_kill_between_the_renames_is_settled(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.update()
    trainer.write()
    (tmp_path / "last").rename(tmp_path / ".last.previous")
    _, state = checkpoint.read(tmp_path / "last")
    assert state["step"] == 1


def test_nothing_to_resume_and_damage_are_told(tmp_path: Path) -> None:
    with pytest.raises(TongganError, match="nothing to resume from"):
        make(tmp_path).fit(resume=True)
    trainer = make(tmp_path)
    trainer.write()
    (tmp_path / "last" / "trainer.safetensors").write_bytes(b"half")
    with pytest.raises(TongganError, match="damaged"):
        make(tmp_path).fit(resume=True)


def test_a_loss_that_is_no_number_stops_and_names_the_rows(tmp_path: Path) -> None:
    class Bad(Regress):
        def forward(self, batch: Batch) -> StepOutput:
            out = super().forward(batch)
            return StepOutput(out.loss * (float("nan") if batch.ids[0] == "4" else 1.0), out.report)

    trainer = make(tmp_path, Bad(), checkpoint_every=1)
    with pytest.raises(TongganError, match=r"became nan at update 4 .*rows 4"):
        trainer.fit()
    assert checkpoint.read(tmp_path / "last")[1]["step"] == 3


@pytest.mark.parametrize("clip", [1.0, None])
def test_a_gradient_that_is_no_number_spoils_no_weight(tmp_path: Path, clip: float | None) -> None:
    """The loss is fine, its gradient is not: sqrt at 0. Without a check every weight is lost, and the next checkpoint with them."""

    class Bad(Regress):
        def forward(self, batch: Batch) -> StepOutput:
            out = super().forward(batch)
            extra = (self.net[0].weight.sum() * 0).sqrt() if batch.ids[0] == "4" else 0.0  # type: ignore[union-attr,operator]
            return StepOutput(out.loss + extra, out.report)

    trainer = make(tmp_path, Bad(), checkpoint_every=1)
    trainer.optim = trainer.optim.model_copy(update={"clip_norm": clip})
    with pytest.raises(TongganError, match=r"gradient's norm became nan at update 4 .*rows 4"):
        trainer.fit()
    assert all(p.isfinite().all() for p in trainer.module.parameters())
    assert checkpoint.read(tmp_path / "last")[1]["step"] == 3


def test_best_is_the_best_and_patience_ends(tmp_path: Path) -> None:
    trainer = make(tmp_path, eval_every=1, patience=3)
    scores = iter([1.0, 3.0, 2.0, 2.5, 1.0, 9.0])
    trainer._evaluate = lambda: {"score": next(scores)}
    finished = trainer.fit()
    assert (finished.stopped, finished.best, finished.steps) == ("patience", 3.0, 5)
    assert json.loads((tmp_path / "best" / "trainer.json").read_text()) == {"step": 2, "score": 3.0}


def test_patience_that_has_run_out_stays_so(tmp_path: Path) -> None:
    """Neither Ctrl-C in the evaluation that exhausts it nor going on makes anything else of it."""
    trainer = make(tmp_path, eval_every=1, patience=1)
    scores = iter([2.0, 1.0])

    def evaluate() -> dict[str, float]:
        score = next(scores)
        if score == 1.0:
            signal.raise_signal(signal.SIGINT)
        return {"score": score}

    trainer._evaluate = evaluate
    assert trainer.fit().stopped == "patience"
    again = make(tmp_path, eval_every=1, patience=1)
    finished = again.fit(resume=True)
    assert (finished.stopped, finished.steps, finished.best) == ("patience", 2, 2.0)


def test_evaluation_changes_nothing(tmp_path: Path) -> None:
    plain = make(tmp_path / "a", eval_every=1000)
    plain.fit()
    noisy = make(tmp_path / "b", eval_every=2)
    noisy._evaluate = lambda: {"score": float(torch.randn(1))}
    noisy.fit()
    losses = [[r["loss"] for r in records(tmp_path / n) if "loss" in r] for n in "ab"]
    assert losses[0] == losses[1]


def test_groups_go_by_type_not_by_name() -> None:
    module = build(presets()["mini-recurrent"])
    decayed, plain = groups(module, 0.2)
    names = {id(p): n for n, p in module.named_parameters()}
    decays = {names[id(p)] for p in decayed["params"]}
    rests = {names[id(p)] for p in plain["params"]}
    assert decays | rests == set(names.values())
    assert not decays & rests
    assert "image.transformer.blocks.0.attention.q.weight" in decays
    assert "text.rnn.rnn.weight_ih_l0" in decays
    for name in ("log_scale", "image.class_token", "image.positions.weight", "text.embedding.weight", "image.post_norm.weight"):
        assert name in rests
    assert all(".bias" not in name for name in decays)


def test_parts_have_rates_of_their_own(tmp_path: Path) -> None:
    net = nn.ModuleDict({"image": nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), "head": nn.Linear(3, 2), "image_head": nn.Linear(3, 2)})
    found = groups(net, 0.2, {"image": 0.1, "image.1": 0.0, "head": 2.0})
    factor = {id(p): g["factor"] for g in found for p in g["params"]}
    assert {n: factor[id(p)] for n, p in net.named_parameters() if n.endswith("weight")} == {
        "image.0.weight": 0.1, "image.1.weight": 0.0, "head.weight": 2.0, "image_head.weight": 1.0,
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"optim\.parts: no part 'imgae' \(did you mean 'image'\?\)"):
        groups(net, 0.2, {"imgae": 0.1})
    step = Regress()
    before = step.net[0].weight.detach().clone()
    trainer = make(tmp_path, step)
    trainer.optim = trainer.optim.model_copy(update={"parts": {"net.0": 0.0}})
    trainer.optimizer = optimizer(step, trainer.optim)
    trainer.fit()
    assert torch.equal(step.net[0].weight, before)


def test_fused_adamw_equals_torchs_plain_one() -> None:
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        net = nn.Linear(5, 3)
        config = OptimConfig(lr=0.1, weight_decay=0.3)
        opt = optimizer(net, config) if fused else torch.optim.AdamW(groups(net, 0.3), lr=0.1, betas=config.betas, eps=config.eps)
        for _ in range(5):
            opt.zero_grad()
            net(torch.ones(2, 5)).square().sum().backward()
            opt.step()
        results.append(net.weight.detach())
    assert torch.allclose(*results, atol=1e-6)


def test_frozen_everything_is_an_error() -> None:
    with pytest.raises(UsageError, match="every parameter of the model is frozen"):
        optimizer(nn.Linear(2, 2).requires_grad_(False), OptimConfig())


def test_schedule() -> None:
    config = OptimConfig(warmup=10, final=0.1)
    assert rate(0.0, 0, config) == pytest.approx(0.1)
    assert rate(0.05, 9, config) == 1.0
    assert rate(1.0, 1000, config) == pytest.approx(0.1)
    assert rate(0.5, 500, OptimConfig(warmup=0)) == pytest.approx(0.5)
    assert rate(0.7, 500, OptimConfig(warmup=0, schedule="constant")) == 1.0


def test_average_follows_and_swaps() -> None:
    net = nn.Linear(3, 2)
    average = Average(net, 0.5)
    start = net.weight.detach().clone()
    with torch.no_grad():
        net.weight += 1
    average.update(1000)
    live = net.weight.detach().clone()
    with average:
        assert torch.allclose(net.weight, start + 0.5)
    assert torch.equal(net.weight, live)


def test_gpu_recipe_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"train\.device: 'cuda'.*train\.device=auto"):
        devices.choose("cuda", "train.device")
    with pytest.raises(UsageError, match="no device"):
        devices.choose("gpu", "train.device")
    with pytest.raises(UsageError, match=r"train\.precision: bf16"):
        pick_precision("bf16", torch.device("cpu"))
    assert pick_precision("auto", torch.device("cpu")) is False


@pytest.mark.parametrize("every", [1, 2, 3])
def test_epochs_are_passes_over_the_first_stream_however_seldom_it_is_due(tmp_path: Path, every: int) -> None:
    """Four batches are a pass."""
    trainer = make(tmp_path, steps=None, epochs=2.0)
    trainer.streams = [Stream("a", trainer.module, Counting(), every=every), Stream("b", trainer.module, Counting())]
    trainer.fit()
    assert [stream.batches.state_dict()["at"] for stream in trainer.streams] == [8, 8 * every]


def test_exactly_one_length(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exactly one of steps, epochs and minutes"):
        make(tmp_path, minutes=1.0)
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        TrainConfig.parse({"stesp": 3})
    for wrong in ({"steps": -1}, {"log_every": 0}, {"eval_every": 0}, {"micro_batch": 0}, {"checkpoint_every": 0}, {"minutes": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            TrainConfig.parse(wrong)


NOTING = """
import json, sys
from tonggan.cli import main
from tonggan.data.loader import Loader
from tonggan.train.trainer import Trainer

file, taken, following, update = sys.argv.pop(1), [], Loader.__next__, Trainer.update

def take(loader):
    batch = following(loader)
    taken[:] = batch.ids
    return batch

def noted(trainer):
    found = update(trainer)
    with open(file, "a") as out:
        out.write(json.dumps([trainer.step, taken]) + "\\n")
    return found

Loader.__next__, Trainer.update = take, noted
main()
"""
"""The command line, with a line in a file for every update: its number and the rows of its batch."""


@pytest.mark.slow
@pytest.mark.parametrize("window", ["null", "30"], ids=["map", "shards"])
def test_kill_at_random_moments_and_resume(tmp_path: Path, window: str) -> None:
    """kill -9, several times, in map and shard mode: batches, losses and evaluations are those of a run that nobody touched."""
    scenes.generate(300).write(tmp_path / "scenes", shard_rows=40)
    assert len(Dataset.read(tmp_path / "scenes").split("train").shards) > 4

    def command(name: str) -> list[str]:
        return [
            sys.executable, "-c", NOTING, str(tmp_path / f"{name}.jsonl"), "train", "quickstart",
            f"stages.0.streams.0.data.source={tmp_path / 'scenes'}", f"evaluation.data.source={tmp_path / 'scenes'}",
            "model.preset=mini-rn", "stages.0.train.steps=40", "stages.0.train.checkpoint_every=3", "stages.0.train.log_every=1",
            "stages.0.train.eval_every=10", f"stages.0.streams.0.loader.window={window}", "stages.0.streams.0.loader.batch_size=16",
            "--out", str(tmp_path / name),
        ]  # fmt: skip

    subprocess.run(command("whole"), check=True, capture_output=True, timeout=280)
    generator = torch.Generator().manual_seed(5)
    resume: list[str] = []
    for _ in range(3):
        process = subprocess.Popen([*command("killed"), *resume], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = int(torch.randint(2, 12, (1,), generator=generator))
        begun = _lines(tmp_path / "killed")
        deadline = time.monotonic() + 120
        while _lines(tmp_path / "killed") < begun + wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        resume = ["--resume"] if (tmp_path / "killed" / "last").exists() or (tmp_path / "killed" / ".last.previous").exists() else []
        if not resume:
            (tmp_path / "killed" / "metrics.jsonl").unlink(missing_ok=True)
    subprocess.run([*command("killed"), *resume], check=True, capture_output=True, timeout=280)
    assert records(tmp_path / "killed") == records(tmp_path / "whole")
    whole, killed = ([json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()] for name in ("whole", "killed"))
    rows = dict(whole)
    assert sorted(rows) == list(range(1, 41)) == sorted({step for step, _ in killed})
    assert all(ids == rows[step] for step, ids in killed), "also of the updates that a kill undid"


def _lines(run: Path) -> int:
    file = run / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0
