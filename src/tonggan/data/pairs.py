"""Rows become batches for training: of the kinds of input that a task asks for.

What a row contributes depends on (seed, epoch, row id) only: not on threads, on the rest of the batch, or on where training was
interrupted.

Shape letters: B rows, K kinds of key.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tonggan.config import height_width
from tonggan.data.augment import Augment, augment
from tonggan.data.images import stack
from tonggan.data.kept import CACHE_BYTES, NAMES, media_key, stable_hash
from tonggan.data.processor import Processor
from tonggan.tensors import Batch, Modality
from tonggan.types import Audio, Dropped, Image, Media, MediaError, Row, Text, TongganError, UsageError, Video


class PairCollate:
    """Call with rows and their epochs; gives a `Batch` with the kinds of input in `modalities`.

    `langs` restricts captions and spoken sounds; one of each is picked per row and epoch. `image_features` (by row id: [width], or [views,
    width], of which one view is picked per epoch) and `text_features` (by caption: [width]) stand in for the input of a frozen tower; a
    batch with a caption that `text_features` lack has its tokens as well. `teacher_features` (by row id: [width]) are a frozen text
    tower's features of the same row's caption in the language that it knows. `label` is the field of `Row.meta` that says a row's class,
    `classes` are its values in the order of their numbers (see `classes_of`).
    Rows whose pictures, sounds or clips cannot be read are counted in `dropped` and replaced by another row of the batch.
    """

    def __init__(
        self,
        processor: Processor,
        *,
        seed: int,
        langs: Sequence[str] | None = None,
        augmentation: Augment | None = None,
        modalities: frozenset[Modality] = frozenset({"image", "text"}),
        image_features: Mapping[str, Tensor] | None = None,
        text_features: Mapping[str, Tensor] | None = None,
        teacher_features: Mapping[str, Tensor] | None = None,
        label: str | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        self.processor, self.seed, self.langs = processor, seed, tuple(langs) if langs else None
        self.augmentation, self.modalities = augmentation, modalities
        self.image_features, self.text_features = image_features, text_features
        self.teacher_features = teacher_features
        self.label, self.classes = label, {name: number for number, name in enumerate(classes)}
        self.dropped: dict[str, Dropped] = {}
        stored = {"image"} if image_features is not None else set()
        self._decoded: tuple[Modality, ...] = tuple(kind for kind in ("image", "audio", "video") if kind in modalities - stored)
        readers = {"image": processor.image, "text": processor.text, "audio": processor.audio, "video": processor.video}
        if missing := [NAMES[kind] for kind in (*self._decoded, *(modalities & {"text"})) if readers[kind] is None]:
            raise UsageError(f"batches with a {missing[0]} per row are asked for, but the model's processor reads none")
        self._known: dict[tuple[Modality, str, int], np.ndarray] = {}
        self._media_keys: dict[tuple[Modality, str, int], int] = {}
        self._room = CACHE_BYTES
        self._lock = threading.Lock()

    def fills(self, rows: int) -> int:
        """Most bytes of decoded pictures, sounds and clips that an epoch over so many rows keeps."""
        return min(CACHE_BYTES, rows * sum(self._largest(kind) for kind in self._decoded))

    def captions(self, row: Row) -> list[Text]:
        """The captions of a row that take part; none where batches have no text."""
        if "text" not in self.modalities:
            return []
        return [t for t in row.texts if t.text.strip() and (self.langs is None or (t.lang or "und") in self.langs)]

    def sounds(self, row: Row) -> list[Audio]:
        """The sounds of a row that take part; none where batches have no sounds. The role of a spoken one is its language; one without a
        role speaks none that is known."""
        if "audio" not in self.modalities:
            return []
        return [sound for sound in row.audios if self.langs is None or sound.role is None or sound.role in self.langs]

    def apart(self) -> PairCollate:
        """The same, but it keeps what it decodes and drops to itself: for rows with other media than their ids stand for."""
        other = copy.copy(self)
        other._known, other._media_keys, other.dropped = {}, {}, {}
        return other

    def __call__(self, rows: Sequence[Row], epochs: Sequence[int]) -> Batch:
        kept: list[tuple[Row, int]] = []
        media: list[dict[Modality, np.ndarray]] = []
        for row, epoch in zip(rows, epochs, strict=True):
            try:
                media.append({kind: self._decode(kind, row, epoch) for kind in self._decoded})
            except MediaError as error:
                with self._lock:
                    self.dropped[row.id] = Dropped(row.id, error.reason)
                continue
            kept.append((row, epoch))
        if not kept:
            names = " or ".join(NAMES[kind] for kind in self._decoded)
            raise TongganError(f"no {names} of a whole batch could be read; the first: {next(iter(self.dropped.values()))}")
        for number in range(len(rows) - len(kept)):  # in place of unreadable ones; it has its own keys, so it is no false negative
            kept.append(kept[number])
            media.append(media[number])
        said = [self._caption(row, epoch) for row, epoch in kept] if "text" in self.modalities else []
        texts: Sequence[Text | None] = said or [None] * len(kept)
        each = [(row, epoch, text) for (row, epoch), text in zip(kept, texts, strict=True)]
        audio = self.processor.audio
        return Batch(
            ids=tuple(row.id for row, _ in kept),
            pixels=self._augmented([m["image"] for m in media], kept) if "image" in self._decoded else None,
            tokens=self.processor.tokens([t.text for t in said]) if said and not self._all_known(said) else None,
            sounds=audio.collate([m["audio"] for m in media]) if audio is not None and "audio" in self._decoded else None,
            clips=torch.from_numpy(np.stack([m["video"] for m in media])) if "video" in self._decoded else None,
            image_features=self._stack(self.image_features, kept) if "image" in self.modalities else None,
            text_features=self._text(kept, said) if said else None,
            keys=torch.tensor([self._keys(row, epoch, text) for row, epoch, text in each]),
            labels=torch.tensor([self._class(row) for row, _ in kept]) if self.label is not None else None,
            langs=tuple(self._lang(row, epoch, text) for row, epoch, text in each),
        )

    # ------------------------------------------------------------------------------- pictures, sounds, clips

    def _decode(self, kind: Modality, row: Row, epoch: int) -> np.ndarray:
        number, part = self._medium(kind, row, epoch)
        known = self._known.get((kind, row.id, number))
        if known is not None:
            return known
        found = self._read(part)
        with self._lock:
            if found.nbytes <= self._room:
                self._room -= found.nbytes
                self._known[kind, row.id, number] = found
        return found

    def _medium(self, kind: Modality, row: Row, epoch: int) -> tuple[int, Media]:
        """The first picture or clip of a row, or the sound of this epoch, with its number among those that it is picked from."""
        several: Sequence[Media] = {"image": row.images, "audio": self.sounds(row), "video": row.videos}[kind]
        if not several:
            raise MediaError(row.id, f"no {NAMES[kind]}" + (f" in {', '.join(self.langs)}" if kind == "audio" and self.langs else ""))
        number = _number(self._seeds(row, epoch, "sound")) % len(several) if kind == "audio" else 0
        return number, several[number]

    def _read(self, part: Media) -> np.ndarray:
        image, audio, video = self.processor.image, self.processor.audio, self.processor.video
        if isinstance(part, Image) and image is not None:
            return image(part)
        if isinstance(part, Audio) and audio is not None:
            return audio(part)
        assert isinstance(part, Video) and video is not None
        return video(part)

    def _largest(self, kind: Modality) -> int:
        """Bytes of a picture or a clip, or of the longest sound."""
        image, audio, video = self.processor.image, self.processor.audio, self.processor.video
        if kind == "image" and image is not None:
            return 3 * math.prod(height_width(image.config.side))
        if kind == "video" and video is not None:
            return 3 * video.config.frames * math.prod(height_width(video.config.image.side))
        return audio.config.most_bytes if audio is not None else 0

    def _augmented(self, pixels: list[np.ndarray], kept: Sequence[tuple[Row, int]]) -> Tensor:
        stacked = torch.from_numpy(stack(pixels))
        if self.augmentation is None:
            return stacked
        return augment(stacked, self.augmentation, self.augmentation.draw([self._seeds(row, epoch, "picture") for row, epoch in kept]))

    # ---------------------------------------------------------------------------------- text, labels, keys

    def _caption(self, row: Row, epoch: int) -> Text:
        found = self.captions(row)
        if not found:
            raise TongganError(f"row {row.id} has no caption" + (f" in {', '.join(self.langs)}" if self.langs else ""))
        if len(found) == 1:
            return found[0]
        return found[_number(self._seeds(row, epoch, "caption")) % len(found)]

    def _text(self, kept: Sequence[tuple[Row, int]], said: Sequence[Text]) -> Tensor | None:
        if not self.text_features:
            return self._stack(self.teacher_features, kept)
        nothing = torch.zeros_like(next(iter(self.text_features.values())))
        return torch.stack([self.text_features.get(text.text, nothing) for text in said])

    def _all_known(self, said: Sequence[Text]) -> bool:
        return self.text_features is not None and all(text.text in self.text_features for text in said)

    def _stack(self, features: Mapping[str, Tensor] | None, kept: Sequence[tuple[Row, int]]) -> Tensor | None:
        if features is None:
            return None
        found = [features[row.id] for row, _ in kept]
        if found[0].dim() == 2:
            found = [f[_number(self._seeds(row, epoch, "view")) % len(f)] for f, (row, epoch) in zip(found, kept, strict=True)]
        return torch.stack(found)

    def _lang(self, row: Row, epoch: int, text: Text | None) -> str:
        """Of the caption; where there is none, of the sound."""
        if text is not None or "audio" not in self._decoded:
            return (text.lang if text is not None else None) or "und"
        return self._medium("audio", row, epoch)[1].role or "und"

    def _class(self, row: Row) -> int:
        assert self.label is not None
        value = row.meta.get(self.label)
        number = self.classes.get(value) if value is not None else None
        if number is None:
            what = f"is of the class {value!r}, which is none of the {len(self.classes)}" if value is not None else "has no class"
            raise TongganError(f"row {row.id} {what} (meta.{self.label})")
        return number

    def _keys(self, row: Row, epoch: int, text: Text | None) -> list[int]:
        """Group, picture, caption; then sound and clip where batches have them."""
        picture = self._media_key("image", row, epoch) if "image" in self.modalities and row.images else 0
        others = [self._media_key(kind, row, epoch) for kind in self._decoded if kind != "image"]
        return [*keys_of(row, text.text if text is not None else None, picture), *others]

    def _media_key(self, kind: Modality, row: Row, epoch: int) -> int:
        number, part = self._medium(kind, row, epoch)
        known = self._media_keys.get((kind, row.id, number))
        if known is None:  # once per run: embedded bytes are read whole for it
            known = self._media_keys[kind, row.id, number] = media_key(part)
        return known

    def _seeds(self, row: Row, epoch: int, what: str) -> tuple[int, int]:
        return stable_hash(f"{self.seed}\0{what}\0{row.id}"), epoch


def classes_of(rows: Iterable[Row], label: str) -> tuple[str, ...]:
    """The values of a field of `Row.meta`, in alphabetical order: the classes that `PairCollate` numbers."""
    return tuple(sorted({row.meta[label] for row in rows if label in row.meta}))


def keys_of(row: Row, caption: str | None, picture: int | None = None) -> list[int]:
    """Keys of a row: its group, its picture (`picture_key`, unless known), the caption that was picked. 0 means none."""
    return [
        stable_hash(f"group\0{row.group}") if row.group else 0,
        picture_key(row) if picture is None else picture,
        stable_hash(f"caption\0{caption.strip().lower()}") if caption is not None else 0,
    ]


def picture_key(row: Row) -> int:
    """`media_key` of a row's first picture, 0 where it has none."""
    return media_key(row.images[0]) if row.images else 0


def _number(seeds: tuple[int, int]) -> int:
    return stable_hash(f"{seeds[0]}\0{seeds[1]}") >> 1
