"""Text or speech in, words out: an encoder reads all of it at once, a decoder that attends to what it made says the answer.

T5 (Raffel et al. 2020, section 2.1), BART (Lewis et al. 2020, section 2) and Whisper (Radford et al. 2023, section 2.2). What is said is
ids of a vocabulary and nothing more: codes of pictures are as good as words.

Shape letters: B rows, S positions of the source, L tokens, D width, V words of the vocabulary.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.towers import LogMel, LogMelConfig
from tonggan.nn.activations import Activation
from tonggan.nn.attention import Attention, Bias
from tonggan.nn.cache import KVCache
from tonggan.nn.positions import LearnedPositions, RelativeBias
from tonggan.nn.talking import Remembered, Seen, standing
from tonggan.nn.transformer import Block, FeedForward, Transformer, init_transformer
from tonggan.tensors import Batch, Hidden, Mask, Modality, Tokens
from tonggan.types import UsageError

BEFORE = 2
"""Rows of BART's table of positions that no token stands at."""


class ReaderConfig(Config):
    """An encoder of text. Words, width and style are the decoder's."""

    kind: Literal["text"] = "text"
    context: PositiveInt = 512
    layers: PositiveInt = 6
    heads: PositiveInt = 8
    mlp_width: PositiveInt = 2048


SourceConfig: TypeAlias = Annotated[ReaderConfig | LogMelConfig, Field(discriminator="kind")]


class SpeakerConfig(Config):
    """A decoder with cross-attention, and its words. Sizes are T5's small ones.

    `t5`: RMS norms before each branch, distances in place of positions, scores that are not scaled, no biases. `bart`: layer norms behind
    each sum and behind the words, learned positions. `whisper`: layer norms before each branch, learned positions, keys without a bias.
    """

    style: Literal["t5", "bart", "whisper"] = "t5"
    vocab_size: PositiveInt = 32128
    context: PositiveInt = 512
    width: PositiveInt = 512
    layers: PositiveInt = 6
    heads: PositiveInt = 8
    head_width: PositiveInt | None = None
    """None: width / heads."""
    mlp_width: PositiveInt = 2048
    activation: Activation = "relu"
    gated: bool = False
    """Feed-forwards multiply by a third map, as in T5 1.1 (Shazeer 2020)."""
    buckets: int = Field(default=32, ge=4)
    farthest: PositiveInt = 128
    """Distances fall into so many buckets, from there on into one."""
    scaled_words: bool = False
    """What enters the blocks is multiplied by the square root of the width."""
    padding_id: int | None = Field(default=None, ge=0)
    """The id whose embedding is not learnt from being read; None: all are learnt."""
    eps: float = 1e-6
    dropout: float = 0.0

    @model_validator(mode="after")
    def _of_its_style(self) -> SpeakerConfig:
        theirs = ("head_width", "gated", "buckets", "farthest")
        if self.style != "t5" and (set_ := [n for n in theirs if getattr(self, n) != type(self).model_fields[n].default]):
            raise ValueError(f"style {self.style} has no {', '.join(set_)}: leave it out, or take style t5")
        if self.style == "t5" and self.farthest <= self.buckets // 2:
            raise ValueError(f"farthest {self.farthest}: {self.buckets} buckets need distances beyond {self.buckets // 2}")
        return self


class ListeningConfig(Config):
    """Words that tell a listener what to write, said behind `start` in this order: a language, a task, that no times are wanted."""

    languages: dict[str, int] = Field(default_factory=dict)
    """By their codes, as `zh`."""
    tasks: dict[str, int] = Field(default_factory=dict)
    """`transcribe`, and `translate` into English."""
    no_times: int | None = None


class EncoderDecoderConfig(Config):
    """An encoder, a decoder, and how what is said begins and ends."""

    kind: Literal["encoder_decoder"] = "encoder_decoder"
    source: SourceConfig = ReaderConfig()
    text: SpeakerConfig = SpeakerConfig()
    tied: bool = True
    """Words are told by the table that they are read with."""
    scaled_output: bool = False
    """States are multiplied by width^-½ before they meet the words (T5, but not 1.1)."""
    word_bias: bool = False
    """A constant is added to the score of each word: nothing that is learnt (BART's `final_logits_bias`)."""
    start: tuple[int, ...] = Field(default=(0,), min_length=1)
    """What is said first, without being asked for."""
    ends: tuple[int, ...] = (1,)
    last: int | None = None
    """What an answer that reaches its longest is made to end with; None: nothing."""
    suppressed: tuple[int, ...] = ()
    """What is never said."""
    suppressed_first: tuple[int, ...] = ()
    """What is not said first behind `start`."""
    listening: ListeningConfig | None = None
    """How a listener is asked for a language or a task; None: it is not."""

    @property
    def audio(self) -> LogMelConfig | None:
        """What it hears with; None for text."""
        return self.source if isinstance(self.source, LogMelConfig) else None

    @model_validator(mode="after")
    def _among_the_words(self) -> EncoderDecoderConfig:
        ids = {*self.start, *self.ends, *self.suppressed, *self.suppressed_first} | ({self.last} - {None})
        if wrong := sorted(i for i in ids if i is not None and not 0 <= i < self.text.vocab_size):
            raise ValueError(f"ids {wrong} of start, ends, last or suppressed are not among the {self.text.vocab_size} words")
        return self


class Stack(nn.Module):
    """Blocks over words, or over words and what was read; the words themselves come in, already looked up."""

    def __init__(self, config: SpeakerConfig, layers: int, heads: int, mlp_width: int, context: int, *, attended: int | None) -> None:
        super().__init__()
        width, plain = config.width, config.style == "t5"
        # An encoder's distances have a side, a decoder's only look back.
        self.distances = RelativeBias(config.buckets, config.farthest, heads, both=attended is None) if plain else None
        self.before = BEFORE if config.style == "bart" else 0
        self.positions = None if plain else LearnedPositions(context + self.before, width, std=0.02)
        self.word_norm = nn.LayerNorm(width, eps=config.eps) if config.style == "bart" else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        # The method, not the module: the table is one weight of the stack, not one of every block.
        bias = None if self.distances is None else self.distances.forward
        self.transformer = Transformer([_block(config, heads, mlp_width, bias, attended) for _ in range(layers)])
        init_transformer(self.transformer, width)
        if plain:
            _calm(self.transformer)
        self.norm = nn.Identity() if config.style == "bart" else _norm(config)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        *,
        mask: Mask | None,
        at: Tensor | None = None,
        seen: Remembered | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B L D"]:
        """States behind the last norm. `at` are the words' places, [B, L]; None: counted from 0."""
        if self.positions is not None:
            x = x + (self.positions(x.shape[1] + self.before)[self.before :] if at is None else self.positions.at(at + self.before))
        x = self.transformer(
            self.dropout(self.word_norm(x)),
            mask=mask,
            positions=at,
            context=None if seen is None else seen.memory,
            context_mask=None if seen is None else seen.mask,
            caches=None if cache is None else cache.layers,
        )
        return self.norm(x)


class EncoderDecoder(nn.Module):
    """Says words about a text or a sound that it has read; `nn.talking.Talker`."""

    reads_prompt = True
    word_bias: Tensor | None

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        text, source = config.text, config.source
        self.config, self.context = config, text.context
        self.embedding = nn.Embedding(text.vocab_size, text.width, padding_idx=text.padding_id)
        # Words that meet states made smaller are larger: T5's initialisation, as in their code.
        nn.init.normal_(self.embedding.weight, std=1.0 if config.scaled_output else 0.02)
        self.speaker = Stack(text, text.layers, text.heads, text.mlp_width, text.context, attended=source_width(config))
        self.head = None if config.tied else nn.Linear(text.width, text.vocab_size, bias=False)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)
        self.register_buffer("word_bias", torch.zeros(text.vocab_size) if config.word_bias else None)
        self.reader: Stack | None = None
        self.audio: LogMel | None = None
        self.modalities: frozenset[Modality]
        if isinstance(source, ReaderConfig):
            self.modalities = frozenset({"text"})
            self.reader = Stack(text, source.layers, source.heads, source.mlp_width, source.context, attended=None)
        else:
            self.modalities = frozenset({"audio", "text"})
            self.audio = LogMel(source)

    def encode(self, batch: Batch) -> Hidden:
        """States of the source [B, S, D]; lengths are None where all of it is seen."""
        if self.audio is not None:
            if batch.sounds is None:
                raise UsageError("this model says what it hears: give a sound with every row")
            heard = self.audio.tokens(batch.sounds)
            return heard if self.audio.config.padding == "hidden" else Hidden(heard.states)
        assert self.reader is not None
        source = batch.source
        if source is None:
            raise UsageError("this model answers what it reads: give a source text with every row")
        if source.starts is not None or source.segments is not None:
            raise UsageError("a source is one text per row, padded on the right")
        return Hidden(self.reader(self._words(source), mask=Mask(lengths=source.lengths)), source.lengths)

    def read(self, batch: Batch) -> Remembered:
        """Keys and values of the source for every block that speaks."""
        return self.remember(self.encode(batch))

    def remember(self, source: Hidden) -> Remembered:
        """The same of an encoder's states."""
        return Remembered(self.speaker.transformer.remember(source.states), source.lengths)

    def say(self, tokens: Tokens, seen: Seen | None = None, *, cache: KVCache | None = None) -> Float[Tensor, "B L D"]:
        """States that meet the words."""
        assert isinstance(seen, Remembered), "an encoder-decoder says something about what it has read"
        mask, at = standing(tokens, cache, places=None if self.speaker.positions is None else self.context)
        states = self.speaker(self._words(tokens), mask=mask, at=at, seen=seen, cache=cache)
        return states * self.config.text.width**-0.5 if self.config.scaled_output else states

    @property
    def output(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, " V"] | None]:
        """The map to words."""
        return (self.embedding.weight if self.head is None else self.head.weight), self.word_bias

    def cache(self, room: int) -> KVCache:
        """An empty cache."""
        return KVCache(self.config.text.layers, room)

    def _words(self, tokens: Tokens) -> Float[Tensor, "B L D"]:
        x: Tensor = self.embedding(tokens.ids)
        return x * self.config.text.width**0.5 if self.config.text.scaled_words else x


def source_width(config: EncoderDecoderConfig) -> int:
    """Width of what a decoder attends to."""
    return config.text.width if config.audio is None else config.audio.width


def _block(config: SpeakerConfig, heads: int, mlp_width: int, bias: Bias | None, attended: int | None) -> Block:
    """Of an encoder where nothing is `attended`; else that is how wide the source's states are."""
    width, plain = config.width, config.style == "t5"

    def attention(bias: Bias | None, context_width: int | None) -> Attention:
        return Attention(
            width,
            heads,
            context_width=context_width,
            head_width=config.head_width,
            linear_bias=not plain,
            key_bias=config.style == "bart",
            bias=bias,
            scale=1.0 if plain else None,
            dropout=config.dropout,
        )

    return Block(
        attention(bias, None),
        FeedForward(width, mlp_width, config.activation, gated=config.gated, bias=not plain, dropout=config.dropout if plain else 0.0),
        (_norm(config), _norm(config)),
        order="post" if config.style == "bart" else "pre",
        cross=None if attended is None else attention(None, attended),
        cross_norm=None if attended is None else _norm(config),
        dropout=config.dropout,
    )


def _norm(config: SpeakerConfig) -> nn.Module:
    return nn.RMSNorm(config.width, eps=config.eps) if config.style == "t5" else nn.LayerNorm(config.width, eps=config.eps)


def _calm(transformer: Transformer) -> None:
    """Where scores are not scaled, queries begin as much smaller (Raffel et al. 2020, as in their code)."""
    with torch.no_grad():
        for module in transformer.modules():
            if isinstance(module, Attention):
                module.q.weight *= module.head_width**-0.5
