"""Flamingo: contracts of the small preset, what it adds to its language model, which picture a word sees, what stays frozen."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tonggan.config import ConfigError
from tonggan.models import Flamingo, FlamingoConfig, GPTConfig, build, parse, presets
from tonggan.models.flamingo import Pictures, ResamplerConfig
from tonggan.models.gpt import GPT, DecoderConfig
from tonggan.models.towers import EfficientNetConfig, ViTConfig
from tonggan.nn.talking import Talker, words
from tonggan.tensors import IGNORE, Batch, Pieces, Tokens, pad
from tonggan.types import UsageError

NAMES = ("mini-flamingo",)
TEXT: dict[str, Any] = {"vocab_size": 31, "context": 40, "width": 18, "layers": 4, "heads": 3, "mlp_width": 22}
PICTURE, LLAMA, GPT2 = 32, {"kv_heads": 1, "tied": False}, {"style": "gpt2", "activation": "gelu_tanh"}


def tiny(*, text: dict[str, Any] | None = None, **changes: Any) -> Flamingo:
    """Odd sizes in double precision, and weights large enough that nothing passes unnoticed: gates are open."""
    given: dict[str, Any] = {
        "image": ViTConfig(image_size=12, patch_size=4, width=15, layers=1, heads=3, mlp_width=20),
        "resampler": ResamplerConfig(queries=5, layers=2, heads=3, head_width=7, qk_norm=True),
        "text": DecoderConfig(**{**TEXT, **(LLAMA if text is None else text)}),
        "image_token": PICTURE,
        "added_words": 2,
        "every": 2,
    }
    model = Flamingo(FlamingoConfig(**{**given, **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return model.double().eval()


def given(*, frames: int | None = None) -> Batch:
    """Rows of two, no and three pictures (or clips), of different lengths; the last begins with one."""
    shape = (5, 3, 12, 12) if frames is None else (5, frames, 3, 12, 12)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tokens = pad([[1, PICTURE, 5, 6, PICTURE, 7, 8], [2, 3, 4], [PICTURE, 1, 31, PICTURE, PICTURE, 9]])
    return Batch(("a", "b", "c"), tokens=tokens, pictures=Pieces(values, (2, 0, 3)))


def row_of(batch: Batch, row: int) -> Batch:
    """One row alone, without the padding of the others."""
    assert batch.tokens is not None and batch.pictures is not None
    length = int(batch.tokens.lengths[row])
    tokens = Tokens(batch.tokens.ids[row : row + 1, :length], batch.tokens.lengths[row : row + 1])
    return Batch(batch.ids[row : row + 1], tokens=tokens, pictures=batch.pictures.select([row]))


def said(model: Flamingo, batch: Batch) -> Tensor:
    assert batch.tokens is not None
    return words(model, model.say(batch.tokens, model.read(batch)))


def chunk(tokens: Tokens, start: int, stop: int) -> Tokens:
    return Tokens(tokens.ids[:, start:stop], torch.full((len(tokens.ids),), stop - start))


VARIANTS: dict[str, dict[str, Any]] = {
    "over Llama": {},
    "over GPT-2": {"text": GPT2, "gate": "channel"},
    "all pictures": {"sees": "all", "qk_norm": True},
    "clips": {"frames": 3, "resampler": None},
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
@torch.no_grad()
def test_alone_in_a_batch_and_in_chunks_it_says_the_same(settings: dict[str, Any]) -> None:
    """With any number of pictures; chunks begin before, at and behind a picture."""
    model, batch = tiny(**settings), given(frames=2 if "frames" in settings else None)
    assert isinstance(model, Talker)
    whole = said(model, batch)
    for row in range(3):
        one = row_of(batch, row)
        assert one.tokens is not None
        length = one.tokens.ids.shape[1]
        assert torch.allclose(said(model, one), whole[row : row + 1, :length], atol=1e-12)
        for borders in ([1, 2, 4], [2], list(range(1, 9))):
            seen, cache, states = model.read(one), model.cache(length), []
            for start, stop in zip([0, *borders], [*borders, length], strict=True):
                if start < min(stop, length):
                    states.append(model.say(chunk(one.tokens, start, min(stop, length)), seen, cache=cache))
                    cache.advance([min(stop, length) - start])
            assert torch.allclose(words(model, torch.cat(states, dim=1)), whole[row : row + 1, :length], atol=1e-12)


@torch.no_grad()
def test_ragged_rows_go_on_behind_their_own_end_and_rows_can_be_chosen() -> None:
    """A prompt padded on the right, then a chunk with a picture in one row; rows repeated and exchanged in between."""
    model, batch = tiny(), given()
    seen = model.read(batch)
    assert seen is not None and batch.tokens is not None
    prompt = Tokens(batch.tokens.ids[:, :4], torch.tensor([4, 3, 2]))
    cache = model.cache(12)
    model.say(prompt, seen, cache=cache)
    cache.advance([4, 3, 2])
    rows = [2, 0, 2]
    cache, chosen = cache.select(rows), seen.select(rows)
    assert isinstance(chosen, Pictures) and chosen.counts == (3, 2, 3)
    more = torch.tensor([[31, PICTURE, PICTURE], [PICTURE, 7, 8], [5, 6, PICTURE]])
    found = words(model, model.say(Tokens(more, torch.tensor([3, 3, 2])), chosen, cache=cache))
    for place, row in enumerate(rows):
        length = 3 if place < 2 else 2
        ids = torch.cat([prompt.ids[row, : int(prompt.lengths[row])], more[place, :length]])[None]
        one, alone = Tokens(ids, torch.tensor([ids.shape[1]])), model.read(row_of(batch, row))
        sight = model.sight(one, alone, model.cache(9))  # with a cache a text may still lack pictures
        expected = words(model, model.states(one, alone, sight))
        assert torch.allclose(found[place, :length], expected[0, -length:], atol=1e-12)


@torch.no_grad()
def test_rows_that_are_left_may_have_fewer_pictures_or_none() -> None:
    """As when those with the most are done first."""
    model, batch = tiny(), given()
    seen, whole, tokens = model.read(batch), said(model, batch), batch.tokens
    assert seen is not None and tokens is not None
    for rows in ([0], [1], [1, 0], [1, 1]):
        left = Tokens(tokens.ids[rows], tokens.lengths[rows])
        found = words(model, model.say(left, seen.select(rows)))
        assert torch.allclose(found, whole[rows], atol=1e-12), rows


@torch.no_grad()
def test_a_word_sees_its_last_picture_only() -> None:
    """What any other is shown changes nothing at it; what a word says changes for the words behind a picture alone."""
    batch = given()
    assert batch.pictures is not None
    for sees, reach in (("last", [(1, 4), (4, 7)]), ("all", [(1, 7), (4, 7)])):
        # One gated block and one decoder block: words that have seen a picture tell it on to those behind them by self-attention.
        model = tiny(sees=sees, every=1, text={**LLAMA, "layers": 1})
        before = said(model, batch)
        for number, (start, stop) in enumerate(reach):
            values = batch.pictures.values.clone()
            values[number] += 1
            other = Batch(batch.ids, tokens=batch.tokens, pictures=Pieces(values, batch.pictures.counts))
            gated: list[Tensor] = []
            hook = model.gated[0].register_forward_hook(lambda module, args, out, into=gated: into.append(out))
            said(model, batch), said(model, other)
            hook.remove()
            changed = (gated[0] != gated[1]).any(dim=-1)
            assert changed[0].tolist() == [start <= at < stop for at in range(7)], (sees, number)
            assert not changed[1:].any(), "the pictures of other rows"
        assert before.isfinite().all()


@pytest.mark.parametrize("text", [LLAMA, GPT2], ids=["llama", "gpt2"])
@torch.no_grad()
def test_untrained_it_is_its_language_model_bit_for_bit(text: dict[str, Any]) -> None:
    """Whose checkpoint it starts from by its own names; with pictures in sight, alone, and step by step."""
    gpt = GPT(GPTConfig(text=DecoderConfig(**{**TEXT, **text}))).eval()
    model = Flamingo(tiny(text=text, image_token=30, added_words=0).config).eval()
    theirs = gpt.state_dict()
    assert {name for name in model.state_dict() if name.startswith("text.")} == set(theirs)
    model.load_state_dict(model.state_dict() | theirs)
    ids = pad([[1, 30, 5, 6, 30, 7, 8], [2, 3, 4], [30, 1, 9]])
    batch = Batch(("a", "b", "c"), tokens=ids, pictures=Pieces(torch.randn(3, 3, 12, 12), (2, 0, 1)))
    assert torch.equal(said(model, batch), words(gpt, gpt.say(ids)))
    seen, caches = model.read(batch), (model.cache(7), gpt.cache(7))
    for at in range(7):
        step = Tokens(ids.ids[:, at : at + 1], torch.ones(3, dtype=torch.long))
        states = model.say(step, seen, cache=caches[0]), gpt.say(step, cache=caches[1])
        assert torch.equal(*states)
        for cache in caches:
            cache.advance([1, 1, 1])


def test_frozen_parts_are_bit_identical_after_training() -> None:
    """By the names that a recipe's `freeze` takes; gates open, and the placeholder's own row is learnt."""
    model = Flamingo(tiny().config)
    for part in (model.image, model.text):
        part.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = given()
    batch = Batch(batch.ids, tokens=batch.tokens, pictures=Pieces(batch.pictures.values.float(), (2, 0, 3)))  # type: ignore[union-attr]
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        adam.zero_grad()
        said(model, batch).square().sum().backward()
        adam.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("image.", "text.")) for name in changed)


@pytest.mark.parametrize("name", NAMES)
def test_mini_presets_of_flamingo_keep_every_contract(name: str) -> None:
    torch.manual_seed(0)
    model = build(presets()[name])
    assert isinstance(model, Flamingo) and isinstance(model, Talker) and not model.reads_prompt
    assert sum(p.numel() for p in model.parameters()) < 5_000_000
    with torch.no_grad():
        for block in model.gated:
            block.gate1.fill_(0.5), block.gate2.fill_(-0.5)
    batch = lessons(5)
    assert batch.tokens is not None
    model.eval()
    with torch.no_grad():
        whole = said(model, batch)
        for row in range(5):
            length = int(batch.tokens.lengths[row])
            assert torch.allclose(said(model, row_of(batch, row)), whole[row : row + 1, :length], atol=1e-4), "the batch changes it"
        wide = Tokens(F.pad(batch.tokens.ids, (0, 9), value=7), batch.tokens.lengths)
        padded = said(model, Batch(batch.ids, tokens=wide, pictures=batch.pictures))
        assert torch.allclose(padded[:, : whole.shape[1]], whole, atol=1e-4), "padding changes it"
        again = build(presets()[name]).eval()
        assert isinstance(again, Flamingo)
        again.load_state_dict(model.state_dict())
        assert torch.equal(said(again, batch), whole)
    model.train()
    loss_of(model, batch).backward()
    for parameter_name, parameter in model.named_parameters():
        if not parameter_name.startswith("image.post_norm."):  # pictures are read as they are before it
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), parameter_name


def lessons(n: int) -> Batch:
    """Pictures of flat tiles, no, one or two to a text, and words that nothing but the pictures tell."""
    generator = torch.Generator().manual_seed(0)
    counts = tuple(i % 3 for i in range(n))
    tiles = torch.randint(0, 256, (sum(counts), 3, 2, 2), generator=generator).float()
    words_of = torch.randint(5, 300, (n, 4), generator=generator).tolist()
    tokens = pad([[1, *[4096] * count, *words_of[row][: 2 + row % 3], 2] for row, count in enumerate(counts)])
    targets = tokens.ids.roll(-1, dims=1)
    at = torch.arange(tokens.ids.shape[1])
    asked = (at >= torch.tensor(counts)[:, None]) & (at < tokens.lengths[:, None] - 1)
    values = F.interpolate(tiles, size=64).to(torch.uint8)
    return Batch(tuple(map(str, range(n))), tokens=tokens, targets=torch.where(asked, targets, IGNORE), pictures=Pieces(values, counts))


def loss_of(model: Flamingo, batch: Batch) -> Tensor:
    assert batch.targets is not None
    return F.cross_entropy(said(model, batch).flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mini_presets_of_flamingo_learn_captions_by_heart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen captions of three words, the first of which only the picture tells: blind, the loss is log 16 / 3 at best. The tower is
    frozen, so that it has to look but once. A gate begins at 0 and moves no further than its steps are long, so these are longer."""
    torch.manual_seed(0)
    model = build(presets()[name])
    assert isinstance(model, Flamingo)
    generator = torch.Generator().manual_seed(0)
    pictures = F.interpolate(torch.randint(0, 256, (16, 3, 2, 2), generator=generator).float(), size=64).to(torch.uint8)
    tokens = pad([[1, 4096, *torch.randint(5, 300, (2,), generator=generator).tolist(), 2] for _ in range(16)])
    targets = torch.where(torch.tensor([False, True, True, True, False]), tokens.ids.roll(-1, dims=1), IGNORE)
    batch = Batch(tuple(map(str, range(16))), tokens=tokens, targets=targets, pictures=Pieces(pictures, (1,) * 16))
    gates = [p for block in model.gated for p in (block.gate1, block.gate2)]
    learning = [p for part in (model.resampler, model.text, model.added) if part is not None for p in part.parameters()]
    learning += [p for name, p in model.gated.named_parameters() if "gate1" not in name and "gate2" not in name]
    adam = torch.optim.AdamW([{"params": learning, "lr": 2e-3}, {"params": gates, "lr": 3e-2, "weight_decay": 0}])
    with torch.no_grad():
        looked = model.image.tokens(pictures)
    with monkeypatch.context() as patch:
        patch.setattr(model.image, "tokens", lambda pixels: looked)
        for _ in range(80):
            loss = loss_of(model, batch)
            if float(loss.detach()) < 0.5:
                break
            adam.zero_grad()
            loss.backward()
            adam.step()
    with torch.no_grad():
        assert float(loss_of(model, batch)) < 0.5
        others = Batch(batch.ids, tokens=tokens, targets=targets, pictures=Pieces(pictures.flip(0), (1,) * 16))
        assert float(loss_of(model, others)) > math.log(16) / 3, "it is the pictures that tell"


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("row", "ids", "message"),
    [
        (0, [1, PICTURE, 5], "row 0: 1 placeholders for pictures in the text, but 2 pictures"),
        (1, [2, PICTURE, 4], "row 1: 1 placeholders for pictures in the text, but 0 pictures"),
    ],
)
def test_placeholders_must_be_as_many_as_pictures(row: int, ids: list[int], message: str) -> None:
    model, batch = tiny(), given()
    assert batch.tokens is not None
    rows = [text[: int(n)] for text, n in zip(batch.tokens.ids.tolist(), batch.tokens.lengths, strict=True)]
    rows[row] = ids
    with pytest.raises(UsageError, match=message):
        said(model, Batch(batch.ids, tokens=pad(rows), pictures=batch.pictures))


def test_a_chunk_may_not_have_more_placeholders_than_there_are_pictures() -> None:
    model, one = tiny(), row_of(given(), 0)
    seen, cache = model.read(one), model.cache(20)
    model.say(Tokens(torch.tensor([[1, PICTURE]]), torch.tensor([2])), seen, cache=cache)
    cache.advance([2])
    with pytest.raises(UsageError, match="row 0: 3 placeholders for pictures in the text, but 2 pictures"):
        model.say(Tokens(torch.tensor([[PICTURE, PICTURE]]), torch.tensor([2])), seen, cache=cache)
    with pytest.raises(UsageError, match="row 0: 1 placeholders for pictures in the text, but 0 pictures"):
        model.say(Tokens(torch.tensor([[PICTURE]]), torch.tensor([1])), None, cache=model.cache(20))


def test_a_text_that_shows_fewer_pictures_than_there_are_is_refused_before_it_is_said_word_by_word() -> None:
    model, batch = tiny(), given()
    fewer = replace(batch, tokens=pad([[1, PICTURE, 2], *[[1, *[PICTURE] * count] for count in batch.pictures.counts[1:]]]))
    with pytest.raises(UsageError, match="row 0: 1 placeholders for pictures in the text, but 2 pictures"):
        model.read(fewer)
    with pytest.raises(UsageError, match="row 0: 1 placeholders for pictures in the text, but 0 pictures"):
        model.read(replace(fewer, pictures=None))


@torch.no_grad()
def test_a_placeholder_that_the_model_itself_says_shows_nothing_new() -> None:
    """It goes on seeing the last picture that there was, as the library has it."""
    model, one = tiny(), row_of(given(), 0)
    assert one.tokens is not None
    seen, cache = model.read(one), model.cache(20)
    model.say(one.tokens, seen, cache=cache)
    cache.advance([7])
    step = Tokens(torch.tensor([[PICTURE]]), torch.tensor([1]))
    sight = model.sight(step, seen, cache)
    assert sight is not None and sight.tolist() == [[[False, True]]]


def test_clips_longer_than_the_model_has_places_for_are_refused() -> None:
    with pytest.raises(UsageError, match="clips of 4 frames; this model reads at most 3"):
        tiny(frames=3).read(given(frames=4))
    with pytest.raises(UsageError, match="clips of 2 frames; this model reads at most 1"):
        tiny().read(given(frames=2))


@torch.no_grad()
def test_frames_have_an_order() -> None:
    model, batch = tiny(frames=3), given(frames=3)
    assert batch.pictures is not None
    forwards, backwards = model.latents(batch.pictures.values), model.latents(batch.pictures.values.flip(1))
    assert not torch.allclose(forwards, backwards, atol=1e-3)
    assert torch.equal(model.latents(batch.pictures.values[:, :1]), model.latents(batch.pictures.values[:, 0])), "a picture is one frame"


@torch.no_grad()
def test_a_convolutional_tower_is_read_cell_by_cell() -> None:
    config = EfficientNetConfig(variant="lite0", factors=(0.1, 0.1), image_size=64, norm_momentum=0.1)
    model = tiny(image=config)
    batch = given()
    pictures = Pieces(torch.randint(0, 256, (5, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8), (2, 0, 3))
    assert said(model.float(), Batch(batch.ids, tokens=batch.tokens, pictures=pictures)).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every": 3}, "every 3 does not divide the 4 layers of the text"),
        ({"image_token": 4097}, "image_token 4097 is not among the 4097 words; set added_words to 2"),
        ({"ends": [4097]}, r"ends \[4097\] are not among the 4097 words"),
        ({"image_token": -1}, "image_token: -1: .*greater than or equal to 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    plain = presets()["mini-flamingo"].model_dump(mode="json") | changes
    with pytest.raises(ConfigError, match=message):
        parse(plain, "model")
