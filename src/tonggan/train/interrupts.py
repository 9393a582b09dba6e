"""Ctrl-C (and a polite kill) finish the update first; a second one stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts(event: threading.Event) -> Iterator[None]:
    """Inside, the first interrupt sets `event`. Only the main thread can be interrupted so; in others nothing is changed."""
    before: dict[int, Any] = {}

    def note(number: int, _: Any) -> None:
        event.set()
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGINT, signal.SIGTERM):
            before[name] = signal.signal(name, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
