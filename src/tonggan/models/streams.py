"""How words and pictures enter a Transformer that reads both, and how words leave it: the parts that VLMo, ViLT and ALBEF share.

Shape letters: B rows, L tokens, P patches, H W pixels, T positions, D width, V words of the vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.towers import ImageConfig, Pixels
from tonggan.nn.activations import Activation, activation
from tonggan.nn.patches import Normalize, PatchEmbed
from tonggan.nn.positions import LearnedPositions
from tonggan.tensors import Mask, Tokens


class PatchesConfig(ImageConfig):
    """Pictures as they enter: their size, and that of the patches they are cut into."""

    patch_size: PositiveInt = 16


class WordsConfig(Config):
    """Text as it enters: the vocabulary, and how many tokens there may be."""

    vocab_size: PositiveInt = 30522
    context: PositiveInt = 40
    type_vocab: int = 0
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

    def forward(self, tokens: Tokens) -> Float[Tensor, "B L D"]:
        x = self.embedding(tokens.ids) + self.positions(tokens.ids.shape[1])
        if self.types is not None:
            x = x + self.types.weight[0]
        return self.dropout(self.norm(x))


class PictureEmbed(nn.Module):
    """A class token and patches with their positions (Dosovitskiy et al. 2021, equation 1)."""

    def __init__(self, config: PatchesConfig, width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.grid = config.image_size // config.patch_size
        self.normalize = Normalize(config.mean, config.std)
        self.patches = PatchEmbed(config.patch_size, width, bias=True)
        self.class_token = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = LearnedPositions(1 + self.grid**2, width, std=0.02)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pixels: Pixels) -> Float[Tensor, "B T D"]:
        """Class token and patches in row-major order; pictures of another size than the trained one raise `ValueError`."""
        x, table = self.patches(self.normalize(pixels)), self.positions.weight
        if len(table) != x.shape[1] + 1:
            side = self.grid * self.patches.size
            raise ValueError(f"pictures of {tuple(pixels.shape[2:])} pixels give {x.shape[1]} patches; this model reads {side} x {side}")
        return self.dropout(self._with_class(x + table[1:]))

    def _with_class(self, x: Float[Tensor, "B P D"]) -> Float[Tensor, "B T D"]:
        return torch.cat([(self.class_token + self.positions.weight[0]).expand(len(x), 1, -1), x], dim=1)


class WordHead(nn.Module):
    """States to logits over the vocabulary, through the table of words itself (Devlin et al. 2019, as in their code)."""

    def __init__(self, width: int, vocab_size: int, *, act: Activation, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.act = activation(act)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, states: Float[Tensor, "B L D"], table: Float[Tensor, "V D"]) -> Float[Tensor, "B L V"]:
        """`table` is the embedding's weight: the two are tied."""
        return F.linear(self.norm(self.act(self.dense(states))), table, self.bias)


class Pooler(nn.Module):
    """The first state through a linear map and tanh (Devlin et al. 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B D"]:
        return self.dense(states[:, 0]).tanh()


def real(tokens: Tokens) -> Bool[Tensor, "B L"]:
    """Where there are tokens and no padding, on either side."""
    at = torch.arange(tokens.ids.shape[1], device=tokens.ids.device)
    found = at < tokens.lengths[:, None]
    return found if tokens.starts is None else found & (at >= tokens.starts[:, None])


def seen(valid: Bool[Tensor, "B T"]) -> Mask:
    """Attention to the valid places only, wherever in the row they are: padding of text stands before the picture."""
    padding = (~valid).long()
    return Mask(segments=(torch.zeros_like(padding[:, :1]), padding))


def init_bert(module: nn.Module) -> None:
    """Linear and embedding weights with standard deviation 0.02, biases zero (Devlin et al. 2019, as in their code)."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
