"""A `Model` out of a checkpoint of ours: order kept, batches by kind and length, one bad item never fails the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tonggan import devices
from tonggan.data.text import is_unicode
from tonggan.hub.read import Checkpoint
from tonggan.models import Classifier
from tonggan.models.base import Embedder, Featurizer, Matcher
from tonggan.tensors import Modality
from tonggan.types import CannotError, Embeddings, EmbedOptions, Image, Item, MediaError, Model, Text, UsageError, as_part

THREADS = 4
"""Decoding is Pillow's, which releases the interpreter lock; more threads than that only fight torch's."""


class LocalModel(Model):
    """A model of ours, in this process; what its module offers (`models.base`) is what it can.

    `module` and `processor` are the parts themselves, for training on; `labels` are a classifier's classes when known.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device | str | None = None) -> None:
        self.checkpoint = checkpoint
        self.name = checkpoint.name
        self.identity = checkpoint.identity
        self.config = checkpoint.config
        self.processor = checkpoint.processor
        self.device = devices.choose(device)
        self.module = checkpoint.module.to(self.device).eval()
        self.labels: tuple[str, ...] | None = checkpoint.labels
        offers = {"embed": Embedder, "features": Featurizer, "match": Matcher}
        self.can = frozenset(verb for verb, offer in offers.items() if isinstance(self.module, offer))
        self.modalities: frozenset[Modality] = getattr(self.module, "modalities", frozenset())

    @property
    def dim(self) -> int:
        """Length of the vectors that `embed` gives."""
        if not isinstance(self.module, Embedder):
            raise self._cannot("embed")
        return self.module.dim

    def embed(self, items: Sequence[Item], options: EmbedOptions | None = None) -> Embeddings:
        """Every item as a unit vector: float32 [items, dim]. Strings are text, also such as look like paths."""
        module = self.module
        if not isinstance(module, Embedder):
            raise self._cannot("embed")
        done = self._run(items, {kind: partial(module.encode, kind) for kind in module.modalities}, options or EmbedOptions())
        vectors = np.zeros((len(items), module.dim), np.float32)
        for index, row in done.rows.items():
            vectors[index] = row
        return Embeddings(vectors, dict(sorted(done.errors.items())), tuple(sorted(done.truncated)), done.tokens)

    def features(self, items: Sequence[Item], layer: str = "pooled") -> np.ndarray:
        """What a tower gives before head and normalisation: float32 [items, width]; a classifier also has `layer="logits"`.

        What cannot be read gets a row of NaN. Kinds of input may be mixed only if their towers have one width.
        """
        done = self._run(items, self._layers(layer), EmbedOptions())
        widths = {len(row) for row in done.rows.values()}
        if len(widths) > 1:
            raise UsageError(
                f"{self.name}: these kinds of input have features of different width {sorted(widths)}; ask for one kind at a time"
            )
        result = np.full((len(items), widths.pop() if widths else 0), np.nan, np.float32)
        for index, row in done.rows.items():
            result[index] = row
        return result

    def match(self, pairs: Sequence[tuple[Item, Item]]) -> np.ndarray:
        """How sure the model is that each picture and text belong together: float32 [pairs], 0 to 1; NaN where one cannot be read."""
        module, process, tokenizer = self.module, self.processor.image, self.processor.text
        if not isinstance(module, Matcher) or process is None or tokenizer is None:
            raise self._cannot("match")
        scores = np.full(len(pairs), np.nan, np.float32)
        for some in _chunks(list(range(len(pairs))), EmbedOptions().batch_size):
            kept, pixels, texts = [], [], []
            for i in some:
                picture, text = (as_part(item) for item in pairs[i])
                if not isinstance(picture, Image) or not isinstance(text, Text):
                    raise UsageError(
                        f"{self.name}: a pair is a picture and a text, in this order; pair {i} is {picture.kind} and {text.kind}"
                    )
                with suppress(MediaError):
                    pixels.append(process(picture))
                    kept.append(i)
                    texts.append(text.text)
            if kept:
                with torch.inference_mode():
                    seen = torch.from_numpy(np.stack(pixels)).to(self.device)
                    logits = module.match(seen, self.processor.tokens(texts).to(self.device))
                scores[kept] = logits.float().softmax(dim=1)[:, 1].cpu().numpy()
        return scores

    def _layers(self, layer: str) -> dict[Modality, Callable[[Any], Tensor]]:
        module = self.module
        if not isinstance(module, Featurizer):
            raise self._cannot("features")
        known: dict[str, dict[Modality, Callable[[Any], Tensor]]]
        known = {"pooled": {kind: partial(module.features, kind) for kind in module.modalities}}
        if isinstance(self.module, Classifier):
            known["logits"] = {"image": self.module}
        if layer not in known:
            raise CannotError(f"{self.name} has no features of layer {layer!r}; it has: {', '.join(known)}")
        return known[layer]

    def _run(self, items: Sequence[Item], encode: Mapping[Modality, Callable[[Any], Tensor]], options: EmbedOptions) -> _Done:
        """Encode each kind in its own batches and put the rows back where they came from."""
        if options.batch_size < 1:
            raise UsageError(f"batch_size is {options.batch_size}; it must be at least 1")
        parts = [as_part(item) for item in items]
        for part in parts:
            if part.kind not in self.modalities:
                raise CannotError(f"{self.name} does not take {part.kind}; it takes: {', '.join(sorted(self.modalities))}")
        done = _Done()
        texts = [(i, part) for i, part in enumerate(parts) if isinstance(part, Text)]
        pictures = [(i, part) for i, part in enumerate(parts) if isinstance(part, Image)]
        with torch.inference_mode():
            self._texts(texts, encode.get("text"), options, done)
            self._pictures(pictures, encode.get("image"), options, done)
        return done

    def _texts(self, texts: list[tuple[int, Text]], encode: Callable[[Any], Tensor] | None, options: EmbedOptions, done: _Done) -> None:
        """Longest first: rows of a batch are of like length, and a batch that does not fit into memory fails at once."""
        if not texts:
            return
        assert encode is not None
        processor = self.processor
        assert processor.text is not None
        done.errors |= {i: "not valid Unicode: half a character" for i, part in texts if not is_unicode(part.text)}
        texts = [(i, part) for i, part in texts if i not in done.errors]
        ids, cut = processor.text.encode([part.text for _, part in texts])
        done.truncated += [texts[k][0] for k in cut]
        done.tokens += sum(map(len, ids))
        order = sorted(range(len(texts)), key=lambda k: -len(ids[k]))
        for some in _chunks(order, options.batch_size):
            tokens = processor.collate([ids[k] for k in some])
            rows = encode(tokens.to(self.device))
            done.take([texts[k][0] for k in some], rows)

    def _pictures(
        self, pictures: list[tuple[int, Image]], encode: Callable[[Any], Tensor] | None, options: EmbedOptions, done: _Done
    ) -> None:
        """Threads decode the next batch while this one is computed."""
        if not pictures:
            return
        process = self.processor.image
        assert encode is not None and process is not None

        def read(picture: Image) -> np.ndarray | MediaError:
            try:
                return process(picture, decode=options.decode)
            except MediaError as error:
                return error

        with ThreadPoolExecutor(THREADS) as pool:
            for indices, results in _ahead(pool, read, pictures, options.batch_size):
                good = [(i, pixels) for i, pixels in zip(indices, results, strict=True) if not isinstance(pixels, MediaError)]
                done.errors |= {i: result.reason for i, result in zip(indices, results, strict=True) if isinstance(result, MediaError)}
                if good:
                    batch = torch.from_numpy(np.stack([pixels for _, pixels in good])).to(self.device)
                    done.take([i for i, _ in good], encode(batch))


@dataclass
class _Done:
    """What has been computed so far, by the item's place in the caller's list."""

    rows: dict[int, np.ndarray] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    truncated: list[int] = field(default_factory=list)
    tokens: int = 0

    def take(self, indices: list[int], rows: Tensor) -> None:
        self.rows |= dict(zip(indices, rows.float().cpu().numpy(), strict=True))


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _ahead(
    pool: ThreadPoolExecutor, read: Callable[[Image], Any], pictures: list[tuple[int, Image]], size: int
) -> Iterator[tuple[list[int], list[Any]]]:
    """Batches of (places, results) in order; while one is being used the threads already work on the next."""
    waiting: tuple[list[int], list[Future[Any]]] | None = None
    for some in _chunks(pictures, size):
        begun = [i for i, _ in some], [pool.submit(read, picture) for _, picture in some]
        if waiting:
            yield waiting[0], [future.result() for future in waiting[1]]
        waiting = begun
    if waiting:
        yield waiting[0], [future.result() for future in waiting[1]]
