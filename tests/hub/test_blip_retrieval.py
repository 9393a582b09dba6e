"""BLIP's matching model: outputs and gradients of the reference, the whole way from file and string, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BlipForImageTextRetrieval, BlipProcessor

from hub.references import TEXTS, close, picture
from hub.references_fusion import blip
from tonggan import hub
from tonggan.backends import load
from tonggan.types import Image, TongganError

SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {},
    "other activations": {"text": {"hidden_act": "relu"}, "vision": {"hidden_act": "gelu_pytorch_tanh"}},
    "one head, one layer": {"text": {"num_attention_heads": 1, "num_hidden_layers": 1}, "vision": {"num_attention_heads": 7}},
}


def inputs(rows: int = 3, *, left: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    mask = (torch.arange(7) < torch.tensor([7, 4, 1])[:rows, None]).long()
    return {
        "input_ids": torch.randint(6, 150, (rows, 7), generator=generator),
        "attention_mask": mask.flip(1) if left else mask,
        "pixel_values": torch.randn(rows, 3, 20, 20, generator=generator),
    }


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_outputs_and_gradients_are_those_of_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs, given = blip(tmp_path, **settings), inputs()
    checkpoint = hub.read(tmp_path)
    ours = hub.outputs(checkpoint.module, given)
    together, alone = theirs(**given), theirs(**given, use_itm_head=False)
    seen = given["attention_mask"].bool()
    close(ours["itm_score"], together.itm_score)
    close(ours["last_hidden_state"], together.last_hidden_state)
    close(ours["question_embeds"][seen], together.question_embeds[seen])
    close(ours["itc_score"], alone.itm_score)
    close(ours["text_last_hidden_state"][seen], alone.question_embeds[seen])

    goals = [torch.randn_like(together.itm_score), torch.randn_like(alone.itm_score)]
    ((together.itm_score * goals[0]).sum() + (alone.itm_score * goals[1]).sum()).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    found = hub.gradients(checkpoint.module, given, lambda out: (out["itm_score"] * goals[0]).sum() + (out["itc_score"] * goals[1]).sum())
    assert sorted(found) == sorted(gradients)
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        # Softmax ignores a shift of all keys: the gradient of their bias is zero but for rounding, in both.
        scale = 0.1 * largest if name.endswith("key.bias") else float(gradient.abs().max())
        assert float((found[name] - gradient).abs().max()) <= 1e-4 * scale, name


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_a_batch_of_one_and_padding_on_either_side(tmp_path: Path, left: bool) -> None:
    theirs = blip(tmp_path)
    module = hub.read(tmp_path).module
    for rows in (1, 3):
        given = inputs(rows, left=left)
        close(hub.outputs(module, given)["itm_score"], theirs(**given).itm_score)


def test_from_file_and_string(tmp_path: Path) -> None:
    theirs = blip(tmp_path)
    processor = BlipProcessor.from_pretrained(tmp_path, backend="pil")
    pictures = [picture(*size, seed=i) for i, size in enumerate([(61, 47), (30, 80), (20, 20), (200, 33), (64, 50)])]
    given = processor(images=pictures, text=TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected, cosines = theirs(**given).itm_score.softmax(dim=1)[:, 1], theirs(**given, use_itm_head=False).itm_score
    model = load(tmp_path, device="cpu")
    assert model.can == {"match", "embed", "features"}
    shown = [Image(array=np.asarray(p)) for p in pictures]
    close(torch.from_numpy(model.match(list(zip(shown, TEXTS, strict=True)))), expected)
    close(torch.from_numpy(model.embed(shown) @ model.embed(TEXTS)), cosines)


def test_saved_back_transformers_loads_the_same_weights(tmp_path: Path) -> None:
    theirs = blip(tmp_path / "theirs")
    checkpoint = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    again = BlipForImageTextRetrieval.from_pretrained(tmp_path / "ours").eval()
    state = again.state_dict()
    assert sorted(state) == sorted(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(state[name], tensor), name
    given = inputs()
    with torch.no_grad():
        assert torch.equal(again(**given).itm_score, theirs(**given).itm_score)
    assert hub.read(tmp_path / "ours").identity.verified


FLIPS: dict[str, tuple[str, dict[str, Any], str]] = {
    "activation": ("config.json", {"text_config.hidden_act": "quick_gelu"}, "text.*activation"),
    "heads": ("config.json", {"vision_config.num_attention_heads": 7}, "image.*heads"),
    "size": ("preprocessor_config.json", {"size": {"height": 24, "width": 24}}, "24 by the processor, 20 by the model"),
    "mean": ("preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.5]}, "mean"),
    "no cross-attention": ("config.json", {"text_config.is_decoder": False}, "is_decoder=False"),
}


@pytest.mark.parametrize("what", FLIPS)
def test_a_changed_setting_is_refused_by_name(tmp_path: Path, what: str) -> None:
    blip(tmp_path / "theirs")
    checkpoint = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor)
    name, change, message = FLIPS[what]
    file = tmp_path / "ours" / name
    data = json.loads(file.read_text())
    for path, value in change.items():
        *outer, last = path.split(".")
        (data[outer[0]] if outer else data)[last] = value
    file.write_text(json.dumps(data))
    with pytest.raises(TongganError, match=message):
        hub.read(tmp_path / "ours")


def test_a_model_with_a_learnt_scale_is_not_saved_as_one_without(tmp_path: Path) -> None:
    blip(tmp_path / "theirs")
    checkpoint = hub.read(tmp_path / "theirs")
    config = checkpoint.config.model_copy(update={"scale_learned": True})
    from tonggan.models import build

    with pytest.raises(TongganError, match="blip: its scale is learnt"):
        hub.save(tmp_path / "ours", build(config), config, checkpoint.processor, format="transformers")
    hub.save(tmp_path / "ours", build(config), config, checkpoint.processor)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == "tonggan-co-attention"
    assert hub.read(tmp_path / "ours").identity.verified
