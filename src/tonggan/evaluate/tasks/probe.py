"""Linear probe: how well a linear classifier tells the classes apart by a model's frozen features, on all labelled pictures or on a few.

Protocol `probe/v1` (Radford et al. 2021, appendix A.3): `evaluate.logistic` on the features as they are; C is chosen on split `val` (or on
a part of `train`), the classifier is then fitted on `train` and `val` together, and measured on `test`. With `shots`, k pictures of each
class are drawn from `train`, once per seed, and C is chosen on at most min(k, 4) pictures of each class of `val` (Zhou et al. 2022, CoOp);
that classifier is fitted on the k alone. Accuracy is then the mean over the draws, and its interval is over test pictures, with the draws
as they are.

Rows of one group or one picture hang together: those that would stand on two sides leave the training side. A group that is the class
itself ties nothing. Ties of scores count against the model.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tonggan.data.similar import components
from tonggan.evaluate.logistic import LOGISTIC, SWEEP, Logistic, first, fit, sweep
from tonggan.evaluate.metrics.summary import summary
from tonggan.evaluate.result import Result
from tonggan.evaluate.tasks.labelled import NAMES, Kind, content, guesses, labelled, medium, why_unread
from tonggan.types import Audio, CannotError, Dropped, EmbedOptions, Image, Model, Row, TongganError, UsageError, Video

SEEDS = (0, 1, 2, 3, 4)
"""Few-shot draws."""
VAL_SHOTS = 4
"""At most so many pictures of each class choose a few-shot classifier's C."""
HELD_OUT = 0.2
"""The part of `train` that chooses C where there is no `val`."""
UNCHOSEN = 1.0
"""C where there is nothing to choose it by: scikit-learn's default."""
SIDES = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class _Picture:
    """A labelled picture of one split; `part` is the smallest id of all rows that it hangs together with."""

    row: Row
    label: str
    part: str


@dataclass
class _Sides:
    """The pictures of each split, what was left out, and the features of those that stay: [len(train), width] and so on."""

    pictures: dict[str, list[_Picture]]
    dropped: list[Dropped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    features: dict[str, np.ndarray] = field(default_factory=dict)

    def labels(self, side: str) -> list[str]:
        return [picture.label for picture in self.pictures[side]]

    def keep(self, side: str, reasons: Sequence[str]) -> None:
        """Leave out the pictures that have a reason."""
        all_of = self.pictures[side]
        self.dropped += [Dropped(picture.row.id, reason) for picture, reason in zip(all_of, reasons, strict=True) if reason]
        stay = [i for i, reason in enumerate(reasons) if not reason]
        self.pictures[side] = [all_of[i] for i in stay]
        if side in self.features:
            self.features[side] = self.features[side][stay]


def probe(
    model: Model,
    rows: Iterable[Row],
    *,
    label: str = "label",
    shots: int | Sequence[int] | None = None,
    seeds: Sequence[int] = SEEDS,
    data: str = "",
    kind: Kind = "image",
    layer: str = "pooled",
    options: EmbedOptions | None = None,
) -> Result:
    """Accuracy and balanced accuracy of a linear classifier on the model's features, with the classes of a column.

    `shots` learns from so many pictures of each class (several numbers make several tasks of one result), None from all. Rows need the
    splits `train` and `test`. Rows without a picture or a label, unreadable, of a class that `train` has not, or tied to another side are
    listed in `dropped`; of other splits the number is noted. A model without the verb `features` is measured by its unit vectors; the
    protocol says which. `kind` is what is classified: each row's first picture, sound or clip. `layer` is which of the model's features.
    """
    if kind not in model.modalities or not {"features", "embed"} & model.can:
        raise CannotError(f"{model.name} has no features of {NAMES[kind]}s; it can: {', '.join(sorted(model.can)) or 'nothing'}")
    asked = None if shots is None else sorted({shots} if isinstance(shots, int) else set(shots))
    if asked is not None and (not asked or asked[0] < 1 or not len(seeds)):
        raise UsageError(f"shots {asked} with {len(seeds)} draws; both must be at least 1")
    sizes: list[int | None] = [None] if asked is None else [*asked]
    sides = _sides(list(rows), label, kind)
    _check(sides, label, asked, own_val=bool(sides.pictures["val"]))
    way = _read(model, sides, kind, layer, options)
    known = set(sides.labels("train"))
    for side in ("val", "test"):
        sides.keep(side, ["" if p.label in known else f"class {p.label!r} has no picture in split train" for p in sides.pictures[side]])
    own_val = bool(sides.pictures["val"])
    if not own_val:
        _hold_out(sides)
    _check(sides, label, asked, own_val=own_val)

    classes = sorted(known)
    frequent, times = Counter(sides.labels("test")).most_common(1)[0]
    extra: dict[str, Any] = {
        "classes": classes,
        "pictures": {side: len(sides.pictures[side]) for side in SIDES},
        "majority": {"class": frequent, "share": times / len(sides.pictures["test"])},
    }
    tasks = {"probe" if k is None else f"probe {k}-shot": k for k in sizes}
    items: list[dict[str, Any]] = []
    for task, k in tasks.items():
        fitted = [_all(sides, classes)] if k is None else [_few(sides, classes, k, seed) for seed in seeds]
        if unfinished := sum(not one.converged for one in fitted):
            sides.notes.append(f"{task}: {unfinished} of {len(fitted)} fits stopped before they had converged")
        found = _items(task, sides, fitted)
        items += found
        extra[task] = {"C": [one.c for one in fitted], "accuracy": _of_draws(found)}
    chosen = "val" if own_val else f"{HELD_OUT:g} of train drawn by group, seed 0"
    drawn = f"shots {_commas(asked)}, draws {_commas(seeds)}, val shots min(k, {VAL_SHOTS})" if asked else "fitted on train and val"
    return Result(
        protocol=(
            f"probe/v1: {'' if kind == 'image' else f'{kind}, '}{way}, not standardised; {LOGISTIC}; {SWEEP}, chosen on {chosen}; "
            f"{drawn}; ties pessimistic, "
            f"clusters group|picture, bootstrap 2000 seed 0; {len(classes)} classes; learnt from {_digest(sides)}"
        ),
        model=model.name,
        weights=model.identity.weights,
        data=data,
        primary=f"{list(tasks)[-1]} acc1",
        metrics=summary(items, chance={f"{task} {name}": 1 / len(classes) for task in tasks for name in ("acc1", "balanced accuracy")}),
        items=items,
        dropped=sides.dropped,
        notes=sides.notes,
        extra=extra,
    )


# ----------------------------------------------------------------------------------------------- sides


def _sides(rows: Sequence[Row], label: str, kind: Kind) -> _Sides:
    """The labelled pictures of each split, in the order of their ids; nothing that hangs together on two sides."""
    kept, dropped = labelled(rows, label, kind)
    there = {row.split for row, _ in kept}
    if missing := [name for name in ("train", "test") if name not in there]:
        found = ", ".join(sorted(name for name in there if name)) or "none"
        raise UsageError(
            f"a probe learns on split 'train' and is measured on split 'test'; no labelled picture is in {' or '.join(map(repr, missing))} "
            f"(splits: {found}). Give the rows a column split; `tonggan data doctor DATA --cured DIR` makes one without leaks"
        )
    kept.sort(key=lambda one: one[0].id)
    seen: dict[object, int] = {}
    pairs = [(seen.setdefault(key, i), i) for i, (row, value) in enumerate(kept) for key in _ties(row, value, kind)]
    # Sorted, so that the smallest number of a component is that of its smallest id.
    part = [kept[root][0].id for root in components(len(kept), pairs)]
    sides = _Sides({side: [] for side in SIDES}, dropped)
    once: dict[object, str] = {}
    outside: Counter[str] = Counter()
    for (row, value), name in zip(kept, part, strict=True):
        if row.split not in SIDES:
            outside.update([f"split {row.split}" if row.split else "no split"])
        elif (shown := once.setdefault((row.split, value, content(_part(row, kind))), row.id)) != row.id:
            sides.dropped.append(Dropped(row.id, f"the same picture and label as {shown}"))
        else:
            sides.pictures[row.split].append(_Picture(row, value, name))
    sides.notes += [f"{n} labelled pictures of {name} take no part" for name, n in sorted(outside.items())]
    for side, others in (("val", ("test",)), ("train", ("val", "test"))):
        parts = {picture.part: other for other in others for picture in sides.pictures[other]}
        reasons = [f"its group or picture is in split {parts[p.part]} too" if p.part in parts else "" for p in sides.pictures[side]]
        if leaks := sum(map(bool, reasons)):
            sides.notes.append(f"{leaks} rows left split {side}, because their group or picture stands on another side too")
        sides.keep(side, reasons)
    return sides


def _part(row: Row, kind: Kind) -> Image | Audio | Video:
    part = medium(row, kind)
    assert part is not None, "only labelled rows with one are kept"
    return part


def _ties(row: Row, label: str, kind: Kind) -> list[object]:
    """What a row shares with those that it hangs together with."""
    grouped = row.group is not None and row.group not in (label, row.meta.get("class"))
    return [("picture", content(_part(row, kind))), *([("group", row.group)] if grouped else [])]


def _check(sides: _Sides, label: str, shots: Sequence[int] | None, *, own_val: bool) -> None:
    """Raises where there is nothing to learn, nothing to measure, or too little to draw from."""
    counted = Counter(sides.labels("train"))
    if len(counted) < 2:
        only = f"one class only ({next(iter(counted))!r})" if counted else "no picture left"
        raise UsageError(f"split train has {only} in column {label!r}; a probe needs two classes or more")
    if not sides.pictures["test"]:
        raise UsageError(
            f"split test has no picture left to measure on; the last to go: {sides.dropped[-1].where}: {sides.dropped[-1].reason}"
        )
    if shots and (few := {name: n for name, n in counted.items() if n < max(shots)}):
        listed = ", ".join(f"{name!r} has {n}" for name, n in sorted(few.items(), key=lambda one: (one[1], one[0]))[:5])
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        kept = "" if own_val else f" ({HELD_OUT:g} of each class is kept for choosing C where there is no split val)"
        raise UsageError(
            f"{max(shots)} pictures of each class are to be drawn from split train{kept}, but class {listed}{more}; "
            f"ask for fewer, or leave rows of such classes out"
        )


def _read(model: Model, sides: _Sides, kind: Kind, layer: str, options: EmbedOptions | None) -> str:
    """Features of all pictures in one call; those that cannot be read leave. Gives the name of what the features are."""
    pictures = [picture for side in SIDES for picture in sides.pictures[side]]
    images = [_part(picture.row, kind) for picture in pictures]
    if "features" in model.can:
        features, way = model.features(images, layer), f"features {layer}"
        reasons = [why_unread(image) if not np.isfinite(row).all() else "" for image, row in zip(images, features, strict=True)]
    elif layer != "pooled":
        raise CannotError(f"{model.name} has vectors only, and no features of layer {layer!r}")
    else:
        found = model.embed(images, options)
        features, way = found.vectors, "embed"
        told = dict.fromkeys(np.flatnonzero(~np.isfinite(features).all(axis=1)).tolist(), "its vector is not of numbers")
        reasons = [found.errors.get(i) or told.get(i, "") for i in range(len(images))]
    if all(reasons):
        raise TongganError(f"none of the {len(images)} pictures can be read; the first: {pictures[0].row.id}: {reasons[0]}")
    start = 0
    for side in SIDES:
        end = start + len(sides.pictures[side])
        sides.features[side] = np.asarray(features[start:end], dtype=np.float64)
        sides.keep(side, reasons[start:end])
        start = end
    return way


def _hold_out(sides: _Sides, seed: int = 0) -> None:
    """Move about a fifth of each class from train to val, whole parts only; no class loses its last picture.

    Where no part can be spared, val stays empty (and it is noted).
    """
    train = sides.pictures["train"]
    left = Counter(sides.labels("train"))
    wanted = {name: max(1, round(HELD_OUT * n)) for name, n in left.items()}
    inside: dict[str, Counter[str]] = defaultdict(Counter)
    for picture in train:
        inside[picture.part].update([picture.label])
    taken: Counter[str] = Counter()
    out: set[str] = set()
    parts = sorted(inside)
    np.random.default_rng(seed).shuffle(parts)
    for part in parts:
        held = inside[part]
        if all(left[name] > n for name, n in held.items()) and any(taken[name] < wanted[name] for name in held):
            left -= held
            taken += held
            out.add(part)
    if not out:
        sides.notes.append(f"too few pictures to choose C by; C is {UNCHOSEN:g}")
    features = sides.features["train"]
    for side, held_out in (("val", True), ("train", False)):
        which = [i for i, picture in enumerate(train) if (picture.part in out) is held_out]
        sides.pictures[side], sides.features[side] = [train[i] for i in which], features[which]


# --------------------------------------------------------------------------------------------- fitting


def _all(sides: _Sides, classes: Sequence[str]) -> Logistic:
    """Of all pictures: C by val, then everything but test."""
    train, val = sides.features["train"], sides.features["val"]
    c = sweep(train, sides.labels("train"), val, sides.labels("val")) if len(val) else UNCHOSEN
    return fit(np.concatenate([train, val]), [*sides.labels("train"), *sides.labels("val")], c=c, classes=classes)


def _few(sides: _Sides, classes: Sequence[str], k: int, seed: int) -> Logistic:
    """Of k pictures of each class, drawn by the seed: a draw of more contains that of fewer."""
    train, val = _draw(sides.labels("train"), k, seed), _draw(sides.labels("val"), min(k, VAL_SHOTS), seed)
    features, labels = sides.features["train"][train], [sides.labels("train")[i] for i in train]
    c = sweep(features, labels, sides.features["val"][val], [sides.labels("val")[i] for i in val]) if val else UNCHOSEN
    return fit(features, labels, c=c, classes=classes)


def _draw(labels: Sequence[str], k: int, seed: int) -> list[int]:
    """The numbers of k rows of each class, or of all that it has, in ascending order."""
    order = np.random.default_rng(seed).permutation(len(labels))
    taken: Counter[str] = Counter()
    chosen = []
    for i in order.tolist():
        if taken[labels[i]] < k:
            taken[labels[i]] += 1
            chosen.append(i)
    return sorted(chosen)


def _items(task: str, sides: _Sides, fitted: Sequence[Logistic]) -> list[dict[str, Any]]:
    """One record per test picture: what each draw's classifier said of it, and the share of draws that were right."""
    pictures, classes = sides.pictures["test"], fitted[0].classes
    truth = np.array([classes.index(picture.label) for picture in pictures])
    scores = [one.scores(sides.features["test"]) for one in fitted]
    right = np.stack([first(some, truth) for some in scores], axis=1)
    said = [guesses(some, truth, found, classes) for some, found in zip(scores, right.T, strict=True)]
    return [
        {
            "id": f"{task} {picture.row.id}",
            "task": task,
            "cluster": picture.part,
            "truth": picture.label,
            "guess": [one[i] for one in said],
            "acc1": float(right[i].mean()),
        }
        for i, picture in enumerate(pictures)
    ]


def _of_draws(items: Sequence[dict[str, Any]]) -> list[float]:
    """The accuracy of each draw. (Where scores are equal, the guess is not the true class.)"""
    found: list[float] = np.mean([[said == item["truth"] for said in item["guess"]] for item in items], axis=0).tolist()
    return found


def _digest(sides: _Sides) -> str:
    """Eight characters that name the pictures learnt from, with their labels."""
    known = [[side, picture.row.id, picture.label] for side in ("train", "val") for picture in sides.pictures[side]]
    return hashlib.sha256(json.dumps(known, ensure_ascii=False).encode()).hexdigest()[:8]


def _commas(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
