"""Settings that several published formats spell alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from tonggan.types import TongganError

Activation: TypeAlias = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def activation_in(name: str, where: str) -> Activation:
    """Our name of their activation."""
    if name not in ACTIVATIONS:
        raise TongganError(f"{where}: hidden_act {name!r} is not supported; supported are: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def activation_out(name: Activation) -> str:
    """Their name of our activation."""
    return "gelu_pytorch_tanh" if name == "gelu_tanh" else name


def classes_in(raw: Mapping[str, Any], where: str) -> int:
    """How many classes a classifier's config.json has, of which one is right; the library leaves out its default, two."""
    if raw.get("problem_type") is not None:
        need(raw, {"problem_type": "single_label_classification"}, where)
    return len(raw.get("id2label") or ()) or int(raw.get("num_labels", 2))


def labels_in(raw: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of a classifier's classes in their order, None where there are none or only the library's `LABEL_0`, `LABEL_1`, ..."""
    given = raw.get("id2label") or {}
    names = tuple(str(given[key]) for key in sorted(given, key=int))
    return None if names == tuple(f"LABEL_{i}" for i in range(len(names))) else names


def labels_out(labels: Sequence[str]) -> dict[str, Any]:
    """The names of classes as config.json has them."""
    return {"id2label": {str(i): name for i, name in enumerate(labels)}, "label2id": {name: i for i, name in enumerate(labels)}}


def need(settings: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Raise `TongganError` for settings that would change the computation and that we have at one value only."""
    wrong = [f"{name}={settings[name]!r}" for name, value in wanted.items() if name in settings and settings[name] != value]
    if wrong:
        raise TongganError(f"{where}: not supported: {', '.join(wrong)}")
