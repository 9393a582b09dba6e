"""Zero-shot classification: each class is the mean of its prompts' embeddings, each picture goes to the nearest class.

Protocol `zero-shot/v1` (Radford et al. 2021, section 3.1.4): per class, all templates are embedded, each normalised, averaged
and normalised again. Reports accuracy, accuracy in the first five (from six classes on) and balanced accuracy (mean
recall of the classes). Ties count against the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tonggan.config import one_of
from tonggan.data.prompts import TEMPLATES
from tonggan.evaluate.resample import Estimate, mean_interval, statistic_interval
from tonggan.evaluate.result import Result
from tonggan.types import CannotError, Dropped, EmbedOptions, Model, Row, TongganError, UsageError

PROTOCOL = "zero-shot/v1: prompt mean, ties pessimistic, clusters picture, bootstrap 2000 seed 0"


def class_vectors(
    model: Model, names: Sequence[str], *, lang: str = "en", templates: Sequence[str] | None = None, options: EmbedOptions | None = None
) -> np.ndarray:
    """Unit vectors [classes, dim] of class names under prompt templates, in which `{}` stands for the name."""
    used = list(templates or TEMPLATES[one_of(lang, TEMPLATES, "language of the prompts")])
    if any("{}" not in template for template in used):
        raise UsageError(f"a template needs {{}} where the class name goes: {next(t for t in used if '{}' not in t)!r}")
    prompts = [template.replace("{}", name) for name in names for template in used]
    vectors = model.embed(prompts, options).vectors.reshape(len(names), len(used), -1).mean(axis=1)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(norms, 1e-12)
    return unit


def classification(
    model: Model,
    rows: Iterable[Row],
    *,
    label: str = "label",
    lang: str = "en",
    names: Mapping[str, str] | None = None,
    templates: Sequence[str] | None = None,
    data: str = "",
    options: EmbedOptions | None = None,
) -> Result:
    """Zero-shot accuracy with the classes found in a column (`meta[label]`; `group` and `split` may be named too).

    `names` gives a class's words in the language of the prompts, where the column holds something else (a code, or English).
    """
    if not {"text", "image"} <= model.modalities:
        raise CannotError(f"{model.name} embeds {', '.join(sorted(model.modalities))}; classification needs text and image")
    every = list(rows)
    kept = [(row, value) for row in every if row.images and (value := _label(row, label))]
    if not kept:
        columns = sorted({key for row in every[:100] for key in row.meta} | {"group"})
        raise UsageError(f"no picture has a label in column {label!r}; columns: {', '.join(columns)}")
    classes = sorted({value for _, value in kept})
    if len(classes) < 2:
        raise UsageError(f"column {label!r} has one class only ({classes[0]!r}); classification needs two or more")
    heads = class_vectors(model, [(names or {}).get(c, c) for c in classes], lang=lang, templates=templates, options=options)
    pictures = model.embed([row.images[0] for row, _ in kept], options)
    dropped = [Dropped(kept[i][0].id, reason) for i, reason in sorted(pictures.errors.items())]
    good = [i for i in range(len(kept)) if i not in pictures.errors]
    if not good:
        raise TongganError(f"none of the {len(kept)} pictures can be read; the first: {dropped[0].where}: {dropped[0].reason}")
    truth = np.array([classes.index(kept[i][1]) for i in good])
    scores = pictures.vectors[good] @ heads.T
    right = scores[np.arange(len(good)), truth]
    rank = (scores >= right[:, None]).sum(axis=1)  # the right class counts itself once, so ties push it down
    guess = scores.argmax(axis=1)
    task = f"zero-shot {lang}"
    items = [
        {
            "id": f"{task} {kept[i][0].id}",
            "task": task,
            "cluster": kept[i][0].id,
            "truth": kept[i][1],
            "guess": classes[int(guess[j])],
            "acc1": int(rank[j] <= 1),
            **({"acc5": int(rank[j] <= 5)} if len(classes) > 5 else {}),
        }
        for j, i in enumerate(good)
    ]
    clusters = [item["cluster"] for item in items]
    metrics: dict[str, Estimate] = {}
    for k in (1, 5) if len(classes) > 5 else (1,):
        metrics[f"{task} acc{k}"] = mean_interval((rank <= k).astype(float), clusters, chance=k / len(classes))
    hits = np.stack([truth.astype(float), (rank <= 1).astype(float)], axis=1)
    metrics[f"{task} balanced accuracy"] = statistic_interval(hits, clusters, _balanced, chance=1 / len(classes))
    return Result(
        protocol=PROTOCOL + f"; {len(classes)} classes; templates {lang}" + ("" if templates is None else " (given)"),
        model=model.name,
        weights=model.identity.weights,
        data=data,
        primary=f"{task} acc1",
        metrics=metrics,
        items=items,
        dropped=dropped,
        extra={"classes": classes},
    )


def _label(row: Row, column: str) -> str | None:
    if column == "group":
        return row.group
    return row.split if column == "split" else row.meta.get(column) or None


def _balanced(hits: np.ndarray) -> float:
    """Mean recall over the classes that occur; `hits` [n, 2] holds class number and whether it was right."""
    return float(np.mean([hits[hits[:, 0] == c, 1].mean() for c in np.unique(hits[:, 0])]))
