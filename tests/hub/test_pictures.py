"""ViT and EfficientNet directories, as classifiers and as picture towers: equal outputs and gradients, transformers reads them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from transformers import AutoImageProcessor
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil

from hub import references_pairs as references
from hub.references import close, picture
from hub.test_clip import edit
from tonggan import hub
from tonggan.backends import load_local
from tonggan.hub.convert.preprocessor import image_in
from tonggan.types import Image, TongganError

FLAT = ("key.bias",)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("vit", {}), ("vit", {"pooler": False, "hidden_act": "gelu_new", "layer_norm_eps": 1e-3}), ("vit", {"classes": 5}),
    ("vit", {"classes": 2, "num_attention_heads": 1}), ("efficientnet", {}), ("efficientnet", {"classes": 7}),
    ("efficientnet", {"depthwise_padding": [], "width_coefficient": 0.75, "hidden_dim": 960}),
]  # fmt: skip


def built(directory: Path, family: str, settings: dict[str, Any]) -> Any:
    model = {"vit": references.vit, "efficientnet": references.efficientnet}[family](**settings)
    references.save(directory, model)
    return model


def pixels(family: str, files: list[Path] | None = None) -> torch.Tensor:
    shown = [PIL.Image.open(f) for f in files] if files else [picture(), picture(30, 80, 1)]
    return torch.as_tensor(references.image_processor(family)(shown, return_tensors="pt")["pixel_values"])


@pytest.mark.parametrize(("family", "settings"), CASES, ids=str)
def test_outputs_and_gradients_are_those_of_transformers(tmp_path: Path, family: str, settings: dict[str, Any]) -> None:
    theirs = built(tmp_path / "model", family, settings)
    given = {"pixel_values": pixels(family)}
    module = hub.read(tmp_path / "model").module
    expected, ours = theirs(**given), hub.outputs(module, given)
    named = {name: value for name, value in expected.items() if value is not None}
    assert set(named) <= set(ours) and set(named) & {"logits", "pooler_output", "last_hidden_state"}
    for name, value in named.items():
        close(ours[name], value)
    last = "logits" if "classes" in settings else "pooler_output" if "pooler_output" in named else "last_hidden_state"
    first = named[last].detach()
    assert float((first[0] - first[1]).abs().max()) > 0.01 * float(first.abs().max()), "the reference must see its input"

    goal = torch.randn_like(first)
    (named[last] * goal).sum().backward()
    mine = hub.gradients(module, given, lambda out: (out[last] * goal).sum())
    references.same_gradients(mine, references.published_gradients(theirs, tmp_path / "gradients"), flat=FLAT)


@pytest.mark.parametrize(("family", "settings"), [("vit", {"classes": 5}), ("efficientnet", {"classes": 7})], ids=["vit", "efficientnet"])
def test_from_file(tmp_path: Path, family: str, settings: dict[str, Any]) -> None:
    theirs = built(tmp_path / "model", family, settings)
    files = []
    for i, size in enumerate([(61, 47), (30, 80), (24, 24), (200, 33)]):
        files.append(tmp_path / f"{i}.png")
        picture(*size, seed=i).save(files[-1])
    with torch.no_grad():
        expected = theirs(pixel_values=pixels(family, files)).logits
    close(torch.from_numpy(load_local(tmp_path / "model", device="cpu").features([Image.open(f) for f in files], layer="logits")), expected)


@pytest.mark.parametrize(("family", "settings"), CASES, ids=str)
def test_saved_back_transformers_gives_the_same(tmp_path: Path, family: str, settings: dict[str, Any]) -> None:
    theirs = built(tmp_path / "model", family, settings)
    checkpoint = hub.read(tmp_path / "model")
    hub.save(tmp_path / "saved", checkpoint.module, checkpoint.config, checkpoint.processor)
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["model_type"] == family
    more = {"add_pooling_layer": False} if settings.get("pooler") is False else {}
    again = type(theirs).from_pretrained(tmp_path / "saved", **more).eval()
    assert sorted(again.state_dict()) == sorted(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    shown = [picture(), picture(30, 80, 1)]
    close(
        torch.as_tensor(AutoImageProcessor.from_pretrained(tmp_path / "saved")(shown, return_tensors="pt")["pixel_values"]), pixels(family)
    )
    ours = hub.read(tmp_path / "saved")
    assert ours.identity.verified
    assert ours.identity.difference(hub.identity(checkpoint.module, checkpoint.config, checkpoint.processor)) == []


def test_classes_keep_their_names(tmp_path: Path) -> None:
    theirs = references.vit(classes=3)
    theirs.config.id2label = {0: "猫", 1: "dog", 2: "bird"}
    theirs.config.label2id = {"猫": 0, "dog": 1, "bird": 2}
    checkpoint = hub.read(references.save(tmp_path / "model", theirs))
    assert checkpoint.labels == ("猫", "dog", "bird")
    hub.save(tmp_path / "saved", checkpoint.module, checkpoint.config, checkpoint.processor, labels=checkpoint.labels)
    assert type(theirs).from_pretrained(tmp_path / "saved").config.id2label == {0: "猫", 1: "dog", 2: "bird"}
    assert hub.read(references.save(tmp_path / "unnamed", references.vit(classes=3))).labels is None


FLIPS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "activation": ("vit", "config.json", {"hidden_act": "quick_gelu"}, "activation.*'quick_gelu' != 'gelu'"),
    "eps": ("vit", "config.json", {"layer_norm_eps": 1e-6}, "eps"),
    "resampling": ("vit", "preprocessor_config.json", {"resample": 3}, "interpolation.*'bicubic' != 'bilinear'"),
    "padding": ("efficientnet", "config.json", {"depthwise_padding": [1, 3, 5]}, "odd"),
    "twice": ("efficientnet", "preprocessor_config.json", {"include_top": True}, "std"),
}


@pytest.mark.parametrize("what", FLIPS)
def test_a_changed_setting_is_refused_by_name(tmp_path: Path, what: str) -> None:
    family, file, change, message = FLIPS[what]
    built(tmp_path / "model", family, {})
    checkpoint = hub.read(tmp_path / "model")
    hub.save(tmp_path / "saved", checkpoint.module, checkpoint.config, checkpoint.processor)
    edit(tmp_path / "saved" / file, change)
    with pytest.raises(TongganError, match=message):
        hub.read(tmp_path / "saved")


UNSUPPORTED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no bias": ("vit", {"qkv_bias": False}, "qkv_bias=False"),
    "another pooler": ("vit", {"pooler_act": "gelu"}, "pooler_act='gelu'"),
    "another plan": ("efficientnet", {"strides": [1, 2, 2, 2, 2, 2, 1]}, "strides"),
    "another width": ("efficientnet", {"hidden_dim": 1280}, "hidden_dim is 1280.*640"),
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_is_not_supported_says_so(tmp_path: Path, what: str) -> None:
    family, change, message = UNSUPPORTED[what]
    built(tmp_path / "model", family, {})
    edit(tmp_path / "model" / "config.json", change)
    with pytest.raises(TongganError, match=message):
        hub.read(tmp_path / "model")


def test_what_is_said_of_labels_in_pictures_is_nothing_to_a_tower(tmp_path: Path) -> None:
    """BEiT's processor can also prepare maps of labels; its file says so whichever model it lies beside."""
    written = json.loads(BeitImageProcessorPil(size={"height": 24, "width": 24}).to_json_string())
    assert written["do_reduce_labels"] is False
    assert image_in(written, "here", "ViT").size == 24
    references.save(tmp_path, references.vit(image_size=24, patch_size=8))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written), "utf-8")
    assert hub.read(tmp_path).processor.image is not None
    with pytest.raises(TongganError, match=r"preprocessing that is not supported: do_reduce_labels=True$"):
        image_in({**written, "do_reduce_labels": True}, "here", "ViT")
