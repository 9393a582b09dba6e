"""Two-way key tables: how another library's tensor names become ours, as data.

A table maps *their* name to *ours*. In a pattern `{i}` (or `{j}`) stands for a number and `{p}` for one word
(`weight`, `bias`); each must occur on both sides. `None` on our side means dropped on purpose; a pair
(name, `Change`) also changes the tensor's form. Read from left to right the table imports, from right to left it exports:
there is no second table that could disagree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from torch import Tensor

from tonggan.types import TongganError


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a tensor's form and its exact inverse."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


SCALAR_TO_VECTOR = Change(lambda t: t.reshape(1), lambda t: t.reshape(()))
"""Ours is [1] (a scalar parameter has no shape to shard), theirs is a scalar."""

Target: TypeAlias = str | tuple[str, Change] | None
Rules: TypeAlias = Mapping[str, Target]

_SLOT = re.compile(r"\\\{([a-z])\\\}")


@dataclass(frozen=True)
class KeyTable:
    """`rules` from their names to ours; `family` names the format in messages."""

    family: str
    rules: Rules
    ours_only: frozenset[str] = frozenset()
    """Names of ours that the format has no word for and that mean nothing in it: left out both ways."""

    def import_(self, theirs: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
        """Their tensors under our names. `expected` are all the names that our module has.

        Raises `TongganError` naming every key that no rule knows and every key of ours that stayed without a tensor.
        """
        ours: dict[str, Tensor] = {}
        unknown = []
        for key, tensor in theirs.items():
            found = _apply(self._forward, key)
            if found is None:
                unknown.append(key)
                continue
            name, change = found
            if name is not None:
                ours[name] = change.to_ours(tensor) if change else tensor
        wanted = set(expected) - self.ours_only
        missing = sorted(wanted - set(ours))
        unknown += sorted(key for key in theirs if (name := self.ours(key)) is not None and name not in wanted)
        if unknown or missing:
            parts = []
            if unknown:
                parts.append(f"unknown: {_some(unknown)}")
            if missing:
                parts.append(f"missing: {_some([self.theirs(name) or name for name in missing])}")
            raise TongganError(f"the weights do not fit this {self.family} configuration; {'; '.join(parts)}")
        return ours

    def export(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors under their names; raises `TongganError` naming those that the format has no place for."""
        theirs: dict[str, Tensor] = {}
        homeless = []
        for name, tensor in ours.items():
            if name in self.ours_only:
                continue
            found = _apply(self._backward, name)
            key, change = found or (None, None)
            if key is None:
                homeless.append(name)
            else:
                theirs[key] = (change.to_theirs(tensor) if change else tensor).contiguous()
        if homeless:
            raise TongganError(f"the {self.family} format has no place for {_some(homeless)}; save with format='tonggan'")
        return theirs

    def ours(self, key: str) -> str | None:
        """Our name of their key; None when dropped or unknown."""
        found = _apply(self._forward, key)
        return found[0] if found else None

    def theirs(self, name: str) -> str | None:
        """Their key of our name; None when unknown."""
        found = _apply(self._backward, name)
        return found[0] if found else None

    @cached_property
    def _forward(self) -> list[_Compiled]:
        return [_compile(theirs, *_target(target)) for theirs, target in self.rules.items()]

    @cached_property
    def _backward(self) -> list[_Compiled]:
        named = [(theirs, *_target(target)) for theirs, target in self.rules.items()]
        return [_compile(ours, theirs, change) for theirs, ours, change in named if ours is not None]


@dataclass(frozen=True, slots=True)
class _Compiled:
    pattern: re.Pattern[str]
    target: str | None
    change: Change | None


def prefixed(theirs: str, ours: str, rules: Rules) -> dict[str, Target]:
    """The same rules with a prefix on either side: one list for the layers of both towers."""
    return {
        theirs + key: None if target is None else ours + target if isinstance(target, str) else (ours + target[0], target[1])
        for key, target in rules.items()
    }


def _target(target: Target) -> tuple[str | None, Change | None]:
    return target if isinstance(target, tuple) else (target, None)


def _compile(source: str, target: str | None, change: Change | None) -> _Compiled:
    slots = {"i": r"(?P<i>\d+)", "j": r"(?P<j>\d+)", "p": r"(?P<p>[a-z_]+)"}
    pattern = _SLOT.sub(lambda m: slots[m[1]], re.escape(source))
    if target is not None:
        assert set(re.findall(r"\{(.)\}", source)) == set(re.findall(r"\{(.)\}", target)), f"{source} and {target} differ in slots"
    return _Compiled(re.compile(pattern), target, change)


def _apply(rules: list[_Compiled], key: str) -> tuple[str | None, Change | None] | None:
    for rule in rules:
        match = rule.pattern.fullmatch(key)
        if match:
            return (rule.target.format(**match.groupdict()) if rule.target is not None else None), rule.change
    return None


def _some(names: list[str], limit: int = 8) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
