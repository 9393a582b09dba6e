"""Every preset through every contract; published sizes on `meta`; the parts that meet without training."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import AlignConfig, AlignModel, ChineseCLIPConfig, ChineseCLIPModel, SiglipConfig, SiglipModel

from models import test_captioner, test_chat_models, test_encoder_decoder, test_flamingo, test_fusion, test_gpt, test_sound_sight
from tonggan.config import ConfigError
from tonggan.hub.families import family_of_module
from tonggan.models import DualEncoder, DualEncoderConfig, build, parse, presets
from tonggan.models.conse import Centre, CentredHead, ConseConfig, ConseTower
from tonggan.models.ngram import BilingualText, BilingualTextConfig, NgramText
from tonggan.models.towers import BertTextConfig, EfficientNetConfig, ViTConfig
from tonggan.objectives.contrastive import info_nce, sigmoid
from tonggan.tensors import Tokens, pad

MINI = [
    name
    for name, config in presets().items()
    if name.startswith("mini") and isinstance(config, DualEncoderConfig) and config.image and config.text
]
PUBLISHED = {"vit-b-32": 151_277_313, "vit-b-16": 149_620_737, "vit-l-14": 427_616_513, "rn50": 102_007_137}


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_published_sizes(name: str, count: int) -> None:
    with torch.device("meta"):
        model = build(presets()[name])
    assert sum(p.numel() for p in model.parameters()) == count


def test_shapes_of_vit_b_32() -> None:
    with torch.device("meta"):
        state = build(presets()["vit-b-32"]).state_dict()
    expected = {
        "image.patches.weight": (768, 3, 32, 32),
        "image.class_token": (768,),
        "image.positions.weight": (50, 768),
        "image.transformer.blocks.11.feed_forward.up.weight": (3072, 768),
        "text.embedding.weight": (49408, 512),
        "text.positions.weight": (77, 512),
        "text.transformer.blocks.11.attention.q.bias": (512,),
        "image_head.weight": (512, 768),
        "text_head.weight": (512, 512),
        "log_scale": (1,),
    }
    assert {name: tuple(state[name].shape) for name in expected} == expected


def data(n: int) -> tuple[torch.Tensor, Tokens]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 3, 64, 64), generator=generator, dtype=torch.uint8)
    return pixels, pad([[1, *torch.randint(5, 300, (2 + i % 5,), generator=generator).tolist(), 2] for i in range(n)])


def loss_of(model: DualEncoder, pixels: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """InfoNCE, or what a model with a bias is for."""
    image, text = model.encode("image", pixels), model.encode("text", tokens)
    if model.bias is not None:
        return sigmoid(image, text, model.log_scale, model.bias, max_scale=model.max_scale).loss
    return info_nce(image, text, model.log_scale, max_scale=model.max_scale).loss


def test_every_mini_is_in_a_list_of_the_contracts() -> None:
    """And by that in those of what learns a batch by heart; the masked language model has both in tests/steps."""
    lists = [
        set(MINI),
        set(test_fusion.CAN),
        set(test_sound_sight.PAIRS),
        set(test_sound_sight.STUDENTS),
        {"mini-bert"},
        set(test_gpt.NAMES),
        set(test_flamingo.NAMES),
        set(test_encoder_decoder.NAMES),
        set(test_chat_models.NAMES),
        set(test_captioner.NAMES),
    ]
    assert set().union(*lists) == {name for name in presets() if name.startswith("mini")}


@pytest.mark.parametrize("name", MINI)
def test_mini_presets_keep_every_contract(name: str) -> None:
    torch.manual_seed(0)
    model = build(presets()[name])
    assert isinstance(model, DualEncoder)
    assert sum(p.numel() for p in model.parameters()) < 5_000_000
    pixels, tokens = data(5)
    model.eval()
    with torch.no_grad():
        image, text = model.encode("image", pixels), model.encode("text", tokens)
        assert torch.allclose(image.norm(dim=1), torch.ones(5), atol=1e-5)
        # The batch's size, and padding, change nothing.
        alone = model.encode("image", pixels[:1])
        assert torch.allclose(alone, image[:1], atol=1e-5)
        assert torch.allclose(model.encode("text", Tokens(tokens.ids[:1], tokens.lengths[:1])), text[:1], atol=1e-5)
        if name != "mini-siglip":  # it attends to its padding: all its batches have one length
            length = int(tokens.lengths[0])
            assert torch.allclose(model.encode("text", Tokens(tokens.ids[:1, :length], tokens.lengths[:1])), text[:1], atol=1e-5)
            wide = Tokens(F.pad(tokens.ids, (0, 9), value=7), tokens.lengths)
            assert torch.allclose(model.encode("text", wide), text, atol=1e-5)
        # Saved and loaded it is the same, and it gives the same twice.
        again = build(presets()[name])
        again.load_state_dict(model.state_dict())
        assert torch.equal(again.eval().encode("image", pixels), model.encode("image", pixels))  # type: ignore[union-attr]
    model.train()
    loss_of(model, pixels, tokens).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(parameter.grad.isfinite().all()), parameter_name


@pytest.mark.parametrize("name", [name if name == "mini" else pytest.param(name, marks=pytest.mark.slow) for name in MINI])
def test_mini_presets_overfit_one_batch(name: str) -> None:
    torch.manual_seed(0)
    model = build(presets()[name])
    assert isinstance(model, DualEncoder)
    pixels, tokens = data(16)
    # At the others' rate the sigmoid loss comes to rest at its chance: its bias starts so low that first all rows are pushed together.
    adam = torch.optim.AdamW(model.parameters(), lr=5e-4 if model.bias is not None else 2e-3)
    aim = 1.5 if model.bias is not None else 0.2  # chance is 3.7 and 2.8
    for _ in range(80):
        loss = loss_of(model, pixels, tokens)
        if float(loss.detach()) < aim:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert float(loss.detach()) < aim
    with torch.no_grad():
        scores = model.encode("image", pixels) @ model.encode("text", tokens).T
    assert scores.argmax(dim=0).tolist() == scores.argmax(dim=1).tolist() == list(range(16))


REFERENCES = {
    "siglip-b-16": lambda: SiglipModel(SiglipConfig()),
    "align-base": lambda: AlignModel(AlignConfig()),
    "chinese-clip-vit-b-16": lambda: ChineseCLIPModel(
        ChineseCLIPConfig(text_config={"vocab_size": 21128}, vision_config={"patch_size": 16}, projection_dim=512)
    ),
}
"""The library's own sizes: of google/siglip-base-patch16-224, kakaobrain/align-base and OFA-Sys/chinese-clip-vit-base-patch16."""


@pytest.mark.parametrize("name", REFERENCES)
def test_published_sizes_are_those_of_transformers(name: str) -> None:
    """Every tensor under its published name and in its shape, nothing in memory."""
    with torch.device("meta"):
        theirs, ours = REFERENCES[name](), build(presets()[name])
    exported = family_of_module(ours).table(ours.config).export(ours.state_dict())  # type: ignore[misc, union-attr]
    shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items() if ".pooler." not in key}
    assert {key: tuple(value.shape) for key, value in exported.items()} == shapes
    count = sum(p.numel() for key, p in theirs.named_parameters() if ".pooler." not in key)
    assert sum(p.numel() for p in ours.parameters()) == count > 100_000_000


def test_sizes_that_do_not_go_together_are_refused() -> None:
    config = DualEncoderConfig(
        image=ViTConfig(image_size=16, patch_size=8, width=15, layers=1, heads=4), text=presets()["mini"].text, dim=4
    )
    with pytest.raises(ConfigError, match="a dual_encoder of these sizes cannot be built: width 15 is not divisible by 4 heads"):
        build(config)


def test_pictures_of_another_size_are_refused() -> None:
    model = build(presets()["mini"])
    with pytest.raises(ValueError, match="this tower reads 64 x 64"):
        model.encode("image", torch.zeros(1, 3, 32, 32, dtype=torch.uint8))  # type: ignore[union-attr]


def test_text_longer_than_the_context_is_refused() -> None:
    model = build(presets()["mini"])
    with pytest.raises(ValueError, match="the table has 64"):
        model.encode("text", pad([list(range(65))]))  # type: ignore[union-attr]


def test_configurations_name_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="did you mean 'patch_size'"):
        parse({"kind": "dual_encoder", "image": {"kind": "vit", "patchsize": 8}}, "model")


def test_conse_points_at_the_likeliest_class() -> None:
    torch.manual_seed(0)
    tower = ConseTower(ConseConfig(net=EfficientNetConfig(image_size=64), classes=10, words_width=6, top=3)).eval()
    tower.class_words.copy_(F.normalize(torch.randn(10, 6), dim=1))
    logits = torch.full((1, 10), -20.0)
    logits[0, 4] = 20.0
    assert torch.allclose(tower.words(logits)[0], tower.class_words[4], atol=1e-5)
    logits[0, 7] = 20.0
    assert torch.allclose(tower.words(logits)[0], F.normalize(tower.class_words[4] + tower.class_words[7], dim=0), atol=1e-5)


def test_centred_head_starts_as_the_identity_on_what_differs() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 8) + 5
    head = CentredHead(8, 8, dropout=0.0)
    head.fit(x)
    unit = F.normalize(x, dim=1)
    expected = F.normalize(unit - unit.mean(0), dim=1)
    assert torch.allclose(F.normalize(head(x), dim=1), expected, atol=1e-5)
    channels = Centre(8, "channel")
    channels.fit(x)
    assert torch.allclose(channels(x).mean(0), torch.zeros(8), atol=1e-5)


def test_ngrams_sum_singles_and_pairs_without_the_special_tokens() -> None:
    tower = NgramText(1000, 4)
    with torch.no_grad():
        tower.table.copy_(torch.arange(4000.0).view(1000, 4))
    found, real = tower.grams(pad([[1, 10, 11, 2], [1, 10, 2]]))
    assert real.sum(1).tolist() == [3, 1]
    assert found[0, 0] == found[1, 0]
    longer = pad([[1, 10, 11, 2], [1, 10, 2], [1, 3, 4, 5, 6, 7, 2]])
    assert torch.allclose(tower(longer)[:2], tower(pad([[1, 10, 11, 2], [1, 10, 2]])))
    assert torch.allclose(tower(longer).norm(dim=1), torch.ones(3), atol=1e-5)
    tower.fit_rarity(pad([[1, 10, 11, 2], [1, 10, 12, 2]]))
    assert tower.weight_of[found[0, 0]] < tower.weight_of[found[0, 1]], "what occurs everywhere counts less"


def test_ngrams_by_conjugate_gradients_are_ridge_regression() -> None:
    """Against scikit-learn's Ridge, weights included."""
    from sklearn.linear_model import Ridge

    torch.manual_seed(0)
    tower, tokens = NgramText(64, 3).double(), pad([[1, *torch.randint(5, 20, (1 + i % 3,)).tolist(), 2] for i in range(12)])
    aims, weights = torch.randn(12, 3, dtype=torch.float64), torch.rand(12, dtype=torch.float64) + 0.5
    found, real = tower.grams(tokens)
    x = torch.zeros(12, 64, dtype=torch.float64)
    values = (real / real.sum(1, keepdim=True).sqrt()).double()
    x.scatter_add_(1, found, values)
    tower.solve(tokens, aims, 0.3, weights, tolerance=1e-11)
    expected = Ridge(alpha=0.3, fit_intercept=False).fit(x.numpy(), aims.numpy(), sample_weight=weights.numpy()).coef_.T
    assert torch.allclose(tower.table.detach(), torch.from_numpy(expected), atol=1e-8)


def test_ngrams_are_solved_to_the_tolerance_and_no_text_is_too_short() -> None:
    """A few hundred texts whose n-grams share table rows, one of them empty; in single precision, by the normal equations."""
    torch.manual_seed(0)
    texts = [[1, *torch.randint(5, 60, (i % 6,)).tolist(), 2] for i in range(300)]
    tower, tokens, aims = NgramText(512, 8), pad(texts), F.normalize(torch.randn(300, 8), dim=1)
    tower.fit_rarity(tokens)
    weights = torch.where(torch.arange(300) % 2 == 0, 1.0, 0.2)
    tower.solve(tokens, aims, 0.3, weights)
    found, real = tower.grams(tokens)
    values = tower.weight_of[found] * real
    values = values / values.norm(dim=1, keepdim=True).clamp(min=1e-6)
    x = torch.zeros(300, 512).scatter_add_(1, found, values)
    right = x.T @ (weights[:, None] * aims)
    left = x.T @ (weights[:, None] * (x @ tower.table.detach())) + 0.3 * tower.table.detach()
    assert ((left - right).norm(dim=0) < 2e-4 * right.norm(dim=0)).all()


def test_a_centred_head_sees_exactly_the_direction_of_the_ngrams() -> None:
    torch.manual_seed(0)
    tower, head = NgramText(100, 6), CentredHead(6, 6, dropout=0.0).eval()
    head.fit(torch.randn(40, 6) + 1)
    tower.origin.copy_(head.centre.mean)
    with torch.no_grad():
        tower.table.normal_()
        tokens = pad([[1, 10, 11, 2], [1, 12, 2]])
        origin = tower.origin.clone()
        seen = F.normalize(head(tower(tokens)), dim=1)
        tower.origin.zero_()
        assert torch.allclose(seen, tower(tokens), atol=1e-5)
        tower.origin.copy_(origin)


def test_bilingual_sends_each_text_to_its_tower() -> None:
    torch.manual_seed(0)
    bert = BertTextConfig(vocab_size=50, context=16, width=12, layers=1, heads=2, mlp_width=24)
    tower = BilingualText(BilingualTextConfig(bert=bert, vocab_size=60, ngrams=500)).eval()
    tower.is_han[50:] = True
    mixed = pad([[1, 5, 6, 2], [1, 55, 7, 2], [1, 8, 9, 10, 2]])
    assert tower.routes(mixed).tolist() == [False, True, False]
    with torch.no_grad():
        out = tower(mixed)
        assert torch.allclose(out[1], tower.ngrams(pad([[1, 55, 7, 2]]))[0])
        assert torch.allclose(out[0], F.normalize(tower.bert(pad([[1, 5, 6, 2]])), dim=1)[0], atol=1e-6)


def test_a_sentence_encoder_has_one_tower() -> None:
    config = DualEncoderConfig(
        text=BertTextConfig(vocab_size=50, width=12, layers=1, heads=2, mlp_width=24), dim=12, text_projection="none"
    )
    model = DualEncoder(config)
    assert model.image is None
    assert model.encode("text", pad([[1, 5, 2]])).shape == (1, 12)
    with pytest.raises(ValueError, match="must be dim 11"):
        DualEncoder(config.model_copy(update={"dim": 11}))
