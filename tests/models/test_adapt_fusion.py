"""Prompts in front of systems that read pictures and words together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tonggan.models import CoAttentionConfig, SingleStreamConfig, VLMoConfig, adapt, build
from tonggan.models.adapt import AdaptConfig, LoraConfig, PromptConfig
from tonggan.models.cross import CrossTextConfig
from tonggan.models.streams import PatchesConfig, WordsConfig
from tonggan.models.towers import ViTConfig
from tonggan.tensors import Tokens
from tonggan.types import UsageError

MEASURES: dict[str, Any] = {"width": 21, "layers": 3, "heads": 3, "mlp_width": 25}
PICTURES, WORDS = PatchesConfig(image_size=24, patch_size=8), WordsConfig(vocab_size=37, context=9)
TOGETHER: dict[str, Any] = {
    "vlmo": VLMoConfig(image=PICTURES, text=WORDS, fused_layers=1, dim=11, **MEASURES),
    "vlmo without fused experts": VLMoConfig(image=PICTURES, text=WORDS, fused_layers=0, dim=11, **MEASURES),
    "vilt": SingleStreamConfig(image=PICTURES, text=WORDS, **MEASURES),
}


def made(config: Any) -> Any:
    """Weights large enough that every layer matters."""
    torch.manual_seed(0)
    module = build(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def inputs() -> tuple[Tensor, Tokens]:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (3, 3, 24, 24), generator=generator, dtype=torch.uint8)
    return pixels, Tokens(torch.randint(1, 37, (3, 7), generator=generator), torch.tensor([7, 4, 1]))


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("deep", [False, True])
def test_prompts_are_seen_learn_and_never_look_at_padding(name: str, deep: bool) -> None:
    base = made(TOGETHER[name])
    view: Any = adapt.attach(base, PromptConfig(length=2, deep=deep)).eval()
    pixels, tokens = inputs()
    prompts = view.get_parameter("transformer.prompts")
    with torch.no_grad():
        prompts.copy_(torch.randn_like(prompts))
    states = view.states(tokens, pixels)
    assert states.shape == base.states(tokens, pixels).shape
    assert not torch.allclose(states, base.states(tokens, pixels), atol=1e-2)
    view.match(pixels, tokens).square().sum().backward()
    assert bool((prompts.grad.abs().amax(dim=(1, 2)) > 0).all())
    with torch.no_grad():
        alone = view.match(pixels[1:2], Tokens(tokens.ids[1:2, :4], tokens.lengths[1:2]))
        torch.testing.assert_close(alone, view.match(pixels, tokens)[1:2], rtol=1e-5, atol=1e-5)


def test_prompts_are_no_different_from_more_words_of_the_row() -> None:
    """Vectors in front of a row, through the plain blocks: what comes out behind them is what the view gives."""
    base = made(TOGETHER["vlmo"])
    view: Any = adapt.attach(base, PromptConfig(length=2)).eval()
    pixels, _ = inputs()
    with torch.no_grad():
        x = base.image(pixels) + base.kinds["image"]
        front = view.get_parameter("transformer.prompts")[0].expand(3, -1, -1)
        longer = base.transformer(torch.cat([front, x], dim=1), route=(("image", 2 + x.shape[1]),))
        torch.testing.assert_close(view.states(None, pixels), base.norm(longer[:, 2:]), rtol=0, atol=1e-5)


CROSSED = CoAttentionConfig(
    image=ViTConfig(image_size=24, patch_size=8, width=27, layers=2, heads=3, mlp_width=31, pre_norm=False, patch_bias=True),
    text=CrossTextConfig(vocab_size=37, context=9, cross_from=1, **MEASURES),
    dim=11,
)


def test_blocks_that_are_not_always_read_take_no_prompts_and_the_picture_tower_does() -> None:
    base = made(CROSSED)
    with pytest.raises(UsageError, match=r"not all input goes through all blocks of transformer, .* name other parts"):
        adapt.attach(base, PromptConfig(length=2, parts=("transformer",)))
    view: Any = adapt.attach(base, PromptConfig(length=2, parts=("image",))).eval()
    pixels, tokens = inputs()
    view.match(pixels, tokens).square().sum().backward()
    assert bool(view.get_parameter("image.transformer.prompts").grad.any())


@pytest.mark.parametrize("config", [LoraConfig(parts=("visual",)), PromptConfig(whole=("visual",))])
def test_parts_that_are_not_there_are_told_those_that_are(config: AdaptConfig) -> None:
    with pytest.raises(UsageError, match="there are: image, text, kinds, transformer, norm, pooler, word_head, match_head, and parts"):
        adapt.attach(made(TOGETHER["vilt"]), config)
