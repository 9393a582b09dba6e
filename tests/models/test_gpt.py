"""Language models: contracts of the small presets, learning by heart, and settings that do not go together."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tonggan.config import ConfigError
from tonggan.models import GPT, GPTConfig, build, parse, presets
from tonggan.nn.positions import rotary_rates, stretched
from tonggan.nn.talking import Talker, words
from tonggan.tensors import Tokens, pad
from tonggan.types import UsageError

NAMES = ("mini-gpt2", "mini-llama")
SAID = pad([[1, 5, 6, 7, 8], [1, 9, 4], [1, 11, 12, 13]])


def logits(model: GPT, tokens: Tokens) -> Tensor:
    return words(model, model.say(tokens))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_mini_language_models_keep_every_contract(name: str) -> None:
    """Alone as in a batch, with padding on either side, packed, in ragged chunks as at once, loaded again, back from plain data."""
    torch.manual_seed(0)
    config = presets()[name]
    model = build(config).double().eval()
    assert isinstance(model, GPT) and isinstance(model, Talker) and not model.reads_prompt
    assert sum(p.numel() for p in model.parameters()) < 5_000_000
    assert parse(config.model_dump(mode="json")) == config
    whole = logits(model, SAID)
    starts = 7 - SAID.lengths
    left = torch.full((3, 7), 3)
    segments = torch.arange(3).repeat_interleave(SAID.lengths)[None]
    for row in range(3):
        length = int(SAID.lengths[row])
        alone = logits(model, Tokens(SAID.ids[row : row + 1, :length], SAID.lengths[row : row + 1]))
        assert torch.allclose(alone[0], whole[row, :length], atol=1e-10)
        left[row, 7 - length :] = SAID.ids[row, :length]
    padded = logits(model, Tokens(left, torch.full((3,), 7), starts))
    own = torch.cat([SAID.ids[row, : int(SAID.lengths[row])] for row in range(3)])[None]
    packed = logits(model, Tokens(own, torch.tensor([own.shape[1]]), segments=segments))
    expected = torch.cat([whole[row, : int(SAID.lengths[row])] for row in range(3)])
    assert torch.allclose(torch.cat([padded[row, int(starts[row]) :] for row in range(3)]), expected, atol=1e-10)
    assert torch.allclose(packed[0], expected, atol=1e-10)

    counts, cache = [2, 1, 2], model.cache(5)  # of the first chunk; the second row's other token there is padding
    first = words(model, model.say(Tokens(SAID.ids[:, :2], torch.tensor(counts)), cache=cache))
    cache.advance(counts)
    rest = torch.stack(
        [F.pad(SAID.ids[row, count : count + 3], (0, 3 - len(SAID.ids[row, count : count + 3]))) for row, count in enumerate(counts)]
    )
    second = words(model, model.say(Tokens(rest, SAID.lengths - torch.tensor(counts)), cache=cache))
    for row, count in enumerate(counts):
        length = int(SAID.lengths[row])
        assert torch.allclose(torch.cat([first[row, :count], second[row]])[:length], whole[row, :length], atol=1e-10)
    again = build(config).double().eval()
    assert isinstance(again, GPT)
    again.load_state_dict(model.state_dict())
    assert torch.equal(logits(again, SAID), whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mini_language_models_learn_texts_by_heart(name: str) -> None:
    """Three texts that begin alike, so that one word must be remembered to tell the next."""
    torch.manual_seed(0)
    model = build(presets()[name])
    assert isinstance(model, GPT)
    texts = torch.tensor([[1, 5, 8, 6, 21], [1, 7, 8, 6, 22], [1, 9, 8, 6, 23]])
    said, told = Tokens(texts[:, :-1], torch.tensor([4, 4, 4])), texts[:, 1:]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(80):
        found = logits(model, said)
        loss = F.cross_entropy(found[:, 1:].flatten(0, 1), told[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_text_longer_than_a_learned_table_is_refused() -> None:
    """At once, padded on the left, packed, in a chunk and in the step behind the last place; padding may stand there."""
    model, told = build(presets()["mini-gpt2"]), "257 positions were asked for, the table has 256; shorten the text"
    assert isinstance(model, GPT)
    ids = torch.ones(1, 300, dtype=torch.long)
    with torch.no_grad():
        for said in (
            pad([[1] * 257]),
            Tokens(ids, torch.tensor([300]), torch.tensor([43])),
            Tokens(ids, torch.tensor([300]), segments=torch.tensor([[0] * 43 + [1] * 257])),
        ):
            with pytest.raises(UsageError, match=told):
                model.say(said)
        model.say(Tokens(ids, torch.tensor([300]), torch.tensor([44])))
        model.say(Tokens(ids, torch.tensor([300]), segments=torch.tensor([[0] * 44 + [1] * 256])))
        cache = model.cache(300)
        model.say(pad([[1] * 255, [1] * 9]), cache=cache)
        cache.advance([255, 9])
        with pytest.raises(UsageError, match=told):
            model.say(pad([[1, 1], [1, 1]]), cache=cache)
        model.say(pad([[1], [1, 1]]), cache=cache)
        cache.advance([1, 2])
        with pytest.raises(UsageError, match=told):
            model.say(pad([[1], [1]]), cache=cache)


def test_language_models_that_make_no_sense_are_refused() -> None:
    given = presets()["mini-gpt2"].model_dump(mode="json")
    with pytest.raises(ConfigError, match="style gpt2 has no rotary_stretch"):
        parse(given | {"text": given["text"] | {"rotary_stretch": {"factor": 2}}})
    with pytest.raises(ConfigError, match=r"ends \[4096\] are not among the 4096 words"):
        parse(given | {"ends": [3, 4096]})
    assert parse(given | {"ends": [3]}) == GPTConfig(text=given["text"], ends=(3,))


def test_slower_rates_turn_as_often_as_published() -> None:
    """Llama 3.1's: the fastest stay, the slowest are eight times slower; in the midst, by hand, of one that turns 2.5 times."""
    plain = rotary_rates(128, 5e5)
    slowed = stretched(plain, 8.0, original=8192)
    turns = 8192 * plain / (2 * torch.pi)
    assert torch.equal(slowed[turns > 4], plain[turns > 4]) and torch.equal(slowed[turns < 1], plain[turns < 1] / 8)
    one = torch.tensor([2.5 * 2 * torch.pi / 8192])
    assert torch.allclose(stretched(one, 8.0, original=8192), one * (0.5 + 0.5 / 8))
    assert torch.equal(stretched(plain, 8.0), plain / 8)
