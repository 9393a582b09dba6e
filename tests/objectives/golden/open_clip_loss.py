"""What open_clip's losses give on embeddings made by a formula, with gradients, for `test_open_clip_loss.py`.

Made once with `open_clip_torch` 3.3.0, of which only `loss.py` is used: `python tests/objectives/golden/open_clip_loss.py`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

FILE = Path(__file__).with_suffix(".json")
CASES = {"ClipLoss": [(2, 3, 1.0), (5, 4, 14.285714285714286), (9, 6, 100.0)], "SigLipLoss": [(2, 3, 1.0), (5, 4, 10.0), (9, 6, 100.0)]}
"""Rows, width, scale."""
BIAS = -10.0


def embeddings(rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Two unit-length float64 [rows, width], the same on every machine; matching rows are nearer than others, not everywhere."""
    grid = torch.arange(1, rows * width + 1, dtype=torch.float64).reshape(rows, width)
    a = torch.sin(grid * grid)
    return F.normalize(a, dim=1), F.normalize(a + torch.cos(3 * grid), dim=1)


def main() -> None:
    import sys

    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    from peers import open_clip_losses

    losses = open_clip_losses()
    assert losses is not None, "open_clip_torch is not installed: pip install --no-deps open_clip_torch"
    found = []
    for name, cases in CASES.items():
        for rows, width, scale in cases:
            given = [*embeddings(rows, width), torch.tensor(math.log(scale), dtype=torch.float64)]
            given += [torch.tensor(BIAS, dtype=torch.float64)] if name == "SigLipLoss" else []
            a, b, log_scale, *bias = (x.requires_grad_() for x in given)
            loss = getattr(losses, name)()(a, b, log_scale.exp(), *bias)
            loss.backward()
            gradients = [x.grad.flatten().tolist() for x in (a, b, log_scale, *bias)]
            found.append({"loss": name, "rows": rows, "width": width, "scale": scale, "value": loss.item(), "gradients": gradients})
    FILE.write_text("[\n" + ",\n".join(json.dumps(case) for case in found) + "\n]\n")


if __name__ == "__main__":
    main()
