"""A single stream: words and patches side by side through one pre-norm Transformer, from the first layer on (Kim et al. 2021, ViLT).

Pictures keep their shape: any height and width that the patch divides, and `valid` pixels where pictures of several sizes share a batch.

Shape letters: B rows, L tokens, N places, P patches, H W pixels, T positions, D width, V words, C classes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.streams import PatchesConfig, PictureStem, Pooler, WordEmbed, WordsConfig, init_reader, real, seen
from tonggan.models.towers import Pixels
from tonggan.nn.activations import Activation
from tonggan.nn.transformer import Transformer, encoder_block
from tonggan.nn.words import WordHead
from tonggan.tensors import Mask, Modality, Tokens

MEAN = STD = (0.5, 0.5, 0.5)


class SingleStreamConfig(Config):
    """Sizes are those of ViLT-B/32 (section 4.2); which heads there are says what the model can."""

    kind: Literal["single_stream"] = "single_stream"
    image: PatchesConfig = PatchesConfig(image_size=384, patch_size=32, mean=MEAN, std=STD)
    """`image_size` is the side that the table of positions is for; other shapes get it interpolated."""
    text: WordsConfig = WordsConfig(context=40, type_vocab=2)
    width: PositiveInt = 768
    layers: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_width: PositiveInt = 3072
    activation: Activation = "gelu"
    eps: float = 1e-12
    dropout: float = 0.0
    kinds: int = Field(default=2, ge=2)
    """Rows of the table of modalities: text, picture, and a third for a second picture, which is not read here."""
    matching: Literal["none", "one", "two"] = "two"
    """Head for matching: two logits, or one that stands against zero (how ViLT's retrieval model is published)."""
    words: bool = True
    """Head for masked words."""


class AnySizePictures(PictureStem):
    """Patches of pictures of any shape; positions are interpolated to each picture's own grid, as ViLT does it."""

    def forward(self, pixels: Pixels, valid: Bool[Tensor, "B H W"] | None = None) -> tuple[Float[Tensor, "B T D"], Bool[Tensor, "B T"]]:
        """Class token and patches in row-major order, and which of them are of a picture.

        Pictures stand in the upper left corner of what they share; a patch counts when its upper left pixel does.
        """
        x = self.cut(pixels)
        high, wide = self.patches.size
        rows, columns = pixels.shape[2] // high, pixels.shape[3] // wide
        if valid is None:
            there = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            x = x + self._table(rows, columns)
        else:
            cells = F.interpolate(valid[:, None].float(), size=(rows, columns))[:, 0] > 0
            there = cells.flatten(1)
            grids = zip(cells[:, :, 0].sum(dim=1).tolist(), cells[:, 0].sum(dim=1).tolist(), strict=True)
            # Nothing is added to cells outside of a picture: nobody looks there.
            tables = [F.pad(self._table(h, w).view(h, w, -1), (0, 0, 0, columns - w, 0, rows - h)).flatten(0, 1) for h, w in grids]
            x = x + torch.stack(tables)
        return self.join(x), F.pad(there, (1, 0), value=True)

    def _table(self, rows: int, columns: int) -> Float[Tensor, "P D"]:
        table = self.positions.weight[1:]
        if (rows, columns) == (self.grid, self.grid):
            return table
        maps = table.T.view(1, -1, self.grid, self.grid)
        resized = F.interpolate(maps, size=(rows, columns), mode="bilinear", align_corners=True)
        return resized[0].flatten(1).T


class SingleStream(nn.Module):
    """The stream itself, and its pooled first state. Heads come with the classes below."""

    def __init__(self, config: SingleStreamConfig) -> None:
        super().__init__()
        self.config = config
        self.modalities: frozenset[Modality] = frozenset({"image", "text"})
        width, eps = config.width, config.eps
        self.image = AnySizePictures(config.image, width, dropout=config.dropout)
        self.text = WordEmbed(config.text, width, eps=eps, dropout=config.dropout)
        self.kinds = nn.Embedding(config.kinds, width)
        blocks = [
            encoder_block(width, config.heads, config.mlp_width, act=config.activation, eps=eps, dropout=config.dropout)
            for _ in range(config.layers)
        ]
        self.transformer = Transformer(blocks)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.pooler = Pooler(width)
        init_reader(self, self.transformer, width)

    def states(self, tokens: Tokens, pixels: Pixels | None = None, valid: Bool[Tensor, "B H W"] | None = None) -> Float[Tensor, "B T D"]:
        """States of the tokens, then of the class token and the patches in row-major order; without pictures of the tokens alone."""
        words = self.text(tokens) + self.kinds.weight[0]
        if pixels is None:
            return self.norm(self.transformer(words, mask=Mask(lengths=tokens.lengths, starts=tokens.starts)))
        patches, there = self.image(pixels, valid)
        x = torch.cat([words, patches + self.kinds.weight[1]], dim=1)
        return self.norm(self.transformer(x, mask=seen(torch.cat([real(tokens), there], dim=1))))

    def pooled(self, tokens: Tokens, pixels: Pixels, valid: Bool[Tensor, "B H W"] | None = None) -> Float[Tensor, "B D"]:
        """One vector per picture and text."""
        return self.pooler(self.states(tokens, pixels, valid))


class StreamMatcher(SingleStream):
    """A single stream that says how well picture and text match."""

    def __init__(self, config: SingleStreamConfig) -> None:
        super().__init__(config)
        self.match_head = nn.Linear(config.width, 1 if config.matching == "one" else 2)
        nn.init.normal_(self.match_head.weight, std=config.width**-0.5)

    def match(self, pixels: Pixels, tokens: Tokens, valid: Bool[Tensor, "B H W"] | None = None) -> Float[Tensor, "B 2"]:
        """No and yes; a single published logit stands against a no of zero."""
        logits = self.match_head(self.pooled(tokens, pixels, valid))
        return logits if logits.shape[1] == 2 else F.pad(logits, (1, 0))


class StreamWords(SingleStream):
    """A single stream that says which word stands where."""

    def __init__(self, config: SingleStreamConfig) -> None:
        super().__init__(config)
        self.word_head = WordHead(config.width, config.text.vocab_size, config.activation, config.eps)

    def words(
        self,
        tokens: Tokens,
        pixels: Pixels | None = None,
        valid: Bool[Tensor, "B H W"] | None = None,
        *,
        where: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B L V"] | Float[Tensor, "N V"]:
        """Logits over the vocabulary at each place, or only at those of `where`, in reading order."""
        states = self.states(tokens, pixels, valid)[:, : tokens.ids.shape[1]]
        return self.word_head(states if where is None else states[where], self.text.embedding.weight)


class StreamMatcherWords(StreamMatcher, StreamWords):
    """Both heads: what ViLT is pre-trained with (section 3.2)."""


def build_single_stream(config: SingleStreamConfig) -> SingleStream:
    """The class with the heads that are asked for."""
    if config.matching == "none":
        return StreamWords(config) if config.words else SingleStream(config)
    return StreamMatcherWords(config) if config.words else StreamMatcher(config)
