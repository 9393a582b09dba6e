"""Flamingo: a language model that looks at pictures through gated cross-attention, itself unchanged (Alayrac et al. 2022).

Shape letters: B rows, L tokens, N pictures or clips of a batch, M most pictures of a row, T frames, P patches, Q states of a picture,
W width of the picture tower, D width of the language model, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tonggan.config import Config
from tonggan.models.gpt import Decoder, DecoderConfig, init_decoder
from tonggan.models.streams import among_words, real
from tonggan.models.towers import ConvTower, ImageTowerConfig, build_image
from tonggan.nn.attention import Attention, KeysValues
from tonggan.nn.cache import KVCache
from tonggan.nn.memo import Memo, seen_once
from tonggan.nn.positions import LearnedPositions
from tonggan.nn.resampler import joint_perceiver
from tonggan.nn.talking import standing
from tonggan.nn.transformer import FeedForward
from tonggan.tensors import Batch, Mask, Modality, Tokens
from tonggan.types import UsageError


class ResamplerConfig(Config):
    """Learned queries that make as many states of a picture or a clip, however large it is (section 2.1)."""

    queries: PositiveInt = 64
    layers: PositiveInt = 6
    heads: PositiveInt = 16
    head_width: PositiveInt | None = 96
    """None: the tower's width / heads."""
    qk_norm: bool = False


class FlamingoConfig(Config):
    """A picture tower, what condenses its states, and a decoder with gated blocks between its own."""

    kind: Literal["flamingo"] = "flamingo"
    image: ImageTowerConfig
    resampler: ResamplerConfig | None = Field(default_factory=ResamplerConfig)
    """None: words look at the tower's states themselves."""
    text: DecoderConfig
    image_token: NonNegativeInt
    """The word that stands where a picture is."""
    added_words: NonNegativeInt = 0
    """Words behind those of the decoder, with rows of their own that learn while the decoder's are frozen: for `image_token`, say."""
    every: PositiveInt = 4
    """A gated block stands before each so many blocks of the decoder, the first included."""
    gate: Literal["scalar", "channel"] = "scalar"
    """One factor per branch, or one for each channel."""
    qk_norm: bool = False
    """On the queries and keys of the gated blocks."""
    sees: Literal["last", "all"] = "last"
    """Which of the pictures before it a word looks at; the last only generalises to more pictures than were trained with (section 2.3)."""
    frames: PositiveInt | None = None
    """Most frames of a clip; each place in time then has an embedding, a picture being a clip of one frame. None: pictures only."""
    ends: tuple[int, ...] = ()
    """Words that end what is said."""

    @property
    def vocab_size(self) -> int:
        """The decoder's words and those that were added."""
        return self.text.vocab_size + self.added_words

    @model_validator(mode="after")
    def _fits(self) -> FlamingoConfig:
        among_words(self.vocab_size, ends=self.ends)
        if self.text.layers % self.every:
            raise ValueError(f"every {self.every} does not divide the {self.text.layers} layers of the text")
        if self.image_token >= self.vocab_size:
            raise ValueError(
                f"image_token {self.image_token} is not among the {self.vocab_size} words; "
                f"set added_words to {self.image_token + 1 - self.text.vocab_size}"
            )
        return self


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is kept of a batch's pictures: the keys and values that each gated block makes of them (`nn.talking.Seen`)."""

    memory: tuple[KeysValues, ...]
    """Per gated block, [B, H, M·Q, E]."""
    counts: tuple[int, ...]
    """Pictures of each row."""
    each: int
    """States of a picture, Q."""

    @property
    def most(self) -> int:
        """For how many pictures a row has room, M: of rows that were selected, none need have so many."""
        return self.memory[0].keys.shape[2] // self.each

    def select(self, rows: Sequence[int]) -> Pictures:
        """Of these rows, in this order; a row may come more than once."""
        index = torch.tensor(rows, device=self.memory[0].keys.device)
        return Pictures(tuple(one.select(index) for one in self.memory), tuple(self.counts[row] for row in rows), self.each)

    def join(self, others: Sequence[Pictures]) -> Pictures:
        """Of these rows and those of others."""
        memory = zip(self.memory, *(one.memory for one in others), strict=True)
        counts = sum((one.counts for one in others), self.counts)
        return Pictures(tuple(first.join(rest) for first, *rest in memory), counts, self.each)


class GatedBlock(nn.Module):
    """Cross-attention and a feed-forward, each times the tanh of a factor that starts at 0: at first nothing is added (section 2.2).

    There are no biases, so that a word that sees no picture gets exactly nothing from the cross-attention.
    """

    def __init__(self, config: FlamingoConfig, width: int) -> None:
        super().__init__()
        text = config.text
        llama = text.style == "llama"

        def norm(size: int) -> nn.Module:
            return nn.RMSNorm(size, eps=text.eps) if llama else nn.LayerNorm(size, eps=text.eps)

        of_head = text.head_width or text.width // text.heads
        norms = (norm(of_head), norm(of_head)) if config.qk_norm else None
        self.cross = Attention(
            text.width,
            text.heads,
            context_width=width,
            head_width=text.head_width,
            linear_bias=False,
            qk_norms=norms,
            dropout=text.dropout,
        )
        self.feed_forward = FeedForward(text.width, text.mlp_width, text.activation, gated=llama, bias=False)
        self.norm1, self.norm2 = norm(text.width), norm(text.width)
        factors = 1 if config.gate == "scalar" else text.width
        self.gate1, self.gate2 = nn.Parameter(torch.zeros(factors)), nn.Parameter(torch.zeros(factors))
        self.dropout = nn.Dropout(text.dropout)

    def forward(self, x: Float[Tensor, "B L D"], *, context: KeysValues | None = None, mask: Mask | None = None) -> Float[Tensor, "B L D"]:
        """Without a context only the feed-forward acts."""
        if context is not None:
            x = x + self.gate1.tanh() * self.dropout(self.cross(self.norm1(x), context=context, mask=mask))
        return x + self.gate2.tanh() * self.dropout(self.feed_forward(self.norm2(x)))


class Flamingo(nn.Module):
    """Says words after texts with pictures and clips among them. With `image` and `text` frozen, what lies between learns (section 2)."""

    reads_prompt = False

    def __init__(self, config: FlamingoConfig) -> None:
        super().__init__()
        self.config, self.context = config, config.text.context
        self.modalities: frozenset[Modality] = frozenset({"image", "text"})
        self.image = build_image(config.image)
        self.memo: Memo | None = None
        """Keeps what the tower makes of pictures, while it is frozen and others learn."""
        width = self.image.net.width if isinstance(self.image, ConvTower) else self.image.width
        self.frames = None if config.frames is None else LearnedPositions(config.frames, width)
        made = config.resampler
        self.resampler = (
            None
            if made is None
            else joint_perceiver(width, made.heads, made.queries, made.layers, head_width=made.head_width, qk_norm=made.qk_norm)
        )
        self.text = Decoder(config.text)
        self.gated = nn.ModuleList([GatedBlock(config, width) for _ in range(0, config.text.layers, config.every)])
        init_decoder(self.gated, config.text.layers)
        self.added = self.added_head = None
        if config.added_words:
            self.added = nn.Embedding(config.added_words, config.text.width)
            nn.init.normal_(self.added.weight, std=0.02)
            if not config.text.tied:
                self.added_head = nn.Linear(config.text.width, config.added_words, bias=False)
                nn.init.normal_(self.added_head.weight, std=0.02)

    def read(self, batch: Batch) -> Pictures | None:
        """Keys and values of `batch.pictures`, uint8 [N, 3, H, W], or clips [N, T, 3, H, W]; None where no row has any.

        Raises `UsageError` for a batch whose text has other than its number of placeholders, naming the row and both numbers.
        """
        pictures = batch.pictures
        if batch.tokens is not None:
            counts = (0,) * len(batch.tokens.ids) if pictures is None else pictures.counts
            _check(self._numbers(batch.tokens, None).amax(dim=1).tolist(), counts, whole=True)
        if pictures is None or not len(pictures.values):
            return None
        latents = self.latents(pictures.values)
        of_rows = pad_sequence(list(torch.split(latents, list(pictures.counts))), batch_first=True).flatten(1, 2)
        crosses = [block.cross for block in self.gated if isinstance(block, GatedBlock)]
        return Pictures(tuple(cross.keys_values(of_rows) for cross in crosses), pictures.counts, latents.shape[1])

    def latents(self, values: Tensor) -> Float[Tensor, "N Q W"]:
        """States of pictures [N, 3, H, W], or of clips [N, T, 3, H, W], whose frames are read together."""
        clips = values if values.dim() == 5 else values[:, None]
        if (length := clips.shape[1]) > (most := self.config.frames or 1):
            raise UsageError(f"clips of {length} frames; this model reads at most {most}: give fewer")
        states = seen_once(self.memo, lambda some: self.image.tokens(some).states, clips.flatten(0, 1))
        states = states.reshape(*clips.shape[:2], *states.shape[1:])
        if self.frames is not None:
            states = states + self.frames(length)[:, None]
        states = states.flatten(1, 2)
        return states if self.resampler is None else self.resampler(states)

    def say(self, tokens: Tokens, seen: Pictures | None = None, *, cache: KVCache | None = None) -> Float[Tensor, "B L D"]:
        """States of the tokens, each of which tells the next word.

        Raises `UsageError` naming the row where the text has other than its number of pictures; a chunk of a cache may lack some yet.
        """
        return self.states(tokens, seen, self.sight(tokens, seen, cache), cache=cache)

    def states(
        self, tokens: Tokens, seen: Pictures | None, sight: Bool[Tensor, "B L M"] | None, *, cache: KVCache | None = None
    ) -> Float[Tensor, "B L D"]:
        """The same where it is told which of its row's pictures each token sees."""
        look = None if seen is None or sight is None else Mask(allowed=sight.repeat_interleave(seen.each, dim=2))
        before: list[Callable[[Tensor], Tensor] | None] = [None] * self.config.text.layers
        for number, block in enumerate(self.gated):
            before[number * self.config.every] = partial(block, context=seen and seen.memory[number], mask=look)
        mask, positions = standing(tokens, cache, places=self.text.places)
        return self.text(self.embed(tokens.ids), mask=mask, positions=positions, cache=cache, before=before)

    def sight(self, tokens: Tokens, seen: Pictures | None, cache: KVCache | None = None) -> Bool[Tensor, "B L M"] | None:
        """Which pictures of its row each token sees: the last up to it, or all; a picture's own placeholder sees it already."""
        numbers = self._numbers(tokens, cache)
        counts = (0,) * len(numbers) if seen is None else seen.counts
        # A single token that goes on is the model's own word: no picture comes with it.
        if cache is None or not cache.most or tokens.ids.shape[1] > 1:
            _check(numbers.amax(dim=1).tolist(), counts, whole=cache is None)
        if seen is None:
            return None
        numbers = torch.minimum(numbers, torch.tensor(counts, device=numbers.device)[:, None])
        picture = torch.arange(1, seen.most + 1, device=numbers.device)
        last = numbers[:, :, None]
        return picture == last if self.config.sees == "last" else picture <= last

    def _numbers(self, tokens: Tokens, cache: KVCache | None) -> Int[Tensor, "B L"]:
        """How many placeholders each row has had up to each token. Where they stood is kept behind the layers of the cache."""
        marks = (tokens.ids == self.config.image_token) & real(tokens)
        if cache is None:
            return marks.cumsum(dim=1)
        one_wide = marks[:, None, :, None].float()
        kept, _ = cache.layers[-1].extend(one_wide, one_wide)
        return kept[:, 0, :, 0].long().cumsum(dim=1).gather(1, cache.positions(len(marks), marks.shape[1], marks.device))

    def embed(self, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The words alone: the decoder's, and those that were added."""
        if self.added is None:
            return self.text.embed(ids)
        own = self.config.text.vocab_size
        added = self.added((ids - own).clamp(min=0))
        return torch.where((ids < own)[..., None], self.text.embed(ids.clamp(max=own - 1)), added)

    @property
    def output(self) -> tuple[Float[Tensor, "V D"], None]:
        """The map to words; whoever says many takes it once, since added words are joined to it each time."""
        weight, _ = self.text.output
        added = self.added if self.added_head is None else self.added_head
        return (weight if added is None else torch.cat([weight, added.weight])), None

    def cache(self, room: int) -> KVCache:
        """An empty cache, with one layer more than the decoder has: where the placeholders stood."""
        return KVCache(self.config.text.layers + 1, room)


def _check(found: Sequence[int], counts: Sequence[int], *, whole: bool) -> None:
    """Raise `UsageError` for a row whose text has other than its number of pictures, or more where it is not the whole text."""
    for row, (placeholders, pictures) in enumerate(zip(found, counts, strict=True)):
        if placeholders > pictures or (whole and placeholders < pictures):
            raise UsageError(f"row {row}: {placeholders} placeholders for pictures in the text, but {pictures} pictures; give as many")
