"""CLIP from scratch on emoji, one artist left out: several positives and augmentation against the plain version, equal time.

    make emoji        (two trainings of 30 minutes on 2 cores; needs a quiet machine; writes runs/emoji/*)

Stop it at will: the same command goes on where it was. What is measured is the model at the end of training; the unseen artist's
drawings, on which the curve in metrics.jsonl is measured too, choose nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

from tonggan import load, recipes
from tonggan.evaluate import Result, paired, retrieval
from tonggan.recipes.config import RunConfig
from tonggan.recipes.run import Run

OUT = Path("runs/emoji")
NAMES = ("clip-mini-emoji", "clip-mini-plain")


def trained(name: str) -> Result:
    """Train (or go on training) the recipe, and measure it on the artist that it has not seen."""
    config = RunConfig.read(recipes.path(name))
    run = Run(config, OUT / name)
    finished = run.train(resume=run.begun())
    print(f"{name}: {finished.steps} updates, {finished.seconds / 60:.1f} minutes")
    assert config.evaluation is not None
    rows = list(run.rows(config.evaluation.data))
    result = retrieval(load(str(OUT / name)), rows, langs=["en", "zh"], data=f"emoji: {len(rows)} drawings by an unseen artist")
    result.write(OUT, name)
    return result


def main() -> None:
    """Both recipes, their numbers, and the paired differences."""
    mine, plain = (trained(name) for name in NAMES)
    differences = paired(mine, plain)
    print(f"\n{'':14}{NAMES[0]:>24}{NAMES[1]:>24}{'difference, 95 %':>28}")
    for metric, d in differences.items():
        if "rank" in metric:  # the recalls tell it
            continue
        told = [f"{100 * m.value:.1f} [{100 * m.low:.1f}, {100 * m.high:.1f}]" for m in (mine.metrics[metric], plain.metrics[metric])]
        print(f"{metric:14}{told[0]:>24}{told[1]:>24}{f'{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]':>28}")
    for name in NAMES:
        lines = [json.loads(line) for line in (OUT / name / "metrics.jsonl").read_text("utf-8").splitlines()]
        curve = [(r["seconds"] / 60, r["eval/t2i en R@1"], r["eval/t2i zh R@1"]) for r in lines if "eval/t2i en R@1" in r]
        print(f"\n{name}: minutes, t2i R@1 en and zh")
        print("  ".join(f"{m:.0f}: {100 * en:.1f}/{100 * zh:.1f}" for m, en, zh in curve[:: max(1, len(curve) // 12)]))


if __name__ == "__main__":
    main()
