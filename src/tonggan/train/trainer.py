"""The loop. It knows steps, batches and numbers; models, data sets and file formats arrive as arguments."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from pydantic import Field
from torch import nn

from tonggan import devices
from tonggan.config import Config
from tonggan.tensors import Batch, StepOutput
from tonggan.train import checkpoint
from tonggan.train.clock import Clock
from tonggan.train.gradcache import cached_backward
from tonggan.train.interrupts import interrupts
from tonggan.train.logs import Bar, Logger, sinks
from tonggan.train.optim import Average, OptimConfig, rate
from tonggan.train.shares import Shares
from tonggan.train.whole import Whole
from tonggan.types import TongganError, UsageError


class TrainConfig(Config):
    """How long, how exactly, how often."""

    steps: int | None = Field(default=None, ge=0)
    """Updates. One of `steps`, `epochs` and `minutes` is given; with `minutes` the schedule follows the clock."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the first stream's data, in updates that are more the more seldom it is due."""
    minutes: float | None = Field(default=None, gt=0)
    micro_batch: int | None = Field(default=None, ge=1)
    """Rows encoded at a time (GradCache); None: the whole batch. This is how gradients are accumulated here: the loss couples all rows of
    `batch_size`, and the gradient is that of the whole batch, whatever the micro-batch."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on a GPU that computes in it, fp32 elsewhere (on a CPU without it bf16 is several times slower)."""
    device: str = "auto"
    eval_every: int | None = Field(default=None, ge=1)
    """Updates between evaluations; None: five times in all."""
    eval_first: bool = False
    """Evaluate before the first update too: what the untrained model does."""
    patience: int | None = Field(default=None, ge=1)
    """Evaluations without a better score after which training stops; None: never."""
    checkpoint_seconds: float = Field(default=120.0, ge=0)
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Updates between checkpoints, besides `checkpoint_seconds`."""
    log_every: int = Field(default=10, ge=1)
    loggers: tuple[Logger, ...] = ()
    shares_every: int | None = Field(default=None, ge=1)
    """Updates between measurements of each stream's share of the gradient, for a run with several streams; None: never."""


class Batches(Protocol):
    """What the trainer asks of a loader."""

    def __next__(self) -> Batch: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...
    @property
    def batches_per_epoch(self) -> float: ...


@dataclass(frozen=True)
class Stream:
    """One source of batches and the step that learns from them; due every `every` updates, its loss times `weight`."""

    name: str
    step: nn.Module
    batches: Batches
    weight: float = 1.0
    every: int = 1


@dataclass(frozen=True)
class Finished:
    """How training ended."""

    steps: int
    seconds: float
    best: float | None
    stopped: Literal["done", "patience", "interrupted"]


class Trainer:
    """Trains the parameters of `module` that are not frozen, and those that steps add of their own, by the streams' steps.

    `save(directory)` writes the model; `evaluate()` gives metrics of which `score` (larger is better) chooses `best/`; without
    `choose` they are only looked at, and `best/` is the latest model. `frozen` modules stay in evaluation mode.
    The run's directory gets `metrics.jsonl`, `last/` (with the trainer's state) and `best/`.
    """

    def __init__(
        self,
        module: nn.Module,
        streams: Sequence[Stream],
        train: TrainConfig,
        optim: OptimConfig,
        *,
        run: Path,
        save: Callable[[Path], None],
        evaluate: Callable[[], dict[str, float]] | None = None,
        score: str | None = None,
        choose: bool = True,
        frozen: Sequence[nn.Module] = (),
        title: str = "train",
        quiet: bool = False,
    ) -> None:
        check_length(train)
        self.module, self.streams, self.train, self.optim = module, list(streams), train, optim
        self._frozen = tuple(frozen)
        check_patience(train, choose)
        self.run, self._save, self._evaluate, self._score, self._choose = run, save, evaluate, score, choose
        self.device = devices.choose(train.device, "train.device")
        self._autocast = pick_precision(train.precision, self.device)
        for stream in self.streams:
            stream.step.to(self.device)
        self._whole = Whole(module, {stream.name: stream.step for stream in reversed(self.streams)})
        self.optimizer = self._whole.optimizer(optim)
        self.average = Average(module, optim.ema) if optim.ema is not None else None
        self.step, self.seconds, self.best, self.waited, self.fifths = 0, 0.0, -math.inf, 0, 0
        self.clock = Clock(self.device)
        self._since: dict[str, float] = {}
        """The latest of every number since the last line of `metrics.jsonl`: a stream need not be due in the update that is written."""
        self._title, self._quiet = title, quiet
        self._interrupted = threading.Event()
        self._written = -1
        """Updates that `last/` holds."""

    # ------------------------------------------------------------------------------------------- running

    def fit(self, *, resume: bool = False) -> Finished:
        """Train to the end, or until Ctrl-C (a checkpoint is written), or until patience runs out."""
        checkpoint.settle(self.run / "best")
        if resume:
            self.load(self.run / "last")
        logs = sinks(self.run, self.train.loggers, keep_until=self.step)
        bar = Bar(self._title, quiet=self._quiet)
        stopped: Literal["done", "patience", "interrupted"] = "patience" if self._out_of_patience() else "done"
        saved = time.monotonic()
        try:
            if self.step == 0 and self.train.eval_first and self._evaluate is not None:
                self._measure(logs, bar)
            with interrupts(self._interrupted):
                while stopped == "done" and self.progress() < 1:
                    begun = time.perf_counter()
                    record, rows = self.update()
                    took = time.perf_counter() - begun
                    self.seconds += took
                    self._since |= record | {"items_per_second": rows / took}
                    self._since["loss"] = loss = self._total(self._since)
                    if self.step % self.train.log_every == 0 or self.step == 1:
                        for sink in logs:
                            sink.write({"step": self.step, "seconds": round(self.seconds, 3), **self._since})
                        self._since = {}
                    left = self.seconds * (1 / max(self.progress(), 1e-9) - 1)
                    bar.show(self.progress(), self.step, loss, rows / took, left)
                    if self._evaluation_due():
                        self._measure(logs, bar)
                        if self._out_of_patience():
                            stopped = "patience"
                    if stopped == "done" and self._interrupted.is_set():
                        stopped = "interrupted"
                    every = self.train.checkpoint_every
                    if stopped != "done" or time.monotonic() - saved > self.train.checkpoint_seconds or (every and self.step % every == 0):
                        self.write()
                        saved = time.monotonic()
                    if stopped != "done":
                        break
            if self.step == 0 and self._evaluate is not None:  # what was prepared without a single update
                self._measure(logs, bar)
            if self._written != self.step or self.step == 0:
                self.write()
        finally:
            bar.close()
            for sink in logs:
                sink.close()
        if stopped == "interrupted":
            bar.say(f"stopped at update {self.step}; everything is in {self.run / 'last'}: go on with --resume")
        return Finished(self.step, self.seconds, None if self.best == -math.inf else self.best, stopped)

    def update(self) -> tuple[dict[str, float], int]:
        """One update from one batch of every stream that is due; its numbers, and how many rows it used."""
        factor = rate(self.progress(), self.step, self.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = self.optim.lr * factor * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        record: dict[str, float] = {"loss": 0.0}
        rows = 0
        ids: dict[str, tuple[str, ...]] = {}
        due = self.due(self.step)
        measured = self.train.shares_every is not None and len(due) > 1 and self.step % self.train.shares_every == 0
        shares = Shares(list(self.module.parameters())) if measured else None
        for stream in due:
            with self.clock("data"):
                batch = next(stream.batches).to(self.device)
            rows += len(batch)
            output = self.backward(stream, batch)
            if shares is not None:
                shares.add(stream.name)
            loss = float(output.loss.detach())
            if not math.isfinite(loss):
                raise self._diverged(f"loss became {loss}", {stream.name: batch.ids})
            ids[stream.name] = batch.ids
            record["loss"] += stream.weight * loss
            prefix = self._prefix(stream)
            record |= {prefix + k: v for k, v in output.report.items() if k != "loss"}
            if prefix:
                record[f"{prefix}loss"] = loss
        if shares is not None:
            # Of one update, or they would not sum to 1: what an earlier one left is dropped.
            self._since = {name: value for name, value in self._since.items() if not name.endswith("/gradient_share")}
            record |= {f"{name}/gradient_share": share for name, share in shares.of_each().items()}
        with self.clock("optimizer"):
            record["grad_norm"] = self._clip(ids)
            self.optimizer.step()
            for step in dict.fromkeys(stream.step for stream in due):
                after = getattr(step, "after_update", None)
                if after is not None:
                    after()
            self.step += 1
            if self.average is not None:
                self.average.update(self.step)
        record["lr"] = self.optim.lr * factor
        return record, rows

    def _prefix(self, stream: Stream) -> str:
        return f"{stream.name}/" if len(self.streams) > 1 else ""

    def _total(self, record: dict[str, float]) -> float:
        """The weighted loss of all streams that are in `record`, not only of those that were due in one update."""
        if len(self.streams) == 1:
            return record["loss"]
        return sum(stream.weight * record[name] for stream in self.streams if (name := f"{self._prefix(stream)}loss") in record)

    def due(self, step: int) -> list[Stream]:
        """Streams that update number `step` (from 0) takes a batch of."""
        return [stream for stream in self.streams if step % stream.every == 0]

    def backward(self, stream: Stream, batch: Batch) -> StepOutput:
        """Add the gradients of one batch, times the stream's weight, in parts of `micro_batch` rows where that is smaller.

        Nothing is updated, and what is returned is not weighted.
        """
        micro = self.train.micro_batch
        check_parts(stream.name, stream.step, micro, len(batch))
        self.prepare_step(stream)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            if micro is not None and micro < len(batch):
                with self.clock("forward, backward, forward again"):
                    return cached_backward(stream.step, batch, micro, weight=stream.weight)  # type: ignore[arg-type]
            with self.clock("forward"):
                output: StepOutput = stream.step(batch)
        with self.clock("backward"):
            (output.loss * stream.weight).backward()  # type: ignore[no-untyped-call]
        return output

    def _clip(self, ids: dict[str, tuple[str, ...]]) -> float:
        """The gradient's norm before clipping. One that is no number would spoil every weight at once, and the next checkpoint."""
        parameters = [p for p in self._whole.parameters() if p.grad is not None]
        total = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = float(total)
        if not math.isfinite(norm):
            raise self._diverged(f"gradient's norm became {norm}", ids)
        if self.optim.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.optim.clip_norm, total)
        return norm

    def _diverged(self, what: str, ids: dict[str, tuple[str, ...]]) -> TongganError:
        told = "; ".join(f"stream {name}, rows {', '.join(rows[:5])}, …" for name, rows in ids.items())
        return TongganError(
            f"the {what} at update {self.step + 1} ({told}); "
            f"the last checkpoint in {self.run / 'last'} is intact. A lower optim.lr or a longer warm-up usually helps"
        )

    def prepare_step(self, stream: Stream) -> None:
        """Training mode for what learns; a frozen part neither drops nor moves its normalisation statistics."""
        stream.step.train()
        for part in self._frozen:
            part.eval()

    def progress(self) -> float:
        """Fraction of training that is done, by whichever of steps, epochs and minutes was given."""
        if self.train.steps is not None:
            return self.step / self.train.steps if self.train.steps else 1.0
        if self.train.minutes is not None:
            return self.seconds / (60 * self.train.minutes)
        assert self.train.epochs is not None
        first = self.streams[0]
        return self.step / max(1, math.ceil(self.train.epochs * first.batches.batches_per_epoch * first.every))

    # ----------------------------------------------------------------------------------------- evaluating

    def _evaluation_due(self) -> bool:
        if self._evaluate is None:
            return False
        if self.progress() >= 1:
            return True
        if self.train.eval_every is not None:
            return self.step % self.train.eval_every == 0
        # Five times in all: when another fifth of the way has been passed.
        fifths = int(self.progress() * 5)
        due, self.fifths = fifths > self.fifths, max(fifths, self.fifths)
        return due

    def _measure(self, logs: Sequence[Any], bar: Bar) -> None:
        """Evaluate, keep the best. Costs no training time and no random numbers."""
        assert self._evaluate is not None
        tensors, plain = checkpoint.random_state(self.device)
        self.module.eval()
        with self._averaged():
            found = self._evaluate()
            score = found[self._score] if self._score else next(iter(found.values()))
            if score > self.best or not self._choose:
                self.best, self.waited = score, 0
                checkpoint.write(self.run / "best", self._save, {}, {"step": self.step, "score": score})
            else:
                self.waited += 1
        checkpoint.restore_random(tensors, plain, self.device)
        for sink in logs:
            sink.write({"step": self.step, "seconds": round(self.seconds, 3), **{f"eval/{k}": v for k, v in found.items()}})
        bar.say(f"update {self.step}: " + "  ".join(f"{k} {v:.4g}" for k, v in found.items()))

    def _out_of_patience(self) -> bool:
        return self.train.patience is not None and self.waited >= self.train.patience

    def _averaged(self) -> Any:
        return self.average if self.average is not None else nullcontext()

    # -------------------------------------------------------------------------------------- stopping, going on

    def write(self) -> None:
        """Write `last/`: the model as it would be used, and all that resuming needs."""
        tensors, plain = checkpoint.random_state(self.device)
        tensors |= checkpoint.optimizer_tensors(self._whole, self.optimizer)
        tensors |= {f"module/{name}": value for name, value in self.module.state_dict().items()}
        tensors |= {f"steps/{name}": value for name, value in self._whole.of_steps().items()}
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.average.state()}
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "best": None if self.best == -math.inf else self.best,
            "waited": self.waited,
            "fifths": self.fifths,
            "since": self._since,
            "random": plain,
            "streams": {stream.name: stream.batches.state_dict() for stream in self.streams},
            "environment": checkpoint.environment(self.device),
        }
        checkpoint.write(self.run / "last", self._save_averaged, tensors, state)
        self._written = self.step

    def _save_averaged(self, directory: Path) -> None:
        # Swapped in only now: the tensors above are the live ones, and must be written as they are.
        with self._averaged():
            self._save(directory)

    def load(self, directory: Path) -> None:
        """Continue from a checkpoint: the next update is the one that would have followed."""
        tensors, state = checkpoint.read(directory)
        own = {name.removeprefix("module/"): value for name, value in tensors.items() if name.startswith("module/")}
        self.module.load_state_dict(own)
        with torch.no_grad():
            for name, value in self._whole.of_steps().items():
                value.copy_(tensors[f"steps/{name}"])
        checkpoint.load_optimizer(self._whole, self.optimizer, tensors)
        if self.average is not None:
            for name, weight in self.average.state():
                weight.copy_(tensors[f"average/{name}"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.waited, self.fifths = state["waited"], state["fifths"]
        self._since = state.get("since", {})  # earlier checkpoints have none
        self.best = -math.inf if state["best"] is None else state["best"]
        for stream in self.streams:
            stream.batches.load_state_dict(state["streams"][stream.name])
        now = checkpoint.environment(self.device)
        changed = [f"{name}: {value} then, {now.get(name)} now" for name, value in state["environment"].items() if now.get(name) != value]
        if changed:
            Bar("resume", quiet=self._quiet).say("resuming elsewhere, so not bit for bit: " + "; ".join(changed))
        checkpoint.restore_random(tensors, state["random"], self.device)


def check_length(train: TrainConfig) -> None:
    """How long to train is said in one way."""
    given = [name for name in ("steps", "epochs", "minutes") if getattr(train, name) is not None]
    if len(given) != 1:
        raise UsageError(f"train: give exactly one of steps, epochs and minutes; got {', '.join(given) or 'none'}")


def check_patience(train: TrainConfig, choose: bool) -> None:
    """Patience waits for a better score, which only an evaluation that chooses has."""
    if train.patience is not None and not choose:
        raise UsageError("train.patience: stops by the evaluation's score, but this evaluation is only to be looked at")


def compares(step: nn.Module) -> bool:
    """Whether a task compares rows with each other: its batches can be encoded in parts (GradCache), with the gradient of the whole."""
    return hasattr(step, "couple")


def check_parts(stream: str, step: nn.Module, micro: int | None, rows: int) -> None:
    """A batch of so many rows can be encoded `micro` at a time."""
    if micro is not None and micro < rows and not compares(step):
        raise UsageError(
            f"stream {stream}: train.micro_batch is for tasks that compare rows with each other, and this one is none; "
            f"set a smaller loader.batch_size ({micro}) instead"
        )


def pick_precision(name: str, device: torch.device) -> bool:
    """Whether to compute in bf16."""
    native = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if name == "bf16" and not native:
        raise UsageError(f"train.precision: bf16, but {device} does not compute in it (it would be several times slower); set auto or fp32")
    return native and name != "fp32"
