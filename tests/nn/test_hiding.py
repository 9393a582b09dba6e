"""What is hidden, by blocks and by spans, and biases by distance on a grid."""

from __future__ import annotations

import pytest
import torch

from tonggan.nn.masking import hide_blocks, hide_spans
from tonggan.nn.positions import GridBias


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("grid", "share", "smallest"), [((14, 14), 0.6, 16), ((5, 9), 0.4, 4), ((3, 3), 0.9, 16), ((8, 8), 1.0, 4)])
def test_every_picture_hides_equally_many_patches(grid: tuple[int, int], share: float, smallest: int) -> None:
    hidden = hide_blocks(50, grid, share, generator(), smallest=smallest)
    assert hidden.shape == (50, grid[0] * grid[1])
    assert set(hidden.sum(dim=1).tolist()) == {round(share * grid[0] * grid[1])}
    assert share == 1.0 or len({tuple(row) for row in hidden.tolist()}) > 5, "and not always the same"


def test_hidden_patches_lie_together() -> None:
    """In blocks, a hidden patch's right neighbour is hidden far more often than a share of patches drawn one by one."""
    hidden = hide_blocks(400, (14, 14), 0.4, generator()).view(400, 14, 14)
    beside = float((hidden[:, :, :-1] & hidden[:, :, 1:]).sum() / hidden[:, :, :-1].sum())
    assert beside > 0.7, beside


def test_the_same_generator_hides_the_same() -> None:
    assert torch.equal(hide_blocks(4, (7, 5), 0.5, generator(3), smallest=2), hide_blocks(4, (7, 5), 0.5, generator(3), smallest=2))
    lengths = torch.tensor([30, 12])
    assert torch.equal(hide_spans(lengths, 30, 0.5, 4, generator(3)), hide_spans(lengths, 30, 0.5, 4, generator(3)))


def test_spans_lie_inside_the_row_and_are_as_long_as_said() -> None:
    lengths = torch.tensor([40, 25, 11, 3, 1])
    hidden = hide_spans(lengths.repeat(40), 40, 0.5, 5, generator())
    inside = torch.arange(40) < lengths.repeat(40)[:, None]
    assert not bool((hidden & ~inside).any())
    assert bool(hidden.any(dim=1).all()), "at least one frame of every row"
    long = [row for row, length in zip(hidden.tolist(), lengths.repeat(40).tolist(), strict=True) if length == 40]
    runs = [len(run) for row in long for run in "".join("x" if h else " " for h in row).split()]
    assert min(runs) == 5, "overlapping spans make longer runs, never shorter ones"
    visible = inside & ~hidden
    assert bool(visible[lengths.repeat(40) == 3].any(dim=1).all()), "of a short row one frame stays in sight"


def test_spans_meet_the_share_where_they_do_not_overlap() -> None:
    """The number of starts, not of hidden frames, is what the share fixes: with spans of one frame the two are the same."""
    hidden = hide_spans(torch.full((3000,), 37), 37, 0.3, 1, generator())
    assert abs(float(hidden.float().mean()) - 0.3) < 0.005  # 3000 rows rounded by lot: a standard error of 0.00025


def test_distances_on_a_grid_that_is_not_square() -> None:
    """Against the definition, one pair at a time: the same displacement has the same number, the class token three of its own."""
    rows, columns, heads = 3, 5, 2
    bias = GridBias(rows, columns, heads)
    with torch.no_grad():
        bias.table.copy_(torch.arange(bias.table.numel()).view_as(bias.table))
    found = bias(torch.arange(16), torch.arange(16)).detach()
    assert found.shape == (heads, 16, 16)
    last = len(bias.table) - 1
    assert found[:, 0, 1:].eq(bias.table[last - 2][:, None]).all()
    assert found[:, 1:, 0].eq(bias.table[last - 1][:, None]).all()
    assert found[:, 0, 0].eq(bias.table[last]).all()
    numbers: dict[tuple[int, int], set[float]] = {}
    for q in range(15):
        for k in range(15):
            down, across = q // columns - k // columns, q % columns - k % columns
            numbers.setdefault((down, across), set()).add(float(found[0, q + 1, k + 1]))
    assert len(numbers) == 5 * 9 and all(len(values) == 1 for values in numbers.values())
    assert len(set.union(*numbers.values())) == 45, "and every displacement its own"
    some = bias(torch.tensor([4, 0]), torch.tensor([1, 2, 9]))
    assert torch.equal(some, found[:, [4, 0]][:, :, [1, 2, 9]])
