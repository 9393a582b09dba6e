"""Masked language modelling with the mini BERT: contracts of the model, the step, and that it learns."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tonggan.config import ConfigError
from tonggan.data.text import train_bpe
from tonggan.models import BertConfig, DualEncoder, MaskedBert, build, presets
from tonggan.models.base import Embedder, Featurizer, Matcher, WordPredictor
from tonggan.steps import build as build_step
from tonggan.steps.masked_language import MaskedLanguageConfig, MaskedLanguageStep
from tonggan.tensors import Batch, Tokens, Vocabulary, pad
from tonggan.types import UsageError

VOCABULARY = Vocabulary(size=300, mask=3, special=frozenset(range(4)), continues=frozenset(range(200, 300)))


@pytest.fixture
def model() -> MaskedBert:
    torch.manual_seed(0)
    made = build(presets()["mini-bert"])
    assert isinstance(made, MaskedBert)
    return made.eval()


def tokens(rows: int, seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    return pad([[1, *torch.randint(5, 300, (6 + i % 5,), generator=generator).tolist(), 2] for i in range(rows)])


def batch(rows: int = 16) -> Batch:
    return Batch(ids=tuple(map(str, range(rows))), tokens=tokens(rows))


def test_what_the_model_offers(model: MaskedBert) -> None:
    """Features and words, and no common space: see `models/bert.py`."""
    assert isinstance(model, Featurizer) and isinstance(model, WordPredictor)
    assert not isinstance(model, Embedder) and not isinstance(model, Matcher)


def test_the_mini_keeps_every_contract(model: MaskedBert) -> None:
    """Padding and batch size change nothing; saved and loaded it is the same; every weight gets a gradient."""
    some = tokens(5)
    with torch.no_grad():
        words = model.words(some)
        alone = Tokens(some.ids[:1, : some.lengths[0]], some.lengths[:1])
        assert torch.allclose(model.words(alone)[0], words[0, : some.lengths[0]], atol=1e-5)
        wider = Tokens(F.pad(some.ids, (0, 9), value=7), some.lengths)
        assert torch.allclose(model.features("text", wider), model.features("text", some), atol=1e-5)
        again = build(model.config)
        again.load_state_dict(model.state_dict())
        assert torch.equal(again.eval().words(some), words)
    model.train()
    MaskedLanguageStep(model, MaskedLanguageConfig(), VOCABULARY)(batch()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


def test_positions_counted_from_the_first_token(model: MaskedBert) -> None:
    """An offset is nothing but rows before BERT's, and padding on the left moves nobody."""
    ids = torch.where(tokens(5).ids == 7, 8, tokens(5).ids)  # 7 is padding here
    lengths = tokens(5).lengths
    moved = build(BertConfig(text=model.config.text.model_copy(update={"position_offset": 8})))
    moved.load_state_dict(model.state_dict() | {"text.positions.weight": F.pad(model.text.positions.weight, (0, 0, 8, 0))})
    shifted = F.pad(torch.where(torch.arange(ids.shape[1]) < lengths[:, None], ids, 7), (3, 0), value=7)
    with torch.no_grad():
        words = model.words(Tokens(ids, lengths))
        found = moved.eval().words(Tokens(shifted, lengths + 3, torch.full((5,), 3)))
    for row, length in enumerate(lengths.tolist()):
        assert torch.allclose(found[row, 3 : 3 + length], words[row, :length], atol=1e-5)


def test_loss_of_the_plain_definition(model: MaskedBert) -> None:
    """All logits, and cross-entropy that ignores what is not hidden."""
    step, data = MaskedLanguageStep(model, MaskedLanguageConfig(share=0.3), VOCABULARY), batch()
    seen: list[tuple[Tokens, torch.Tensor]] = []
    words = model.words

    def listening(given: Tokens, pixels: object = None, *, where: torch.Tensor) -> torch.Tensor:
        seen.append((given, where))
        return words(given, where=where)

    model.words = listening  # type: ignore[method-assign,assignment]
    found = step(data)
    ((given, where),) = seen
    assert data.tokens is not None
    targets = torch.where(where, data.tokens.ids, -100)
    expected = F.cross_entropy(words(given).flatten(0, 1), targets.flatten())
    assert float(found.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert found.report["hidden"] == int(where.sum()) > 0
    assert found.report["floor"] == 0 and found.report["chance"] == pytest.approx(math.log(4096))
    assert found.report["loss"] == pytest.approx(math.log(4096), rel=0.1), "untrained, it is at chance"


def test_it_overfits_one_batch(model: MaskedBert) -> None:
    """With the same words hidden each time, it learns to say them."""
    small = MaskedBert(BertConfig(text=model.config.text.model_copy(update={"vocab_size": VOCABULARY.size})))
    step, data = MaskedLanguageStep(small, MaskedLanguageConfig(), VOCABULARY), batch()
    adam = torch.optim.AdamW(small.parameters(), lr=4e-3)
    for _ in range(80):
        torch.manual_seed(1)
        output = step(data)
        if output.report["loss"] < 0.1:
            break
        adam.zero_grad()
        output.loss.backward()
        adam.step()
    assert output.report["word_top1"] == 1 and output.report["loss"] < 0.1


def test_pictures_are_given_where_asked_for() -> None:
    class Reader(nn.Module):
        given: torch.Tensor | None = None

        def words(self, tokens: Tokens, pixels: torch.Tensor | None = None, *, where: torch.Tensor | None = None) -> torch.Tensor:
            self.given = pixels
            assert where is not None
            return torch.zeros(int(where.sum()), 300)

    reader, pixels = Reader(), torch.zeros(16, 3, 8, 8, dtype=torch.uint8)
    for with_pictures in (False, True):
        config = MaskedLanguageConfig(with_pictures=with_pictures)
        step = build_step(reader, config, vocabulary=VOCABULARY)
        step(dataclasses.replace(batch(), pixels=pixels))
        assert (reader.given is pixels) == with_pictures
        assert config.modalities == ({"text", "image"} if with_pictures else {"text"})
    with pytest.raises(UsageError, match="needs image and text in the batch"):
        step(batch())


def test_what_cannot_be_is_said(model: MaskedBert) -> None:
    with pytest.raises(UsageError, match="needs a model that says words"):
        build_step(DualEncoder(presets()["mini"]), MaskedLanguageConfig(), vocabulary=VOCABULARY)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="its tokenizer's vocabulary"):
        build_step(model, MaskedLanguageConfig())
    bare = dataclasses.replace(VOCABULARY, continues=frozenset())
    with pytest.raises(UsageError, match="whole_words: this tokenizer has no pieces"):
        build_step(model, MaskedLanguageConfig(whole_words=True), vocabulary=bare)
    with pytest.raises(ConfigError, match="share"):
        MaskedLanguageConfig.parse({"share": 0.0})


def test_a_vocabulary_of_ones_own() -> None:
    captions = ["a red bird", "a redder bird sings", "一只红色的小鸟", "红色的鸟在树上"] * 3
    plain, masked = train_bpe(captions, 400), train_bpe(captions, 400, mask=True)
    with pytest.raises(UsageError, match="no mask token"):
        plain.vocabulary()
    found = masked.vocabulary()
    assert found.mask == masked.id_of("<|mask|>") == 3 and found.special == {0, 1, 2, 3} and found.size == masked.vocab_size
    assert plain.id_of("<|endoftext|>") == masked.id_of("<|endoftext|>") == 2, "the special tokens before it keep their ids"
    (ids,), _ = masked.encode(["redder 红色的鸟"])
    pieces = [masked.decode([i]) for i in ids]
    starts = [piece for i, piece in zip(ids, pieces, strict=True) if i not in found.continues | found.special]
    assert {"红", "色", "的", "鸟"} <= {start.strip() for start in starts}, "every Han character begins a word"
