"""Clips: which frames are taken, how every kind of file gives them, and what is said of files that do not."""

from __future__ import annotations

import io
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from sounds import frames, sound_file, tones, video_file
from tonggan.data.images import ImageProcessing
from tonggan.data.video import VideoProcessing, VideoProcessor, canonical_clip, every_frame, load_frames, picks
from tonggan.types import MediaError, UsageError, Video


def animation(pictures: np.ndarray, format: str, duration: int | list[int] = 100) -> bytes:
    buffer = io.BytesIO()
    first, *others = (PIL.Image.fromarray(picture) for picture in pictures)
    options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
    first.save(buffer, format, save_all=True, append_images=others, duration=duration, **options)
    return buffer.getvalue()


def test_which_frames_are_taken() -> None:
    assert picks(9, 3, "segments") == [1, 4, 7]
    assert picks(8, 8, "segments") == picks(8, 8, "uniform") == list(range(8))
    assert picks(9, 3, "uniform") == [0, 4, 8]
    assert picks(10, 1, "segments") == [5]
    assert picks(3, 6, "segments") == [0, 0, 1, 1, 2, 2], "a short clip shows its frames again"
    assert picks(1, 3, "uniform") == [0, 0, 0]
    for count in range(1, 40):
        for n in range(1, 20):
            parts = np.array_split(np.arange(count * n), n)  # n equal parts of a time that both divide
            assert picks(count, n, "segments") == [int(part[len(part) // 2]) // n for part in parts]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_animated_pictures_need_no_extra(monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    given = frames(7)
    assert np.array_equal(load_frames(Video(data=animation(given, format)), 7), given)
    assert np.array_equal(load_frames(Video(data=animation(given, format)), 3), given[picks(7, 3, "segments")])


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_a_frame_that_stays_longer_counts_more(format: str) -> None:
    """Writers store equal frames once, with the time that they stay."""
    two = frames(2)
    still = two[[0, 0, 0, 0, 0, 0, 1, 1]]
    stored = animation(still, format)
    with PIL.Image.open(io.BytesIO(stored)) as file:
        assert getattr(file, "n_frames", 1) == 2
    assert np.array_equal(load_frames(Video(data=stored), 8), still)
    assert np.array_equal(load_frames(Video(data=animation(two, format, [300, 100])), 4), two[[0, 0, 0, 1]])


def test_transparent_frames_lie_on_white() -> None:
    clear = PIL.Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    buffer = io.BytesIO()
    clear.save(buffer, "PNG", save_all=True, append_images=[PIL.Image.new("RGBA", (8, 8), (255, 0, 0, 255))], duration=10)
    found = load_frames(Video(data=buffer.getvalue()), 2)
    assert (found[0] == 255).all() and (found[1] == [255, 0, 0]).all()


@pytest.mark.parametrize(
    ("format", "codec"), [("mp4", "libx264"), ("webm", "libvpx"), ("matroska", "libx264"), ("avi", "mpeg4"), ("mpegts", "mpeg2video")]
)
def test_videos(tmp_path: Path, format: str, codec: str) -> None:
    """With frames that depend on later ones (B-frames), in the order in which they are shown."""
    given = frames(23)
    path = tmp_path / "clip"
    path.write_bytes(video_file(given, format=format, codec=codec))
    for handle in (Video.open(path), Video(data=path.read_bytes())):
        for sampling, n in (("segments", 5), ("uniform", 4), ("segments", 40)):
            found = load_frames(handle, n, sampling)  # type: ignore[arg-type]
            expected = given[picks(23, n, sampling)]  # type: ignore[arg-type]
            assert found.shape == expected.shape
            assert np.abs(found[:, 30:, 40:].astype(int) - expected[:, 30:, 40:]).max() <= 4, "neighbours are 9 apart"


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_clips_are_turned_as_telephones_note(degrees: int) -> None:
    given = frames(4)
    found = load_frames(Video(data=video_file(given, rotation=degrees)), 4)
    expected = np.rot90(given, degrees // 90, axes=(1, 2))
    assert found.shape == expected.shape
    assert (np.abs(found.astype(int) - expected).mean(axis=(1, 2, 3)) < 8).all()


def test_arrays() -> None:
    given = frames(9)
    assert np.array_equal(load_frames(Video(array=given), 3), given[[1, 4, 7]])


@pytest.mark.parametrize(
    ("format", "codec"), [("mp4", "libx264"), ("webm", "libvpx"), ("matroska", "libx264"), ("avi", "mpeg4"), ("mpegts", "mpeg2video")]
)
def test_only_frames_of_the_moment_are_taken(tmp_path: Path, format: str, codec: str) -> None:
    """Ten frames a second: 0.3 to 0.8 s are frames 3 to 7, also where the file has to be entered at a key frame before them."""
    given = frames(23)
    path = tmp_path / "clip"
    path.write_bytes(video_file(given, format=format, codec=codec, g="5"))
    moments = [((0.3, 0.8), 3, 8), ((1.7, 2.3), 17, 23), ((1.295, 1.704), 13, 17), ((2.0, math.inf), 20, 23), ((0.0, 2.3), 0, 23)]
    for whole in (Video.open(path), Video(data=path.read_bytes())):
        for stretch, first, last in moments if whole.path is not None else moments[1:3]:
            for sampling, n in (("segments", 3), ("uniform", 9)):
                found = load_frames(replace(whole, stretch=stretch), n, sampling)  # type: ignore[arg-type]
                expected = given[first:last][picks(last - first, n, sampling)]  # type: ignore[arg-type]
                assert np.abs(found[:, 30:, 40:].astype(int) - expected[:, 30:, 40:]).max() <= 4, (stretch, sampling, n)
        (found,) = load_frames(replace(whole, stretch=(1.21, 1.23)), 1)
        assert np.abs(found[30:, 40:].astype(int) - given[12, 30:, 40:]).max() <= 4, "a moment inside a frame shows that frame"


def test_a_moment_that_is_not_there_is_refused_with_both_lengths() -> None:
    stored, array = Video(data=video_file(frames(10))), Video(array=frames(10), fps=10)
    still = Video(data=animation(frames(10), "WEBP"))
    for whole in (stored, array, still):
        for stretch, said in (((1.0, 2.0), "1-2 s"), ((0.2, 1.6), "0.2-1.6 s"), ((7.0, math.inf), "7 s")):
            with pytest.raises(MediaError, match=f"has no {said}: it ends at 1 s"):
                load_frames(replace(whole, stretch=stretch), 2)
        assert len(load_frames(replace(whole, stretch=(0.5, 1.4)), 2)) == 2, "people round up"
    with pytest.raises(MediaError, match="only where its fps are given"):
        load_frames(Video(array=frames(10), stretch=(0.1, 0.2)), 2)
    for wrong in ((-1.0, 2.0), (3.0, 3.0), (5.0, 4.0), (math.nan, 1.0)):
        with pytest.raises(UsageError, match="is no moment"):
            Video(array=frames(3), fps=10, stretch=wrong)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_moments_of_animations_go_by_the_time_that_frames_stay(format: str) -> None:
    given = frames(4)
    clip = Video(data=animation(given, format, [1000, 200, 300, 2500]))

    def shown(start: float, end: float, n: int) -> list[int]:
        found = load_frames(replace(clip, stretch=(start, end)), n)
        return [int(np.abs(given.astype(int) - frame).sum((1, 2, 3)).argmin()) for frame in found]

    assert shown(0.0, 4.0, 8) == [0, 0, 2, 3, 3, 3, 3, 3] == shown(0.0, math.inf, 8)
    assert shown(1.0, 1.5, 5) == [1, 1, 2, 2, 2]
    assert shown(0.2, 0.7, 2) == [0, 0] and shown(0.8, 1.2, 2) == [0, 1]
    assert shown(3.9, 4.3, 1) == [3]


def test_frames_of_an_animation_that_say_no_time_stay_as_long_as_browsers_let_them() -> None:
    given = frames(6)
    clip = Video(data=animation(given, "GIF", 0), stretch=(0.2, 0.4))
    assert np.array_equal(load_frames(clip, 2), given[[2, 3]])


def test_a_moment_is_looked_for_in_the_file_that_is_there_now(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(video_file(frames(10)))
    assert len(load_frames(Video(path=path, stretch=(0.5, 1.0)), 2)) == 2
    path.write_bytes(video_file(frames(5)))
    with pytest.raises(MediaError, match=r"it ends at 0\.5 s"):
        load_frames(Video(path=path, stretch=(0.5, 1.0)), 2)


def test_frames_before_an_editors_cut_are_not_there(tmp_path: Path) -> None:
    """Trimmed without being encoded again: the file keeps what comes before the cut, and says that it is not shown."""
    import av

    (tmp_path / "whole.mp4").write_bytes(video_file(frames(30), g="30", bf="0"))
    with av.open(str(tmp_path / "whole.mp4")) as source, av.open(str(tmp_path / "cut.mp4"), "w") as cut:
        track = source.streams.video[0]
        copied = cut.add_stream_from_template(track)
        for packet in source.demux(track):
            if packet.pts is not None:
                packet.pts, packet.dts = packet.pts - 12 * packet.duration, packet.dts - 12 * packet.duration
                packet.stream = copied
                cut.mux(packet)
    for whole in (Video.open(tmp_path / "cut.mp4"), Video(path=tmp_path / "cut.mp4", stretch=(0.0, math.inf))):
        found = load_frames(whole, 3)
        assert found.shape[0] == 3
        assert np.abs(found[:, 30:, 40:].astype(int) - frames(30)[12:][picks(18, 3, "segments")][:, 30:, 40:]).max() <= 4


def test_every_frame_is_timed_and_small() -> None:
    given = frames(7, 96, 160)
    for clip in (Video(data=video_file(given)), Video(array=given, fps=10), Video(data=animation(given, "WEBP"))):
        found = list(every_frame(clip, 40))
        assert [(round(start, 3), round(end, 3)) for start, end, _ in found] == [(i / 10, (i + 1) / 10) for i in range(7)]
        small = np.stack([frame for _, _, frame in found]).astype(int)
        assert small.shape == (7, 24, 40, 3) and np.abs(small[:, 12:, 20:, 0] - given[:, 50:51, 100:101, 0]).max() <= 4


def test_damage_is_a_clause(tmp_path: Path) -> None:
    pictures = frames(30)
    mp4, webm = video_file(pictures), video_file(pictures, format="webm", codec="libvpx")
    streamed = video_file(pictures, codec="mpeg4", movflags="faststart")
    gif, webp = animation(pictures, "GIF"), animation(pictures, "WEBP")
    none = tmp_path / "none.mp4"
    none.write_bytes(b"")
    cases: list[tuple[Video, str]] = [
        (Video(path=tmp_path / "absent.mp4"), "no such file"),
        (Video(path=none), "empty file"),
        (Video(data=mp4[: len(mp4) // 2]), "corrupt"),
        (Video(data=streamed[: len(streamed) * 3 // 4]), "truncated"),
        (Video(data=webm[: len(webm) // 2]), "truncated"),
        (Video(data=gif[: len(gif) // 2]), "truncated"),
        (Video(data=webp[: len(webp) // 2]), ""),
        (Video(data=b"<!DOCTYPE html><title>404</title>" + bytes(99)), "a web page, not a clip"),
        (Video(data=bytes(2_000)), "a file of zeros, not a clip"),
        (Video(data=b"nothing of the kind" * 9), "not a clip that can be read"),
        (Video(array=pictures[:0]), "has no frames"),
        (Video(array=pictures[0]), "a clip is uint8 [frames, height, width, 3]"),
        (Video(array=pictures.astype(np.float32)), "an array of float32"),
    ]
    for handle, clause in cases:
        with pytest.raises(MediaError) as caught:
            load_frames(handle, 8)
        assert clause in caught.value.reason, (clause, caught.value.reason)
        assert len(caught.value.reason) < 120


def test_a_file_with_sound_alone_has_no_frames() -> None:
    for format in ("FLAC", "WAV"):
        with pytest.raises(MediaError, match="has no picture track"):
            load_frames(Video(data=sound_file(tones(900), format=format)), 2)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    data = video_file(frames(3))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MediaError, match=r"pip install 'tonggan\[video\]'"):
        load_frames(Video(data=data), 2)


@pytest.mark.parametrize("size", [(48, 64), (61, 33), (40, 40)])
@pytest.mark.parametrize(("short", "crop"), [(24, 24), (29, 24)])
def test_frames_are_prepared_as_videomae_does(size: tuple[int, int], short: int, crop: int) -> None:
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (5, *size, 3), dtype=np.uint8)
    theirs = VideoMAEImageProcessorPil(
        size={"shortest_edge": short}, crop_size={"height": crop, "width": crop}, do_rescale=False, do_normalize=False
    )
    expected = np.asarray(theirs(list(clip), return_tensors="np")["pixel_values"][0])
    image = ImageProcessing(size=short, crop=crop, interpolation="bilinear")
    mine = VideoProcessor(VideoProcessing(frames=5, image=image))(Video(array=clip))
    assert mine.dtype == np.uint8 and mine.shape == expected.shape == (5, 3, crop, crop)
    assert np.abs(mine.astype(int) - expected).max() <= 1


def test_every_setting_shows_in_the_canonical_clip() -> None:
    image = ImageProcessing(size=16)

    def seen(**settings: Any) -> bytes:
        return VideoProcessor(VideoProcessing(**{"frames": 4, "image": image} | settings))(canonical_clip()).tobytes()

    others = [seen(), seen(frames=5), seen(sampling="uniform"), seen(image=ImageProcessing(size=16, interpolation="bilinear"))]
    assert len(set(others)) == 4 and seen() == others[0]
