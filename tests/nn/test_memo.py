"""A frozen tower looks at each picture once, and what it made is what it would make."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tonggan.nn.memo import Memo, seen_once


def test_each_picture_is_looked_at_once_and_gives_what_it_would() -> None:
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    pixels[3] = pixels[1]
    tower, looked_at = nn.Linear(48, 7), []

    def look(some: Tensor) -> Tensor:
        looked_at.append(len(some))
        made: Tensor = tower(some.flatten(1).float())
        return made

    memo = Memo()
    for rows in ([0, 1], [1, 2, 3], [4, 0, 4]):
        found = seen_once(memo, look, pixels[rows])
        assert torch.allclose(found, tower(pixels[rows].flatten(1).float()), atol=1e-5) and not found.requires_grad
    assert looked_at == [2, 1, 1]
    assert seen_once(None, look, pixels[:1]).requires_grad, "without a memo the tower learns"


def test_what_finds_no_room_is_computed_each_time() -> None:
    pixels = torch.arange(2, dtype=torch.uint8).view(2, 1)
    memo = Memo(room=4)
    for _ in range(2):
        assert memo(lambda some: some.float() * 2, pixels).tolist() == [[0.0], [2.0]]
    assert len(memo._known) == 1
