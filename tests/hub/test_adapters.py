"""Adapter directories against the library `peft`: it opens ours, we open its, and nothing but the right base is taken."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel

from hub import references_pairs
from hub.references import TEXTS, clip_processor, close, picture, save_clip, tiny_clip
from hub.references_sound_sight import data2vec_vision, save_data2vec_vision
from hub.test_bert import tiny_sentence_encoder
from hub.test_two_towers import FAMILIES, pixels, tokens
from tonggan import hub
from tonggan.backends import load, load_local
from tonggan.hub import Checkpoint, adapters
from tonggan.models import adapt
from tonggan.models.adapt import AdaptConfig, BottleneckConfig, DoraConfig, LoraConfig, ProbeConfig, PromptConfig
from tonggan.types import Image, TongganError, UsageError

LOW_RANK: dict[str, AdaptConfig] = {
    "lora": LoraConfig(rank=3, alpha=5),
    "pictures only, scaled by the root": LoraConfig(rank=3, alpha=5.5, rslora=True, parts=("image",), targets=("feed_forward.up", "q")),
    "dora": DoraConfig(rank=3, alpha=5, targets=("attention.q", "attention.out", "feed_forward.down")),
    "with a head": DoraConfig(rank=2, parts=("text",), whole=("image_head", "text_head")),
}
OTHERS: dict[str, AdaptConfig] = {
    "prompt": PromptConfig(length=3, deep=True),
    "serial": BottleneckConfig(width=5, whole=("text_head",)),
    "parallel": BottleneckConfig(width=5, form="parallel", parts=("image",)),
    "probe": ProbeConfig(),
}


def inputs() -> dict[str, Tensor]:
    pictures = [picture(), picture(30, 80, 1)]
    return dict(clip_processor()(text=TEXTS, images=pictures, padding=True, truncation=True, return_tensors="pt"))


def trained(module: nn.Module, seed: int = 1) -> nn.Module:
    """Every trainable parameter moved, as by training."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


def clip(directory: Path) -> Checkpoint:
    """A CLIP with a record of its own, in `directory`."""
    found = hub.read(save_clip(directory / "published", tiny_clip()))
    hub.save(directory / "base", found.module, found.config, found.processor)
    return hub.read(directory / "base")


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("kind", LOW_RANK)
def test_peft_opens_ours_with_equal_outputs_and_gradients(tmp_path: Path, kind: str) -> None:
    base, given = clip(tmp_path), inputs()
    view = trained(adapt.attach(base.module, LOW_RANK[kind]))
    adapters.save(tmp_path / "adapter", view, base, LOW_RANK[kind])
    theirs = peft.PeftModel.from_pretrained(tiny_clip(), tmp_path / "adapter", is_trainable=True).eval()
    expected, ours = theirs(**given), hub.outputs(view, given)
    for name in ("text_embeds", "image_embeds", "logits_per_image"):
        close(ours[name], expected[name])

    goal = torch.randn_like(expected["logits_per_image"])
    (expected["logits_per_image"] * goal).sum().backward()
    (ours["logits_per_image"] * goal).sum().backward()
    gradients = {name.replace(".default", ""): p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    table = hub.family_for(base.config, base.processor, insist=True).table
    assert table is not None
    names = adapters.peft.Names(base.module.state_dict(), table(base.config))
    mine = adapters.peft.export({name: p.grad for name, p in view.named_parameters() if p.requires_grad}, names)
    renamed = {name.replace("modules_to_save.", "").replace("vector.weight", "vector"): g for name, g in gradients.items()}
    assert mine.keys() == renamed.keys()
    largest = max(float(gradient.abs().max()) for gradient in renamed.values())
    for name, gradient in renamed.items():
        off = float((mine[name] - gradient).abs().max())
        assert off <= 1e-4 * max(float(gradient.abs().max()), 1e-3 * largest), name


def test_peft_opens_ours_on_a_bert(tmp_path: Path) -> None:
    base = hub.read(tiny_sentence_encoder(tmp_path / "bert"))
    config = DoraConfig(rank=3, targets=("attention.k", "attention.v", "feed_forward.down"))
    view = trained(adapt.attach(base.module, config))
    adapters.save(tmp_path / "adapter", view, base, config)
    theirs = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(tmp_path / "bert"), tmp_path / "adapter").eval()
    given = {"input_ids": torch.tensor([[2, 9, 7, 3], [2, 8, 3, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])}
    seen = given["attention_mask"].bool()
    with torch.no_grad():
        expected, ours = theirs(**given).last_hidden_state, hub.outputs(view, given)["last_hidden_state"]
        plain = hub.outputs(base.module, given)["last_hidden_state"]
    close(ours[seen], expected[seen])
    assert not torch.allclose(plain[seen], expected[seen], atol=1e-2)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": ["out_proj", "fc2"], "use_dora": True, "use_rslora": True},
        {"target_modules": r".*vision_model.*layers\.[02]\..*fc1", "modules_to_save": ["visual_projection"]},
    ],
    ids=["lora", "dora", "a pattern, and a head"],
)
def test_what_peft_saved_opens_here(tmp_path: Path, settings: dict[str, Any]) -> None:
    base, given = clip(tmp_path), inputs()
    reference = AutoModel.from_pretrained(tmp_path / "base")
    theirs = trained(peft.get_peft_model(reference, peft.LoraConfig(r=3, lora_alpha=7, lora_dropout=0.1, **settings)))
    theirs.save_pretrained(tmp_path / "adapter")
    model = load_local(tmp_path / "adapter", device="cpu")  # the base is found by the name that peft wrote down
    with torch.no_grad():
        expected = theirs(**given)
    for name in ("text_embeds", "image_embeds"):
        close(hub.outputs(model.module, given)[name], expected[name])
    found = model.embed([*TEXTS, Image(array=torch.tensor([[[9, 99, 200]] * 30] * 40, dtype=torch.uint8).numpy())])
    close(torch.from_numpy(found.vectors[: len(TEXTS)]), expected["text_embeds"])
    assert not model.identity.verified
    assert model.identity.weights != base.identity.weights
    merged = adapt.merge(model.module)
    close(hub.outputs(merged, given)["logits_per_image"], expected["logits_per_image"])


@pytest.mark.parametrize("kind", LOW_RANK | OTHERS)
def test_saved_and_opened_again_bit_for_bit(tmp_path: Path, kind: str) -> None:
    base, config = clip(tmp_path), (LOW_RANK | OTHERS)[kind]
    before = {name: tensor.clone() for name, tensor in base.module.state_dict().items()}
    view = trained(adapt.attach(base.module, config))
    adapters.save(tmp_path / "adapter", view, base, config, provenance={"data": "three rows"})
    model = load_local(tmp_path / "adapter", device="cpu")
    again, mine = model.module.state_dict(), view.state_dict()
    assert again.keys() == mine.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in mine.items())
    assert model.identity.verified
    assert model.checkpoint.provenance == {"data": "three rows"}
    difference = "\n".join(model.identity.difference(base.identity))
    assert f"adapter.0.kind: '{config.kind}' != '(absent)'" in difference
    assert "weights: " in difference
    opened = adapters.read(tmp_path / "adapter", base)
    assert opened.identity == model.identity
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.module.state_dict().items())
    small = sum(file.stat().st_size for file in (tmp_path / "adapter").glob("*.safetensors"))
    assert small < 0.6 * (tmp_path / "base" / "model.safetensors").stat().st_size
    if kind in LOW_RANK:
        kept = json.loads((tmp_path / "adapter" / "tonggan.json").read_text())["adapter"]
        adapters.save(tmp_path / "twice", opened.module, base, type(config).parse(kept))
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "adapter" / name).read_bytes()


def test_several_adapters_on_one_base(tmp_path: Path) -> None:
    base, given = clip(tmp_path), inputs()
    configs = {"birds": LoraConfig(rank=2, parts=("image",)), "chinese": BottleneckConfig(width=3, parts=("text",))}
    for name, config in configs.items():
        adapters.save(tmp_path / name, trained(adapt.attach(base.module, config)), base, config)
    plain = hub.outputs(base.module, given)
    birds, chinese = (adapters.read(tmp_path / name, base) for name in configs)
    both = adapters.read([tmp_path / "birds", tmp_path / "chinese"], base)
    assert all(birds.module.get_parameter(name) is parameter for name, parameter in base.module.named_parameters())
    found = hub.outputs(both.module, given)
    assert torch.equal(found["image_embeds"], hub.outputs(birds.module, given)["image_embeds"])
    assert torch.equal(found["text_embeds"], hub.outputs(chinese.module, given)["text_embeds"])
    assert not torch.allclose(found["image_embeds"], plain["image_embeds"], atol=1e-3)
    assert not torch.allclose(found["text_embeds"], plain["text_embeds"], atol=1e-3)
    again = hub.outputs(base.module, given)
    assert all(torch.equal(again[name], tensor) for name, tensor in plain.items())
    assert both.identity.verified
    assert len({c.identity.weights for c in (base, birds, chinese, both)}) == 4
    adapters.save(tmp_path / "over", trained(adapt.attach(birds.module, configs["chinese"])), birds, configs["chinese"])
    for one in (both, adapters.read(tmp_path / "over", birds)):
        assert [one.identity.preprocessing[f"adapter.{number}.kind"] for number in (0, 1)] == ["lora", "bottleneck"]
    with pytest.raises(UsageError, match="has an adapter already"):
        adapters.read([tmp_path / "birds", tmp_path / "birds"], base)
    with pytest.raises(UsageError, match=r"an int8 copy, .* take no adapter; open its original"):
        adapters.read(tmp_path / "birds", replace(base, provenance={"copy": "int8"}))


def test_another_base_is_refused_with_both_values(tmp_path: Path) -> None:
    base, config = clip(tmp_path), LOW_RANK["lora"]
    adapters.save(tmp_path / "adapter", trained(adapt.attach(base.module, config)), base, config)
    other = hub.read(tmp_path / "base")
    with torch.no_grad():
        other.module.get_parameter("log_scale").add_(1e-3)
    hub.save(tmp_path / "other", other.module, other.config, other.processor)
    other = hub.read(tmp_path / "other")
    hashes = rf"weights: {other.identity.short} != {base.identity.short}"
    with pytest.raises(TongganError, match=rf"made for the base .*base; .*other is another.*\n.*{hashes}"):
        adapters.read(tmp_path / "adapter", other)
    edit(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=str(tmp_path / "other"))
    with pytest.raises(TongganError, match=hashes):
        load(tmp_path / "adapter")


def test_what_changed_since_is_refused_by_name(tmp_path: Path) -> None:
    base, config = clip(tmp_path), LOW_RANK["lora"]
    adapters.save(tmp_path / "adapter", trained(adapt.attach(base.module, config)), base, config)
    for changes, message in (({"lora_alpha": 16}, r"alpha: 16\.0 != 5\.0"), ({"use_rslora": True}, "rslora: True != False")):
        shutil.copytree(tmp_path / "adapter", tmp_path / "changed", dirs_exist_ok=True)
        edit(tmp_path / "changed" / "adapter_config.json", **changes)
        with pytest.raises(TongganError, match=rf"not as it was saved.*{message}"):
            load(tmp_path / "changed")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    state = load_file(file)
    name = next(name for name in state if name.endswith("layers.1.self_attn.q_proj.lora_B.weight"))
    state[name][0, 0] = torch.nextafter(state[name][0, 0], torch.tensor(9.0))
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(TongganError, match="not the adapter that was saved here: weights: "):
        load(tmp_path / "adapter")
    del state[name]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(TongganError, match=r"missing: \w+\.transformer\.blocks\.1\.attention\.q\.lora\.b"):
        load(tmp_path / "adapter")


def test_names_of_classes_are_the_adapters_own_and_are_checked(tmp_path: Path) -> None:
    references_pairs.save(tmp_path / "vit", references_pairs.vit(classes=3))
    found, config = hub.read(tmp_path / "vit"), ProbeConfig(whole=("head",))
    hub.save(tmp_path / "base", found.module, found.config, found.processor, labels=found.labels)
    base = hub.read(tmp_path / "base")
    view, colours = trained(adapt.attach(base.module, config)), ("red", "green", "blue")
    adapters.save(tmp_path / "plain", view, base, config)
    adapters.save(tmp_path / "same", view, base, config, labels=base.labels)
    adapters.save(tmp_path / "named", view, base, config, labels=colours)
    plain, same, named = (load_local(tmp_path / name, device="cpu") for name in ("plain", "same", "named"))
    assert plain.labels == same.labels == base.labels != colours and plain.identity == same.identity
    assert named.labels == colours and named.identity.verified
    assert "labels: " in "\n".join(named.identity.difference(plain.identity))
    file = tmp_path / "named" / "tonggan.json"
    saved = json.loads(file.read_text())
    for labels in (["green", "red", "blue"], ["red", "green"], None):
        edit(file, labels=labels)
        with pytest.raises(TongganError, match=r"not the adapter that was saved here: labels: [0-9a-f(none)]+ != [0-9a-f]{12}"):
            load(tmp_path / "named")
    edit(tmp_path / "plain" / "tonggan.json", labels=list(colours))
    with pytest.raises(TongganError, match=r"not the adapter that was saved here: labels: [0-9a-f]{12} != \(none\)"):
        load(tmp_path / "plain")
    file.write_text(json.dumps({name: value for name, value in saved.items() if name != "labels_hash"}))
    assert load_local(tmp_path / "named", device="cpu").identity == named.identity, "as it was saved before the hash was kept"


STRANGE: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"peft_type": "IA3"}, "peft_type 'IA3' is not supported"),
    "biases": ({"bias": "all"}, "not supported: bias='all'"),
    "ranks by layer": ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
    "a changed base": ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
    "what is new": ({"use_something_new": 3}, "use_something_new=3"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_settings_without_a_place_are_refused_by_name(tmp_path: Path, what: str) -> None:
    base = clip(tmp_path)
    theirs = peft.get_peft_model(AutoModel.from_pretrained(tmp_path / "base"), peft.LoraConfig(r=3, target_modules=["q_proj"]))
    theirs.save_pretrained(tmp_path / "adapter")
    adapters.read(tmp_path / "adapter", base)
    changes, message = STRANGE[what]
    edit(tmp_path / "adapter" / "adapter_config.json", **changes)
    with pytest.raises(TongganError, match=message):
        adapters.read(tmp_path / "adapter", base)


def test_an_adapter_of_another_family_is_refused(tmp_path: Path) -> None:
    bert = hub.read(tiny_sentence_encoder(tmp_path / "bert"))
    adapters.save(tmp_path / "adapter", adapt.attach(bert.module, LoraConfig()), bert, LoraConfig())
    (tmp_path / "adapter" / "tonggan.json").unlink()
    with pytest.raises(TongganError, match=r"CLIP format has no .*attention\.self\.query.*another model"):
        adapters.read(tmp_path / "adapter", clip(tmp_path))


def test_a_base_that_is_gone_is_named(tmp_path: Path) -> None:
    base, config = clip(tmp_path), OTHERS["prompt"]
    adapters.save(tmp_path / "adapter", adapt.attach(base.module, config), base, config)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(UsageError, match=r"adapter: an adapter, and its base cannot be opened: no model '.*base'"):
        load(tmp_path / "adapter")


def test_an_adapter_is_not_saved_as_a_model_nor_a_changed_base_as_an_adapter(tmp_path: Path) -> None:
    base, config = clip(tmp_path), LOW_RANK["lora"]
    view = adapt.attach(base.module, config)
    with pytest.raises(UsageError, match=r"has an adapter; merge it first \(tonggan merge\), or .*hub\.adapters\.save"):
        hub.save(tmp_path / "model", view, base.config, base.processor)
    hub.save(tmp_path / "model", adapt.merge(trained(view)), base.config, base.processor)
    close(
        hub.outputs(tmp_path / "model", inputs())["logits_per_image"],
        hub.outputs(view, inputs())["logits_per_image"],
    )
    view.register_buffer("moved", torch.zeros(1))
    base.module.register_buffer("moved", torch.ones(1))
    with pytest.raises(TongganError, match="moved changed beside the adapter"):
        adapters.save(tmp_path / "adapter", view, base, config)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("family", ["siglip", "chinese_clip", "align"])
def test_peft_opens_ours_on_other_pairs(tmp_path: Path, family: str) -> None:
    reference = FAMILIES[family](tmp_path / "model").eval()
    base = hub.read(tmp_path / "model")
    parts = ("text",) if family == "align" else ("image.transformer", "text")  # ALIGN's pictures go through convolutions
    config = DoraConfig(rank=3, targets=("attention.q", "feed_forward.down"), parts=parts)
    view = trained(adapt.attach(base.module, config))
    adapters.save(tmp_path / "adapter", view, base, config)
    theirs = peft.PeftModel.from_pretrained(reference, tmp_path / "adapter").eval()
    given = {**tokens(tmp_path / "model"), "pixel_values": pixels(family)}
    with torch.no_grad():
        expected, ours = theirs(**given), hub.outputs(view, given)
    close(ours["text_embeds"], expected["text_embeds"])
    close(ours["image_embeds"], expected["image_embeds"])


def test_layers_that_the_published_format_keeps_in_another_form_have_our_names(tmp_path: Path) -> None:
    """SigLIP's pooling has q, k and v in one tensor: `peft` has no name for a layer of it, but the adapter is not lost."""
    FAMILIES["siglip"](tmp_path / "model")
    base, config = hub.read(tmp_path / "model"), LoraConfig(rank=2)
    view = trained(adapt.attach(base.module, config))
    assert any(name.startswith("image.pool.") for name in adapt.own(view, base.module, config))
    adapters.save(tmp_path / "adapter", view, base, config)
    assert json.loads((tmp_path / "adapter" / "tonggan.json").read_text())["names"] == "tonggan"
    again, mine = load_local(tmp_path / "adapter", device="cpu").module.state_dict(), view.state_dict()
    assert again.keys() == mine.keys() and all(torch.equal(again[name], tensor) for name, tensor in mine.items())


def test_prompts_have_no_place_in_a_bias_by_position(tmp_path: Path) -> None:
    save_data2vec_vision(tmp_path / "beit", data2vec_vision())
    with pytest.raises(UsageError, match="has an attention bias by position, in which prompts have no place"):
        adapt.attach(hub.read(tmp_path / "beit").module, PromptConfig())


def test_a_base_that_learnt_beside_its_adapter_is_not_saved_as_if_it_had_not(tmp_path: Path) -> None:
    """View and base share their weights: comparing the two would see nothing."""
    base = hub.read(save_clip(tmp_path / "clip", tiny_clip()))
    config = LoraConfig(parts=("text",), targets=("attention.q",))
    view = adapt.attach(base.module, config)
    with torch.no_grad():
        view.get_parameter("text_head.weight").add_(0.1)
    with pytest.raises(TongganError, match=r"weights of the base .* itself have changed"):
        adapters.save(tmp_path / "adapter", view, base, config)
    assert not (tmp_path / "adapter").exists()


def test_two_adapters_that_learnt_the_same_part_are_not_put_together(tmp_path: Path) -> None:
    """The later one would silently take the earlier one's place."""
    base = hub.read(save_clip(tmp_path / "clip", tiny_clip()))
    for part in ("image", "text"):
        config = LoraConfig(parts=(part,), targets=("attention.q",), whole=("text_head",))
        adapters.save(tmp_path / part, adapt.attach(base.module, config), base, config)
    with pytest.raises(TongganError, match=r"text_head\.weight of its own, and so has .*image; two adapters"):
        adapters.read([tmp_path / "image", tmp_path / "text"], base)
