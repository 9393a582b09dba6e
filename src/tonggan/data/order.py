"""Which row comes next. The order is ours, so that it can be stopped at any row and taken up again.

A *logical stream* is a seeded order over its share of the shards. The number of streams is fixed for a run; ranks share
them out, so a run may continue on another number of ranks with the same streams.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tonggan.types import TongganError, UsageError


class Stream:
    """Endless row numbers of one logical stream; every row of its share once per epoch.

    Without a `window` each epoch is one permutation of all rows (map mode). With one, shards are permuted and read in
    sequence, and a window of that many pending rows is drawn from at random (shard mode: disks and tars are read forward).
    """

    def __init__(self, shards: Sequence[int], *, seed: int, stream: int = 0, streams: int = 1, window: int | None = None) -> None:
        if sum(shards) < streams:
            raise TongganError(f"{sum(shards)} rows cannot be shared out to {streams} streams")
        self._starts = np.concatenate([[0], np.cumsum(shards)]).astype(np.int64)
        self._seed, self.number, self._streams, self._window = seed, stream, streams, window
        self.epoch = -1
        self._begin()

    def _begin(self) -> None:
        self.epoch += 1
        self._rng = np.random.default_rng([self._seed, self.epoch, self.number])
        self._source = self._sequence()
        self._cursor = 0
        self._pending: list[int] = []

    def _sequence(self) -> np.ndarray:
        """This epoch's rows of this stream, in reading order. Shared by all streams up to the share that each takes."""
        common = np.random.default_rng([self._seed, self.epoch])
        if self._window is None:
            return common.permutation(int(self._starts[-1]))[self.number :: self._streams]
        shards = common.permutation(len(self._starts) - 1)
        rows = np.concatenate([np.arange(self._starts[s], self._starts[s + 1]) for s in shards])
        return rows[self.number :: self._streams]

    def __next__(self) -> tuple[int, int]:
        """(epoch, row number) of the next row."""
        if self._window is None:
            if self._cursor == len(self._source):
                self._begin()
            self._cursor += 1
            return self.epoch, int(self._source[self._cursor - 1])
        self._fill()
        if not self._pending:
            self._begin()
            self._fill()
        at = int(self._rng.integers(len(self._pending)))
        self._pending[at], self._pending[-1] = self._pending[-1], self._pending[at]
        return self.epoch, self._pending.pop()

    def _fill(self) -> None:
        assert self._window is not None
        more = min(self._window - len(self._pending), len(self._source) - self._cursor)
        self._pending += self._source[self._cursor : self._cursor + more].tolist()
        self._cursor += more

    @property
    def _order(self) -> dict[str, Any]:
        """All that the order follows from. With any of it changed, a cursor points somewhere else."""
        shards = np.diff(self._starts).tolist() if self._window is not None else []
        return {
            "rows": int(self._starts[-1]),
            "shards": hashlib.sha256(repr(shards).encode()).hexdigest()[:12],
            "seed": self._seed,
            "stream": self.number,
            "streams": self._streams,
            "window": self._window,
        }

    def state(self) -> dict[str, Any]:
        """Plain data from which `restore` continues with the very next row."""
        return {
            "order": self._order,
            "epoch": self.epoch,
            "cursor": self._cursor,
            "pending": list(self._pending),
            "rng": self._rng.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; costs one permutation, not a replay. Raises `UsageError` when it is of another order."""
        then, now = state["order"], self._order
        changed = [f"{name} {then.get(name)} then, {value} now" for name, value in now.items() if then.get(name) != value]
        if changed:
            raise UsageError(f"this is not the order of rows that the checkpoint was reading: {'; '.join(changed)}")
        self.epoch = int(state["epoch"]) - 1
        self._begin()
        self._cursor, self._pending = int(state["cursor"]), list(state["pending"])
        self._rng.bit_generator.state = state["rng"]
