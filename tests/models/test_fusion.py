"""Systems in which a picture meets its text before the end: contracts of the small presets, routes, equivalences, published sizes."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tonggan.config import ConfigError
from tonggan.models import LateFusionConfig, SingleStreamConfig, VLMo, VLMoConfig, build, parse, presets
from tonggan.models.base import Embedder, Labeller, Matcher, WordPredictor
from tonggan.models.cross import CoAttention, CoAttentionConfig, CrossTextConfig
from tonggan.models.streams import PatchesConfig, WordsConfig
from tonggan.models.towers import Bert, BertTextConfig, FramesConfig, ViT, ViTConfig
from tonggan.models.vilt import SingleStream
from tonggan.nn.experts import Experts
from tonggan.nn.transformer import FeedForward
from tonggan.objectives.matching import matching
from tonggan.tensors import Tokens, pad
from tonggan.types import UsageError

CAN: dict[str, set[type]] = {
    "mini-vlmo": {Embedder, Matcher, WordPredictor},
    "mini-vilt": {Matcher, WordPredictor},
    "mini-albef": {Embedder, Matcher, WordPredictor},
    "mini-blip": {Embedder, Matcher},
    "mini-late": {Matcher},
}
PATCHES = PatchesConfig(image_size=12, patch_size=4)
SMALL: dict[str, Any] = {"width": 15, "heads": 3, "mlp_width": 22, "layers": 2}


def data(n: int, side: int = 64) -> tuple[Tensor, Tokens]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    return pixels, pad([[1, *torch.randint(5, 40, (2 + i % 5,), generator=generator).tolist(), 2] for i in range(n)])


def answers(model: Any, pixels: Tensor, tokens: Tokens) -> dict[str, Tensor]:
    """All that a model can say of pictures with their texts; of words only those that are there."""
    found: dict[str, Tensor] = {}
    if isinstance(model, Embedder):
        found |= {"image": model.encode("image", pixels), "text": model.encode("text", tokens)}
    if isinstance(model, Matcher):
        found["match"] = model.match(pixels, tokens)
    if isinstance(model, WordPredictor):
        found["words"] = model.words(tokens, pixels)[:, : int(tokens.lengths[0])]
    return found


@pytest.mark.parametrize("name", CAN)
def test_mini_presets_keep_every_contract(name: str) -> None:
    model: Any = build(presets()[name]).eval()
    assert {offer for offer in (Embedder, Matcher, WordPredictor) if isinstance(model, offer)} == CAN[name]
    assert sum(p.numel() for p in model.parameters()) < 5_000_000
    pixels, tokens = data(5)
    with torch.no_grad():
        whole = answers(model, pixels, tokens)
        length = int(tokens.lengths[0])
        alone = answers(model, pixels[:1], Tokens(tokens.ids[:1, :length], tokens.lengths[:1]))
        wide = answers(model, pixels, Tokens(F.pad(tokens.ids, (0, 9), value=7), tokens.lengths))
        again: Any = build(presets()[name]).eval()
        again.load_state_dict(model.state_dict())
        for kind, values in answers(again, pixels, tokens).items():
            assert torch.equal(values, whole[kind]), kind
            assert torch.allclose(alone[kind], whole[kind][:1], atol=1e-5), f"{kind}: the batch's size changes it"
            assert torch.allclose(wide[kind], whole[kind], atol=1e-5), f"{kind}: padding changes it"
    model.train()
    torch.stack([(values * torch.randn_like(values)).sum() for values in answers(model, pixels, tokens).values()]).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name != "log_scale":  # of the contrastive objective, not of the model's answers
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), parameter_name


@pytest.mark.slow
@pytest.mark.parametrize("name", CAN)
def test_mini_presets_learn_one_batch_by_heart(name: str) -> None:
    """All pairs of four pictures and four texts: neither alone tells which four are right, and chance is 0.56."""
    model: Any = build(presets()[name])
    pictures = torch.randint(0, 256, (4, 3, 2, 2), generator=torch.Generator().manual_seed(0)).float()
    tokens = data(4)[1]
    i, j = torch.arange(4).repeat_interleave(4), torch.arange(4).repeat(4)
    pixels = F.interpolate(pictures, size=64).to(torch.uint8)[i]
    pairs, labels = Tokens(tokens.ids[j], tokens.lengths[j]), (i == j).long()
    adam = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for _ in range(100):
        loss = matching(model.match(pixels, pairs), labels).loss
        if float(loss.detach()) < 0.25:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert float(loss.detach()) < 0.25


# ------------------------------------------------------------------------------------------------ VLMo


def vlmo(**changes: Any) -> VLMo:
    """Odd sizes, and weights large enough that nothing passes unnoticed."""
    made = VLMo(
        VLMoConfig(**{"image": PATCHES, "text": WordsConfig(vocab_size=41, context=9), "dim": 7, "fused_layers": 1, **SMALL, **changes})
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3)
    return made.eval()


def blocks_of(model: VLMo, expert: str) -> dict[str, Tensor]:
    """The Transformer's weights with one expert for the feed-forward."""
    state = {name: value for name, value in model.transformer.state_dict().items() if ".feed_forward." not in name or f".{expert}." in name}
    return {name.replace(f".feed_forward.{expert}.", ".feed_forward."): value for name, value in state.items()}


@torch.no_grad()
def test_the_picture_route_is_a_vit() -> None:
    model = vlmo(eps=1e-5)
    tower = ViT(ViTConfig(image_size=12, patch_size=4, pre_norm=False, patch_bias=True, **SMALL)).eval()
    tower.transformer.load_state_dict(blocks_of(model, "image"))
    tower.patches.load_state_dict(model.image.patches.state_dict())
    tower.post_norm.load_state_dict(model.norm.state_dict())
    assert tower.class_token is not None
    tower.class_token.copy_(model.image.class_token)
    # The modality's vector goes into the positions, of which a tower that reads pictures only has no more.
    tower.positions.weight.copy_(model.image.positions.weight + model.kinds["image"])
    pixels = data(3, 12)[0]
    assert torch.allclose(model.features("image", pixels), tower(pixels), atol=1e-5)


@torch.no_grad()
def test_the_text_route_is_bert() -> None:
    model = vlmo(order="post")
    tower = Bert(BertTextConfig(vocab_size=41, context=9, eps=1e-6, pooling="first", **SMALL)).eval()
    tower.transformer.load_state_dict(blocks_of(model, "text"))
    tower.embedding.load_state_dict(model.text.embedding.state_dict())
    tower.positions.load_state_dict(model.text.positions.state_dict())
    tower.norm.load_state_dict(model.text.norm.state_dict())
    tower.types.weight.zero_()
    tower.norm.bias += model.kinds["text"]
    tokens = data(5)[1]
    assert torch.allclose(model.features("text", tokens), tower(tokens), atol=1e-5)


def test_below_each_modality_has_its_expert_above_they_share_one() -> None:
    """By the gradients: which experts a route trains."""
    model = vlmo()
    pixels, tokens = data(2, 12)

    def trained(out: Tensor) -> set[str]:
        model.zero_grad()
        out.square().sum().backward()
        found = {name for name, p in model.transformer.named_parameters() if p.grad is not None and bool(p.grad.any())}
        return {f"{name.split('.')[1]} {name.split('.')[3]}" for name in found if "feed_forward" in name}

    assert trained(model.features("image", pixels)) == {"0 image", "1 image"}
    assert trained(model.features("text", tokens)) == {"0 text", "1 text"}
    assert trained(model.match(pixels, tokens)) == {"0 image", "0 text", "1 fused"}


SHARED = ("transformer.blocks.*.attention", "transformer.blocks.*.norm[12]", "transformer.blocks.*.scale[12]", "norm")


def test_staged_freezing_leaves_the_text_experts_alone_to_learn() -> None:
    """By the names that a recipe's `freeze` takes."""
    model = vlmo(layer_scale=0.1)
    for name, part in model.named_modules():
        if any(fnmatchcase(name, pattern) for pattern in (*SHARED, "image", "transformer.blocks.*.feed_forward.image")):
            part.requires_grad_(False)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    inner = {name for name in learning if name.startswith("transformer.")}
    assert inner == {name for name, _ in model.named_parameters() if ".text." in name or ".fused." in name}
    assert not {name for name in learning if name.startswith(("image.", "norm."))}
    before = model.features("image", data(2, 12)[0])
    loss = model.words(data(4)[1]).square().mean()
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.grad is not None:
                parameter -= parameter.grad
    assert torch.equal(model.features("image", data(2, 12)[0]), before), "what was learnt from pictures is kept"


def test_words_are_said_where_they_are_asked_for() -> None:
    model, (pixels, tokens) = vlmo(), data(3, 12)
    where = torch.zeros_like(tokens.ids, dtype=torch.bool)
    where[0, 1] = where[2, 3] = True
    assert torch.allclose(model.words(tokens, pixels, where=where), model.words(tokens, pixels)[where], atol=1e-5)
    assert not torch.allclose(model.words(tokens), model.words(tokens, pixels), atol=1e-2), "the picture is seen"


def test_left_padding_is_not_seen() -> None:
    model, pixels = vlmo(), data(2, 12)[0]
    ids = torch.tensor([[7, 7, 3, 4], [5, 6, 3, 4]])
    other = torch.tensor([[9, 8, 3, 4], [5, 6, 3, 4]])
    lengths, starts = torch.tensor([4, 4]), torch.tensor([2, 0])
    one, two = (model.states(Tokens(i, lengths, starts), pixels)[:, 2:] for i in (ids, other))
    assert torch.equal(one, two)


PUBLISHED = {"vlmo-base": 175, "vlmo-base-plus": 167, "vlmo-large": 562}


@pytest.mark.parametrize(("name", "millions"), PUBLISHED.items())
def test_published_sizes(name: str, millions: int) -> None:
    """Bao et al. 2022, table 1, and the authors' code for base-plus: the Transformer with its embeddings, rounded there to a million."""
    with torch.device("meta"):
        model = build(presets()[name])
    count = sum(p.numel() for part, p in model.named_parameters() if "_head" not in part)
    assert abs(count / 1e6 - millions) < 1


def test_the_route_must_be_as_long_as_the_rows() -> None:
    experts = Experts({"text": FeedForward(4, 6), "image": FeedForward(4, 6)})
    with pytest.raises(ValueError, match="for 5 tokens, the rows have 3"):
        experts(torch.randn(2, 3, 4), (("text", 2), ("image", 3)))


# -------------------------------------------------------------------------------------- single stream, co-attention, late fusion


def test_pictures_of_one_batch_do_not_depend_on_each_others_shape() -> None:
    config = SingleStreamConfig(image=PATCHES, text=WordsConfig(vocab_size=41, context=9), **SMALL)
    model, tokens = build(config).eval(), pad([[1, 5, 2], [1, 6, 7, 2]])
    assert isinstance(model, SingleStream)
    wide, high = torch.randn(1, 3, 8, 16), torch.randn(1, 3, 20, 4)
    together = torch.zeros(2, 3, 20, 16)
    valid = torch.zeros(2, 20, 16, dtype=torch.bool)
    for row, picture in enumerate((wide, high)):
        together[row, :, : picture.shape[2], : picture.shape[3]] = picture[0]
        valid[row, : picture.shape[2], : picture.shape[3]] = True
    with torch.no_grad():
        both = model.pooled(tokens, together, valid)
        for row, picture in enumerate((wide, high)):
            alone = model.pooled(Tokens(tokens.ids[row : row + 1], tokens.lengths[row : row + 1]), picture)
            assert torch.allclose(both[row], alone[0], atol=1e-5)


def test_a_stream_without_a_head_says_so_by_not_having_it() -> None:
    config = SingleStreamConfig(image=PATCHES, text=WordsConfig(vocab_size=41, context=9), **SMALL)
    bare = build(config.model_copy(update={"matching": "none", "words": False}))
    assert not isinstance(bare, Matcher) and not isinstance(bare, WordPredictor)
    one = build(config.model_copy(update={"matching": "one", "words": False}))
    assert isinstance(one, Matcher) and not isinstance(one, WordPredictor)
    pixels, tokens = data(2, 12)
    logits = one.match(pixels, tokens)
    assert logits.shape == (2, 2) and not bool(logits[:, 0].any())


def co_attention(cross_from: int) -> CoAttention:
    image = ViTConfig(image_size=12, patch_size=4, width=12, layers=1, heads=2, mlp_width=20, pre_norm=False, patch_bias=True)
    text = CrossTextConfig(vocab_size=41, context=9, cross_from=cross_from, **{**SMALL, "layers": 3})
    return CoAttention(CoAttentionConfig(image=image, text=text, dim=7)).eval()


@pytest.mark.parametrize(("cross_from", "read"), [(2, {0, 1}), (0, {0, 1, 2})], ids=["ALBEF", "BLIP"])
def test_a_text_alone_passes_the_blocks_before_the_first_cross_attention(cross_from: int, read: set[int]) -> None:
    model, tokens = co_attention(cross_from), data(2)[1]
    model.encode("text", tokens).sum().backward()
    used = {int(name.split(".")[1]) for name, p in model.transformer.named_parameters() if p.grad is not None}
    assert used == read
    crossed = {int(name.split(".")[1]) for name, _ in model.transformer.named_parameters() if ".cross." in name}
    assert crossed == set(range(cross_from, 3))


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("mini-albef", {"text": {"layers": 1}}, "cross_from 1 of 1 layers .*: no block would attend to pictures; set cross_from below 1"),
        ("mini-albef", {"text": {"cross_from": 7}}, "cross_from 7 of 3 layers"),
        ("mini-albef", {"text": {"cross_from": -1}}, "text.cross_from: -1: .*greater than or equal to 0"),
        ("mini-vlmo", {"fused_layers": 4}, "fused_layers 4 of 3 layers; set it to 3 at most"),
        ("mini-vlmo", {"fused_layers": -1}, "fused_layers: -1: .*greater than or equal to 0"),
        ("mini-vilt", {"kinds": 1}, "kinds: 1: .*greater than or equal to 2"),
        ("mini-vilt", {"text": {"type_vocab": -2}}, "text.type_vocab: -2"),
    ],
)
def test_blocks_that_there_are_not_are_refused(preset: str, changes: dict[str, Any], message: str) -> None:
    plain = presets()[preset].model_dump(mode="json")
    for name, value in changes.items():
        plain[name] = {**plain[name], **value} if isinstance(value, dict) else value
    with pytest.raises(ConfigError, match=message):
        parse(plain, "model")


def test_a_text_with_its_picture_is_read_as_the_picture_says() -> None:
    """Also where but one block attends to it, the last that there may be."""
    model, (pixels, tokens) = co_attention(2), data(2, 12)
    with torch.no_grad():
        seen, others = model.match(pixels, tokens), model.match(255 - pixels, tokens)
    assert float((seen - others).abs().max()) > 1e-4 * float(seen.abs().max())


def test_a_fixed_scale_is_no_weight() -> None:
    model = co_attention(0)
    fixed = CoAttention(model.config.model_copy(update={"scale_learned": False}))
    assert "log_scale" in dict(model.named_parameters()) and "log_scale" not in fixed.state_dict()
    assert torch.equal(fixed.log_scale, model.log_scale.detach())


@pytest.mark.parametrize("fusion", ["concatenation", "attention", "mlp"])
def test_late_fusion_classifies_any_towers(fusion: str) -> None:
    image = ViTConfig(image_size=12, patch_size=4, width=12, layers=1, heads=2, mlp_width=20)
    text = BertTextConfig(vocab_size=41, context=9, width=10, layers=1, heads=2, mlp_width=20)
    config = LateFusionConfig(
        image=image, text=text, video=FramesConfig(image=image, frames=2), fusion=fusion, width=8, task="classification", classes=5
    )
    model = build(config)
    assert isinstance(model, Labeller) and not isinstance(model, Matcher)
    pixels, tokens = data(3, 12)
    clips = torch.randint(0, 256, (3, 2, 3, 12, 12), dtype=torch.uint8)
    assert model.classify({"image": pixels, "text": tokens, "video": clips}).shape == (3, 5)
    with pytest.raises(UsageError, match="video is not given"):
        model.classify({"image": pixels, "text": tokens})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fusion": "concatenation"}, "whether two things match is in neither"),
        ({"classes": 3}, "two classes"),
        ({"text": None}, "two towers at least"),
    ],
)
def test_late_fusion_that_cannot_learn_is_refused(changes: dict[str, Any], message: str) -> None:
    plain = presets()["mini-late"].model_dump(mode="json") | changes
    with pytest.raises(ConfigError, match=message):
        parse(plain, "model")
