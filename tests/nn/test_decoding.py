"""What a chunk with a cache computes is what the whole would have; positions by rotation; shared keys and values."""

from __future__ import annotations

import pytest
import torch

from tonggan.models.gpt import GPT, DecoderConfig, GPTConfig
from tonggan.nn.attention import Attention
from tonggan.nn.cache import KVCache
from tonggan.nn.positions import Rotary, rotary_rates
from tonggan.nn.talking import Talker, words
from tonggan.nn.transformer import Block, FeedForward, Transformer
from tonggan.tensors import Mask, Tokens
from tonggan.types import UsageError

LLAMA = {"width": 24, "heads": 6, "kv_heads": 2, "head_width": 6, "mlp_width": 40, "qkv_bias": True, "qk_norm": True, "tied": False}
GPT2 = {"style": "gpt2", "width": 15, "heads": 3, "mlp_width": 31, "activation": "gelu_tanh"}


def model(shape: dict[str, object]) -> GPT:
    torch.manual_seed(0)
    made = GPT(GPTConfig(text=DecoderConfig(vocab_size=101, context=64, layers=3, **shape))).double().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def tokens(ids: torch.Tensor) -> Tokens:
    return Tokens(ids, torch.full((len(ids),), ids.shape[1]))


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_chunks_of_ragged_rows_are_the_whole(shape: dict[str, object]) -> None:
    gpt, ids = model(shape), torch.randint(0, 101, (3, 20), generator=torch.Generator().manual_seed(1))
    assert isinstance(gpt, Talker)
    whole = gpt.say(tokens(ids))
    cache, begun = gpt.cache(24), [9, 6, 3]
    prompt = gpt.say(Tokens(ids[:, :9], torch.tensor(begun)), cache=cache)  # behind a row's own end stands padding: other rows' tokens
    cache.advance(begun)
    chunk = torch.stack([row[start : start + 4] for row, start in zip(ids, begun, strict=True)])
    second = gpt.say(tokens(chunk), cache=cache)
    cache.advance([4, 4, 4])
    for row, start in enumerate(begun):
        same(prompt[row, :start], whole[row, :start])
        same(second[row], whole[row, start : start + 4])
    chosen = cache.select([2, 0, 0])
    assert (chosen.filled, cache.filled) == ([7, 13, 13], [13, 10, 7])
    third = gpt.say(tokens(torch.stack([ids[2, 7:8], ids[0, 13:14], ids[0, 13:14]])), cache=chosen)
    for found, (row, place) in zip(third[:, 0], [(2, 7), (0, 13), (0, 13)], strict=True):
        same(found, whole[row, place])


def test_rows_of_one_length_take_the_short_way_to_the_same() -> None:
    gpt, ids = model(LLAMA), torch.randint(0, 101, (2, 12), generator=torch.Generator().manual_seed(1))
    whole, cache, made = gpt.say(tokens(ids)), gpt.cache(12), []
    for start, stop in [(0, 5), (5, 6), (6, 7), (7, 12)]:
        made.append(gpt.say(tokens(ids[:, start:stop]), cache=cache))
        cache.advance([stop - start] * 2)
    same(torch.cat(made, dim=1), whole)
    assert cache.mask(1, ids.device) is None  # every key there is: no mask is built for it


@pytest.mark.parametrize("shape", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_padding_on_the_left_moves_nothing(shape: dict[str, object]) -> None:
    gpt, ids = model(shape), torch.randint(0, 101, (2, 9), generator=torch.Generator().manual_seed(1))
    left = torch.cat([torch.full((1, 4), 7), ids[1:, :5]], dim=1)
    padded = gpt.say(Tokens(torch.cat([ids[:1], left]), torch.tensor([9, 9]), torch.tensor([0, 4])))
    same(padded[0], gpt.say(tokens(ids))[0])
    same(padded[1, 4:], gpt.say(tokens(ids[1:, :5]))[0])


def test_a_full_cache_says_how_much_room_there_is() -> None:
    gpt = model(GPT2)
    with pytest.raises(UsageError, match="6 positions are needed, there is room for 5"):
        gpt.say(tokens(torch.zeros(1, 6, dtype=torch.long)), cache=gpt.cache(5))


def test_a_memory_is_its_context() -> None:
    torch.manual_seed(0)

    def block(cross: Attention | None) -> Block:
        norms = (torch.nn.LayerNorm(12), torch.nn.LayerNorm(12))
        return Block(Attention(12, 3), FeedForward(12, 20), norms, cross=cross, cross_norm=torch.nn.LayerNorm(12))

    stack = Transformer([block(None), block(Attention(12, 3, context_width=7)), block(Attention(12, 2, context_width=7, kv_heads=1))])
    x, context, lengths = torch.randn(2, 5, 12), torch.randn(2, 6, 7), torch.tensor([6, 4])
    memory = stack.remember(context)
    assert memory[0] is None and memory[2] is not None and memory[2].keys.shape == (2, 1, 6, 6)
    whole = stack(x, context=context, context_mask=Mask(lengths=lengths))
    torch.testing.assert_close(stack(x, context=memory, context_mask=Mask(lengths=lengths)), whole)
    swapped = [part and part.select(torch.tensor([1, 0])) for part in memory]
    torch.testing.assert_close(stack(x.flip(0), context=swapped, context_mask=Mask(lengths=lengths.flip(0))), whole.flip(0))


def test_rotation_knows_the_distance_alone() -> None:
    turn = Rotary(rotary_rates(8, 100.0))
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def product(at_q: int, at_k: int) -> torch.Tensor:
        return (turn(q, torch.tensor([[at_q]])) * turn(k, torch.tensor([[at_k]]))).sum()

    torch.testing.assert_close(product(5, 2), product(25, 22), rtol=1e-4, atol=1e-4)
    assert abs(product(5, 2) - product(5, 3)) > 1e-3
    with pytest.raises(ValueError, match="even, not 7"):
        rotary_rates(7)


def test_shared_keys_are_copies_of_them() -> None:
    torch.manual_seed(0)
    few, many = Attention(12, 6, kv_heads=2), Attention(12, 6)
    shared = {name: repeated(few.state_dict()[name]) for name in ("k.weight", "k.bias", "v.weight", "v.bias")}
    many.load_state_dict(few.state_dict() | shared)
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(few(x, mask=Mask(causal=True)), many(x, mask=Mask(causal=True)))
    with pytest.raises(ValueError, match="6 heads cannot share 4"):
        Attention(12, 6, kv_heads=4)


def repeated(values: torch.Tensor) -> torch.Tensor:
    return values.unflatten(0, (2, 2)).repeat_interleave(3, dim=0).flatten(0, 1)


def test_words_are_states_through_the_output() -> None:
    gpt = model(LLAMA)
    states = gpt.say(tokens(torch.zeros(1, 3, dtype=torch.long)))
    same(words(gpt, states), states @ gpt.text.head.weight.T)
    assert isinstance(gpt.cache(3), KVCache)


def test_a_style_refuses_what_it_has_not() -> None:
    with pytest.raises(ValueError, match="style gpt2 has no kv_heads, qk_norm"):
        DecoderConfig(style="gpt2", kv_heads=2, qk_norm=True)
