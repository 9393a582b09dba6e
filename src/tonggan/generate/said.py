"""What is being said, word by word, and what is ready to be shown of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch

from tonggan.generate.sampling import Sampling

Decode: TypeAlias = Callable[[Sequence[int]], str]
"""Text of ids."""
_BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a decoder writes for bytes that are no whole character."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer."""

    ids: tuple[int, ...]
    """Its tokens, without the end; with those of a stop text, which `text` is cut before."""
    text: str
    logprobs: tuple[float, ...]
    """Natural logarithm of each token's probability as the model gave it, before any setting (temperature, penalty, suppressed words); the
    end's too, where it came to one."""
    reason: Literal["stop", "length"]
    """An end token or text, or no more room."""


@dataclass(slots=True)
class Saying:
    """One answer on its way: which row of the batch it answers, and its own source of chance."""

    row: int
    number: int
    """Which of the row's answers it is."""
    sampling: Sampling
    limit: int
    """Most tokens."""
    generator: torch.Generator | None
    used: set[int]
    """Words of prompt and answer, for the repetition penalty."""
    shown: bool = False
    """Whether its text is asked for after every word."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    """As far as it is certain: no half characters, nothing that may still become a stop."""
    reason: Literal["stop", "length"] | None = None

    def take(self, token: int, logprob: float, ends: frozenset[int], decode: Decode | None) -> None:
        """The next token; it may be the last."""
        self.logprobs.append(logprob)
        if token in ends:
            self.reason = "stop"
        else:
            self.ids.append(token)
            self.used.add(token)
            if len(self.ids) >= self.limit:
                self.reason = "length"
        if decode is not None and (self.shown or self.sampling.stop or self.reason is not None):
            self._read(decode(self.ids))

    def _read(self, whole: str) -> None:
        found = [place for stop in self.sampling.stop if (place := whole.find(stop)) >= 0]
        if found:
            self.text, self.reason = whole[: min(found)], "stop"
        elif self.reason is not None:
            self.text = whole
        else:
            certain = whole.rstrip(_BROKEN) if whole.endswith(_BROKEN) else whole
            held = max((_overlap(certain, stop) for stop in self.sampling.stop), default=0)
            certain = certain[: len(certain) - held]
            # A decoder may still change the end of what it wrote (it puts a full stop closer, say); what was shown stays.
            self.text = certain if certain.startswith(self.text) else self.text

    def done(self) -> Said:
        """The answer, once there is a reason to end it."""
        assert self.reason is not None
        return Said(tuple(self.ids), self.text, tuple(self.logprobs), self.reason)


def _overlap(text: str, stop: str) -> int:
    """Letters at the end of a text with which a stop may have begun."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
