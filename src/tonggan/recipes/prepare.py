"""What a run begins with, and what its stages change in the model before their first update."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from tonggan.backends import load_local
from tonggan.backends.local import LocalModel
from tonggan.config import ConfigError, one_of
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import train_bpe
from tonggan.hub.families import agree
from tonggan.models import DualEncoder, DualEncoderConfig, build, presets
from tonggan.models.conse import Centre
from tonggan.models.ngram import BilingualText, BilingualTextConfig
from tonggan.models.towers import Bert
from tonggan.recipes.cache import image_features, text_features
from tonggan.recipes.config import ModelSource
from tonggan.types import Row, UsageError


class Parts(NamedTuple):
    """A model in training: the module, its shape, and how its input is made."""

    module: DualEncoder
    config: DualEncoderConfig
    processor: Processor


def begin(source: ModelSource, captions: Iterable[str]) -> Parts:
    """The model that a recipe starts from; a shape without weights gets a tokenizer that is trained on `captions`."""
    if source.start is not None:
        found = load_local(source.start, device="cpu")
        if not isinstance(found.module, DualEncoder) or not isinstance(found.config, DualEncoderConfig):
            raise UsageError(f"model.start: {source.start} is a classifier; pair it with a text model: {source.start}+TEXT")
        if found.module.image is None or found.module.text is None:
            lacks, pair = ("picture", f"PICTURES+{source.start}") if found.module.image is None else ("text", f"{source.start}+TEXT")
            raise UsageError(f"{source.start} has no {lacks} tower; give it one as a pair: {pair}")
        return Parts(found.module.train(), found.config, _looking(source, found.processor, found.config))
    shape = source.config or presets()[one_of(str(source.preset), presets(), "preset")]
    image, words = shape.image, shape.text
    if image is None or words is None:
        raise UsageError("model.config: training needs both a picture and a text tower")
    tokenizer = train_bpe(sorted(set(captions)), source.vocab_size, max_length=words.context)
    shape = shape.model_copy(update={"text": words.model_copy(update={"vocab_size": tokenizer.vocab_size})})
    pictures = ImageProcessing(mode="pad", size=image.image_size, mean=image.mean, std=image.std)
    try:
        module = build(shape)
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"model.config: {error}") from None
    assert isinstance(module, DualEncoder)
    return Parts(module, shape, _looking(source, Processor(ImageProcessor(pictures), tokenizer), shape))


def _looking(source: ModelSource, processor: Processor, config: DualEncoderConfig) -> Processor:
    """The processor under the recipe's changes to picture processing."""
    if not source.pictures or processor.image is None:
        return processor
    changed = ImageProcessing.parse({**processor.image.config.model_dump(), **source.pictures}, "model.pictures")
    if config.image is not None and changed.side != config.image.image_size:
        raise UsageError(f"model.pictures: pictures of {changed.side} pixels, but the tower reads {config.image.image_size}")
    made = Processor(ImageProcessor(changed), processor.text)
    agree(config, made, "model.pictures")
    return made


def centre_heads(model: LocalModel, rows: Sequence[Row], captions: Sequence[str], views: int) -> None:
    """Fit the heads that centre their input to the training set: to its rows' pictures, and to English `captions`."""
    module = model.module
    assert isinstance(module, DualEncoder)
    pictures, _ = image_features(model, rows, views)
    texts = text_features(model, captions)
    for head, features in ((module.image_head, list(pictures.values())), (module.text_head, [texts[caption] for caption in captions])):
        fit = getattr(head, "fit", None)
        if fit is not None and features:
            fit(torch.cat([f.reshape(-1, f.shape[-1]) for f in features]))


def make_bilingual(parts: Parts, chinese: Sequence[str], stage: str) -> Parts:
    """An n-gram tower for Chinese beside the BERT, over a vocabulary with the characters that occur in `chinese`."""
    module, config, processor = parts
    bert, tokenizer = module.text, processor.text
    if not isinstance(bert, Bert) or tokenizer is None or config.text is None:
        raise UsageError(f"stage {stage}: bilingual needs a model whose text tower is a BERT")
    wider = tokenizer.with_characters(chinese)
    shape = BilingualTextConfig(bert=bert.config, vocab_size=wider.vocab_size)
    tower = BilingualText(shape)
    tower.bert = bert
    tower.is_han[torch.tensor(wider.han_ids())] = True
    tower.ngrams.fit_rarity(Processor(None, wider).tokens(chinese))
    centre = getattr(module.text_head, "centre", None)
    if centre is not None:
        tower.ngrams.origin.copy_(centre.mean)
    module.text = tower
    module.config = config.model_copy(update={"text": shape})
    return Parts(module, module.config, Processor(processor.image, wider))


def solve_ngrams(parts: Parts, teacher: LocalModel, pairs: Sequence[tuple[str, str, float]], ridge: float, stage: str) -> None:
    """The n-gram tower in closed form, from pairs (Chinese, English, weight): to where the teacher's English lies, seen from its centre."""
    tower, centre = parts.module.text, getattr(parts.module.text_head, "centre", None)
    if not isinstance(tower, BilingualText) or not isinstance(centre, Centre):
        raise UsageError(f"stage {stage}: ridge needs bilingual, and a centred text head")
    if not pairs:
        raise UsageError(f"stage {stage}: ridge needs a transfer stream, whose pairs it learns from")
    taught = text_features(teacher, [english for _, english, _ in pairs])
    aims = nn.functional.normalize(centre(torch.stack([taught[english] for _, english, _ in pairs])), dim=1)
    weights = torch.tensor([weight for _, _, weight in pairs])
    tower.ngrams.solve(parts.processor.tokens([chinese for chinese, _, _ in pairs]), aims, ridge, weights)
