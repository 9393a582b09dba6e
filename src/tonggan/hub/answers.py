"""All that a system can be asked for, by the protocols of `models.base`: what a copy of it has to be compared in.

Shape letters: N rows that count (items, words or states), C numbers of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tonggan.models.base import Embedder, Featurizer, Labeller, LatentLearner, Matcher, WordPredictor
from tonggan.models.streams import real
from tonggan.tensors import Modality
from tonggan.types import UsageError

Inputs = Mapping[Modality, Any]
"""What towers read, by kind: pixels, `Tokens`, `Sounds`, clips; of two kinds together, row by row."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one verb gives for one kind of input, or for several read together; or a single number of a model, which reads nothing."""

    verb: str
    reads: frozenset[Modality]
    values: Float[Tensor, "N C"]
    scores: bool = False
    """Whether the largest of a row is what users look at."""

    @property
    def name(self) -> str:
        """For people, e.g. `words of image and text`."""
        return f"{self.verb} of {' and '.join(sorted(self.reads))}" if self.reads else self.verb


def offers(module: nn.Module) -> frozenset[str]:
    """The verbs that a module has."""
    found = {verb for verb, (protocol, _) in VERBS.items() if isinstance(module, protocol)}
    return frozenset(found - {"classes"} if getattr(module, "classes", None) is None else found)


@torch.inference_mode()
def answers(module: nn.Module, inputs: Inputs) -> dict[str, Answer]:
    """By name, every answer to these inputs. What a system does not answer (words without the picture that it needs) is not there."""
    read: Inputs = {kind: given for kind, given in inputs.items() if kind in getattr(module, "modalities", ())}
    found = chain.from_iterable(VERBS[verb][1](module, read) for verb in sorted(offers(module)))
    return {answer.name: answer for answer in found}


def _vectors(module: Embedder, inputs: Inputs) -> Iterator[Answer]:
    """With the numbers that probabilities are made of their cosines with, each by itself: next to a bias of -16 nobody sees a scale."""
    for kind in sorted(module.modalities & inputs.keys()):
        yield Answer("vectors", frozenset({kind}), module.encode(kind, inputs[kind]))
    yield Answer("log_scale", frozenset(), module.log_scale.reshape(1, 1))
    yield Answer("max_scale", frozenset(), torch.tensor([[module.max_scale]]))
    yield Answer("bias", frozenset(), torch.zeros(1, 1) if module.bias is None else module.bias.reshape(1, 1))


def _features(module: Featurizer, inputs: Inputs) -> Iterator[Answer]:
    for kind in sorted(module.modalities & inputs.keys()):
        yield Answer("features", frozenset({kind}), module.features(kind, inputs[kind]))


def _states(module: LatentLearner, inputs: Inputs) -> Iterator[Answer]:
    for kind in sorted(module.modalities & inputs.keys()):
        found = module.fill(kind, inputs[kind])
        states, lengths = found.states, found.lengths
        own = None if lengths is None else torch.arange(states.shape[1], device=states.device) < lengths[:, None]
        yield Answer("states", frozenset({kind}), states.flatten(0, 1) if own is None else states[own])


def _match(module: Matcher, inputs: Inputs) -> Iterator[Answer]:
    """Logits of no and yes."""
    if {"image", "text"} <= inputs.keys():
        yield Answer("match", frozenset({"image", "text"}), _centred(module.match(inputs["image"], inputs["text"])), scores=True)


def _words(module: WordPredictor, inputs: Inputs) -> Iterator[Answer]:
    if (tokens := inputs.get("text")) is None:
        return
    where: Bool[Tensor, "B L"] = real(tokens)
    for pixels in (None, inputs["image"]) if "image" in inputs else (None,):
        with suppress(UsageError):  # some read text alone, some only with its picture
            logits = module.words(tokens, pixels, where=where)
            yield Answer("words", frozenset({"text"} if pixels is None else {"image", "text"}), _centred(logits), scores=True)


def _classes(module: Labeller, inputs: Inputs) -> Iterator[Answer]:
    """Of all kinds together, and of each: which of them a classifier reads, only it knows."""
    for kinds in dict.fromkeys([frozenset(inputs), *(frozenset({kind}) for kind in inputs)]):
        with suppress(UsageError, KeyError):
            yield Answer("classes", kinds, _centred(module.classify({kind: inputs[kind] for kind in kinds})), scores=True)


def _centred(logits: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """Less each row's mean: probabilities do not change by it, and two rows with a large mean in common look alike whatever they say."""
    return logits - logits.mean(dim=1, keepdim=True)


VERBS: dict[str, tuple[type, Callable[[Any, Inputs], Iterator[Answer]]]] = {
    "vectors": (Embedder, _vectors),
    "features": (Featurizer, _features),
    "states": (LatentLearner, _states),
    "match": (Matcher, _match),
    "words": (WordPredictor, _words),
    "classes": (Labeller, _classes),
}
"""The protocol of each, and how it is asked."""
