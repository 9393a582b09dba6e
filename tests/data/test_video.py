"""Clips: which frames are taken, how every kind of file gives them, and what is said of files that do not."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from sounds import frames, sound_file, tones, video_file
from tonggan.data.images import ImageProcessing
from tonggan.data.video import VideoProcessing, VideoProcessor, canonical_clip, load_frames, picks
from tonggan.types import MediaError, Video


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
