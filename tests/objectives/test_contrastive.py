"""Objectives against formulas written out independently, and the tiled forms against the plain ones."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import jaxtyped
from pytorch_metric_learning.losses import NTXentLoss
from torch import Tensor

from tonggan.objectives import contrastive
from tonggan.objectives.contrastive import alignment, info_nce, nt_xent, one_way, sigmoid
from tonggan.objectives.positives import positives, target_entropy, targets


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
    assert found.floor == (0.0 if denominator == "all" else -math.inf)


def test_one_way_without_a_negative_says_so() -> None:
    with pytest.raises(ValueError, match="no negative"):
        one_way(unit(3), unit(3), log(10), keys=torch.ones(3, 1, dtype=torch.long))


def test_nt_xent_against_pytorch_metric_learning() -> None:
    z1, z2 = unit(12), unit(12, seed=1)
    expected = NTXentLoss(temperature=0.3)(torch.cat([z1, z2]), torch.arange(12).repeat(2))
    assert float(nt_xent(z1, z2, 0.3).loss) == pytest.approx(float(expected), abs=1e-10)


def test_alignment_is_the_mean_squared_distance() -> None:
    a, b = unit(6), unit(6, seed=1)
    assert float(alignment(a, b).loss) == pytest.approx(float((2 - 2 * (a * b).sum(1)).mean()))


@pytest.mark.parametrize("tile", [1, 7, 16, 100])
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("s", [3.0, 100.0])
@pytest.mark.parametrize("kind", ["infonce", "sigmoid"])
def test_tiled_equals_plain(kind: str, s: float, smoothing: float, keyed: bool, tile: int) -> None:
    a, b = unit(37).requires_grad_(), unit(37, seed=1).requires_grad_()
    scale, bias = (log(s) - 1e-9).requires_grad_(), torch.tensor([-3.0]).requires_grad_()
    keys = torch.randint(0, 12, (37, 2)) if keyed else None
    results = []
    for t in (None, tile):
        if kind == "infonce":
            found = info_nce(a, b, scale, keys=keys, label_smoothing=smoothing, tile=t)
            wrt = [a, b, scale]
        else:
            found = sigmoid(a, b, scale, bias, keys=keys, tile=t)
            wrt = [a, b, scale, bias]
        results.append((found, torch.autograd.grad(found.loss * 1.7, wrt)))
    (plain, g1), (tiled, g2) = results
    assert float(tiled.loss.detach()) == pytest.approx(float(plain.loss.detach()), rel=1e-10)
    assert (tiled.floor, tiled.chance) == (plain.floor, plain.chance)
    for x, y in zip(g1, g2, strict=True):
        assert torch.allclose(x, y, atol=1e-10, rtol=1e-8)


def test_tiled_survives_orthogonal_features_at_the_highest_scale() -> None:
    """Where every cosine is far below 1 a fixed shift of s underflows in single precision."""
    torch.set_default_dtype(torch.float32)
    a, b = torch.eye(64)[:32], torch.eye(64)[32:]
    plain, tiled = (info_nce(a, b, log(100) - 1e-6, tile=t).loss for t in (None, 8))
    assert float(tiled) == pytest.approx(math.log(32), rel=1e-5)
    assert float(plain) == pytest.approx(float(tiled), rel=1e-5)


def test_gradcheck_of_the_hand_written_backward() -> None:
    a, b = unit(5, 3).requires_grad_(), unit(5, 3, seed=1).requires_grad_()
    t, bias = log(5).requires_grad_(), torch.tensor([-1.0]).requires_grad_()
    keys = torch.tensor([[1], [2], [1], [0], [2]])
    assert torch.autograd.gradcheck(lambda *x: info_nce(*x, keys=keys, label_smoothing=0.1, tile=2).loss, (a, b, t))
    assert torch.autograd.gradcheck(lambda *x: sigmoid(*x, keys=keys, tile=2).loss, (a, b, t, bias))


def test_tiled_keeps_no_matrix() -> None:
    def kept(n: int, tile: int | None) -> int:
        sizes: list[int] = []

        def note(t: Tensor) -> Tensor:
            sizes.append(t.numel())
            return t

        a, b = unit(n).requires_grad_(), unit(n, seed=1).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            info_nce(a, b, log(10).requires_grad_(), tile=tile)
        return sum(sizes)

    assert kept(512, 64) < 2.2 * kept(256, 64)
    assert kept(512, None) > 3.0 * kept(256, None)


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
