"""CoCa: a captioner whose halves also meet in a common space (Yu et al. 2022), in the form that open_clip published.

A ViT sees the picture; learned queries read its patches, of which the first is what is compared with texts and the others are what words
look at. Words are read by a text tower that looks back only and never sees the picture; a class token behind them is the text. What the
tower makes of the words goes on through blocks that look at the picture, and tells the next word. So one pass over a caption serves both.

Shape letters: B rows, L tokens, W tokens and one of padding, P class token and patches, Q queries, D width, Dv width of the picture tower,
V words of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.towers import Pixels, ViT, ViTConfig
from tonggan.nn.activations import Activation
from tonggan.nn.attention import Attention, Cache, KeysValues
from tonggan.nn.cache import KVCache
from tonggan.nn.positions import LearnedPositions
from tonggan.nn.talking import Remembered, Seen, standing
from tonggan.nn.transformer import Block, FeedForward, Transformer, encoder_block, init_transformer
from tonggan.tensors import Batch, Mask, Modality, Tokens
from tonggan.types import UsageError


class CocaTextConfig(Config):
    """CLIP's text tower with a class token, which stands behind the last of its positions."""

    vocab_size: PositiveInt = 49408
    context: PositiveInt = 76
    width: PositiveInt = 512
    layers: PositiveInt = 12
    heads: PositiveInt = 8
    mlp_width: PositiveInt = 2048
    activation: Activation = "gelu"
    eps: float = 1e-5
    padding_id: NonNegativeInt = 0
    """The word that padding is written with: the class token sees the first of it."""
    dropout: float = 0.0


class CocaConfig(Config):
    """A picture tower, queries that read it, a text tower, and blocks of its width that say words. Sizes are open_clip's with ViT-B/32."""

    kind: Literal["coca"] = "coca"
    image: ViTConfig = ViTConfig(patch_size=32)
    queries: int = Field(default=256, ge=2)
    """The first is compared with texts, words look at the others."""
    pooler_heads: PositiveInt = 8
    text: CocaTextConfig = CocaTextConfig()
    decoder_layers: PositiveInt = 12
    decoder_heads: PositiveInt = 8
    decoder_mlp_width: PositiveInt = 2048
    scale_init: float = math.log(1 / 0.07)
    """Logarithm of the initial scale of the cosines."""
    max_scale: float = 100.0
    start: tuple[int, ...] = (49406,)
    """What is said first, without being asked for."""
    ends: tuple[int, ...] = (49407,)

    @model_validator(mode="after")
    def _pooled_here(self) -> CocaConfig:
        if self.image.pooling != "class" or self.image.pooler:
            raise ValueError(f"image.pooling {self.image.pooling!r}: the queries read a tower with a class token and no pooler of its own")
        return self


class Pooler(nn.Module):
    """Learned queries attend to what the picture tower made, and nothing else happens to them (section 3.2)."""

    def __init__(self, queries: int, width: int, seen: int, heads: int, eps: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.norm = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, heads, context_width=seen)
        for linear in (self.attention.q, self.attention.k, self.attention.v, self.attention.out):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)

    def forward(self, states: Float[Tensor, "B P Dv"], which: slice) -> Float[Tensor, "B Q D"]:
        """What these of the queries read. They see nothing of each other: those that are not asked for cost nothing."""
        asking = self.norm(self.queries[which])
        return self.attention(asking.expand(len(states), -1, -1), context=states)


class CocaText(nn.Module):
    """Words that look back only, and the class token behind them."""

    def __init__(self, config: CocaTextConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.positions = LearnedPositions(config.context + 1, config.width)
        self.class_token = nn.Parameter(torch.randn(config.width) * 0.01)
        self.transformer = Transformer([_block(config, config.heads, config.mlp_width) for _ in range(config.layers)])
        init_transformer(self.transformer, config.width)
        self.post_norm = nn.LayerNorm(config.width, eps=config.eps)

    def forward(self, tokens: Tokens) -> Float[Tensor, "B D"]:
        """The class token's state.

        Texts are padded to the context's end in training, and the mask that hides padding from the class token came out one place late:
        it sees the first of the padding, and itself only behind a text that has none. The weights are used to that, and so it is here, as
        if every batch were padded so far; what no one sees is left out. Padding is told by its id, which in CLIP's vocabulary is also "!"
        with a letter or sign behind it.
        """
        if tokens.starts is not None:
            raise UsageError("a class token that stands behind the text reads texts padded on the right only")
        ids, length = tokens.ids, tokens.ids.shape[1]
        ids = torch.where(torch.arange(length, device=ids.device) < tokens.lengths[:, None], ids, self.config.padding_id)
        if length < self.config.context:
            ids = F.pad(ids, (0, 1), value=self.config.padding_id)
        seen = F.pad(ids != self.config.padding_id, (1, 0), value=True)  # each place by the token before it
        words = self.embedding(ids) + self.positions(ids.shape[1])
        behind = (self.class_token + self.positions.weight[-1]).expand(len(ids), 1, -1)
        mask = Mask(causal=True, allowed=seen[:, None].expand(-1, seen.shape[1], -1))
        return self.post_norm(self.transformer(torch.cat([words, behind], dim=1), mask=mask)[:, -1])


class Look(nn.Module):
    """Attention to the picture, and a feed-forward, each added to the words' stream."""

    def __init__(self, config: CocaConfig) -> None:
        super().__init__()
        text = config.text
        self.norm, self.norm_source, self.norm2 = (nn.LayerNorm(text.width, eps=text.eps) for _ in range(3))
        self.attention = Attention(text.width, config.decoder_heads, dropout=text.dropout)
        self.feed_forward = FeedForward(text.width, config.decoder_mlp_width, text.activation)
        self.dropout = nn.Dropout(text.dropout)

    def remember(self, pictures: Float[Tensor, "B Q D"]) -> KeysValues:
        """What words meet of pictures."""
        return self.attention.keys_values(self.norm_source(pictures))

    def forward(self, x: Float[Tensor, "B L D"], pictures: KeysValues) -> Float[Tensor, "B L D"]:
        x = x + self.dropout(self.attention(self.norm(x), context=pictures))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class LookingTransformer(Transformer):
    """Blocks among the words, behind each of which the words look at the picture (section 3.2)."""

    def __init__(self, blocks: list[Block], looks: list[Look]) -> None:
        super().__init__(blocks)
        self.looks = nn.ModuleList(looks)

    def remember(self, context: Float[Tensor, "B Q D"]) -> tuple[KeysValues, ...]:
        """Keys and values of pictures for every look, computed once."""
        return tuple(look.remember(context) for look in self.looks if isinstance(look, Look))

    def say(
        self, x: Float[Tensor, "B L D"], memory: Sequence[KeysValues | None], *, mask: Mask | None, caches: Sequence[Cache] | None
    ) -> Float[Tensor, "B L D"]:
        """States of the words behind the last look."""
        own: Sequence[Cache | None] = [None] * len(self.blocks) if caches is None else caches
        for block, look, pictures, cache in zip(self.blocks, self.looks, memory, own, strict=True):
            x = look(block(x, mask=mask, cache=cache), pictures)
        return x


class Coca(nn.Module):
    """Says what a picture shows (`nn.talking.Talker`), and brings pictures and texts into one space (`models.base.Embedder`)."""

    reads_prompt = False
    bias = None
    """The contrastive objective has none."""

    def __init__(self, config: CocaConfig) -> None:
        super().__init__()
        text = config.text
        self.config, self.dim, self.max_scale, self.context = config, text.width, config.max_scale, text.context
        self.modalities: frozenset[Modality] = frozenset({"image", "text"})
        self.image = ViT(config.image)
        self.pooler = Pooler(config.queries, text.width, config.image.width, config.pooler_heads, text.eps)
        self.pooler_norm = nn.LayerNorm(text.width, eps=text.eps)
        self.text = CocaText(text)
        blocks = [_block(text, config.decoder_heads, config.decoder_mlp_width) for _ in range(config.decoder_layers)]
        self.decoder = LookingTransformer(blocks, [Look(config) for _ in blocks])
        init_transformer(self.decoder, text.width)
        self.decoder_norm = nn.LayerNorm(text.width, eps=text.eps)
        self.head = nn.Linear(text.width, text.vocab_size, bias=False)
        self.image_head, self.text_head = (nn.Linear(text.width, text.width, bias=False) for _ in range(2))
        for linear in (self.image_head, self.text_head, self.head):
            nn.init.normal_(linear.weight, std=text.width**-0.5)
        self.log_scale = nn.Parameter(torch.tensor([config.scale_init]))

    def pooled(self, pixels: Pixels, which: slice) -> Float[Tensor, "B Q D"]:
        """What these of the queries read of pictures."""
        # The tower's own norm is the one in front of the queries.
        return self.pooler_norm(self.pooler(self.image.post_norm(self.image.tokens(pixels).states), which))

    # --------------------------------------------------------------------------------------------- one space

    def features(self, kind: Modality, inputs: Any) -> Float[Tensor, "B D"]:
        """What the first query read of a picture, or the class token of a text."""
        if kind not in self.modalities:
            raise UsageError(f"this model does not read {kind}; it reads: {', '.join(sorted(self.modalities))}")
        return self.pooled(inputs, slice(0, 1))[:, 0] if kind == "image" else self.text(inputs)

    def encode(self, kind: Modality, inputs: Any = None, *, features: Float[Tensor, "B D"] | None = None) -> Float[Tensor, "B D"]:
        """Unit vectors of pictures or texts."""
        found = self.features(kind, inputs) if features is None else features
        return F.normalize((self.image_head if kind == "image" else self.text_head)(found), dim=-1)

    # ------------------------------------------------------------------------------------------------- words

    def read(self, batch: Batch) -> Remembered:
        """Keys and values of each row's picture for every look."""
        if batch.pixels is None:
            raise UsageError("this model says what a picture shows: give one with every row")
        return Remembered(self.decoder.remember(self.pooled(batch.pixels, slice(1, None))))

    def say(self, tokens: Tokens, seen: Seen | None = None, *, cache: KVCache | None = None) -> Float[Tensor, "B L D"]:
        """States that meet the words. The text tower's keys and values are cached before those of the blocks that look."""
        assert isinstance(seen, Remembered), "words of this model are about what it has read"
        mask, at = standing(tokens, cache, places=self.context)
        places = self.text.positions(tokens.ids.shape[1]) if at is None else self.text.positions.at(at)
        own = self.config.text.layers
        first, rest = (None, None) if cache is None else (cache.layers[:own], cache.layers[own:])
        x = self.text.transformer(self.text.embedding(tokens.ids) + places, mask=mask, caches=first)
        return self.decoder_norm(self.decoder.say(x, seen.memory, mask=mask, caches=rest))

    @property
    def output(self) -> tuple[Float[Tensor, "V D"], None]:
        """The map to words; it has no bias."""
        return self.head.weight, None

    def cache(self, room: int) -> KVCache:
        """An empty cache."""
        return KVCache(self.config.text.layers + self.config.decoder_layers, room)


def _block(config: CocaTextConfig, heads: int, inner: int) -> Block:
    return encoder_block(config.width, heads, inner, act=config.activation, eps=config.eps, dropout=config.dropout)
