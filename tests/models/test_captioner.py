"""Captioners: contracts of the small presets, one batch by heart, prefixes shared by questions on one picture, what a wrong input says."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tonggan.config import ConfigError
from tonggan.generate import Prefixes, Sampling, Shared, generate
from tonggan.models import Captioner, Coca, build, parse, presets
from tonggan.models.captioner import CaptionerConfig
from tonggan.models.git import Git, GitConfig, GitWordsConfig
from tonggan.models.towers import ViTConfig
from tonggan.nn.talking import Talker, words
from tonggan.tensors import Batch, Tokens, pad
from tonggan.types import UsageError

NAMES = ("mini-blip-caption", "mini-blip-vqa", "mini-git", "mini-coca")
RATES = {"mini-blip-caption": 2e-3, "mini-blip-vqa": 2e-3, "mini-git": 5e-4, "mini-coca": 5e-4}
"""Of learning, with which each settles; those whose head for words is a table of its own do not with larger ones."""
SILENT = {"image_head.weight", "text_head.weight", "text.class_token", "text.post_norm.weight", "text.post_norm.bias", "log_scale"}
"""Of CoCa, what words do not go through (see `test_coca_both.py`)."""
SAID = pad([[1, 5, 6, 7, 8], [1, 9, 4], [1, 11, 12, 13]])
ASKED = [[5, 6, 7, 8, 9, 2], [7, 2], [30, 31, 32, 2]]


def shown(model: Any, rows: tuple[int, ...] = (0, 1, 2)) -> Batch:
    """Pictures of noise, and questions padded to the longest of these rows where they are read."""
    pixels = torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)[list(rows)]
    batch = Batch(tuple("abc"[row] for row in rows), pixels=pixels)
    return Batch(batch.ids, pixels=pixels, source=pad([ASKED[row] for row in rows])) if model.reads_prompt else batch


def logits(model: Any, batch: Batch, said: Tokens) -> Tensor:
    return words(model, model.say(said, model.read(batch)))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_mini_captioners_keep_every_contract(name: str) -> None:
    """Alone as in a batch, whatever the padding is, ragged rows in chunks as at once, rows chosen, copies apart, back from plain data."""
    torch.manual_seed(0)
    config = presets()[name]
    model: Any = build(config).double().eval()
    assert isinstance(model, Captioner | Git | Coca) and isinstance(model, Talker)
    assert sum(p.numel() for p in model.parameters()) < 5_000_000
    assert parse(config.model_dump(mode="json")) == config
    whole = logits(model, shown(model), SAID)
    own = torch.arange(5) < SAID.lengths[:, None]
    assert bool(whole.isfinite().all()) and torch.equal(logits(model, shown(model), SAID), whole)
    garbage = Tokens(torch.where(own, SAID.ids, 99), SAID.lengths)
    assert torch.allclose(logits(model, shown(model), garbage)[own], whole[own], atol=1e-10)
    for row in range(3):
        length = int(SAID.lengths[row])
        alone = logits(model, shown(model, (row,)), Tokens(SAID.ids[row : row + 1, :length], SAID.lengths[row : row + 1]))
        assert torch.allclose(alone[0], whole[row, :length], atol=1e-10)

    seen, cache = model.read(shown(model)), model.cache(5)
    counts = [2, 1, 2]  # of the first chunk; the second row's other token there is padding
    first = words(model, model.say(Tokens(SAID.ids[:, :2], torch.tensor(counts)), seen, cache=cache))
    cache.advance(counts)
    rest = pad([SAID.ids[row, count : int(SAID.lengths[row])].tolist() for row, count in enumerate(counts)])
    second = words(model, model.say(rest, seen, cache=cache))
    for row, count in enumerate(counts):
        found = torch.cat([first[row, :count], second[row, : int(rest.lengths[row])]])
        assert torch.allclose(found, whole[row, : len(found)], atol=1e-10)
    picked = logits(model, shown(model, (2, 0)), Tokens(SAID.ids[[2, 0]], SAID.lengths[[2, 0]]))
    chosen = words(model, model.say(Tokens(SAID.ids[[2, 0]], SAID.lengths[[2, 0]]), seen.select([2, 0])))
    assert torch.allclose(chosen[own[[2, 0]]], picked[own[[2, 0]]], atol=1e-10)

    torch.manual_seed(7)
    other = build(config).double().eval()
    assert not torch.allclose(logits(other, shown(model), SAID), whole, atol=1e-3)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(logits(other, shown(model), SAID), whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mini_captioners_learn_sixteen_captions_by_heart(name: str) -> None:
    """By the next word, which the colour of the picture tells."""
    torch.manual_seed(0)
    model: Any = build(presets()[name])
    colours = torch.tensor([[80 * (row % 4), 128, 80 * (row // 4)] for row in range(16)], dtype=torch.uint8)
    said = pad([[1, 10 + row, 30 + row, 2] for row in range(16)])
    asked = pad([[5, 6, 2]] * 16) if model.reads_prompt else None
    batch = Batch(("",) * 16, pixels=colours[:, :, None, None].expand(-1, -1, 64, 64), source=asked)
    optimizer = torch.optim.AdamW(model.parameters(), RATES[name], (0.8, 0.95))
    for _ in range(80):
        told = logits(model, batch, Tokens(said.ids[:, :-1], said.lengths - 1))
        if torch.equal(told.argmax(dim=-1), said.ids[:, 1:]):
            return
        optimizer.zero_grad()
        F.cross_entropy(told.flatten(0, 1), said.ids[:, 1:].flatten()).backward()
        optimizer.step()
    pytest.fail("not every word of the captions was learnt")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mini_captioners_learn_which_picture_it_was(name: str) -> None:
    """What is to be said differs by the picture alone; every part has its share."""
    torch.manual_seed(0)
    model: Any = build(presets()[name])
    batch, start = shown(model), pad([[1], [1], [1]])
    optimizer = torch.optim.AdamW(model.parameters(), RATES[name], (0.8, 0.95))
    for _ in range(20):
        loss = F.cross_entropy(logits(model, batch, start)[:, 0], torch.tensor([21, 22, 23]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.7  # 1.1 = ln 3 for who does not look
    silent = SILENT if isinstance(model, Coca) else set()
    for part, parameter in model.named_parameters():
        assert (parameter.grad is None) == (part in silent) and (part in silent or bool(parameter.grad.isfinite().all())), part


def test_questions_on_one_picture_share_it() -> None:
    """GIT keeps its picture in front of the words: a shared beginning leaves room for the rest."""
    torch.manual_seed(0)
    model = build(presets()["mini-git"]).eval()
    assert isinstance(model, Git)
    pixels = shown(model, (0,)).pixels
    assert pixels is not None
    tokens = pad([[1, 5, 6, 7], [1, 5, 9], [1, 5, 30, 31, 32]])
    batch, asked = Batch(("a", "b", "c"), pixels=pixels.expand(3, -1, -1, -1), tokens=tokens), [Sampling(max_tokens=4)] * 3
    plain = generate(model, batch, asked, ends=())
    prefixes, shared = Prefixes(), [Shared("picture", 2)] * 3
    for _ in range(2):
        again = generate(model, batch, asked, ends=(), shared=shared, prefixes=prefixes)
        assert [one[0].ids for one in again] == [one[0].ids for one in plain]
    beams = generate(model, batch, [Sampling(max_tokens=4, beams=3)] * 3, ends=())
    assert [len(one[0].ids) for one in beams] == [4, 4, 4]


@torch.no_grad()
def test_frames_of_a_clip_are_told_apart() -> None:
    torch.manual_seed(0)
    text = GitWordsConfig(vocab_size=31, context=9, width=18, layers=2, heads=3, mlp_width=22)
    tower = ViTConfig(image_size=12, patch_size=4, width=15, layers=1, heads=3, mlp_width=20)
    model = build(GitConfig(image=tower, text=text, frames=3, start=(1,), ends=(2,))).double().eval()
    assert isinstance(model, Git) and model.modalities == {"image", "text", "video"}
    clips = torch.rand(2, 3, 3, 12, 12).double()
    said, turned = pad([[1, 5, 6], [1, 7]]), Batch(("a", "b"), clips=clips.flip(1))
    # The embeddings of frames begin with 0, as published: until they are learnt, order says nothing.
    forward = logits(model, Batch(("a", "b"), clips=clips), said)
    assert torch.allclose(logits(model, turned, said), forward, atol=1e-10)
    for time in model.times:
        time.normal_()
    assert not torch.allclose(logits(model, turned, said), logits(model, Batch(("a", "b"), clips=clips), said), atol=1e-3)


def test_what_is_missing_or_makes_no_sense_is_said() -> None:
    model: Any = build(presets()["mini-git"])
    with pytest.raises(UsageError, match="give one with every row"):
        model.read(Batch(("a",)))
    with pytest.raises(UsageError, match="clips of 2 frames; this model has places for 0"):
        model.read(Batch(("a",), clips=torch.zeros(1, 2, 3, 64, 64)))
    caption: Any = build(presets()["mini-blip-caption"])
    shows, long = Batch(("a",), pixels=torch.zeros(1, 3, 64, 64, dtype=torch.uint8)), pad([[1] * 65])
    with torch.no_grad():
        for talker in (model, caption):
            with pytest.raises(UsageError, match="65 positions were asked for, the table has 64"):
                talker.say(long, talker.read(shows))
            with pytest.raises(UsageError, match=r"\d+ positions were asked for, the table has"):
                talker.say(long, talker.read(shows), cache=talker.cache(65))
    given = CaptionerConfig().model_dump(mode="json")
    with pytest.raises(ConfigError, match="every block of a captioner attends to the picture"):
        parse(given | {"text": given["text"] | {"cross_from": 1}})
    for name in ("mini-git", "mini-blip-caption"):
        small = presets()[name].model_dump(mode="json")
        with pytest.raises(ConfigError, match=r"start \[4096\] are not among the 4096 words"):
            parse(small | {"start": [4096]})
        with pytest.raises(ConfigError, match=r"ends \[-1\] are not among the 4096 words"):
            parse(small | {"ends": [2, -1]})
