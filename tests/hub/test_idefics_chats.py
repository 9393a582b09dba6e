"""Conversations of Idefics: ids of the library's processor, answers of its `generate`, a template that is saved and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from typer.testing import CliRunner

from hub.references import close, picture
from hub.test_idefics import IMAGE, WORDS, idefics, processor_of
from tonggan import hub
from tonggan.backends import load
from tonggan.cli import app
from tonggan.data.chat import ChatProcessing, Placeholder
from tonggan.hub.convert.idefics import OVER
from tonggan.models import Flamingo
from tonggan.types import ChatOptions, Image, Message, Text, TongganError

LIMIT = 8


def shown(number: int) -> Any:
    return picture(61 - 9 * number, 30 + 7 * number, seed=number)


DIALOGUES: dict[str, list[tuple[str, list[Any]]]] = {
    "no picture": [("user", ["a b"])],
    "one": [("user", [shown(0), "c d"])],
    "one behind the words, and an answer": [("user", ["a b", shown(0)]), ("assistant", ["c"]), ("user", ["d e"])],
    "three, two of them side by side": [("user", [shown(0), shown(1), " a "]), ("assistant", ["b c"]), ("user", ["d", shown(2), "e"])],
    "an instruction": [("system", ["x y"]), ("user", [shown(0), "z"])],
}


def ours(dialogue: list[tuple[str, list[Any]]]) -> list[Message]:
    def part(one: Any) -> Text | Image:
        return Text(one) if isinstance(one, str) else Image(array=np.asarray(one))

    return [Message(role, tuple(map(part, parts))) for role, parts in dialogue]  # type: ignore[arg-type]


def as_the_model_cards_have_it(dialogue: list[tuple[str, list[Any]]], over: str = OVER) -> list[Any]:
    """The list of strings and pictures that users give the library's processor."""
    found: list[Any] = []
    for number, (role, parts) in enumerate([*dialogue, ("assistant", [])]):
        name = ("\n" if number else "") + role.capitalize() + ":"
        first, rest = (parts[0], parts[1:]) if parts and isinstance(parts[0], str) else (None, parts)
        found += [name if first is None else f"{name} {first.strip(' ')}", *rest, *([over] if parts and over else [])]
    return found


def letter_by_letter(directory: Path) -> int:
    """A tokenizer whose ids show every blank and new line; the id of its placeholder."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    every = ["<unk>", "<s>", "</s>", *pre_tokenizers.ByteLevel.alphabet(), *WORDS[-3:]]
    backend = Tokenizer(models.BPE({letter: i for i, letter in enumerate(every)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = {"pad_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    made.add_special_tokens({"additional_special_tokens": WORDS[-3:]})
    made.save_pretrained(directory)
    return every.index("<image>")


def plain(directory: Path) -> None:
    """As of idefics-9b, which has no token for the end of a turn."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = directory / name
        file.write_text(file.read_text().replace(OVER, "<other>"))


@pytest.mark.parametrize("instructed", [True, False], ids=["instructed", "plain"])
@pytest.mark.parametrize("which", DIALOGUES)
def test_ids_and_pictures_are_those_of_the_librarys_processor(tmp_path: Path, which: str, instructed: bool) -> None:
    idefics(tmp_path, vocab_size=300, max_position_embeddings=150)
    placeholder = letter_by_letter(tmp_path)
    if not instructed:
        plain(tmp_path)
    checkpoint = hub.read(tmp_path)
    chat, module = checkpoint.processor.chat, checkpoint.module
    assert chat is not None and isinstance(module, Flamingo)
    prompt = as_the_model_cards_have_it(DIALOGUES[which], OVER if instructed else "")
    given = processor_of(tmp_path)(text=[prompt], add_end_of_utterance_token=False, return_tensors="pt")
    batch = chat.collate([chat.prompt(ours(DIALOGUES[which]))])
    assert batch.tokens is not None
    assert batch.tokens.ids.tolist() == given["input_ids"].tolist()
    count = int((batch.tokens.ids == placeholder).sum())
    assert count == (0 if batch.pictures is None else len(batch.pictures.values))
    if batch.pictures is not None:
        close(module.image.normalize(batch.pictures.values), given["pixel_values"][0])  # type: ignore[operator]
    assert chat.ends == ((2, placeholder + 1) if instructed else (2,))
    assert batch.tokens.ids.max() < 300 and len(batch.tokens.ids[0]) > 20


def answers(directory: Path, model: Any) -> list[list[int]]:
    """What the library says, with the exit condition of the model card."""
    found = []
    for dialogue in DIALOGUES.values():
        prompt = as_the_model_cards_have_it(dialogue)
        given = processor_of(directory)(text=[prompt], add_end_of_utterance_token=False, return_tensors="pt")
        given["pixel_values"] = given["pixel_values"].double()
        said = model.generate(**given, eos_token_id=[2, len(WORDS) - 1], pad_token_id=0, max_new_tokens=LIMIT, do_sample=False)
        found.append(said[0, given["input_ids"].shape[1] :].tolist())
    return found


def test_answers_are_those_of_the_librarys_generation(tmp_path: Path) -> None:
    """Alone, together and as they come; in double precision, where a tie would be luck."""
    theirs = idefics(tmp_path, max_position_embeddings=80).double()
    expected = answers(tmp_path, theirs)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [tokenizer.decode(said, skip_special_tokens=True).strip() for said in expected]
    assert len(set(texts)) > 1 and all(texts), "equal or empty answers would tell nothing"
    model = load(tmp_path, device="cpu")
    model.module.double()  # type: ignore[attr-defined]
    options = ChatOptions(max_tokens=LIMIT)
    together = model.chat([ours(dialogue) for dialogue in DIALOGUES.values()], options)
    alone = [model.chat([ours(dialogue)], options)[0] for dialogue in DIALOGUES.values()]
    streamed = ["".join(model.stream(ours(dialogue), options)) for dialogue in DIALOGUES.values()]
    assert [one.text for one in together] == texts and [one.text for one in alone] == texts
    assert [one.strip() for one in streamed] == texts


def test_a_saved_directory_has_the_template(tmp_path: Path) -> None:
    idefics(tmp_path / "theirs")
    checkpoint = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    assert OVER in (tmp_path / "ours" / "chat_template.jinja").read_text()
    back = hub.read(tmp_path / "ours")
    assert back.identity.verified and back.processor.settings() == checkpoint.processor.settings()
    (tmp_path / "ours" / "chat_template.jinja").write_text("{{ messages[0].content[0].text }}")
    with pytest.raises(TongganError, match=r"chat\.template: "):
        hub.read(tmp_path / "ours")


def test_a_template_of_the_directorys_own_goes_first(tmp_path: Path) -> None:
    idefics(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    own = "{% for m in messages %}{% for p in m.content %}{{ p.text if p.type == 'text' else '<image>' }} {% endfor %}{% endfor %}"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": own}))
    chat = hub.read(tmp_path).processor.chat
    assert chat is not None
    assert list(chat.prompt(ours([("user", [shown(0), "c d"])])).ids) == [IMAGE, 5, 6]


OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "ends": ({"ends": ("</s>",)}, r"end turns with \(2,\), where the files say \(2, 31\)"),
    "places": ({"image": Placeholder(text="<image>", id=IMAGE, count=2)}, "do not have the word <image> once where a picture is"),
}


@pytest.mark.parametrize("what", OTHER)
def test_conversations_that_the_format_cannot_say_are_saved_as_ours(tmp_path: Path, what: str) -> None:
    idefics(tmp_path / "theirs")
    checkpoint = hub.read(tmp_path / "theirs")
    assert checkpoint.processor.chat is not None
    changes, message = OTHER[what]
    other = checkpoint.processor.with_chat(ChatProcessing.model_validate(checkpoint.processor.chat.config.model_dump() | changes))
    with pytest.raises(TongganError, match=message):
        hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, other, format="transformers")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, other)
    assert hub.read(tmp_path / "ours").processor.settings() == other.settings()


def test_the_command_asks_about_a_picture(tmp_path: Path) -> None:
    idefics(tmp_path / "model", max_position_embeddings=80)
    shown(0).save(tmp_path / "a.png")
    done = CliRunner().invoke(app, ["ask", str(tmp_path / "model"), str(tmp_path / "a.png"), "a b", "--max-tokens", "3"])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip()
    with torch.no_grad():
        said = load(tmp_path / "model", device="cpu").chat([ours([("user", [shown(0), "a b"])])], ChatOptions(max_tokens=3))[0]
    assert said.text in done.stdout
