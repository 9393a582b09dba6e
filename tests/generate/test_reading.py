"""How prompts are read: in groups of like length, into one cache; and what they have in common once, in one call and over several."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from tonggan.generate import Prefixes, Said, Sampling, Shared, generate, logprob
from tonggan.generate.groups import FORWARD, alike
from tonggan.models import Chat, ChatConfig, Flamingo, FlamingoConfig
from tonggan.models.flamingo import ResamplerConfig
from tonggan.models.git import Shown
from tonggan.models.gpt import GPT, DecoderConfig, GPTConfig
from tonggan.models.towers import ViTConfig
from tonggan.nn.attention import KeysValues
from tonggan.nn.cache import AHEAD, KVCache
from tonggan.nn.talking import Remembered
from tonggan.tensors import Batch, Pieces, pad

TEXT = DecoderConfig(vocab_size=31, context=150, width=18, layers=2, heads=3, kv_heads=1, mlp_width=22)
EYES = ViTConfig(image_size=12, patch_size=6, width=15, layers=2, heads=3, mlp_width=20)
PICTURE = 31


def loud(model: Any) -> Any:
    """In double precision, and weights large enough that nothing passes unnoticed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return model.double().eval()


@pytest.fixture(scope="module")
def gpt() -> GPT:
    return loud(GPT(GPTConfig(text=TEXT)))


@pytest.fixture(scope="module")
def chat() -> Chat:
    return loud(Chat(ChatConfig(image=EYES, image_token=PICTURE, text=TEXT)))


@pytest.fixture(scope="module")
def flamingo() -> Flamingo:
    made = ResamplerConfig(queries=3, layers=1, heads=3, head_width=7)
    return loud(Flamingo(FlamingoConfig(image=EYES, resampler=made, text=TEXT, image_token=PICTURE, added_words=1, every=1)))


def asked(prompts: list[list[int]], **more: Any) -> Batch:
    return Batch(tuple(f"p{number}" for number in range(len(prompts))), tokens=pad(prompts), **more)


def texts(*lengths: int) -> list[list[int]]:
    chosen = random.Random(1)
    return [[chosen.randrange(31) for _ in range(length)] for length in lengths]


def read_by(model: type, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and tokens of each pass of more than one token, as they are made."""
    passes, say = [], model.say

    def noted(self: Any, tokens: Any, *given: Any, **more: Any) -> Tensor:
        passes.extend([tuple(tokens.ids.shape)] if tokens.ids.shape[1] > 1 else [])
        return say(self, tokens, *given, **more)

    monkeypatch.setattr(model, "say", noted)
    return passes


def same(found: list[list[Said]], expected: list[list[Said]]) -> None:
    for mine, others in zip(found, expected, strict=True):
        assert [(one.ids, one.reason) for one in mine] == [(one.ids, one.reason) for one in others]
        for one, other in zip(mine, others, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-9)


# ------------------------------------------------------------------------------------------------------ groups


def test_groups_cost_the_least() -> None:
    def cost(groups: list[list[int]]) -> int:
        return sum(len(group) * max(lengths[row] for row in group) + 10 for group in groups)

    chosen = random.Random(0)
    for _ in range(20):
        lengths = [chosen.choice([1, 2, 5, 9, 30, 31, 40]) for _ in range(6)]
        groups = alike(lengths, forward=10)
        assert sorted(row for group in groups for row in group) == list(range(6))
        order = sorted(range(6), key=lambda row: lengths[row])
        cuts = [c for n in range(6) for c in itertools.combinations(range(1, 6), n)]
        every = [[order[a:b] for a, b in itertools.pairwise((0, *cut, 6))] for cut in cuts]
        assert cost(groups) == min(map(cost, every)), lengths
    assert alike([7, 7, 7]) == [[0, 1, 2]] and alike([5]) == [[0]]
    assert alike([3, 3 + 2 * FORWARD, 3]) == [[1], [0, 2]], "padding of two rows against one pass"


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 1.5, "seed": 3, "samples": 2, "top_p": 0.9}, {"beams": 3, "samples": 2}, {"repetition_penalty": 1.4}]
)
def test_in_groups_it_says_what_it_says_alone(gpt: GPT, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = texts(3, 70, 4, 66, 1, 130)
    samplings = [Sampling(max_tokens=n, **settings) for n in (9, 3, 12, 8, 1, 5)]
    passes = read_by(GPT, monkeypatch)
    together = generate(gpt, asked(prompts), samplings, ends=(4, 9))
    assert passes == [(1, 130), (2, 70), (3, 4)], "each beside its like"
    alone = [generate(gpt, asked([prompt]), [one], ends=(4, 9))[0] for prompt, one in zip(prompts, samplings, strict=True)]
    same(together, alone)


def test_given_answers_are_of_their_own_prompts(gpt: GPT) -> None:
    prompts, given = texts(3, 70, 4), [[[1, 2], [5]], [[7, 8, 9]], [[4]]]
    alone = [logprob(gpt, asked([prompt]), [some])[0] for prompt, some in zip(prompts, given, strict=True)]
    for mine, other in zip(logprob(gpt, asked(prompts), given), alone, strict=True):
        assert mine == pytest.approx(other, abs=1e-9)


def test_texts_are_made_where_they_are_asked_for(gpt: GPT) -> None:
    read: list[int] = []

    def decode(ids: Any) -> str:
        read.append(len(ids))
        return "".join(chr(97 + one) for one in ids)

    generate(gpt, asked(texts(3)), [Sampling(max_tokens=6)], ends=(), decode=decode)
    assert read == [6], "once, at the end"
    generate(gpt, asked(texts(3)), [Sampling(max_tokens=6, stop=("??",))], ends=(), decode=decode)
    assert read == [6, 1, 2, 3, 4, 5, 6], "a stop may stand anywhere"


# ------------------------------------------------------------------------------------------------------- cache


def filled(counts: list[int], room: int = 1000) -> KVCache:
    """Of one layer, with numbers that tell row and position."""
    cache = KVCache(1, room)
    keys = torch.arange(len(counts))[:, None] * 1000.0 + torch.arange(max(counts))
    cache.layers[0].extend(keys[:, None, :, None], keys[:, None, :, None])
    cache.advance(counts)
    return cache


def held(cache: KVCache) -> list[list[float]]:
    """What each row has, as the next token sees it."""
    new = torch.full((len(cache.filled), 1, 1, 1), -1.0)
    keys, values = cache.layers[0].extend(new, new)
    assert torch.equal(keys, values)
    return [row[:count].tolist() for row, count in zip(keys[:, 0, :, 0], cache.filled, strict=True)]


def test_memory_is_taken_as_it_fills() -> None:
    cache, new = KVCache(1, 10_000), torch.ones(2, 1, 1, 3)
    sizes = []
    for at in range(300):
        keys, _ = cache.layers[0].extend(new * at, new)
        cache.advance([1, 1])
        sizes.append(keys.untyped_storage().nbytes() // (2 * 3 * 4))
    assert keys[0, 0, :, 0].tolist() == list(range(300)) and keys[1, 0, :, 0].tolist() == list(range(300))
    assert sizes[0] == 1 + AHEAD and sizes[-1] <= 600 and len(set(sizes)) < 5, "doubled when it is full, never all of the room"
    small, _ = filled([3], room=4).layers[0].extend(new[:1, ..., :1], new[:1, ..., :1])
    assert small.untyped_storage().nbytes() == 4 * 4, "never more than the room"


def test_rows_that_stay_close_up() -> None:
    cache = filled([4, 2, 3, 5])
    cache.keep([0, 3])
    assert held(cache) == [[0, 1, 2, 3], [3000, 3001, 3002, 3003, 3004]]
    cache = filled([4, 2, 3])
    cache.keep([2, 0])
    assert held(cache) == [[2000, 2001, 2002], [0, 1, 2, 3]], "in any order"


def test_caches_are_joined_and_filled_in_parts() -> None:
    one, other = filled([2, 3]), filled([90])
    joined = KVCache.join([other, one, other], 95)
    assert joined.filled == [90, 2, 3, 90] and joined.room == 95
    assert [row[-1] for row in held(joined)] == [89, 1, 1002, 89]
    whole = filled([1, 2, 3])
    for number, part in enumerate(whole.parts([2, 1])):
        new = torch.full((len(part.filled), 1, number + 1, 1), 7.0 + number)
        part.layers[0].extend(new, new)
        part.advance([number + 1] * len(part.filled))
    assert held(whole) == [[0, 7], [1000, 1001, 7], [2000, 2001, 2002, 8, 8]]


# ---------------------------------------------------------------------------------------------------- prefixes


def test_a_long_beginning_beside_a_long_question(gpt: GPT) -> None:
    """The one's room and the other's question are more together than any row needs."""
    first, second = texts(60, 40)
    prompts, shared = [[*first, *second[:20]], [*first[:1], *second]], [Shared("long", 60), Shared("short", 1)]
    plain = generate(gpt, asked(prompts), [Sampling(max_tokens=2)] * 2, ends=())
    same(generate(gpt, asked(prompts), [Sampling(max_tokens=2)] * 2, ends=(), shared=shared), plain)


def about(pictures: Tensor, which: list[tuple[int, ...]], each: int) -> tuple[Batch, list[Shared]]:
    """A question for each set of pictures."""
    prompts, shared = [], []
    for number, some in enumerate(which):
        first = [2, *[token for one in some for token in [*[PICTURE] * each, one + 3]]]
        prompts.append([*first, *texts(*range(2, 12))[number]])
        shared.append(Shared(str(some), len(first)))
    values = torch.cat([pictures[list(some)] for some in which])
    return asked(prompts, pictures=Pieces(values, tuple(map(len, which)))), shared


@pytest.mark.parametrize("name", ["chat", "flamingo"])
def test_several_pictures_in_one_batch_are_each_read_once(
    name: str, chat: Chat, flamingo: Flamingo, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, each = (chat, 4) if name == "chat" else (flamingo, 1)
    pictures = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    seen: list[int] = []
    patches = type(model.image.patches)
    monkeypatch.setattr(patches, "forward", noting(patches.forward, seen))
    kept = Prefixes(most=2)
    rounds: list[tuple[list[tuple[int, ...]], int]] = [
        ([(0,), (1, 2), (0,), (1, 2)], 3),  # two sets of pictures, two questions on each
        ([(1, 2), (3,), (0,)], 1),  # one of them is new
        ([(3,)], 0),
        ([(0,), (1, 2)], 2),  # of three, the one that was not asked about for longest went
    ]
    for which, new in rounds:
        batch, shared = about(pictures, which, each)
        samplings = [Sampling(max_tokens=6)] * len(which)
        plain = generate(model, batch, samplings, ends=(4,))
        seen.clear()
        same(generate(model, batch, samplings, ends=(4,), shared=shared, prefixes=kept), plain)
        assert sum(seen) == new, which


def noting(forward: Any, seen: list[int]) -> Any:
    def noted(self: Any, pixels: Tensor) -> Any:
        seen.append(len(pixels))
        return forward(self, pixels)

    return noted


def test_beginnings_with_and_without_pictures(chat: Chat) -> None:
    pictures = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    kept, one = Prefixes(), [Sampling(max_tokens=5)]
    for which in ([()], [(0,)], [(), (0,)], [(0,), ()]):
        batch, shared = about(pictures, which, 4)
        plain = generate(chat, batch, one * len(which), ends=())
        same(generate(chat, batch, one * len(which), ends=(), shared=shared, prefixes=kept), plain)


def test_what_was_seen_is_joined() -> None:
    parts = [KeysValues(torch.randn(rows, 2, 3, 5), torch.randn(rows, 2, 3, 5)) for rows in (1, 2)]
    first, second = Remembered((parts[0], None)), Remembered((parts[1], None))
    joined = first.join([second]).memory[0]
    assert joined is not None and torch.equal(joined.values, torch.cat([parts[0].values, parts[1].values]))
    longer = Remembered((KeysValues(torch.randn(1, 2, 4, 5), torch.randn(1, 2, 4, 5)), None))
    with pytest.raises(ValueError, match="without lengths"):
        first.join([longer])
    ragged = Remembered(first.memory, torch.tensor([2])).join([Remembered(longer.memory, torch.tensor([4]))])
    assert ragged.lengths is not None and ragged.lengths.tolist() == [2, 4]
    assert ragged.memory[0] is not None and ragged.memory[0].keys[0, :, 3].abs().max() == 0
    assert torch.equal(Shown(torch.ones(1, 2, 3)).join([Shown(torch.zeros(2, 2, 3))]).places.sum((1, 2)), torch.tensor([6.0, 0, 0]))
