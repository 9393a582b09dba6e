"""GIT: one Transformer that sees a picture first and then says words (Wang et al. 2022).

The picture's places see each other and nothing else; a word sees the picture, the words before it, and itself. So what the blocks make of
the picture depends on no word: with a cache it is said once, as the first chunk.

Shape letters: B rows, T frames, L tokens, P places of the picture (or of all frames), D width, Dv width of the picture tower, V words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.streams import WordEmbed, WordsConfig, among_words, init_reader
from tonggan.models.towers import Pixels, ViT, ViTConfig
from tonggan.nn.activations import Activation
from tonggan.nn.cache import KVCache
from tonggan.nn.memo import Memo, seen_once
from tonggan.nn.talking import Seen, standing
from tonggan.nn.transformer import Transformer, encoder_block
from tonggan.tensors import Batch, Mask, Modality, Tokens
from tonggan.types import UsageError


class GitWordsConfig(WordsConfig):
    """BERT's blocks, in which words look back only."""

    context: PositiveInt = 1024
    width: PositiveInt = 768
    layers: PositiveInt = 6
    heads: PositiveInt = 12
    mlp_width: PositiveInt = 3072
    activation: Activation = "gelu"
    eps: float = 1e-12
    padding_id: NonNegativeInt | None = 0
    """The word that padding is written with, whose embedding does not learn; None: there is none such."""
    dropout: float = 0.0


class GitConfig(Config):
    """CLIP's picture tower, and the words it is told in. Sizes are GIT-base's."""

    kind: Literal["git"] = "git"
    image: ViTConfig = ViTConfig(patch_size=16, activation="quick_gelu")
    text: GitWordsConfig = GitWordsConfig()
    frames: NonNegativeInt = 0
    """Most frames of a clip, each of which has an embedding of its own; 0: pictures only."""
    tied: bool = False
    """Words are told by the table that they are read with."""
    start: tuple[int, ...] = (101,)
    ends: tuple[int, ...] = (102,)

    @model_validator(mode="after")
    def _known(self) -> GitConfig:
        among_words(self.text.vocab_size, start=self.start, ends=self.ends)
        return self


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture's places, as the blocks take them."""

    places: Float[Tensor, "B P D"]

    def select(self, rows: Sequence[int]) -> Shown:
        """Of these rows."""
        return Shown(self.places[torch.tensor(rows, device=self.places.device)])

    def join(self, others: Sequence[Shown]) -> Shown:
        """Of these rows and those of others."""
        return Shown(torch.cat([self.places, *(one.places for one in others)]))


class Git(nn.Module):
    """Says what a picture, or a clip, shows; `nn.talking.Talker`."""

    reads_prompt = False

    def __init__(self, config: GitConfig) -> None:
        super().__init__()
        text, seen = config.text, config.image.width
        self.config, self.context = config, text.context
        self.modalities: frozenset[Modality] = frozenset({"image", "text", *(("video",) if config.frames else ())})
        self.text = WordEmbed(text, text.width, eps=text.eps, dropout=text.dropout)
        self.text.embedding.padding_idx = text.padding_id
        self.transformer = Transformer([
            encoder_block(text.width, text.heads, text.mlp_width, act=text.activation, order="post", eps=text.eps, dropout=text.dropout)
            for _ in range(text.layers)
        ])  # fmt: skip
        self.projection = nn.Linear(seen, text.width)
        self.projection_norm = nn.LayerNorm(text.width, eps=config.image.eps)
        self.times = nn.ParameterList(torch.zeros(seen) for _ in range(config.frames))
        self.head = None if config.tied else nn.Linear(text.width, text.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(text.vocab_size))
        init_reader(self, self.transformer, text.width)
        # After the others, because it initialises itself.
        self.image = ViT(config.image)
        self.memo: Memo | None = None
        """Keeps what the tower makes of pictures, while it is frozen and others learn."""

    def read(self, batch: Batch) -> Shown:
        """The places of each row's picture, or of the frames of its clip one after the other."""
        if batch.clips is not None:
            seen = self._frames(batch.clips)
        elif batch.pixels is not None:
            seen = self._places(batch.pixels)
        else:
            raise UsageError("this model says what a picture shows: give one with every row")
        return Shown(self.projection_norm(self.projection(seen)))

    def _places(self, pixels: Pixels) -> Float[Tensor, "B P Dv"]:
        return self.image.post_norm(seen_once(self.memo, lambda some: self.image.tokens(some).states, pixels))

    def _frames(self, clips: Tensor) -> Float[Tensor, "B TP Dv"]:
        """Places of the frames of clips [B, T, 3, H, W], one frame after the other; each frame has an embedding of its own."""
        rows, count = clips.shape[:2]
        if count > len(self.times):
            raise UsageError(f"clips of {count} frames; this model has places for {len(self.times)}")
        places = self._places(clips.flatten(0, 1))
        places = places.view(rows, count, *places.shape[1:])
        return (places + torch.stack(list(self.times)[:count])[:, None]).flatten(1, 2)

    def say(self, tokens: Tokens, seen: Seen | None = None, *, cache: KVCache | None = None) -> Float[Tensor, "B L D"]:
        """States of the words. With a cache that is still empty the picture goes before them, and has its place there."""
        assert isinstance(seen, Shown), "words of this model are about what it has read"
        rows, count, _ = seen.places.shape
        if cache is None:
            return self.together(tokens, seen)[:, count:]
        if not cache.filled:
            self.transformer(seen.places, caches=cache.layers)
            cache.advance([count] * rows)
        behind, at = standing(tokens, cache, places=count + self.context)
        assert at is not None
        return self.transformer(self.text(tokens, at - count), mask=behind, caches=cache.layers)

    def together(self, tokens: Tokens, seen: Shown) -> Float[Tensor, "B P+L D"]:
        """States of the picture's places, which see each other whatever their order, and of the words behind them, all at once."""
        if tokens.starts is not None:
            raise UsageError("padding on the left would stand between the picture and its words; pad on the right")
        count = seen.places.shape[1]
        _, at = standing(tokens, None, places=self.context)
        mask = Mask(causal=True, prefix=torch.full_like(tokens.lengths, count), lengths=count + tokens.lengths)
        return self.transformer(torch.cat([seen.places, self.text(tokens, at)], dim=1), mask=mask)

    @property
    def output(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, " V"]]:
        """The map to words."""
        return (self.text.embedding if self.head is None else self.head).weight, self.bias

    def cache(self, room: int) -> KVCache:
        """An empty cache for so many words, and the picture before them."""
        rows, columns = self.config.image.grid
        return KVCache(self.config.text.layers, room + max(1, self.config.frames) * (1 + rows * columns))
