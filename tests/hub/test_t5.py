"""T5: outputs and gradients of the reference, its greedy answers, directories in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MT5Config, MT5ForConditionalGeneration, T5ForConditionalGeneration

from hub.references import close
from hub.references_saying import greedy, same_in_chunks_and_alone, same_outputs_and_gradients, same_when_saved_back, source_of, t5, texts
from hub.references_sound_sight import shaken
from tonggan import hub
from tonggan.models import EncoderDecoder
from tonggan.nn.positions import RelativeBias
from tonggan.types import TongganError, UsageError

SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {},
    "1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "apart": True},
    "1.1 with tied words": {"feed_forward_proj": "gated-relu", "tie_word_embeddings": False},
    "one head, the exact GELU": {"num_heads": 1, "feed_forward_proj": "gelu", "relative_attention_num_buckets": 7},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_t5_logits_and_gradients_are_those_of_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = t5(tmp_path, **settings)
    module = hub.read(tmp_path).module
    assert isinstance(module, EncoderDecoder) and (module.head is not None) == settings.get("apart", False)
    same_outputs_and_gradients(theirs, module, texts(37))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_t5_saved_back_is_the_same(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = t5(tmp_path / "theirs", **settings)
    same_when_saved_back(theirs, tmp_path / "theirs", tmp_path / "ours", texts(37))


@pytest.mark.parametrize("apart", [True, False], ids=["as published", "tied"])
def test_mt5_is_a_t5_whose_states_are_not_made_smaller(tmp_path: Path, apart: bool) -> None:
    """Whatever its files say of its words; saved back it is a T5, which says the same."""
    t5(tmp_path / "theirs")
    torch.manual_seed(1)
    sizes = {"vocab_size": 37, "d_model": 14, "d_kv": 5, "d_ff": 23, "num_layers": 2, "num_heads": 3, "relative_attention_num_buckets": 10}
    theirs = MT5ForConditionalGeneration(MT5Config(**sizes))
    if apart:
        theirs.lm_head.weight = torch.nn.Parameter(torch.empty(37, 14))
    shaken(theirs).save_pretrained(tmp_path / "theirs")
    checkpoint, given = hub.read(tmp_path / "theirs"), texts(37)
    assert checkpoint.config.text.gated and checkpoint.config.tied is not apart and not checkpoint.config.scaled_output
    same_outputs_and_gradients(theirs, checkpoint.module, given)
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    with torch.no_grad():
        close(T5ForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()(**given).logits, theirs(**given).logits)


def test_t5_answers_as_generate_does(tmp_path: Path) -> None:
    theirs, module = t5(tmp_path).double(), hub.read(tmp_path).module.double()
    given = texts(37)
    # Without its cache, which has room for as many layers as the encoder has.
    asked = {"attention_mask": given["attention_mask"], "max_new_tokens": 9, "do_sample": False, "use_cache": False}
    expected = theirs.generate(given["input_ids"], **asked)
    for row, ids in enumerate(greedy(module, source_of(given), 9)):
        assert ids == expected[row, 1 : 1 + len(ids)].tolist()
        assert not expected[row, 1 + len(ids) :].any(), "padding behind the end"


def test_t5_in_chunks_and_rows_alone(tmp_path: Path) -> None:
    t5(tmp_path)
    given = texts(37)
    same_in_chunks_and_alone(hub.read(tmp_path).module, source_of(given), given["decoder_input_ids"])


@pytest.mark.parametrize("both", [True, False])
def test_buckets_are_those_of_transformers(both: bool) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    ahead = torch.arange(-300, 301)[None]
    for buckets, farthest in ((32, 128), (7, 11), (10, 250)):
        expected = T5Attention._relative_position_bucket(ahead, both, buckets, farthest)
        assert torch.equal(RelativeBias(buckets, farthest, 1, both=both).bucket(ahead), expected)


def test_the_first_files_are_read(tmp_path: Path) -> None:
    """Of 2019: the words three times, one table that was never used, no generation_config.json."""
    from safetensors.torch import load_file, save_file

    t5(tmp_path)
    before = hub.read(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    copies = dict.fromkeys(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"), state["shared.weight"])
    unused = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.ones(10, 3)}
    older = {**state, **{name: tensor.clone() for name, tensor in copies.items()}, **unused}
    save_file(older, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "generation_config.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("scale_decoder_outputs", "tie_word_embeddings"):
        config.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["T5WithLMHeadModel"], "n_positions": 30}))
    after = hub.read(tmp_path)
    assert after.config.text.context == 30 and after.config.start == (0,) and after.config.ends == (1,)
    given = texts(37)
    assert torch.equal(hub.outputs(after.module, given)["logits"], hub.outputs(before.module, given)["logits"])


def test_t5_what_is_not_supported_is_refused(tmp_path: Path) -> None:
    t5(tmp_path)
    file = tmp_path / "config.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"feed_forward_proj": "gated-mish"}))
    with pytest.raises(TongganError, match="hidden_act 'mish' is not supported"):
        hub.read(tmp_path)
    file.write_text(json.dumps(said))
    given = texts(37)
    given["attention_mask"] = given["attention_mask"].flip(1)
    with pytest.raises(UsageError, match="padded on the right"):
        hub.outputs(tmp_path, given)
