"""data2vec on pictures and on speech: a linear classifier on its features, beside the untrained model's and the raw input's.

    make latent        (two trainings of 40 minutes, then the probes; needs a quiet machine; writes runs/latent/*)

Stop it at will: the same command goes on where it was. What is reported is of rows that neither the student nor the classifier saw; layer
and penalty are chosen on val. The settings of the student of pictures were chosen with emoji's test rows in view (docs/journal.md); the
scenes are of a seed that was not looked at before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side

from tonggan import load, recipes
from tonggan.backends import LocalModel
from tonggan.data import open_data
from tonggan.data.audio import AudioProcessing, AudioProcessor
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.evaluate import Result, paired
from tonggan.evaluate.tasks.labelled import Kind
from tonggan.evaluate.tasks.probe import probe
from tonggan.models.base import depth
from tonggan.recipes.config import RunConfig
from tonggan.recipes.progress import Progress
from tonggan.recipes.run import Run
from tonggan.types import Audio, Identity, Image, Item, Model, Row

OUT = Path("runs/latent")
LANGUAGE = "es"
"""Whose speakers are not heard in training."""


class Raw(Model):
    """The input itself: pictures of 32 x 32 pixels, or of a log-mel spectrogram the mean and deviation of each bin in each of eight
    equal stretches of time."""

    name, can, modalities = "raw input", frozenset({"features"}), frozenset({"image", "audio"})
    identity = Identity({}, "0" * 64)

    def features(self, items: Sequence[Item], layer: str = "pooled") -> np.ndarray:
        pictures = ImageProcessor(ImageProcessing(mode="pad", size=32))
        sounds = AudioProcessor(AudioProcessing(seconds=3.0))
        made = []
        for item in items:
            if isinstance(item, Image):
                made.append(pictures(item).reshape(-1).astype(np.float32) / 255)
            elif isinstance(item, Audio):
                parts = np.array_split(sounds(item), 8, axis=1)
                made.append(np.concatenate([np.concatenate([part.mean(axis=1), part.std(axis=1)]) for part in parts]))
        return np.stack(made)


def pictures_by_look() -> list[Row]:
    """Scenes of another seed, each of one kind of object: its colour and shape, 90 classes. So many, for a hundred pictures of a class:
    with a quarter of them the classifier itself knows too little, whatever it looks at."""
    return [row for row in open_data("scenes", options={"n": 24_000, "size": 64, "seed": 2}) if "look" in row.meta]


def emoji_by_group() -> list[Row]:
    """Emoji: Unicode's eight groups. None of the test emoji were learnt from."""
    return [row for row in open_data("openmoji") if "category" in row.meta]


def stamps_by_name() -> list[Row]:
    """Which of 50 stamps is named, in a language that was not heard in training. A stamp is the class, not a tie between the sides."""
    rows = open_data("stamps", options={"spoken": True, "stamps": 50, "held_out": LANGUAGE})
    return [row.with_(group=row.meta["stamp"]) for row in rows]


def stamps_by_language() -> list[Row]:
    """Which language is spoken, in sounds that were not heard in training. What is named in two languages ties no sounds together.

    Every tenth sound that was heard chooses layer and penalty."""
    rows = [row for row in open_data("stamps", options={"spoken": True, "held_out": LANGUAGE}) if row.split in ("train", "val")]
    side = {"train": "train", "val": "test"}
    return [
        row.with_(group=None, split="val" if row.split == "train" and number % 10 == 0 else side[str(row.split)])
        for number, row in enumerate(rows)
    ]


TASKS: dict[str, list[tuple[str, Kind, str, Any]]] = {
    "data2vec-pictures": [("scenes", "image", "look", pictures_by_look), ("openmoji", "image", "category", emoji_by_group)],
    "data2vec-speech": [("stamps named", "audio", "stamp", stamps_by_name), ("language", "audio", "lang", stamps_by_language)],
}


def main() -> None:
    """Train both (or go on training), then report of both."""
    for name in TASKS:
        side_by_side.train([name], OUT)
    for name in TASKS:
        report(name)


def report(name: str) -> None:
    """How a training went, and probes of the trained model, the untrained one and the raw input."""
    config = RunConfig.read(recipes.path(name))
    lines = [json.loads(line) for line in (OUT / name / "metrics.jsonl").read_text("utf-8").splitlines()]
    print(f"{name}: {lines[-1]['step']} updates, {sum(Progress(config, OUT / name).done().values()) / 60:.1f} minutes")
    curve = [line for line in lines if "loss" in line]
    print("  minutes: loss  ", "  ".join(f"{r['seconds'] / 60:.0f}: {r['loss']:.3f}" for r in curve[:: max(1, len(curve) // 12)]))
    models = {"trained": load(str(OUT / name)), "untrained": Run(config, OUT / name).local(), "raw input": Raw()}
    for task, kind, label, rows in TASKS[name]:
        some = rows()
        found = {who: measured(name, task, who, model, some, label, kind) for who, model in models.items()}
        for who in ("untrained", "raw input"):
            # The layers are named in the protocols; each is its model's best on val, and that is what is compared.
            gain = paired(found["trained"], replace(found[who], protocol=found["trained"].protocol))["probe acc1"]
            print(f"  {task}: trained - {who}: {100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}] points", flush=True)


def measured(name: str, task: str, who: str, model: Model, rows: list[Row], label: str, kind: Kind) -> Result:
    """A probe of the layer that is best on val, printed and kept: the last blocks of a student fill in, and each model has its own best."""
    blocks = depth(model.module) if isinstance(model, LocalModel) else 0
    layers = [f"block {number}" for number in range(1, blocks + 1)]
    choosing = [row.with_(split="test" if row.split == "val" else row.split) for row in rows if row.split in ("train", "val")]
    on_val = {layer: probe(model, choosing, label=label, kind=kind, layer=layer).metrics["probe acc1"].value for layer in layers}
    layer = max(on_val, key=lambda one: on_val[one]) if on_val else "pooled"
    found = probe(model, rows, label=label, kind=kind, layer=layer, data=f"{name}: {task}")
    found.write(OUT, f"{name} {task} {who}".replace(" ", "-"))
    m = found.metrics["probe acc1"]
    majority = found.extra["majority"]["share"]
    print(
        f"  {task}, {who} ({layer}): {100 * m.value:.1f} % [{100 * m.low:.1f}, {100 * m.high:.1f}], "
        f"most frequent class {100 * majority:.1f} %",
        flush=True,
    )
    return found


if __name__ == "__main__":
    main()
