"""A picture in, words out: BLIP's captioner, and its model that answers questions (Li et al. 2022, section 3.1).

A ViT sees the picture once; a BERT that looks back only, and attends to the picture in every block, says the words. Where questions are
answered, a second one that looks both ways reads the question with the picture in view, and the first attends to what that has made of it.

Shape letters: B rows, L tokens, P patches and the class token, D width, Dv width of the picture tower, V words of the vocabulary.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.cross import CrossTextConfig, cross_block
from tonggan.models.streams import WordEmbed, among_words, init_reader
from tonggan.models.towers import ViT, ViTConfig
from tonggan.nn.cache import KVCache
from tonggan.nn.memo import Memo, seen_once
from tonggan.nn.talking import Remembered, Seen, standing
from tonggan.nn.transformer import Transformer, init_transformer
from tonggan.nn.words import WordHead
from tonggan.tensors import Batch, Mask, Modality, Tokens
from tonggan.types import UsageError


class CaptionerConfig(Config):
    """A class-token ViT, the words it is told in, and, for questions, the reader of these. Sizes are BLIP's."""

    kind: Literal["captioner"] = "captioner"
    image: ViTConfig = ViTConfig(image_size=384, pre_norm=False, patch_bias=True)
    text: CrossTextConfig = CrossTextConfig(vocab_size=30524, cross_from=0)
    question: bool = False
    """Reads a question, and answers it; its reader has the sizes of `text`."""
    start: tuple[int, ...] = (30522,)
    """What is said first, without being asked for: [DEC]."""
    ends: tuple[int, ...] = (102,)

    @model_validator(mode="after")
    def _fits(self) -> CaptionerConfig:
        among_words(self.text.vocab_size, start=self.start, ends=self.ends)
        if self.text.cross_from:
            raise ValueError(f"cross_from {self.text.cross_from}: every block of a captioner attends to the picture; set it to 0")
        return self


class Captioner(nn.Module):
    """Says what a picture shows; `nn.talking.Talker`."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        text = config.text
        self.config, self.context, self.reads_prompt = config, text.context, config.question
        self.modalities: frozenset[Modality] = frozenset({"image", "text"})
        self.text = WordEmbed(text, text.width, eps=text.eps, dropout=text.dropout)
        attended = text.width if config.question else config.image.width
        self.transformer = Transformer([cross_block(text, attended) for _ in range(text.layers)])
        self.word_head = WordHead(text.width, text.vocab_size, text.activation, text.eps)
        self.question = WordEmbed(text, text.width, eps=text.eps, dropout=text.dropout) if config.question else None
        self.reader = Transformer([cross_block(text, config.image.width) for _ in range(text.layers)]) if config.question else None
        init_reader(self, self.transformer, text.width)
        if self.reader is not None:
            init_transformer(self.reader, text.width)
        # After the others, because it initialises itself.
        self.image = ViT(config.image)
        self.memo: Memo | None = None
        """Keeps what the tower makes of pictures, while it is frozen and others learn."""

    def pictures(self, batch: Batch) -> Float[Tensor, "B P Dv"]:
        """Class token and patches, normed."""
        if batch.pixels is None:
            raise UsageError("a captioner says what a picture shows: give one with every row")
        return self.image.post_norm(seen_once(self.memo, lambda some: self.image.tokens(some).states, batch.pixels))

    def read(self, batch: Batch) -> Remembered:
        """Keys and values of the picture, or of the question with the picture in view, for every block that speaks."""
        pictures = self.pictures(batch)
        if self.question is None or self.reader is None:
            return Remembered(self.transformer.remember(pictures))
        if batch.source is None:
            raise UsageError("this captioner answers questions: give one with every picture")
        asked = self.asked(batch.source, pictures)
        return Remembered(self.transformer.remember(asked), batch.source.lengths)

    def asked(self, question: Tokens, pictures: Float[Tensor, "B P Dv"]) -> Float[Tensor, "B L D"]:
        """States of a question with its picture in view."""
        assert self.question is not None and self.reader is not None
        mask = Mask(lengths=question.lengths, starts=question.starts)
        return self.reader(self.question(question), mask=mask, context=pictures)

    def say(self, tokens: Tokens, seen: Seen | None = None, *, cache: KVCache | None = None) -> Float[Tensor, "B L D"]:
        """States that meet the words."""
        assert isinstance(seen, Remembered), "words of a captioner are about what it has read"
        mask, at = standing(tokens, cache, places=self.context)
        states = self.transformer(
            self.text(tokens, at), mask=mask, context=seen.memory, context_mask=seen.mask, caches=None if cache is None else cache.layers
        )
        return self.word_head.ready(states)

    @property
    def output(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, " V"]]:
        """The table that words are read with, and the head's bias."""
        return self.text.embedding.weight, self.word_head.bias

    def cache(self, room: int) -> KVCache:
        """An empty cache."""
        return KVCache(self.config.text.layers, room)
