"""One message to a model without a template."""

from __future__ import annotations

import numpy as np
import pytest

from tonggan.data.audio import AudioProcessing, AudioProcessor
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.plain import PlainProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import train_bpe
from tonggan.tensors import IGNORE
from tonggan.types import Audio, CannotError, Image, Message, Text, TongganError, UsageError

WORDS = train_bpe(["a red bird", "红色的鸟"], 320, max_length=12)
EARS = AudioProcessor(AudioProcessing(bins=20, seconds=1))
EYES = ImageProcessor(ImageProcessing(size=8))


def heard(role: str | None) -> Message:
    return Message("user", (Audio(array=np.zeros(800, np.float32), rate=16_000, role=role),))


def test_a_language_is_told_once() -> None:
    """Where the start names one (Whisper's directories may), a sound's role takes its place."""

    def told(start: tuple[int, ...], role: str | None) -> tuple[int, ...]:
        listener = PlainProcessor(
            "w", Processor(None, WORDS, EARS), context=40, start=start, reads=True, languages={"en": 50, "zh": 51}, behind=(60, 61)
        )
        assert listener.unnamed == (50 not in start)
        return listener.prompt([heard(role)]).ids

    assert told((9,), None) == (9,), "whoever asks the model hears it"
    assert told((9,), "zh") == (9, 51, 60, 61)
    assert told((9, 50, 60, 61), None) == (9, 50, 60, 61)
    assert told((9, 50, 60, 61), "zh") == (9, 51, 60, 61)
    with pytest.raises(UsageError, match="does not write 'fr'; it writes: en, zh"):
        told((9,), "fr")


def test_a_lesson_is_its_prompt_and_the_answer_and_its_end() -> None:
    captioner = PlainProcessor("c", Processor(EYES, WORDS), context=40, start=(1,), ends=(2,))
    picture = Image(array=np.zeros((8, 8, 3), np.uint8))
    asked = Message("user", (picture, Text("a red")))
    lesson = captioner.lesson([asked, Message("assistant", (Text(" bird"),))])
    (said,) = WORDS.pieces([" bird"])
    prompt = captioner.prompt([asked]).ids
    assert (*lesson.ids, 2) == (*prompt, *said, 2) and lesson.targets == (*[IGNORE] * (len(prompt) - 1), *said, 2)
    batch = captioner.collate([lesson, captioner.lesson([Message("user", (picture,)), Message("assistant", (Text("鸟"),))])])
    assert batch.pixels is not None and batch.targets is not None and batch.pixels.shape[0] == batch.targets.shape[0] == 2
    reader = PlainProcessor("r", Processor(None, WORDS), context=40, start=(1,), ends=(2,), reads=True)
    read = reader.lesson([Message("user", (Text("a red"),)), Message("assistant", (Text("bird"),))])
    assert read.ids[0] == 1 and read.source[0] == WORDS.id_of("<|startoftext|>")
    with pytest.raises(UsageError, match="tokens, the model takes 12; shorten it"):
        reader.prompt([Message("user", (Text("a red bird " * 9),))])


def test_words_that_a_model_goes_on_from_are_taken_to_the_letter() -> None:
    words = train_bpe(["def f():\n    return 1"], 320, exact=True)
    code = Message("user", (Text("def f():\n    "),))
    alone = PlainProcessor("g", Processor(None, words), context=40)
    assert alone.goes_on and [alone.prompt([code]).ids] == [tuple(ids) for ids in words.pieces(["def f():\n    "])]
    reader = PlainProcessor("r", Processor(None, words), context=40, start=(1,), reads=True)
    assert not reader.goes_on and len(reader.prompt([code]).source) == len(alone.prompt([code]).ids) + 2, "and its start and end"
    captioner = PlainProcessor("c", Processor(EYES, words), context=40, start=(1,))
    seen = Message("user", (Image(array=np.zeros((8, 8, 3), np.uint8)), *code.parts))
    assert not captioner.goes_on and captioner.prompt([seen]).ids == (1, *words.pieces(["def f():"])[0])


@pytest.mark.parametrize(
    ("talk", "why"),
    [
        ([Message("user", (Text("a"),)), Message("assistant", ()), Message("user", (Text("b"),))], "takes one message, not 3"),
        ([Message("user", (Text("a"),))], "one image with a message, not 0"),
        ([Message("user", (Image(array=np.zeros((8, 8, 3), np.uint8)), Audio(array=np.zeros(8, np.float32), rate=8)))], "no audio"),
    ],
)
def test_what_it_does_not_take(talk: list[Message], why: str) -> None:
    with pytest.raises(CannotError, match=why):
        PlainProcessor("c", Processor(EYES, WORDS), context=40, start=(1,)).prompt(talk)


def test_nobody_answers() -> None:
    captioner = PlainProcessor("c", Processor(EYES, WORDS), context=40, start=(1,))
    with pytest.raises(TongganError, match="learns from one message and its answer"):
        captioner.lesson([Message("user", (Image(array=np.zeros((8, 8, 3), np.uint8)),))])
