"""A picture tower with a linear classifier on top: what ImageNet checkpoints are.

Shape letters: B pictures, C classes, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.towers import ImageTowerConfig, Pixels, build_image
from tonggan.tensors import Modality


class ClassifierConfig(Config):
    """A picture tower and the number of classes."""

    kind: Literal["classifier"] = "classifier"
    image: ImageTowerConfig
    classes: PositiveInt = 1000


class Classifier(nn.Module):
    """Logits of classes; `features` are what the classifier sees."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config, self.classes = config, config.classes
        self.modalities: frozenset[Modality] = frozenset({"image"})
        self.image = build_image(config.image)
        self.head = nn.Linear(self.image.width, config.classes)

    def features(self, kind: Modality, inputs: Pixels) -> Float[Tensor, "B D"]:
        """Pooled tower output."""
        return self.image(inputs)

    def classify(self, inputs: Mapping[Modality, Any]) -> Float[Tensor, "B C"]:
        """Logits of the picture among `inputs`."""
        return self(inputs["image"])

    def forward(self, pixels: Pixels) -> Float[Tensor, "B C"]:
        return self.head(self.image(pixels))
