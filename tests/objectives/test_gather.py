"""Two processes give the loss and the gradients of one, also when they hold different numbers of rows."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tonggan.objectives.contrastive import Objective, info_nce, nt_xent, one_way, sigmoid
from tonggan.objectives.gather import Ranks, all_gather
from tonggan.tensors import Batch, StepOutput
from tonggan.train.gradcache import cached_backward

ROWS, FIRST = 11, 7  # 7 rows on the first process, 4 on the second
KEYS = torch.tensor([[1, 0], [2, 0], [3, 9], [1, 0], [4, 0], [0, 0], [5, 9], [1, 0], [6, 0], [2, 0], [0, 0]])
KINDS = ["plain keys", "smoothed", "tiled", "sigmoid", "sigmoid tiled", "one_way", "one_way tiled", "decoupled", "nt_xent", "nt_xent tiled"]


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b = (F.normalize(torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(i)), dim=1) for i in (0, 1))
    return (
        a.requires_grad_(),
        b.requires_grad_(),
        torch.tensor([math.log(20.0)], requires_grad=True),
        torch.tensor([-5.0], requires_grad=True),
    )


def objective(kind: str, a: Tensor, b: Tensor, scale: Tensor, bias: Tensor, keys: Tensor, group: dist.ProcessGroup | None) -> Objective:
    match kind:
        case "plain keys":
            return info_nce(a, b, scale, keys=keys, group=group)
        case "smoothed":
            return info_nce(a, b, scale, label_smoothing=0.1, group=group)
        case "tiled":
            return info_nce(a, b, scale, keys=keys, label_smoothing=0.1, tile=3, group=group)
        case "sigmoid":
            return sigmoid(a, b, scale, bias, keys=keys, group=group)
        case "sigmoid tiled":
            return sigmoid(a, b, scale, bias, tile=3, group=group)
        case "one_way":
            return one_way(all_gather(a, group), all_gather(b, group), scale, keys=Ranks.of(keys, group).gather(keys))
        case "one_way tiled":
            return one_way(a, b, scale, keys=keys, tile=3, group=group)
        case "decoupled":
            return one_way(a, b, scale, denominator="negatives", keys=keys, group=group)
        case "nt_xent tiled":
            return nt_xent(a, b, 1 / scale.exp(), keys=keys, tile=3, group=group)
        case _:
            return nt_xent(all_gather(a, group), all_gather(b, group), 0.3)


class Towers(nn.Module):
    """Two towers whose forward is the encoding, so that DDP can stand around it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b = nn.Linear(6, 5), nn.Linear(6, 5)
        self.log_scale = nn.Parameter(torch.tensor([2.0]))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.image_features is not None and batch.text_features is not None
        return {"a": F.normalize(self.a(batch.image_features), dim=1), "b": F.normalize(self.b(batch.text_features), dim=1)}


class Step:
    """What GradCache sees: an encoding (perhaps DDP's) and a coupling."""

    def __init__(self, encode: nn.Module, log_scale: Tensor, group: dist.ProcessGroup | None) -> None:
        self.encode, self._log_scale, self._group = encode, log_scale, group

    def couple(self, reps: dict[str, Tensor], keys: Tensor | None) -> StepOutput:
        return StepOutput(info_nce(reps["a"], reps["b"], self._log_scale, keys=keys, tile=2, group=self._group).loss)


def batch(rows: slice) -> Batch:
    a, b = (x.detach()[rows] for x in inputs()[:2])
    return Batch(ids=tuple(map(str, range(len(a)))), image_features=a, text_features=b, keys=KEYS[rows])


def process(rank: int, meeting: str, results: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    rows = slice(0, FIRST) if rank == 0 else slice(FIRST, ROWS)
    found: dict[str, object] = {}
    for kind in KINDS:
        a, b, scale, bias = (x.detach() for x in inputs())
        wrt = [x.requires_grad_() for x in (a[rows].clone(), b[rows].clone(), scale, bias)]
        result = objective(kind, *wrt, KEYS[rows], dist.group.WORLD)
        result.loss.backward()
        found[kind] = (float(result.loss.detach()), result.floor, result.chance, [x.grad for x in wrt])
    towers = Towers()
    wrapped = DistributedDataParallel(towers)
    output = cached_backward(Step(wrapped, towers.log_scale, dist.group.WORLD), batch(rows), 3, quiet=wrapped.no_sync)
    found["gradcache"] = (float(output.loss), [p.grad for p in towers.parameters()])
    torch.save(found, f"{results}.{rank}")
    dist.barrier()
    dist.destroy_process_group()
    # Gloo's threads may still hold tensors when the interpreter is torn down, and asking it for its lock then aborts
    # the process (pytorch/pytorch#179291); what was to be done is done and written.
    os._exit(0)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[float, ...]]]:
    folder: Path = tmp_path_factory.mktemp("two")
    mp.spawn(process, (str(folder / "meeting"), str(folder / "results")), nprocs=2)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"results.{rank}") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_are_one(kind: str, two: list[dict[str, tuple]]) -> None:  # type: ignore[type-arg]
    a, b, scale, bias = inputs()
    alone = objective(kind, a, b, scale, bias, KEYS, None)
    alone.loss.backward()
    for loss, floor, chance, _ in (process[kind] for process in two):
        assert (loss, floor, chance) == pytest.approx((float(alone.loss.detach()), alone.floor, alone.chance), abs=1e-5)
    (a0, b0, s0, bias0), (a1, b1, s1, bias1) = (process[kind][3] for process in two)
    # Each process's gradients are twice its share, so that their average, as DDP takes it, is the whole.
    torch.testing.assert_close(torch.cat([a0, a1]) / 2, a.grad, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat([b0, b1]) / 2, b.grad, atol=1e-5, rtol=0)
    for x, y, whole in ((s0, s1, scale), (bias0, bias1, bias)):
        if whole.grad is not None:
            torch.testing.assert_close((x + y) / 2, whole.grad, atol=1e-5, rtol=0)


def test_gradcache_under_ddp_is_one_process(two: list[dict[str, tuple]]) -> None:  # type: ignore[type-arg]
    """Three parts on one process and two on the other; gradients are averaged once, in the last part, the scale's too."""
    towers = Towers()
    alone = Step(towers, towers.log_scale, None)
    whole = batch(slice(0, ROWS))
    loss = alone.couple(towers(whole), whole.keys).loss
    loss.backward()
    for found, gradients in (process["gradcache"] for process in two):
        assert found == pytest.approx(float(loss.detach()), abs=1e-5)
        for gradient, p in zip(gradients, towers.parameters(), strict=True):
            torch.testing.assert_close(gradient, p.grad, atol=1e-5, rtol=0)


def test_alone_nothing_is_sent() -> None:
    a = inputs()[0]
    assert all_gather(a, None) is a
    ranks = Ranks.of(a, None)
    assert (ranks.world, ranks.total, ranks.own) == (1, ROWS, slice(0, ROWS))
    assert ranks.gather(a) is ranks.sum_of_own(a) is ranks.sum(a) is ranks.logsumexp(a) is a
