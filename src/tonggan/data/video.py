"""A clip becomes the frames that a tower reads: some of them, each prepared like a picture.

Frames are counted as they are shown: in an animation, a frame that stays twice as long counts twice. The pixels stay bytes.

Seconds count from the first frame. Shape letters: N frames of the clip, T frames taken, H W pixels.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import PIL.Image
from jaxtyping import Float64, UInt8
from pydantic import Field

from tonggan.config import Config
from tonggan.data.images import ImageProcessing, ImageProcessor, canonical_picture
from tonggan.data.media import BROKEN, MAX_PIXELS, check_size, open_stream, reason_of, sniff, to_rgb, what_else
from tonggan.types import MediaError, MissingExtra, Video

Sampling: TypeAlias = Literal["segments", "uniform"]

ANIMATIONS = (".gif", ".webp", ".png")
"""The kinds of file that Pillow reads."""
_SHORT = 0.5
"""Seconds by which a file may end before the length that it declares, or that is asked for: how long the last frame stays is often not
said."""
_OFF = 0.01
"""Seconds by which the ends of a moment may be off."""
_UNSAID = 100
"""Milliseconds that browsers show a frame of an animation that says 0."""
_RATE = 25
"""Frames per second where nothing says how many."""
_BOX = PIL.Image.Resampling.BOX
_MOST_TRACKS = 4
_TRACKS: dict[tuple[str, int, int], _Clip] = {}


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


def every_frame(video: Video, side: int) -> Iterator[tuple[float, float, UInt8[np.ndarray, "H W 3"]]]:
    """All frames in order, each with the seconds from which up to which it is shown, scaled down until no side is longer than `side`
    (every pixel the mean of those that it stands for). Raises `MediaError` as `load_frames` does."""
    for start, end, frame in _decoded(video, lambda clip: range(*clip.within(video)), side):
        yield start, end, np.asarray(frame)


def _frames(video: Video, n: int, sampling: Sampling) -> Iterator[PIL.Image.Image]:
    return (frame for _, _, frame in _decoded(video, lambda clip: clip.picks(video, n, sampling)))


@dataclass(frozen=True, slots=True)
class _Clip:
    """When the frames of a clip are shown: frame i from `edges[i]` to `edges[i + 1]`, in seconds after the first."""

    edges: Float64[np.ndarray, "N+1"]
    timed: bool = False
    """Whether a frame counts by how long it stays, not as one."""
    stamps: tuple[int, ...] = ()
    """What the frames of a video file are marked with, in order; nothing where the file does not say it of every one."""

    @property
    def count(self) -> int:
        return len(self.edges) - 1

    def within(self, video: Video) -> tuple[int, int]:
        """Number of the first frame of the moment that is asked for, and of the first after it. A frame belongs to it that is shown in it
        for more than seconds with two decimals may be off."""
        if video.stretch is None:
            return 0, self.count
        start, end = video.stretch
        length = float(self.edges[-1])
        if start >= length or (math.isfinite(end) and end > length + _SHORT):
            asked = f"{start:g}-{end:g} s" if math.isfinite(end) else f"{start:g} s"
            raise MediaError(video.where, f"has no {asked}: it ends at {length:.4g} s")
        shared = np.minimum(self.edges[1:], end) - np.maximum(self.edges[:-1], start)
        enough = np.minimum(_OFF, np.minimum(np.diff(self.edges) / 2, (min(end, length) - start) / 3))
        (there,) = np.nonzero(shared >= enough)
        return int(there[0]), int(there[-1]) + 1

    def picks(self, video: Video, n: int, sampling: Sampling) -> list[int]:
        """Which `n` frames of the moment are taken."""
        first, last = self.within(video)
        if not self.timed:
            return [first + i for i in picks(last - first, n, sampling)]
        edges = self.edges[first : last + 1] if video.stretch is None else np.clip(self.edges[first : last + 1], *video.stretch)
        return [first + i for i in _at_ticks(np.diff(np.round(1000 * edges).astype(int)).clip(1).tolist(), n, sampling)]


Choice: TypeAlias = Callable[[_Clip], Sequence[int]]
"""Numbers of frames, none smaller than the one before."""


def _decoded(video: Video, choose: Choice, side: int | None = None) -> Iterator[tuple[float, float, PIL.Image.Image]]:
    where = video.where
    if video.array is not None:
        found = _of_array(video, choose)
    else:
        found = _of_file(video, choose, side)
    try:
        for clip, number, frame in found:
            small = frame if side is None or max(frame.size) <= side else frame.resize(_within_side(frame.size, side), _BOX)
            yield float(clip.edges[number]), float(clip.edges[number + 1]), small
    except BROKEN as error:
        raise MediaError(where, reason_of(error)) from None


def _of_file(video: Video, choose: Choice, side: int | None) -> Iterator[tuple[_Clip, int, PIL.Image.Image]]:
    with open_stream(video, video.where) as stream:
        head = stream.read(1024)
        stream.seek(0)
        if not head:
            raise MediaError(video.where, "empty file")
        if sniff(head) in ANIMATIONS:
            yield from _of_animation(stream, video.where, choose)
        else:
            yield from _of_video(stream, video, choose, side)


def _of_array(video: Video, choose: Choice) -> Iterator[tuple[_Clip, int, PIL.Image.Image]]:
    pixels = np.asarray(video.array)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise MediaError(video.where, f"an array of {pixels.dtype} {list(pixels.shape)}; a clip is uint8 [frames, height, width, 3]")
    if not pixels.size:
        raise MediaError(video.where, "has no frames" if not len(pixels) else "has no pixels")
    if video.stretch is not None and not (video.fps and video.fps > 0):
        raise MediaError(video.where, "a moment of an array can be found only where its fps are given")
    clip = _Clip(np.arange(len(pixels) + 1) / (video.fps or _RATE))
    for i in choose(clip):
        yield clip, i, PIL.Image.fromarray(pixels[i])


def _of_animation(stream: IO[bytes], where: str, choose: Choice) -> Iterator[tuple[_Clip, int, PIL.Image.Image]]:
    with PIL.Image.open(stream) as opened:
        check_size(opened.size, where, MAX_PIXELS)
        frame: Any = opened
        durations = []
        for i in range(getattr(frame, "n_frames", 1)):
            frame.seek(i)
            frame.load()  # WebP tells how long a frame stays only then
            durations.append(float(frame.info.get("duration", 0)))
        clip = _Clip(np.cumsum([0, *(stay or _UNSAID for stay in durations)]) / 1000, timed=0 not in durations)
        for i in choose(clip):
            frame.seek(i)
            yield clip, i, to_rgb(frame.copy())


def _at_ticks(durations: Sequence[int], n: int, sampling: Sampling) -> list[int]:
    """Frames by the time at which they are shown. Writers of animations store a frame that stays once, however long it stays."""
    ends = np.cumsum(durations) // math.gcd(*durations)
    return np.searchsorted(ends, picks(int(ends[-1]), n, sampling), side="right").tolist()


def _of_video(stream: IO[bytes], video: Video, choose: Choice, side: int | None) -> Iterator[tuple[_Clip, int, PIL.Image.Image]]:
    where = video.where
    try:
        import av
    except ImportError:
        raise MediaError(where, str(MissingExtra("a clip that is no animated picture", "video"))) from None
    try:
        clip = _track(stream, video, av)
        wanted = choose(clip)
        taken, number = 0, -1
        for number, frame in _numbered(stream, clip, wanted[0] if video.stretch is not None else 0, av):
            while taken < len(wanted) and wanted[taken] == number:
                yield clip, number, _upright(frame) if side is None else _small(frame, side)
                taken += 1
            if taken == len(wanted):
                return
        raise MediaError(where, f"truncated (a frame after {number + 1} is missing)")
    except av.error.FFmpegError as error:
        stream.seek(0)
        head = stream.read(1024)
        known = head[4:8] == b"ftyp" or head.startswith((b"\x1aE\xdf\xa3", b"RIFF"))
        raise MediaError(where, f"corrupt ({error.strerror})" if known else what_else(head, "clip")) from None


def _numbered(stream: IO[bytes], clip: _Clip, first: int, av: Any) -> Iterator[tuple[int, Any]]:
    """Decoded frames with their numbers. Those long before `first` are left out where the file says how to find it."""
    numbers = {stamp: number for number, stamp in enumerate(clip.stamps)}
    if first and clip.stamps:
        stream.seek(0)
        with av.open(stream) as container:
            track = container.streams.video[0]
            container.seek(clip.stamps[first], stream=track)
            frames = container.decode(track)
            begin = next(frames, None)
            if begin is not None and numbers.get(begin.pts, first + 1) <= first:
                yield from enumerate(itertools.chain([begin], frames), numbers[begin.pts])
                return
    stream.seek(0)
    with av.open(stream) as container:
        yield from enumerate(container.decode(container.streams.video[0]))


def _track(stream: IO[bytes], video: Video, av: Any) -> _Clip:
    """Of many moments of one file, the first to be read finds out where they all are."""
    if video.path is None or video.stretch is None:
        return _read_track(stream, video.where, av)
    about = os.fstat(stream.fileno())
    key = (str(video.path), about.st_mtime_ns, about.st_size)
    known = _TRACKS.get(key)
    if known is None:
        known = _read_track(stream, video.where, av)
        _TRACKS[key] = known
        for eldest in list(_TRACKS)[:-_MOST_TRACKS]:
            _TRACKS.pop(eldest, None)
    return known


def _read_track(stream: IO[bytes], where: str, av: Any) -> _Clip:
    """Frames of the first picture track, without decoding; checked against the length that the file declares."""
    with av.open(stream) as container:
        if not container.streams.video:
            raise MediaError(where, "has no picture track")
        track = container.streams.video[0]
        check_size((track.width, track.height), where, MAX_PIXELS)
        stamps, last, end = [], 0, 0.0
        for packet in container.demux():
            if not packet.size:
                continue
            if packet.stream is track and not packet.is_discard:  # an editor's cut: there, but not shown
                stamps.append(packet.pts)
                last = packet.duration or last
            end = max(end, float(((packet.pts or 0) + (packet.duration or 0)) * packet.time_base))
        missing = (container.duration or 0) / av.time_base - (end - (container.start_time or 0) / av.time_base)
        # Fewer frames than declared are no damage by themselves: some writers count frames that they left out.
        if missing > (1.5 / float(track.guessed_rate or _RATE) if len(stamps) < track.frames else _SHORT):
            raise MediaError(where, "truncated")
        if not stamps:
            raise MediaError(where, "has no frames")
        if None in stamps or len(set(stamps)) < len(stamps):
            return _Clip(np.arange(len(stamps) + 1) / float(track.guessed_rate or _RATE))
        stamps.sort()
        after = last or (stamps[-1] - stamps[0]) // max(1, len(stamps) - 1) or 1
        edges = (np.array([*stamps, stamps[-1] + after], np.float64) - stamps[0]) * float(track.time_base)
        return _Clip(edges, stamps=tuple(stamps))


def _small(frame: Any, side: int) -> PIL.Image.Image:
    width, height = _within_side((frame.width, frame.height), side)
    small: PIL.Image.Image = frame.reformat(width, height, format="rgb24", interpolation="AREA").to_image()
    return small


def _within_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _upright(frame: Any) -> PIL.Image.Image:
    """As players show it: telephones store clips as the sensor lay, and the angle beside them."""
    picture: PIL.Image.Image = frame.to_image()
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


def canonical_clip() -> Video:
    """Eleven frames whose processing tells every setting apart: the canonical picture, shifted, darkened and turned step by step."""
    picture = np.asarray(canonical_picture())
    shifted = [np.roll(picture, (5 * i, 9 * i), axis=(0, 1)) for i in range(11)]
    return Video(array=np.stack([(frame.astype(np.uint16) * (20 - i) // 20).astype(np.uint8) for i, frame in enumerate(shifted)]))
