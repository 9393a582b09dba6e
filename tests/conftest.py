"""What every test shares: determinism, no network, and sources that are reported when absent."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test marked `source(name)` runs where that source is; elsewhere it is skipped."""
    marked = [(item, mark) for item in items for mark in item.iter_markers("source")]
    if not marked:
        return
    from tonggan.data import sources

    for item, mark in marked:
        name = mark.args[0]
        if not sources.get(name).available():
            item.add_marker(pytest.mark.skip(reason=f"source {name} is not installed: {sources.get(name).how}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Every reason for which something was skipped, with its count: tests, and whole files (`importorskip` at their head).

    Out of the reports, not out of what was collected: under xdist the process that prints collects nothing.
    """
    skipped = terminalreporter.stats.get("skipped", ())
    reasons = Counter(str(report.longrepr[-1]).removeprefix("Skipped: ") for report in skipped if isinstance(report.longrepr, tuple))
    for reason, count in reasons.items():
        terminalreporter.write_line(f"NOT TESTED ({count} skipped): {reason}", yellow=True)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import random

    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that reaches out of this machine fails: the suite runs offline once installed."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "local"
        if host not in ("127.0.0.1", "::1", "localhost", "local", "0.0.0.0"):
            raise AssertionError(f"a test tried to reach {host}")
        real(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect)
    yield
