"""Layer-wise rates: which parameter learns how fast, by where it stands."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tonggan.models import DualEncoder, DualEncoderConfig, adapt, build, presets
from tonggan.models.towers import BertTextConfig, EfficientNetConfig, RecurrentTextConfig, TransformerTextConfig, ViTConfig
from tonggan.train.optim import OptimConfig, groups, optimizer

VIT = ViTConfig(image_size=16, patch_size=8, width=12, layers=3, heads=2, mlp_width=16)
TEXT = TransformerTextConfig(vocab_size=20, context=8, width=12, layers=2, heads=2, mlp_width=16)


def rates(module: nn.Module, decay: float | None, parts: dict[str, float] | None = None) -> dict[str, float]:
    """Factor of the rate by parameter name."""
    found = {id(p): group["factor"] for group in groups(module, 0.1, parts, decay) for p in group["params"]}
    return {name: found[id(p)] for name, p in module.named_parameters()}


def near(found: float, expected: float) -> bool:
    return found == pytest.approx(expected, rel=1e-12)


def test_each_tower_by_its_own_depth() -> None:
    found = rates(DualEncoder(DualEncoderConfig(image=VIT, text=TEXT, dim=6)), 0.5)
    for tower, blocks in (("image", 3), ("text", 2)):
        for number in range(blocks):
            inside = {rate for name, rate in found.items() if name.startswith(f"{tower}.transformer.blocks.{number}.")}
            assert inside == {0.5 ** (blocks - number)}
    lowest = {name for name, rate in found.items() if rate == 0.5**4}
    assert lowest == {"image.class_token", "image.patches.weight", "image.positions.weight", "image.pre_norm.weight", "image.pre_norm.bias"}
    assert {name for name, rate in found.items() if rate == 0.5**3 and name.startswith("text.")} == {
        "text.embedding.weight", "text.positions.weight",
    }  # fmt: skip
    full = {name for name, rate in found.items() if rate == 1.0}
    heads = {"image.post_norm.weight", "image.post_norm.bias", "text.post_norm.weight", "text.post_norm.bias"}
    assert full == {*heads, "image_head.weight", "text_head.weight", "log_scale"}


def test_with_parts_both_factors_count() -> None:
    model = DualEncoder(DualEncoderConfig(image=VIT, text=TEXT, dim=6))
    plain, found = rates(model, 0.8), rates(model, 0.8, {"text": 0.1, "text.post_norm": 3.0, "image_head": 2.0})
    for name, rate in found.items():
        part = (
            3.0 if name.startswith("text.post_norm") else 0.1 if name.startswith("text.") else 2.0 if name.startswith("image_head") else 1.0
        )
        assert near(rate, part * plain[name]), name


def test_a_tower_alone_and_what_is_no_stack() -> None:
    bert = BertTextConfig(vocab_size=20, context=8, width=12, layers=2, heads=2, mlp_width=16)
    found = rates(DualEncoder(DualEncoderConfig(text=bert, dim=12, text_projection="none")), 0.5)
    assert found["log_scale"] == 1.0
    assert found["text.embedding.weight"] == found["text.types.weight"] == found["text.norm.bias"] == 0.5**3
    assert found["text.transformer.blocks.1.norm1.weight"] == 0.5

    recurrent = RecurrentTextConfig(vocab_size=20, width=12)
    net = EfficientNetConfig(variant="lite0", image_size=32)
    found = rates(DualEncoder(DualEncoderConfig(image=net, text=recurrent, dim=6)), 0.9)
    assert {rate for name, rate in found.items() if name.startswith("text.")} == {1.0}
    assert near(found["image.net.blocks.0.project.weight"], 0.9**16)
    assert near(found["image.net.stem.weight"], 0.9**17)
    assert found["image.net.head.weight"] == 1.0
    leaves = nn.ModuleDict({"first": nn.Linear(3, 3), "norms": nn.ModuleList([nn.LayerNorm(3), nn.LayerNorm(3)])})
    assert set(rates(leaves, 0.5).values()) == {1.0}


def depths(name: str) -> dict[str, float]:
    """Of the parameters of a preset: how many times the rate is halved."""
    return {parameter: -math.log2(rate) for parameter, rate in rates(build(presets()[name]), 0.5).items()}


def at(found: dict[str, float], *starts: str) -> set[float]:
    """Of the parameters whose names start so."""
    return {depth for name, depth in found.items() if name.startswith(starts)}


@pytest.mark.parametrize(
    ("name", "feeds"),
    [
        ("mini", {"image.class_token", "image.patches", "image.positions", "image.pre_norm", "text.embedding", "text.positions"}),
        ("mini-rn", {"text.embedding", "text.positions"}),
        ("mini-effnet", {"image.net.stem", "image.net.norm0", "text.embedding", "text.positions", "text.types", "text.norm"}),
        ("mini-vlmo", {"image", "text", "kinds"}),
        ("mini-albef", {"text", "image.class_token", "image.patches", "image.positions"}),
    ],
)
def test_only_blocks_and_what_feeds_them_learn_slower(name: str, feeds: set[str]) -> None:
    """A tower without blocks feeds no other tower, and a scale feeds nothing, whichever module holds it."""
    found = depths(name)
    lowered = {parameter for parameter, depth in found.items() if depth and ".blocks." not in parameter}
    assert lowered == {parameter for parameter in found if any(f"{parameter}.".startswith(f"{part}.") for part in feeds)}
    assert found["log_scale"] == 0


def test_what_feeds_is_one_below_its_own_blocks() -> None:
    convolutional, together, albef = depths("mini-rn"), depths("mini-vlmo"), depths("mini-albef")
    assert at(convolutional, "image") == {0} and at(convolutional, "text.embedding", "text.positions") == {3}
    assert at(together, "image.", "text.", "kinds.") == {4} and at(together, "transformer.blocks.0.") == {3}
    assert at(albef, "text.") == {4} and at(albef, "transformer.blocks.2.") == {1} and at(albef, "image.patches") == {4}


def test_places_of_frames_feed_the_frames_blocks_and_their_picture_tower_is_counted_by_itself() -> None:
    found = depths("mini-frames-text")
    assert at(found, "video.positions") == {2} and at(found, "video.transformer") == {1}
    assert at(found, "video.image.transformer.blocks.2.") == {1} and at(found, "video.image.patches") == {4}


def test_an_attention_pool_is_counted_by_itself() -> None:
    pooled = rates(DualEncoder(DualEncoderConfig(image=VIT.model_copy(update={"pooling": "attention"}), text=TEXT, dim=6)), 0.5)
    assert pooled["image.patches.weight"] == 0.5**4
    assert pooled["image.transformer.blocks.0.norm1.weight"] == 0.5**3
    assert pooled["image.post_norm.weight"] == 1.0


def test_an_adapter_learns_as_its_block_does() -> None:
    view = adapt.attach(DualEncoder(DualEncoderConfig(image=VIT, text=TEXT, dim=6)), adapt.LoraConfig(rank=2))
    found = {id(p): group["factor"] for group in groups(view, 0.1, None, 0.5) for p in group["params"]}
    by_name = {name: found[id(p)] for name, p in view.named_parameters() if p.requires_grad}
    assert by_name["image.transformer.blocks.0.attention.q.lora.a"] == 0.5**3
    assert by_name["text.transformer.blocks.1.attention.v.lora.b"] == 0.5
    assert len(by_name) == 2 * 2 * (3 + 2)


def test_one_update_moves_by_its_rate() -> None:
    """Adam's first update moves every weight by the rate itself, whatever the gradient."""
    torch.manual_seed(0)
    model = DualEncoder(DualEncoderConfig(image=VIT, text=TEXT, dim=6))
    config = OptimConfig(lr=1e-3, layer_decay=0.5, weight_decay=0, eps=1e-12)
    made = optimizer(model, config)
    for group in made.param_groups:  # as the trainer does before each update
        group["lr"] = config.lr * group["factor"]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    (model.encode("image", pixels) * torch.randn(4, 6)).sum().backward()
    made.step()
    for name, expected in (
        ("image.patches.weight", 2**-4),
        ("image.transformer.blocks.1.feed_forward.up.weight", 2**-2),
        ("image_head.weight", 1),
    ):
        moved = (model.get_parameter(name) - before[name]).abs().max()
        assert float(moved.detach()) == pytest.approx(1e-3 * expected, rel=1e-2)


@pytest.mark.parametrize("decay", [0.0, 1.5])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValidationError, match="layer_decay"):
        OptimConfig(layer_decay=decay)
