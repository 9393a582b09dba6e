"""Language models: a decoder over one stream of words, as GPT-2 has it, and as Llama and Qwen have it.

Shape letters: B rows, L tokens, D width, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from jaxtyping import Float, Int
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.streams import among_words
from tonggan.nn.activations import Activation
from tonggan.nn.cache import KVCache
from tonggan.nn.decoder import gpt2_block, llama_block
from tonggan.nn.positions import LearnedPositions, Rotary, rotary_rates, stretched
from tonggan.nn.talking import Seen, standing
from tonggan.nn.transformer import Block, Transformer
from tonggan.tensors import Batch, Mask, Modality, Tokens


class StretchConfig(Config):
    """Rotary positions for longer texts than those that were learnt from, as `nn.positions.stretched` has them."""

    factor: float = Field(gt=0)
    original: PositiveInt | None = None
    """The length that was learnt from, which tells fast rates from slow ones; None: all are slowed alike."""
    low: float = Field(default=1.0, gt=0)
    high: float = Field(default=4.0, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> StretchConfig:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self


class DecoderConfig(Config):
    """A causal Transformer with its words. `gpt2`: layer norms, learned positions, biases. `llama`: RMS norms, rotary positions, SwiGLU."""

    style: Literal["gpt2", "llama"] = "llama"
    vocab_size: PositiveInt = 32000
    context: PositiveInt = 2048
    width: PositiveInt = 512
    layers: PositiveInt = 8
    heads: PositiveInt = 8
    kv_heads: PositiveInt | None = None
    """Fewer heads of keys and values than of queries; None: as many."""
    head_width: PositiveInt | None = None
    """None: width / heads."""
    mlp_width: PositiveInt = 1408
    activation: Activation = "silu"
    eps: float = 1e-6
    rotary_base: float = Field(default=10_000.0, gt=0)
    rotary_stretch: StretchConfig | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tied: bool = True
    """Words are told by the table that they are read with."""
    dropout: float = 0.0

    @model_validator(mode="after")
    def _of_its_style(self) -> DecoderConfig:
        theirs = ("kv_heads", "head_width", "rotary_base", "rotary_stretch", "qkv_bias", "out_bias", "mlp_bias", "qk_norm")
        if self.style == "gpt2" and (set_ := [n for n in theirs if getattr(self, n) != type(self).model_fields[n].default]):
            raise ValueError(f"style gpt2 has no {', '.join(set_)}: leave it out, or take style llama")
        return self


class Decoder(nn.Module):
    """Words in, states out, and the map from states to words."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = LearnedPositions(config.context, config.width, std=0.02) if config.style == "gpt2" else None
        self.transformer = Transformer([_block(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.width, eps=config.eps) if config.style == "gpt2" else nn.RMSNorm(config.width, eps=config.eps)
        self.head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
        init_decoder(self, config.layers)

    @property
    def places(self) -> int | None:
        """How many positions have a learned vector; None: they are told by rotation, which has no end."""
        return None if self.positions is None else self.config.context

    def embed(self, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The words alone, without their places."""
        return self.embedding(ids)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        *,
        mask: Mask | None,
        positions: Int[Tensor, "B L"] | None = None,
        cache: KVCache | None = None,
        before: Sequence[Callable[[Tensor], Tensor] | None] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """States behind the last norm. A cache may have layers of others behind its own; `before` as in `Transformer`."""
        if self.positions is not None:
            x = x + (self.positions(x.shape[1]) if positions is None else self.positions.at(positions))
        caches = None if cache is None else cache.layers[: len(self.transformer.blocks)]
        x = self.transformer(x, mask=mask, positions=positions, caches=caches, before=before)
        return self.norm(x)

    @property
    def output(self) -> tuple[Float[Tensor, "V D"], None]:
        """The map to words; it has no bias."""
        return (self.embedding.weight if self.head is None else self.head.weight), None


class GPTConfig(Config):
    """A decoder and nothing else."""

    kind: Literal["gpt"] = "gpt"
    text: DecoderConfig
    start: tuple[int, ...] = ()
    """What stands before a text that goes on, where no template writes it."""
    ends: tuple[int, ...] = ()
    """Words that end what is said."""

    @model_validator(mode="after")
    def _known(self) -> GPTConfig:
        among_words(self.text.vocab_size, start=self.start, ends=self.ends)
        return self


class GPT(nn.Module):
    """A language model (Radford et al. 2019; Touvron et al. 2023)."""

    reads_prompt = False

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config, self.context = config, config.text.context
        self.modalities: frozenset[Modality] = frozenset({"text"})
        self.text = Decoder(config.text)

    def read(self, batch: Batch) -> None:
        """There is nothing but words."""

    def say(self, tokens: Tokens, seen: Seen | None = None, *, cache: KVCache | None = None) -> Float[Tensor, "B L D"]:
        """States of the tokens, each of which tells the next word."""
        mask, positions = standing(tokens, cache, packs=True, places=self.text.places)
        return self.text(self.text.embed(tokens.ids), mask=mask, positions=positions, cache=cache)

    @property
    def output(self) -> tuple[Float[Tensor, "V D"], None]:
        """The map to words."""
        return self.text.output

    def cache(self, room: int) -> KVCache:
        """An empty cache."""
        return KVCache(self.config.text.layers, room)


def _block(config: DecoderConfig) -> Block:
    if config.style == "gpt2":
        return gpt2_block(config.width, config.heads, config.mlp_width, act=config.activation, eps=config.eps, dropout=config.dropout)
    rates = rotary_rates(config.head_width or config.width // config.heads, config.rotary_base)
    if stretch := config.rotary_stretch:
        rates = stretched(rates, stretch.factor, original=stretch.original, low=stretch.low, high=stretch.high)
    return llama_block(
        config.width,
        config.heads,
        config.mlp_width,
        Rotary(rates),
        kv_heads=config.kv_heads,
        head_width=config.head_width,
        act=config.activation,
        eps=config.eps,
        qkv_bias=config.qkv_bias,
        out_bias=config.out_bias,
        mlp_bias=config.mlp_bias,
        qk_norm=config.qk_norm,
        dropout=config.dropout,
    )


def init_decoder(module: nn.Module, layers: int) -> None:
    """GPT-2's initialisation: 0.02 everywhere, what a branch adds by (2·layers)^-½ less (Radford et al. 2019, section 2.3)."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            adds = name.endswith((".out", ".down"))
            nn.init.normal_(part.weight, std=0.02 * ((2 * layers) ** -0.5 if adds else 1))
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)
