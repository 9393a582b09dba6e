"""Blocks against formulas and torch's own."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonggan.nn.activations import QuickGELU, activation
from tonggan.nn.attention import Attention, lower
from tonggan.nn.conv import SameConv2d
from tonggan.nn.patches import Normalize, PatchEmbed, drop_patches
from tonggan.nn.positions import LearnedPositions, sinusoids, sinusoids_2d
from tonggan.nn.recurrent import Recurrent
from tonggan.nn.resampler import attention_pool, perceiver
from tonggan.nn.transformer import encoder_block
from tonggan.tensors import Mask


def plain_attention(block: Attention, x: Tensor, source: Tensor, allowed: Tensor | None) -> Tensor:
    """softmax(QKᵀ/√d)V with loops over heads and nothing else."""
    outs = []
    for h in range(block.heads):
        part = slice(h * block.head_width, (h + 1) * block.head_width)
        q, k, v = block.q(x)[..., part], block.k(source)[..., part], block.v(source)[..., part]
        scores = q @ k.transpose(1, 2) / math.sqrt(block.head_width)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -math.inf)
        outs.append(scores.softmax(-1) @ v)
    return block.out(torch.cat(outs, -1))


MASKS = {
    "none": (None, lambda q, k, b: True),
    "causal": (Mask(causal=True), lambda q, k, b: k <= q),
    "lengths": (Mask(lengths=torch.tensor([7, 3])), lambda q, k, b: k < (7, 3)[b]),
    "causal and lengths": (Mask(causal=True, lengths=torch.tensor([7, 3])), lambda q, k, b: k <= q and k < (7, 3)[b]),
    "window": (Mask(causal=True, window=3), lambda q, k, b: q - 3 < k <= q),
    "prefix": (Mask(causal=True, prefix=torch.tensor([2, 4])), lambda q, k, b: k <= q or k < (2, 4)[b]),
    "segments": (
        Mask(segments=(torch.tensor([[0, 0, 0, 1, 1, 1, 1]] * 2), torch.tensor([[0, 0, 0, 1, 1, 1, 1]] * 2))),
        lambda q, k, b: (q < 3) == (k < 3),
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_attention_is_the_formula_under_every_mask(name: str) -> None:
    mask, may = MASKS[name]
    torch.manual_seed(0)
    block, x = Attention(15, 3).double(), torch.randn(2, 7, 15, dtype=torch.float64)
    allowed = torch.tensor([[[may(q, k, b) for k in range(7)] for q in range(7)] for b in range(2)])
    assert torch.allclose(block(x, mask=mask), plain_attention(block, x, x, allowed), atol=1e-12)


def test_a_cached_chunk_sees_what_came_before() -> None:
    """The last three queries of seven, at their own offset: `is_causal` alone would align them to the first keys."""
    torch.manual_seed(0)
    block, x = Attention(12, 2).double(), torch.randn(2, 7, 12, dtype=torch.float64)
    whole = block(x, mask=Mask(causal=True))
    chunk = block(x[:, 4:], context=x, mask=Mask(causal=True, offset=torch.tensor([4, 4])))
    assert torch.allclose(chunk, whole[:, 4:], atol=1e-12)


def test_only_the_plain_square_is_left_to_the_kernel() -> None:
    assert lower(Mask(causal=True), 5, 5, torch.device("cpu")) == (None, True)
    assert lower(Mask(), 5, 5, torch.device("cpu")) == (None, False)
    allowed, causal = lower(Mask(causal=True), 3, 5, torch.device("cpu"))
    assert allowed is not None and not causal


def test_cross_attention_and_bias() -> None:
    torch.manual_seed(0)
    block = Attention(12, 3, context_width=8).double()
    x, context = torch.randn(2, 4, 12, dtype=torch.float64), torch.randn(2, 6, 8, dtype=torch.float64)
    assert torch.allclose(block(x, context=context), plain_attention(block, x, context, None), atol=1e-12)
    far = Attention(12, 3, bias=lambda q, k: -1e4 * (q[:, None] != k[None]).double().expand(3, -1, -1)).double()
    assert torch.allclose(far(x), far.out(far.v(x)), atol=1e-9), "with all others pushed away each position sees itself"


@pytest.mark.parametrize("order", ["pre", "post"])
def test_block_is_torchs_encoder_layer(order: str) -> None:
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(24, 4, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=order == "pre").double()
    mine = encoder_block(24, 4, 48, order=order).double()  # type: ignore[arg-type]
    q, k, v = theirs.self_attn.in_proj_weight.chunk(3)
    bq, bk, bv = theirs.self_attn.in_proj_bias.chunk(3)
    state = {"q.weight": q, "q.bias": bq, "k.weight": k, "k.bias": bk, "v.weight": v, "v.bias": bv}
    state |= {"out.weight": theirs.self_attn.out_proj.weight, "out.bias": theirs.self_attn.out_proj.bias}
    mine.attention.load_state_dict(state)
    for name, source in (("up", theirs.linear1), ("down", theirs.linear2)):
        getattr(mine.feed_forward, name).load_state_dict(source.state_dict())
    x = torch.randn(3, 5, 24, dtype=torch.float64)
    theirs.train()  # the fast path for evaluation has its own arithmetic
    assert torch.allclose(mine(x), theirs(x), atol=1e-10)


def test_layer_scale_starts_near_the_identity() -> None:
    x = torch.randn(2, 4, 16)
    assert torch.allclose(encoder_block(16, 2, 32, layer_scale=1e-8)(x), x, atol=1e-5)


def test_patches_are_a_convolution() -> None:
    embed = PatchEmbed(4, 10, bias=True).double()
    assert embed.bias is not None
    pixels = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    expected = F.conv2d(pixels, embed.weight, embed.bias, stride=4).flatten(2).transpose(1, 2)
    assert torch.allclose(embed(pixels), expected, atol=1e-12)
    assert torch.equal(embed(F.pad(pixels, (0, 3, 0, 1))), embed(pixels)), "what is left over is not read"
    with pytest.raises(ValueError, match="hold no patch of 4 x 4"):
        embed(torch.randn(1, 3, 3, 8, dtype=torch.float64))
    oblong = PatchEmbed((2, 3), 5)
    assert torch.allclose(
        oblong(pixels.float()), F.conv2d(pixels.float(), oblong.weight, stride=(2, 3)).flatten(2).transpose(1, 2), atol=1e-5
    )


def test_normalize_takes_bytes_and_leaves_floats() -> None:
    layer = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    pixels = torch.randint(0, 256, (1, 3, 2, 2), dtype=torch.uint8)
    expected = (pixels.float() / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    assert torch.allclose(layer(pixels), expected)
    assert torch.equal(layer(expected), expected)
    assert not layer.state_dict(), "settings are not weights"


def test_dropped_patches_are_a_subset() -> None:
    tokens = torch.arange(20.0).view(1, 10, 2).expand(3, -1, -1)
    kept = drop_patches(tokens, 0.5, torch.Generator().manual_seed(0))
    assert kept.shape == (3, 5, 2)
    for row in kept:
        firsts = row[:, 0].tolist()
        assert len(set(firsts)) == 5 and set(firsts) <= set(tokens[0, :, 0].tolist())


@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (8, 5, 2), (9, 5, 1), (6, 1, 1)])
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    conv = SameConv2d(2, 3, kernel, stride)
    out = math.ceil(size / stride)
    total = max((out - 1) * stride + kernel - size, 0)
    x = torch.randn(1, 2, size, size)
    padded = F.pad(x, (total // 2, total - total // 2) * 2)
    assert torch.allclose(conv(x), F.conv2d(padded, conv.weight, stride=stride), atol=1e-6)
    assert conv(x).shape[-1] == out


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrent_never_reads_padding(cell: str) -> None:
    torch.manual_seed(0)
    net = Recurrent(cell, 6, layers=2)  # type: ignore[arg-type]
    x, lengths = torch.randn(2, 5, 6), torch.tensor([5, 3])
    out = net(x, lengths)
    noisy = x.clone()
    noisy[1, 3:] = 1e3
    assert torch.equal(net(noisy, lengths), out)
    assert torch.allclose(net(x[1:, :3], lengths[1:]), out[1:, :3], atol=1e-6)
    assert (out[1, 3:] == 0).all()


def test_resampler_has_as_many_outputs_as_queries_and_ignores_padding() -> None:
    torch.manual_seed(0)
    pool = perceiver(16, 2, queries=3, layers=2)
    x = torch.randn(2, 6, 16)
    out = pool(x, mask=Mask(lengths=torch.tensor([6, 4])))
    assert out.shape == (2, 3, 16)
    assert torch.allclose(pool(x[1:, :4]), out[1:], atol=1e-5)
    assert torch.allclose(pool(x.flip(1)), pool(x), atol=1e-5), "without positions the order of what is read does not matter"


def test_attention_pooling_is_one_query_and_torchs_attention() -> None:
    pool, x = attention_pool(12, 3, 20).double(), torch.randn(2, 5, 12, dtype=torch.float64)
    reading = pool.layers[0]
    part = reading.attention
    query = pool.queries[:, None].expand(-1, 2, -1)
    read, _ = F.multi_head_attention_forward(
        query, x.transpose(0, 1), x.transpose(0, 1), 12, 3, None, torch.cat([part.q.bias, part.k.bias, part.v.bias]), None, None, False,
        0.0, part.out.weight, part.out.bias, use_separate_proj_weight=True,
        q_proj_weight=part.q.weight, k_proj_weight=part.k.weight, v_proj_weight=part.v.weight,
    )  # fmt: skip
    expected = read[0] + reading.feed_forward(reading.norm2(read[0]))
    assert torch.allclose(pool(x)[:, 0], expected, atol=1e-12)


def test_positions() -> None:
    with pytest.raises(ValueError, match="the table has 4"):
        LearnedPositions(4, 8)(5)
    table = sinusoids(50, 8)
    assert torch.allclose(table[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    assert torch.allclose(table[7, 0], torch.tensor(7.0).sin())
    grid = sinusoids_2d(3, 5, 8)
    assert grid.shape == (15, 8)
    assert torch.equal(grid[0 * 5 + 2, :4], grid[0 * 5 + 4, :4]), "one row, one row code"
    assert torch.equal(grid[0 * 5 + 2, 4:], grid[2 * 5 + 2, 4:]), "one column, one column code"


def test_quick_gelu_is_not_gelu() -> None:
    x = torch.linspace(-3, 3, 50)
    assert torch.allclose(QuickGELU()(x), x * torch.sigmoid(1.702 * x))
    assert 0.01 < float((QuickGELU()(x) - activation("gelu")(x)).abs().max()) < 0.03
