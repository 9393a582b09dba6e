"""Zero-shot classification: each class is the mean of its prompts' embeddings, each picture goes to the nearest class.

Protocol `zero-shot/v1` (Radford et al. 2021, section 3.1.4): per class, all templates are embedded, each normalised, averaged
and normalised again. Reports accuracy, accuracy in the first five (from six classes on) and balanced accuracy (mean
recall of the classes). Ties count against the model. The protocol of a result ends with a digest of the class names and templates:
accuracies over other words are not comparable.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tonggan.config import one_of
from tonggan.data.prompts import TEMPLATES
from tonggan.evaluate.metrics.ranks import ranks
from tonggan.evaluate.metrics.summary import summary
from tonggan.evaluate.result import Result
from tonggan.evaluate.tasks.labelled import guesses, labelled
from tonggan.types import CannotError, Dropped, EmbedOptions, Model, Row, TongganError, UsageError

PROTOCOL = "zero-shot/v1: prompt mean, ties pessimistic, clusters picture, bootstrap 2000 seed 0"


def class_vectors(
    model: Model, names: Sequence[str], *, lang: str = "en", templates: Sequence[str] | None = None, options: EmbedOptions | None = None
) -> np.ndarray:
    """Unit vectors [classes, dim] of class names under prompt templates, in which `{}` stands for the name."""
    used = prompt_templates(lang, templates)
    prompts = [template.replace("{}", name) for name in names for template in used]
    found = model.embed(prompts, options)
    if found.errors:
        at, reason = next(iter(found.errors.items()))
        raise TongganError(f"the prompt {prompts[at]!r} cannot be embedded: {reason}")
    vectors = found.vectors.reshape(len(names), len(used), -1).mean(axis=1)
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
    Rows without a picture or a label, and unreadable pictures, are listed in `dropped`.
    """
    if not {"text", "image"} <= model.modalities:
        raise CannotError(f"{model.name} embeds {', '.join(sorted(model.modalities))}; classification needs text and image")
    kept, dropped = labelled(list(rows), label)
    classes = sorted({value for _, value in kept})
    if len(classes) < 2:
        raise UsageError(f"column {label!r} has one class only ({classes[0]!r}); classification needs two or more")
    words = [(names or {}).get(c, c) for c in classes]
    word, times = Counter(words).most_common(1)[0]
    if times > 1:
        same = ", ".join(repr(c) for c, called in zip(classes, words, strict=True) if called == word)
        raise UsageError(f"classes {same} are all called {word!r}, so nothing can tell them apart; give each a name of its own")
    used = prompt_templates(lang, templates)
    heads = class_vectors(model, words, templates=used, options=options)
    pictures = model.embed([row.images[0] for row, _ in kept], options)
    unread = [Dropped(kept[i][0].id, reason) for i, reason in sorted(pictures.errors.items())]
    good = [i for i in range(len(kept)) if i not in pictures.errors]
    if not good:
        raise TongganError(f"none of the {len(kept)} pictures can be read; the first: {unread[0].where}: {unread[0].reason}")
    truth = np.array([classes.index(kept[i][1]) for i in good])
    images = pictures.vectors[good]
    rank = ranks(images, heads, truth[:, None].tolist())
    task = f"zero-shot {lang}"
    items = [
        {
            "id": f"{task} {kept[i][0].id}",
            "task": task,
            "cluster": kept[i][0].id,
            "truth": kept[i][1],
            "guess": guess,
            "acc1": int(rank[j] <= 1),
            **({"acc5": int(rank[j] <= 5)} if len(classes) > 5 else {}),
        }
        for j, (i, guess) in enumerate(zip(good, guesses(images @ heads.T, truth, rank == 1, classes), strict=True))
    ]
    chance = {f"{task} acc{k}": k / len(classes) for k in (1, 5)} | {f"{task} balanced accuracy": 1 / len(classes)}
    asked = hashlib.sha256(json.dumps([words, used], ensure_ascii=False).encode()).hexdigest()
    return Result(
        protocol=f"{PROTOCOL}; {len(classes)} classes; templates {lang}{'' if templates is None else ' (given)'}; prompts {asked[:8]}",
        model=model.name,
        weights=model.identity.weights,
        data=data,
        primary=f"{task} acc1",
        metrics=summary(items, chance=chance),
        items=items,
        dropped=[*dropped, *unread],
        extra={"classes": classes},
    )


def prompt_templates(lang: str, templates: Sequence[str] | None) -> list[str]:
    """The templates given, or those of the language; each needs `{}` for the class name."""
    used = list(templates or TEMPLATES[one_of(lang, TEMPLATES, "language of the prompts")])
    if any("{}" not in template for template in used):
        raise UsageError(f"a template needs {{}} where the class name goes: {next(t for t in used if '{}' not in t)!r}")
    return used
