"""Co-attention: a picture tower, and a text Transformer whose blocks attend to what it sees (Li et al. 2021, ALBEF; Li et al. 2022, BLIP).

The same weights embed pictures and texts apart, for contrast and for choosing hard negatives, and match them together.

Shape letters: B rows, L tokens, N places, P patches, T positions, D width, Dv width of the picture tower,
E dim of the common space, V words.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.streams import WordEmbed, WordsConfig, init_reader
from tonggan.models.towers import Pixels, ViT, ViTConfig
from tonggan.nn.activations import Activation
from tonggan.nn.attention import Attention
from tonggan.nn.transformer import Block, FeedForward, Transformer, encoder_block
from tonggan.nn.words import WordHead
from tonggan.tensors import Mask, Modality, Tokens
from tonggan.types import UsageError


class CrossTextConfig(WordsConfig):
    """A BERT, of whose blocks some attend to a picture between their own attention and their feed-forward."""

    context: PositiveInt = 512
    width: PositiveInt = 768
    layers: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_width: PositiveInt = 3072
    activation: Activation = "gelu"
    eps: float = 1e-12
    dropout: float = 0.0
    cross_from: NonNegativeInt = 6
    """The first block that attends to pictures: a text alone is read by those before (ALBEF). 0: every block does, and a text alone passes
    through all of them without (BLIP)."""

    @model_validator(mode="after")
    def _some_block_sees(self) -> CrossTextConfig:
        if self.cross_from >= self.layers:
            raise ValueError(
                f"cross_from {self.cross_from} of {self.layers} layers (counted from 0): no block would attend to pictures; "
                f"set cross_from below {self.layers}, or more layers"
            )
        return self


class CrossTransformer(Transformer):
    """Blocks of which the first `alone` read a text alone, and all of them a text with pictures in view."""

    def __init__(self, blocks: list[Block], alone: int) -> None:
        super().__init__(blocks)
        self.alone = alone

    def read(self, x: Float[Tensor, "B L D"], mask: Mask, pictures: Float[Tensor, "B T Dv"] | None) -> Float[Tensor, "B L D"]:
        """States after the last of the blocks that read."""
        for block in self.blocks if pictures is not None else self.blocks[: self.alone]:
            x = block(x, mask=mask, context=pictures)
        return x


class CoAttentionConfig(Config):
    """A class-token ViT and a text Transformer with cross-attention. Sizes are ALBEF's (section 3.1)."""

    kind: Literal["co_attention"] = "co_attention"
    image: ViTConfig = ViTConfig(pre_norm=False, patch_bias=True)
    text: CrossTextConfig = CrossTextConfig()
    dim: PositiveInt = 256
    scale_init: float = math.log(1 / 0.07)
    scale_learned: bool = True
    """Off: the scale of the cosines stays as it starts. The published form of BLIP has no place for one that is learnt."""
    max_scale: float = 100.0
    words: bool = False
    """Head for masked words, told with the picture in view."""


class CoAttention(nn.Module):
    """Unit vectors of pictures and of texts, and two logits of a picture with a text."""

    bias = None
    """The contrastive objective has none."""
    log_scale: Tensor

    def __init__(self, config: CoAttentionConfig) -> None:
        super().__init__()
        if config.image.pooling != "class":
            raise ValueError(f"a co-attention model reads a class token: image.pooling {config.image.pooling!r} has none")
        text = config.text
        self.config, self.dim, self.max_scale = config, config.dim, config.max_scale
        self.modalities: frozenset[Modality] = frozenset({"image", "text"})
        seen_width = config.image.width
        self.text = WordEmbed(text, text.width, eps=text.eps, dropout=text.dropout)
        blocks = [_block(text, seen_width, number >= text.cross_from) for number in range(text.layers)]
        self.transformer = CrossTransformer(blocks, text.cross_from or text.layers)
        self.image_head = nn.Linear(seen_width, config.dim)
        self.text_head = nn.Linear(text.width, config.dim)
        self.match_head = nn.Linear(text.width, 2)
        init_reader(self, self.transformer, text.width)
        # After the others, because it initialises itself.
        self.image = ViT(config.image)
        start = torch.tensor([config.scale_init])
        if config.scale_learned:
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start, persistent=False)

    # ------------------------------------------------------------------------------------------ states

    def pictures(self, pixels: Pixels) -> Float[Tensor, "B T Dv"]:
        """Class token and patches, normed: what texts attend to."""
        return self.image.post_norm(self.image.tokens(pixels).states)

    def texts(self, tokens: Tokens, pictures: Float[Tensor, "B T Dv"] | None = None) -> Float[Tensor, "B L D"]:
        """States of the tokens, read alone or with `pictures` in view."""
        return self.transformer.read(self.text(tokens), Mask(lengths=tokens.lengths, starts=tokens.starts), pictures)

    # ------------------------------------------------------------------------------------------ what it offers

    def features(self, kind: Modality, inputs: Any) -> Float[Tensor, "B Dv"]:
        """State of the class token, or of the text's first."""
        if kind not in self.modalities:
            raise UsageError(f"this model does not read {kind}; it reads: {', '.join(sorted(self.modalities))}")
        return (self.pictures(inputs) if kind == "image" else self.texts(inputs))[:, 0]

    def encode(self, kind: Modality, inputs: Any = None, *, features: Float[Tensor, "B Dv"] | None = None) -> Float[Tensor, "B E"]:
        """Unit vectors of pictures or texts, each read alone."""
        found = self.features(kind, inputs) if features is None else features
        return F.normalize((self.image_head if kind == "image" else self.text_head)(found), dim=-1)

    def match(self, pixels: Pixels, tokens: Tokens) -> Float[Tensor, "B 2"]:
        """No and yes, from the text's first state with the picture in view."""
        return self.match_head(self.texts(tokens, self.pictures(pixels))[:, 0])


class CoAttentionWords(CoAttention):
    """The same with a head that says which word stands where (ALBEF's third pre-training task)."""

    def __init__(self, config: CoAttentionConfig) -> None:
        super().__init__(config)
        self.word_head = WordHead(config.text.width, config.text.vocab_size, config.text.activation, config.text.eps)

    def words(
        self, tokens: Tokens, pixels: Pixels | None = None, *, where: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B L V"] | Float[Tensor, "N V"]:
        """Logits over the vocabulary at each place, or only at those of `where`, in reading order."""
        if pixels is None:
            raise UsageError("this model says words with a picture in view; give pictures too")
        states = self.texts(tokens, self.pictures(pixels))
        return self.word_head(states if where is None else states[where], self.text.embedding.weight)


def build_co_attention(config: CoAttentionConfig) -> CoAttention:
    """The class with the heads that are asked for."""
    return CoAttentionWords(config) if config.words else CoAttention(config)


def _block(config: CrossTextConfig, seen_width: int, cross: bool) -> Block:
    width, heads = config.width, config.heads
    if not cross:
        return encoder_block(width, heads, config.mlp_width, act=config.activation, order="post", eps=config.eps, dropout=config.dropout)
    return cross_block(config, seen_width, optional=True)


def cross_block(config: CrossTextConfig, seen_width: int, *, optional: bool = False) -> Block:
    """BERT's block with an attention to states of `seen_width` in its midst; where it is optional, it reads text alone too."""
    width, heads = config.width, config.heads
    return Block(
        Attention(width, heads, dropout=config.dropout),
        FeedForward(width, config.mlp_width, config.activation),
        (nn.LayerNorm(width, eps=config.eps), nn.LayerNorm(width, eps=config.eps)),
        order="post",
        cross=Attention(width, heads, context_width=seen_width, dropout=config.dropout),
        cross_norm=nn.LayerNorm(width, eps=config.eps),
        cross_optional=optional,
        dropout=config.dropout,
    )
