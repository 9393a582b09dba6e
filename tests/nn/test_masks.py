"""Every combination of a mask's conditions against a loop over rows, queries and keys."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tonggan.nn.attention import Attention, lower
from tonggan.tensors import Mask

ROWS = 2


@st.composite
def cases(draw: st.DrawFn) -> tuple[Mask, int, int]:
    queries, keys = draw(st.integers(1, 4)), draw(st.integers(1, 6))

    def per_row(low: int, high: int) -> Tensor | None:
        values = st.lists(st.integers(low, high), min_size=ROWS, max_size=ROWS).map(torch.tensor)
        return draw(st.none() | values)

    def ids(length: int) -> Tensor:
        return torch.tensor([[draw(st.integers(0, 1)) for _ in range(length)] for _ in range(ROWS)])

    mask = Mask(
        causal=draw(st.booleans()),
        offset=per_row(0, 3),
        lengths=per_row(0, keys),
        segments=(ids(queries), ids(keys)) if draw(st.booleans()) else None,
        window=draw(st.none() | st.integers(1, 4)),
        prefix=per_row(0, keys),
        allowed=torch.stack([ids(keys) for _ in range(queries)], dim=1).bool() if draw(st.booleans()) else None,
    )
    return mask, queries, keys


def sees(mask: Mask, row: int, query: int, key: int) -> bool:
    """The words of `Mask`'s documentation, one condition a line."""
    place = query + (int(mask.offset[row]) if mask.offset is not None else 0)
    in_prefix = mask.prefix is not None and key < int(mask.prefix[row])
    not_future = not mask.causal or key <= place or in_prefix
    not_padding = mask.lengths is None or key < int(mask.lengths[row])
    same_segment = mask.segments is None or bool(mask.segments[0][row, query] == mask.segments[1][row, key])
    near = mask.window is None or key > place - mask.window
    spelled_out = mask.allowed is None or bool(mask.allowed[row, query, key])
    return not_future and not_padding and same_segment and near and spelled_out


@given(cases())
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_conditions_are_joined_by_and(case: tuple[Mask, int, int]) -> None:
    mask, queries, keys = case
    allowed, causal = lower(mask, queries, keys, torch.device("cpu"))
    if causal:
        assert queries == keys, "the kernel aligns to the upper left"
        allowed = torch.ones(1, 1, queries, keys, dtype=torch.bool).tril()
    elif allowed is None:
        allowed = torch.ones(1, 1, queries, keys, dtype=torch.bool)
    expected = torch.tensor([[[sees(mask, b, q, k) for k in range(keys)] for q in range(queries)] for b in range(ROWS)])
    assert torch.equal(allowed[:, 0].expand(ROWS, queries, keys), expected)


@pytest.mark.parametrize("bias", [None, lambda q, k: torch.zeros(2, len(q), len(k))], ids=["no bias", "a bias"])
def test_a_row_that_sees_nothing_gives_zeros_and_finite_gradients(bias: object) -> None:
    block = Attention(12, 2, bias=bias)  # type: ignore[arg-type]
    x = torch.randn(2, 5, 12, requires_grad=True)
    out = block(x, mask=Mask(lengths=torch.tensor([5, 0])))
    assert torch.allclose(out[1], block.out.bias.expand(5, -1)), "zeros, then the output projection"
    out.square().sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in block.parameters() if p.grad is not None)
