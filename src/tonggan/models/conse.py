"""A classifier and a sentence encoder that never met become a two-tower model without any training.

ConSE (Norouzi et al. 2014): the classifier's probabilities weight the sentence vectors of its classes' descriptions; what comes
out is a point in the space of sentences. That is the *unadapted* baseline that published parts give, and the place from which
adaptation starts: heads begin as the identity on this point, and at zero on the pooled features beside it.

Shape letters: B pictures, C classes, D width of sentence vectors, W width of pooled features.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from tonggan.config import Config, PictureSize
from tonggan.models.towers import Colour, ConvTower, EfficientNetConfig, Pixels
from tonggan.tensors import Hidden


class ConseConfig(Config):
    """The classifier's tower, how many classes it has, how wide sentence vectors are."""

    kind: Literal["conse"] = "conse"
    net: EfficientNetConfig = EfficientNetConfig()
    classes: PositiveInt = 1000
    words_width: PositiveInt = 384
    temperature: float = 1.5
    """Softens the probabilities: classifiers are too sure of themselves on pictures unlike those they know."""
    top: PositiveInt = 50
    """Only so many of the likeliest classes count."""

    @property
    def image_size(self) -> PictureSize:
        """Size of the pictures that the tower reads."""
        return self.net.image_size

    @property
    def mean(self) -> Colour:
        """Of the channels."""
        return self.net.mean

    @property
    def std(self) -> Colour:
        """Of the channels."""
        return self.net.std


class ConseTower(nn.Module):
    """Pooled features and the ConSE point, side by side: [B, W + D]."""

    class_words: Tensor

    def __init__(self, config: ConseConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ConvTower(config.net)
        self.classifier = nn.Linear(self.image.width, config.classes)
        self.register_buffer("class_words", torch.zeros(config.classes, config.words_width))
        self.width = self.image.width + config.words_width

    def tokens(self, pixels: Pixels) -> Hidden:
        """Cells of the last feature map."""
        return self.image.tokens(pixels)

    def forward(self, pixels: Pixels) -> Float[Tensor, "B WD"]:
        pooled = self.image(pixels)
        return torch.cat([pooled, self.words(self.classifier(pooled))], dim=1)

    def words(self, logits: Float[Tensor, "B C"]) -> Float[Tensor, "B D"]:
        """Unit vectors in the space of sentences."""
        best, which = (logits / self.config.temperature).topk(self.config.top, dim=1)
        return F.normalize((best.softmax(dim=1)[:, :, None] * self.class_words[which]).sum(dim=1), dim=1)


class Centre(nn.Module):
    """Takes away what all inputs have in common, learnt from the training set by `fit`, not by gradient.

    `by="row"`: unit vectors minus their mean, each scaled to length √D. `by="channel"`: every channel to zero mean and unit variance.
    Sentence encoders' vectors share a large common part, which hides the differences that matter.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, by: Literal["row", "channel"]) -> None:
        super().__init__()
        self.by = by
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "N D"]) -> None:
        """Take mean and deviation from the training set's inputs."""
        x = F.normalize(x, dim=1) if self.by == "row" else x
        self.mean.copy_(x.mean(dim=0))
        if self.by == "channel":
            # A little is added: channels that hardly ever fire must not become the loudest.
            self.std.copy_(x.std(dim=0) + 0.02)

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        if self.by == "channel":
            return (x - self.mean) / self.std
        return F.normalize(F.normalize(x, dim=1) - self.mean, dim=1) * x.shape[1] ** 0.5


class CentredHead(nn.Module):
    """Centre, dropout, a linear map that starts as the identity: step 0 is the unadapted model."""

    anchored = ("linear.weight",)
    """Weights that an anchoring penalty holds near their start."""

    def __init__(self, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        if width != dim:
            raise ValueError(f"a centred head keeps the width: {width} is not {dim}")
        self.centre = Centre(width, "row")
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, dim, bias=False)
        nn.init.eye_(self.linear.weight)

    def fit(self, features: Float[Tensor, "N D"]) -> None:
        """Centre on the training set's features."""
        self.centre.fit(features)

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        return self.linear(self.dropout(self.centre(x)))


class ConseHead(nn.Module):
    """For `ConseTower`'s two parts: a map that starts as the identity for the point, one that starts at zero for the features."""

    anchored = ("words.linear.weight",)

    def __init__(self, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.words = CentredHead(dim, dim, dropout)
        self.centre = Centre(width - dim, "channel")
        # The pooled features have more to overfit with: they are dropped more often.
        self.dropout = nn.Dropout(min(0.9, dropout * 5 / 3))
        self.linear = nn.Linear(width - dim, dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def fit(self, features: Float[Tensor, "N WD"]) -> None:
        """Centre both parts on the training set's features."""
        pooled, words = features[:, : self.linear.in_features], features[:, self.linear.in_features :]
        self.centre.fit(pooled)
        self.words.fit(words)

    def forward(self, x: Float[Tensor, "B WD"]) -> Float[Tensor, "B D"]:
        pooled, words = x[:, : self.linear.in_features], x[:, self.linear.in_features :]
        return self.words(words) + self.linear(self.dropout(self.centre(pooled)))
