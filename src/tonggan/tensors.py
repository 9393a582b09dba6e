"""What crosses rooms as tensors: batches, masks, hidden states, step outputs.

Shape letters: B rows, L tokens, H W pixels, T positions or frames, D width, K kinds of key, S samples, M bins, F mel frames.
"""

from __future__ import annotations

import math
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
    allowed: Tensor | None = None
    """Bool[B, Tq, Tk]: any other pattern, spelled out (which picture a word sees)."""


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
    segments: Tensor | None = None
    """Int[B, L]: which of the texts packed into a row each token is of, in runs; None: a row is one text."""

    def to(self, device: torch.device | str) -> Tokens:
        """The same on `device`."""
        return self._map(lambda t: t.to(device))

    @property
    def device(self) -> torch.device:
        """Where the ids are."""
        return self.ids.device

    def _map(self, f: Callable[[Tensor], Tensor]) -> Tokens:
        starts, segments = (None if part is None else f(part) for part in (self.starts, self.segments))
        return Tokens(f(self.ids), f(self.lengths), starts, segments)


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
    """Waveforms float32 [B, S] or log-mel spectrograms [B, M, F], zeros after each one's own end, and their lengths [B]."""

    values: Tensor
    lengths: Tensor
    """Int[B]: samples, or frames."""
    counts: tuple[int, ...] | None = None
    """How many of them are each row's, in reading order; None: each row has one."""

    def to(self, device: torch.device | str) -> Sounds:
        """The same on `device`."""
        return self._map(lambda t: t.to(device))

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device

    def select(self, rows: Sequence[int]) -> Sounds:
        """Of these rows, in this order; a row may come more than once."""
        counts = self.counts or (1,) * len(self.values)
        places = _places(counts, rows, self.device)
        return Sounds(self.values[places], self.lengths[places], self.counts and tuple(counts[row] for row in rows))

    def _map(self, f: Callable[[Tensor], Tensor]) -> Sounds:
        return replace(self, values=f(self.values), lengths=f(self.lengths))


@dataclass(frozen=True, slots=True)
class Tiles:
    """A picture in several pieces: the whole of it made small and, where there are rows and columns, so many tiles, row by row."""

    rows: int = 0
    columns: int = 0
    size: tuple[int, int] = (1, 1)
    """Height and width that the picture came with; it was fitted into the tiles in its own shape."""

    @property
    def pieces(self) -> int:
        """How many there are."""
        return 1 + self.rows * self.columns

    def own(self, side: int) -> tuple[slice, slice]:
        """Which rows and columns of patches are the picture's, of tiles that are `side` patches high and wide; the rest is padding."""
        high, wide = self.rows * side, self.columns * side
        height, width = self.size
        if width / height > wide / high:
            cut = (high - int(round(height * (wide / width), 7))) // 2
            return slice(cut, high - cut), slice(0, wide)
        cut = (wide - int(round(width * (high / height), 7))) // 2
        return slice(0, high), slice(cut, wide - cut)

    def kept(self, side: int, most: int) -> tuple[int, int]:
        """To how many rows and columns the picture's own patches are brought: no more, by a tenth, than those of `most` tiles."""
        high, wide = (part.stop - part.start for part in self.own(side))
        ratio = math.sqrt(high * wide / (most * side**2))
        return (int(high // ratio), int(wide // ratio)) if ratio > 1.1 else (high, wide)

    def features(self, side: int, most: int) -> int:
        """How many stand for the picture: one for each patch of the whole made small and each kept of the tiles, one at a line's end."""
        if not self.rows:
            return side**2 + 1
        high, wide = self.kept(side, most)
        return side**2 + high * (wide + 1)


@dataclass(frozen=True, slots=True)
class Frames:
    """A clip, of which each piece is a frame."""

    pieces: int

    def features(self, side: int, most: int) -> int:
        """How many stand for the clip: one for two by two patches of each frame, and one at its end."""
        return self.pieces * (-(-side // 2)) ** 2 + 1


@dataclass(frozen=True, slots=True)
class Pieces:
    """Media of rows that may have any number of them: all of a batch in reading order, row after row."""

    values: Tensor
    """[N, ...]: uint8 pictures [N, 3, H, W], say."""
    counts: tuple[int, ...]
    """How many are each row's; their sum is N."""
    cuts: tuple[tuple[Tiles | Frames, ...], ...] | None = None
    """What the pieces of each row are of, in reading order; None: each is a picture by itself."""

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device

    def select(self, rows: Sequence[int]) -> Pieces:
        """Of these rows, in this order; a row may come more than once."""
        cuts = self.cuts and tuple(self.cuts[row] for row in rows)
        return Pieces(self.values[_places(self.counts, rows, self.device)], tuple(self.counts[row] for row in rows), cuts)


def _places(counts: Sequence[int], rows: Sequence[int], device: torch.device) -> Tensor:
    """Where the media of these rows are, of which each row has so many."""
    starts = [sum(counts[:row]) for row in rows]
    return torch.tensor([start + i for row, start in zip(rows, starts, strict=True) for i in range(counts[row])], device=device).long()


@dataclass(frozen=True, slots=True)
class Batch:
    """What a loader gives and a step takes. A field that a step does not need is None.

    `pixels` are uint8 [B, 3, H, W], `clips` [B, T, 3, H, W] (normalisation happens on the device); `image_features` and
    `text_features` [B, width] stand in for a frozen tower's input once it has been encoded and cached. `keys` Int64[B, K] say
    which rows are positives of each other (see `objectives.contrastive`); 0 means no key. `labels` are Int64[B].

    Of systems that talk, `tokens` are what is said, `source` what an encoder reads, `targets` Int64[B, L] the word that is to follow each
    token, IGNORE where none is asked for, and `pictures` any number of them per row, as `sounds` may be.
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
        return self._rows(range(len(self.ids))[start:stop], lambda t: t[start:stop])

    def select(self, rows: Sequence[int]) -> Batch:
        """These rows, in this order; a row may come more than once."""
        return self._rows(rows, lambda t: t[torch.tensor(rows, device=t.device)])

    def _rows(self, rows: Sequence[int], of: Callable[[Tensor], Tensor]) -> Batch:
        cut = replace(self, pictures=None, sounds=None)._map(of)
        langs = tuple(self.langs[row] for row in rows) if self.langs else ()
        pictures, sounds = self.pictures and self.pictures.select(rows), self.sounds and self.sounds.select(rows)
        return replace(cut, ids=tuple(self.ids[row] for row in rows), langs=langs, pictures=pictures, sounds=sounds)

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
