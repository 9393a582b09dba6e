"""Talking on the command line: one question, many pictures, a dialogue with history, attachments and errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from typer.testing import CliRunner

from fakes import Parrot
from tonggan.cli import app
from tonggan.data.rows import Dataset
from tonggan.types import Audio, ChatOptions, Image, Message, Model, Text

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


def test_a_model_for_one_message_is_sent_one(parrot: Parrot) -> None:
    parrot.remembers = False
    assert call("chat", "m", said="one\ntwo\n")[1].splitlines() == ["one (0)", "two (0)"] and len(parrot.heard[1]) == 1


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
    call("chat", "m", said="/image r.png\n这是什么？\n/save said.jsonl\n")
    (row,) = Dataset.read(tmp_path / "said.jsonl")
    assert [message.role for message in row.messages] == ["user", "assistant"]
    picture, question = row.messages[0].parts
    assert isinstance(picture, Image) and isinstance(question, Text) and question.text == "这是什么？"
    assert row.messages[1].parts[0] == Text("这是什么？ (1)")


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
    code, out, _ = call("transcribe", "m", "s.wav", "s.wav", "--lang", "zh", "--prompt", "请转写这段录音。")
    assert code == 0 and out.splitlines() == ["s.wav: 请转写这段录音。 (1)"] * 2
    sound = parrot.heard[-1][0].parts[0]
    assert isinstance(sound, Audio) and sound.role == "zh"
    assert json.loads(call("transcribe", "m", "s.wav", "--prompt", "x", "--json")[1])[0]["text"] == "x (1)"
    assert call("transcribe", "m", "none.wav")[0] == 1
