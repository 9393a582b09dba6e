"""Adapters: what starts as the base, learns little, merges, and leaves the base as it was to the last bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from tonggan.config import ConfigError
from tonggan.models import DualEncoder, DualEncoderConfig, adapt
from tonggan.models.adapt import AdaptConfig, BottleneckConfig, DoraConfig, LoraConfig, ProbeConfig, PromptConfig
from tonggan.models.towers import BertTextConfig, EfficientNetConfig, ResNetConfig, TransformerTextConfig, ViTConfig
from tonggan.steps.contrastive import ContrastiveConfig, ContrastiveStep
from tonggan.tensors import Batch, Mask, Tokens
from tonggan.types import UsageError

KINDS: dict[str, AdaptConfig] = {
    "lora": LoraConfig(rank=3, alpha=5, targets=("attention.q", "attention.v", "feed_forward.up")),
    "rslora": LoraConfig(rank=3, alpha=5, rslora=True, parts=("image",)),
    "dora": DoraConfig(rank=3, alpha=5, whole=("text_head",)),
    "serial": BottleneckConfig(width=5),
    "parallel": BottleneckConfig(width=5, form="parallel", scale=4.0, parts=("text",)),
    "prompt": PromptConfig(length=3),
    "deep prompt": PromptConfig(length=3, deep=True),
    "probe": ProbeConfig(),
}
MERGEABLE = ("lora", "rslora", "dora", "probe")


def model(text: str = "clip") -> DualEncoder:
    """Odd sizes; weights large enough that every layer matters."""
    torch.manual_seed(0)
    towers = {
        "clip": TransformerTextConfig(vocab_size=37, context=9, width=21, layers=2, heads=3, mlp_width=25, activation="quick_gelu"),
        "bert": BertTextConfig(vocab_size=37, context=9, width=21, layers=2, heads=3, mlp_width=25),
    }
    image = ViTConfig(image_size=24, patch_size=8, width=27, layers=3, heads=3, mlp_width=31)
    made = DualEncoder(DualEncoderConfig(image=image, text=towers[text], dim=11))
    return trained(made).eval()


def trained(module: nn.Module) -> nn.Module:
    """Every trainable parameter moved."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def inputs() -> tuple[Tensor, Tokens]:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (3, 3, 24, 24), generator=generator, dtype=torch.uint8)
    ids = torch.randint(1, 37, (3, 7), generator=generator)
    return pixels, Tokens(ids, torch.tensor([7, 4, 1]))


@torch.no_grad()
def vectors(module: nn.Module) -> Tensor:
    assert isinstance(module, DualEncoder)
    pixels, tokens = inputs()
    return torch.cat([module.encode("image", pixels), module.encode("text", tokens)])


def bits(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["clip", "bert"])
def test_only_the_adapter_learns_and_the_base_stays_bit_identical(kind: str, text: str) -> None:
    base, config = model(text), KINDS[kind]
    kept, before = bits(base), vectors(base)
    view = adapt.attach(base, config)
    if "prompt" not in kind:
        torch.testing.assert_close(vectors(view), before, rtol=0, atol=1e-6)
    own = adapt.own(view, base, config)
    assert {name for name, p in view.named_parameters() if p.requires_grad} == set(own)
    assert all(name in kept for name in own) == (kind == "probe")
    step = ContrastiveStep(view, ContrastiveConfig())
    optimizer = torch.optim.AdamW([p for p in view.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    pixels, tokens = inputs()
    view.train()
    for module in adapt.still(view, config):
        module.eval()
    batch = Batch(("a", "b", "c"), pixels, tokens)
    first = step(batch).loss
    for _ in range(3):
        optimizer.zero_grad()
        step(batch).loss.backward()
        assert all(view.get_parameter(name).grad is not None for name in own)
        optimizer.step()
        step.after_update()
    assert float(step(batch).loss.detach()) < float(first.detach())
    assert same(bits(base), kept)
    assert torch.equal(vectors(base), before)
    assert not torch.allclose(vectors(view.eval()), before, atol=1e-3)


def test_a_frozen_scale_at_its_ceiling_stays() -> None:
    """Published CLIP's scale is exactly 100; holding it a hair below would change the base."""
    base = model()
    with torch.no_grad():
        base.log_scale.fill_(torch.log(torch.tensor(100.0)))
    kept = bits(base)
    ContrastiveStep(adapt.attach(base, KINDS["lora"]), ContrastiveConfig()).after_update()
    assert same(bits(base), kept)


@pytest.mark.parametrize("kind", MERGEABLE)
def test_merged_is_plain_and_computes_the_same(kind: str) -> None:
    base, config = model(), KINDS[kind]
    before = bits(base)
    view = trained(adapt.attach(base, config))
    plain = adapt.merge(view)
    assert plain.state_dict().keys() == before.keys()
    assert not adapt.is_adapted(plain)
    expected = vectors(view)
    assert float((vectors(plain) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert not torch.allclose(expected, vectors(base), atol=1e-3)
    assert same(bits(base), before)
    with torch.no_grad():  # its weights are its own
        for parameter in plain.parameters():
            parameter.zero_()
    assert same(bits(base), before)


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - set(MERGEABLE)))
def test_what_cannot_be_merged_is_refused(kind: str) -> None:
    with pytest.raises(UsageError, match="only LoRA and DoRA can be merged"):
        adapt.merge(adapt.attach(model(), KINDS[kind]))


def test_gradients_of_the_merged_weights_agree() -> None:
    """dL/dB of the adapter is s dL/dW Aᵀ of the merged layer, and dL/dA is s Bᵀ dL/dW (Hu et al. 2022)."""
    config = KINDS["lora"]
    assert isinstance(config, LoraConfig)
    view = trained(adapt.attach(model(), config))
    plain = adapt.merge(view)
    pixels, tokens = inputs()
    goal = torch.randn(3, 3)
    for module in (view, plain):
        (goal * (module.encode("image", pixels) @ module.encode("text", tokens).T)).sum().backward()
    place = "text.transformer.blocks.1.feed_forward.up"
    lora, weight = view.get_submodule(f"{place}.lora"), plain.get_parameter(f"{place}.weight").grad
    for found, expected in ((lora.b.grad, config.scale * weight @ lora.a.T), (lora.a.grad, config.scale * lora.b.T @ weight)):
        assert float((found - expected).detach().abs().max()) <= 1e-4 * float(expected.detach().abs().max())


def test_adapters_of_several_threads_do_not_disturb_each_other() -> None:
    base = model()
    views = [base, *(trained(adapt.attach(base, KINDS[kind])).eval() for kind in ("lora", "dora", "deep prompt", "serial"))]
    expected = [vectors(view) for view in views]
    assert all(not torch.allclose(a, b, atol=1e-3) for i, a in enumerate(expected) for b in expected[:i])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: vectors(views[i]), [i % 5 for i in range(40)]))
    assert all(torch.equal(vector, expected[i % 5]) for i, vector in enumerate(found))


def test_one_adapter_for_pictures_and_another_for_texts() -> None:
    base = model()
    torch.manual_seed(1)
    image = trained(adapt.attach(base, LoraConfig(rank=2, parts=("image",))))
    both = trained(adapt.attach(image, PromptConfig(length=2, parts=("text",))))
    found, of_image, of_base = vectors(both), vectors(image), vectors(base)
    assert torch.equal(found[:3], of_image[:3])
    assert torch.equal(of_image[3:], of_base[3:])
    assert not torch.allclose(found[3:], of_base[3:], atol=1e-3)
    with pytest.raises(UsageError, match=r"image\.transformer\.blocks\.0\.attention\.q has an adapter already"):
        adapt.attach(image, LoraConfig())


@pytest.mark.parametrize("text", ["clip", "bert"])
@pytest.mark.parametrize("deep", [False, True])
def test_prompts_ignore_padding_and_are_seen(text: str, deep: bool) -> None:
    view = trained(adapt.attach(model(text), PromptConfig(length=3, deep=deep)))
    assert isinstance(view, DualEncoder)
    _, tokens = inputs()
    whole = view.encode("text", tokens)
    for row, length in enumerate(tokens.lengths):
        alone = view.encode("text", Tokens(tokens.ids[row : row + 1, :length], tokens.lengths[row : row + 1]))
        assert float((alone[0] - whole[row]).detach().abs().max()) <= 1e-5
    places = 2 if deep else 1
    prompts = view.get_parameter("text.transformer.prompts")
    assert prompts.shape == (places, 3, 21)
    whole.sum().backward()
    assert prompts.grad is not None
    assert all(float(of_block.abs().sum()) > 0 for of_block in prompts.grad)


def test_prompts_equal_tokens_that_are_put_in_by_hand() -> None:
    """The blocks of the base, given the prompts as ordinary input in front, give the same states behind them."""
    base = model("bert")
    view = trained(adapt.attach(base, PromptConfig(length=3, parts=("text",))))
    x, lengths = torch.randn(2, 5, 21), torch.tensor([5, 2])
    prompts = view.get_parameter("text.transformer.prompts")
    blocks = base.get_submodule("text.transformer")
    by_hand = blocks(torch.cat([prompts.expand(2, -1, -1), x], dim=1), mask=Mask(lengths=lengths + 3))[:, 3:]
    torch.testing.assert_close(view.get_submodule("text.transformer")(x, mask=Mask(lengths=lengths)), by_hand)
    with pytest.raises(UsageError, match="padded on the left"):
        view.get_submodule("text.transformer")(x, mask=Mask(starts=torch.tensor([0, 3])))


def test_a_bottleneck_is_where_the_paper_has_it() -> None:
    base = model()
    serial, parallel = (trained(adapt.attach(base, BottleneckConfig(width=5, form=form))) for form in ("serial", "parallel"))
    x = torch.randn(2, 27)
    linear = serial.get_submodule("image.transformer.blocks.0.attention.out")
    y = base.get_submodule("image.transformer.blocks.0.attention.out")(x)
    down, up = linear.bottleneck.down, linear.bottleneck.up
    torch.testing.assert_close(linear(x), y + up(torch.nn.functional.gelu(down(y))))
    assert [name for name in adapt.own(serial, base, BottleneckConfig()) if ".blocks.0." in name and name.endswith("down.weight")] == [
        f"{tower}.transformer.blocks.0.{place}.bottleneck.down.weight"
        for tower in ("image", "text")
        for place in ("attention.out", "feed_forward.down")
    ]
    x = torch.randn(2, 4, 27)
    feed_forward = parallel.get_submodule("image.transformer.blocks.0.feed_forward")
    down, up = feed_forward.bottleneck.down, feed_forward.bottleneck.up
    expected = base.get_submodule("image.transformer.blocks.0.feed_forward")(x) + up(torch.nn.functional.gelu(down(x)))
    torch.testing.assert_close(feed_forward(x), expected)


def test_batch_norms_of_the_base_stay() -> None:
    torch.manual_seed(0)
    image = EfficientNetConfig(variant="lite0", image_size=32)
    text = TransformerTextConfig(vocab_size=37, context=9, width=21, layers=1, heads=3, mlp_width=25)
    base = DualEncoder(DualEncoderConfig(image=image, text=text, dim=11)).eval()
    config = LoraConfig(parts=("text",), whole=("image.net.norm1",))
    kept, view = bits(base), adapt.attach(base, config).train()
    still = adapt.still(view, config)
    for module in still:
        module.eval()
    view.encode("image", torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    assert same(bits(base), kept)
    moved = {name for name, tensor in view.state_dict().items() if name in kept and not torch.equal(tensor, kept[name])}
    assert moved == {f"image.net.norm1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


def test_a_probe_has_no_parts() -> None:
    """They would say that only one head is to learn, and both did."""
    with pytest.raises(
        ConfigError, match=r"a probe puts nothing into parts \(text\); name what learns in whole, e\.g\. whole: \[text_head\]"
    ):
        ProbeConfig.parse({"kind": "probe", "parts": ["text"]})
    view = adapt.attach(model(), ProbeConfig(whole=("text_head",)))
    assert {name for name, p in view.named_parameters() if p.requires_grad} == {"text_head.weight"}


WRONG: dict[str, tuple[Callable[[], AdaptConfig], str]] = {
    "part": (lambda: LoraConfig(parts=("imgae",)), r"no part 'imgae' \(did you mean 'image'\?\)"),
    "whole": (lambda: LoraConfig(whole=("image_haed",)), r"no part 'image_haed' \(did you mean 'image_head'\?\)"),
    "target": (lambda: LoraConfig(targets=("attention.query",)), r"no linear layer 'attention.query'.*attention\.q"),
    "half a name": (lambda: LoraConfig(targets=("ttention.q",)), "no linear layer 'ttention.q'"),
    "blocks": (lambda: PromptConfig(parts=("image_head",)), "there is no Transformer in image_head"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_there_is_named(what: str) -> None:
    made, message = WRONG[what]
    base = model()
    with pytest.raises(UsageError, match=message):
        adapt.attach(base, made())


def test_convolutions_have_no_linear_layers() -> None:
    text = TransformerTextConfig(vocab_size=37, context=9, width=21, layers=1, heads=3, mlp_width=25)
    image = ResNetConfig(image_size=32, layers=(1, 1, 1, 1), base=8, block="basic", stem="small", pooling="mean")
    base = DualEncoder(DualEncoderConfig(image=image, text=text, dim=11))
    with pytest.raises(UsageError, match=r"no linear layer 'attention\.q'; there are: none"):
        adapt.attach(base, LoraConfig(parts=("image",)))


def test_a_copy_of_a_view_is_whole() -> None:
    """What an averaged teacher or a worker process does with a model."""
    view = trained(adapt.attach(model(), KINDS["dora"])).eval()
    assert torch.equal(vectors(copy.deepcopy(view)), vectors(view))
