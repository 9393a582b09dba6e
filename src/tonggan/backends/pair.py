"""Two models that never met become a dual encoder: one's picture tower, the other's text tower, and fresh linear heads."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from tonggan import hub
from tonggan.data.processor import Processor
from tonggan.hub.read import Checkpoint
from tonggan.models import Classifier, DualEncoder, DualEncoderConfig
from tonggan.models.towers import ImageTower, TextTower
from tonggan.types import CannotError

SEED = 0
"""Of the fresh heads: the same pair is the same model everywhere."""
MAX_DIM = 512


def pair(image: Checkpoint, text: Checkpoint, *, name: str) -> Checkpoint:
    """The picture tower of `image` and the text tower of `text` under new heads of min(both widths, 512) numbers.

    Until the heads are trained, pictures and text lie in one space without agreeing in it. Raises `CannotError` when a part
    lacks its tower.
    """
    image_tower, text_tower = image_part(image.module), text_part(text.module)
    if image_tower is None or text_tower is None:
        part, kind = (image, "picture") if image_tower is None else (text, "text")
        raise CannotError(f"{part.name} has no {kind} tower; in a pair the pictures' model comes first: PICTURES+TEXT")
    dim = min(image_tower.width, text_tower.width, MAX_DIM)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        config = DualEncoderConfig(image=image_tower.config, text=text_tower.config, dim=dim)
        module = DualEncoder(config)
    # The towers themselves, not copies: the parts are of no further use.
    module.image, module.text = image_tower, text_tower
    processor = Processor(image.processor.image, text.processor.text)
    found = hub.identity(module, config, processor)
    origin = {"image": image.name, "text": text.name, "heads": f"fresh, seed {SEED}"}
    return Checkpoint(module.eval(), config, processor, replace(found, verified=False), name, {"pair": origin})


def image_part(module: nn.Module) -> ImageTower | None:
    """The picture tower of a model, None when it has none."""
    return module.image if isinstance(module, DualEncoder | Classifier) else None


def text_part(module: nn.Module) -> TextTower | None:
    """The text tower of a model, None when it has none."""
    return module.text if isinstance(module, DualEncoder) else None
