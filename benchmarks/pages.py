"""What keeping the pages of freed tensors gains on this machine: pictures a second and peak memory, each allocator in a process of its own.

    .venv/bin/python benchmarks/pages.py

Sides: the C library as it comes, the same after `devices.keep_pages`, and, where they are installed, jemalloc and tcmalloc, which are
preloaded (the usual advice for torch on a CPU). Runs are interleaved; the fastest of three counts. The features are compared: they must
be equal bit for bit.
"""

from __future__ import annotations

import ctypes.util
import hashlib
import json
import os
import resource
import subprocess
import sys
import time

SIDES = {"as it comes": None, "pages kept": "keep", "jemalloc": "jemalloc", "tcmalloc": "tcmalloc_minimal"}
ROUNDS = 3


def one(keep: bool) -> None:
    """Features of 256 pictures; prints pictures a second, peak memory, and what the features are."""
    import torch

    from tonggan import devices
    from tonggan.models import build
    from tonggan.models.classifier import ClassifierConfig
    from tonggan.models.towers import EfficientNetConfig

    if keep:
        assert devices.keep_pages()
    torch.manual_seed(0)
    tower = build(ClassifierConfig(image=EfficientNetConfig(variant="lite0"))).eval()
    pixels = torch.randint(0, 256, (64, 3, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        tower(pixels)
        begun = time.monotonic()
        for _ in range(4):
            found = tower(pixels)
        seconds = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps({"rate": 256 / seconds, "peak": peak, "features": hashlib.sha256(found.numpy().tobytes()).hexdigest()[:12]}))


def main() -> None:
    """Every side in turn, several rounds."""
    found: dict[str, list[dict[str, float | str]]] = {}
    for _ in range(ROUNDS):
        for side, how in SIDES.items():
            environment = dict(os.environ)
            if how not in (None, "keep"):
                library = ctypes.util.find_library(how)
                if library is None:
                    continue
                environment["LD_PRELOAD"] = library
            command = [sys.executable, __file__, "keep" if how == "keep" else "plain"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found.setdefault(side, []).append(json.loads(done.stdout))
    assert len({one["features"] for of in found.values() for one in of}) == 1, "the features differ"
    for side, of in found.items():
        rate, peak = max(float(one["rate"]) for one in of), max(float(one["peak"]) for one in of)
        print(f"{side:12} {rate:7.1f} pictures a second, peak {peak:6.0f} MB")
    print(f"not installed: {', '.join(side for side in SIDES if side not in found) or 'none'}")


if __name__ == "__main__":
    one(sys.argv[1] == "keep") if len(sys.argv) > 1 else main()
