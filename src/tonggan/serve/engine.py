"""The engine behind every entrance (no HTTP here): requests of many callers become batches, what was embedded before is remembered.

One worker thread owns the model. It waits a few milliseconds for company, so that sixteen callers with one text each cost one
forward pass, not sixteen; a lone caller waits that long at most. Identical items in flight are embedded once.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from tonggan.data.media import content_bytes
from tonggan.data.prompts import TEMPLATES
from tonggan.search import Hit, Index
from tonggan.types import Answer, CannotError, ChatOptions, Embeddings, Item, MediaError, Message, Model, Text, UsageError, as_part

CLASSIFY_SCALE = 100.0
"""Cosines are multiplied by this before the softmax, as CLIP's zero-shot classifier does."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """One item's unit vector [dim], whether its text was cut, how many tokens were read; or why it failed."""

    vector: np.ndarray | None
    truncated: bool = False
    tokens: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    key: bytes
    item: Item
    future: Future[Embedded]


class Engine:
    """Serves one model and, where there is one, the index made with it. Close it, or use it as a context manager.

    Raises `CannotError` for a model that neither embeds nor chats, `TongganError` for another model's index.
    """

    def __init__(
        self, model: Model, index: Index | None = None, *, max_batch: int = 64, wait_ms: float = 3.0, remember: int = 4096
    ) -> None:
        if not {"embed", "chat"} & model.can:
            can = ", ".join(sorted(model.can)) or "nothing"
            raise CannotError(f"{model.name} cannot be served: it can {can}, and all that is served needs embed or chat")
        if index is not None:
            index.check(model)
        self.model = model
        self.index = index
        self._max_batch, self._wait = max_batch, wait_ms / 1000
        self._remember = remember
        self._cache: OrderedDict[bytes, Embedded] = OrderedDict()
        self._flying: dict[bytes, Future[Embedded]] = {}
        self._lock = threading.Lock()
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._worker = threading.Thread(target=self._work, name="tonggan-engine", daemon=True)
        self._worker.start()
        self._speaking = threading.Lock()
        self.batches = 0
        """Forward passes so far."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish what is queued and stop."""
        self._jobs.put(None)
        self._worker.join()

    def embed(self, items: Sequence[Item]) -> list[Embedded]:
        """Each item's vector, in order; an item that cannot be read has its `error`."""
        if "embed" not in self.model.can:
            raise CannotError(f"{self.model.name} cannot embed; it can: {', '.join(sorted(self.model.can))}")
        for part in map(as_part, items):
            if part.kind not in self.model.modalities:
                raise CannotError(f"{self.model.name} embeds {', '.join(sorted(self.model.modalities))}, not {part.kind}")
        return [future.result() for future in [self._submit(item) for item in items]]

    def chat(self, conversation: Sequence[Message], options: ChatOptions) -> Generator[str, None, Answer]:
        """The answer in pieces; what the generator returns is the whole, which may hold an error. One answer at a time: the others wait.

        Raises `CannotError` at once where the model cannot chat, or does not take what the conversation holds.
        """
        model = self.model
        if "chat" not in model.can:
            raise CannotError(f"{model.name} cannot chat; it can: {', '.join(sorted(model.can))}")
        for part in (part for message in conversation for part in message.parts):
            if part.kind not in model.modalities:
                raise CannotError(f"{model.name} takes {', '.join(sorted(model.modalities))}, not {part.kind}")
        return self._spoken(conversation, options)

    def _spoken(self, conversation: Sequence[Message], options: ChatOptions) -> Generator[str, None, Answer]:
        with self._speaking:
            return (yield from self.model.stream(conversation, options))

    def search(self, query: Item, limit: int = 12) -> list[Hit]:
        """The nearest of the index."""
        if self.index is None:
            raise UsageError(
                f"no index made with {self.model.name} is being served; start with: tonggan serve MODEL --index DIR (an adapter's lies "
                "in its directory, as DIR/index)"
            )
        found = self.embed([query])[0]
        if found.vector is None:
            raise MediaError("query", found.error or "unreadable")
        return self.index.search(self.model, found.vector, limit)

    def classify(
        self, items: Sequence[Item], labels: Sequence[str], *, lang: str = "en", templates: Sequence[str] = ()
    ) -> list[dict[str, float]]:
        """Probability of each label for each picture: softmax over 100 times the cosine to the mean of the label's prompts."""
        if len(set(labels)) < 2:
            raise UsageError(f"classification needs at least two different labels; got {list(labels)}")
        if len(set(labels)) < len(labels) or not all(label.strip() for label in labels):
            raise UsageError("labels: one is empty or occurs twice")
        if wrong := next((template for template in templates if "{}" not in template), None):
            raise UsageError(f"templates: {wrong!r} has no {{}} where the label goes")
        used = tuple(templates) or TEMPLATES.get(lang, TEMPLATES["en"])
        prompts = [template.replace("{}", label) for label in labels for template in used]
        vectors = np.stack([e.vector for e in self.embed(prompts) if e.vector is not None])
        heads = vectors.reshape(len(labels), len(used), -1).mean(axis=1)
        heads /= np.linalg.norm(heads, axis=1, keepdims=True)
        answers = []
        for number, embedded in enumerate(self.embed(items)):
            if embedded.vector is None:
                raise MediaError(f"input {number}", embedded.error or "unreadable")
            logits = CLASSIFY_SCALE * heads @ embedded.vector
            weights = np.exp(logits - logits.max())
            answers.append(dict(zip(labels, (weights / weights.sum()).tolist(), strict=True)))
        return answers

    def _submit(self, item: Item) -> Future[Embedded]:
        key = _key(item)
        with self._lock:
            if (known := self._cache.get(key)) is not None:
                self._cache.move_to_end(key)
                done: Future[Embedded] = Future()
                done.set_result(known)
                return done
            if (flying := self._flying.get(key)) is not None:
                return flying
            future: Future[Embedded] = Future()
            self._flying[key] = future
        self._jobs.put(_Job(key, item, future))
        return future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch, deadline, last = [job], time.monotonic() + self._wait, False
            while len(batch) < self._max_batch:
                try:
                    more = self._jobs.get(timeout=max(deadline - time.monotonic(), 0))
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                batch.append(more)
            self._run(batch)
            if last:
                return

    def _run(self, batch: list[_Job]) -> None:
        try:
            found = self.model.embed([job.item for job in batch])
            self.batches += 1
            results = _split(found, len(batch))
        except BaseException as error:  # the worker must outlive any one request; whoever asked is told
            self._finish(batch, error)
            return
        with self._lock:
            for job, result in zip(batch, results, strict=True):
                self._flying.pop(job.key, None)
                if result.error is None:
                    self._cache[job.key] = result
            while len(self._cache) > self._remember:
                self._cache.popitem(last=False)
        for job, result in zip(batch, results, strict=True):
            job.future.set_result(result)

    def _finish(self, batch: list[_Job], error: BaseException) -> None:
        with self._lock:
            for job in batch:
                self._flying.pop(job.key, None)
        for job in batch:
            job.future.set_exception(error)


def _split(found: Embeddings, count: int) -> list[Embedded]:
    truncated = set(found.truncated)
    share, rest = divmod(found.tokens, count) if count else (0, 0)
    return [
        Embedded(None, error=found.errors[i])
        if i in found.errors
        else Embedded(found.vectors[i], truncated=i in truncated, tokens=share + (i < rest))
        for i in range(count)
    ]


def _key(item: Item) -> bytes:
    part = as_part(item)
    digest = hashlib.sha256(part.kind.encode())
    digest.update(part.text.encode() if isinstance(part, Text) else content_bytes(part))
    return digest.digest()
