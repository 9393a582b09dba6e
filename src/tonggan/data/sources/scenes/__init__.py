"""Scenes: a seeded, endless world of coloured shapes with exact captions in two languages, and its reader.

    from tonggan.data.sources import scenes
    rows = scenes.generate(1000, seed=0)
    scene = scenes.read(rows[0].images[0])      # None: outside this world

A synthetic check: it shows what a model can tell apart under control, never how it does on real pictures.
"""

from __future__ import annotations

import numpy as np

from tonggan.data.media import encode_png
from tonggan.data.rows import Dataset
from tonggan.data.sources.base import Source
from tonggan.data.sources.scenes import motion
from tonggan.data.sources.scenes.draw import draw
from tonggan.data.sources.scenes.motion import MovingScene, random_motion
from tonggan.data.sources.scenes.read import read
from tonggan.data.sources.scenes.words import chinese, english
from tonggan.data.sources.scenes.world import COLORS, HELD_OUT, SHAPES, Scene, Thing, random_scene
from tonggan.data.sources.splits import by_concept, concepts, look_alikes
from tonggan.data.splits import SPARE
from tonggan.types import Image, Row, Text, Video

__all__ = [
    "COLORS", "HELD_OUT", "SHAPES", "MovingScene", "Scene", "Scenes", "Thing", "chinese", "draw", "english", "generate",
    "generate_moving", "random_motion", "random_scene", "read",
]  # fmt: skip


def generate(n: int, seed: int = 0, *, size: int = 96) -> Dataset:
    """Scenes 0..n-1 of the endless sequence that `seed` names: scene 7 is the same picture whatever `n` is.

    Splits train, val and test share no caption and no picture that looks alike; a scene with a colour and shape kept apart
    (`HELD_OUT`) is in the split `combination`, or `spare` where it looks like one without. `meta["scene"]` has the objects
    (`Scene.from_json`), `meta["look"]` their colour and shape where all have the same.
    """
    scenes = [random_scene(np.random.default_rng([seed, i])) for i in range(n)]
    rows = [_row(scene, f"scenes/{seed}/{i}", size) for i, scene in enumerate(scenes)]
    alike = look_alikes(rows)
    number = concepts(rows, alike)
    shown = {number[i] for i, scene in enumerate(scenes) if not scene.held_out}
    held_out = {i: SPARE if number[i] in shown else "combination" for i, scene in enumerate(scenes) if scene.held_out}
    return Dataset.from_rows(row.with_(split=held_out.get(i, row.split)) for i, row in enumerate(by_concept(rows, alike=alike)))


def generate_moving(n: int, seed: int = 0, *, size: int = 64) -> Dataset:
    """Moving scenes 0..n-1 of the endless sequence that `seed` names: clips of eight frames, `size` pixels a side.

    Splits train, val and test share no caption; a scene with a colour and shape, or a shape and direction, kept apart is in the split
    `combination`. `meta["scene"]` says what happens (`MovingScene.from_json`).
    """
    scenes = [random_motion(np.random.default_rng([seed, i])) for i in range(n)]
    rows = by_concept([_moving_row(scene, f"scenes/moving/{seed}/{i}", size) for i, scene in enumerate(scenes)])
    return Dataset.from_rows(row.with_(split="combination") if scene.held_out else row for row, scene in zip(rows, scenes, strict=True))


def _moving_row(scene: MovingScene, name: str, size: int) -> Row:
    caption = motion.english(scene)
    return Row(
        id=name,
        videos=(Video(data=motion.encode_frames(motion.draw_frames(scene, size)), fps=motion.FPS),),
        texts=(Text(caption, "en"), Text(motion.chinese(scene), "zh")),
        group=f"scenes:{caption}",
        meta={"source": "scenes", "licence": Scenes.licence, "scene": scene.to_json(), "kind": scene.act, "synthetic": "yes"},
    )


def _row(scene: Scene, name: str, size: int) -> Row:
    caption, looks = english(scene), {f"{thing.color} {thing.shape}" for thing in scene.things}
    return Row(
        id=name,
        images=(Image(data=encode_png(draw(scene, size))),),
        texts=(Text(caption, "en"), Text(chinese(scene), "zh")),
        group=f"scenes:{caption}",
        meta={"source": "scenes", "licence": Scenes.licence, "scene": scene.to_json(), "kind": scene.kind, "synthetic": "yes"}
        | ({"look": looks.pop()} if len(looks) == 1 else {}),
    )


class Scenes(Source):
    """`generate` behind the interface of a source."""

    name = "scenes"
    about = "endless drawn scenes of coloured shapes (a synthetic check)"
    about_zh = "无限生成的彩色图形场景（合成检验）"
    licence = "Apache-2.0"
    attribution = "Drawn by Tonggan's scenes generator"
    megabytes = 0
    real = False

    @property
    def how(self) -> str:
        return "nothing to get: drawn on the spot"

    def available(self) -> bool:
        return True

    def _install(self) -> None:
        raise AssertionError("always available")

    def rows(self, *, size: int | None = None, n: int = 2000, seed: int = 0, moving: bool = False) -> Dataset:
        """The first `n` scenes of a seed: pictures of 96 pixels a side, or clips of 64 (`moving`), unless `size` says otherwise."""
        return generate_moving(n, seed, size=size or 64) if moving else generate(n, seed, size=size or 96)
