"""A `Model` out of a checkpoint of ours: order kept, batches by kind and length, one bad item never fails the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tonggan import devices
from tonggan.backends.talking import Voice
from tonggan.data.text import is_unicode
from tonggan.hub.read import Checkpoint
from tonggan.models.base import Embedder, Featurizer, Labeller, LatentLearner, Matcher, after_block, depth
from tonggan.tensors import Modality
from tonggan.types import (
    Answer,
    Audio,
    CannotError,
    ChatOptions,
    Embeddings,
    EmbedOptions,
    Image,
    Item,
    Media,
    MediaError,
    Message,
    Model,
    Text,
    UsageError,
    as_part,
)

THREADS = 4
"""Decoders release the interpreter lock; more threads than that only fight torch's."""


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
        self._voice: Voice | None = None
        if Voice.speaks(self.module, self.processor):
            self._voice = Voice(self.name, self.module, self.config, self.processor, self.device)
            self.can |= {"chat", "logprob"}
            self.instructed, self.remembers = self._voice.instructed, self._voice.remembers
            self.languages = self._voice.languages
            if self.processor.chat is not None:  # clips may be read as frames, for which no tower is named
                self.modalities |= self.processor.chat.config.placeholders.keys()

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
        """What a tower gives before head and normalisation: float32 [items, width]; a classifier also has `layer="logits"`:
        its classes in the order of `labels`; a model that learns by filling in has `layer="block 2"` and so on, counted from 1: the mean
        over places of the states after a block.

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
        """How sure the model is that each picture and text belong together: float32 [pairs], 0 to 1; NaN where a picture cannot be read,
        or a text has half a character."""
        module, process, tokenizer = self.module, self.processor.image, self.processor.text
        if not isinstance(module, Matcher) or process is None or tokenizer is None:
            raise self._cannot("match")
        scores = np.full(len(pairs), np.nan, np.float32)
        for some in _chunks(list(range(len(pairs))), EmbedOptions().batch_size):
            # By shape: of models that read pictures as they are, only those of one size make a batch.
            alike: dict[tuple[int, ...], list[tuple[int, np.ndarray, str]]] = defaultdict(list)
            for i in some:
                picture, text = (as_part(item) for item in pairs[i])
                if not isinstance(picture, Image) or not isinstance(text, Text):
                    raise UsageError(
                        f"{self.name}: a pair is a picture and a text, in this order; pair {i} is {picture.kind} and {text.kind}"
                    )
                if not is_unicode(text.text):
                    continue
                with suppress(MediaError):
                    pixels = process(picture)
                    alike[pixels.shape].append((i, pixels, text.text))
            for group in alike.values():
                kept, pictures, texts = zip(*group, strict=True)
                with torch.inference_mode():
                    seen = torch.from_numpy(np.stack(pictures)).to(self.device)
                    logits = module.match(seen, self.processor.tokens(texts).to(self.device))
                scores[list(kept)] = logits.float().softmax(dim=1)[:, 1].cpu().numpy()
        return scores

    def chat(self, conversations: Sequence[Sequence[Message]], options: ChatOptions | None = None) -> list[Answer]:
        """An answer to the last message of every conversation; greedy unless told otherwise. One that cannot be asked has its error."""
        if self._voice is None:
            raise self._cannot("chat")
        return self._voice.chat(conversations, options or ChatOptions())

    def stream(self, conversation: Sequence[Message], options: ChatOptions | None = None) -> Generator[str, None, Answer]:
        """The answer to one conversation in pieces of whole characters; closing it stops the work."""
        if self._voice is None:
            raise self._cannot("chat")
        return self._voice.stream(conversation, options or ChatOptions())

    def logprob(self, conversations: Sequence[Sequence[Message]], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each conversation the log-probability of each of its continuations as the answer; NaN where it cannot be asked."""
        if self._voice is None:
            raise self._cannot("logprob")
        return self._voice.logprob(conversations, continuations)

    def _layers(self, layer: str) -> dict[Modality, Callable[[Any], Tensor]]:
        module = self.module
        if not isinstance(module, Featurizer):
            raise self._cannot("features")
        known: dict[str, dict[Modality, Callable[[Any], Tensor]]]
        known = {"pooled": {kind: partial(module.features, kind) for kind in module.modalities}}
        if isinstance(module, Labeller) and module.classes is not None:
            known["logits"] = {kind: partial(_logits, module, kind) for kind in module.modalities}
        if isinstance(learner := self.module, LatentLearner):
            for number in range(1, depth(learner) + 1):
                known[f"block {number}"] = {kind: partial(after_block, learner, number, kind) for kind in learner.modalities}
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
        media = [(i, part) for i, part in enumerate(parts) if isinstance(part, Media)]
        with torch.inference_mode():
            self._texts(texts, encode.get("text"), options, done)
            for kind in ("image", "audio", "video"):
                if some := [(i, part) for i, part in media if part.kind == kind]:
                    self._media(some, encode[kind], self._reading(kind, options), done)
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

    def _media(self, media: Sequence[tuple[int, Media]], encode: Callable[[Any], Tensor], reading: _Reading, done: _Done) -> None:
        """Threads decode the next ones while these are computed. Longest first, as texts: sounds of a batch are of like length."""
        with ThreadPoolExecutor(THREADS) as pool:
            for indices, results in _ahead(pool, reading.read, media, reading.ahead):
                read = dict(zip(indices, results, strict=True))
                good = {i: result for i, result in read.items() if not isinstance(result, MediaError)}
                done.errors |= {i: result.reason for i, result in read.items() if isinstance(result, MediaError)}
                done.truncated += [i for i, (_, cut) in good.items() if cut]
                for some in _chunks(sorted(good, key=lambda i: -good[i][0].shape[-1]), reading.batch):
                    done.take(some, encode(reading.collate([good[i][0] for i in some]).to(self.device)))

    def _reading(self, kind: Modality, options: EmbedOptions) -> _Reading:
        """How media of a kind become batches."""
        image, audio, video = self.processor.image, self.processor.audio, self.processor.video
        if kind == "image" and image is not None:
            return _Reading(lambda part: (image(part, decode=options.decode), False), _stack, options.batch_size, options.batch_size)
        if kind == "audio" and audio is not None:

            def listen(part: Audio) -> tuple[np.ndarray, bool]:
                samples, cut = audio.open(part)
                return audio.fit(samples), cut

            # Lengths are known once they are decoded: the more at a time, the liker in length are those of a batch.
            return _Reading(listen, audio.collate, options.batch_size, 4 * options.batch_size)
        assert video is not None, f"{self.name} reads {kind}, but its processor does not"
        clips = max(1, options.batch_size // video.config.frames)  # a batch is so many pictures
        return _Reading(lambda part: (video(part), False), _stack, clips, clips)


@dataclass(frozen=True)
class _Reading:
    open: Callable[[Any], tuple[np.ndarray, bool]]
    """Values of one item, and whether it was cut."""
    collate: Callable[[list[np.ndarray]], Any]
    batch: int
    ahead: int
    """Items decoded at a time."""

    def read(self, part: Media) -> tuple[np.ndarray, bool] | MediaError:
        """An item that cannot be read never fails the others."""
        try:
            return self.open(part)
        except MediaError as error:
            return error


def _logits(module: Labeller, kind: Modality, inputs: Any) -> Tensor:
    """Of one kind of input alone; a model that classifies several together refuses that."""
    return module.classify({kind: inputs})


def _stack(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


@dataclass
class _Done:
    """What has been computed so far, by the item's place in the caller's list."""

    rows: dict[int, np.ndarray] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    truncated: list[int] = field(default_factory=list)
    tokens: int = 0

    def take(self, indices: list[int], rows: Tensor) -> None:
        self.rows |= dict(zip(indices, rows.float().cpu().numpy(), strict=True))


def _chunks(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _ahead(
    pool: ThreadPoolExecutor, read: Callable[[Media], Any], media: Sequence[tuple[int, Media]], size: int
) -> Iterator[tuple[list[int], list[Any]]]:
    """Batches of (places, results) in order; while one is being used the threads already work on the next."""
    waiting: tuple[list[int], list[Future[Any]]] | None = None
    for some in _chunks(media, size):
        begun = [i for i, _ in some], [pool.submit(read, part) for _, part in some]
        if waiting:
            yield waiting[0], [future.result() for future in waiting[1]]
        waiting = begun
    if waiting:
        yield waiting[0], [future.result() for future in waiting[1]]
