"""Two-way key tables: how another library's tensor names become ours, as data.

A table maps *their* name to *ours*. In a pattern `{i}` (or `{j}`) stands for a number and `{p}` for one word
(`weight`, `bias`); each must occur on both sides. `None` on our side means dropped on purpose; a pair
(name, `Change`) also changes the tensor's form; `Stacked` names are the parts of one tensor of theirs. Read from left to right the
table imports, from right to left it exports: there is no second table that could disagree. Several of theirs may have one of ours
(other releases' names, or one that is stored again under another): the first is what is written, and where a file has several they
must be bit for bit the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from tonggan.types import TongganError


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a tensor's form and its exact inverse."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


TRANSPOSED = Change(lambda t: t.T.contiguous(), lambda t: t.T)
"""Theirs is [in, out], as in GPT-2's `Conv1D`; ours [out, in]."""
SCALAR_TO_VECTOR = Change(lambda t: t.reshape(1), lambda t: t.reshape(()))
"""Ours is [1] (a scalar parameter has no shape to shard), theirs is a scalar."""


@dataclass(frozen=True, slots=True)
class Stacked:
    """Ours of these names on top of each other, equal parts of the first dimension, are one of theirs (`nn.MultiheadAttention`'s), whose
    form is changed as a whole."""

    names: tuple[str, ...]
    change: Change | None = None


Target: TypeAlias = str | tuple[str, Change] | Stacked | None
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

        Raises `TongganError` naming every key that no rule knows, every key of ours that stayed without a tensor, and keys that name
        one tensor of ours with different values.
        """
        ours: dict[str, Tensor] = {}
        origin: dict[str, str] = {}
        unknown, contrary = [], []
        wanted = set(expected) - self.ours_only
        for key, tensor in theirs.items():
            found = next((there for rule in self._forward if (there := rule.find(key)) is not None), None)
            if found is None or any(name not in wanted for name in found.names):
                unknown.append(key)
            if found is not None:
                whole = found.change.to_ours(tensor) if found.change else tensor
                parts = whole.chunk(len(found.names)) if len(found.names) > 1 else (whole,)
                for name, part in zip(found.names, parts, strict=False):  # no name: dropped on purpose; a part too few is missing below
                    if name in ours and not torch.equal(ours[name], part):
                        contrary.append(f"{origin[name]} and {key}")
                    ours[name], origin[name] = part, key
        missing = sorted(wanted - set(ours))
        if unknown or missing or contrary:
            wrong = []
            if unknown:
                wrong.append(f"unknown: {_some(unknown)}")
            if missing:
                wrong.append(f"missing: {_some(list(dict.fromkeys(self.theirs(name) or name for name in missing)))}")
            if contrary:
                wrong.append(f"different values for one and the same tensor: {_some(contrary)}; leave out the one that does not count")
            raise TongganError(f"the weights do not fit this {self.family} configuration; {'; '.join(wrong)}")
        return ours

    def export(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors under their names; raises `TongganError` naming those that the format has no place for."""
        theirs: dict[str, Tensor] = {}
        homeless = []
        for name, tensor in ours.items():
            if name in self.ours_only:
                continue
            found = self._home(name)
            if found is None:
                homeless.append(name)
            elif found.key not in theirs:  # of a stack, the first part brings the others
                whole = torch.cat([ours[part] for part in found.names]) if len(found.names) > 1 else tensor
                theirs[found.key] = (found.change.to_theirs(whole) if found.change else whole).contiguous()
        if homeless:
            raise TongganError(f"the {self.family} format has no place for {_some(homeless)}; save with format='tonggan'")
        return theirs

    def dropped(self, theirs: Iterable[str]) -> list[str]:
        """Those of their keys that are left out on purpose."""
        return [key for key in theirs if any((found := rule.find(key)) is not None and not found.names for rule in self._forward)]

    def theirs(self, name: str) -> str | None:
        """Their key of our name; None when unknown."""
        found = self._home(name)
        return found.key if found else None

    def first(self, key: str) -> str | None:
        """The first of their keys for the tensor that has this one; None when it is unknown, or dropped."""
        found = next((there for rule in self._forward if (there := rule.find(key)) is not None), None)
        return self.theirs(found.names[0]) if found is not None and found.names else None

    def _home(self, name: str) -> _Found | None:
        """Where a tensor of ours goes: the first rule that has its name."""
        return next((there for rule in self._backward if (there := rule.find(name)) is not None), None)

    @cached_property
    def _forward(self) -> list[_Rule]:
        return [_compile(key, key, *_target(target)) for key, target in self.rules.items()]

    @cached_property
    def _backward(self) -> list[_Rule]:
        named = [(key, *_target(target)) for key, target in self.rules.items()]
        return [_compile(name, key, names, change) for key, names, change in named for name in names]


@dataclass(frozen=True, slots=True)
class _Found:
    """A pair of names with their numbers and words filled in: one of theirs, and those of ours that it is made of."""

    key: str
    names: tuple[str, ...]
    change: Change | None


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    key: str
    names: tuple[str, ...]
    change: Change | None

    def find(self, text: str) -> _Found | None:
        """The pair of names that `text` belongs to; None when it does not fit the pattern."""
        match = self.pattern.fullmatch(text)
        if match is None:
            return None
        filled = match.groupdict()
        return _Found(self.key.format(**filled), tuple(name.format(**filled) for name in self.names), self.change)


def prefixed(theirs: str, ours: str, rules: Rules) -> dict[str, Target]:
    """The same rules with a prefix on either side: one list for the layers of both towers."""

    def put(target: Target) -> Target:
        match target:
            case None:
                return None
            case str():
                return ours + target
            case Stacked(names, change):
                return Stacked(tuple(ours + name for name in names), change)
            case (name, change):
                return ours + name, change

    return {theirs + key: put(target) for key, target in rules.items()}


def _target(target: Target) -> tuple[tuple[str, ...], Change | None]:
    match target:
        case None:
            return (), None
        case str():
            return (target,), None
        case Stacked(names, change):
            return names, change
        case (name, change):
            return (name,), change


def _compile(source: str, key: str, names: tuple[str, ...], change: Change | None) -> _Rule:
    slots = {"i": r"(?P<i>\d+)", "j": r"(?P<j>\d+)", "p": r"(?P<p>[a-z_]+)"}
    pattern = _SLOT.sub(lambda m: slots[m[1]], re.escape(source))
    for name in names:
        assert set(re.findall(r"\{(.)\}", key)) == set(re.findall(r"\{(.)\}", name)), f"{key} and {name} differ in slots"
    return _Rule(re.compile(pattern), key, names, change)


def _some(names: list[str], limit: int = 8) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
