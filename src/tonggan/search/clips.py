"""Clips in an index: what is known of a file without decoding it, its shots as entries, and their vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from tonggan.data.media import content_bytes, moment_bytes, reason_of
from tonggan.data.shots import Splitting, shots
from tonggan.data.video import load_frames
from tonggan.types import Embeddings, EmbedOptions, Image, Item, Media, MediaError, Model, Video

FRAMES = 4
"""Pictures that stand for a clip where a model reads no clips."""
_TOGETHER = 8
"""Clips whose pictures are held at once: whole frames are large."""


def content_hash(part: Media, *about: bytes) -> str:
    """SHA-256 of what a medium is made of, and of what else is said of it. A clip's file is read piece by piece: it may be a film."""
    digest = hashlib.sha256()
    if isinstance(part, Video) and part.path is not None:
        try:
            with part.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise MediaError(part.where, reason_of(error)) from None
        digest.update(moment_bytes(part))
    else:
        digest.update(content_bytes(part))
    for one in about:
        digest.update(b"\0" + one)
    return digest.hexdigest()


def entries(id: str, clip: Video, splitting: Splitting | None) -> Iterator[tuple[str, Video, tuple[float, float] | None]]:
    """Id, clip and seconds of every entry that a row's clip becomes. A shot is named as the W3C's media fragments are (`#t=12.4,17.9`,
    Media Fragments URI 1.0, section 4.2.1). One that is a moment already, or has a single shot, stays as it is.

    Raises `MediaError` for a clip that cannot be read.
    """
    if clip.stretch is not None:
        yield id, clip, clip.stretch
        return
    if splitting is None or (clip.array is not None and not clip.fps):  # frames without a clock have no seconds
        yield id, clip, None
        return
    found = shots(clip, splitting)
    if len(found) == 1:
        yield id, clip, found[0]
        return
    for start, end in found:
        yield f"{id}#t={start:.10g},{end:.10g}", replace(clip, stretch=(start, end)), (start, end)


def embed(model: Model, items: Sequence[Item], options: EmbedOptions | None = None) -> Embeddings:
    """As the model embeds them. A clip, by a model that reads pictures only, is the mean of its frames' vectors (mean pooling, Luo et al.
    2022, CLIP4Clip)."""
    clips = {i: item for i, item in enumerate(items) if isinstance(item, Video)} if by_frames(model) else {}
    if not clips:
        return model.embed(items, options)
    others = [i for i in range(len(items)) if i not in clips]
    plain = model.embed([items[i] for i in others], options) if others else None
    found: dict[int, np.ndarray] = dict(zip(others, plain, strict=True)) if plain is not None else {}
    errors = {others[i]: reason for i, reason in plain.errors.items()} if plain is not None else {}
    numbers = list(clips)
    for start in range(0, len(numbers), _TOGETHER):
        some: dict[int, np.ndarray] = {}
        for i in numbers[start : start + _TOGETHER]:
            try:
                some[i] = load_frames(clips[i], FRAMES)
            except MediaError as error:
                errors[i] = error.reason
        if some:
            vectors = model.embed([Image(array=frame) for frames in some.values() for frame in frames], options).vectors
            means = vectors.reshape(len(some), FRAMES, -1).mean(axis=1)
            found |= zip(some, means / np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12), strict=True)
    if not found:
        return Embeddings(np.zeros((len(items), 1), np.float32), errors)
    nothing = np.zeros_like(next(iter(found.values())))
    return Embeddings(np.stack([found.get(i, nothing) for i in range(len(items))]).astype(np.float32), errors)


def by_frames(model: Model) -> bool:
    """Whether a clip is embedded as pictures."""
    return "image" in model.modalities and "video" not in model.modalities
