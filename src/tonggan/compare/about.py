"""What is known of a compared model besides its scores: its release in the registry, where requests go, what they cost."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from tonggan.compare.measure import Cell
from tonggan.compare.registry import ModelFacts, Registry
from tonggan.evaluate.metrics.summary import failed
from tonggan.report import Words
from tonggan.types import UsageError

Place: TypeAlias = Literal["local", "mainland", "abroad", "unknown"]
PLACES: dict[Place, Words] = {
    "local": Words("stays on your machine", "不出本机"),
    "mainland": Words("mainland China", "境内"),
    "abroad": Words("abroad", "境外"),
    "unknown": Words("unknown", "未知"),
}
ORIGINS = {"CN": Words("domestic", "国内"), "foreign": Words("foreign", "国外"), "unknown": Words("unknown", "未知")}


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens cost, in `currency`."""

    input: float
    output: float
    currency: str


@dataclass(frozen=True, slots=True)
class About:
    """A model's release where it is in the registry, where pictures and words go, and its price where one was given."""

    release: ModelFacts | None = None
    data: Place = "unknown"
    price: Price | None = None
    moving: bool = False
    """The name stands for whatever its provider serves today: the release's date is that of the first."""

    @property
    def origin(self) -> Words:
        """Domestic, foreign or unknown."""
        return ORIGINS[self.release.origin if self.release is not None else "unknown"]


def releases(models: Mapping[str, str | None], known: Registry) -> dict[str, ModelFacts | None]:
    """Each model's release: the one that was named for it, else, of a provider's model (`PROVIDER:MODEL`), the one of just this id or name.
    What a directory or a server of one's own is called says nothing.

    A name that is not in the registry raises `UsageError` with the nearest.
    """
    found: dict[str, ModelFacts | None] = {}
    for model, named in models.items():
        if named is not None:
            found[model] = known.find(named)
            continue
        provider, colon, bare = model.partition(":")
        found[model] = None
        if colon and provider.replace("-", "").isalnum() and not bare.startswith("//"):
            with contextlib.suppress(UsageError):
                found[model] = known.find(bare.rsplit("/", 1)[-1].lower())
    return found


@dataclass(frozen=True, slots=True)
class Spent:
    """What a model took on a task, per item where it says so; None where it is not known."""

    seconds: float | None = None
    """Median from sending a question to the whole answer; of models that embed, the mean over items."""
    slow: float | None = None
    """The 95th percentile."""
    rate: float | None = None
    """Items a second, of models on this machine."""
    memory: int | None = None
    """The most bytes in use, weights included."""
    parameters: int | None = None
    tokens: tuple[float, float] | None = None
    """Input and output, per item."""
    cost: float | None = None
    """Of all items of the task, the run without pictures included, in the price's currency; a judge is not in it."""


def spent(cell: Cell, price: Price | None) -> Spent:
    """Latency, throughput, memory, tokens and cost of a cell, from what is on file with its answers; failed requests left out."""
    if cell.result is None:
        return Spent()
    took, items = cell.footprint, [item for item in cell.result.items if not failed(item)]
    seconds = [sum(one) for item in items if (one := item.get("seconds")) and None not in one]
    tokens, without = _tokens(items), _tokens([item for item in cell.blind.items if not failed(item)] if cell.blind else [])
    local = took.get("device") is not None and took.get("seconds")
    mean = took["seconds"] / took["items"] if local and took.get("items") else None
    billed = None if tokens is None or without is None else tokens.sum(axis=0) + without.sum(axis=0)
    return Spent(
        seconds=float(np.median(seconds)) if seconds else mean,
        slow=float(np.percentile(seconds, 95)) if seconds else None,
        rate=None if mean is None else 1 / max(mean, 1e-9),
        memory=took.get("memory"),
        parameters=took.get("parameters"),
        tokens=None if tokens is None or not len(tokens) else (float(tokens[:, 0].mean()), float(tokens[:, 1].mean())),
        cost=None if billed is None or price is None or not len(items) else float(billed @ (price.input, price.output)) / 1e6,
    )


def _tokens(items: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """Input and output tokens of each item [n, 2]; None where any answer does not say."""
    counts = [item.get("tokens") for item in items]
    if any(not one or any(None in pair for pair in one) for one in counts):
        return None
    return np.array([np.sum(one, axis=0) for one in counts if one], dtype=np.float64).reshape(-1, 2)


def reading_of(cell: Cell) -> dict[str, dict[str, Any]]:
    """By language: tokens per character, and how many texts were cut, from the texts that the model read without pictures."""
    told: dict[str, dict[str, Any]] = {}
    for result in (cell.blind, cell.result):
        for lang, counted in (result.extra.get("text", {}) if result is not None else {}).items():
            if counted.get("characters") and lang not in told:
                each = counted["tokens"] / counted["characters"]
                told[lang] = {"per character": each, "cut": counted.get("cut"), "texts": counted["texts"]}
    return told
