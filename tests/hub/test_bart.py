"""BART: outputs and gradients of the reference, its greedy answers, directories in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hub.references import close
from hub.references_saying import bart, greedy, same_in_chunks_and_alone, same_outputs_and_gradients, same_when_saved_back, source_of, texts
from tonggan import hub
from tonggan.types import TongganError

SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {},
    "larger words": {"scale_embedding": True, "activation_function": "gelu_new"},
    "one head": {"encoder_attention_heads": 1, "decoder_attention_heads": 1, "activation_function": "relu"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_bart_logits_and_gradients_are_those_of_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = bart(tmp_path, **settings)
    same_outputs_and_gradients(theirs, hub.read(tmp_path).module, texts(41))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_bart_saved_back_is_the_same(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = bart(tmp_path / "theirs", **settings)
    same_when_saved_back(theirs, tmp_path / "theirs", tmp_path / "ours", texts(41))


def test_padding_among_the_words_is_not_learnt_from(tmp_path: Path) -> None:
    """As published models hold its embedding still; being told, it is learnt."""
    theirs, module = bart(tmp_path), hub.read(tmp_path).module
    given = texts(41)
    given["decoder_input_ids"][0, 4:] = 1
    same_outputs_and_gradients(theirs, module, given)


@pytest.mark.parametrize("forced", [None, 0], ids=["free", "a forced beginning"])
def test_bart_answers_as_generate_does(tmp_path: Path, forced: int | None) -> None:
    theirs = bart(tmp_path)
    theirs.generation_config.forced_bos_token_id = forced
    theirs.generation_config.save_pretrained(tmp_path)
    checkpoint, given = hub.read(tmp_path), texts(41)
    assert checkpoint.config.start == ((2,) if forced is None else (2, 0)) and checkpoint.config.last == 2
    asked = {"attention_mask": given["attention_mask"], "max_new_tokens": 11, "do_sample": False, "forced_eos_token_id": None}
    expected = theirs.double().generate(given["input_ids"], **asked)
    begun = len(checkpoint.config.start)
    for row, ids in enumerate(greedy(checkpoint.module.double(), source_of(given), 12 - begun)):
        assert ids == expected[row, begun : begun + len(ids)].tolist()
    hub.save(tmp_path / "again", checkpoint.module.float(), checkpoint.config, checkpoint.processor, format="transformers")
    said = json.loads((tmp_path / "again" / "generation_config.json").read_text())
    assert said.get("forced_bos_token_id") == forced and said["forced_eos_token_id"] == 2


def test_bart_in_chunks_and_rows_alone(tmp_path: Path) -> None:
    bart(tmp_path)
    given = texts(41)
    same_in_chunks_and_alone(hub.read(tmp_path).module, source_of(given), given["decoder_input_ids"])


def test_bart_without_constants_and_with_copies_of_the_words(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    bart(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    names = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    older = {**state, **{name: state["model.shared.weight"].clone() for name in names}}
    constant = older.pop("final_logits_bias")
    before = hub.outputs(tmp_path, texts(41))["logits"]
    save_file(older, tmp_path / "model.safetensors", metadata={"format": "pt"})
    checkpoint = hub.read(tmp_path)
    assert not checkpoint.config.word_bias
    with torch.no_grad():
        assert torch.allclose(hub.outputs(checkpoint.module, texts(41))["logits"] + constant, before, atol=1e-5)


def test_bart_as_first_published_is_read(tmp_path: Path) -> None:
    """As facebook/bart-base is: without what says words, so that nothing stands before the names. It is saved as what it can do."""
    from safetensors.torch import load_file, save_file
    from transformers import BartForConditionalGeneration

    bart(tmp_path)
    state = {name.removeprefix("model."): tensor for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    del state["final_logits_bias"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"architectures": ["BartModel"]}))
    theirs, checkpoint = BartForConditionalGeneration.from_pretrained(tmp_path).eval(), hub.read(tmp_path)
    with torch.no_grad():
        expected = theirs(**texts(41)).logits
        close(hub.outputs(checkpoint.module, texts(41))["logits"], expected)
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["architectures"] == ["BartForConditionalGeneration"]
    with torch.no_grad():
        assert torch.equal(BartForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()(**texts(41)).logits, expected)


def test_relatives_of_bart_are_refused_by_name(tmp_path: Path) -> None:
    bart(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"normalize_before": True, "extra_pos_embeddings": 0}))
    with pytest.raises(TongganError, match="normalize_before=True, extra_pos_embeddings=0"):
        hub.read(tmp_path)
