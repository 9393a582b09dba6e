"""Whisper with its decoder: outputs and gradients of the reference, its greedy answers, directories in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import WhisperForConditionalGeneration

from hub.references_saying import (
    greedy,
    same_in_chunks_and_alone,
    same_outputs_and_gradients,
    same_when_saved_back,
    sounds_of,
    whisper_whole,
)
from tonggan import hub
from tonggan.models import EncoderDecoder
from tonggan.types import TongganError

SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {},
    "one head, the other GELU": {"heads": 1, "decoder_attention_heads": 1, "activation_function": "gelu_new"},
}


def heard(rows: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    said = torch.randint(6, 250, (rows, 7), generator=generator)
    return {"input_features": torch.randn(rows, 7, 100, generator=generator), "decoder_input_ids": said}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_whisper_logits_and_gradients_are_those_of_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs, module = whisper_whole(tmp_path, **settings), hub.read(tmp_path).module
    assert isinstance(module, EncoderDecoder)
    same_outputs_and_gradients(theirs, module, heard())
    with torch.no_grad():
        alone = hub.outputs(module, {"input_features": heard()["input_features"]})
        assert set(alone) == {"encoder_last_hidden_state"}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_whisper_saved_back_is_the_same(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = whisper_whole(tmp_path / "theirs", **settings)
    same_when_saved_back(theirs, tmp_path / "theirs", tmp_path / "ours", heard())


def test_what_begins_and_what_is_never_said_is_read_and_written(tmp_path: Path) -> None:
    theirs = whisper_whole(tmp_path / "theirs")
    end = theirs.config.eos_token_id
    file = tmp_path / "theirs" / "generation_config.json"
    published = json.loads(file.read_text())
    for forced, start in (([[1, None], [2, end + 5]], ()), ([[1, end + 3], [2, end + 5], [3, end + 6]], (end + 3, end + 5, end + 6))):
        file.write_text(json.dumps(published | {"forced_decoder_ids": forced}))
        checkpoint = hub.read(tmp_path / "theirs")
        config = checkpoint.config
        assert (config.start, config.ends) == ((end + 1, *start), (end,))
        assert (config.suppressed, config.suppressed_first) == ((3, 4), (5, end))
        assert config.listening.languages == {"en": end + 2, "zh": end + 3} and config.listening.no_times == end + 6
        place = tmp_path / f"ours{len(start)}"
        hub.save(place, checkpoint.module, config, checkpoint.processor, format="transformers")
        assert hub.read(place).config == config
        written = json.loads((place / "generation_config.json").read_text())
        same = ("lang_to_id", "task_to_id", "no_timestamps_token_id", "suppress_tokens", "begin_suppress_tokens", "is_multilingual")
        assert {name: written[name] for name in same} == {name: published[name] for name in same}
    file.write_text(json.dumps(published | {"forced_decoder_ids": [[1, None], [2, end + 4]]}))
    with pytest.raises(TongganError, match="behind a language that is not named"):
        hub.read(tmp_path / "theirs")


ENGLISH: dict[str, Any] = {"is_multilingual": False, "lang_to_id": None, "task_to_id": None}


@pytest.mark.parametrize(
    ("said", "behind"),
    [
        (ENGLISH, (6,)),
        (ENGLISH | {"forced_decoder_ids": [[1, 6]]}, (6,)),
        (ENGLISH | {"no_timestamps_token_id": None}, ()),
        ({"forced_decoder_ids": [[1, 3], [2, 5]]}, (3, 5, 6)),
        ({"forced_decoder_ids": [[1, 3], [2, 5], [3, 6]]}, (3, 5, 6)),
    ],
    ids=["English alone", "told", "that knows no times", "a language", "a language, told"],
)
def test_what_whisper_says_first_is_what_the_library_does(tmp_path: Path, said: dict[str, Any], behind: tuple[int, ...]) -> None:
    """Where there is no language to look for: up to that no times are wanted, whether or not files say so. Numbers count from the end."""
    end = whisper_whole(tmp_path).config.eos_token_id
    file = tmp_path / "generation_config.json"
    known = json.loads(file.read_text()) | said
    known["forced_decoder_ids"] = [[place, end + number] for place, number in known.get("forced_decoder_ids", [])] or None
    # Without this mark the library takes config.json's word.
    file.write_text(json.dumps({name: value for name, value in known.items() if value is not None and name != "_from_model_config"}))
    theirs, config = WhisperForConditionalGeneration.from_pretrained(tmp_path), hub.read(tmp_path).config
    config_of = theirs.generation_config
    config_of.return_timestamps = False
    found = theirs._retrieve_init_tokens(heard()["input_features"], 2, config_of, theirs.config, 100, {})
    assert found.tolist() == [list(config.start)] * len(found) == [[end + number for number in (1, *behind)]] * len(found)


def test_whisper_answers_as_generate_does(tmp_path: Path) -> None:
    """In Chinese, without times."""
    theirs, module = whisper_whole(tmp_path).double(), hub.read(tmp_path).module.double()
    mels, listening = heard()["input_features"].double(), module.config.listening
    expected = theirs.generate(mels, language="zh", task="transcribe", max_new_tokens=10, do_sample=False)
    start = (*module.config.start, listening.languages["zh"], listening.tasks["transcribe"], listening.no_times)
    for row, ids in enumerate(greedy(module, sounds_of(mels), 10, start)):
        theirs_said = [number for number in expected[row].tolist() if number not in start]
        assert [number for number in ids if number not in module.config.ends] == theirs_said[: len(ids)]
        assert len(ids) > 2


def test_whisper_in_chunks_and_rows_alone(tmp_path: Path) -> None:
    whisper_whole(tmp_path)
    given = heard()
    same_in_chunks_and_alone(hub.read(tmp_path).module, sounds_of(given["input_features"].double()), given["decoder_input_ids"])


def test_the_processor_must_fit_the_whole(tmp_path: Path) -> None:
    whisper_whole(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"feature_size": 5}))
    with pytest.raises(TongganError, match="sound bins: 5 by the processor, 7 by the model"):
        hub.read(tmp_path)
