"""Rows into batches, prefetched by threads that change neither order nor state."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from heapq import nlargest
from threading import Thread
from typing import Any, Protocol, runtime_checkable

import torch
from pydantic import Field

from tonggan.config import Config
from tonggan.data.audio import duration
from tonggan.data.order import Stream
from tonggan.data.rows import Dataset
from tonggan.tensors import Batch
from tonggan.types import Audio, Row, Text, TongganError, UsageError

HEADERS = 256
"""Sounds of each kind of file that are asked how long they last: a header takes a millisecond or two, a file's size some microseconds."""


class LoaderConfig(Config):
    """How rows are ordered and fetched; none of it but `streams`, `window` and the seed changes which rows a batch has."""

    batch_size: int = Field(default=256, ge=1)
    streams: int = Field(default=1, ge=1)
    """Logical streams: a multiple of every number of ranks that the run may have."""
    window: int | None = Field(default=None, ge=1)
    """Rows to shuffle among in shard mode; None: a full permutation per epoch."""
    threads: int = Field(default=2, ge=0)
    prefetch: int = Field(default=4, ge=0)


Collate = Callable[[Sequence[Row], Sequence[int]], Batch]
"""(rows, their epochs) -> Batch; must depend on nothing else."""


@runtime_checkable
class Choosing(Protocol):
    """A collate that takes one of a row's captions and one of its sounds, and not any: only those in its languages, say."""

    def captions(self, row: Row) -> list[Text]:
        """The captions of a row that it may take."""
        ...

    def sounds(self, row: Row) -> list[Audio]:
        """The sounds of a row that it may take."""
        ...

    def apart(self) -> Collate:
        """The same, but nothing that it keeps is mixed up with what this one keeps."""
        ...


@runtime_checkable
class Teaching(Protocol):
    """A collate whose rows are conversations, of any length."""

    def longest(self, rows: Sequence[Row], count: int) -> list[Row]:
        """So many of the rows, the longest first."""
        ...

    def apart(self) -> Collate:
        """The same, but nothing that it keeps is mixed up with what this one keeps."""
        ...


class Loader:
    """An endless iterator of batches with exact resume.

    `state_dict()` describes the batches that were *taken*, not those prefetched; a loader restored from it goes on with
    the next batch, whatever its number of threads. Rank r of `world` reads streams r, r + world, …
    """

    def __init__(self, dataset: Dataset, collate: Collate, config: LoaderConfig, *, seed: int, rank: int = 0, world: int = 1) -> None:
        if not len(dataset):
            raise TongganError("the data set has no rows to train on")
        check_streams(config, world)
        self.dataset, self.collate, self.config = dataset, collate, config
        self._streams = [
            Stream(dataset.shards, seed=seed, stream=s, streams=config.streams, window=config.window)
            for s in range(rank, config.streams, world)
        ]
        self._rows_per_stream = config.batch_size // config.streams
        cores = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(
            max(config.threads, 1), thread_name_prefix="tonggan-loader", initializer=_on_one_core, initargs=(cores,)
        )
        self._waiting: deque[tuple[Future[Batch], dict[str, Any]]] = deque()
        self._taken = self._state()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        while len(self._waiting) < max(self.config.prefetch, 1):
            self._order_one()
        future, state = self._waiting.popleft()
        batch = future.result()
        self._taken = state
        return batch

    def _order_one(self) -> None:
        drawn = [next(stream) for stream in self._streams for _ in range(self._rows_per_stream)]
        numbers, epochs = [row for _, row in drawn], [epoch for epoch, _ in drawn]
        self._waiting.append((self._pool.submit(self._make, numbers, epochs), self._state()))

    def _make(self, numbers: list[int], epochs: list[int]) -> Batch:
        return self.collate([self.dataset[i] for i in numbers], epochs)

    def largest(self, among: int = 20_000) -> Batch:
        """A batch of the longest conversations, or of the longest captions and the longest sounds that may be taken (of the first `among`
        rows): the most memory that a batch can take. A row of it may speak with another row's sound.

        Captions are long in UTF-8 bytes: in characters, a Chinese one of many tokens would count as short. Nothing of the order is used
        up. No two of its rows are positives of each other: whether every row has a negative is a question for real batches.
        """
        count = min(among, len(self.dataset))
        collate: Any = self.collate
        if isinstance(collate, Teaching):
            rows = collate.longest([self.dataset[i] for i in range(count)], self.config.batch_size)
            rows = [rows[place % len(rows)] for place in range(self.config.batch_size)]
            return collate.apart()(rows, [0] * len(rows))
        said = sorted(range(count), key=lambda i: -max(map(_bytes, self._captions(self.dataset[i])), default=0))
        heard = self._longest_sounds(count) or said
        rows = []
        for place in range(self.config.batch_size):
            row, other = self.dataset[said[place % len(said)]], self.dataset[heard[place % len(heard)]]
            # With one of each left, that one is taken.
            texts, audios = sorted(self._captions(row), key=_bytes)[-1:], sorted(self._sounds(other), key=duration)[-1:]
            rows.append(row.with_(texts=tuple(texts), audios=tuple(audios)))
        batch = (collate.apart() if isinstance(collate, Choosing) else collate)(rows, [0] * len(rows))
        if batch.keys is None:
            return batch
        return replace(batch, keys=torch.arange(1, 1 + batch.keys.numel()).view(batch.keys.shape))

    def _longest_sounds(self, count: int) -> list[int]:
        """Rows of the longest sounds, longest first: by their headers, which only the largest files of each kind are asked for."""
        kinds: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for number in range(count):
            for sound in self._sounds(self.dataset[number]):
                kinds[sound.path.suffix.lower() if sound.path else ""].append((_size(sound), number))
        largest = {number for sizes in kinds.values() for _, number in nlargest(HEADERS, sizes)}
        return sorted(largest, key=lambda i: (-max(map(duration, self._sounds(self.dataset[i]))), i))

    def _captions(self, row: Row) -> Sequence[Text]:
        return self.collate.captions(row) if isinstance(self.collate, Choosing) else row.texts

    def _sounds(self, row: Row) -> Sequence[Audio]:
        return self.collate.sounds(row) if isinstance(self.collate, Choosing) else row.audios

    @property
    def epoch(self) -> float:
        """Epochs taken so far, with the fraction of the current one."""
        state = self._taken["streams"][0]
        done = state["cursor"] - len(state["pending"])
        return float(state["epoch"]) + done * self.config.streams / len(self.dataset)

    @property
    def batches_per_epoch(self) -> float:
        """How many batches one pass over the data takes."""
        return len(self.dataset) / self.config.batch_size

    def _state(self) -> dict[str, Any]:
        return {"streams": [stream.state() for stream in self._streams]}

    def state_dict(self) -> dict[str, Any]:
        """Plain data; see the class."""
        return self._taken

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Forget what was prefetched and go on from `state`: of one loader, or the `joined` ones of all ranks.

        Raises `UsageError` when the data, the seed or the streams are not those with which the state was taken.
        """
        found = {one["order"]["stream"]: one for one in state["streams"]}
        missing = [stream.number for stream in self._streams if stream.number not in found]
        if missing:
            raise UsageError(f"the checkpoint has no stream {missing[0]}, only {sorted(found)}: keep loader.streams={len(found)}")
        for future, _ in self._waiting:
            future.cancel()
        self._waiting.clear()
        for stream in self._streams:
            stream.restore(found[stream.number])
        self._taken = self._state()

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def check_streams(config: LoaderConfig, world: int = 1) -> None:
    """Logical streams are dealt out among ranks, and each gives as many rows of a batch."""
    if config.streams % world or config.batch_size % config.streams:
        raise UsageError(
            f"loader.streams={config.streams} must be a multiple of the {world} ranks and divide batch_size={config.batch_size}"
        )


def _on_one_core(cores: int) -> None:
    """For a thread that changes a few pictures: a team of cores of its own would hold up the training step's.

    torch also gives the number to every thread that starts later, so one that ends at once sets it back for those. Asked first, torch
    has taken that number for this thread too, and does not take it again.
    """
    torch.get_num_threads()
    torch.set_num_threads(1)
    after = Thread(target=torch.set_num_threads, args=(cores,))
    after.start()
    after.join()


def _bytes(text: Text) -> int:
    return len(text.text.encode("utf-8", "surrogatepass"))


def _size(sound: Audio) -> int:
    """Bytes of the file; 0 where it is gone or elsewhere."""
    try:
        return sound.path.stat().st_size if sound.path is not None else len(sound.data or b"")
    except OSError:
        return 0


def joined(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The states of all ranks' loaders as one, which any other number of ranks with the same streams can load."""
    return {"streams": sorted((one for state in states for one in state["streams"]), key=lambda one: one["order"]["stream"])}
