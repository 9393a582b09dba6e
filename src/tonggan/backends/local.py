"""A `Model` out of a checkpoint of ours: order kept, batches by kind and length, one bad item never fails the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tonggan import devices
from tonggan.backends.pair import image_part, text_part
from tonggan.data.text import is_unicode
from tonggan.hub.read import Checkpoint
from tonggan.models import Classifier, DualEncoder
from tonggan.tensors import Tokens
from tonggan.types import CannotError, Embeddings, EmbedOptions, Image, Item, MediaError, Model, Text, UsageError, as_part

THREADS = 4
"""Decoding is Pillow's, which releases the interpreter lock; more threads than that only fight torch's."""


class LocalModel(Model):
    """A dual encoder, sentence encoder or classifier of ours, in this process.

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
        towers = {"image": image_part(self.module), "text": text_part(self.module)}
        self.modalities = frozenset(kind for kind, tower in towers.items() if tower is not None)
        self.can = frozenset({"features"} if isinstance(self.module, Classifier) else {"embed", "features"})

    @property
    def dim(self) -> int:
        """Length of the vectors that `embed` gives."""
        if not isinstance(self.module, DualEncoder):
            raise self._cannot("embed")
        return self.module.dim

    def embed(self, items: Sequence[Item], options: EmbedOptions | None = None) -> Embeddings:
        """Every item as a unit vector: float32 [items, dim]. Strings are text, also such as look like paths."""
        module = self.module
        if not isinstance(module, DualEncoder):
            raise self._cannot("embed")
        encode: dict[str, Callable[[Any], Tensor]] = {"image": module.encode_image, "text": module.encode_text}
        done = self._run(items, encode, options or EmbedOptions())
        vectors = np.zeros((len(items), module.dim), np.float32)
        for index, row in done.rows.items():
            vectors[index] = row
        return Embeddings(vectors, dict(sorted(done.errors.items())), tuple(sorted(done.truncated)), done.tokens)

    def features(self, items: Sequence[Item], layer: str = "pooled") -> np.ndarray:
        """What a tower gives before head and normalisation: float32 [items, width]; a classifier also has `layer="logits"`.

        An unreadable picture gets a row of NaN. Pictures and text may be mixed only if both towers have one width.
        """
        done = self._run(items, self._layers(layer), EmbedOptions())
        widths = {len(row) for row in done.rows.values()}
        if len(widths) > 1:
            raise UsageError(
                f"{self.name}: pictures and text have features of different width {sorted(widths)}; ask for one kind at a time"
            )
        result = np.full((len(items), widths.pop() if widths else 0), np.nan, np.float32)
        for index, row in done.rows.items():
            result[index] = row
        return result

    def _layers(self, layer: str) -> dict[str, Callable[[Any], Tensor]]:
        module = self.module
        known: dict[str, dict[str, Callable[[Any], Tensor]]]
        if isinstance(module, Classifier):
            known = {"pooled": {"image": module.features}, "logits": {"image": module}}
        else:
            assert isinstance(module, DualEncoder)
            known = {"pooled": {"image": module.image_features, "text": module.text_features}}
        if layer not in known:
            raise CannotError(f"{self.name} has no features of layer {layer!r}; it has: {', '.join(known)}")
        return known[layer]

    def _run(self, items: Sequence[Item], encode: dict[str, Callable[[Any], Tensor]], options: EmbedOptions) -> _Done:
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
            rows = encode(Tokens(tokens.ids.to(self.device), tokens.lengths.to(self.device)))
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
