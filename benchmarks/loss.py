"""The contrastive losses, forward and backward, beside the peers: time and peak memory over batch sizes, all sides in one run.

    make bench

The peers of InfoNCE are transformers' `clip_loss` arithmetic over a full matrix and, where open_clip_torch is installed (it needs
torchvision), open_clip's `ClipLoss`; of one direction and of NT-Xent (whose batch counts both views), torch's cross-entropy over a
full matrix (pytorch-metric-learning's `NTXentLoss` takes memory that grows with the cube). Runs are interleaved; the fastest of
several counts. Gradients are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from tonggan.objectives.contrastive import info_nce, nt_xent, one_way

WIDTH = 512
OBJECTIVES = ["infonce", "one_way", "nt_xent"]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def transformers_loss(a: Tensor, b: Tensor, log_scale: Tensor) -> Tensor:
    return image_text_contrastive_loss(log_scale.exp() * (b @ a.T))


def one_direction(a: Tensor, b: Tensor, log_scale: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(log_scale.exp() * a @ b.T, torch.arange(len(a)))


def simclr(a: Tensor, b: Tensor, log_scale: Tensor) -> Tensor:
    views, n = torch.cat([a, b]), len(a)
    logits = (log_scale.exp() * views @ views.T).masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
    return torch.nn.functional.cross_entropy(logits, torch.arange(2 * n).roll(n))


def sides(objective: str) -> dict[str, Loss]:
    """Ours in tiles and on the whole matrix, then the peers; the first of these is what gradients are compared with."""
    match objective:
        case "infonce":
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
        case "one_way":
            return {
                "tonggan tiled": lambda a, b, s: one_way(a, b, s, tile=512).loss,
                "tonggan plain": lambda a, b, s: one_way(a, b, s).loss,
                "torch": one_direction,
            }
        case _:
            return {
                "tonggan tiled": lambda a, b, s: nt_xent(a, b, 1 / s.exp(), tile=512).loss,
                "tonggan plain": lambda a, b, s: nt_xent(a, b, 1 / s.exp()).loss,
                "torch": simclr,
            }


def inputs(n: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(n, WIDTH), dim=1).requires_grad_() for _ in range(2))
    return a, b, torch.tensor([2.6593]).requires_grad_()


def once(loss: Loss, n: int) -> tuple[float, list[Tensor]]:
    given = inputs(n)
    start = time.perf_counter()
    loss(*given).backward()
    return time.perf_counter() - start, [x.grad for x in given if x.grad is not None]


def peak_memory(objective: str, name: str, n: int) -> float:
    """MB that one call adds to a fresh process."""
    done = subprocess.run([sys.executable, __file__, "--memory", objective, name, str(n)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def high_water() -> float:
    """The most memory that this process has held, in MB (Linux). Not `ru_maxrss`: it starts at what the parent process held."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", nargs=3, metavar=("OBJECTIVE", "SIDE", "BATCH"), help=argparse.SUPPRESS)
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=OBJECTIVES)
    parser.add_argument("--batches", nargs="+", type=int, default=[1024, 2048, 4096, 8192])
    options = parser.parse_args()
    if options.memory:
        objective, name, batch = options.memory
        loss = sides(objective)[name]
        once(loss, 64)
        before = high_water()
        once(loss, int(batch))
        print(high_water() - before)
        return
    rows = [row for objective in options.objectives for batch in options.batches for row in measured(objective, batch)]
    print(json.dumps(rows))


def measured(objective: str, batch: int) -> list[dict[str, object]]:
    """Seconds and megabytes of every side, printed as they come."""
    found = sides(objective)
    n = batch // 2 if objective == "nt_xent" else batch
    reference = once(found[list(found)[2]], n)[1]
    for name, loss in found.items():
        for mine, theirs in zip(once(loss, n)[1], reference, strict=True):
            worst = float((mine - theirs).abs().max() / theirs.abs().max())
            assert worst < 1e-4, f"{objective}, {name} at {batch}: gradients differ by {worst:.1e}"
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(5):
        for name, loss in found.items():
            times[name].append(once(loss, n)[0])
    rows: list[dict[str, object]] = []
    for name in found:
        seconds, megabytes = min(times[name]), peak_memory(objective, name, n)
        rows.append({"objective": objective, "batch": batch, "side": name, "seconds": seconds, "megabytes": megabytes})
        print(f"{objective:8} {batch:6} {name:16} {seconds:8.3f} s  +{megabytes:7.0f} MB", flush=True)
    return rows


if __name__ == "__main__":
    main()
