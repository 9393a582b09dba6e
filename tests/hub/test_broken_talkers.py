"""Directories of models that talk, broken the way real ones are: each is refused by name, or works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hub import references_saying
from hub.references_chat import llava_that_chats
from tonggan import hub
from tonggan.data.templates import Template
from tonggan.types import Message, Text, TongganError

MAKE: dict[str, Callable[[Path], Any]] = {
    "llava": llava_that_chats,
    "t5": references_saying.t5,
    "whisper": references_saying.whisper_whole,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    for name, make in MAKE.items():
        (place / name).mkdir()
        make(place / name)
    return place


def template(text: str) -> Callable[[Path, Path], None]:
    def broken(directory: Path, whole: Path) -> None:
        (directory / "chat_template.jinja").write_text(text)

    return broken


def anothers(name: str) -> Callable[[Path, Path], None]:
    def broken(directory: Path, whole: Path) -> None:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(whole / name / file, directory / file)

    return broken


def other_languages(directory: Path, whole: Path) -> None:
    """An English tokenizer of as many words has other ids there."""
    file = directory / "tokenizer.json"
    file.write_text(file.read_text().replace("<|en|>", "<|xx|>"))


def ends_beyond(directory: Path, whole: Path) -> None:
    """Of a tokenizer with fewer words; the model has them."""
    file = directory / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [33, 36]}))


BROKEN: dict[str, tuple[str, Callable[[Path, Path], None], str]] = {
    "a template that is no Jinja": ("llava", template("{% for m in messages %}{{ m "), r"model: the chat template, line 1: unexpected"),
    "an empty template": ("llava", template("\n"), r"chat_template\.jinja: the chat template is empty; restore it, or remove the file"),
    "another's tokenizer in Whisper": ("whisper", anothers("t5"), r"by the model, none of which is among the tokenizer's 33 ids"),
    "other languages in Whisper": ("whisper", other_languages, r"language en: None by the tokenizer, \d+ by the model"),
    "ends that the tokenizer has not": ("t5", ends_beyond, r"end: 33, 36 by the model, none of which is among the tokenizer's 33 ids"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_refused_by_name(whole: Path, tmp_path: Path, what: str) -> None:
    name, change, message = BROKEN[what]
    directory = shutil.copytree(whole / name, tmp_path / "model")
    change(directory, whole)
    with pytest.raises(TongganError, match=message):
        hub.read(directory)


def test_a_template_that_wants_other_conversations_than_a_word_is_read(whole: Path, tmp_path: Path) -> None:
    """The start token is put as its text tells; what it refuses it refuses when it is asked."""
    directory = shutil.copytree(whole / "llava", tmp_path / "model")
    wants = "{% if messages[0].role != 'system' %}{{ raise_exception('tell me who I am') }}{% endif %}"
    (directory / "chat_template.jinja").write_text(wants + "{{ messages[0].content[0].text }} {{ messages[1].content[0].text }}")
    chat = hub.read(directory).processor.chat
    assert chat is not None and isinstance(chat.template, Template)
    said = [Message("system", (Text("a"),)), Message("user", (Text("b"),))]
    assert chat.prompt(said).ids[0] == 1
    with pytest.raises(TongganError, match="tell me who I am"):
        chat.prompt(said[1:])
