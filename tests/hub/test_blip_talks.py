"""BLIP's captioner and its model that answers: outputs, gradients and words of the reference, alone and in a batch, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering

from hub.references import close
from hub.references_fusion import blip
from tonggan import hub
from tonggan.models import Captioner
from tonggan.nn.talking import Talker, words
from tonggan.tensors import Batch, Tokens
from tonggan.types import TongganError, UsageError

CLASSES = {"captions": BlipForConditionalGeneration, "answers": BlipForQuestionAnswering}
SEEN = {"hidden_size": 21, "num_attention_heads": 3}
"""What a question has made of a picture is as wide as the text, and there the reference expects the width of pictures."""
SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {"vision": SEEN},
    "other activations": {"text": {"hidden_act": "relu"}, "vision": {**SEEN, "hidden_act": "gelu_pytorch_tanh"}},
    "one head, one layer": {"text": {"num_attention_heads": 1, "num_hidden_layers": 1}, "vision": {**SEEN, "num_attention_heads": 7}},
}


def inputs(kind: str, rows: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    # Questions of one length: the library's decoder also attends to the padding of shorter ones (see below).
    lengths = torch.tensor([7, 4, 2] if kind == "captions" else [7, 7, 7])
    mask = (torch.arange(7) < lengths[:rows, None]).long()
    given = {
        "input_ids": torch.randint(6, 150, (rows, 7), generator=generator),
        "attention_mask": mask,
        "pixel_values": torch.randn(rows, 3, 20, 20, generator=generator),
    }
    if kind == "answers":
        given["decoder_input_ids"] = torch.randint(6, 150, (rows, 5), generator=generator)
        given["decoder_attention_mask"] = (torch.arange(5) < torch.tensor([3, 5, 1])[:rows, None]).long()
    return given


def logits_of(theirs: Any, given: dict[str, Tensor]) -> Tensor:
    """The reference's forward for answers gives a loss alone, so its decoder is asked by itself."""
    if isinstance(theirs, BlipForConditionalGeneration):
        return theirs(**given).logits
    seen = theirs.vision_model(given["pixel_values"]).last_hidden_state
    mask = given["attention_mask"]
    asked = theirs.text_encoder(given["input_ids"], attention_mask=mask, encoder_hidden_states=seen).last_hidden_state
    return theirs.text_decoder(
        given["decoder_input_ids"],
        attention_mask=given["decoder_attention_mask"],
        encoder_hidden_states=asked,
        encoder_attention_mask=mask,
    ).logits


def own(given: dict[str, Tensor]) -> Tensor:
    return given.get("decoder_attention_mask", given["attention_mask"]).bool()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("kind", CLASSES)
def test_outputs_and_gradients_are_those_of_transformers(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    theirs, given = blip(tmp_path, CLASSES[kind], **settings), inputs(kind)
    module = hub.read(tmp_path).module
    expected, places = logits_of(theirs, given), own(given)
    close(hub.outputs(module, given)["logits"][places], expected[places])
    goal = torch.randn_like(expected[places])
    (expected[places] * goal).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    found = hub.gradients(module, given, lambda out: (out["logits"][places] * goal).sum())
    assert sorted(found) == sorted(gradients)
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        # Softmax ignores a shift of all keys: the gradient of their bias is zero but for rounding, in both.
        scale = 0.1 * largest if name.endswith("key.bias") else float(gradient.abs().max())
        assert float((found[name] - gradient).abs().max()) <= 1e-4 * scale, name


def test_pictures_and_text_of_two_widths(tmp_path: Path) -> None:
    theirs, given = blip(tmp_path, BlipForConditionalGeneration), inputs("captions")
    close(hub.outputs(tmp_path, given)["logits"][own(given)], logits_of(theirs, given)[own(given)])


def test_a_question_is_answered_as_it_is_alone_whatever_the_others_are(tmp_path: Path) -> None:
    """In a batch the reference's answers move with the longest question; asked alone, it answers as ours does in any batch."""
    theirs, given = blip(tmp_path, BlipForQuestionAnswering, vision=SEEN), inputs("answers")
    given["attention_mask"][1, 4:], given["attention_mask"][2, 2:] = 0, 0
    together = hub.outputs(tmp_path, given)["logits"]
    for row, length in enumerate([7, 4, 2]):
        alone = {name: tensor[row : row + 1] for name, tensor in given.items()}
        alone |= {name: alone[name][:, :length] for name in ("input_ids", "attention_mask")}
        places = own(alone)
        close(together[row : row + 1][places], logits_of(theirs, alone)[places])


@pytest.mark.parametrize("kind", CLASSES)
def test_word_by_word_is_what_transformers_generates(tmp_path: Path, kind: str) -> None:
    theirs, given = blip(tmp_path, CLASSES[kind], vision=SEEN).double(), inputs(kind)
    module = hub.read(tmp_path).module.double()
    assert isinstance(module, Captioner) and isinstance(module, Talker)
    start = module.config.start[0]
    asked = Tokens(given["input_ids"], given["attention_mask"].sum(dim=1)) if kind == "answers" else None
    pixels = given["pixel_values"].double()
    seen, cache = module.read(Batch(("a", "b", "c"), pixels=pixels, source=asked)), module.cache(12)
    said, next_ = [], torch.full((3, 1), start)
    for _ in range(9):
        states = module.say(Tokens(next_, torch.ones(3, dtype=torch.long)), seen, cache=cache)
        cache.advance([1, 1, 1])
        next_ = words(module, states).argmax(dim=-1)
        said.append(next_)
    more = {"max_new_tokens": 9, "do_sample": False, "num_beams": 1}
    if kind == "answers":
        expected = theirs.generate(given["input_ids"], pixels, given["attention_mask"], **more)
    else:
        expected = theirs.generate(pixels, **more)
    # The reference fills rows that have ended; until then the words are the same.
    ends = module.config.ends[0]
    for mine, reference in zip(torch.cat(said, dim=1).tolist(), expected[:, 1:].tolist(), strict=True):
        until = reference.index(ends) if ends in reference else len(reference)
        assert mine[:until] == reference[:until] and until > 0
    alone = module.read(Batch(("c",), pixels=pixels[2:], source=asked and Tokens(asked.ids[2:], asked.lengths[2:])))
    whole = torch.cat([torch.full((1, 1), start), torch.cat(said, dim=1)[2:, :-1]], dim=1)
    close(words(module, module.say(Tokens(whole, torch.tensor([9])), alone))[:, -1:], words(module, states)[2:], 1e-10)
    close(words(module, module.say(Tokens(whole, torch.tensor([9])), seen.select([2])))[:, -1:], words(module, states)[2:], 1e-10)


@pytest.mark.parametrize("kind", CLASSES)
def test_saved_back_transformers_loads_the_same_weights(tmp_path: Path, kind: str) -> None:
    theirs = blip(tmp_path / "theirs", CLASSES[kind], vision=SEEN)
    checkpoint = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    again = CLASSES[kind].from_pretrained(tmp_path / "ours").eval()
    state = again.state_dict()
    assert sorted(state) == sorted(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(state[name], tensor), name
    given = inputs(kind)
    with torch.no_grad():
        assert torch.equal(logits_of(again, given), logits_of(theirs, given))
    again_ours = hub.read(tmp_path / "ours")
    assert again_ours.identity.verified and again_ours.config == checkpoint.config


def test_what_is_missing_or_does_not_fit_is_said(tmp_path: Path) -> None:
    blip(tmp_path, BlipForQuestionAnswering, vision=SEEN)
    checkpoint = hub.read(tmp_path)
    module = checkpoint.module
    assert isinstance(module, Captioner)
    with pytest.raises(UsageError, match="give one with every row"):
        module.read(Batch(("a",)))
    with pytest.raises(UsageError, match="this captioner answers questions"):
        module.read(Batch(("a",), pixels=torch.zeros(1, 3, 20, 20)))
    wide = checkpoint.config.model_copy(update={"start": (5, 6)})
    with pytest.raises(TongganError, match="one token to begin with"):
        hub.save(tmp_path / "ours", module, wide, checkpoint.processor, format="transformers")
