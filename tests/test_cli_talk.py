"""Talking on the command line: one question, many pictures, a dialogue with history, attachments and errors."""

from __future__ import annotations

import json
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from typer.testing import CliRunner

from fakes import Parrot
from tonggan.cli import app
from tonggan.data import open_data
from tonggan.types import Answer, Audio, ChatOptions, Identity, Image, Message, Model, Text

runner = CliRunner()


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Parrot:
    model = Parrot()
    monkeypatch.setattr("tonggan.backends.load", lambda name: model)
    monkeypatch.chdir(tmp_path)
    for name, colour in (("r.png", 250), ("g.jpg", 5)):
        Pil.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(tmp_path / name)
    return model


def call(*words: object, said: str = "") -> tuple[int, str, str]:
    done = runner.invoke(app, [str(w) for w in words], input=said)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_one_question_about_one_picture(parrot: Parrot) -> None:
    assert call("ask", "m", "r.png", "图中有几只鸟？", "--temperature", 0.5, "--seed", 3)[:2] == (0, "图中有几只鸟？ (1)\n")
    assert parrot.options[0] == ChatOptions(temperature=0.5, seed=3)
    told = json.loads(call("ask", "m", "r.png", "how many?", "--json")[1])
    assert (told["text"], told["outcome"], told["file"]) == ("how many? (1)", "answered", "r.png")
    code, out, err = call("ask", "m", "r.png", "boom")
    assert (code, out) == (1, "") and "error: no answer came" in err
    assert call("ask", "m", "r.png", "  ")[0] == 2
    assert call("ask", "m", "none.png", "what?")[0] == 1


def test_a_sentence_for_each_file(parrot: Parrot) -> None:
    code, out, _ = call("caption", "m", "r.png", "g.jpg", "--lang", "zh")
    assert code == 0 and out.splitlines() == ["r.png: 请用一句话描述这张图片。 (1)", "g.jpg: 请用一句话描述这张图片。 (1)"]
    assert [message.parts[0].kind for heard in parrot.heard for message in heard] == ["image", "image"]
    assert call("caption", "m", "r.png")[1] == "Describe this picture in one sentence. (1)\n"
    assert [one["file"] for one in json.loads(call("caption", "m", "r.png", "g.jpg", "--json")[1])] == ["r.png", "g.jpg"]
    code, _, err = call("caption", "m", "r.png", "g.jpg", "--prompt", "boom")
    assert code == 1 and "2 files of 2 without an answer" in err
    parrot.instructed = False
    parrot.heard.clear()
    call("caption", "m", "r.png", "--prompt", "a picture of")
    assert [part.kind for part in parrot.heard[0][0].parts] == ["image", "text"]
    code, _, err = call("caption", "m", "r.png", "--lang", "fr")
    assert code == 2 and "--lang fr: expected en or zh" in err


def test_a_picture_that_moves_is_a_clip(parrot: Parrot, tmp_path: Path) -> None:
    frames = [Pil.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "still.gif")
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "f.wmv").write_bytes(b"film")
    parrot.modalities = frozenset({"image", "video", "text"})
    for name, kind in (("still.gif", "image"), ("moving.gif", "video"), ("f.wmv", "video")):
        call("ask", "m", name, "what moves?")
        assert parrot.heard[-1][0].parts[0].kind == kind, name


def test_what_a_model_does_not_take_is_said_before_it_is_asked(parrot: Parrot, tmp_path: Path) -> None:
    (tmp_path / "s.wav").write_bytes(b"RIFF")
    code, _, err = call("ask", "m", "s.wav", "what is said?")
    assert code == 1 and "parrot takes no audio; it takes: image, text" in err and not parrot.heard
    parrot.can = frozenset({"embed"})
    code, _, err = call("chat", "m")
    assert code == 1 and "parrot cannot chat; it can: embed" in err


def test_a_dialogue_remembers_and_forgets(parrot: Parrot) -> None:
    lines = ["hello", "/image r.png", "/image g.jpg", "what is this?", "", "and that?", "/new", "again", "/quit", "never"]
    code, out, err = call("chat", "m", "--system", "Be short.", said="\n".join(lines))
    assert code == 0 and out.splitlines() == ["hello (0)", "what is this? (2)", "and that? (2)", "again (0)"]
    assert "attached: image, image" in err and "/save FILE.jsonl" in err
    assert [message.role for message in parrot.heard[2]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert parrot.heard[3][0].role == "system" and len(parrot.heard[3]) == 2


def test_a_model_for_one_message_is_sent_one_and_no_system(parrot: Parrot) -> None:
    parrot.remembers = False
    assert call("chat", "m", said="one\ntwo\n")[1].splitlines() == ["one (0)", "two (0)"] and len(parrot.heard[1]) == 1
    code, _, err = call("chat", "m", "--system", "Be short.", said="one\n")
    assert code == 1 and "it takes one message, and no --system before it" in err


def test_who_is_shown_a_picture_alone_needs_no_words(parrot: Parrot) -> None:
    parrot.instructed = False
    seen: list[int] = []
    parrot._one = lambda said, options: seen.append(len(said[-1].parts)) or Answer(text="a bird")  # type: ignore[method-assign,func-returns-value]
    assert call("chat", "m", said="/image r.png\n\n/image r.png\na picture of\n")[1].splitlines() == ["a bird"] * 2 and seen == [1, 2]


def test_what_is_attached_can_be_left_out_again(parrot: Parrot) -> None:
    code, out, err = call("chat", "m", said="hello\n/image r.png\nboom\n\n/drop\nand now?\n")
    assert code == 0 and out.splitlines() == ["hello (0)", "and now? (0)"], "what was said before is still there"
    assert "/drop leaves out what is attached, /new forgets what was said" in err and "or /drop to leave it out" in err


def test_every_setting_reaches_the_model(parrot: Parrot) -> None:
    drawn = ("--temperature", 0.5, "--top-p", 0.9, "--top-k", 7, "--min-p", 0.1, "--seed", 3, "--repetition-penalty", 1.2)
    wanted = ChatOptions(temperature=0.5, top_p=0.9, top_k=7, min_p=0.1, seed=3, repetition_penalty=1.2)
    call("ask", "m", "r.png", "a", *drawn, "--samples", 2, "--stop", "x", "--stop", "y", "--logprobs", "--json")
    assert parrot.options[-1] == replace(wanted, samples=2, stop=("x", "y"), logprobs=True)
    call("caption", "m", "r.png", *drawn)
    assert parrot.options[-1] == replace(wanted, beams=None), "as many beams as the model's directory says"
    call("chat", "m", *drawn, "--stop", "x", said="a\n")
    assert parrot.options[-1] == replace(wanted, stop=("x",))
    call("caption", "m", "r.png", "--beams", 4, "--length-penalty", 2)
    assert parrot.options[-1] == ChatOptions(beams=4, length_penalty=2.0)


def test_several_answers_and_their_tokens(parrot: Parrot) -> None:
    settings = ("--temperature", 1, "--samples", 2)
    assert call("ask", "m", "r.png", "a", *settings)[1].splitlines() == ["1. a (1)", "2. a (1) 1"]
    told = json.loads(call("ask", "m", "r.png", "a", *settings, "--logprobs", "--json")[1])
    assert told["tokens"] == list("a (1)") and told["others"][0]["text"] == "a (1) 1" and told["others"][0]["logprobs"] == [-0.5] * 7


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--top-k", 3], "--top-k is about what is drawn, and nothing is at temperature 0"),
        (["--samples", 2], "2 answers at temperature 0 are all the same"),
        (["--beams", 2, "--temperature", 1], "leave one of them out"),
        (["--beams", 2, "--samples", 3], "3 answers of 2 beams"),
        (["--beams", 2, "--stop", "x"], "leave one of them out"),
        (["--length-penalty", 2], "a length penalty compares beams"),
        (["--logprobs"], "--logprobs go with --json"),
    ],
)
def test_settings_that_would_make_no_difference_are_refused(parrot: Parrot, words: list[object], told: str) -> None:
    code, _, err = call("ask", "m", "r.png", "a", *words)
    assert code == 2 and told in err and not parrot.heard


def test_an_empty_answer_has_its_line(parrot: Parrot) -> None:
    parrot._one = lambda said, options: Answer()  # type: ignore[method-assign]
    code, out, err = call("caption", "m", "r.png", "g.jpg")
    assert (code, out) == (0, "r.png: \ng.jpg: \n") and err.count("the answer is empty") == 2
    assert call("caption", "m", "r.png", "--prompt", " ")[0] == 2


def test_a_sound_of_another_rate_is_said(parrot: Parrot, tmp_path: Path) -> None:
    parrot.modalities, parrot.identity = frozenset({"audio", "text"}), Identity({"audio.rate": 16000}, "0" * 64)
    for name, rate in (("s.wav", 8000), ("t.wav", 16000)):
        with wave.open(str(tmp_path / name), "wb") as sound:
            sound.setparams((1, 2, rate, 0, "NONE", ""))
            sound.writeframes(bytes(400))
    told = "note: s.wav: 8000 Hz, brought to the model's 16000 Hz"
    assert call("transcribe", "m", "s.wav", "t.wav", "--prompt", "x")[2].splitlines() == [told]
    assert told in call("ask", "m", "s.wav", "x")[2] and told in call("chat", "m", said="/audio s.wav\n")[2]


def test_a_failed_question_is_forgotten_and_can_be_put_again(parrot: Parrot) -> None:
    lines = ["/image r.png", "boom", "what is this?", "long"]
    code, out, err = call("chat", "m", "--max-tokens", 5, said="\n".join(lines))
    assert code == 0 and out.splitlines() == ["what is this? (1)", "long (1)"]
    assert "error: no answer came" in err and "cut at 8 tokens: --max-tokens allows more" in err
    assert len(parrot.heard[1]) == 1, "the question that failed is not in the history; what was attached still is"
    assert isinstance(parrot.heard[1][0].parts[0], Image)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/image", "/image needs a path"),
        ("/image none.png", "none.png: no such file"),
        ("/audio s.wav", "parrot takes no audio"),
        ("/picture r.png", "/picture is not known"),
        ("/save said.txt", "ends in .jsonl, not said.txt"),
        ("/save said.jsonl", "nothing was said yet"),
    ],
)
def test_what_cannot_be_done_does_not_end_the_dialogue(parrot: Parrot, line: str, told: str) -> None:
    code, out, err = call("chat", "m", said=f"{line}\nhello\n")
    assert code == 0 and out == "hello (0)\n" and told in err


def test_what_was_said_is_kept_with_its_pictures(parrot: Parrot, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text("mine")
    lines = [
        "/image r.png",
        "这是什么？",
        "/save said.jsonl",
        "还有呢？",
        "/save said.jsonl",
        "/save other.jsonl",
        "/save none/x.jsonl",
        "so",
    ]
    code, out, err = call("chat", "m", said="\r\n".join(lines))
    assert code == 0 and out.splitlines()[-1] == "so (1)", "a file that cannot be written does not end the dialogue"
    assert "other.jsonl: there is something here already" in err and (tmp_path / "other.jsonl").read_text() == "mine"
    assert "none/x.jsonl: No such file or directory" in err
    (row,) = open_data(str(tmp_path / "said.jsonl"))
    assert [message.role for message in row.messages] == ["user", "assistant", "user", "assistant"]
    picture, question = row.messages[0].parts
    assert isinstance(picture, Image) and isinstance(question, Text) and question.text == "这是什么？"
    assert row.messages[1].parts[0] == Text("这是什么？ (1)")
    assert "there is something here already" in call("chat", "m", said="a\n/save said.jsonl\n")[2], "another dialogue's"


def test_json_lines_for_programs(parrot: Parrot) -> None:
    out = call("chat", "m", "--json", said="one\nboom\n")[1]
    assert [json.loads(line)["outcome"] for line in out.splitlines()] == ["answered", "error"]


def test_a_model_that_cannot_speak_in_pieces_says_all_at_once() -> None:
    pieces = Model.stream(Parrot(), [Message("user", (Text("hi"),))])
    assert next(pieces) == "hi (0)"
    with pytest.raises(StopIteration) as end:
        next(pieces)
    assert end.value.value.text == "hi (0)"


def test_sounds_are_written_down_in_a_language_that_is_told(parrot: Parrot, tmp_path: Path) -> None:
    (tmp_path / "s.wav").write_bytes(b"RIFF")
    assert "parrot takes no audio" in call("transcribe", "m", "s.wav")[2]
    parrot.modalities = frozenset({"audio", "text"})
    code, _, err = call("transcribe", "m", "s.wav", "--lang", "zh")
    assert code == 1 and "parrot cannot be told which language is spoken" in err and not parrot.heard
    parrot.languages = frozenset({"en", "zh"})
    code, out, _ = call("transcribe", "m", "s.wav", "s.wav", "--lang", "zh", "--prompt", "请转写这段录音。")
    assert code == 0 and out.splitlines() == ["s.wav: 请转写这段录音。 (1)"] * 2
    sound = parrot.heard[-1][0].parts[0]
    assert isinstance(sound, Audio) and sound.role == "zh"
    assert json.loads(call("transcribe", "m", "s.wav", "--prompt", "x", "--json")[1])[0]["text"] == "x (1)"
    assert call("transcribe", "m", "none.wav")[0] == 1
