"""The batch that memory is measured with has the longest sounds, found without decoding those that are not in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sounds import sound_file, tones
from tonggan.data import audio as listening
from tonggan.data.audio import AudioProcessing, AudioProcessor, duration
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.loader import Loader, LoaderConfig
from tonggan.data.pairs import PairCollate
from tonggan.data.processor import Processor
from tonggan.data.rows import Dataset
from tonggan.data.text import train_bpe
from tonggan.tensors import Modality
from tonggan.types import Audio, Image, Row, Text

RATE, HOP = 16_000, 160
PROCESSOR = Processor(
    ImageProcessor(ImageProcessing(size=8)),
    train_bpe(["a picture"] * 2, 320, max_length=100),
    AudioProcessor(AudioProcessing(bins=7, seconds=1)),
)
BATCH = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ogg files of 800 samples and more, 400 for each further one; three WAV files that are larger, and shorter."""
    where = tmp_path_factory.mktemp("sounds")
    for i in range(12):
        (where / f"{i:02}.ogg").write_bytes(sound_file(tones(800 + 400 * i, i), format="OGG"))
    for i in range(3):
        (where / f"{i}.wav").write_bytes(sound_file(np.stack([tones(700)] * 8, axis=1), subtype="PCM_32"))
    assert (where / "0.wav").stat().st_size > (where / "11.ogg").stat().st_size
    return where


def rows(folder: Path, *names: str, **fields: tuple[Text, ...]) -> list[Row]:
    image = Image(array=np.zeros((9, 8, 3), np.uint8))
    return [Row(id=name, images=(image,), audios=(Audio.open(folder / name),), **fields) for name in names]


def loader(some: list[Row], *modalities: Modality, langs: list[str] | None = None) -> Loader:
    collate = PairCollate(PROCESSOR, seed=1, modalities=frozenset(modalities), langs=langs)
    return Loader(Dataset.from_rows(some), collate, LoaderConfig(batch_size=BATCH, threads=1), seed=9)


def test_the_longest_sounds_of_rows_without_captions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = loader(rows(folder, "0.wav", *(f"{i:02}.ogg" for i in range(12)), "1.wav", "2.wav"), "image", "audio")
    decoded: list[str] = []
    load = listening.load_audio
    monkeypatch.setattr(listening, "load_audio", lambda audio, *a, **k: (decoded.append(audio.where), load(audio, *a, **k))[1])
    batch = source.largest()
    assert batch.sounds is not None and batch.pixels is not None and batch.tokens is None
    assert batch.sounds.lengths.tolist() == [(800 + 400 * i) // HOP for i in (11, 10, 9)]
    assert [Path(where).name for where in decoded] == ["11.ogg", "10.ogg", "09.ogg"]
    assert batch.keys is not None and len(batch.keys.unique()) == batch.keys.numel()
    source.close()


def test_the_longest_sound_is_not_remembered_as_another_rows(folder: Path) -> None:
    """Rows 0 to 2 would else be heard with the sounds of 9 to 11 for the whole run."""
    names = [f"{i:02}.ogg" for i in range(12)]
    source, fresh = (loader(rows(folder, *names), "image", "audio") for _ in range(2))
    source.largest()
    for _ in range(4):
        one, two = next(source), next(fresh)
        assert one.sounds is not None and two.sounds is not None and one.ids == two.ids
        assert torch.equal(one.sounds.values, two.sounds.values) and torch.equal(one.sounds.lengths, two.sounds.lengths)
        assert torch.equal(one.keys, two.keys)  # type: ignore[arg-type]
    source.close(), fresh.close()


def test_the_longest_captions_and_the_longest_sounds_though_no_row_has_both(folder: Path) -> None:
    long, short = Text("a picture of a picture of a picture", "en"), Text("a", "en")
    some = rows(folder, "00.ogg", "01.ogg", "02.ogg", texts=(long, short)) + rows(folder, "09.ogg", "10.ogg", "11.ogg", texts=(short,))
    source = loader(some, "text", "audio")
    batch = source.largest()
    assert PROCESSOR.text is not None
    assert batch.tokens is not None and batch.tokens.lengths.tolist() == [len(PROCESSOR.text.encode([long.text])[0][0])] * 3
    assert batch.sounds is not None and batch.sounds.lengths.tolist() == [(800 + 400 * i) // HOP for i in (11, 10, 9)]
    source.close()


def test_only_sounds_that_may_be_taken_and_none_where_none_are_heard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several = [
        row.with_(audios=tuple(Audio(path=folder / name, role=role) for name, role in ((row.id, "fr"), ("11.ogg", "effect"))))
        for row in rows(folder, "01.ogg", "02.ogg", "03.ogg", texts=(Text("une image", "fr"),))
    ]
    source = loader(several, "image", "audio", langs=["fr"])
    batch = source.largest()
    assert batch.sounds is not None and batch.sounds.lengths.tolist() == [(800 + 400 * i) // HOP for i in (3, 2, 1)]
    assert batch.langs == ("fr",) * 3
    source.close()
    monkeypatch.setattr("tonggan.data.loader.duration", None)
    deaf = loader(several, "image", "text")
    assert deaf.largest().sounds is None
    deaf.close()


def test_what_cannot_be_read_stands_in_nobodys_way(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.ogg").write_bytes(b"OggS" + bytes(100_000))
    source = loader([*rows(folder, "02.ogg", "05.ogg"), *rows(tmp_path, "broken.ogg")], "image", "audio")
    batch = source.largest()
    assert batch.sounds is not None and batch.sounds.lengths[0] == (800 + 400 * 5) // HOP and len(batch) == BATCH
    assert isinstance(source.collate, PairCollate) and not source.collate.dropped, "whose sound it was will be said in its turn"
    source.close()


def test_how_long_a_sound_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = tones(12_345)
    for format in ("WAV", "FLAC", "OGG", "MP3"):
        file = tmp_path / f"a.{format}"
        file.write_bytes(sound_file(wave, RATE, format=format))
        found = duration(Audio.open(file))
        assert found == pytest.approx(12_345 / RATE, abs=0.1 if format == "MP3" else 1e-6), format  # MP3 pads to whole frames
    assert duration(Audio(array=np.stack([wave, wave]), rate=8_000)) == 12_345 / 8_000
    assert [duration(sound) for sound in (Audio(data=b"no sound"), Audio(path=tmp_path / "none.wav"), Audio(url="http://x/a.wav"))] == [
        0
    ] * 3
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    assert duration(Audio.open(tmp_path / "a.WAV")) == pytest.approx(12_345 / RATE) and duration(Audio.open(tmp_path / "a.OGG")) == 0
