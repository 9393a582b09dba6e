"""What may be spent: every request reserves the most that it can cost before it is sent, and gives back what it did not use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tonggan.backends.api.presets import Price
from tonggan.types import TongganError, UsageError


class BudgetReached(TongganError):
    """The next request could go beyond the budget, so it was not sent."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The most tokens that a request can be billed; `input` is None where nobody says how pictures are counted."""

    input: int | None
    output: int

    def cost(self, price: Price) -> float | None:
        """In the price's currency, None when unknown."""
        return None if self.input is None else (self.input * price.input + self.output * price.output) / 1e6


class Budget:
    """At most so many requests, and so much money where a price is known. One object serves all threads."""

    def __init__(self, *, requests: int | None = None, money: float | None = None, price: Price | None = None) -> None:
        if money is not None and price is None:
            raise UsageError("a budget in money needs a price: give what a million input and output tokens cost")
        self.requests, self.money, self.price = requests, money, price
        self.sent, self.spent, self._held = 0, 0.0, 0.0
        self._lock = threading.Lock()

    def reserve(self, bound: Bound) -> float:
        """Hold a request's maximum; gives what is held. Raises `BudgetReached` when it does not fit any more."""
        most = bound.cost(self.price) if self.price is not None else 0.0
        with self._lock:
            if self.requests is not None and self.sent >= self.requests:
                raise BudgetReached(f"the budget of {self.requests} requests is used up")
            if self.money is not None:
                assert self.price is not None
                if most is None:
                    raise UsageError(
                        "a budget in money needs to know the most tokens that a picture can be billed as: set picture.max_tokens"
                    )
                if self.spent + self._held + most > self.money:
                    raise BudgetReached(
                        f"the next request could cost {most:.4g} {self.price.currency}; of the budget of {self.money:g}, "
                        f"{self.spent:.4g} is spent and {self._held:.4g} reserved"
                    )
            self.sent += 1
            self._held += most or 0.0
            return most or 0.0

    def settle(self, held: float, used: tuple[int | None, int | None] | None) -> None:
        """Give back what was held; `used` is (input, output) tokens as billed. An answer that doesn't say is taken at its maximum;
        None: nothing was billed."""
        cost = 0.0
        if used is not None:
            known = used[0] is not None and used[1] is not None and self.price is not None
            cost = ((used[0] or 0) * self.price.input + (used[1] or 0) * self.price.output) / 1e6 if known and self.price else held
        with self._lock:
            self._held -= held
            self.spent += cost


class Pace:
    """At most so many sends a minute, evenly spaced; None: as they come. Everybody also waits when a provider says so."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep):
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Sleep until it is this caller's turn."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._gap
        if turn > now:
            self._sleep(turn - now)

    def pause(self, seconds: float) -> None:
        """Nobody sends for so long: the provider is busy."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)
