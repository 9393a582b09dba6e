"""Drawings (SVG) to pixels, in processes of their own.

A stranger's drawing can overflow the renderer's stack, fill the memory or take for hours. Here it ends a process that does
nothing else: that one drawing is a `MediaError`, and the next gets a new process. A process is started for the first drawing,
kept for those that follow (one for every drawing under way at a time), and goes when we go: its input closes.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from io import FileIO
from pathlib import Path
from typing import cast

from tonggan.types import MediaError, MissingExtra

SECONDS = 20.0
"""A drawing that takes longer is given up: drawings of people take milliseconds, the heaviest a few seconds."""
MEMORY = 2 * 1024**3
"""Bytes of address space of one process."""

_WORKER = Path(__file__).with_name("drawing_worker.py")


def draw(where: str, **options: str | int | float | bool) -> bytes:
    """A drawing as a PNG file. `options` are those of `resvg_py.svg_to_bytes`; `where` names the drawing in messages.

    May be called from several threads, and after a fork. Raises `MediaError` when the drawing is damaged or goes beyond
    the limits, `MissingExtra` without resvg-py.
    """
    return _painters().draw(where, **options)


class Painters:
    """Renderer processes, as many as there are drawings under way; `seconds` and `memory` (bytes) limit each drawing."""

    def __init__(self, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self._seconds, self._memory = seconds, memory
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen[bytes]] = []
        self._all: set[subprocess.Popen[bytes]] = set()

    def forget(self) -> None:
        """After a fork: the processes stay the parent's, and our copies of their pipes must not keep them alive."""
        for painter in self._all:
            for pipe in _pipes(painter):
                pipe.close()
            painter.returncode = 0  # so that nobody waits for another's child
        self._lock, self._idle, self._all = threading.Lock(), [], set()

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            painters = list(self._all)
        for painter in painters:
            self._end(painter)

    def draw(self, where: str, **options: str | int | float | bool) -> bytes:
        """As the function `draw`, within these limits."""
        painter = self._take()
        try:
            drawn, body = _ask(painter, json.dumps(options).encode())
        except (OSError, EOFError):
            raise MediaError(where, self._why(self._end(painter))) from None
        except BaseException:  # interrupted half-way: its answer must not be taken for the next drawing's
            self._end(painter)
            raise
        with self._lock:
            self._idle.append(painter)
        if not drawn:
            raise MediaError(where, body.decode())
        return body

    def _take(self) -> subprocess.Popen[bytes]:
        while True:
            with self._lock:
                if not self._idle:
                    break
                painter = self._idle.pop()
            if painter.poll() is None:
                return painter
            self._end(painter)  # somebody ended it while it had nothing to do
        found = importlib.util.find_spec("resvg_py")
        if found is None or found.origin is None:
            raise MissingExtra("drawing SVG files", "files")
        library = Path(found.origin).parent.parent
        painter = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WORKER), str(library), str(self._seconds), str(self._memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us: who handles it may want to draw on
        )
        with self._lock:
            self._all.add(painter)
        return painter

    def _end(self, painter: subprocess.Popen[bytes]) -> int:
        """Make sure that a process is gone, and give what it returned."""
        with self._lock:
            self._all.discard(painter)
            if painter in self._idle:
                self._idle.remove(painter)
        for pipe in _pipes(painter):
            pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return painter.wait(0.5)  # it ends by itself, unless it is drawing
        painter.kill()
        return painter.wait()

    def _why(self, code: int) -> str:
        if os.name == "posix" and code == -signal.SIGALRM:
            return f"a drawing that takes longer than {self._seconds:g} s"
        if code > 0:
            return "the renderer failed (whether it works at all: python -c 'import resvg_py')"
        return "a drawing that the renderer cannot survive (nested too deep, or larger than its memory)"


@functools.cache
def _painters() -> Painters:
    painters = Painters()
    atexit.register(painters.close)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=painters.forget)
    return painters


def _pipes(painter: subprocess.Popen[bytes]) -> tuple[FileIO, FileIO]:
    """Its input and output, without buffers: a fork must be able to close them and leave nothing written twice."""
    return cast(FileIO, painter.stdin), cast(FileIO, painter.stdout)


def _ask(painter: subprocess.Popen[bytes], request: bytes) -> tuple[bool, bytes]:
    """Whether it was drawn, and the picture or the reason. Raises OSError or EOFError when the process is gone."""
    requests, answers = _pipes(painter)
    rest = memoryview(struct.pack(">I", len(request)) + request)
    while rest:
        rest = rest[requests.write(rest) :]
    mark, size = struct.unpack(">cI", _read(answers, 5))
    return mark == b"+", _read(answers, size)


def _read(pipe: FileIO, size: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < size:
        piece = pipe.read(size - len(pieces))
        if not piece:
            raise EOFError
        pieces += piece
    return bytes(pieces)
