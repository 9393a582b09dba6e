"""The loss of language models in chunks: equal to the plain one, forward and backward, and never a matrix of places by words."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tonggan.objectives.language import language_cross_entropy
from tonggan.tensors import IGNORE


def inputs(places: int, words: int, width: int, *, asked: float = 0.5, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(places, width, generator=generator, dtype=dtype)
    weight = torch.randn(words, width, generator=generator, dtype=dtype)
    targets = torch.randint(words, (places,), generator=generator)
    targets[torch.rand(places, generator=generator) >= asked] = IGNORE
    bias = torch.randn(words, generator=generator, dtype=dtype)
    return states.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), targets


def plain(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(F.linear(states, weight, bias), targets, ignore_index=IGNORE)


@pytest.mark.parametrize("with_bias", [True, False])
def test_equal_to_the_plain_loss_whatever_the_chunk(with_bias: bool) -> None:
    states, weight, bias, targets = inputs(13, 11, 5)
    given = [states, weight, *([bias] if with_bias else [])]
    expected = plain(states, weight, bias if with_bias else None, targets)
    gradients = torch.autograd.grad(3 * expected, given)
    right = int((F.linear(states, weight, bias if with_bias else None).argmax(1) == targets).sum())
    for chunk in range(1, 15):
        found = language_cross_entropy(states, weight, targets, bias if with_bias else None, chunk=chunk)
        assert torch.allclose(found.loss, expected, rtol=1e-12)
        assert int(found.right) == right and found.places == int((targets != IGNORE).sum())
        for mine, theirs in zip(torch.autograd.grad(3 * found.loss, given), gradients, strict=True):
            assert torch.allclose(mine, theirs, rtol=1e-11, atol=1e-14)
    assert found.floor == 0 and found.chance == pytest.approx(math.log(11))


def test_its_gradient_is_that_of_its_value() -> None:
    states, weight, bias, targets = inputs(6, 5, 3)
    assert torch.autograd.gradcheck(lambda *x: language_cross_entropy(x[0], x[1], targets, x[2], chunk=4).loss, (states, weight, bias))


def test_nothing_asked_for_is_zero_with_a_gradient_of_zero() -> None:
    states, weight, bias, targets = inputs(6, 5, 3)
    found = language_cross_entropy(states, weight, torch.full_like(targets, IGNORE), bias)
    found.loss.backward()
    assert float(found.loss.detach()) == 0 and found.places == 0
    assert all(x.grad is not None and not bool(x.grad.any()) for x in (states, weight, bias))


def test_large_logits_overflow_nowhere() -> None:
    states, weight, _, targets = inputs(9, 7, 4, dtype=torch.float32)
    found = language_cross_entropy(1e4 * states, weight, targets, chunk=2)
    assert torch.allclose(found.loss, plain(1e4 * states, weight, None, targets))
    assert bool(torch.autograd.grad(found.loss, weight)[0].isfinite().all())


def test_half_precision_is_summed_in_single() -> None:
    states, weight, _, targets = (x.detach().bfloat16() if x.is_floating_point() else x for x in inputs(40, 300, 8))
    states.requires_grad_()
    found = language_cross_entropy(states, weight, targets)
    assert found.loss.dtype == torch.float32
    assert float(found.loss.detach()) == pytest.approx(float(plain(states.detach().float(), weight.float(), None, targets)), rel=1e-6)
    found.loss.backward()
    assert states.grad is not None and states.grad.dtype == torch.bfloat16


class Largest(TorchDispatchMode):
    """The most elements of any tensor made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, torch.Tensor):
                self.elements = max(self.elements, one.numel())
        return out


def test_a_large_vocabulary_is_never_a_matrix_of_places_by_words() -> None:
    """Nothing larger than the weight or a chunk's logits is made; only the gradients themselves are kept for the way back."""
    places, words, width, chunk = 96, 5003, 4, 8
    states, weight, _, targets = inputs(places, words, width, asked=1.0, dtype=torch.float32)
    kept: list[int] = []
    largest = Largest()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (kept.append(x.numel()), x)[1], lambda x: x), largest:
        found = language_cross_entropy(states, weight, targets, chunk=chunk)
        gradients = torch.autograd.grad(found.loss, [states, weight])
    assert largest.elements == chunk * words < places * words / 10
    assert sum(kept) <= weight.numel() + 3 * places * width
    expected = torch.autograd.grad(plain(states, weight, None, targets), [states, weight])
    for mine, theirs in zip(gradients, expected, strict=True):
        assert float((mine - theirs).abs().max() / theirs.abs().max()) < 1e-5


def test_what_is_frozen_costs_no_gradient() -> None:
    """Without gradients there are products for the logits only; a frozen weight (LoRA) costs none for its own."""
    states, weight, _, targets = inputs(16, 11, 4, asked=1.0)
    products: list[str] = []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func.overloadpacket.__name__
            if name in ("mm", "addmm", "addmm_"):
                products.append(name)
            return func(*args, **(kwargs or {}))

    def count(weight: torch.Tensor, *, grad: bool = True) -> int:
        products.clear()
        with torch.set_grad_enabled(grad), Counting():
            found = language_cross_entropy(states, weight, targets, chunk=16)
            if grad:
                found.loss.backward()
        return len(products)

    assert count(weight) == 3 and count(weight.detach()) == 2 and count(weight, grad=False) == 1
