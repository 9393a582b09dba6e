"""What may be spent: every request reserves the most that it can cost before it is sent, and gives back what it did not use."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tonggan.backends.api.presets import PRICE_FORM, Price
from tonggan.types import TongganError, UsageError

UNBOUNDED = (
    "a budget in money needs to know the most tokens that a picture can be billed as: give it with the price, as in "
    "dashscope:qwen-vl-max=3,9,CNY,1280 (picture.max_tokens of a preset); of sounds nobody says it, so they cannot be asked about under one"
)


class BudgetReached(TongganError):
    """The next request could go beyond the budget, so it was not sent."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The most tokens that a request can be billed; `input` is None where nobody says how a picture or a sound is counted."""

    input: int | None
    output: int

    def cost(self, price: Price) -> float | None:
        """In the price's currency, None when unknown."""
        return None if self.input is None else price.cost(self.input, self.output)


class Budget:
    """At most so many requests and so much money, for all endpoints that share it, each with a price of its own.

    One object serves all threads. What is held and spent together never goes beyond `money`, as long as no provider bills more
    than a request's bound.
    """

    def __init__(self, *, requests: int | None = None, money: float | None = None, currency: str | None = None) -> None:
        if money is not None and currency is None:
            raise UsageError("a budget in money needs its currency, for example CNY")
        if (requests is not None and requests < 0) or (money is not None and not 0 <= money < math.inf):
            raise UsageError("a budget is a number of requests, or an amount of money, from 0 on")
        self.requests, self.money, self.currency = requests, money, currency
        self.sent, self.spent, self._held = 0, 0.0, 0.0
        self._open = 0
        self._settled = threading.Condition()

    def admit(self, name: str, price: Price | None) -> None:
        """Raises `UsageError` for a model whose requests this budget could not count; ask before anything is sent."""
        if self.money is None:
            return
        if price is None:
            raise UsageError(f"{name}: no price is known, so a budget in money cannot be kept; give one: {PRICE_FORM}")
        if price.currency != self.currency:
            raise UsageError(
                f"{name}: its price is in {price.currency}, the budget in {self.currency}; give both in one currency, nothing is converted"
            )

    def reserve(self, bound: Bound, price: Price | None = None, *, wait: bool = False) -> float:
        """Hold a request's maximum; gives what is held, 0 without a price. Raises `BudgetReached` when it does not fit any more.

        With `wait`, requests that are under way are waited for as long as what they give back could make room: they seldom cost their
        maximum. Only for callers that hold one request at a time.
        """
        self.admit("the request", price)
        most = bound.cost(price) if price is not None else 0.0
        if self.money is not None and most is None:
            raise UsageError(UNBOUNDED)
        with self._settled:
            while not self._fits(most or 0.0, wait):
                self._settled.wait()
            self.sent += 1
            self._open += 1
            self._held += most or 0.0
            return most or 0.0

    def _fits(self, most: float, wait: bool) -> bool:
        """Whether a request may go; False to wait for another's end, `BudgetReached` when that would not help."""
        if self.requests is not None and self.sent >= self.requests:
            raise BudgetReached(f"the budget of {self.requests} requests is used up; a larger one goes on from what was answered")
        if self.money is None or self.spent + self._held + most <= self.money:
            return True
        if wait and self._open and self.spent + most <= self.money:
            return False
        raise BudgetReached(
            f"the next request could cost {most:.4g} {self.currency}; of the budget of {self.money:g}, "
            f"{self.spent:.4g} is spent and {self._held:.4g} reserved"
        )

    def settle(self, held: float, cost: float | None) -> None:
        """Give back what was held and count what it cost; None, a bill that nobody knows, is taken at its maximum."""
        with self._settled:
            self._open -= 1
            self._held = self._held - held if self._open else 0.0  # of sums of floats a crumb could be left
            self.spent += held if cost is None else cost
            self._settled.notify_all()


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
