"""What decoders, packing, adaptive norms and experts will rely on: caches, positions, conditions, routes.

Shape letters: B rows, H heads, T positions, E width of a head.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tonggan.nn.attention import Attention, Cache
from tonggan.nn.transformer import Block, FeedForward, Transformer, encoder_block
from tonggan.tensors import Mask


class Preallocated:
    """Room for all positions from the start; each row has its own fill."""

    def __init__(self, rows: int, heads: int, room: int, width: int) -> None:
        self.keys = torch.full((rows, heads, room, width), 1e3, dtype=torch.float64)  # what is not yet filled must not matter
        self.values = self.keys.clone()
        self.filled = torch.zeros(rows, dtype=torch.long)

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        for row, start in enumerate(self.filled.tolist()):
            self.keys[row, :, start : start + keys.shape[2]] = keys[row]
            self.values[row, :, start : start + keys.shape[2]] = values[row]
        self.filled = self.filled + keys.shape[2]
        return self.keys, self.values


def distance(at_q: Tensor, at_k: Tensor) -> Tensor:
    """A penalty per step of distance, another for each of two heads."""
    return -(at_q[:, None] - at_k[None]).abs().double() * torch.tensor([0.5, 2.0], dtype=torch.float64).view(2, 1, 1)


def stack(layers: int = 2, bias: bool = False) -> Transformer:
    def block() -> Block:
        attention = Attention(12, 2, bias=distance if bias else None)
        return Block(attention, FeedForward(12, 20), (nn.LayerNorm(12), nn.LayerNorm(12)))

    return Transformer([block() for _ in range(layers)]).double()


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "with a bias by distance"])
def test_chunks_through_a_cache_are_the_whole(bias: bool) -> None:
    net, x = stack(bias=bias), torch.randn(2, 7, 12, dtype=torch.float64)
    whole = net(x, mask=Mask(causal=True))
    caches = [Preallocated(2, 2, 9, 6) for _ in net.blocks]
    assert isinstance(caches[0], Cache)
    done, chunks = 0, []
    for size in (3, 1, 1, 2):
        mask = Mask(causal=True, offset=torch.full((2,), done))
        chunks.append(net(x[:, done : done + size], mask=mask, caches=caches))
        done += size
    assert torch.allclose(torch.cat(chunks, dim=1), whole, atol=1e-12)


def test_rows_may_stand_at_different_places_of_their_caches() -> None:
    net, x = stack(bias=True), torch.randn(2, 6, 12, dtype=torch.float64)
    whole = net(x, mask=Mask(causal=True))
    caches = [Preallocated(2, 2, 6, 6) for _ in net.blocks]
    net(x[:, :4], mask=Mask(causal=True, offset=torch.tensor([0, 0])), caches=caches)
    for cache in caches:
        cache.filled = torch.tensor([4, 2])  # the second row goes back two places, as when guesses were refused
    step = torch.stack([x[0, 4], x[1, 2]])[:, None]
    out = net(step, mask=Mask(causal=True, offset=torch.tensor([4, 2])), caches=caches)
    assert torch.allclose(out[:, 0], torch.stack([whole[0, 4], whole[1, 2]]), atol=1e-12)


@pytest.mark.parametrize("mask", [Mask(causal=True), Mask(window=2)])
def test_a_cached_chunk_without_its_offset_is_refused(mask: Mask) -> None:
    with pytest.raises(ValueError, match=r"mask\.offset"):
        stack()(torch.randn(1, 2, 12, dtype=torch.float64), mask=mask, caches=[Preallocated(1, 2, 4, 6) for _ in range(2)])


def test_as_many_caches_as_blocks() -> None:
    with pytest.raises(ValueError, match="shorter"):
        stack()(torch.randn(1, 2, 12, dtype=torch.float64), caches=[Preallocated(1, 2, 2, 6)])


def test_packed_texts_are_the_texts_alone() -> None:
    """Two texts in one row: segments keep them apart, positions start anew for each."""
    net = stack(bias=True)
    a, b = torch.randn(1, 3, 12, dtype=torch.float64), torch.randn(1, 4, 12, dtype=torch.float64)
    segment = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
    packed = net(torch.cat([a, b], dim=1), mask=Mask(causal=True, segments=(segment, segment)), positions=positions)
    assert torch.allclose(packed[:, :3], net(a, mask=Mask(causal=True)), atol=1e-12)
    assert torch.allclose(packed[:, 3:], net(b, mask=Mask(causal=True)), atol=1e-12)


def test_positions_are_what_the_bias_sees() -> None:
    """Reading every second place of a longer text: distances count double."""
    net, x = stack(1, bias=True), torch.randn(2, 4, 12, dtype=torch.float64)
    spread = net(x, positions=torch.tensor([[0, 2, 4, 6], [0, 1, 2, 3]]))
    plain = net(x)
    assert torch.allclose(spread[1], plain[1], atol=1e-12)
    assert not torch.allclose(spread[0], plain[0], atol=1e-3)


class AdaptiveNorm(nn.Module):
    """Scale by a condition after the norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return self.norm(x) * cond[:, None, None]


class TwoExperts(nn.Module):
    """The token's route chooses who answers."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor, route: Tensor) -> Tensor:
        return torch.where(route[..., None] == 0, self.first(x), self.second(x))


def test_norms_get_the_condition() -> None:
    block = Block(Attention(12, 2), FeedForward(12, 20), (AdaptiveNorm(12), AdaptiveNorm(12)))
    plain = encoder_block(12, 2, 20)
    plain.attention, plain.feed_forward = block.attention, block.feed_forward
    x = torch.randn(2, 5, 12)
    assert torch.allclose(block(x, cond=torch.ones(2)), plain(x), atol=1e-6)
    changed = block(x, cond=torch.tensor([1.0, 2.0]))
    assert torch.allclose(changed[0], plain(x)[0], atol=1e-6) and not torch.allclose(changed[1], plain(x)[1], atol=1e-3)


def test_the_feed_forward_gets_the_route() -> None:
    first, second = FeedForward(12, 20), FeedForward(12, 20, gated=True, act="silu")
    attention, norms = Attention(12, 2), (nn.LayerNorm(12), nn.LayerNorm(12))
    x, route = torch.randn(2, 5, 12), torch.tensor([[0, 1, 1, 0, 1], [1, 1, 0, 0, 0]])
    out = Block(attention, TwoExperts(first, second), norms)(x, route=route)
    only_first, only_second = (Block(attention, expert, norms)(x) for expert in (first, second))
    assert torch.allclose(out[route == 0], only_first[route == 0], atol=1e-6)
    assert torch.allclose(out[route == 1], only_second[route == 1], atol=1e-6)


@pytest.mark.parametrize("order", ["pre", "post"])
def test_a_block_with_a_context_is_torchs_decoder_layer(order: str) -> None:
    """Weights copied; the padding of the context is masked on both sides, through the whole stack's signature."""
    theirs = nn.TransformerDecoderLayer(12, 2, 20, dropout=0.0, activation="gelu", batch_first=True, norm_first=order == "pre").double()
    mine = Block(
        Attention(12, 2), FeedForward(12, 20), (nn.LayerNorm(12), nn.LayerNorm(12)),
        order=order, cross=Attention(12, 2), cross_norm=nn.LayerNorm(12),  # type: ignore[arg-type]
    ).double()  # fmt: skip
    assert mine.cross is not None and mine.cross_norm is not None
    for ours, other in ((mine.attention, theirs.self_attn), (mine.cross, theirs.multihead_attn)):
        for part, weight, bias in zip((ours.q, ours.k, ours.v), other.in_proj_weight.chunk(3), other.in_proj_bias.chunk(3), strict=True):
            part.load_state_dict({"weight": weight, "bias": bias})
        ours.out.load_state_dict(other.out_proj.state_dict())
    pairs = ((mine.norm1, theirs.norm1), (mine.cross_norm, theirs.norm2), (mine.norm2, theirs.norm3))
    for ours_norm, their_norm in pairs:
        nn.init.normal_(their_norm.weight)
        ours_norm.load_state_dict(their_norm.state_dict())
    for name, source in (("up", theirs.linear1), ("down", theirs.linear2)):
        getattr(mine.feed_forward, name).load_state_dict(source.state_dict())
    x, context = torch.randn(2, 4, 12, dtype=torch.float64), torch.randn(2, 6, 12, dtype=torch.float64)
    lengths = torch.tensor([6, 4])
    expected = theirs(
        x, context, tgt_mask=nn.Transformer.generate_square_subsequent_mask(4, dtype=torch.float64), tgt_is_causal=True,
        memory_key_padding_mask=torch.arange(6)[None] >= lengths[:, None],
    )  # fmt: skip
    out = Transformer([mine])(x, mask=Mask(causal=True), context=context, context_mask=Mask(lengths=lengths))
    assert torch.allclose(out, expected, atol=1e-10)
    with pytest.raises(ValueError, match="give one"):
        mine(x)
