"""Chat models: contracts of the small presets, what stands at placeholders, which parts may be whose, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tonggan.config import ConfigError
from tonggan.models import Chat, ChatConfig, build, parse, presets
from tonggan.models.gpt import GPT, DecoderConfig, GPTConfig
from tonggan.models.projectors import MLPConfig, QueriesConfig, build_projector, looked
from tonggan.models.towers import EfficientNetConfig, LogMelConfig, ViTConfig
from tonggan.nn.talking import Talker, standing, words
from tonggan.tensors import IGNORE, Batch, Pieces, Sounds, Tokens, pad
from tonggan.types import UsageError

NAMES = ("mini-chat", "mini-chat-audio")
P, S = 31, 33
"""Placeholders of pictures and of sounds, behind the 31 words."""
TEXT: dict[str, Any] = {"vocab_size": 31, "context": 60, "width": 18, "layers": 2, "heads": 3, "kv_heads": 1, "mlp_width": 22}
EYES: dict[str, Any] = {"image_size": 12, "patch_size": 6, "width": 15, "layers": 3, "heads": 3, "mlp_width": 20}
"""Four patches, and a class token."""
EARS: dict[str, Any] = {"bins": 5, "context": 7, "width": 16, "layers": 1, "heads": 2, "mlp_width": 12}
BOTH: dict[str, Any] = {"audio": LogMelConfig(**EARS), "audio_token": S, "audio_projector": MLPConfig(stack=2)}
VARIANTS: dict[str, dict[str, Any]] = {
    "pictures": {},
    "several layers and the class token": {
        "image_layers": (-2, 0, 3),
        "class_token": True,
        "image_projector": MLPConfig(layers=1, bias=False),
    },
    "queries": {"image_projector": QueriesConfig(queries=3, layers=2, heads=3)},
    "patches in threes, over GPT-2": {
        "image_projector": MLPConfig(stack=3, norm=True),
        "text": DecoderConfig(style="gpt2", activation="gelu_tanh", **{k: v for k, v in TEXT.items() if k != "kv_heads"}),
    },
    "patches in squares": {"image_projector": MLPConfig(square=2)},
    "pictures and sounds": BOTH,
    "sounds read by queries": {**BOTH, "audio_projector": QueriesConfig(queries=2, layers=1, heads=3)},
}
EACH = {"several layers and the class token": 5, "queries": 3, "patches in threes, over GPT-2": 2, "patches in squares": 1}
"""Features of a picture, where they are not four."""


def tiny(**changes: Any) -> Chat:
    """Odd sizes in double precision, and weights large enough that nothing passes unnoticed."""
    given: dict[str, Any] = {"image": ViTConfig(**EYES), "image_token": P, "text": DecoderConfig(**TEXT)}
    model = Chat(ChatConfig(**{**given, **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return model.double().eval()


def given(each: int = 4, heard: tuple[int, int, int] | None = None) -> Batch:
    """Rows of two, no and three pictures of so many features, and where they hear, of so many features of a sound."""
    picture, sound = [P] * each, [[S] * count for count in heard or (0, 0, 0)]
    texts = [[1, *picture, 5, *sound[0], 6, *picture, 7, 8], [2, *sound[1], 3, 4], [*picture, *sound[2], 1, *picture, *picture, 9]]
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(5, 3, 12, 12, generator=generator, dtype=torch.float64)
    mels = torch.randn(2, 5, 13, generator=generator, dtype=torch.float64)
    sounds = Sounds(mels, torch.tensor([13, 5]), (1, 1, 0)) if heard else None
    return Batch(("a", "b", "c"), tokens=pad(texts), pictures=Pieces(values, (2, 0, 3)), sounds=sounds)


def of(variant: str) -> tuple[Chat, Batch]:
    """Of 13, 5 and 0 frames the tower makes 7, 3 and 0 states."""
    heard = {"pictures and sounds": (4, 2, 0), "sounds read by queries": (2, 2, 0)}.get(variant)
    return tiny(**VARIANTS[variant]), given(EACH.get(variant, 4), heard)


def row_of(batch: Batch, row: int) -> Batch:
    """One row alone, without the padding of the others."""
    assert batch.tokens is not None and batch.pictures is not None
    length = int(batch.tokens.lengths[row])
    tokens = Tokens(batch.tokens.ids[row : row + 1, :length], batch.tokens.lengths[row : row + 1])
    sounds = batch.sounds and batch.sounds.select([row])
    if sounds is not None and len(sounds.values):
        sounds = replace(sounds, values=sounds.values[:, :, : int(sounds.lengths.max())])
    return Batch(batch.ids[row : row + 1], tokens=tokens, pictures=batch.pictures.select([row]), sounds=sounds)


def said(model: Chat, batch: Batch) -> Tensor:
    assert batch.tokens is not None
    return words(model, model.say(batch.tokens, model.read(batch)))


def chunk(tokens: Tokens, start: int, stop: int) -> Tokens:
    return Tokens(tokens.ids[:, start:stop], torch.full((len(tokens.ids),), stop - start))


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_alone_in_a_batch_and_in_chunks_a_chat_says_the_same(variant: str) -> None:
    """With any number of pictures; chunks begin before, inside and behind what stands for one."""
    model, batch = of(variant)
    assert isinstance(model, Talker)
    whole = said(model, batch)
    for row in range(3):
        one = row_of(batch, row)
        assert one.tokens is not None
        length = one.tokens.ids.shape[1]
        assert torch.allclose(said(model, one), whole[row : row + 1, :length], atol=1e-12)
        for borders in ([1, 3, 4, 7], [6], list(range(1, length))):
            seen, cache, states = model.read(one), model.cache(length), []
            for start, stop in zip([0, *borders], [*borders, length], strict=True):
                if start < min(stop, length):
                    states.append(model.say(chunk(one.tokens, start, min(stop, length)), seen, cache=cache))
                    cache.advance([min(stop, length) - start])
            assert torch.allclose(words(model, torch.cat(states, dim=1)), whole[row : row + 1, :length], atol=1e-12)


@torch.no_grad()
def test_squares_of_patches_are_what_lies_together() -> None:
    projector = build_projector(MLPConfig(square=2), 3, 8)
    given: list[Tensor] = []
    projector.first.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    places = torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij"), dim=-1).reshape(1, 36, 2)
    projector(torch.cat([places, torch.zeros(1, 36, 1)], dim=2))
    cells = given[0].view(9, 4, 3)[:, :, :2]
    for number, cell in enumerate(cells.tolist()):
        top, left = number // 3 * 2, number % 3 * 2
        assert cell == [[top, left], [top, left + 1], [top + 1, left], [top + 1, left + 1]]
    for patches in (35, 25):
        with pytest.raises(UsageError, match=f"{patches} patches are no square that squares of 2 by 2 fill"):
            projector(torch.zeros(1, patches, 3))
    for wrong in ({"image_projector": {"kind": "mlp", "stack": 2, "square": 2}}, {"audio_projector": {"kind": "mlp", "square": 2}}):
        with pytest.raises(ValueError, match="square"):
            ChatConfig.model_validate({"text": TEXT, **wrong})


@torch.no_grad()
def test_a_row_may_have_several_sounds_of_any_length() -> None:
    """Two in one row say what each says in its place; rows without any stand between."""
    model, batch = of("pictures and sounds")
    assert batch.sounds is not None
    long, short = batch.sounds.values, batch.sounds.values[1:, :, :5]
    texts = [[1, *[S] * 4, 5, *[S] * 2, 6, 7], [2, 3], [*[S] * 2, 8, 9]]
    sounds = Sounds(long[[0, 1, 1]], torch.tensor([13, 5, 5]), (2, 0, 1))
    several = Batch(("a", "b", "c"), tokens=pad(texts), sounds=sounds)
    seen, alone = model.read(several), [model.sounds(Sounds(one, torch.tensor([one.shape[2]])))[0] for one in (long[:1], short)]
    assert several.tokens is not None
    embedded = model.embed(several.tokens, seen)
    for row, start, sound in ((0, 1, alone[0]), (0, 6, alone[1]), (2, 0, alone[1])):
        assert torch.allclose(embedded[row, start : start + len(sound)], sound, atol=1e-12)
    whole = said(model, several)
    for row, text in enumerate(texts):
        one = replace(several.select([row]), tokens=pad([text]))
        assert torch.allclose(said(model, one)[0], whole[row, : len(text)], atol=1e-12)
    with pytest.raises(UsageError, match=r"row 0: 6 placeholders \(id .*\) in the text, but 4 features of its sounds"):
        model.read(replace(several, sounds=replace(sounds, values=long, lengths=torch.tensor([13, 5]), counts=(1, 0, 1))))


@torch.no_grad()
def test_what_stands_at_a_placeholder_is_the_feature_of_its_own_row() -> None:
    """Written out: the words' vectors, and in their midst the pictures', row by row."""
    model, batch = of("pictures and sounds")
    assert batch.tokens is not None and batch.pictures is not None and batch.sounds is not None
    found = model.embed(batch.tokens, model.read(batch))
    pictures = model.pictures(batch.pictures.values)
    sounds = [model.sounds(Sounds(batch.sounds.values[i : i + 1], batch.sounds.lengths[i : i + 1]))[0] for i in range(2)]
    assert [len(sound) for sound in sounds] == [4, 2]
    word = model.text.embedding.weight
    rows = [
        [word[[1]], pictures[0], word[[5]], sounds[0], word[[6]], pictures[1], word[[7, 8]]],
        [word[[2]], sounds[1], word[[3, 4]]],
        [pictures[2], word[[1]], pictures[3], pictures[4], word[[9]]],
    ]
    for at, row in enumerate(rows):
        expected = torch.cat(row)
        assert torch.allclose(found[at, : len(expected)], expected, atol=1e-12), at


@torch.no_grad()
def test_padding_on_the_left_is_no_text() -> None:
    model, batch = tiny(), given()
    assert batch.tokens is not None
    longest = batch.tokens.ids.shape[1]
    starts = longest - batch.tokens.lengths
    ids = torch.full_like(batch.tokens.ids, P)  # even where padding has the placeholder's id
    for row, start in enumerate(starts.tolist()):
        ids[row, start:] = batch.tokens.ids[row, : longest - start]
    left = said(model, Batch(batch.ids, tokens=Tokens(ids, torch.full((3,), longest), starts), pictures=batch.pictures))
    right = said(model, batch)
    for row, start in enumerate(starts.tolist()):
        assert torch.allclose(left[row, start:], right[row, : longest - start], atol=1e-12)


@torch.no_grad()
def test_texts_with_pictures_packed_into_a_row_are_what_they_are_alone() -> None:
    """The first and the third text in one row, with the five pictures of both."""
    model, batch = tiny(), given()
    assert batch.tokens is not None and batch.pictures is not None
    whole, (first, _, third) = said(model, batch), batch.tokens.lengths.tolist()
    ids = torch.cat([batch.tokens.ids[0, :first], batch.tokens.ids[2, :third]])[None]
    segments = torch.tensor([[0] * first + [1] * third])
    tokens = Tokens(ids, torch.tensor([first + third]), segments=segments)
    row = Batch(("a+c",), tokens=tokens, pictures=replace(batch.pictures, counts=(5,)))
    found = said(model, row)[0]
    assert torch.allclose(found[:first], whole[0, :first], atol=1e-12)
    assert torch.allclose(found[first:], whole[2, :third], atol=1e-12)


@torch.no_grad()
def test_dialogues_go_on_with_pictures_behind_each_rows_own_end() -> None:
    """A prompt padded on the right, then a chunk with pictures in some rows; rows repeated and exchanged in between."""
    model, batch = tiny(), given()
    assert batch.tokens is not None
    seen, cut = model.read(batch), [6, 3, 4]
    assert seen is not None
    prompt = Tokens(batch.tokens.ids[:, :6].clone(), torch.tensor(cut))
    prompt.ids[2, 4:] = P  # what is padding has no features, whatever stands there
    cache = model.cache(40)
    model.say(prompt, seen, cache=cache)
    cache.advance(cut)
    rows = [2, 0, 2, 1]
    cache, chosen = cache.select(rows), seen.select(rows)
    more = pad([[1, P, P, P, P, 7], [6, P, P, P, P, 7, 8], [3, 4, 5], [11, 12]])
    found = words(model, model.say(more, chosen, cache=cache))
    for place, row in enumerate(rows):
        length = int(more.lengths[place])
        ids = torch.cat([batch.tokens.ids[row, : cut[row]], more.ids[place, :length]])[None]
        whole = Tokens(ids, torch.tensor([ids.shape[1]]))
        x = model.embed(whole, seen.select([row]), model.cache(40))  # with a cache a text may still lack pictures
        states = model.text(x, mask=standing(whole, None)[0])
        assert torch.allclose(found[place, :length], words(model, states)[0, -length:], atol=1e-12)


def test_states_are_taken_after_the_named_blocks_and_later_ones_learn_nothing() -> None:
    """As LLaVA reads its tower but for the last block; gradients reach both towers and the words."""
    model, batch = tiny(image_layers=(-2,), **BOTH), given(heard=(4, 2, 0))
    said(model, batch).square().sum().backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None}
    assert {name.rpartition(".")[0].removeprefix("image.") for name in idle} <= {
        "post_norm",
        *(f"transformer.blocks.2.{part}" for part in ("norm1", "norm2")),
        *(f"transformer.blocks.2.attention.{part}" for part in "qkv"),
        "transformer.blocks.2.attention.out",
        "transformer.blocks.2.feed_forward.up",
        "transformer.blocks.2.feed_forward.down",
    }
    assert not any(float(p.grad.abs().max()) == 0 for name, p in model.named_parameters() if p.grad is not None and "k.bias" not in name)


@torch.no_grad()
def test_without_pictures_it_is_its_language_model_bit_for_bit() -> None:
    """Whose checkpoint it starts from by its own names."""
    gpt = GPT(GPTConfig(text=DecoderConfig(**TEXT))).eval()
    model = Chat(tiny().config).eval()
    theirs = gpt.state_dict()
    assert {name for name in model.state_dict() if name.startswith("text.")} == set(theirs)
    model.load_state_dict(model.state_dict() | theirs)
    tokens = pad([[1, 30, 5, 6], [2, 3, 4]])
    assert torch.equal(said(model, Batch(("a", "b"), tokens=tokens)), words(gpt, gpt.say(tokens)))


@torch.no_grad()
def test_a_convolutional_tower_is_looked_at_cell_by_cell() -> None:
    config = EfficientNetConfig(variant="lite0", factors=(0.1, 0.1), image_size=64, norm_momentum=0.1)
    model = tiny(image=config).float()
    pictures = Pieces(torch.randint(0, 256, (5, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8), (2, 0, 3))
    assert said(model, Batch(("a", "b", "c"), tokens=given().tokens, pictures=pictures)).isfinite().all()


# ------------------------------------------------------------------------------------------------ the small presets


def lessons(name: str, n: int, *, pictures: int | None = None) -> Batch:
    """Pictures of flat tiles (no, one or two to a text) and, for a model that hears, sounds; a question, and an answer that nothing in the
    text tells."""
    generator = torch.Generator().manual_seed(0)
    counts = tuple(i % 3 if pictures is None else pictures for i in range(n))
    tiles = torch.randint(0, 256, (sum(counts), 3, 2, 2), generator=generator).float()
    hears = name == "mini-chat-audio"
    frames = [0 if i % 2 else 90 + 16 * (i % 3) for i in range(n)] if hears else [0] * n
    mels = torch.randn(n, 64, max(*frames, 1), generator=generator)[torch.tensor(frames) > 0]
    heard = [-(-((count + 1) // 2) // 8) for count in frames]
    answers = torch.randint(5, 300, (n, 2), generator=generator).tolist()
    texts = [[1, *[4096] * (16 * count), *[4097] * sound, 3, 4] for count, sound in zip(counts, heard, strict=True)]
    tokens = pad([[*text, *answer, 2] for text, answer in zip(texts, answers, strict=True)])
    targets = torch.full_like(tokens.ids, IGNORE)
    for row, text in enumerate(texts):
        targets[row, len(text) - 1 : len(text) + 2] = tokens.ids[row, len(text) : len(text) + 3]
    values = F.interpolate(tiles, size=64).to(torch.uint8)
    lengths = torch.tensor([count for count in frames if count])
    sounds = Sounds(mels, lengths, tuple(int(count > 0) for count in frames)) if hears else None
    return Batch(tuple(map(str, range(n))), tokens=tokens, targets=targets, pictures=Pieces(values, counts), sounds=sounds)


def loss_of(model: Chat, batch: Batch) -> Tensor:
    assert batch.tokens is not None and batch.targets is not None
    asked = batch.targets != IGNORE
    return F.cross_entropy(words(model, model.say(batch.tokens, model.read(batch))[asked]), batch.targets[asked])


@pytest.mark.parametrize("name", NAMES)
def test_mini_presets_of_chat_keep_every_contract(name: str) -> None:
    torch.manual_seed(0)
    model = build(presets()[name])
    assert isinstance(model, Chat) and isinstance(model, Talker) and not model.reads_prompt
    assert sum(p.numel() for p in model.parameters()) < 5_000_000
    batch = lessons(name, 5)
    assert batch.tokens is not None
    model.eval()
    with torch.no_grad():
        whole = said(model, batch)
        for row in range(5):
            length = int(batch.tokens.lengths[row])
            assert torch.allclose(said(model, row_of(batch, row)), whole[row : row + 1, :length], atol=1e-4), "the batch changes it"
        wide = Tokens(F.pad(batch.tokens.ids, (0, 9), value=7), batch.tokens.lengths)
        padded = said(model, Batch(batch.ids, tokens=wide, pictures=batch.pictures, sounds=batch.sounds))
        assert torch.allclose(padded[:, : whole.shape[1]], whole, atol=1e-4), "padding changes it"
        again = build(presets()[name]).eval()
        assert isinstance(again, Chat)
        again.load_state_dict(model.state_dict())
        assert torch.equal(said(again, batch), whole)
    model.train()
    loss_of(model, batch).backward()
    for parameter_name, parameter in model.named_parameters():
        if not parameter_name.startswith("image.post_norm."):  # pictures are read as they are before it
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), parameter_name


def by_heart(model: Chat, batch: Batch, others: Batch) -> None:
    """Sixteen questions alike, and answers of two words and an end: blind and deaf, the loss is log 16 / 3 at best."""
    adam = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(80):
        loss = loss_of(model, batch)
        if float(loss.detach()) < 0.3:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        assert float(loss_of(model, batch)) < 0.3
        assert float(loss_of(model, others)) > math.log(16) / 3, "it is what was seen or heard that tells"


@pytest.mark.slow
def test_the_mini_chat_learns_answers_about_pictures_by_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tower is frozen, so that it has to look but once."""
    torch.manual_seed(0)
    model, batch = build(presets()["mini-chat"]), lessons("mini-chat", 16, pictures=1)
    assert isinstance(model, Chat) and model.image is not None and batch.pictures is not None
    with torch.no_grad():
        states = looked(model.image, batch.pictures.values, (-1,), False)
    order = torch.arange(16)
    monkeypatch.setattr("tonggan.models.chat.looked", lambda tower, pixels, *rest: states[pixels[:, 0, 0, 0]])
    numbered, turned = (Pieces(at[:, None, None, None], (1,) * 16) for at in (order, order.flip(0)))
    by_heart(model, replace(batch, pictures=numbered), replace(batch, pictures=turned))


@pytest.mark.slow
def test_the_mini_chat_that_hears_learns_answers_about_sounds_by_heart() -> None:
    """Each sound is a chord of its own."""
    torch.manual_seed(0)
    model, batch = build(presets()["mini-chat-audio"]), lessons("mini-chat", 16, pictures=1)
    assert isinstance(model, Chat) and batch.tokens is not None and batch.targets is not None
    chords = 2 * torch.randn(16, 64, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 16)
    tokens = pad([[1, 4097, 3, 4, *row[-3:]] for row in batch.tokens.ids.tolist()])
    targets, frames = F.pad(batch.targets[:, -4:], (3, 0), value=IGNORE), torch.full((16,), 16)
    heard, turned = (Batch(batch.ids, tokens=tokens, targets=targets, sounds=Sounds(values, frames)) for values in (chords, chords.flip(0)))
    by_heart(model, heard, turned)


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("row", "ids", "message"),
    [
        (0, [1, P, P, 5], r"row 0: 2 placeholders \(id 31\) in the text, but 8 features of its pictures"),
        (1, [2, P, 4], r"row 1: 1 placeholders \(id 31\) in the text, but 0 features of its pictures"),
        (0, [1, *[P] * 8, S], r"row 0: 1 placeholders \(id 33\) in the text, but 4 features of its sounds"),
    ],
)
def test_placeholders_of_a_chat_must_be_as_many_as_features(row: int, ids: list[int], message: str) -> None:
    """Told when pictures are read, and where only words are given by what says them."""
    model, batch = tiny(**BOTH), given(heard=(4, 2, 0))
    assert batch.tokens is not None
    rows = [text[: int(n)] for text, n in zip(batch.tokens.ids.tolist(), batch.tokens.lengths, strict=True)]
    rows[row] = ids
    with pytest.raises(UsageError, match=message):
        model.read(Batch(batch.ids, tokens=pad(rows), pictures=batch.pictures, sounds=batch.sounds))
    with pytest.raises(UsageError, match=message):
        model.say(pad(rows), model.read(Batch(batch.ids, pictures=batch.pictures, sounds=batch.sounds)))


def test_a_chunk_may_not_have_more_placeholders_than_features_are_left() -> None:
    model, one = tiny(), row_of(given(), 0)
    seen, cache = model.read(one), model.cache(20)
    model.say(Tokens(torch.tensor([[1, P, P, P, P]]), torch.tensor([5])), seen, cache=cache)
    cache.advance([5])
    with pytest.raises(UsageError, match=r"row 0: 9 placeholders .* but 8 features"):
        model.say(Tokens(torch.full((1, 5), P), torch.tensor([5])), seen, cache=cache)
    with pytest.raises(UsageError, match=r"row 0: 1 placeholders .* but 0 features"):
        model.say(Tokens(torch.tensor([[P]]), torch.tensor([1])), None, cache=model.cache(20))


@torch.no_grad()
def test_a_placeholder_behind_the_last_feature_is_a_word_like_others() -> None:
    """As the library has it where a model says one itself."""
    model, one = tiny(image_token=30), row_of(given(), 0)
    assert one.tokens is not None and one.pictures is not None
    tokens = Tokens(torch.where(one.tokens.ids == P, 30, one.tokens.ids), one.tokens.lengths)
    seen, cache = model.read(Batch(one.ids, tokens=tokens, pictures=one.pictures)), model.cache(20)
    model.say(tokens, seen, cache=cache)
    cache.advance([int(tokens.lengths)])
    step = Tokens(torch.tensor([[30]]), torch.tensor([1]))
    assert torch.equal(model.embed(step, seen, cache)[0, 0], model.text.embedding.weight[30])


def test_a_model_without_a_tower_says_so() -> None:
    deaf, blind = tiny(), tiny(image=None, image_token=None, **BOTH)
    sounds = Sounds(torch.randn(1, 5, 9, dtype=torch.float64), torch.tensor([9]))
    with pytest.raises(UsageError, match="this model hears no sounds"):
        deaf.read(Batch(("a",), sounds=sounds))
    with pytest.raises(UsageError, match="this model looks at no pictures"):
        blind.read(Batch(("a",), pictures=Pieces(torch.randn(1, 3, 12, 12), (1,))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_token": None}, "image and image_token go together"),
        ({"ends": [2, 4096]}, r"ends \[4096\] are not among the 4096 words"),
        ({"audio_token": 7}, "audio and audio_token go together"),
        ({"audio_token": 4096, "audio": {"kind": "log_mel"}}, "image_token and audio_token are the same word"),
        ({"image_layers": [-2, 4]}, "image_layers 4: the tower has 3 blocks"),
        ({"image": {"kind": "efficientnet"}, "image_layers": [-2]}, "image_layers are those of a ViT"),
        ({"image": {"kind": "vit", "pooling": "mean"}, "class_token": True}, "class_token: the tower has none"),
    ],
)
def test_settings_of_a_chat_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    plain = presets()["mini-chat"].model_dump(mode="json") | changes
    with pytest.raises(ConfigError, match=message):
        parse(plain, "model")
