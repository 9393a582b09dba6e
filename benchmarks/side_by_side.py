"""Trainings at once, each on its share of the cores: equal conditions, and small models lose less to threads that wait for each other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tonggan import recipes
from tonggan.recipes.config import RunConfig
from tonggan.recipes.progress import Progress


def train(names: Iterable[str], out: Path) -> None:
    """Train shipped recipes in `out`/NAME, or go on where they were; Ctrl-C stops them all, each with a checkpoint."""
    names = list(names)
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // len(names))
    running = []
    for number, name in enumerate(names):
        begun = Progress(RunConfig.read(recipes.path(name)), out / name).begun()
        command = [sys.executable, "-m", "tonggan.cli", "train", name, "--out", str(out / name), *(["--resume"] if begun else [])]
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": str(share)})
        first = number * share % len(cores)
        os.sched_setaffinity(process.pid, cores[first : first + share])
        running.append(process)
    try:
        codes = [process.wait() for process in running]
    except KeyboardInterrupt:  # they were told as well
        codes = [process.wait() for process in running]
    if any(codes):
        sys.exit(f"stopped: {', '.join(name for name, code in zip(names, codes, strict=True) if code)}; the same command goes on")
