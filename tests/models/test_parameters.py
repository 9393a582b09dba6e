"""Numbers of parameters of published networks, built on `meta`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tonggan.models import Classifier, ClassifierConfig
from tonggan.models.towers import EfficientNetConfig, published_size

# With 1000 classes. B0 to B7 as torchvision's documentation gives them; Lite0 as Keras Hub does; the other Lite as Google's
# table does, in millions.
EXACT = {
    "b0": 5_288_548, "b1": 7_794_184, "b2": 9_109_994, "b3": 12_233_232, "b4": 19_341_616, "b5": 30_389_784, "b6": 43_040_704,
    "b7": 66_347_960, "lite0": 4_652_008,
}  # fmt: skip
MILLIONS = {"lite1": 5.4, "lite2": 6.1, "lite3": 8.2, "lite4": 13.0}


def parameters(variant: str) -> int:
    config: dict[str, Any] = {"variant": variant, "image_size": published_size(variant)}
    with torch.device("meta"):
        net = Classifier(ClassifierConfig(image=EfficientNetConfig.parse(config)))
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("variant", "count"), EXACT.items())
def test_efficientnets(variant: str, count: int) -> None:
    assert parameters(variant) == count


@pytest.mark.parametrize(("variant", "millions"), MILLIONS.items())
def test_efficientnets_lite(variant: str, millions: float) -> None:
    assert round(parameters(variant) / 1e6, 1) == millions
