"""Shots: cuts are found where they are, and nowhere else."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import PIL.Image
import pytest

from sounds import video_file
from tonggan.data.shots import Course, Splitting, cuts, shots, watch
from tonggan.types import MediaError, Video

FPS = 10


def shot(seed: int, count: int, noise: float = 0.0) -> np.ndarray:
    """A blurred pattern of many colours, over which the camera moves; float [count, 48, 64, 3]."""
    rng = np.random.default_rng(seed)
    small = PIL.Image.fromarray(rng.integers(0, 256, (6, 12, 3), dtype=np.uint8))
    wide = np.asarray(small.resize((160, 48), PIL.Image.Resampling.BICUBIC), np.float64)
    return np.stack([wide[:, i : i + 64] for i in range(count)]) + rng.normal(0, 1, (count, 48, 64, 3)) * noise


def clip(*parts: np.ndarray) -> Video:
    return Video(data=video_file(np.clip(np.concatenate(parts), 0, 255).astype(np.uint8)))


def test_cuts_are_found_in_motion_and_noise() -> None:
    lengths = [14, 23, 9, 30, 11]
    film = clip(*(shot(seed, length, noise) for seed, (length, noise) in enumerate(zip(lengths, [0, 12, 0, 6, 12], strict=True))))
    ends = np.cumsum([0, *lengths]) / FPS
    assert shots(film) == [(start, end) for start, end in pairwise(ends.round(3).tolist())]


def test_a_flash_is_no_cut_and_what_appears_is_none() -> None:
    lit = shot(0, 30)
    lit[15] = 255
    assert cuts(watch(clip(lit)), Splitting()) == []
    lit = shot(0, 30)
    lit[12:, 10:20, 10:20] = 255
    assert cuts(watch(clip(lit)), Splitting()) == []


def test_a_fade_through_black_is_cut_where_it_is_dark() -> None:
    weights = np.linspace(1, 0, 6)[:, None, None, None]
    first, second = shot(0, 20), shot(1, 20)
    first[-6:] *= weights
    second[:6] *= weights[::-1]
    ((_, middle), (start, end)) = shots(clip(first, np.zeros((4, 48, 64, 3)), second))
    assert middle == start == pytest.approx(2.2, abs=0.11) and end == 4.4


def test_a_shot_without_a_cut_is_divided_and_none_is_too_short() -> None:
    film = clip(shot(0, 30), shot(1, 12))
    assert shots(film, Splitting(longest=1.1)) == [(0, 1), (1, 2), (2, 3), (3, 3.6), (3.6, 4.2)]
    assert shots(film, Splitting(shortest=2, longest=9)) == [(0, 4.2)], "the second would last 1.2 s"
    assert shots(clip(shot(0, 3), shot(1, 20))) == [(0, 2.3)], "nor may the first be shorter"


def test_cuts_in_an_animation_are_where_its_times_say() -> None:
    pictures = [PIL.Image.fromarray(shot(seed, 1)[0].clip(0, 255).astype(np.uint8)) for seed in range(3)]
    for format in ("GIF", "WEBP"):
        buffer = io.BytesIO()
        pictures[0].save(buffer, format, save_all=True, append_images=pictures[1:], duration=[1300, 700, 2000])
        assert shots(Video(data=buffer.getvalue())) == [(0, 1.3), (1.3, 2.0), (2.0, 4.0)]


def test_what_has_one_frame_has_one_shot_and_what_has_none_is_refused() -> None:
    assert shots(clip(shot(0, 1))) == [(0, 0.1)]
    picture = io.BytesIO()
    PIL.Image.new("RGB", (9, 9)).save(picture, "GIF")
    assert shots(Video(data=picture.getvalue())) == [(0, 0.1)]
    assert shots(Video(array=np.zeros((1, 4, 4, 3), np.uint8), fps=2)) == [(0, 0.5)]
    with pytest.raises(MediaError, match="has no frames"):
        shots(Video(array=np.zeros((0, 4, 4, 3), np.uint8), fps=2))
    with pytest.raises(MediaError, match="not a clip that can be read"):
        shots(Video(data=b"nothing of the kind" * 9))


def test_two_black_stretches_close_together_are_one_cut() -> None:
    light = np.full(40, 100.0)
    light[[18, 20]] = 0
    course = Course(np.arange(41) / FPS, np.zeros(40), light)
    assert cuts(course, Splitting()) == [18]
