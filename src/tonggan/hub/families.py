"""The formats that directories may have, and which one a `config.json` names or a model fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tonggan.config import did_you_mean
from tonggan.data.processor import Processor
from tonggan.hub.convert import bert, clip, ours
from tonggan.hub.convert.table import KeyTable
from tonggan.models import ModelConfig
from tonggan.types import TongganError


@dataclass(frozen=True)
class Family:
    """One format of directories, read and written by the functions of one module in `convert/`."""

    name: str
    model_types: tuple[str, ...]
    """What `config.json` says of itself."""
    read: Callable[[Mapping[str, Any], Path], tuple[ModelConfig, Processor]]
    """Of the content of config.json and the directory."""
    write: Callable[[Path, ModelConfig, Processor], None]
    """All files but the weights."""
    misfit: Callable[[ModelConfig, Processor | None], str | None]
    """Why a model cannot be written in this format; None when it can. Without a processor only the model's shape is judged."""
    table: Callable[[ModelConfig], KeyTable] | None
    """None: the names of tensors are ours."""
    outputs: Callable[[Any, Mapping[str, Tensor]], dict[str, Tensor]] | None
    """Our module on the named tensors of the reference's forward; gives the reference's names. None: there is no reference."""


CLIP = Family("clip", clip.MODEL_TYPES, clip.read, clip.write, clip.misfit, clip.table, clip.outputs)
BERT = Family("bert", bert.MODEL_TYPES, bert.read, bert.write, bert.misfit, lambda config: bert.TABLE, bert.outputs)
OURS = Family("tonggan", ours.MODEL_TYPES, ours.read, ours.write, lambda config, processor: None, None, None)
PUBLISHED = (CLIP, BERT)
"""In the order in which a model is tried for a format that has a place for it: the more particular first."""


def family_of(raw: Mapping[str, Any], where: str) -> Family:
    """The family that a `config.json` names; raises `TongganError` that lists those supported."""
    kind = raw.get("model_type")
    for family in (*PUBLISHED, OURS):
        if kind in family.model_types:
            return family
    known = [name for family in (*PUBLISHED, OURS) for name in family.model_types]
    what = f"model_type {kind!r} is not supported{did_you_mean(str(kind), known)}" if kind else "it has no model_type"
    raise TongganError(f"{where}: {what}; supported are: {', '.join(known)}")


def family_of_module(module: nn.Module) -> Family:
    """The published format whose shape a module of ours has; raises `TongganError` when there is none."""
    config = getattr(module, "config", None)
    if config is not None:
        for family in PUBLISHED:
            if family.misfit(config, None) is None:
                return family
    raise TongganError(f"{type(module).__name__} of this shape has no published reference whose tensors could be named")


def family_for(config: ModelConfig, processor: Processor, *, insist: bool) -> Family:
    """The published format that has a place for everything of this model, otherwise ours.

    With `insist` ours is no way out: raises `TongganError` with what each published format lacks.
    """
    reasons = [(family, family.misfit(config, processor)) for family in PUBLISHED]
    for family, reason in reasons:
        if reason is None:
            return family
    if insist:
        why = "; ".join(f"{family.name}: {reason}" for family, reason in reasons)
        raise TongganError(f"no published format has a place for this model ({why}); save it with format='tonggan'")
    return OURS


def agree(config: ModelConfig, processor: Processor, where: str) -> None:
    """Raise `TongganError` when the processor makes other input than the model reads.

    Mean and deviation are written in both places: the model applies them, the processor's are what is published and compared.
    """
    wrong = []
    model, text = getattr(config, "image", None), getattr(config, "text", None)
    if model is not None and processor.image is not None:
        given = processor.image.config
        pairs = {"mean": (given.mean, model.mean), "std": (given.std, model.std), "size": (given.side, model.image_size)}
        wrong += [f"image {name}: {a} by the processor, {b} by the model" for name, (a, b) in pairs.items() if a != b]
    if text is not None and processor.text is not None:
        length, vocab = processor.text.config.max_length, processor.text.vocab_size
        if length > text.context:
            wrong.append(f"text length: up to {length} tokens by the tokenizer, {text.context} by the model")
        if vocab > text.vocab_size:
            wrong.append(f"vocabulary: {vocab} ids by the tokenizer, {text.vocab_size} by the model")
    if wrong:
        raise TongganError(f"{where}: processor and model do not fit: {'; '.join(wrong)}")
