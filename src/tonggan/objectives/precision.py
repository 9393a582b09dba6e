"""Losses are computed in single precision, whatever the towers compute in.

At a scale of 100, bf16's eight bits leave errors of 0.4 in a logit, and sums over a large batch lose more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """`function` outside autocast, its half-precision arguments turned to single; single and double are left as they are."""

    @functools.wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(x.device.type for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        with torch.autocast(device, enabled=False):
            return function(*map(_single, args), **{name: _single(x) for name, x in kwargs.items()})

    return computed


def _single(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.float16, torch.bfloat16) else x
