"""Models of ours that chat: what the library answers, in any batch, in pieces, about sounds; and what cannot be asked."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image as Pil

import tiny
from hub.references import picture
from hub.references_saying import t5, whisper_whole
from hub.test_llava import conversing, llava
from tonggan.backends import load
from tonggan.backends.local import LocalModel
from tonggan.models.chat import Chat
from tonggan.types import Answer, Audio, CannotError, ChatOptions, Image, Message, Part, Text, TongganError

SHORT = ChatOptions(max_tokens=7)


def asking(words: str, *media: Part) -> list[Message]:
    return [Message("user", (*media, Text(words)))]


def shown(seed: int = 0) -> Image:
    return Image(array=np.asarray(picture(seed=seed)))


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalModel, Any, Any]:
    """A LLaVA of ours, the library's, and the library's processor."""
    directory = tmp_path_factory.mktemp("llava")
    theirs = llava(directory)
    processor = conversing(directory)
    model = load(directory, device="cpu")
    assert isinstance(model, LocalModel) and {"chat", "logprob"} <= model.can and model.modalities >= {"image", "text"}
    return model, theirs, processor


def theirs_said(theirs: Any, processor: Any, conversation: list[Message], pictures: list[Image], new: int) -> str:
    said = [
        {"role": m.role, "content": [{"type": "text", "text": p.text} if isinstance(p, Text) else {"type": "image"} for p in m.parts]}
        for m in conversation
    ]
    written = processor.apply_chat_template(said, add_generation_prompt=True)
    given = processor(text=written, images=[Pil.fromarray(one.array) for one in pictures] or None, return_tensors="pt")
    with torch.inference_mode():
        made = theirs.generate(**given, max_new_tokens=new, do_sample=False)[0, given["input_ids"].shape[1] :]
    return str(processor.tokenizer.decode(made, skip_special_tokens=True)).strip()


CONVERSATIONS: dict[str, list[Message]] = {
    "one picture": asking("a b c", shown()),
    "words alone": asking("d e"),
    "two pictures": asking("f", shown(1), shown(2)),
    "a dialogue": [*asking("a", shown()), Message("assistant", (Text("x y"),)), Message("user", (Text("b c d e f g"),))],
}


def pictures_of(conversation: list[Message]) -> list[Image]:
    return [part for message in conversation for part in message.parts if isinstance(part, Image)]


def test_answers_are_the_librarys_and_the_same_in_every_batch(chat: tuple[LocalModel, Any, Any]) -> None:
    model, theirs, processor = chat
    together = model.chat(list(CONVERSATIONS.values()), SHORT)
    for (name, conversation), answer in zip(CONVERSATIONS.items(), together, strict=True):
        assert answer.text == theirs_said(theirs, processor, conversation, pictures_of(conversation), 7), name
        (alone,) = model.chat([conversation], SHORT)
        assert (alone.text, alone.usage, alone.outcome) == (answer.text, answer.usage, answer.outcome)
        assert spoken(model, conversation).text == answer.text
    assert together[1].usage.input_tokens == 4, "USER: d e ASSISTANT:, of which the tokenizer knows two words"
    assert all(answer.finish_reason == "length" and answer.outcome == "truncated" for answer in together if len(answer.text.split()) == 7)


def spoken(model: LocalModel, conversation: list[Message], options: ChatOptions = SHORT) -> Answer:
    pieces, told = [], model.stream(conversation, options)
    while True:
        try:
            pieces.append(next(told))
        except StopIteration as end:
            answer: Answer = end.value
            assert "".join(pieces).strip() == answer.text
            return answer


def test_several_questions_on_one_picture_look_at_it_once(chat: tuple[LocalModel, Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _ = chat
    questions = [asking(words, shown(5)) for words in ("a", "b c", "d e f", "g")]
    apart = [model.chat([question], SHORT)[0].text for question in questions]
    looked: list[int] = []
    look = Chat.pictures
    monkeypatch.setattr(Chat, "pictures", lambda self, pixels: looked.append(len(pixels)) or look(self, pixels))
    model = LocalModel(model.checkpoint, "cpu")  # which has seen nothing yet
    assert [answer.text for answer in model.chat(questions, SHORT)] == apart and looked == [1]
    assert model.chat([asking("h", shown(5))], SHORT)[0].outcome and looked == [1], "nor does a later question look again"
    model.chat([asking("a", shown(6))], SHORT)
    assert looked == [1, 1]


def test_what_is_kept_of_a_picture_is_of_the_weights_that_looked_at_it(chat: tuple[LocalModel, Any, Any]) -> None:
    checkpoint = chat[0].checkpoint
    model, question = LocalModel(replace(checkpoint, module=copy.deepcopy(checkpoint.module)), "cpu"), asking("a b", shown(5))
    before = model.chat([question], SHORT)[0]
    with torch.no_grad():
        for weight in model.module.parameters():
            weight.mul_(1.5)
    (after,) = model.chat([question], SHORT)
    (fresh,) = LocalModel(model.checkpoint, "cpu").chat([question], SHORT)
    assert (after.text, after.logprobs) == (fresh.text, fresh.logprobs) and after.logprobs != before.logprobs


def test_a_stop_text_has_no_tokens_in_the_answer(chat: tuple[LocalModel, Any, Any]) -> None:
    model, question = chat[0], asking("a b", shown(5))
    drawn = ChatOptions(max_tokens=7, temperature=2.0, seed=3, logprobs=True)
    (whole,) = model.chat([question], drawn)
    assert whole.tokens is not None and whole.logprobs is not None
    stop = next(token.strip() for token in whole.tokens[2:] if token.strip() and token.strip() not in "".join(whole.tokens[:2]))
    (cut,) = model.chat([question], replace(drawn, stop=(stop,)))
    assert cut.tokens is not None and cut.logprobs is not None and cut.finish_reason == "stop"
    assert "".join(cut.tokens).strip() == cut.text and stop not in cut.text and len(cut.logprobs) == len(cut.tokens)
    assert cut.logprobs == whole.logprobs[: len(cut.logprobs)]


def test_a_length_penalty_without_beams_is_refused(chat: tuple[LocalModel, Any, Any]) -> None:
    (answer,) = chat[0].chat([asking("a")], ChatOptions(beams=None, length_penalty=2.0))
    assert "a length penalty compares beams" in str(answer.error)


def test_a_draw_is_repeated_by_its_seed(chat: tuple[LocalModel, Any, Any]) -> None:
    model = chat[0]
    options = ChatOptions(max_tokens=7, temperature=2.0, seed=3)
    one, other = (model.chat([CONVERSATIONS["one picture"]], options)[0].text for _ in range(2))
    texts = {model.chat([CONVERSATIONS["one picture"]], ChatOptions(max_tokens=7, temperature=2.0, seed=s))[0].text for s in range(5)}
    assert one == other and len(texts) > 1


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({"beams": 4, "samples": 3}, {"num_beams": 4, "num_return_sequences": 3}),
        ({"beams": 3, "length_penalty": -2.0}, {"num_beams": 3, "length_penalty": -2.0}),
        ({"repetition_penalty": 3.0}, {"repetition_penalty": 3.0}),
        ({"temperature": 2.0, "top_k": 1, "seed": 0}, {}),
        ({"temperature": 2.0, "min_p": 1.0, "seed": 0}, {}),
        ({"beams": None}, {}),
    ],
)
def test_settings_are_what_the_library_has_under_their_names(
    chat: tuple[LocalModel, Any, Any], options: dict[str, Any], theirs: dict[str, Any]
) -> None:
    model, library, processor = chat
    (answer,) = model.chat([asking("a b c", shown())], ChatOptions(max_tokens=7, **options))
    written = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a b c"}]}], add_generation_prompt=True
    )
    given = processor(text=written, images=[Pil.fromarray(shown().array)], return_tensors="pt")
    with torch.inference_mode():
        made = library.generate(**given, max_new_tokens=7, do_sample=False, **theirs)[:, given["input_ids"].shape[1] :]
    assert [one.text for one in (answer, *answer.others)] == [one.strip() for one in processor.batch_decode(made, skip_special_tokens=True)]
    told = spoken(model, asking("a b c", shown()), ChatOptions(max_tokens=7, **options))
    assert [one.text for one in (told, *told.others)] == [one.text for one in (answer, *answer.others)]


def test_several_draws_and_what_each_token_adds(chat: tuple[LocalModel, Any, Any]) -> None:
    model = chat[0]
    options = ChatOptions(max_tokens=7, temperature=2.0, seed=3, samples=3, logprobs=True)
    first, alone = model.chat([asking("a"), asking("b", shown())], options)
    assert len({one.text for one in (first, *first.others)}) == 3, "each draws for itself"
    assert [one.text for one in (alone, *alone.others)] == [
        one.text for answer in model.chat([asking("b", shown())], options) for one in (answer, *answer.others)
    ]
    for one in (first, *first.others):
        assert one.tokens is not None and one.logprobs is not None and one.usage.output_tokens == len(one.tokens)
        assert "".join(one.tokens).strip() == one.text and len(one.logprobs) in (len(one.tokens), len(one.tokens) + 1)
    assert model.chat([asking("a")], SHORT)[0].tokens is None, "what costs time is given where it is asked for"


def test_characters_of_several_tokens_are_added_when_they_are_whole(
    chat: tuple[LocalModel, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = chat[0]._voice
    assert voice is not None
    whole = "a你\ufffd好".encode()  # a replacement character that was said is one that was said
    monkeypatch.setattr(type(voice._words), "decode", lambda self, ids: bytes(ids).decode("utf-8", "replace"))
    told = list(voice._tokens(list(whole)))
    assert "".join(told) == whole.decode() and len(told) == len(whole) and told[:4] == ["a", "", "", "你"]
    assert "".join(voice._tokens(list(whole[:-1]))) == whole[:-1].decode("utf-8", "replace"), "an answer may be cut within a character"


def test_half_a_character_is_an_error_of_its_conversation(chat: tuple[LocalModel, Any, Any]) -> None:
    odd, right = chat[0].chat([asking("a \udce4"), asking("a")], SHORT)
    assert odd.outcome == "error" and "holds half a character" in str(odd.error) and right.text
    assert spoken(chat[0], asking("\ud83d")).outcome == "error"


def test_what_cannot_be_asked_fails_alone(chat: tuple[LocalModel, Any, Any], tmp_path: Path) -> None:
    model = chat[0]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    wrong = {
        "broken.png": asking("a", Image.open(tmp_path / "broken.png")),
        "the model has room for 60": asking("a " * 70),
        "this model takes pictures": asking("a", Audio(array=np.zeros(10, np.float32), rate=16000)),
        "ends with the user's message": [*asking("a"), Message("assistant", (Text("b"),))],
    }
    *failed, right = model.chat([*wrong.values(), asking("a b c", shown())], SHORT)
    for told, answer in zip(wrong, failed, strict=True):
        assert answer.outcome == "error" and told in str(answer.error), answer
    assert right.text == model.chat([CONVERSATIONS["one picture"]], SHORT)[0].text
    assert spoken(model, wrong["broken.png"]).outcome == "error"


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 1.5}, {"stop": ("",)}])
def test_settings_that_make_no_sense_are_an_error_of_the_answer(chat: tuple[LocalModel, Any, Any], wrong: dict[str, Any]) -> None:
    (answer,) = chat[0].chat([asking("a")], ChatOptions(max_tokens=2, **wrong))
    assert answer.outcome == "error" and "options: 1 wrong field" in str(answer.error)
    assert spoken(chat[0], asking("a"), ChatOptions(max_tokens=2, **wrong)).outcome == "error"


def test_an_answer_has_the_room_there_is(chat: tuple[LocalModel, Any, Any]) -> None:
    (answer,) = chat[0].chat([asking("a " * 50)], ChatOptions(max_tokens=500))
    assert answer.usage.output_tokens is not None and answer.usage.output_tokens < 10
    assert answer.outcome == "truncated" or answer.finish_reason == "stop"


def test_log_probabilities_of_answers(chat: tuple[LocalModel, Any, Any], tmp_path: Path) -> None:
    model, theirs, processor = chat
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = asking("a", Image.open(tmp_path / "broken.png"))
    found, none = model.logprob([CONVERSATIONS["one picture"], broken], [["x", "y z"], ["x"]])
    assert math.isnan(none[0])
    written = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a b c"}]}], add_generation_prompt=True
    )
    for text, value in zip(["x", "y z"], found, strict=True):
        given = processor(text=f"{written} {text}", images=Pil.fromarray(shown().array), return_tensors="pt")
        ids = given["input_ids"][0]
        count = len(text.split())
        with torch.inference_mode():
            chances = theirs(**given).logits[0].log_softmax(dim=-1)
        expected = sum(float(chances[len(ids) - count + k - 1, ids[len(ids) - count + k]]) for k in range(count))
        assert value == pytest.approx(expected, abs=1e-4)
    with pytest.raises(TongganError, match="the continuation ' ' has no tokens"):
        model.logprob([asking("a")], [["x", " "]])


def test_a_question_about_a_picture_by_an_encoder_decoder(tmp_path: Path) -> None:
    model = load(tiny.blip(tmp_path), device="cpu")
    shot = Image(array=np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8))
    theirs = transformers.BlipForQuestionAnswering.from_pretrained(tmp_path).eval()
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    asked = ["what is this ?", "red bird ?"]
    long, *answers = model.chat([asking("what " * 800, shot), *(asking(words, shot) for words in asked)], ChatOptions(max_tokens=5))
    for words, answer in zip(asked, answers, strict=True):
        inputs = processor(images=Pil.fromarray(shot.array), text=words, return_tensors="pt")
        with torch.inference_mode():
            made = theirs.generate(**inputs, max_new_tokens=5, do_sample=False)[0]
        assert answer.text == processor.tokenizer.decode(made, skip_special_tokens=True).strip()
    assert long.outcome == "error" and "the text has 800 tokens, the model takes 512" in str(long.error)
    assert model.instructed and not model.remembers
    (none, two) = model.chat([asking("what ?"), [*asking("a", shot), *asking("b")]])
    assert "takes one image with a message, not 0" in str(none.error) and "it takes one message, not 2" in str(two.error)


def test_text_to_text(tmp_path: Path) -> None:
    theirs = t5(tmp_path)
    model = load(tmp_path, device="cpu")
    words = ["abc de", "xyz", "a b c d e f"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text, answer in zip(words, model.chat([asking(one) for one in words], SHORT), strict=True):
        given = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            made = theirs.generate(**given, max_new_tokens=7, do_sample=False, use_cache=False)[0]
        assert answer.text == tokenizer.decode(made, skip_special_tokens=True).strip()


def test_speech_to_text_hears_its_language_or_is_told(tmp_path: Path) -> None:
    theirs = whisper_whole(tmp_path)
    model = load(tmp_path, device="cpu")
    assert model.modalities >= {"audio"}
    samples = np.random.default_rng(0).normal(size=9000).astype(np.float32) / 10
    processor = transformers.WhisperFeatureExtractor.from_pretrained(tmp_path)
    features = processor(samples, sampling_rate=16000, return_tensors="pt").input_features
    for lang in ("zh", "en", None):
        sound = Audio(array=samples, rate=16000, role=lang)
        (answer,) = model.chat([[Message("user", (sound,))]], SHORT)
        with torch.inference_mode():
            made = theirs.generate(features, language=lang, task="transcribe", max_new_tokens=7, do_sample=False)[0]
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert answer.text == tokenizer.decode(made, skip_special_tokens=True).strip(), lang
    (words,) = model.chat([asking("write", Audio(array=samples, rate=16000))])
    assert "it takes a sound and no words" in str(words.error)
    (other,) = model.chat([[Message("user", (Audio(array=samples, rate=16000, role="fr"),))]])
    assert "does not write 'fr'; it writes: en, zh" in str(other.error)


def test_a_model_that_does_not_talk_says_so(tmp_path: Path) -> None:
    llava(tmp_path)  # without a template
    model = load(tmp_path, device="cpu")
    assert "chat" not in model.can
    for call in (lambda: model.chat([asking("a")]), lambda: model.stream(asking("a")), lambda: model.logprob([asking("a")], [["b"]])):
        with pytest.raises(CannotError, match="cannot"):
            call()
