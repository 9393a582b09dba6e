"""What crosses rooms as tensors: batches, masks, hidden states, step outputs.

Shape letters: B rows, L tokens, H W pixels, T positions or frames, D width, K kinds of key, S samples, M bins, F mel frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

IGNORE = -100
"""A target that is not asked for."""

Modality: TypeAlias = Literal["image", "text", "audio", "video"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)


@dataclass(frozen=True, slots=True)
class Mask:
    """Who may attend to whom, as a value; only `nn/attention.py` turns it into what a kernel wants.

    The conditions are joined by *and*; `prefix` is the exception, it lifts `causal` for keys before it.
    """

    causal: bool = False
    offset: Tensor | None = None
    """Int[B]: absolute position of each row's first query, for cached and chunked attention; None means 0."""
    lengths: Tensor | None = None
    """Int[B]: keys at or after a row's length are padding."""
    starts: Tensor | None = None
    """Int[B]: keys before a row's start are padding on the left; `lengths` count from 0 all the same."""
    segments: tuple[Tensor, Tensor] | None = None
    """Int[B, Tq], Int[B, Tk]: queries see only keys of their own segment (packing)."""
    window: int | None = None
    """Queries see only the last `window` keys, themselves included."""
    prefix: Tensor | None = None
    """Int[B]: keys before it are seen by every query although `causal` is set (prefix language models)."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """Output of a sequence encoder: states [B, T, D], lengths [B] (None: nothing is padding)."""

    states: Tensor
    lengths: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Logits:
    """Unnormalised scores [..., classes]."""

    values: Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids [B, L], padded on the right to the longest of this batch only, and where each row's own end, [B]."""

    ids: Tensor
    lengths: Tensor
    starts: Tensor | None = None
    """Int[B]: where each row's own tokens begin, for input of others that is padded on the left; None: at 0."""

    def to(self, device: torch.device | str) -> Tokens:
        """The same on `device`."""
        return self._map(lambda t: t.to(device))

    @property
    def device(self) -> torch.device:
        """Where the ids are."""
        return self.ids.device

    def _map(self, f: Callable[[Tensor], Tensor]) -> Tokens:
        return Tokens(f(self.ids), f(self.lengths), None if self.starts is None else f(self.starts))


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What hiding words needs to know of a tokenizer."""

    size: int
    """Number of ids."""
    mask: int
    """The id that stands for a hidden word."""
    special: frozenset[int]
    """Ids that are no words: padding, start, end, the mask itself."""
    continues: frozenset[int] = frozenset()
    """Ids of pieces that go on with the word of the piece before."""


@dataclass(frozen=True, slots=True)
class Sounds:
    """Waveforms float32 [B, S] or log-mel spectrograms [B, M, F], zeros after each row's own end, and their lengths [B]."""

    values: Tensor
    lengths: Tensor
    """Int[B]: samples, or frames."""

    def to(self, device: torch.device | str) -> Sounds:
        """The same on `device`."""
        return self._map(lambda t: t.to(device))

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device

    def _map(self, f: Callable[[Tensor], Tensor]) -> Sounds:
        return Sounds(f(self.values), f(self.lengths))


@dataclass(frozen=True, slots=True)
class Pieces:
    """Media of rows that may have any number of them: all of a batch in reading order, row after row."""

    values: Tensor
    """[N, ...]: uint8 pictures [N, 3, H, W], say."""
    counts: tuple[int, ...]
    """How many are each row's; their sum is N."""

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device

    def select(self, rows: Sequence[int]) -> Pieces:
        """Of these rows, in this order; a row may come more than once."""
        starts = [sum(self.counts[:row]) for row in rows]
        places = [place for row, start in zip(rows, starts, strict=True) for place in range(start, start + self.counts[row])]
        return Pieces(self.values[torch.tensor(places, dtype=torch.long)], tuple(self.counts[row] for row in rows))


@dataclass(frozen=True, slots=True)
class Batch:
    """What a loader gives and a step takes. A field that a step does not need is None.

    `pixels` are uint8 [B, 3, H, W], `clips` [B, T, 3, H, W] (normalisation happens on the device); `image_features` and
    `text_features` [B, width] stand in for a frozen tower's input once it has been encoded and cached. `keys` Int64[B, K] say
    which rows are positives of each other (see `objectives.contrastive`); 0 means no key. `labels` are Int64[B].

    Of systems that talk, `tokens` are what is said, `source` what an encoder reads, `targets` Int64[B, L] the word that is to follow each
    token, IGNORE where none is asked for, and `pictures` any number of them per row.
    """

    ids: tuple[str, ...]
    pixels: Tensor | None = None
    tokens: Tokens | None = None
    sounds: Sounds | None = None
    clips: Tensor | None = None
    image_features: Tensor | None = None
    text_features: Tensor | None = None
    keys: Tensor | None = None
    labels: Tensor | None = None
    langs: tuple[str, ...] = ()
    source: Tokens | None = None
    targets: Tensor | None = None
    pictures: Pieces | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def input(self, kind: Modality) -> Any:
        """What a tower for `kind` reads: pixels, tokens, sounds or clips; None when the batch has none."""
        return {"image": self.pixels, "text": self.tokens, "audio": self.sounds, "video": self.clips}[kind]

    def features(self, kind: Modality) -> Tensor | None:
        """What stands in for the input of a frozen tower, None when nothing does."""
        return {"image": self.image_features, "text": self.text_features}.get(kind)

    @property
    def device(self) -> torch.device | None:
        """Where its tensors are; None for a batch that has none."""
        values = (getattr(self, item.name) for item in fields(self))
        return next((value.device for value in values if value is not None and not isinstance(value, tuple)), None)

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> Batch:
        """The same batch with every tensor on `device`."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def slice(self, start: int, stop: int) -> Batch:
        """Rows start..stop, e.g. one micro-batch."""
        cut = replace(self, pictures=None)._map(lambda t: t[start:stop])
        pictures = self.pictures and self.pictures.select(range(len(self.ids))[start:stop])
        return replace(cut, ids=self.ids[start:stop], langs=self.langs[start:stop], pictures=pictures)

    def _map(self, f: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                changed[item.name] = f(value)
            elif isinstance(value, Tokens | Sounds):
                changed[item.name] = value._map(f)
            elif isinstance(value, Pieces):
                changed[item.name] = replace(value, values=f(value.values))
        return replace(self, **changed)


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step's forward gives: one scalar to minimise, and plain numbers to log (never used for gradients)."""

    loss: Tensor
    report: dict[str, float] = field(default_factory=dict)


def pad(rows: Sequence[Sequence[int]], fill: int = 0, multiple: int = 1) -> Tokens:
    """Right-pad id lists to the longest (rounded up to `multiple`)."""
    lengths = [len(row) for row in rows]
    width = -(-max(lengths, default=0) // multiple) * multiple
    ids = torch.full((len(rows), width), fill, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.as_tensor(row, dtype=torch.long)
    return Tokens(ids, torch.tensor(lengths, dtype=torch.long))
