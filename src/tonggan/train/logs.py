"""Where numbers go while training: a JSONL file always, a progress line, and TensorBoard, W&B or trackio when asked."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tonggan.types import MissingExtra, TongganError, UsageError

Logger: TypeAlias = Literal["tensorboard", "wandb", "trackio"]


class Sink(Protocol):
    """Takes one record of numbers per call."""

    def write(self, record: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """`metrics.jsonl`. On resume it is cut back to the checkpoint's update, so that it reads as one uninterrupted run."""

    def __init__(self, path: Path, *, keep_until: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if keep_until and path.is_file():
            for line in path.read_text("utf-8").splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    break  # the line that a kill cut off
                if record["step"] <= keep_until:
                    kept.append(line)
        self._path = path
        try:
            cut = path.with_name(f".{path.name}.new")
            cut.write_text("".join(line + "\n" for line in kept), "utf-8")
            cut.replace(path)  # in one move: a kill right now must not cost the history
            # Without a buffer: each line is one write, and what could not be written is not tried again at the end.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._full(error) from None

    def write(self, record: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(record).encode() + b"\n")
        except OSError as error:
            raise self._full(error) from None

    def close(self) -> None:
        self._file.close()

    def _full(self, error: OSError) -> TongganError:
        return TongganError(f"{self._path}: could not be written ({error.strerror}); checkpoints are intact: make room, then --resume")


class TensorBoard:
    """Event files in the run's `tensorboard` directory; on resume, what came after the checkpoint is hidden."""

    def __init__(self, directory: Path, *, keep_until: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra("logging to TensorBoard", "log") from None
        self._writer: Any = SummaryWriter(str(directory / "tensorboard"), purge_step=keep_until + 1 if keep_until else None)

    def write(self, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self._writer.close()


class Tracker:
    """W&B, or trackio, which has the same interface."""

    def __init__(self, kind: Literal["wandb", "trackio"], name: str) -> None:
        check_loggers((kind,))
        if kind == "wandb":
            import wandb as library
        else:
            import trackio as library
        self._library: Any = library
        library.init(project="tonggan", name=name)

    def write(self, record: dict[str, Any]) -> None:
        self._library.log({k: v for k, v in record.items() if k != "step"}, step=record["step"])

    def close(self) -> None:
        self._library.finish()


def check_loggers(wanted: Iterable[Logger]) -> None:
    """Raise, with the line that installs it, when a logger is not on this machine."""
    for name in wanted:
        if importlib.util.find_spec(name) is None:
            raise (
                MissingExtra("logging to TensorBoard", "log")
                if name == "tensorboard"
                else UsageError(f"train.loggers: {name} is not installed; pip install {name}")
            )


def sinks(run: Path, wanted: tuple[Logger, ...], *, keep_until: int = 0) -> list[Sink]:
    """The JSONL file and whatever else is asked for."""
    found: list[Sink] = [JsonLines(run / "metrics.jsonl", keep_until=keep_until)]
    for name in wanted:
        found.append(TensorBoard(run, keep_until=keep_until) if name == "tensorboard" else Tracker(name, run.name))
    return found


class Bar:
    """A progress bar on a terminal; elsewhere one plain line every fifteen seconds."""

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal and not quiet
        self._quiet = quiet
        self._title = title
        self._last = 0.0
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), TimeElapsedColumn(), TextColumn("left"),
            TimeRemainingColumn(), console=self._console, disable=not self._live,
        )  # fmt: skip
        self._task = self._progress.add_task(title, total=1.0, told="")
        self._progress.start()

    def show(self, fraction: float, step: int, loss: float, items_per_second: float, seconds_left: float) -> None:
        """Where training stands."""
        told = f"step {step}  loss {loss:.4f}  {items_per_second:.0f} items/s"
        if self._live:
            self._progress.update(self._task, completed=min(fraction, 1.0), told=told)
        elif not self._quiet and time.monotonic() - self._last > 15:
            self._last = time.monotonic()
            self._console.print(
                f"{self._title}: {100 * fraction:.0f} %  {told}  {seconds_left:.0f} s left", highlight=False, markup=False, soft_wrap=True
            )

    def say(self, text: str) -> None:
        """A line above the bar."""
        if not self._quiet:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        self._progress.stop()
