"""Options of the towers that no preset takes: how a ViT pools, where its positions come from, dropped patches; how weights start."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tonggan.config import Config, ConfigError
from tonggan.models.towers import (
    BeitConfig,
    BertTextConfig,
    FramesConfig,
    LogMelConfig,
    RecurrentTextConfig,
    ResNetConfig,
    TransformerTextConfig,
    TubeletConfig,
    ViT,
    ViTConfig,
    WaveformConfig,
    build_image,
    build_text,
)
from tonggan.nn.conv import Bottleneck, EfficientNet
from tonggan.tensors import pad


def vit(**options: Any) -> ViT:
    tower = build_image(ViTConfig(image_size=32, patch_size=8, width=24, layers=2, heads=3, mlp_width=48, **options))
    assert isinstance(tower, ViT)
    return tower


@pytest.mark.parametrize(
    ("config", "changes", "field"),
    [
        (ViTConfig, {"layers": -1}, "layers: -1"),
        (ViTConfig, {"heads": 0}, "heads: 0"),
        (ViTConfig, {"patch_keep": -0.5}, "patch_keep: -0.5"),
        (ResNetConfig, {"layers": [3, 0, 6]}, "layers.1: 0"),
        (ResNetConfig, {"layers": []}, "layers: "),
        (BeitConfig, {"layers": 0}, "layers: 0"),
        (TransformerTextConfig, {"layers": 0}, "layers: 0"),
        (BertTextConfig, {"padding_id": -1}, "padding_id: -1"),
        (RecurrentTextConfig, {"layers": 0}, "layers: 0"),
        (LogMelConfig, {"layers": -3}, "layers: -3"),
        (WaveformConfig, {"position_layers": 0}, "position_layers: 0"),
        (TubeletConfig, {"layers": 0}, "layers: 0"),
        (FramesConfig, {"image": {"kind": "vit"}, "pooling": "transformer", "layers": 0}, "layers: 0"),
    ],
)
def test_sizes_with_which_a_tower_would_silently_be_another_are_refused(config: type[Config], changes: dict[str, Any], field: str) -> None:
    """A stack of -1 blocks is one of none, and -1 as an id is the last."""
    with pytest.raises(ConfigError, match=field):
        config.parse(changes)


@pytest.mark.parametrize("pooling", ["class", "mean", "attention"])
@pytest.mark.parametrize("positions", ["learned", "sinusoids"])
def test_every_pooling_with_every_kind_of_positions_trains(pooling: str, positions: str) -> None:
    tower = vit(pooling=pooling, positions=positions)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert tower.tokens(pixels).states.shape == (2, 16 + (pooling == "class"), 24)
    tower(pixels).square().sum().backward()
    for name, parameter in tower.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
    assert ("positions.weight" in tower.state_dict()) == (positions == "learned"), "what is computed is not saved"


def test_it_matters_where_a_patch_is() -> None:
    for positions in ("learned", "sinusoids"):
        tower = vit(pooling="mean", positions=positions).eval()
        pixels = torch.randn(1, 3, 32, 32)
        assert not torch.allclose(tower(pixels.flip(3).roll(8, 2)), tower(pixels), atol=1e-3)


def test_patches_are_dropped_in_training_only_and_again_the_same_from_the_same_seed() -> None:
    tower, whole = vit(patch_keep=0.25), vit()
    whole.load_state_dict(tower.state_dict())
    pixels = torch.randn(3, 3, 32, 32)
    assert tower.tokens(pixels).states.shape[1] == 4 + 1
    torch.manual_seed(7)
    first = tower(pixels)
    torch.manual_seed(7)
    assert torch.equal(tower(pixels), first), "GradCache replays a forward from the generator's state"
    assert not torch.allclose(tower(pixels), first)
    assert torch.equal(tower.eval()(pixels), whole.eval()(pixels))


@pytest.mark.parametrize("layers", [2, 8])
def test_transformers_start_as_clips_do(layers: int) -> None:
    """Deviations of CLIP's code; what a branch adds shrinks with depth."""
    text = build_text(TransformerTextConfig(vocab_size=500, context=60, width=96, layers=layers, heads=3, mlp_width=384))
    state = text.state_dict()
    expected = {
        "embedding.weight": 0.02,
        "positions.weight": 0.01,
        "transformer.blocks.1.attention.q.weight": 96**-0.5,
        "transformer.blocks.1.attention.out.weight": 96**-0.5 * (2 * layers) ** -0.5,
        "transformer.blocks.1.feed_forward.up.weight": (2 * 96) ** -0.5,
        "transformer.blocks.1.feed_forward.down.weight": 96**-0.5 * (2 * layers) ** -0.5,
    }
    for name, deviation in expected.items():
        assert float(state[name].std()) == pytest.approx(deviation, rel=0.05), name
        assert abs(float(state[name].mean())) < 0.05 * deviation, name


def test_bottlenecks_start_as_the_identity_on_what_is_positive() -> None:
    net = build_image(ResNetConfig(image_size=64, layers=(2, 2), base=8, heads=4))
    last = [m for m in net.modules() if isinstance(m, Bottleneck)][-1].eval()
    x = torch.rand(1, 64, 4, 4)
    assert torch.equal(last(x), x)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_recurrent_text_is_the_same_alone_and_beside_longer_ones(cell: str, bidirectional: bool) -> None:
    tower = build_text(RecurrentTextConfig(cell=cell, vocab_size=50, width=12, layers=2, bidirectional=bidirectional)).eval()  # type: ignore[arg-type]
    rows = [[1, 5, 9, 2], [1, 2], [1, *range(3, 20), 2]]
    together = tower(pad(rows))
    assert together.shape == (3, tower.width) and tower.width == 12 * (1 + bidirectional)
    for i, row in enumerate(rows):
        assert torch.allclose(tower(pad([row]))[0], together[i], atol=1e-6)


def test_a_temperature_is_learnt_itself_and_held_above_the_ceilings_inverse() -> None:
    """ALIGN's: the gradient is that of the temperature, and a step's ceiling reaches through to it."""
    from tonggan.models import DualEncoder, presets
    from tonggan.steps.contrastive import ContrastiveConfig, ContrastiveStep

    config = presets()["mini-align"].model_copy(update={"max_scale": 20.0})
    model = DualEncoder(config)  # type: ignore[arg-type]
    temperature = model.parametrizations["log_scale"].original  # type: ignore[index]
    assert temperature.shape == (1,) and float(temperature) == pytest.approx(0.07)
    (model.log_scale.exp() * 3).backward()
    assert float(temperature.grad) == pytest.approx(-3 / 0.07**2, rel=1e-4)
    step = ContrastiveStep(model, ContrastiveConfig())
    step.after_update()
    assert float(temperature) == pytest.approx(0.07), "below the ceiling nothing is touched"
    with torch.no_grad():
        temperature.fill_(0.01)
    step.after_update()
    assert float(temperature) == pytest.approx(1 / 20, rel=1e-4) and float(model.log_scale.exp()) < 20


def test_branches_are_left_out_in_training_only_and_more_often_towards_the_end() -> None:
    net = EfficientNet("b0", factors=(0.5, 1.0), drop_connect=0.5)
    drops = [block.drop for block in net.blocks]
    assert drops == sorted(drops) and drops[0] == 0 and drops[-1] == pytest.approx(0.5 * 15 / 16)
    block = next(block for block in net.blocks if block.residual)
    block.drop = 0.5
    x = torch.randn(64, block.project.out_channels, 4, 4)
    out = block.train()(x)
    alone = torch.tensor([torch.equal(a, b) for a, b in zip(out, x, strict=True)])
    assert 10 < int(alone.sum()) < 54, "about half of the pictures pass by the branch"
    assert not torch.equal(block.eval()(x)[0], x[0])


def test_an_efficientnet_has_the_blocks_that_are_named_odd() -> None:
    EfficientNet("b0", odd=(0, 15))
    with pytest.raises(ValueError, match="odd: no block 16; b0 has 16, counted from 0"):
        EfficientNet("b0", odd=(0, 16))


def test_lite_and_named_sizes_are_as_wide_as_they_say() -> None:
    from tonggan.models.towers import EfficientNetConfig

    for settings in ({"variant": "lite2"}, {"variant": "b2"}, {"variant": "b7", "head": False}, {"variant": "b0", "factors": (0.5, 0.2)}):
        config = EfficientNetConfig.parse(settings)
        with torch.device("meta"):
            assert build_image(config).width == config.width
