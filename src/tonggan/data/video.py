"""A clip becomes the frames that a tower reads: some of them, each prepared like a picture.

Frames are counted as they are shown: in an animation, a frame that stays twice as long counts twice. The pixels stay bytes.

Shape letters: N frames of the clip, T frames taken, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import PIL.Image
from jaxtyping import UInt8
from pydantic import Field

from tonggan.config import Config
from tonggan.data.images import ImageProcessing, ImageProcessor, canonical_picture
from tonggan.data.media import BROKEN, MAX_PIXELS, check_size, open_stream, reason_of, sniff, to_rgb, what_else
from tonggan.types import MediaError, MissingExtra, Video

Sampling: TypeAlias = Literal["segments", "uniform"]

ANIMATIONS = (".gif", ".webp", ".png")
"""The kinds of file that Pillow reads."""
_SHORT = 0.5
"""Seconds by which a file may end before the length that it declares: the last frame's own length is often unknown."""


class VideoProcessing(Config):
    """Which frames are taken, and how each is cut and scaled."""

    frames: int = Field(default=16, ge=1)
    sampling: Sampling = "segments"
    """`segments`: the middle frame of each of `frames` equal parts (Wang et al. 2016, Temporal Segment Networks, section 3.1, at test
    time). `uniform`: evenly from the very first frame to the very last."""
    image: ImageProcessing = ImageProcessing()


class VideoProcessor:
    """Calls give uint8 [T, 3, side, side]; raises `MediaError` for what cannot be read."""

    def __init__(self, config: VideoProcessing) -> None:
        self.config = config
        self._image = ImageProcessor(config.image)

    def __call__(self, video: Video) -> UInt8[np.ndarray, "T 3 H W"]:
        """One clip."""
        config = self.config
        # One by one: whole frames of a large clip are a hundred times what is left of them.
        frames = [np.asarray(self._image.fit(frame)) for frame in _frames(video, config.frames, config.sampling)]
        return np.ascontiguousarray(np.stack(frames).transpose(0, 3, 1, 2))


def load_frames(video: Video, n: int, sampling: Sampling = "segments") -> UInt8[np.ndarray, "T H W 3"]:
    """`n` frames of a clip, upright; a clip of fewer shows some of them again.

    Animated GIF, WebP and PNG by Pillow, arrays as they are, everything else by the extra `video`. Raises `MediaError` with a clause for
    what is damaged, truncated, or has no frames.
    """
    return np.stack([np.asarray(frame) for frame in _frames(video, n, sampling)])


def picks(count: int, n: int, sampling: Sampling) -> list[int]:
    """Which `n` of `count` frames are taken, in order."""
    if sampling == "segments":
        return [(2 * i + 1) * count // (2 * n) for i in range(n)]
    return np.linspace(0, count - 1, n).round().astype(int).tolist()


def _frames(video: Video, n: int, sampling: Sampling) -> Iterator[PIL.Image.Image]:
    where = video.where
    if video.array is not None:
        yield from _of_array(video, n, sampling)
        return
    try:
        with open_stream(video, where) as stream:
            head = stream.read(1024)
            stream.seek(0)
            if not head:
                raise MediaError(where, "empty file")
            yield from (_of_animation if sniff(head) in ANIMATIONS else _of_video)(stream, where, n, sampling)
    except BROKEN as error:
        raise MediaError(where, reason_of(error)) from None


def _of_array(video: Video, n: int, sampling: Sampling) -> Iterator[PIL.Image.Image]:
    pixels = np.asarray(video.array)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise MediaError(video.where, f"an array of {pixels.dtype} {list(pixels.shape)}; a clip is uint8 [frames, height, width, 3]")
    if not pixels.size:
        raise MediaError(video.where, "has no frames" if not len(pixels) else "has no pixels")
    for i in picks(len(pixels), n, sampling):
        yield PIL.Image.fromarray(pixels[i])


def _of_animation(stream: IO[bytes], where: str, n: int, sampling: Sampling) -> Iterator[PIL.Image.Image]:
    with PIL.Image.open(stream) as clip:
        check_size(clip.size, where, MAX_PIXELS)
        frame: Any = clip
        durations = []
        for i in range(getattr(frame, "n_frames", 1)):
            frame.seek(i)
            frame.load()  # WebP tells how long a frame stays only then
            durations.append(int(frame.info.get("duration", 0)))
        for i in _at_ticks(durations, n, sampling):
            frame.seek(i)
            yield to_rgb(frame.copy())


def _at_ticks(durations: Sequence[int], n: int, sampling: Sampling) -> list[int]:
    """Frames by the time at which they are shown. Writers of animations store a frame that stays once, however long it stays."""
    tick = math.gcd(*durations)
    if not tick or 0 in durations:
        return picks(len(durations), n, sampling)
    ends = np.cumsum(durations) // tick
    return np.searchsorted(ends, picks(int(ends[-1]), n, sampling), side="right").tolist()


def _of_video(stream: IO[bytes], where: str, n: int, sampling: Sampling) -> Iterator[PIL.Image.Image]:
    try:
        import av
    except ImportError:
        raise MediaError(where, str(MissingExtra("a clip that is no animated picture", "video"))) from None
    try:
        wanted = picks(_count(stream, where, av), n, sampling)
        stream.seek(0)
        with av.open(stream) as container:
            number, taken = -1, 0
            for number, frame in enumerate(container.decode(container.streams.video[0])):
                while taken < n and wanted[taken] == number:
                    yield _upright(frame)
                    taken += 1
                if taken == n:
                    return
        raise MediaError(where, f"truncated (a frame after {number + 1} is missing)")
    except av.error.FFmpegError as error:
        stream.seek(0)
        head = stream.read(1024)
        known = head[4:8] == b"ftyp" or head.startswith((b"\x1aE\xdf\xa3", b"RIFF"))
        raise MediaError(where, f"corrupt ({error.strerror})" if known else what_else(head, "clip")) from None


def _count(stream: IO[bytes], where: str, av: Any) -> int:
    """Frames of the first picture track, without decoding; checked against the length that the file declares."""
    with av.open(stream) as container:
        if not container.streams.video:
            raise MediaError(where, "has no picture track")
        track = container.streams.video[0]
        check_size((track.width, track.height), where, MAX_PIXELS)
        found, end = 0, 0.0
        for packet in container.demux():
            if packet.size:
                found += packet.stream is track
                end = max(end, float(((packet.pts or 0) + (packet.duration or 0)) * packet.time_base))
        missing = (container.duration or 0) / av.time_base - (end - (container.start_time or 0) / av.time_base)
        # Fewer frames than declared are no damage by themselves: some writers count frames that they left out.
        if missing > (1.5 / float(track.guessed_rate or 25) if found < track.frames else _SHORT):
            raise MediaError(where, "truncated")
        if not found:
            raise MediaError(where, "has no frames")
        return found


def _upright(frame: Any) -> PIL.Image.Image:
    """As players show it: telephones store clips as the sensor lay, and the angle beside them."""
    picture: PIL.Image.Image = frame.to_image()
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


def canonical_clip() -> Video:
    """Eleven frames whose processing tells every setting apart: the canonical picture, shifted, darkened and turned step by step."""
    picture = np.asarray(canonical_picture())
    shifted = [np.roll(picture, (5 * i, 9 * i), axis=(0, 1)) for i in range(11)]
    return Video(array=np.stack([(frame.astype(np.uint16) * (20 - i) // 20).astype(np.uint8) for i, frame in enumerate(shifted)]))
