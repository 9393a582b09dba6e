"""An index of what a model hears and watches: the first picture, clip or sound of a row, whichever it embeds."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

import tonggan
from fakes import ColourModel, square
from senses import clip_rows, model_of, sound_rows
from sounds import frames, tones
from tonggan.search import Index
from tonggan.search.thumbnails import INK, SIDE, thumbnail
from tonggan.types import Audio, CannotError, Image, MediaError, Row, Text, Video


def test_rows_are_found_by_what_they_have_and_the_model_embeds(tmp_path: Path) -> None:
    model = tonggan.load(str(model_of(tmp_path / "model", "image", "text", "audio", "video")))
    sounds, clips = sound_rows(tmp_path / "files"), clip_rows(tmp_path / "files")
    pictured = Row(id="p", images=(square(9, 200, 9),), audios=sounds[0].audios)
    index = Index.create(tmp_path / "index", model)
    done = index.add(model, [*sounds, *clips, pictured, Row(id="none", texts=(Text("only words"),))])
    assert done.added == 8 and [(one.where, one.reason) for one in done.dropped] == [("none", "no picture or clip or sound")]
    for row in (*sounds, *clips):
        part = (*row.audios, *row.videos)[0]
        hit = index.search(model, part, 1)[0]
        assert (hit.id, hit.where, hit.title) == (row.id, str(part.path), row.texts[0].text)
        assert hit.score == pytest.approx(1, abs=1e-5)
        width, height = Pil.open(io.BytesIO(hit.thumbnail)).size
        assert (width, height) == (SIDE, SIDE // 2) if row.audios else width == 64
    assert index.search(model, pictured.images[0], 1)[0].id == "p", "a picture comes before a sound"
    again = index.add(model, [*sounds, *clips])
    assert (again.added, again.updated, again.unchanged) == (0, 0, 7)
    assert sounds[0].audios[0].path is not None
    sounds[0].audios[0].path.write_bytes(b"no sound any more")
    assert [(one.where, one.reason) for one in index.add(model, sounds).dropped] == [("s0", "not a sound that can be read")]


def test_a_model_that_reads_no_text(tmp_path: Path) -> None:
    model = tonggan.load(str(model_of(tmp_path / "model", "audio", "image")))
    index = Index.create(tmp_path / "index", model)
    sounds = sound_rows(tmp_path / "files")
    assert index.add(model, sounds).added == len(sounds)
    assert index.search(model, sounds[2].audios[0], 1)[0].id == "s2"
    with pytest.raises(CannotError, match="does not take text"):
        index.search(model, "words")
    with pytest.raises(MediaError, match="not a sound that can be read"):
        index.search(model, Audio(data=b"nothing of the kind"))


def test_sounds_given_as_arrays_are_known_again_by_values_and_rate(tmp_path: Path) -> None:
    model = tonggan.load(str(model_of(tmp_path / "model", "audio", "video")))
    index = Index.create(tmp_path / "index", model)

    def rows(rate: int) -> list[Row]:
        return [Row(id="a", audios=(Audio(array=tones(2_000), rate=rate),)), Row(id="v", videos=(Video(array=frames(5)),))]

    assert index.add(model, rows(16_000)).added == 2
    assert index.add(model, rows(16_000)).unchanged == 2
    again = index.add(model, rows(8_000))
    assert (again.updated, again.unchanged) == (1, 1)


def test_a_model_without_eyes_and_ears_has_nothing_to_index(tmp_path: Path) -> None:
    model = ColourModel()
    index = Index.create(tmp_path / "index", model)
    model.modalities = frozenset({"text"})
    with pytest.raises(CannotError, match="colours embeds text; an index needs image or video or audio"):
        index.add(model, [])


def test_thumbnails() -> None:
    def shown(part: Image | Audio | Video) -> np.ndarray:
        return np.asarray(Pil.open(io.BytesIO(thumbnail(part))).convert("RGB")).astype(int)

    clip = shown(Video(array=frames(3, 96, 320)))
    assert clip.shape == (48, SIDE, 3) and np.abs(clip[30:, 80:] - 110).max() < 6, "the middle frame"
    swelling = np.linspace(0, 0.5, 16_000, dtype=np.float32) * np.sin(np.arange(16_000)).astype(np.float32)
    ink = (np.abs(shown(Audio(array=swelling, rate=16_000)) - INK).sum(axis=2) < 90).sum(axis=0)
    assert ink.shape == (SIDE,) and ink[-3] > 70 and ink[SIDE // 2] == pytest.approx(40, abs=4) and 1 <= ink[1] <= 6
    for still in (np.zeros(9, np.float32), np.zeros(50_000, np.float32)):
        assert shown(Audio(array=still, rate=16_000)).shape == (SIDE // 2, SIDE, 3)
    with pytest.raises(MediaError):
        thumbnail(Audio(data=b"nothing of the kind"))
