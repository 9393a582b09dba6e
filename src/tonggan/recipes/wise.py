"""Between a model and what fine-tuning made of it: measure points on the line, pick one, keep it (Wortsman et al. 2022, WiSE-FT)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from tonggan import hub
from tonggan.backends.local import LocalModel
from tonggan.evaluate import Result, classification, paired, retrieval
from tonggan.evaluate.retention import Difference, Retention, retention
from tonggan.evaluate.retention_page import page
from tonggan.evaluate.tasks import labels as several
from tonggan.hub.read import Checkpoint
from tonggan.models import adapt
from tonggan.models.interpolation import interpolate
from tonggan.report import Words
from tonggan.types import Model, Row, UsageError

TASKS = ("retrieval", "classification", "labels")


@dataclass(frozen=True, slots=True)
class Skill:
    """Rows, and the task by which a skill is measured on them."""

    rows: Sequence[Row]
    data: str
    task: str = "retrieval"
    label: str = "label"
    langs: tuple[str, ...] | None = None

    def measure(self, model: Model) -> Result:
        """The task's result."""
        lang = (self.langs or ("en",))[0]
        match self.task:
            case "classification":
                return classification(model, self.rows, label=self.label, lang=lang, data=self.data)
            case "labels":
                return several.labels(model, self.rows, label=self.label, lang=lang, data=self.data)
            case "retrieval":
                return retrieval(model, self.rows, langs=self.langs, data=self.data)
        raise UsageError(f"task {self.task!r}: a skill is measured by one of {', '.join(TASKS)}")

    @property
    def difference(self) -> Difference:
        """How two results are subtracted."""
        return several.labels_paired if self.task == "labels" else paired


def wise(
    untuned: LocalModel,
    tuned: LocalModel,
    new: Skill,
    old: Skill,
    out: str | Path,
    *,
    alphas: Sequence[float],
    keep: float = 0.01,
    progress: Callable[[float], None] = lambda alpha: None,
) -> Retention:
    """Measure both skills at every alpha, write `wise.json`, `report.html` and the chosen model (`model/`) into `out`.

    A tuned model that is an adapter on a base is merged first. Raises `UsageError` when the two do not compute alike or have weights
    of different shapes.
    """
    _alike(untuned, tuned)
    first, last = (_plain(model.module).state_dict() for model in (untuned, tuned))
    module = copy.deepcopy(_plain(untuned.module))
    labels = untuned.labels or tuned.labels

    def at(alpha: float) -> Checkpoint:
        module.load_state_dict(interpolate(first, last, alpha))
        identity = hub.identity(module, untuned.config, untuned.processor, labels)
        return replace(untuned.checkpoint, module=module, identity=identity, name=f"α = {alpha:g}", labels=labels)

    measured = []
    for alpha in sorted({0.0, *alphas}):
        progress(alpha)
        model = LocalModel(at(alpha), untuned.device)
        measured.append((alpha, new.measure(model), old.measure(model)))
    differences = (new.difference, old.difference)
    curve = retention(measured, untuned=untuned.name, tuned=tuned.name, keep=keep, differences=differences)
    where = Path(out)
    curve.write(where / "wise.json")
    page(curve, _notes(module)).write(where / "report.html")
    best = at(curve.chosen.alpha)
    told = {"untuned": _told(untuned), "tuned": _told(tuned), "alpha": curve.chosen.alpha}
    hub.save(where / "model", best.module, best.config, best.processor, provenance={"interpolated": told}, labels=best.labels)
    return curve


def _plain(module: nn.Module) -> nn.Module:
    return adapt.merge(module) if adapt.is_adapted(module) else module


def _alike(untuned: LocalModel, tuned: LocalModel) -> None:
    """Refuse models whose settings differ: between them there would be no model. Classes that one of the two has no names for are no
    difference."""
    aside = ("adapter.",) if untuned.labels and tuned.labels else ("adapter.", "labels")
    one, other = (
        replace(m.identity, weights="", preprocessing={k: v for k, v in m.identity.preprocessing.items() if not k.startswith(aside)})
        for m in (untuned, tuned)
    )
    if wrong := one.difference(other):
        raise UsageError(f"{untuned.name} and {tuned.name} do not compute alike, so there is nothing between them: {'; '.join(wrong[:5])}")


def _told(model: LocalModel) -> dict[str, str]:
    return {"name": model.name, "weights": model.identity.weights}


def _notes(module: nn.Module) -> list[Words]:
    if not any(isinstance(inner, adapt.BATCH_NORMS) for inner in module.modules()):
        return []
    return [
        Words(
            "The model has batch norms: their running statistics were interpolated as they stand, and not estimated anew at each point.",
            "模型含有批归一化：其滑动统计量直接按比例插值，没有在每个点上重新估计。",
        )
    ]
