"""One loss over the rows of several processes. Without a group everything here is the identity.

Two rules make any number of processes give what one would:

- every process returns the loss of the *whole* batch;
- its gradients are `world` times its own share, because DDP and FSDP average gradients over processes.

Processes may hold different numbers of rows (the last batch). Give `torch.distributed.group.WORLD` to mean all processes.

Shape letters: n rows of this process, N rows of all, D anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Num
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """How a batch lies over processes: the rows of each, in the order of ranks."""

    group: dist.ProcessGroup | None
    counts: tuple[int, ...]
    rank: int = 0

    @classmethod
    def of(cls, mine: Tensor, group: dist.ProcessGroup | None) -> Ranks:
        """Every process tells the others how many rows it has."""
        if group is None:
            return cls(None, (len(mine),))
        told = [torch.zeros(1, dtype=torch.long, device=mine.device) for _ in range(dist.get_world_size(group))]
        dist.all_gather(told, torch.tensor([len(mine)], device=mine.device), group=group)
        return cls(group, tuple(int(n) for n in told), dist.get_rank(group))

    @property
    def world(self) -> int:
        """Number of processes."""
        return len(self.counts)

    @property
    def total(self) -> int:
        """N, the rows of all processes."""
        return sum(self.counts)

    @property
    def start(self) -> int:
        """Where this process's rows begin among all."""
        return sum(self.counts[: self.rank])

    @property
    def own(self) -> slice:
        """This process's rows among all."""
        return slice(self.start, self.start + self.counts[self.rank])

    def gather(self, mine: Num[Tensor, "n *D"]) -> Num[Tensor, "N *D"]:
        """The rows of all processes, in the order of ranks. Not differentiable: see `all_gather`."""
        if self.group is None:
            return mine
        mine = mine.detach()
        padded = [mine.new_zeros(max(self.counts), *mine.shape[1:]) for _ in self.counts]
        dist.all_gather(padded, self._pad(mine), group=self.group)
        return torch.cat([rows[:count] for rows, count in zip(padded, self.counts, strict=True)])

    def sum_of_own(self, everyone: Num[Tensor, "N *D"]) -> Num[Tensor, "n *D"]:
        """What all processes together have for this process's rows: half the traffic of summing all rows everywhere."""
        if self.group is None:
            return everyone
        mine = everyone.new_empty(max(self.counts), *everyone.shape[1:])
        dist.reduce_scatter(mine, [self._pad(rows) for rows in torch.split(everyone, list(self.counts))], group=self.group)
        return mine[: self.counts[self.rank]]

    def sum(self, x: Tensor) -> Tensor:
        """Sum over processes."""
        if self.group is None:
            return x
        x = x.detach().clone()
        dist.all_reduce(x, group=self.group)
        return x

    def logsumexp(self, x: Tensor) -> Tensor:
        """ln Σ exp x over processes, element by element."""
        if self.group is None:
            return x
        top = x.detach().clone()
        dist.all_reduce(top, op=dist.ReduceOp.MAX, group=self.group)
        return top + self.sum((x - top).exp()).log()

    def _pad(self, rows: Tensor) -> Tensor:
        missing = max(self.counts) - len(rows)
        return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]).contiguous() if missing else rows.contiguous()


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.gather(mine)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.sum_of_own(gradient), None


def all_gather(mine: Num[Tensor, "n *D"], group: dist.ProcessGroup | None) -> Num[Tensor, "N *D"]:
    """The rows of all processes, with gradient: how an objective that takes no `group` is computed over several processes.

    Each process then computes the same whole loss, and the gradient that comes back to its rows is the sum of all processes'
    (`world` times its share, as the second rule wants). A gather without gradient would drop those terms in silence.
    """
    if group is None:
        return mine
    return _AllGather.apply(mine, Ranks.of(mine, group))  # type: ignore[no-untyped-call]
