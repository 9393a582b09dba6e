"""The decoder block of language models, as GPT-2 has it and as Llama and Qwen have it."""

from __future__ import annotations

from torch import nn

from tonggan.nn.activations import Activation
from tonggan.nn.attention import Attention
from tonggan.nn.positions import Rotary
from tonggan.nn.transformer import Block, FeedForward


def gpt2_block(width: int, heads: int, inner: int, *, act: Activation = "gelu_tanh", eps: float = 1e-5, dropout: float = 0.0) -> Block:
    """Layer norm before each branch, biases everywhere (Radford et al. 2019, section 2.3)."""
    return Block(
        Attention(width, heads, dropout=dropout),
        FeedForward(width, inner, act),
        (nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)),
        dropout=dropout,
    )


def llama_block(
    width: int,
    heads: int,
    inner: int,
    rotary: Rotary,
    *,
    kv_heads: int | None = None,
    head_width: int | None = None,
    act: Activation = "silu",
    eps: float = 1e-6,
    qkv_bias: bool = False,
    out_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: bool = False,
    dropout: float = 0.0,
) -> Block:
    """RMS norm before each branch, rotary positions, shared keys and values, SwiGLU (Touvron et al. 2023, section 2.2).

    Qwen2 has biases on q, k and v; Qwen3 has none, and norms on each head's query and key instead.
    """
    of_head = head_width or width // heads
    norms = (nn.RMSNorm(of_head, eps=eps), nn.RMSNorm(of_head, eps=eps)) if qk_norm else None
    return Block(
        Attention(
            width,
            heads,
            head_width=head_width,
            kv_heads=kv_heads,
            linear_bias=qkv_bias,
            out_bias=out_bias,
            qk_norms=norms,
            rotary=rotary,
            dropout=dropout,
        ),
        FeedForward(width, inner, act, gated=True, bias=mlp_bias),
        (nn.RMSNorm(width, eps=eps), nn.RMSNorm(width, eps=eps)),
        dropout=dropout,
    )
