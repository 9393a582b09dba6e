"""What a frozen tower made of pictures, kept by their content: while others learn from it, each picture is looked at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

ROOM = 4 * 1024**3
"""Bytes that are kept; what finds no room is computed each time."""


class Memo:
    """States by content. It belongs to one function of one frozen module: when that learns, it must be thrown away."""

    def __init__(self, room: int = ROOM) -> None:
        self._known: dict[bytes, Tensor] = {}
        self._room = room

    def __call__(self, look: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
        """`look(pixels)`, uint8 [N, ...] to float [N, ...], without a gradient; only pictures that are new are looked at."""
        keys = [hashlib.blake2b(one.tobytes(), digest_size=16).digest() for one in pixels.cpu().numpy()]
        new = {key: place for place, key in enumerate(keys) if key not in self._known}
        found = {key: self._known[key] for key in keys if key in self._known}
        if new:
            with torch.no_grad():
                made = look(pixels[list(new.values())])
            for key, one in zip(new, made, strict=True):
                found[key] = one
                if (size := one.numel() * one.element_size()) <= self._room:
                    self._room -= size
                    self._known[key] = one.clone()
        return torch.stack([found[key] for key in keys])


@runtime_checkable
class Rememberer(Protocol):
    """A system whose picture tower may be frozen while the rest learns."""

    image: Any
    """The tower, or None."""
    memo: Memo | None


def seen_once(memo: Memo | None, look: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """`look(pixels)`, through a memo where there is one."""
    return look(pixels) if memo is None else memo(look, pixels)
