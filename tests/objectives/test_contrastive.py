"""Objectives against formulas written out independently, and the tiled forms against the plain ones."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped
from pytorch_metric_learning.losses import NTXentLoss
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tonggan.objectives import contrastive
from tonggan.objectives.contrastive import Objective, alignment, info_nce, nt_xent, one_way, sigmoid, top1
from tonggan.objectives.positives import positives, target_entropy, targets
from tonggan.types import TongganError


@pytest.fixture(autouse=True)
def _double() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def unit(n: int, d: int = 8, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def log(scale: float) -> Tensor:
    return torch.tensor([math.log(scale)])


def test_clip_loss_is_open_clips() -> None:
    """open_clip's ClipLoss: the mean of two cross-entropies against the diagonal."""
    a, b = unit(9), unit(9, seed=1)
    logits = 14.3 * a @ b.T
    expected = (F.cross_entropy(logits, torch.arange(9)) + F.cross_entropy(logits.T, torch.arange(9))) / 2
    found = info_nce(a, b, log(14.3))
    assert float(found.loss) == pytest.approx(float(expected), abs=1e-12)
    assert found.floor == 0
    assert found.chance == pytest.approx(math.log(9))


def test_siglip_loss_is_open_clips() -> None:
    """open_clip's SigLipLoss: minus the sum over pairs of log sigmoid(label x logit), over the number of rows."""
    a, b = unit(7), unit(7, seed=1)
    labels = 2 * torch.eye(7) - 1
    expected = -F.logsigmoid(labels * (10 * a @ b.T - 10)).sum() / 7
    assert float(sigmoid(a, b, log(10), torch.tensor([-10.0])).loss) == pytest.approx(float(expected), abs=1e-12)


def test_several_positives_are_soft_targets() -> None:
    """As LAVIS' ALBEF retrieval: targets uniform over rows with one id, both directions."""
    ids = torch.tensor([1, 2, 1, 3, 2, 1])
    a, b = unit(6), unit(6, seed=1)
    same = (ids[:, None] == ids[None]).double()
    aims = same / same.sum(1, keepdim=True)
    logits = 10 * a @ b.T
    expected = -((F.log_softmax(logits, 1) * aims).sum(1).mean() + (F.log_softmax(logits.T, 1) * aims).sum(1).mean()) / 2
    found = info_nce(a, b, log(10), keys=ids[:, None])
    assert float(found.loss) == pytest.approx(float(expected), abs=1e-12)
    entropy = -(aims * aims.clamp(min=1e-300).log()).sum(1).mean()
    assert found.floor == pytest.approx(float(entropy))


def test_any_equal_column_makes_a_positive_and_zero_never() -> None:
    keys = torch.tensor([[1, 0], [0, 5], [1, 5], [0, 0]])
    expected = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]).bool()
    assert torch.equal(positives(keys, keys), expected)


@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_one_way_is_the_articles_formulas(denominator: str) -> None:
    """Sections 4.3 (the positive is in the denominator) and 4.2 (negatives only), written out with loops."""
    a, b = unit(5), unit(5, seed=1)
    total = 0.0
    for i in range(5):
        top = math.exp(float(a[i] @ b[i]) / 0.1)
        below = sum(math.exp(float(a[i] @ b[j]) / 0.1) for j in range(5) if j != i)
        total -= math.log(top / (below + (top if denominator == "all" else 0)))
    found = one_way(a, b, log(10), denominator=denominator)  # type: ignore[arg-type]
    assert float(found.loss) == pytest.approx(total / 5, abs=1e-10)
    assert found.floor == pytest.approx(0.0 if denominator == "all" else math.log(4) - 2 * 10)
    # The floor of negatives only: the positive at cosine 1, every negative at -1.
    two = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    best = one_way(two, two, log(10), denominator=denominator)  # type: ignore[arg-type]
    assert float(best.loss) == pytest.approx(best.floor, abs=1e-8)


@pytest.mark.parametrize("tile", [None, 2])
@pytest.mark.parametrize("kind", ["one_way", "decoupled", "nt_xent"])
def test_an_anchor_without_a_negative_is_told(kind: str, tile: int | None) -> None:
    with pytest.raises(TongganError, match=r"no negative.*step\.objective.*loader\.batch_size.*step\.multi_positives"):
        objective(kind, unit(3), unit(3), log(10), log(1), torch.ones(3, 1, dtype=torch.long), tile)


def test_nt_xent_against_pytorch_metric_learning() -> None:
    z1, z2 = unit(12), unit(12, seed=1)
    expected = NTXentLoss(temperature=0.3)(torch.cat([z1, z2]), torch.arange(12).repeat(2))
    assert float(nt_xent(z1, z2, 0.3).loss) == pytest.approx(float(expected), abs=1e-10)


def test_nt_xent_with_several_positives_against_pytorch_metric_learning() -> None:
    """Theirs is the mean over positive pairs, ours over anchors first: the same where every anchor has as many."""
    z1, z2, ids = unit(12), unit(12, seed=1), torch.arange(12) % 4
    expected = NTXentLoss(temperature=0.3)(torch.cat([z1, z2]), ids.repeat(2))
    found = nt_xent(z1, z2, 0.3, keys=ids[:, None] + 1)
    assert float(found.loss) == pytest.approx(float(expected), abs=1e-10)
    assert found.chance == pytest.approx(math.log(1 + 18))  # the positive and 18 of other kinds


def test_alignment_is_the_mean_squared_distance() -> None:
    a, b = unit(6), unit(6, seed=1)
    assert float(alignment(a, b).loss) == pytest.approx(float((2 - 2 * (a * b).sum(1)).mean()))


KINDS = ["infonce", "smoothed", "sigmoid", "one_way", "decoupled", "nt_xent"]


def objective(kind: str, a: Tensor, b: Tensor, scale: Tensor, bias: Tensor, keys: Tensor | None, tile: int | None) -> Objective:
    match kind:
        case "infonce" | "smoothed":
            return info_nce(a, b, scale, keys=keys, label_smoothing=0.1 if kind == "smoothed" else 0.0, tile=tile)
        case "sigmoid":
            return sigmoid(a, b, scale, bias, keys=keys, tile=tile)
        case "one_way" | "decoupled":
            return one_way(a, b, scale, denominator="negatives" if kind == "decoupled" else "all", keys=keys, tile=tile)
        case _:
            return nt_xent(a, b, 1 / scale.exp(), keys=keys, tile=tile)


def some_keys(n: int) -> Tensor:
    """Two kinds of key, of which none, one or several join two rows; some rows have neither."""
    return torch.randint(0, n // 3, (n, 2), generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("tile", [1, 7, 16, 100])
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("s", [3.0, 100.0])
@pytest.mark.parametrize("kind", KINDS)
def test_tiled_equals_plain(kind: str, s: float, keyed: bool, tile: int) -> None:
    a, b = unit(37).requires_grad_(), unit(37, seed=1).requires_grad_()
    scale, bias = (log(s) - 1e-9).requires_grad_(), torch.tensor([-3.0]).requires_grad_()
    wrt = [a, b, scale, bias] if kind == "sigmoid" else [a, b, scale]
    results = []
    for t in (None, tile):
        found = objective(kind, a, b, scale, bias, some_keys(37) if keyed else None, t)
        results.append((found, torch.autograd.grad(found.loss * 1.7, wrt)))
    (plain, g1), (tiled, g2) = results
    assert float(tiled.loss.detach()) == pytest.approx(float(plain.loss.detach()), rel=1e-10)
    assert (tiled.floor, tiled.chance) == (plain.floor, plain.chance)
    for x, y in zip(g1, g2, strict=True):
        assert torch.allclose(x, y, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_tiled_in_single_precision_is_plain_in_double(kind: str) -> None:
    b = unit(53, 32, seed=1)
    a = F.normalize(unit(53, 32) + b, dim=1)  # near their partners, as in training
    results = []
    for dtype, tile in ((torch.float64, None), (torch.float32, 9)):
        torch.set_default_dtype(dtype)
        wrt = [x.detach().clone().to(dtype).requires_grad_() for x in (a, b, log(80))]
        found = objective(kind, *wrt, torch.tensor([-8.0]), some_keys(53), tile)
        results.append([found.loss.detach(), *torch.autograd.grad(found.loss, wrt)])
    for exact, single in zip(*results, strict=True):
        assert single.dtype == torch.float32
        assert float((single - exact).abs().max()) <= 1e-4 * float(exact.abs().max())


def test_tiled_survives_orthogonal_features_at_the_highest_scale() -> None:
    """Where every cosine is far below 1 a fixed shift of s underflows in single precision."""
    torch.set_default_dtype(torch.float32)
    a, b = torch.eye(64)[:32], torch.eye(64)[32:]
    plain, tiled = (info_nce(a, b, log(100) - 1e-6, tile=t).loss for t in (None, 8))
    assert float(tiled) == pytest.approx(math.log(32), rel=1e-5)
    assert float(plain) == pytest.approx(float(tiled), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck_of_the_hand_written_backward(kind: str) -> None:
    a, b = unit(5, 3).requires_grad_(), unit(5, 3, seed=1).requires_grad_()
    t, bias = log(5).requires_grad_(), torch.tensor([-1.0]).requires_grad_()
    keys = torch.tensor([[1], [2], [1], [0], [2]])
    assert torch.autograd.gradcheck(lambda *x: objective(kind, *x, keys, tile=2).loss, (a, b, t, bias))


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(x.numel() for x in tree_leaves(made) if isinstance(x, Tensor))])
        return made


@pytest.mark.parametrize("kind", KINDS)
def test_tiled_has_no_matrix_at_any_time(kind: str) -> None:
    """Neither kept for the backward pass nor made on the way, forward or backward: twice the rows, twice the memory."""

    def kept_and_largest(n: int, tile: int | None) -> tuple[int, int]:
        sizes: list[int] = []

        def note(t: Tensor) -> Tensor:
            sizes.append(t.numel())
            return t

        a, b = unit(n).requires_grad_(), unit(n, seed=1).requires_grad_()
        with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            objective(kind, a, b, log(10).requires_grad_(), torch.tensor([-5.0]), some_keys(n), tile).loss.backward()
        return sum(sizes), largest.numbers

    (few, small), (many, large) = kept_and_largest(128, 32), kept_and_largest(256, 32)
    assert many < 2.2 * few
    assert large < 2.2 * small
    (few, small), (many, large) = kept_and_largest(128, None), kept_and_largest(256, None)
    assert many > 3.0 * few
    assert large > 3.0 * small


@given(seed=st.integers(0, 1000), n=st.integers(2, 12), smoothing=st.sampled_from([0.0, 0.2]))
def test_invariants(seed: int, n: int, smoothing: float) -> None:
    torch.set_default_dtype(torch.float64)
    a, b = unit(n, seed=seed), unit(n, seed=seed + 1)
    keys = torch.randint(0, 4, (n, 2), generator=torch.Generator().manual_seed(seed))
    found = info_nce(a, b, log(10), keys=keys, label_smoothing=smoothing)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    how = {"label_smoothing": smoothing}
    shuffled = info_nce(a[order], b[order], log(10), keys=keys[order], **how)  # type: ignore[arg-type]
    swapped = info_nce(b, a, log(10), keys=keys, **how)  # type: ignore[arg-type]
    assert float(shuffled.loss) == pytest.approx(float(found.loss))
    assert float(swapped.loss) == pytest.approx(float(found.loss))
    assert float(found.loss) >= found.floor - 1e-6
    same = torch.ones(n, 3) / 3**0.5
    assert float(info_nce(same, same, log(10), keys=keys, label_smoothing=smoothing).loss) == pytest.approx(found.chance)


def test_floor_is_reached_in_the_limit() -> None:
    ids = torch.tensor([1, 2, 1, 3])
    corners = torch.eye(4)[ids]
    found = info_nce(corners, corners, log(1000), keys=ids[:, None], max_scale=1e9)
    assert float(found.loss) == pytest.approx(found.floor, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.05, 0.3])
def test_smoothed_floor_is_reached_where_softmax_is_the_target(smoothing: float) -> None:
    n = 6
    on, off = 1 - smoothing + smoothing / n, smoothing / n
    found = info_nce(torch.eye(n), torch.eye(n), log(math.log(on / off)), label_smoothing=smoothing)
    assert float(found.loss) == pytest.approx(found.floor, abs=1e-12)


def random_keys(n: int, seed: int) -> Tensor:
    return torch.randint(0, n, (n, 2), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), n=st.integers(3, 12))
def test_invariants_of_the_others(seed: int, n: int) -> None:
    torch.set_default_dtype(torch.float64)
    a, b, keys = unit(n, seed=seed), unit(n, seed=seed + 1), random_keys(n, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    bias = torch.tensor([-4.0])

    def every(a: Tensor, b: Tensor, keys: Tensor) -> list[Objective]:
        plain = [sigmoid(a, b, log(10), bias, keys=keys), nt_xent(a, b, 0.2), alignment(a, b)]
        return [*plain, *(one_way(a, b, log(10), denominator=d) for d in ("all", "negatives"))]  # type: ignore[arg-type]

    found, shuffled, swapped = every(a, b, keys), every(a[order], b[order], keys[order]), every(b, a, keys)
    for mine, theirs in zip(found, shuffled, strict=True):
        assert float(theirs.loss) == pytest.approx(float(mine.loss))
        assert float(mine.loss) >= mine.floor
    for mine, theirs in zip(found[:3], swapped[:3], strict=True):  # one direction is not the other
        assert float(theirs.loss) == pytest.approx(float(mine.loss))


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), n=st.integers(3, 12))
def test_collapsed_embeddings_are_at_chance(seed: int, n: int) -> None:
    torch.set_default_dtype(torch.float64)
    same, keys = torch.ones(n, 4) / 2, random_keys(n, seed)
    assert float(info_nce(same, same, log(50)).loss) == pytest.approx(math.log(n))
    assert float(nt_xent(same, same).loss) == pytest.approx(math.log(2 * n - 1))
    for denominator, candidates in (("all", n), ("negatives", n - 1)):
        found = one_way(same, same, log(50), denominator=denominator)  # type: ignore[arg-type]
        assert float(found.loss) == pytest.approx(found.chance) == pytest.approx(math.log(candidates))
    # The best constant answer to SigLIP's questions is the share of pairs that are positive; other biases are worse.
    share = float((positives(keys, keys) | torch.eye(n, dtype=torch.bool)).double().mean())
    if share < 1:
        best = math.log(share / (1 - share)) - 10
        for bias in (best - 0.5, best, best + 0.5):
            found = sigmoid(same, same, log(10), torch.tensor([bias]), keys=keys)
            assert float(found.loss) >= found.chance - 1e-9
            assert (float(found.loss) == pytest.approx(found.chance)) == (bias == best)


def test_one_way_averages_over_an_anchors_positives() -> None:
    """With keys: each positive against the negatives, other positives in no denominator; written out with loops."""
    ids, a, b = [1, 2, 1, 3], unit(4), unit(4, seed=1)
    total = 0.0
    for i in range(4):
        below = sum(math.exp(float(a[i] @ b[j]) * 10) for j in range(4) if ids[j] != ids[i])
        terms = [math.exp(float(a[i] @ b[j]) * 10) for j in range(4) if ids[j] == ids[i]]
        total -= sum(math.log(t / (t + below)) for t in terms) / len(terms)
    assert float(one_way(a, b, log(10), keys=torch.tensor(ids)[:, None]).loss) == pytest.approx(total / 4)


def test_beyond_the_ceiling_the_scale_has_no_gradient() -> None:
    a, b = unit(4), unit(4, seed=1)
    for value, moves in ((99.0, True), (101.0, False)):
        for tile in (None, 2):
            t = log(value).requires_grad_()
            found = info_nce(a, b, t, tile=tile).loss
            found.backward()
            assert t.grad is not None
            assert bool(t.grad.abs() > 0) == moves
            at_most = info_nce(a, b, log(min(value, 100.0)), tile=tile).loss
            assert float(found.detach()) == pytest.approx(float(at_most))


@pytest.mark.parametrize("tile", [1, 4, 100])
@pytest.mark.parametrize("keyed", [False, True])
def test_top1_against_a_loop(keyed: bool, tile: int) -> None:
    a, b = unit(23), unit(23, seed=1)
    keys = random_keys(23, 0) if keyed else torch.zeros(23, 1, dtype=torch.long)
    positive = positives(keys, keys) | torch.eye(23, dtype=torch.bool)
    cosines = a @ b.T
    by_row = [bool(positive[i, cosines[i].argmax()]) for i in range(23)]
    by_column = [bool(positive[cosines[:, j].argmax(), j]) for j in range(23)]
    found = top1(a, b, keys=keys if keyed else None, tile=tile)
    assert found == pytest.approx((sum(by_row) / 23, sum(by_column) / 23))


def test_top1_is_pessimistic_about_ties() -> None:
    same = torch.ones(5, 4) / 2
    assert top1(same, same) == (0.0, 0.0)
    assert top1(torch.eye(5), torch.eye(5)) == (1.0, 1.0)
    twice = torch.eye(4)[[0, 0, 1, 2]]
    assert top1(twice, twice) == (0.5, 0.5)
    assert top1(twice, twice, keys=torch.tensor([[1], [1], [2], [3]])) == (1.0, 1.0)


@pytest.mark.parametrize("tile", [None, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_autocast_changes_nothing(kind: str, tile: int | None) -> None:
    """Where the towers compute in bf16 the loss and its gradients are still single precision, backward inside autocast too."""
    torch.set_default_dtype(torch.float32)
    results = []
    for enabled in (False, True):
        a, b = unit(12).requires_grad_(), unit(12, seed=1).requires_grad_()
        t, bias = log(80).requires_grad_(), torch.tensor([-5.0]).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found = objective(kind, a, b, t, bias, None, tile)
            if tile:
                found.loss.backward()
        if not tile:
            found.loss.backward()
        results.append([found.loss.detach(), a.grad, b.grad, t.grad])
    for off, on in zip(*results, strict=True):
        assert off is not None and on is not None
        assert torch.equal(off, on)


def test_half_precision_embeddings_give_a_single_precision_loss() -> None:
    torch.set_default_dtype(torch.float32)
    a, b = unit(12).bfloat16().requires_grad_(), unit(12, seed=1).bfloat16()
    found = info_nce(a, b, log(80), tile=4)
    found.loss.backward()
    assert found.loss.dtype == torch.float32
    assert a.grad is not None and a.grad.dtype == torch.bfloat16
    assert float(found.loss.detach()) == pytest.approx(float(info_nce(a.detach().float(), b.float(), log(80)).loss), rel=1e-6)


def test_target_rows_sum_to_one() -> None:
    positive = torch.rand(5, 7) > 0.5
    positive[:, 0] = True
    aims = targets(positive, 0.1, torch.float64)
    assert torch.allclose(aims.sum(1), torch.ones(5))
    assert torch.allclose(-(aims * aims.log()).sum(1), target_entropy(positive.sum(1).double(), 7, 0.1))


def test_a_wrong_shape_fails() -> None:
    from beartype import beartype

    checked = jaxtyped(typechecker=beartype)(inspect.unwrap(contrastive.nt_xent))
    checked(unit(4), unit(4))
    with pytest.raises(Exception, match=r"z2|shape|type"):
        checked(unit(4), unit(5))
