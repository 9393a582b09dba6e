"""The contrastive loss, forward and backward, beside the peers: time and peak memory over batch sizes, both sides in one run.

    make bench

The peers are transformers' `clip_loss` arithmetic over a full matrix and, where open_clip_torch is installed (it needs torchvision),
open_clip's `ClipLoss`. Runs are interleaved; the fastest of several counts. Gradients are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from tonggan.objectives.contrastive import info_nce

WIDTH = 512
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def transformers_loss(a: Tensor, b: Tensor, log_scale: Tensor) -> Tensor:
    return image_text_contrastive_loss(log_scale.exp() * (b @ a.T))


def sides() -> dict[str, Loss]:
    found: dict[str, Loss] = {
        "tonggan tiled": lambda a, b, s: info_nce(a, b, s, tile=512).loss,
        "tonggan plain": lambda a, b, s: info_nce(a, b, s).loss,
        "transformers": transformers_loss,
    }
    if find_spec("open_clip"):
        from open_clip.loss import ClipLoss

        loss = ClipLoss()
        found["open_clip"] = lambda a, b, s: loss(a, b, s.exp())
    return found


def inputs(n: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(n, WIDTH), dim=1).requires_grad_() for _ in range(2))
    return a, b, torch.tensor([2.6593]).requires_grad_()


def once(loss: Loss, n: int) -> tuple[float, list[Tensor]]:
    given = inputs(n)
    start = time.perf_counter()
    loss(*given).backward()
    return time.perf_counter() - start, [x.grad for x in given if x.grad is not None]


def peak_memory(name: str, n: int) -> float:
    """MB that one call adds to a fresh process."""
    done = subprocess.run([sys.executable, __file__, "--memory", name, str(n)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", nargs=2, metavar=("SIDE", "BATCH"), help=argparse.SUPPRESS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1024, 2048, 4096, 8192])
    options = parser.parse_args()
    found = sides()
    if options.memory:
        name, n = options.memory[0], int(options.memory[1])
        once(found[name], 64)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        once(found[name], n)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
        return
    rows = []
    for n in options.batches:
        reference = once(found["transformers"], n)[1]
        for name, loss in found.items():
            for mine, theirs in zip(once(loss, n)[1], reference, strict=True):
                worst = float((mine - theirs).abs().max() / theirs.abs().max())
                assert worst < 1e-4, f"{name} at {n}: gradients differ by {worst:.1e}"
        times: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(5):
            for name, loss in found.items():
                times[name].append(once(loss, n)[0])
        rows += [{"batch": n, "side": name, "seconds": min(times[name]), "megabytes": peak_memory(name, n)} for name in found]
        for row in rows[-len(found) :]:
            print(f"{row['batch']:6} {row['side']:16} {row['seconds']:8.3f} s  +{row['megabytes']:7.0f} MB", flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
