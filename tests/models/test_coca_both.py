"""CoCa's two halves on one model: vectors that keep their contracts, chunks and beams, and the two steps that train it together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tonggan.config import ConfigError
from tonggan.models import Coca, build, parse, presets
from tonggan.models.base import Embedder
from tonggan.models.coca import CocaConfig, CocaTextConfig
from tonggan.models.towers import ViTConfig
from tonggan.nn.talking import Talker, words
from tonggan.steps import build as build_step
from tonggan.steps.contrastive import ContrastiveConfig
from tonggan.steps.language import LanguageConfig
from tonggan.tensors import IGNORE, Batch, Tokens, pad

SMALL = CocaConfig(
    image=ViTConfig(image_size=16, patch_size=8, width=24, layers=1, heads=3, mlp_width=48),
    queries=5,
    pooler_heads=2,
    text=CocaTextConfig(vocab_size=64, context=12, width=32, layers=1, heads=2, mlp_width=64),
    decoder_layers=1,
    decoder_heads=2,
    decoder_mlp_width=64,
)


def data(rows: int, side: int = 64) -> tuple[Tensor, Tokens]:
    """Pictures of one colour each, and captions that tell which."""
    colours = torch.tensor([[30 * row, 128, 255 - 30 * row] for row in range(rows)], dtype=torch.uint8)
    texts = pad([[1, *range(10 + row, 11 + row + row % 3), 40 + row, 2] for row in range(rows)])
    return colours[:, :, None, None].expand(-1, -1, side, side).contiguous(), texts


@torch.no_grad()
def test_vectors_keep_every_contract() -> None:
    """Alone as in a batch, whatever the padding is and how much of it, and from features that were kept."""
    torch.manual_seed(0)
    model = build(presets()["mini-coca"]).double().eval()
    assert isinstance(model, Coca) and isinstance(model, Embedder) and isinstance(model, Talker)
    pixels, tokens = data(5)
    whole = {"image": model.encode("image", pixels), "text": model.encode("text", tokens)}
    for kind, vectors in whole.items():
        assert vectors.shape == (5, model.dim) and torch.allclose(vectors.norm(dim=1), torch.ones(5).double())
        kept = model.features(kind, pixels if kind == "image" else tokens)  # type: ignore[arg-type]
        assert torch.equal(model.encode(kind, features=kept), vectors)  # type: ignore[arg-type]
    assert torch.allclose(model.encode("image", pixels[:1]), whole["image"][:1], atol=1e-12)
    length = int(tokens.lengths[0])
    assert torch.allclose(model.encode("text", Tokens(tokens.ids[:1, :length], tokens.lengths[:1])), whole["text"][:1], atol=1e-12)
    for more in (9, model.context - tokens.ids.shape[1]):
        wide = Tokens(F.pad(tokens.ids, (0, more), value=7), tokens.lengths)
        assert torch.allclose(model.encode("text", wide), whole["text"], atol=1e-12)
    # The first query is what is compared, the others are what words look at: neither is the other's.
    seen = model.read(Batch(("a",) * 5, pixels=pixels))
    every = model.pooled(pixels, slice(None))
    assert torch.allclose(every[:, 0], model.features("image", pixels), atol=1e-12)
    assert all(part is not None and part.keys.shape[2] == every.shape[1] - 1 for part in seen.memory)


@torch.no_grad()
def test_words_padded_on_the_left_are_told_as_on_the_right() -> None:
    torch.manual_seed(0)
    model: Any = build(presets()["mini-coca"]).double().eval()
    pixels, tokens = data(3)
    seen = model.read(Batch(("a",) * 3, pixels=pixels))
    right = words(model, model.say(tokens, seen))
    starts = tokens.ids.shape[1] - tokens.lengths
    rolled = torch.stack([row.roll(int(start)) for row, start in zip(tokens.ids, starts, strict=True)])
    left = words(model, model.say(Tokens(rolled, torch.full_like(starts, rolled.shape[1]), starts), seen))
    for row, start in enumerate(starts.tolist()):
        assert torch.allclose(left[row, start:], right[row, : int(tokens.lengths[row])], atol=1e-10)


def test_both_steps_train_one_model() -> None:
    """The sum of the two losses is the published one (section 3.2, equation 4); together they reach every weight."""
    torch.manual_seed(0)
    model = build(SMALL)
    pixels, tokens = data(8, 16)
    targets = torch.where(torch.arange(tokens.ids.shape[1] - 1) < tokens.lengths[:, None] - 1, tokens.ids[:, 1:], IGNORE)
    ids = tuple("abcdefgh")
    pairs = Batch(ids, pixels=pixels, tokens=tokens, keys=torch.zeros(8, 1, dtype=torch.long))
    captions = Batch(ids, pixels=pixels, tokens=Tokens(tokens.ids[:, :-1], tokens.lengths - 1), targets=targets)
    steps = (build_step(model, ContrastiveConfig()), build_step(model, LanguageConfig()))
    adam = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for number in range(100):
        adam.zero_grad()
        together, telling = steps[0](pairs), steps[1](captions)
        (together.loss + 2 * telling.loss).backward()
        if not number:
            assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
        if together.report["i2t_top1"] == together.report["t2i_top1"] == telling.report["word_top1"] == 1:
            return
        adam.step()
    pytest.fail("the pairs or the words were not learnt")


def test_what_makes_no_sense_is_said() -> None:
    plain = presets()["mini-coca"].model_dump(mode="json")
    with pytest.raises(ConfigError, match=r"image.pooling 'mean': the queries read a tower with a class token"):
        parse(plain | {"image": plain["image"] | {"pooling": "mean"}})
    with pytest.raises(ConfigError, match=r"queries: 1: .*greater than or equal to 2"):
        parse(plain | {"queries": 1})
    with pytest.raises(ConfigError, match="width 128 is not divisible by 5 heads"):
        build(parse(plain | {"decoder_heads": 5}))
