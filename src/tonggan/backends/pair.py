"""Two models that never met become a dual encoder: one's picture tower, the other's text tower, and fresh linear heads."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from tonggan import hub
from tonggan.data.images import ImageProcessor
from tonggan.data.labels import imagenet
from tonggan.data.processor import Processor
from tonggan.hub.read import Checkpoint
from tonggan.models import Classifier, DualEncoder, DualEncoderConfig
from tonggan.models.conse import ConseConfig, ConseTower
from tonggan.models.dual_encoder import ImageTower, TextTower
from tonggan.models.towers import Bert, ConvTower, EfficientNetConfig
from tonggan.types import CannotError

SEED = 0
"""Of the fresh heads: the same pair is the same model everywhere."""
MAX_DIM = 512


def pair(image: Checkpoint, text: Checkpoint, *, name: str) -> Checkpoint:
    """The picture tower of `image` and the text tower of `text` under new heads of min(both widths, 512) numbers.

    Until the heads are trained, pictures and text lie in one space without agreeing in it. Raises `CannotError` when a part
    lacks its tower.
    """
    named = isinstance(image.module, Classifier) and image.labels and isinstance(image.module.config.image, EfficientNetConfig)
    if named and isinstance(text_part(text.module), Bert):
        return _conse(image, text, name)
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


def _conse(image: Checkpoint, text: Checkpoint, name: str) -> Checkpoint:
    """A classifier whose classes have names needs no training to meet a sentence encoder: see `models.conse`."""
    classifier, bert = image.module, text_part(text.module)
    assert isinstance(classifier, Classifier) and isinstance(bert, Bert) and image.labels and text.processor.text and image.processor.image
    net = classifier.config.image
    assert isinstance(net, EfficientNetConfig)
    config = DualEncoderConfig(
        image=ConseConfig(net=net, classes=classifier.config.classes, words_width=bert.width),
        text=bert.config,
        dim=bert.width,
        image_projection="centred",
        text_projection="centred",
        head_dropout=0.3,
        scale_init=math.log(10),
    )
    module = DualEncoder(config).eval()
    assert isinstance(module.image, ConseTower)
    # The towers themselves, not copies: the parts are of no further use.
    assert isinstance(classifier.image, ConvTower)
    module.image.image, module.image.classifier, module.text = classifier.image, classifier.head, bert
    told = imagenet()
    meanings = [f"{one.words}: {one.gloss}" for one in told] if image.labels == tuple(one.name for one in told) else list(image.labels)
    with torch.inference_mode():
        vectors = [bert(text.processor.tokens(meanings[i : i + 100])) for i in range(0, len(meanings), 100)]
    module.image.class_words.copy_(torch.nn.functional.normalize(torch.cat(vectors), dim=1))
    # The whole picture, not its centre: a classifier's crop would cut the ends off long ones.
    shown = image.processor.image.config.model_copy(update={"mode": "pad", "size": net.image_size, "crop": None})
    processor = Processor(ImageProcessor(shown), text.processor.text)
    found = hub.identity(module, config, processor)
    origin = {"image": image.name, "text": text.name, "heads": "identity on the classes' words"}
    return Checkpoint(module, config, processor, replace(found, verified=False), name, {"pair": origin})


def image_part(module: nn.Module) -> ImageTower | None:
    """The picture tower of a model, None when it has none."""
    return module.image if isinstance(module, DualEncoder | Classifier) else None


def text_part(module: nn.Module) -> TextTower | None:
    """The text tower of a model, None when it has none."""
    return module.text if isinstance(module, DualEncoder) else None
