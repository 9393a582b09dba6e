"""A picture tower with a linear classifier on top: what ImageNet checkpoints are.

Shape letters: B pictures, C classes, D width.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.towers import ImageTowerConfig, Pixels, build_image


class ClassifierConfig(Config):
    """A picture tower and the number of classes."""

    kind: Literal["classifier"] = "classifier"
    image: ImageTowerConfig
    classes: int = 1000


class Classifier(nn.Module):
    """Logits of classes; `features` are what the classifier sees."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.image = build_image(config.image)
        self.head = nn.Linear(self.image.width, config.classes)

    def features(self, pixels: Pixels) -> Float[Tensor, "B D"]:
        """Pooled tower output."""
        return self.image(pixels)

    def forward(self, pixels: Pixels) -> Float[Tensor, "B C"]:
        return self.head(self.image(pixels))
