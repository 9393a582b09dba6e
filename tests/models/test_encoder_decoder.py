"""Encoder-decoders: contracts of the small presets, and what a wrong input or configuration says."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tonggan.config import ConfigError
from tonggan.models import EncoderDecoder, build, parse, presets
from tonggan.nn.talking import Talker, words
from tonggan.tensors import Batch, Sounds, Tokens, pad
from tonggan.types import UsageError

NAMES = ("mini-t5", "mini-bart", "mini-whisper")
SAID = pad([[1, 5, 6, 7, 8], [1, 9, 4], [1, 11, 12, 13]])


def read_by(model: EncoderDecoder, rows: tuple[int, ...] = (0, 1, 2)) -> Batch:
    """Sources of different lengths; those of some rows, padded to the longest of them."""
    ids = tuple("abc"[row] for row in rows)
    if model.audio is None:
        texts = [[5, 6, 7, 8, 9, 2], [7, 2], [30, 31, 32, 2]]
        return Batch(ids, source=pad([texts[row] for row in rows]))
    lengths = torch.tensor([[40, 22, 31][row] for row in rows])
    mels = torch.randn(3, 80, 40, generator=torch.Generator().manual_seed(0))[list(rows), :, : int(lengths.max())]
    mels = mels.double() if next(model.parameters()).dtype == torch.float64 else mels
    return Batch(ids, sounds=Sounds(mels * (torch.arange(mels.shape[2]) < lengths[:, None, None]), lengths))


def logits(model: EncoderDecoder, batch: Batch, said: Tokens) -> Tensor:
    return words(model, model.say(said, model.read(batch)))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_mini_encoder_decoders_keep_every_contract(name: str) -> None:
    """Alone as in a batch, ragged rows in chunks as at once, rows chosen, copies apart, back from plain data."""
    torch.manual_seed(0)
    config = presets()[name]
    model = build(config).double().eval()
    assert isinstance(model, EncoderDecoder) and isinstance(model, Talker) and model.reads_prompt
    assert sum(p.numel() for p in model.parameters()) < 5_000_000
    assert parse(config.model_dump(mode="json")) == config
    whole = logits(model, read_by(model), SAID)
    for row in range(3):
        length = int(SAID.lengths[row])
        alone = logits(model, read_by(model, (row,)), Tokens(SAID.ids[row : row + 1, :length], SAID.lengths[row : row + 1]))
        assert torch.allclose(alone[0], whole[row, :length], atol=1e-10)

    seen, cache = model.read(read_by(model)), model.cache(5)
    counts = [2, 1, 2]  # of the first chunk; the second row's other token there is padding
    first = words(model, model.say(Tokens(SAID.ids[:, :2], torch.tensor(counts)), seen, cache=cache))
    cache.advance(counts)
    rest = torch.stack(
        [F.pad(SAID.ids[row, count : count + 3], (0, 3 - len(SAID.ids[row, count : count + 3]))) for row, count in enumerate(counts)]
    )
    second = words(model, model.say(Tokens(rest, SAID.lengths - torch.tensor(counts)), seen, cache=cache))
    for row, count in enumerate(counts):
        length = int(SAID.lengths[row])
        found = torch.cat([first[row, :count], second[row]])[:length]
        assert torch.allclose(found, whole[row, :length], atol=1e-10)
    picked = words(model, model.say(Tokens(SAID.ids[[2, 0]], SAID.lengths[[2, 0]]), seen.select([2, 0])))
    assert torch.allclose(picked[1], whole[0], atol=1e-10)

    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    assert torch.equal(logits(model, read_by(model), SAID), whole), "a copy has tables of its own"
    assert not torch.allclose(logits(other, read_by(model), SAID), whole, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_mini_encoder_decoders_learn_which_source_it_was(name: str) -> None:
    """One batch by heart: what is to be said differs by the source alone."""
    torch.manual_seed(0)
    model = build(presets()[name])
    batch, start = read_by(model), pad([[1], [1], [1]])
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(30):
        loss = F.cross_entropy(logits(model, batch, start)[:, 0], torch.tensor([21, 22, 23]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
    assert all(p.grad is not None for p in model.speaker.transformer.parameters())
    encoder = model.audio or model.reader
    assert all(p.grad is not None for p in encoder.transformer.parameters())


def test_what_is_missing_is_said() -> None:
    text, speech = build(presets()["mini-t5"]), build(presets()["mini-whisper"])
    with pytest.raises(UsageError, match="give a source text with every row"):
        text.read(Batch(("a",), tokens=SAID))
    with pytest.raises(UsageError, match="give a sound with every row"):
        speech.read(Batch(("a",), source=SAID))
    with pytest.raises(UsageError, match="padded on the right"):
        text.read(Batch(("a",), source=Tokens(SAID.ids, SAID.lengths, torch.tensor([1, 0, 0]))))


@torch.no_grad()
def test_what_is_said_has_a_place_for_every_word() -> None:
    """T5 counts distances, of which there is no end."""
    for name in NAMES:
        model = build(presets()[name])
        assert isinstance(model, EncoderDecoder)
        seen, long = model.read(read_by(model, (0,))), pad([[1] * 129])
        for cache in (None, model.cache(129)):
            if name == "mini-t5":
                assert model.say(long, seen, cache=cache).shape[1] == 129 > model.context
                continue
            with pytest.raises(UsageError, match="129 positions were asked for, the table has 128; shorten the text"):
                model.say(long, seen, cache=cache)


def test_configurations_that_make_no_sense_are_refused() -> None:
    given = presets()["mini-bart"].model_dump(mode="json")
    with pytest.raises(ConfigError, match="style bart has no gated"):
        parse(given | {"text": given["text"] | {"gated": True}})
    with pytest.raises(ConfigError, match=r"ids \[4096\] of start, ends, last or suppressed are not among the 4096 words"):
        parse(given | {"ends": [4096]})
    with pytest.raises(ConfigError, match="farthest 8: 32 buckets need distances beyond 16"):
        parse(given | {"text": given["text"] | {"style": "t5", "farthest": 8}})
