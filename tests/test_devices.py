"""Devices: which there are, what memory is told of, and an allocator that keeps its pages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tonggan import devices
from tonggan.types import UsageError

FAULTS = """
import resource, torch
from tonggan import devices
if {kept}:
    assert devices.keep_pages() is True
total = torch.ones(12_000_000).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    total += torch.ones(12_000_000).sum()  # 48 MB, freed at once: what is over 32 MB glibc never keeps
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, float(total))
"""


def run(kept: bool, **environment: str) -> tuple[int, float]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))}
    done = subprocess.run([sys.executable, "-c", FAULTS.format(kept=kept)], capture_output=True, text=True, env=clean | environment)
    assert done.returncode == 0, done.stderr
    faults, total = done.stdout.split()
    return int(faults), float(total)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.confstr("CS_GNU_LIBC_VERSION") is None, reason="only glibc is told to")
def test_pages_are_paid_for_once() -> None:
    (before, total), (after, same) = run(False), run(True)
    assert before > 5 * after, "12 million numbers are about 12,000 pages, forty times; a few times until the heap has grown"
    assert total == same


def test_an_allocator_that_was_chosen_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert devices.keep_pages.__wrapped__() is False


def test_what_is_not_here_is_told_with_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.choose("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match=r"device: 'cuda:2' is not on this machine.*cuda:0 to cuda:1"):
        devices.choose("cuda:2")
    assert devices.choose().type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.choose().type == "cpu"
    with pytest.raises(UsageError, match="'gpu' is no device"):
        devices.choose("gpu")


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert devices.free(torch.device("cpu")) == 600000
    (tmp_path / "memory.max").write_text("max\n")
    free = devices.free(torch.device("cpu"))
    assert free is None or free > 1000000
