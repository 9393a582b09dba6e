"""Two models that never met become a dual encoder: one's picture tower, the other's text tower, and fresh linear heads."""

from __future__ import annotations

import torch
from torch import nn

from tonggan import hub
from tonggan.data.processor import Processor
from tonggan.hub.read import Checkpoint
from tonggan.models.classifier import Classifier
from tonggan.models.dual_encoder import DualEncoder, DualEncoderConfig
from tonggan.types import CannotError, Identity

SEED = 0
"""Of the fresh heads: the same pair is the same model everywhere."""
MAX_DIM = 512


def pair(image: Checkpoint, text: Checkpoint, *, name: str) -> Checkpoint:
    """The picture tower of `image` and the text tower of `text` under new heads of min(both widths, 512) numbers.

    Until the heads are trained, pictures and text lie in one space without agreeing in it.
    """
    image_tower, text_tower = _image_tower(image), _text_tower(text)
    config = DualEncoderConfig(
        image=image.config.image,
        text=text.config.text,
        dim=min(image_tower.width, text_tower.width, MAX_DIM),
        image_projection="linear",
        text_projection="linear",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        module = DualEncoder(config)
    module.image.load_state_dict(image_tower.state_dict())
    module.text.load_state_dict(text_tower.state_dict())
    processor = Processor(image=image.processor.image, text=text.processor.text)
    found = hub.identity(module, config, processor)
    return Checkpoint(
        module=module.eval(),
        config=config,
        processor=processor,
        identity=Identity(found.preprocessing, found.weights, verified=False),
        name=name,
        provenance={"pair": {"image": image.name, "text": text.name, "heads": f"fresh, seed {SEED}"}},
    )
