"""Several labels per picture, zero-shot: each class ranks the pictures by their cosine to its prompt vector; mean average precision.

Protocol `multi-label/v1`: a cell of the label column holds several labels (`猫|狗`, `cat; dog`, a JSON list); the classes are those that
occur. Class vectors are those of zero-shot classification. mAP is the mean of the classes' average precision, at all points
(Everingham et al. 2015) and at 11 (VOC 2007, as in the CLIP paper); a class without a picture is left out. A picture whose cell is the
empty list `[]` has none of the classes; one whose cell is empty has not been labelled, and takes no part.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tonggan.evaluate.metrics.classification import AP, AP_11, average_precision, average_precision_11, mean_over_classes
from tonggan.evaluate.metrics.ranking import expected_average_precision
from tonggan.evaluate.resample import Estimate, Measure, Statistic, intervals
from tonggan.evaluate.result import Result, paired
from tonggan.evaluate.tasks.classification import class_vectors, prompt_templates
from tonggan.evaluate.tasks.labelled import labelled, labels_in
from tonggan.types import CannotError, Dropped, EmbedOptions, Model, Row, TongganError, UsageError

PROTOCOL = "multi-label/v1: cosine to the prompt mean, clusters picture, bootstrap 2000 seed 0"
METRICS: Mapping[str, tuple[Statistic, str]] = {"mAP": (average_precision, AP), "mAP-11": (average_precision_11, AP_11)}
"""Each metric's statistic of one class, and its id."""


def labels(
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
    """mAP and 11-point mAP with the classes found in a column, each with its interval; the chance of mAP is that of a random order.

    `names` gives a class's words in the language of the prompts. Rows without a picture or a cell, and unreadable pictures, are listed in
    `dropped`. `extra` has each class's average precision and frequency.
    """
    if "embed" not in model.can or not {"text", "image"} <= model.modalities:
        raise CannotError(f"{model.name} embeds {', '.join(sorted(model.modalities))}; labels are ranked by a model of text and image")
    kept, dropped = labelled(list(rows), label)
    told = [(row, labels_in(value)) for row, value in kept]
    classes = sorted({name for _, has in told for name in has})
    if len(classes) < 2:
        raise UsageError(f"column {label!r} has {len(classes)} classes ({', '.join(classes)}); several labels need two classes or more")
    words = [(names or {}).get(c, c) for c in classes]
    word, times = Counter(words).most_common(1)[0]
    if times > 1:
        raise UsageError(f"{times} classes are all called {word!r}, so nothing can tell them apart; give each a name of its own")
    used = prompt_templates(lang, templates)
    heads = class_vectors(model, words, templates=used, options=options)
    pictures = model.embed([row.images[0] for row, _ in told], options)
    dropped += [Dropped(told[i][0].id, reason) for i, reason in sorted(pictures.errors.items())]
    good = [i for i in range(len(told)) if i not in pictures.errors]
    if not any(told[i][1] for i in good):
        raise TongganError(f"none of the {len(told)} labelled pictures can be read; the first: {dropped[-1].where}: {dropped[-1].reason}")
    scores = pictures.vectors[good].astype(np.float64) @ heads.T.astype(np.float64)
    task = f"labels {lang}"
    items = [
        {
            "id": f"{task} {told[i][0].id}",
            "task": task,
            "cluster": told[i][0].id,
            "truth": sorted(told[i][1]),
            "classes": dict(zip(classes, row, strict=True)),
        }
        for i, row in zip(good, scores.tolist(), strict=True)
    ]
    values = _values(items, classes)
    positives = values[:, :, 1].sum(axis=0)
    seen = positives > 0
    chance = float(np.mean([expected_average_precision(len(good), int(m)) for m in positives[seen]]))
    once = np.ones((1, len(items)))
    asked = hashlib.sha256(json.dumps([words, used], ensure_ascii=False).encode()).hexdigest()
    return Result(
        protocol=f"{PROTOCOL}; {len(classes)} classes; templates {lang}{'' if templates is None else ' (given)'}; prompts {asked[:8]}",
        model=model.name,
        weights=model.identity.weights,
        data=data,
        primary=f"{task} mAP",
        metrics=_metrics(task, values, None, [item["cluster"] for item in items], {"mAP": chance}),
        items=items,
        dropped=dropped,
        notes=_notes(told, label),
        extra={
            "metrics": {name: protocol for name, (_, protocol) in METRICS.items()},
            "classes": {
                name: {"average precision": float(average_precision(values[:, c], once)[0]), "frequency": float(positives[c] / len(items))}
                for c, name in enumerate(classes)
                if seen[c]
            },
        },
    )


def labels_paired(result: Result, baseline: Result) -> dict[str, Estimate]:
    """`result` minus `baseline` for each metric, on the same pictures, as `evaluate.paired` gives it for other tasks."""
    paired(result, baseline)  # refuses other pictures, labels and protocols
    of_id = {item["id"]: item for item in baseline.items}
    classes = sorted(result.items[0]["classes"])
    mine, theirs = _values(result.items, classes), _values([of_id[item["id"]] for item in result.items], classes)
    return _metrics(result.items[0]["task"], mine, theirs, [item["cluster"] for item in result.items], {})


def _metrics(
    task: str, values: np.ndarray, minus: np.ndarray | None, clusters: Sequence[object], chance: Mapping[str, float]
) -> dict[str, Estimate]:
    measures = [Measure(mean_over_classes(statistic), values, minus, chance.get(name)) for name, (statistic, _) in METRICS.items()]
    return {f"{task} {name}": found for name, found in zip(METRICS, intervals(measures, clusters), strict=True)}


def _values(items: Sequence[Mapping[str, object]], classes: Sequence[str]) -> np.ndarray:
    """Score and truth of each picture for each class, [n, c, 2]."""
    rows = []
    for item in items:
        scores, truth = item["classes"], item["truth"]
        assert isinstance(scores, Mapping) and isinstance(truth, list)
        rows.append([(scores[name], name in truth) for name in classes])
    return np.array(rows, dtype=np.float64)


def _notes(told: Sequence[tuple[Row, tuple[str, ...]]], label: str) -> list[str]:
    """Cells that may have been meant to be several labels."""
    if any(len(has) > 1 for _, has in told):
        return []
    comma = next((name for _, has in told for name in has if "," in name or "，" in name), None)
    if comma is not None:
        return [f"every cell of column {label!r} was taken for one label, for example {comma!r}; labels are divided by |, ; or 、"]
    return [f"no picture has more than one label in column {label!r}; for one label each there is zero-shot classification"]
