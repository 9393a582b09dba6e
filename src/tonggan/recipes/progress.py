"""How far a run has come: where each stage lies, which are done and how long they took. All of it is in the run's directory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tonggan.recipes.config import RunConfig
from tonggan.train import checkpoint
from tonggan.types import UsageError


class Progress:
    """The bookkeeping of the run of `config` in the directory `out`."""

    def __init__(self, config: RunConfig, out: Path) -> None:
        self._config, self._out = config, out

    def directory(self, number: int) -> Path:
        """Where a stage has its checkpoints and numbers: the last in the run's own directory."""
        last = number == len(self._config.stages) - 1
        return self._out if last else self._out / "stages" / self._config.stages[number].name

    def best(self, number: int) -> Path:
        """What a stage found best, or ended with where nothing was evaluated."""
        directory = self.directory(number)
        return directory / "best" if (directory / "best").exists() else directory / "last"

    def lasts(self) -> list[Path]:
        """The last checkpoint of each stage, written or not."""
        return [self.directory(number) / "last" for number in range(len(self._config.stages))]

    def begun(self) -> bool:
        """Whether there is a checkpoint of any stage, so that there is something to resume or to lose."""
        for last in self.lasts():
            checkpoint.settle(last)
        return any(last.exists() for last in self.lasts())

    def check(self, *, resume: bool) -> None:
        """Raise `UsageError` where training would go on with another run, or over one."""
        if resume:
            self._check_same(self._out / "run.yaml")
        elif self.begun():
            raise UsageError(f"{self._out}: has a run already; go on with --resume, or name another --out")

    def begin(self, *, resume: bool) -> None:
        """Write the configuration down; unless it goes on, what another run said here is not this one's."""
        self._out.mkdir(parents=True, exist_ok=True)
        if not resume:
            (self._out / "samples.jsonl").unlink(missing_ok=True)
        _write(self._out / "run.yaml", self._config.to_yaml())

    def done(self) -> dict[str, float]:
        """Seconds that each finished stage took, its preparation and earlier attempts included (but for one that was killed)."""
        return self._numbers("stages.json")

    def finish(self, stages: dict[str, float]) -> None:
        """Note which stages are done, and what each took."""
        _write(self._out / "stages.json", json.dumps(stages))

    def spent(self, stage: str, seconds: float) -> float:
        """Note that an attempt at a stage took so long; what all attempts took."""
        spent = self._numbers("spent.json")
        spent[stage] = spent.get(stage, 0.0) + seconds
        _write(self._out / "spent.json", json.dumps(spent))
        return spent[stage]

    def samples(self, stage: str, said: Sequence[Mapping[str, str]]) -> None:
        """Keep what a model said at an evaluation, behind what it said at those before."""
        file = self._out / "samples.jsonl"
        before = file.read_text("utf-8").splitlines() if file.is_file() else []
        look = 1 + max((one["look"] for one in map(json.loads, before) if one["stage"] == stage), default=0)
        now = [json.dumps({"stage": stage, "look": look, **one}, ensure_ascii=False) for one in said]
        _write(file, "\n".join([*before, *now, ""]))

    def _numbers(self, name: str) -> dict[str, float]:
        file = self._out / name
        return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}

    def _check_same(self, file: Path) -> None:
        if not file.is_file():
            raise UsageError(f"{self._out}: no run to resume here (run.yaml is missing)")
        mine, theirs = _what_counts(self._config), _what_counts(RunConfig.read(file))
        if mine != theirs:
            names = [name for name in mine if mine[name] != theirs.get(name)]
            raise UsageError(
                f"{file}: this run was begun with other settings ({', '.join(names)}); resume with those, or name another --out"
            )


def _what_counts(config: RunConfig) -> dict[str, Any]:
    """A configuration without what may change when a run goes on: where it runs, and what is written down how often."""
    plain = config.model_dump(mode="json")
    for stage in plain["stages"]:
        for name in ("device", "loggers", "log_every", "checkpoint_seconds", "checkpoint_every"):
            del stage["train"][name]
    return plain


def _write(file: Path, text: str) -> None:
    """A small file, whole or as it was."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)
