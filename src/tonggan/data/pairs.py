"""Rows of pictures and captions into batches for contrastive training and for language transfer.

What a row contributes depends on (seed, epoch, row id) only: not on threads, on the rest of the batch, or on where training was
interrupted.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tonggan.data.augment import Augment, augment
from tonggan.data.media import read_bytes
from tonggan.data.processor import Processor
from tonggan.tensors import Batch
from tonggan.types import Dropped, MediaError, Row, Text, TongganError

CACHE_BYTES = 2 * 1024**3


class PairCollate:
    """Call with rows and their epochs; gives a `Batch`.

    `langs` restricts the captions; one is picked per row and epoch. `image_features` (by row id: [width], or [views, width], of which one
    view is picked per epoch) and `text_features` (by caption: [width]) stand in for the input of a frozen tower; a batch with a caption
    that `text_features` lack has its tokens as well. `teacher_features` (by row id: [width]) are a frozen text tower's features of the
    same row's caption in the language that it knows.
    Pictures that cannot be read are counted in `dropped` and replaced by another row of the batch.
    """

    def __init__(
        self,
        processor: Processor,
        *,
        seed: int,
        langs: Sequence[str] | None = None,
        augmentation: Augment | None = None,
        pictures: bool = True,
        image_features: Mapping[str, Tensor] | None = None,
        text_features: Mapping[str, Tensor] | None = None,
        teacher_features: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.processor, self.seed, self.langs = processor, seed, tuple(langs) if langs else None
        self.augmentation, self.pictures = augmentation, pictures
        self.image_features, self.text_features = image_features, text_features
        self.teacher_features = teacher_features
        self.dropped: dict[str, Dropped] = {}
        self._pixels: dict[str, np.ndarray] = {}
        self._picture_keys: dict[str, int] = {}
        self._room = CACHE_BYTES
        self._lock = threading.Lock()

    def fills(self, rows: int) -> int:
        """Bytes of pictures that an epoch over so many rows keeps decoded."""
        if not self.pictures or self.image_features is not None or self.processor.image is None:
            return 0
        return min(CACHE_BYTES, rows * 3 * self.processor.image.config.side**2)

    def captions(self, row: Row) -> list[Text]:
        """The captions of a row that take part."""
        return [t for t in row.texts if t.text.strip() and (self.langs is None or t.lang in self.langs)]

    def __call__(self, rows: Sequence[Row], epochs: Sequence[int]) -> Batch:
        pixels: list[np.ndarray] = []
        kept: list[tuple[Row, int]] = []
        decode = self.pictures and self.image_features is None
        for row, epoch in zip(rows, epochs, strict=True):
            if decode:
                try:
                    pixels.append(self._decode(row))
                except MediaError as error:
                    with self._lock:
                        self.dropped[row.id] = Dropped(row.id, error.reason)
                    continue
            kept.append((row, epoch))
        if not kept:
            raise TongganError(f"no picture of a whole batch could be read; the first: {next(iter(self.dropped.values()))}")
        for number in range(len(rows) - len(kept)):  # in place of unreadable ones; it has its own keys, so it is no false negative
            kept.append(kept[number])
            if decode:
                pixels.append(pixels[number])
        chosen = [self._pick(row, epoch) for row, epoch in kept]
        return Batch(
            ids=tuple(row.id for row, _ in kept),
            pixels=self._augmented(pixels, kept) if decode else None,
            tokens=None if self._known(chosen) else self.processor.tokens([t.text for t in chosen]),
            image_features=self._stack(self.image_features, kept) if self.pictures else None,
            text_features=self._text(kept, chosen),
            keys=torch.tensor([self._keys(row, text.text) for (row, _), text in zip(kept, chosen, strict=True)]),
            langs=tuple(t.lang or "und" for t in chosen),
        )

    def _decode(self, row: Row) -> np.ndarray:
        known = self._pixels.get(row.id)
        if known is not None:
            return known
        if not row.images:
            raise MediaError(row.id, "no picture")
        assert self.processor.image is not None
        found = self.processor.image(row.images[0])
        with self._lock:
            if found.nbytes <= self._room:
                self._room -= found.nbytes
                self._pixels[row.id] = found
        return found

    def _augmented(self, pixels: list[np.ndarray], kept: Sequence[tuple[Row, int]]) -> Tensor:
        stacked = torch.from_numpy(np.stack(pixels))
        if self.augmentation is None:
            return stacked
        return augment(stacked, self.augmentation, self.augmentation.draw([self._seeds(row, epoch, "picture") for row, epoch in kept]))

    def _pick(self, row: Row, epoch: int) -> Text:
        found = self.captions(row)
        if not found:
            raise TongganError(f"row {row.id} has no caption" + (f" in {', '.join(self.langs)}" if self.langs else ""))
        if len(found) == 1:
            return found[0]
        return found[_number(self._seeds(row, epoch, "caption")) % len(found)]

    def _text(self, kept: Sequence[tuple[Row, int]], chosen: Sequence[Text]) -> Tensor | None:
        if not self.text_features:
            return self._stack(self.teacher_features, kept)
        nothing = torch.zeros_like(next(iter(self.text_features.values())))
        return torch.stack([self.text_features.get(text.text, nothing) for text in chosen])

    def _known(self, chosen: Sequence[Text]) -> bool:
        return self.text_features is not None and all(text.text in self.text_features for text in chosen)

    def _stack(self, features: Mapping[str, Tensor] | None, kept: Sequence[tuple[Row, int]]) -> Tensor | None:
        if features is None:
            return None
        found = [features[row.id] for row, _ in kept]
        if found[0].dim() == 2:
            found = [f[_number(self._seeds(row, epoch, "view")) % len(f)] for f, (row, epoch) in zip(found, kept, strict=True)]
        return torch.stack(found)

    def _keys(self, row: Row, caption: str) -> list[int]:
        picture = self._picture_keys.get(row.id)
        if picture is None:  # once per run: embedded bytes are read whole for it
            picture = self._picture_keys[row.id] = picture_key(row) if self.pictures else 0
        return keys_of(row, caption, picture)

    def _seeds(self, row: Row, epoch: int, what: str) -> tuple[int, int]:
        return stable_hash(f"{self.seed}\0{what}\0{row.id}"), epoch


def keys_of(row: Row, caption: str, picture: int | None = None) -> list[int]:
    """Keys of a row: its group, its picture (`picture_key`, unless known), the caption that was picked. 0 means none."""
    return [
        stable_hash(f"group\0{row.group}") if row.group else 0,
        picture_key(row) if picture is None else picture,
        stable_hash(f"caption\0{caption.strip().lower()}"),
    ]


def picture_key(row: Row) -> int:
    """Equal for rows of one file, or of the same embedded bytes. All the bytes count: drawings on white begin alike."""
    if not row.images:
        return 0
    image = row.images[0]
    return stable_hash(f"picture\0{image.path}") if image.path is not None else stable_hash(b"picture\0" + read_bytes(image))


def stable_hash(value: str | bytes) -> int:
    """63 bits that are the same on every machine and in every process; never 0."""
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return (int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1) | 1


def _number(seeds: tuple[int, int]) -> int:
    return stable_hash(f"{seeds[0]}\0{seeds[1]}") >> 1
