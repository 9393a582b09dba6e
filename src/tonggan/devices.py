"""Where tensors live: which device, how much memory it has and needs, and an allocator that does not give pages back between batches."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from functools import cache
from pathlib import Path

import torch

from tonggan.types import UsageError

STATUS, GROUP = Path("/proc/self/status"), Path("/sys/fs/cgroup")
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Names of `mallopt`'s settings, from glibc's malloc.h."""


def choose(device: torch.device | str | None = None, field: str = "device") -> torch.device:
    """The device asked for; None or "auto" takes cuda, then mps, then the CPU.

    One that is not there is a `UsageError` that names `field`, never a slow surprise.
    """
    present = [torch.cuda.is_available() and "cuda", torch.backends.mps.is_available() and "mps", "cpu"]
    names = [name for name in present if name]
    if device is None or str(device) == "auto":
        chosen = torch.device(names[0])
    else:
        try:
            chosen = torch.device(device)
        except RuntimeError:
            raise UsageError(f"{field}: {str(device)!r} is no device; here there are: auto, {', '.join(names)}") from None
        if chosen.type not in names or (chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count()):
            numbered = f" (cuda:0 to cuda:{torch.cuda.device_count() - 1})" if "cuda" in names else ""
            raise UsageError(
                f"{field}: {str(device)!r} is not on this machine; here there are: auto, {', '.join(names)}{numbered}; set {field}=auto"
            )
    if chosen.type == "cpu":
        keep_pages()
    return chosen


@cache
def keep_pages() -> bool:
    """Let the C library keep the pages of freed tensors for the next ones; gives whether it does now.

    By default glibc asks the system for new pages for every large tensor and hands them back when it is freed, so that each batch
    of a network pays for its pages again: here most of the time of a small convolutional network went there. What is free stays
    with the process, up to 2 GB. An allocator that was set up by the environment (MALLOC_…, GLIBC_TUNABLES, LD_PRELOAD) is left
    as it is.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ):
        return False
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        library = ctypes.CDLL(None)
        return bool(library.mallopt(_MMAP_MAX, 0)) and bool(library.mallopt(_TRIM_THRESHOLD, 2**31 - 1))
    return False


def start_measuring(device: torch.device) -> int:
    """Bytes in use now; from here on `peak` counts anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if not STATUS.exists():
        return peak(device)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what is kept for later is not in use
    with contextlib.suppress(OSError):
        # Linux: start the high-water mark anew, or what the process once needed for something else would be taken for this.
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak(device: torch.device) -> int:
    """The most bytes that were in use since `start_measuring` (on a system that cannot start anew: since the process began)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():
        return _status("VmHWM")
    # The process's high-water mark: bytes on macOS, kilobytes elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def free(device: torch.device) -> int | None:
    """Bytes that could still be taken; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    memory = Path("/proc/meminfo")
    if not memory.exists():
        return None
    fields = dict(line.split(":", 1) for line in memory.read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    # A container may be allowed less than the machine has.
    limit, used = (GROUP / name for name in ("memory.max", "memory.current"))
    if limit.exists() and used.exists() and (most := limit.read_text().strip()) != "max":
        available = min(available, max(0, int(most) - int(used.read_text())))
    return available


def _status(field: str) -> int:
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))
