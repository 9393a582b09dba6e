"""The loss of a language model with its map to words, forward and backward, beside `transformers`: time and peak memory in one run.

    python benchmarks/language_loss.py

What is compared is what a training step does after the last block: states [N, D] and a table [V, D] to a loss, and back to both
gradients. `transformers` is `ForCausalLMLoss` on the logits of all places, as its `...ForCausalLM.forward(labels=...)` computes them;
`torch` is plain cross-entropy on the supervised places only, a stricter peer. Gradients are compared before anything is timed; runs are
interleaved and the fastest of several counts. The peak is what one call adds to a fresh process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.loss.loss_utils import ForCausalLMLoss

from tonggan.objectives.language import language_cross_entropy
from tonggan.tensors import IGNORE

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return language_cross_entropy(states, weight, targets).loss


def transformers_loss(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = F.linear(states, weight)[None]
    found: Tensor = ForCausalLMLoss(logits, None, len(weight), shift_labels=targets[None])
    return found


def supervised_only(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    asked = targets != IGNORE
    return F.cross_entropy(F.linear(states[asked], weight), targets[asked])


SIDES: dict[str, Loss] = {"tonggan": ours, "transformers": transformers_loss, "torch": supervised_only}


def inputs(places: int, words: int, width: int, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Answers in runs, as in conversations: of each 64 places the last are supervised."""
    torch.manual_seed(0)
    states = torch.randn(places, width).requires_grad_()
    weight = (0.02 * torch.randn(words, width)).requires_grad_()
    targets = torch.randint(words, (places,))
    targets[torch.arange(places) % 64 < 64 * (1 - share)] = IGNORE
    return states, weight, targets


def once(loss: Loss, shape: tuple[int, int, int, float]) -> tuple[float, list[Tensor]]:
    states, weight, targets = inputs(*shape)
    start = time.perf_counter()
    loss(states, weight, targets).backward()
    seconds = time.perf_counter() - start
    assert states.grad is not None and weight.grad is not None
    return seconds, [states.grad, weight.grad]


def high_water() -> float:
    """The most memory that this process has held, in MB (Linux). Not `ru_maxrss`: it starts at what the parent process held."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def added(name: str, shape: tuple[int, int, int, float]) -> float:
    """MB above what the inputs take, of one call in this process."""
    once(SIDES[name], (64, 1000, 16, 0.25))
    states, weight, targets = inputs(*shape)
    before = high_water()
    SIDES[name](states, weight, targets).backward()
    return high_water() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, default=2048)
    parser.add_argument("--words", type=int, default=49_152)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--share", type=float, default=0.25, help="of the places that are supervised")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--memory", choices=list(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = (options.places, options.words, options.width, options.share)
    if options.memory:
        print(added(options.memory, shape))
        return
    reference = once(SIDES["transformers"], shape)[1]
    for name, loss in SIDES.items():
        for mine, theirs in zip(once(loss, shape)[1], reference, strict=True):
            worst = float((mine - theirs).abs().max() / theirs.abs().max())
            assert worst < 1e-4, f"{name}: gradients differ by {worst:.1e}"
    times: dict[str, list[float]] = {name: [] for name in SIDES}
    for _ in range(options.times):
        for name, loss in SIDES.items():
            times[name].append(once(loss, shape)[0])
    sizes = [f"--{name}={getattr(options, name)}" for name in ("places", "words", "width", "share")]
    rows = []
    for name in SIDES:
        done = subprocess.run([sys.executable, __file__, "--memory", name, *sizes], capture_output=True, text=True, check=True)
        rows.append({"side": name, "seconds": min(times[name]), "megabytes": float(done.stdout.split()[-1])})
        print(f"{name:14} {rows[-1]['seconds']:8.3f} s  +{rows[-1]['megabytes']:7.0f} MB", flush=True)
    print(json.dumps({"places": shape[0], "words": shape[1], "width": shape[2], "supervised": shape[3], "sides": rows}))


if __name__ == "__main__":
    main()
