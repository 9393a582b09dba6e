"""The process that renders drawings for `data.drawing`. Run as a script, and imports nothing of ours: it starts in an instant.

Arguments: the folder that resvg_py is in, seconds per drawing, bytes of memory. A request is its length (4 bytes) and the keyword
arguments of `resvg_py.svg_to_bytes` as JSON; an answer is `+` or `-`, a length, and a PNG or the reason why there is none.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import sys

try:
    import resource
except ImportError:  # there are no limits on Windows
    resource = None  # type: ignore[assignment]


def main() -> None:
    """Answer requests until the input ends; a drawing that goes beyond the limits ends this process."""
    sys.path.append(sys.argv[1])
    seconds, memory = float(sys.argv[2]), int(sys.argv[3])
    if resource is not None:
        with contextlib.suppress(ValueError, OSError):  # a tighter limit is set already, or the system has no such limit
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Not Python's handler, which would wait for the renderer to return: the system's, which ends the process.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    import resvg_py

    # Nothing else may write where the answers go.
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while head := requests.read(4):
        options = json.loads(requests.read(struct.unpack(">I", head)[0]))
        if resource is not None:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            mark, body = b"+", bytes(resvg_py.svg_to_bytes(**options))
        except OSError as error:
            mark, body = b"-", (error.strerror or "cannot be read").encode()
        except (ValueError, RuntimeError) as error:
            mark, body = b"-", f"corrupt drawing ({str(error)[:60]})".encode()
        if resource is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(mark + struct.pack(">I", len(body)) + body)
        answers.flush()


if __name__ == "__main__":
    main()
