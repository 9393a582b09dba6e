"""Batches of sounds, clips, text alone and labels: what is picked, what stands in for what cannot be read, which rows are positives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from sounds import frames, sound, sound_file, tones
from tonggan.data.audio import AudioProcessing, AudioProcessor
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.loader import Loader, LoaderConfig
from tonggan.data.pairs import PairCollate, classes_of
from tonggan.data.processor import Processor
from tonggan.data.rows import Dataset
from tonggan.data.text import train_bpe
from tonggan.data.video import VideoProcessing, VideoProcessor
from tonggan.tensors import Modality
from tonggan.types import Audio, Image, Row, Text, TongganError, UsageError, Video

IMAGE = ImageProcessing(size=8)
WAVES = AudioProcessing(kind="waveform", seconds=1)
PROCESSOR = Processor(
    ImageProcessor(IMAGE),
    train_bpe(["a sound", "一声"] * 2, 320, max_length=16),
    AudioProcessor(WAVES),
    VideoProcessor(VideoProcessing(frames=3, image=IMAGE)),
)
PARTS = {
    "image": Image(array=np.zeros((9, 8, 3), np.uint8)),
    "audio": sound(700),
    "video": Video(array=frames(5)),
}


def spoken(i: int) -> Row:
    """A picture, described aloud in two languages, with a bark."""
    return Row(
        id=f"r{i}",
        images=(Image(array=np.full((9, 8, 3), i, np.uint8)),),
        audios=(sound(100 + i, i, "effect"), sound(200 + i, i, "fr"), sound(300 + i, i, "ro")),
        texts=(Text(f"sound {i}", "en"), Text(f"bruit {i}", "fr")),
        meta={"animal": "dog" if i % 2 else "cat"},
    )


ROWS = [spoken(i) for i in range(6)]


def collate(*modalities: Modality, **options: Any) -> PairCollate:
    return PairCollate(PROCESSOR, seed=0, modalities=frozenset(modalities), **options)


def lengths(made: PairCollate, rows: Sequence[Row], epoch: int = 0) -> list[int]:
    sounds = made(rows, [epoch] * len(rows)).sounds
    assert sounds is not None
    return sounds.lengths.tolist()


def test_one_sound_is_picked_per_row_and_epoch() -> None:
    made = collate("image", "audio")
    first = lengths(made, ROWS)
    assert first == lengths(made, ROWS[::-1])[::-1] == lengths(collate("image", "audio"), ROWS), "whatever else is in the batch"
    seen = {(i, length) for epoch in range(40) for i, length in enumerate(lengths(made, ROWS, epoch))}
    assert seen == {(i, start + i) for i in range(6) for start in (100, 200, 300)}


def test_languages_choose_among_sounds_too() -> None:
    batch = collate("image", "audio", langs=["ro"])(ROWS, [0] * 6)
    assert batch.langs == ("ro",) * 6 and batch.tokens is None and batch.pixels is not None
    assert batch.sounds is not None and batch.sounds.lengths.tolist() == [300 + i for i in range(6)]
    both = collate("text", "audio", langs=["fr"])(ROWS, [0] * 6)
    assert both.langs == ("fr",) * 6 and both.pixels is None
    unknown = Row(id="u", audios=(sound(50), sound(60, role="es")))
    assert {lengths(collate("audio", langs=["fr"]), [unknown], epoch)[0] for epoch in range(20)} == {50}, "no language was told"


def test_values_are_those_of_the_processor() -> None:
    batch = collate("audio", "video", langs=["fr"])([row.with_(videos=(PARTS["video"],)) for row in ROWS], [0] * 6)
    process = AudioProcessor(WAVES)
    expected = process.collate([process(row.audios[1]) for row in ROWS])
    assert batch.sounds is not None and torch.equal(batch.sounds.values, expected.values)
    assert batch.clips is not None and batch.clips.shape == (6, 3, 3, 8, 8) and batch.clips.dtype == torch.uint8
    assert PROCESSOR.video is not None
    assert np.array_equal(batch.clips[4].numpy(), PROCESSOR.video(Video(array=frames(5))))


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_unreadable_media_are_listed_and_replaced(kind: Modality) -> None:
    field = {"image": "images", "audio": "audios", "video": "videos"}[kind]
    bad = [
        Row(id="bad", **{field: (type(PARTS[kind])(data=b"nothing of the kind"),)}),  # type: ignore[arg-type]
        Row(id="none"),
    ]
    good = [Row(id=str(i), **{field: (PARTS[kind],)}) for i in range(2)]  # type: ignore[arg-type]
    made = collate(kind)
    batch = made([good[0], *bad, good[1]], [0] * 4)
    assert batch.ids == ("0", "1", "0", "1") and set(made.dropped) == {"bad", "none"}
    assert made.dropped["none"].reason == f"no {({'image': 'picture', 'audio': 'sound', 'video': 'clip'})[kind]}"
    assert len(batch.input(kind).values if kind == "audio" else batch.input(kind)) == 4
    with pytest.raises(TongganError, match="of a whole batch could be read"):
        made(bad, [0, 0])


def test_rows_of_one_file_are_positives() -> None:
    data = sound_file(tones(400))
    rows = [
        Row(id="a", audios=(Audio(data=data),), videos=(Video(array=frames(3)),)),
        Row(id="b", audios=(Audio(data=data),), videos=(Video(array=frames(4)),)),
        Row(id="c", audios=(sound(400, 1),), videos=(Video(array=frames(4)),)),
    ]
    keys = collate("audio", "video")(rows, [0] * 3).keys
    assert keys is not None and keys.shape == (3, 5)
    assert not keys[:, :3].any(), "no group, no picture, no caption"
    assert keys[0, 3] == keys[1, 3] != keys[2, 3] and keys[0, 4] != keys[1, 4] == keys[2, 4] and keys[:, 3:].all()


def test_pictures_and_captions_have_the_keys_that_they_had() -> None:
    keys = collate("image", "text")(ROWS, [0] * 6).keys
    assert keys is not None and keys.shape == (6, 3)


def test_text_alone_needs_no_pictures() -> None:
    rows = [Row(id=str(i), texts=(Text(f"a sound {i}", "en"),), images=(Image(data=b"nonsense"),) * (i % 2)) for i in range(4)]
    made = collate("text")
    batch = made(rows, [0] * 4)
    assert batch.tokens is not None and len(batch.tokens.ids) == 4 and batch.pixels is None and not made.dropped
    assert batch.keys is not None and not batch.keys[:, :2].any() and batch.keys[:, 2].all()
    assert made.fills(1_000) == 0


def test_labels() -> None:
    classes = classes_of(ROWS, "animal")
    assert classes == ("cat", "dog")
    batch = collate("image", label="animal", classes=classes)(ROWS, [0] * 6)
    assert batch.labels is not None and batch.labels.tolist() == [0, 1, 0, 1, 0, 1] and batch.tokens is None
    with pytest.raises(TongganError, match=r"row r1 is of the class 'dog', which is none of the 1 \(meta.animal\)"):
        collate("image", label="animal", classes=["cat"])(ROWS, [0] * 6)
    with pytest.raises(TongganError, match="row r0 has no class"):
        collate("image", label="breed", classes=["cat"])(ROWS, [0] * 6)


def test_what_is_kept_decoded_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tonggan.data.pairs.CACHE_BYTES", 4 * 650)
    made = collate("audio", langs=["ro"])
    for _ in range(2):
        made(ROWS, [0] * 6)
    assert sum(value.nbytes for value in made._known.values()) == 4 * (300 + 301)


def test_how_much_memory_decoded_media_will_take() -> None:
    assert collate("audio").fills(10) == 10 * 4 * 16_000
    assert collate("video", "image").fills(10) == 10 * (3 + 1) * 3 * 8 * 8
    spectrograms = Processor(audio=AudioProcessor(AudioProcessing(bins=7, seconds=2)))
    assert PairCollate(spectrograms, seed=0, modalities=frozenset({"audio"})).fills(1) == 4 * 7 * 200


def test_a_decoded_clip_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = collate("video")
    row = Row(id="v", videos=(Video(array=frames(5)),))
    first = made([row], [0]).clips
    monkeypatch.setattr(VideoProcessor, "__call__", lambda *_: pytest.fail("decoded again"))
    again = made([row], [1]).clips
    assert first is not None and again is not None and torch.equal(first, again)


def test_a_processor_without_the_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="a sound per row are asked for, but the model's processor reads none"):
        PairCollate(Processor(PROCESSOR.image, PROCESSOR.text), seed=0, modalities=frozenset({"image", "audio"}))


def test_threads_and_a_restart_change_nothing_about_sounds() -> None:
    data = Dataset.from_rows([*ROWS, Row(id="bad", images=ROWS[0].images, audios=(Audio(data=b"nonsense"),))])

    def loader(threads: int) -> Loader:
        return Loader(data, collate("image", "audio"), LoaderConfig(batch_size=4, threads=threads, prefetch=threads), seed=3)

    one, three = loader(1), loader(3)
    for _ in range(4):
        a, b = next(one), next(three)
    state = three.state_dict()
    again = loader(2)
    again.load_state_dict(state)
    for _ in range(4):
        a, b, c = next(one), next(three), next(again)
        assert a.ids == b.ids == c.ids and a.langs == b.langs == c.langs
        assert a.sounds is not None and b.sounds is not None and c.sounds is not None
        assert torch.equal(a.sounds.values, b.sounds.values) and torch.equal(a.sounds.values, c.sounds.values)
    one.close(), three.close(), again.close()
