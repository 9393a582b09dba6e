"""Spoken descriptions of stamps as rows of their own: by stamp, by language, by speakers who are held out."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from draw import saved

from sounds import sound_file, tones
from tonggan.data.audio import AudioProcessing, AudioProcessor
from tonggan.data.pairs import PairCollate, classes_of
from tonggan.data.processor import Processor
from tonggan.data.sources.stamps import Stamps
from tonggan.types import Audio, UsageError

LANGUAGES = ("en", "fr", "ro", "da")


@pytest.fixture
def stamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stamps:
    """Twelve stamps: all with a sound effect, read in French and Romanian; every second in Danish, the first in English too."""
    monkeypatch.setenv("TONGGAN_HOME", str(tmp_path / "home"))
    for i in range(12):
        stem = tmp_path / "stamps" / "things" / f"thing{i:02}"
        saved(stem.with_suffix(".png"), i)
        stem.with_suffix(".txt").write_text(f"A thing number {i}.\nfr.utf8=Une chose {i}.\n")
        names = ["", "_desc_fr", "_desc_ro", *["_desc_da"] * (i % 2), *["_desc"] * (i == 0)]
        for number, name in enumerate(names):
            stem.with_name(f"{stem.name}{name}.ogg").write_bytes(sound_file(tones(400 + 10 * i, number), format="OGG"))
    return Stamps(tmp_path / "stamps")


def test_one_row_for_each_spoken_description(stamps: Stamps) -> None:
    rows = list(stamps.rows(size=16, languages=LANGUAGES, spoken=True))
    assert len(rows) == 12 * 2 + 6 + 1
    row = next(row for row in rows if row.id == "stamps/things/thing03/da")
    assert (row.meta["stamp"], row.meta["lang"], row.group) == ("things/thing03", "da", "stamps:thing number 3")
    assert [sound.role for sound in row.audios] == ["da"] and row.images and {t.lang for t in row.texts} == {"en", "fr"}
    plain = {row.id: row for row in stamps.rows(size=16, languages=LANGUAGES)}
    for row in rows:
        assert row.split == plain[row.id.rpartition("/")[0]].split, "sides share no stamp"
    assert {sound.role for sound in plain["stamps/things/thing00"].audios} == {"effect", "en", "fr", "ro"}
    assert {row.id for row in stamps.rows(size=16, spoken=True)} == {row.id for row in rows}, "unless told, all that are spoken"
    assert {sound.role for row in stamps.rows(size=16) for sound in row.audios} == {"effect", "en"}


def test_speakers_of_a_language_are_held_out(stamps: Stamps) -> None:
    rows = list(stamps.rows(size=16, languages=LANGUAGES, spoken=True, stamps=6, held_out="da"))
    sides: dict[str | None, set[str]] = defaultdict(set)
    for row in rows:
        sides[row.split].add(row.meta["lang"])
    assert sides["test"] == {"da"} and "da" not in sides["train"] | sides["val"]
    assert len(classes_of(rows, "stamp")) == 6
    assert {row.meta["stamp"] for row in rows if row.split == "test"} == {f"things/thing{i:02}" for i in (1, 3, 5, 7, 9, 11)}
    assert {row.meta["stamp"] for row in rows if row.split != "test"} == set(classes_of(rows, "stamp"))


def test_which_stamp_is_named_can_be_asked(stamps: Stamps) -> None:
    rows = list(stamps.rows(size=16, languages=LANGUAGES, spoken=True, stamps=3, held_out="fr"))
    classes = classes_of(rows, "stamp")
    processor = Processor(audio=AudioProcessor(AudioProcessing(bins=9, seconds=1)))
    collate = PairCollate(processor, seed=0, modalities=frozenset({"audio"}), label="stamp", classes=classes)
    batch = collate(rows, [0] * len(rows))
    assert batch.labels is not None and [classes[i] for i in batch.labels.tolist()] == [row.meta["stamp"] for row in rows]
    assert batch.langs == tuple(row.meta["lang"] for row in rows) and not collate.dropped


def test_choices_that_make_no_sense_are_refused(stamps: Stamps) -> None:
    with pytest.raises(UsageError, match="set spoken as well"):
        stamps.rows(held_out="fr")
    with pytest.raises(UsageError, match="held_out language"):
        stamps.rows(size=16, languages=LANGUAGES, spoken=True, held_out="bg")


@pytest.mark.source("stamps")
@pytest.mark.parametrize("lang", ["fr", "ro", "ru", "ca", "bg", "es", "be", "el", "da"])
def test_real_descriptions_are_read(lang: str) -> None:
    spoken = sorted(Stamps().root.rglob(f"*_desc_{lang}.ogg"))
    assert len(spoken) > 300
    process = AudioProcessor(AudioProcessing())
    for path in spoken[::150]:
        samples, cut = process.open(Audio.open(path))
        assert not cut and 0.2 < len(samples) / 16_000 < 15 and abs(samples).max() > 0.01
