"""How words and pictures enter a Transformer that reads both: the parts that VLMo, ViLT and ALBEF share.

Shape letters: B rows, L tokens, P patches, H W pixels, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.towers import ImageConfig, Pixels
from tonggan.nn.patches import Normalize, PatchEmbed
from tonggan.nn.positions import LearnedPositions
from tonggan.nn.transformer import Transformer, init_transformer
from tonggan.tensors import Mask, Tokens


class PatchesConfig(ImageConfig):
    """Square pictures as they enter: their side, and that of the patches they are cut into."""

    image_size: PositiveInt = 224
    patch_size: PositiveInt = 16


class WordsConfig(Config):
    """Text as it enters: the vocabulary, and how many tokens there may be."""

    vocab_size: PositiveInt = 30522
    context: PositiveInt = 40
    type_vocab: NonNegativeInt = 0
    """Rows of the table of sentence types (BERT has 2, of which only the first is used here); 0: there is none."""


class WordEmbed(nn.Module):
    """Words, positions and (where there are any) types, summed under a norm (Devlin et al. 2019)."""

    def __init__(self, config: WordsConfig, width: int, *, eps: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.positions = LearnedPositions(config.context, width, std=0.02)
        self.types = nn.Embedding(config.type_vocab, width) if config.type_vocab else None
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tokens, at: Int[Tensor, "B L"] | None = None) -> Float[Tensor, "B L D"]:
        """`at` says where the tokens stand; None: counted from 0."""
        x = self.embedding(tokens.ids) + (self.positions(tokens.ids.shape[1]) if at is None else self.positions.at(at))
        if self.types is not None:
            x = x + self.types.weight[0]
        return self.dropout(self.norm(x))


class PictureStem(nn.Module):
    """Patches under a linear map, a class token, and a table of positions (Dosovitskiy et al. 2021, equation 1)."""

    def __init__(self, config: PatchesConfig, width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.side, self.grid = config.image_size, config.image_size // config.patch_size
        self.normalize = Normalize(config.mean, config.std)
        self.patches = PatchEmbed(config.patch_size, width, bias=True)
        self.class_token = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = LearnedPositions(1 + self.grid**2, width, std=0.02)
        self.dropout = nn.Dropout(dropout)

    def cut(self, pixels: Pixels) -> Float[Tensor, "B P D"]:
        """Patches in row-major order, without their positions."""
        return self.patches(self.normalize(pixels))

    def join(self, patches: Float[Tensor, "B P D"]) -> Float[Tensor, "B T D"]:
        """The class token in front of patches that have their positions."""
        first = (self.class_token + self.positions.weight[0]).expand(len(patches), 1, -1)
        return self.dropout(torch.cat([first, patches], dim=1))


class Pooler(nn.Module):
    """The first state through a linear map and tanh (Devlin et al. 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B D"]:
        return self.dense(states[:, 0]).tanh()


def among_words(words: int, **named: Sequence[int]) -> None:
    """Raise `ValueError` for a setting with ids that are not among so many words: such a word never ends anything, nor can it be said."""
    for name, ids in named.items():
        if unknown := [one for one in ids if not 0 <= one < words]:
            raise ValueError(f"{name} {unknown} are not among the {words} words")


def real(tokens: Tokens) -> Bool[Tensor, "B L"]:
    """Where there are tokens and no padding, on either side."""
    at = torch.arange(tokens.ids.shape[1], device=tokens.ids.device)
    found = at < tokens.lengths[:, None]
    return found if tokens.starts is None else found & (at >= tokens.starts[:, None])


def seen(valid: Bool[Tensor, "B T"]) -> Mask:
    """Attention to the valid places only, wherever in the row they are: padding of text stands before the picture."""
    padding = (~valid).long()
    return Mask(segments=(torch.zeros_like(padding[:, :1]), padding))


def init_reader(model: nn.Module, transformer: Transformer, width: int) -> None:
    """Blocks as CLIP's are (see `init_transformer`), linear maps beside them by the width they read, tables of words with 0.02."""
    for part in model.modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    init_transformer(transformer, width)
