"""What stages change in a two-tower model before their first update."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tonggan.backends.local import LocalModel
from tonggan.data.processor import Processor
from tonggan.models import DualEncoder, DualEncoderConfig
from tonggan.models.conse import Centre
from tonggan.models.ngram import BilingualText, BilingualTextConfig
from tonggan.models.towers import Bert
from tonggan.recipes.begin import Parts
from tonggan.recipes.cache import image_features, text_features
from tonggan.types import Row


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


def make_bilingual(parts: Parts, chinese: Sequence[str]) -> Parts:
    """An n-gram tower for Chinese beside the BERT, over a vocabulary with the characters that occur in `chinese`."""
    module, config, processor, *_ = parts
    bert, tokenizer = getattr(module, "text", None), processor.text
    assert isinstance(module, DualEncoder) and isinstance(config, DualEncoderConfig), "see checks.check_prepared"
    assert isinstance(bert, Bert) and tokenizer is not None
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


def solve_ngrams(parts: Parts, teacher: LocalModel, pairs: Sequence[tuple[str, str, float]], ridge: float) -> None:
    """The n-gram tower in closed form, from pairs (Chinese, English, weight): to where the teacher's English lies, seen from its centre."""
    tower, centre = parts.module.text, getattr(parts.module.text_head, "centre", None)
    assert isinstance(tower, BilingualText) and isinstance(centre, Centre), "see checks.check_prepared"
    taught = text_features(teacher, [english for _, english, _ in pairs])
    aims = nn.functional.normalize(centre(torch.stack([taught[english] for _, english, _ in pairs])), dim=1)
    weights = torch.tensor([weight for _, _, weight in pairs])
    tower.ngrams.solve(parts.processor.tokens([chinese for chinese, _, _ in pairs]), aims, ridge, weights)
