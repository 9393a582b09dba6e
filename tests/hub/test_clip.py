"""Hugging Face CLIP directories: read as they are, equal outputs and gradients, saved back so that transformers agrees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPProcessor

from hub.references import TEXTS, clip_processor, clip_tokenizer, close, picture, save_clip, tiny_clip
from tonggan import hub
from tonggan.hub.convert import clip
from tonggan.types import TongganError, UsageError

NAMES = ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]


def inputs(model: CLIPModel) -> dict[str, torch.Tensor]:
    size = model.config.vision_config.image_size
    made = clip_processor(size)(text=TEXTS, images=[picture(), picture(30, 80, 1)], padding=True, truncation=True, return_tensors="pt")
    return dict(made)


def edit(file: Path, change: dict[str, Any]) -> None:
    """Change settings of a JSON file by dotted names."""
    data = json.loads(file.read_text())
    for name, value in change.items():
        *path, last = name.split(".")
        here = data
        for step in path:
            here = here[step]
        here[last] = value
    file.write_text(json.dumps(data))


@pytest.mark.parametrize(
    "settings",
    [{}, {"act": "gelu"}, {"heads": 1}, {"heads": 5, "image_size": 32}, {"legacy_eos": True}, {"layer_norm_eps": 1e-3}],
    ids=["quick_gelu", "gelu", "one head", "five heads", "end token 2", "eps"],
)
def test_outputs_and_gradients_are_those_of_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = tiny_clip(**settings)
    held(theirs, hub.read(save_clip(tmp_path / "clip", theirs)), inputs(theirs))


def held(theirs: CLIPModel, checkpoint: hub.Checkpoint, given: dict[str, torch.Tensor]) -> None:
    """Outputs, where they are not padding, and gradients of the logits, to the house's parity."""
    expected, ours = theirs(**given), hub.outputs(checkpoint.module, given)
    for name in NAMES:
        close(ours[name], expected[name])
    seen = given["attention_mask"].bool()
    close(ours["text_last_hidden_state"][seen], expected.text_model_output.last_hidden_state[seen])
    close(ours["vision_last_hidden_state"], expected.vision_model_output.last_hidden_state)

    goal = torch.randn_like(expected["logits_per_image"])
    (expected["logits_per_image"] * goal).sum().backward()
    (ours["logits_per_image"] * goal).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    mine = clip.table(checkpoint.config).export({name: p.grad for name, p in checkpoint.module.named_parameters()})
    assert sorted(mine) == sorted(gradients)
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        off = float((mine[name] - gradient).abs().max())
        # Softmax ignores a shift of all keys: the gradient of their bias is zero but for rounding, in both.
        scale = 0.1 * largest if name.endswith("k_proj.bias") else float(gradient.abs().max())
        assert off <= 1e-4 * scale, f"{name}: off by {off:.1e} of {scale:.1e}"


@pytest.mark.parametrize("legacy_eos", [False, True], ids=["end token", "highest id"])
def test_padding_on_the_left(tmp_path: Path, legacy_eos: bool) -> None:
    """By an id of its own, here 1: a row is read at its first end token all the same, also behind padding, and where one is spelt out."""
    theirs = tiny_clip(legacy_eos=legacy_eos)
    end = len(clip_tokenizer()) - 1
    ids = torch.randint(2, end - 1, (3, 9), generator=torch.Generator().manual_seed(5))
    starts = torch.tensor([4, 0, 2])
    mask = (torch.arange(9) >= starts[:, None]).long()
    ids[mask == 0] = 1
    ids[torch.arange(3), starts] = end - 1
    ids[:, -1] = end
    ids[1, 3] = ids[2, 5] = end
    pixels = inputs(theirs)["pixel_values"]
    checkpoint = hub.read(save_clip(tmp_path / "clip", theirs))
    held(theirs, checkpoint, {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels})
    # As published, padding is the end token once more: the library reads such a row at its padding.
    ids[mask == 0] = end
    with pytest.raises(UsageError, match=f"row 0: the first highest id, {end}, .* at 0, in the padding before .* at 4; pad on the right"):
        hub.outputs(checkpoint.module, {"input_ids": ids, "attention_mask": mask})


def test_the_two_activations_differ(tmp_path: Path) -> None:
    """Otherwise the test above could not tell them apart."""
    theirs = tiny_clip("quick_gelu")
    given = inputs(theirs)
    directory = save_clip(tmp_path / "clip", theirs)
    edit(directory / "config.json", {"text_config.hidden_act": "gelu", "vision_config.hidden_act": "gelu"})
    wrong, right = hub.outputs(directory, given)["image_embeds"], theirs(**given)["image_embeds"].detach()
    assert float((wrong - right).abs().max()) > 1e-3


def test_from_file_and_string(tmp_path: Path) -> None:
    """The whole way, pixels and tokens included, against CLIPProcessor and CLIPModel."""
    from tonggan.backends import load
    from tonggan.types import Image

    theirs = tiny_clip()
    directory = save_clip(tmp_path / "clip", theirs)
    files = []
    for i, size in enumerate([(61, 47), (30, 80), (24, 24), (200, 33)]):
        files.append(tmp_path / f"{i}.png")
        picture(*size, seed=i).save(files[-1])
    processor = CLIPProcessor.from_pretrained(directory)
    import PIL.Image

    given = processor(text=TEXTS, images=[PIL.Image.open(f) for f in files], padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**given)
    model = load(directory, device="cpu")
    found = model.embed([*TEXTS, *(Image.open(f) for f in files)])
    close(torch.from_numpy(found.vectors[: len(TEXTS)]), expected["text_embeds"])
    close(torch.from_numpy(found.vectors[len(TEXTS) :]), expected["image_embeds"])
    assert found.truncated == (4,)
    assert not model.identity.verified


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_saved_back_transformers_gives_the_same(tmp_path: Path, act: str) -> None:
    theirs = tiny_clip(act)
    given = inputs(theirs)
    checkpoint = hub.read(save_clip(tmp_path / "clip", theirs))
    hub.save(tmp_path / "saved", checkpoint.module, checkpoint.config, checkpoint.processor)
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["model_type"] == "clip"
    again = CLIPModel.from_pretrained(tmp_path / "saved").eval()
    for (name, a), b in zip(sorted(theirs.state_dict().items()), (v for _, v in sorted(again.state_dict().items())), strict=True):
        assert torch.equal(a, b), name
    with torch.no_grad():
        assert torch.equal(again(**given)["logits_per_image"], theirs(**given)["logits_per_image"])
    processor = CLIPProcessor.from_pretrained(tmp_path / "saved")
    same = processor(text=TEXTS, images=[picture(), picture(30, 80, 1)], padding=True, truncation=True, return_tensors="pt")
    assert all(torch.equal(same[name], given[name]) for name in given)
    ours = hub.read(tmp_path / "saved")
    assert ours.identity.verified
    assert ours.identity.difference(hub.identity(checkpoint.module, checkpoint.config, checkpoint.processor)) == []


def test_sharded_and_older_files(tmp_path: Path) -> None:
    theirs = tiny_clip()
    plain = hub.read(save_clip(tmp_path / "plain", theirs)).identity
    sharded = save_clip(tmp_path / "sharded", theirs)
    (sharded / "model.safetensors").unlink()
    theirs.save_pretrained(sharded, max_shard_size="50KB")
    assert (sharded / "model.safetensors.index.json").is_file()
    older = save_clip(tmp_path / "older", theirs)
    state = load_file(older / "model.safetensors")
    (older / "model.safetensors").unlink()
    state["text_model.embeddings.position_ids"] = torch.arange(20)[None]
    state["vision_model.embeddings.position_ids"] = torch.arange(10)[None]
    torch.save(state, older / "pytorch_model.bin")
    assert hub.read(sharded).identity.weights == hub.read(older).identity.weights == plain.weights


FLIPS: dict[str, tuple[str, dict[str, Any], str]] = {
    "activation": ("config.json", {"text_config.hidden_act": "gelu"}, r"text.*activation.*'gelu' != 'quick_gelu'"),
    "heads": ("config.json", {"vision_config.num_attention_heads": 9}, "heads"),
    "resampling": ("preprocessor_config.json", {"resample": 2}, "interpolation.*'bilinear' != 'bicubic'"),
    "mean": ("preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.5]}, "mean"),
    "max length": ("tokenizer_config.json", {"model_max_length": 10}, "10 != 20"),
}


@pytest.mark.parametrize("what", FLIPS)
def test_a_changed_setting_is_refused_by_name(tmp_path: Path, what: str) -> None:
    checkpoint = hub.read(save_clip(tmp_path / "clip", tiny_clip()))
    hub.save(tmp_path / "saved", checkpoint.module, checkpoint.config, checkpoint.processor)
    file, change, message = FLIPS[what]
    edit(tmp_path / "saved" / file, change)
    with pytest.raises(TongganError, match=message):
        hub.read(tmp_path / "saved")


def test_one_changed_weight_is_refused(tmp_path: Path) -> None:
    checkpoint = hub.read(save_clip(tmp_path / "clip", tiny_clip()))
    hub.save(tmp_path / "saved", checkpoint.module, checkpoint.config, checkpoint.processor)
    file = tmp_path / "saved" / "model.safetensors"
    state = load_file(file)
    state["visual_projection.weight"][0, 0] = torch.nextafter(state["visual_projection.weight"][0, 0], torch.tensor(9.0))
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(TongganError, match="weights: "):
        hub.read(tmp_path / "saved")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_pad": True}, "do_pad=True"),
        ({"do_resize": False}, "do_resize=False"),
        ({"rescale_factor": 1.0}, "rescale_factor=1.0"),
        ({"size": {"longest_edge": 24}}, "longest_edge"),
        ({"sharpen": 2}, r"sharpen=2 \(unknown\)"),
    ],
)
def test_preprocessing_is_honoured_or_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    directory = save_clip(tmp_path / "clip", tiny_clip())
    edit(directory / "preprocessor_config.json", change)
    with pytest.raises(TongganError, match=message):
        hub.read(directory)


@pytest.mark.parametrize(
    "settings",
    [
        {"resample": 2},
        {"do_normalize": False},
        {"do_center_crop": False, "size": {"height": 24, "width": 24}},
        {"size": {"shortest_edge": 30}},
    ],
    ids=["bilinear", "not normalised", "squashed", "larger than the crop"],
)
def test_preprocessing_settings_give_their_pixels(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = tiny_clip()
    directory = save_clip(tmp_path / "clip", theirs)
    edit(directory / "preprocessor_config.json", settings)
    pictures = [picture(), picture(30, 80, 1)]
    pixels = CLIPProcessor.from_pretrained(directory).image_processor(pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = theirs.get_image_features(pixel_values=pixels).pooler_output
    from tonggan.backends import load
    from tonggan.types import Image

    found = load(directory, device="cpu").embed([Image(array=np.asarray(p)) for p in pictures])
    close(torch.from_numpy(found.vectors), torch.nn.functional.normalize(expected, dim=-1))


def test_a_model_of_another_kind_names_those_supported(tmp_path: Path) -> None:
    directory = save_clip(tmp_path / "clip", tiny_clip())
    edit(directory / "config.json", {"model_type": "owlvit"})
    with pytest.raises(TongganError, match=r"owlvit.*clip.*bert"):
        hub.read(directory)


def test_missing_files_are_named(tmp_path: Path) -> None:
    directory = save_clip(tmp_path / "clip", tiny_clip())
    for name in ("preprocessor_config.json", "tokenizer.json", "config.json"):
        broken = tmp_path / f"without-{name}"
        shutil.copytree(directory, broken)
        (broken / name).unlink()
        with pytest.raises(TongganError, match=name.split(".")[0]):
            hub.read(broken)


def test_a_record_from_before_a_setting_existed_means_its_default(tmp_path: Path) -> None:
    """Only where the setting is at its default: another value could not have been recorded."""
    checkpoint = hub.read(save_clip(tmp_path / "clip", tiny_clip()))
    hub.save(tmp_path / "saved", checkpoint.module, checkpoint.config, checkpoint.processor)
    record = json.loads((tmp_path / "saved" / "tonggan.json").read_text())
    assert record["identity"]["preprocessing"].pop("model.image.patch_bias") is False
    assert record["identity"]["preprocessing"].pop("image.decode") == "exact"
    (tmp_path / "saved" / "tonggan.json").write_text(json.dumps(record))
    assert hub.read(tmp_path / "saved").identity.verified
    assert record["identity"]["preprocessing"].pop("model.image.width") != 768
    (tmp_path / "saved" / "tonggan.json").write_text(json.dumps(record))
    with pytest.raises(TongganError, match=r"model\.image\.width: 27 != '\(absent\)'"):
        hub.read(tmp_path / "saved")
