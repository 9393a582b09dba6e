"""Where the time of training goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Seconds of training by what they were spent on; entering and leaving costs a microsecond."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self.exact = False
        """Wait for the device at every reading: attributes a GPU's time rightly, and slows it down. For `--profile`."""
        self._device = device

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        begun = self.now()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + self.now() - begun

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        if self.exact and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
