"""Pictures that are nearly the same: frames of one clip, the same photograph saved twice. They must not stand on both sides of a split.

Two steps, as in most deduplication: a 64-bit difference hash finds candidates by counting differing bits, then small versions
of both pictures are compared, colour included, because a red and a green dot have one and the same hash.

Shape letters: N pictures, S the side of a small version, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import PIL.Image

from tonggan.data.media import check_image, load_image, read_bytes
from tonggan.types import Image, MediaError, Row

SIDE = 16
MAX_BITS = 10
"""Hashes that differ in more bits are different pictures."""
MEAN_DIFFERENCE = 6.0
CELL_DIFFERENCE = 60.0
"""Small versions of near duplicates differ by at most so many levels (of 255): on average, and in any one place and colour.
The second keeps apart a small circle and a small square on one ground, of which the average knows nothing; averaged over the
colours it would take a pink thing on white for any other pink thing, wherever it lies. Chosen on `stamps` and `openmoji`:
brightened copies are found always, re-encoded ones in 98-100 %, copies of half the size in 82-100 %, pictures moved by one
pixel of 128 in 60-96 %; looser limits would take most of the drawn faces for one."""
_WHITE = 11  # grey levels below which white is white
_MARGIN = 2  # grey levels; without it the hash of a plain ground is the noise of its JPEG
_DECODE = 64  # pixels on the shorter side are plenty for 16 x 16


class Facts(NamedTuple):
    """What one picture is; `reason` says why it could not be read, the rest is then empty."""

    width: int
    height: int
    size: int
    hash: int
    small: np.ndarray | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Pictures:
    """Facts about every picture of a data set, in order; row `rows[n]` has picture n."""

    rows: np.ndarray
    """int64 [N]"""
    sizes: np.ndarray
    """int64 [N, 3]: width and height in pixels as stored, bytes of the file; zeros when it is not on this machine."""
    hashes: np.ndarray
    """uint64 [N]"""
    small: np.ndarray
    """uint8 [N, S, S, 3]"""
    reasons: dict[int, str]
    """Pictures that could not be read, and why."""

    def __len__(self) -> int:
        return len(self.rows)


def pictures_of(row: Row) -> tuple[Image, ...]:
    """All pictures of a row, those in its messages too."""
    return (*row.images, *(part for message in row.messages for part in message.parts if isinstance(part, Image)))


def scan(dataset: Iterable[Row], *, workers: int = 4) -> Pictures:
    """Decode every picture once, in threads (decoding releases the interpreter). Pictures on the network are left out."""
    rows: list[int] = []
    found: list[Facts] = []
    with ThreadPoolExecutor(workers) as pool:
        pictures = ((number, image) for number, row in enumerate(dataset) for image in pictures_of(row) if not remote(image))
        while chunk := list(islice(pictures, 256)):
            rows += [number for number, _ in chunk]
            found += pool.map(facts, (image for _, image in chunk))
    empty = np.zeros((SIDE, SIDE, 3), np.uint8)
    return Pictures(
        rows=np.array(rows, np.int64),
        sizes=np.array([(one.width, one.height, one.size) for one in found], np.int64).reshape(-1, 3),
        hashes=np.array([one.hash for one in found], np.uint64),
        small=np.stack([one.small if one.small is not None else empty for one in found]) if found else empty[None][:0],
        reasons={number: one.reason for number, one in enumerate(found) if one.reason is not None},
    )


def remote(image: Image) -> bool:
    """Whether a picture is an address on the network, where nothing of ours looks for it."""
    return image.url is not None and image.url[:5].lower() != "data:"


def facts(image: Image) -> Facts:
    """One picture's size, hash and small version."""
    try:
        width, height = check_image(image)
        picture = load_image(image, decode="fast", size_hint=_DECODE)
        size = image.path.stat().st_size if image.path is not None else len(read_bytes(image)) if image.array is None else 0
    except MediaError as error:
        return Facts(0, 0, 0, 0, None, error.reason)
    except OSError as error:
        return Facts(0, 0, 0, 0, None, str(error.strerror or error))
    small = np.asarray(picture.resize((SIDE, SIDE), PIL.Image.Resampling.BOX))
    return Facts(width, height, size, dhash(picture), small, None)


def dhash(picture: PIL.Image.Image) -> int:
    """64 bits: whether each of 8 x 8 places is darker than the one to its right."""
    grey = np.asarray(picture.convert("L").resize((9, 8), PIL.Image.Resampling.BOX), np.int16)
    bits = grey[:, 1:] - grey[:, :-1] > _MARGIN
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_duplicates(pictures: Pictures, *, max_bits: int = MAX_BITS) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of pictures that are nearly the same. Of many equal ones each is paired with the first only.

    All hashes are compared, in tiles: 50 million comparisons (10,000 pictures) take a second or two.
    """
    readable = np.array([n for n in range(len(pictures)) if n not in pictures.reasons], np.int64)
    if not len(readable):
        return []
    first, copies = _equal(pictures, readable)
    pairs = list(copies)
    coarse = pictures.small.reshape(-1, 4, SIDE // 4, 4, SIDE // 4, 3).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 48)
    for i, j in _candidates(pictures.hashes[first], _places(pictures.small[first]), max_bits):
        a, b = first[i], first[j]
        # Block averages differ by no more than what they average: most false candidates go here, at a sixteenth of the work.
        difference = np.abs(coarse[a] - coarse[b])
        likely = (difference.mean(axis=1) <= MEAN_DIFFERENCE) & (difference.max(axis=1) <= CELL_DIFFERENCE)
        a, b = a[likely], b[likely]
        alike = _alike(pictures.small[a], pictures.small[b])
        pairs += [(min(p, q), max(p, q)) for p, q in zip(a[alike].tolist(), b[alike].tolist(), strict=True)]
    return sorted(pairs)


def _equal(pictures: Pictures, readable: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The first of each set of equal small versions, and the pairs (first, copy). A thousand blank pages stay a thousand pairs."""
    flat = np.ascontiguousarray(pictures.small[readable].reshape(len(readable), -1))
    _, where, which = np.unique(flat.view(f"V{flat.shape[1]}").ravel(), return_index=True, return_inverse=True)
    first = readable[where][which]
    return np.sort(readable[where]), [(int(a), int(b)) for a, b in zip(first, readable, strict=True) if a != b]


def _places(small: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint64 [N, W] each: in which places a picture [S, S, 3] is white, and in which it is so dark that it cannot be nearly the same as one
    that is white there."""
    white, dark = (small >= 256 - _WHITE).all(axis=3), (small < 256 - _WHITE - CELL_DIFFERENCE).any(axis=3)
    packed = (np.packbits(one.reshape(len(small), SIDE * SIDE), axis=1).view(np.uint64) for one in (white, dark))
    return next(packed), next(packed)


def _candidates(
    hashes: np.ndarray, places: tuple[np.ndarray, np.ndarray], max_bits: int, tile: int = 256
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Index pairs i < j whose hashes differ in at most `max_bits` bits. Of drawings on white most have such hashes, and most of these pairs
    have something where the other has nothing."""
    white, dark = places
    for start in range(0, len(hashes), tile):
        ours, others = slice(start, start + tile), slice(start, None)
        near = np.bitwise_count(hashes[ours, None] ^ hashes[None, others]) <= max_bits
        i, j = np.nonzero(np.triu(near, 1))
        i, j = i + start, j + start
        for word in range(white.shape[1]):
            apart = (white[i, word] & dark[j, word]) | (dark[i, word] & white[j, word])
            i, j = i[apart == 0], j[apart == 0]
        for cut in range(0, len(i), 4096):
            yield i[cut : cut + 4096], j[cut : cut + 4096]


def _alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Bool [P]: whether small versions [P, S, S, 3] agree, on average and in every place and colour."""
    difference = np.abs(a.astype(np.int16) - b)
    return (difference.mean(axis=(1, 2, 3)) <= MEAN_DIFFERENCE) & (difference.max(axis=(1, 2, 3)) <= CELL_DIFFERENCE)


def components(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `count` things the smallest one that it hangs together with, through any chain of pairs (union-find)."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return [root(i) for i in range(count)]
