"""Adapt published parts to the stamps on five splits; mean and spread of retrieval among 150 unseen captions.

    make splits        (about 5 minutes on 2 cores once the frozen tower's features are cached; writes runs/splits/table.json)

English and Chinese are compared on the same gallery: the held-out pictures that have a caption in both languages.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from tonggan import load, recipes
from tonggan.evaluate import paired, retrieval
from tonggan.recipes.config import RunConfig
from tonggan.recipes.demo import PARTS, measure
from tonggan.recipes.run import Run

OUT = Path("runs/splits")
KS = (1, 5, 10)


def recalls(result: object, lang: str) -> list[float]:
    metrics = result.metrics  # type: ignore[attr-defined]
    return [100 * metrics[f"{d} {lang} R@{k}"].value for d in ("t2i", "i2t") for k in KS]


def main(seeds: range = range(5)) -> None:
    table: dict[str, list[list[float]]] = {"unadapted en": [], "adapted en": [], "en, pictures with both": [], "zh, pictures with both": []}
    significant, seconds = [], []
    for seed in seeds:
        changes = [f"evaluation.data.protocol_seed={seed}", "stages.0.train.eval_every=150"]
        changes += [f"stages.0.streams.0.data.protocol_seed={seed}", f"stages.1.streams.0.data.protocol_seed={seed}", *sys.argv[1:]]
        config = RunConfig.read(recipes.path("adapt-stamps"), changes)
        where = OUT / str(seed)
        shutil.rmtree(where, ignore_errors=True)
        start = time.monotonic()
        run = Run(config, where, quiet=True)
        run.train()
        seconds.append(time.monotonic() - start)
        assert config.evaluation is not None
        rows = list(run.rows(config.evaluation.data.model_copy(update={"split": "test"})))
        both = [row for row in rows if {"zh", "en"} <= {t.lang for t in row.texts}]
        adapted = load(str(where))
        before, after = measure(load(PARTS), rows, ["en"], "stamps"), measure(adapted, rows, ["en"], "stamps")
        joint = retrieval(adapted, both, langs=["en", "zh"])
        table["unadapted en"].append(recalls(before, "en"))
        table["adapted en"].append(recalls(after, "en"))
        table["en, pictures with both"].append(recalls(joint, "en"))
        table["zh, pictures with both"].append(recalls(joint, "zh"))
        significant.append({k: (d.value, d.low, d.high) for k, d in paired(after, before).items()})
        print(f"split {seed}: {len(rows)} held out, {len(both)} in both languages, {seconds[-1]:.0f} s", flush=True)
    print(f"\n{'':26}" + "".join(f"{d + ' R@' + str(k):>14}" for d in ("t2i", "i2t") for k in KS))
    for name, values in table.items():
        v = np.array(values)
        print(f"{name:26}" + "".join(f"{m:8.1f} ±{s:4.1f}" for m, s in zip(v.mean(0), v.std(0, ddof=1), strict=True)))
    gap = np.array(table["en, pictures with both"]) - np.array(table["zh, pictures with both"])
    print(f"{'en minus zh':26}" + "".join(f"{m:8.1f} ±{s:4.1f}" for m, s in zip(gap.mean(0), gap.std(0, ddof=1), strict=True)))
    for k in KS:
        print(f"splits where the paired interval of adapted minus unadapted, t2i R@{k}, is above 0: "
              f"{sum(d[f't2i en R@{k}'][1] > 0 for d in significant)} of {len(significant)}")  # fmt: skip
    (OUT / "table.json").write_text(json.dumps({"table": table, "paired": significant, "seconds": seconds}, indent=1))


if __name__ == "__main__":
    main()
