"""Scenes: a seeded, endless world of coloured shapes with exact captions in two languages, and its reader.

    from tonggan.data.sources import scenes
    rows = scenes.generate(1000, seed=0)
    scene = scenes.read(rows[0].images[0])      # None: outside this world
    told = scenes.described("two small red stars", "en")
    scenes.marks(told, scene)                   # which attributes of that caption are right

They also move (`generate_moving`), sound, are asked about (`generate_questions`), talked about (`generate_dialogues`) and changed
(`generate_edits`). A synthetic check: it shows what a model can tell apart under control, never how it does on real pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tonggan.data.rows import Dataset
from tonggan.data.sources.base import Source
from tonggan.data.sources.scenes import events, motion
from tonggan.data.sources.scenes.asking import ASK_KINDS, AskKind
from tonggan.data.sources.scenes.described import Description, described, description_of, marks
from tonggan.data.sources.scenes.dialogues import generate_dialogues
from tonggan.data.sources.scenes.draw import draw
from tonggan.data.sources.scenes.editing import generate_edits, random_edit
from tonggan.data.sources.scenes.events import Film, draw_film, film_of, random_film
from tonggan.data.sources.scenes.making import LANGS, LICENCE, checked_langs, clip, in_splits, meta, one_lang, picture, sound
from tonggan.data.sources.scenes.motion import MovingScene, random_motion
from tonggan.data.sources.scenes.questions import About, generate_questions, generate_rounds
from tonggan.data.sources.scenes.read import read
from tonggan.data.sources.scenes.sound import can_speak, sound_of, sound_of_film, speak
from tonggan.data.sources.scenes.words import EN_PLACES, Said, chinese, english
from tonggan.data.sources.scenes.world import COLORS, HELD_OUT, SHAPES, Scene, Thing, place_name, random_scene
from tonggan.data.sources.splits import by_concept
from tonggan.types import Row, Text, UsageError

__all__ = [
    "ASK_KINDS", "COLORS", "HELD_OUT", "SHAPES", "Description", "Film", "MovingScene", "Scene", "Scenes", "Thing", "can_speak", "chinese",
    "described", "description_of", "draw", "draw_film", "english", "generate", "generate_dialogues", "generate_edits", "generate_moving",
    "generate_questions", "generate_rounds", "marks", "random_edit", "random_film", "random_motion", "random_scene", "read", "sound_of",
    "sound_of_film", "speak",
]  # fmt: skip


def generate(
    n: int,
    seed: int = 0,
    *,
    size: int = 96,
    labels: bool = False,
    sounding: bool = False,
    spoken: bool = False,
    langs: Sequence[str] = LANGS,
) -> Dataset:
    """Scenes 0..n-1 of the endless sequence that `seed` names: scene 7 is the same picture whatever `n` is.

    Splits train, val and test share no caption and no picture that looks alike; a scene with a colour and shape kept apart
    (`HELD_OUT`) is in the split `combination`, or `spare` where it looks like one without. `meta["scene"]` has the objects
    (`Scene.from_json`), `meta["look"]` their colour and shape where all have the same. With `labels` it also has the `shape`, the `colour`
    and the `size` that all have, their `number`, and the `place` of one that is alone: classes to learn one by one.

    Captions are in `langs`. With `sounding` a row also has the sound of its things, from left to right (`sound`). With `spoken` it has its
    caption read aloud (needs `espeak-ng`), in one of `langs`, which is then its only text.
    """
    if sounding and spoken:
        raise UsageError("sounding and spoken: a row has one sound; choose one")
    langs = checked_langs(langs)
    scenes = [random_scene(np.random.default_rng([seed, i])) for i in range(n)]
    rows = in_splits(
        [_row(scene, f"scenes/{seed}/{i}", size, labels) for i, scene in enumerate(scenes)], [scene.held_out for scene in scenes]
    )
    if sounding:
        rows = [row.with_(audios=(sound(sound_of(scene)),)) for row, scene in zip(rows, scenes, strict=True)]
    if spoken:
        rows = [_spoken(row, one_lang(langs, np.random.default_rng([seed, i, 6]))) for i, row in enumerate(rows)]
    return Dataset.from_rows(_told_in(row, langs) for row in rows)


def generate_moving(
    n: int, seed: int = 0, *, size: int = 64, events: bool = False, sounding: bool = False, langs: Sequence[str] = LANGS
) -> Dataset:
    """Moving scenes 0..n-1 of the endless sequence that `seed` names: clips of eight frames, `size` pixels a side.

    One thing moves, appears or vanishes; with `events`, another sequence, things bounce, collide, or do something one after the other.
    Splits train, val and test share no caption; a scene with a colour and shape, or a shape and direction, kept apart is in the split
    `combination`. `meta["scene"]` says what happens (`MovingScene.from_json`, `Film.from_json`). Captions are in `langs`. With `sounding` a
    row also has the tones of what something happens to, each when it begins.
    """
    langs = checked_langs(langs)
    generators = [np.random.default_rng([seed, i, 7] if events else [seed, i]) for i in range(n)]
    scenes = [random_film(rng) if events else random_motion(rng) for rng in generators]
    rows = [_moving_row(scene, f"scenes/{'events' if events else 'moving'}/{seed}/{i}", size) for i, scene in enumerate(scenes)]
    if sounding:
        films = [scene if isinstance(scene, Film) else film_of(scene) for scene in scenes]
        rows = [row.with_(audios=(sound(sound_of_film(film)),)) for row, film in zip(rows, films, strict=True)]
    sided = by_concept(rows)
    rows = [row.with_(split="combination") if scene.held_out else row for row, scene in zip(sided, scenes, strict=True)]
    return Dataset.from_rows(_told_in(row, langs) for row in rows)


def _told_in(row: Row, langs: Sequence[str]) -> Row:
    """With the captions of these languages alone. Left out last: splits hold captions apart in all languages."""
    return row.with_(texts=tuple(text for text in row.texts if text.lang in langs))


def _moving_row(scene: MovingScene | Film, name: str, size: int) -> Row:
    if isinstance(scene, Film):
        frames, caption = draw_film(scene, size), events.caption(scene)
    else:
        frames, caption = motion.draw_frames(scene, size), Said(motion.english(scene), motion.chinese(scene))
    return Row(
        id=name,
        videos=(clip(frames),),
        texts=(Text(caption.en, "en"), Text(caption.zh, "zh")),
        group=f"scenes:{caption.en}",
        meta=meta(scene.to_json(), scene.act),
    )


def _row(scene: Scene, name: str, size: int, labels: bool) -> Row:
    caption, looks = english(scene), {f"{thing.color} {thing.shape}" for thing in scene.things}
    shared = _shared(scene) if labels else {}
    return Row(
        id=name,
        images=(picture(draw(scene, size)),),
        texts=(Text(caption, "en"), Text(chinese(scene), "zh")),
        group=f"scenes:{caption}",
        meta=meta(scene.to_json(), scene.kind) | ({"look": looks.pop()} if len(looks) == 1 else {}) | shared,
    )


def _shared(scene: Scene) -> dict[str, str]:
    """What all things of a scene have in common, how many they are, and where one stands that is alone."""
    each: dict[str, set[str]] = {
        "shape": {thing.shape for thing in scene.things},
        "colour": {thing.color for thing in scene.things},
        "size": {thing.size for thing in scene.things},
    }
    if scene.kind == "one":
        each["place"] = {EN_PLACES[place_name(scene.things[0])]}
    return {name: found.pop() for name, found in each.items() if len(found) == 1} | {"number": str(len(scene.things))}


def _spoken(row: Row, lang: str) -> Row:
    (text,) = (text for text in row.texts if text.lang == lang)
    return row.with_(texts=(text,), audios=(speak(text.text, lang),), meta={**row.meta, "lang": lang})


class Scenes(Source):
    """`generate` behind the interface of a source."""

    name = "scenes"
    about = "endless drawn scenes of coloured shapes (a synthetic check)"
    about_zh = "无限生成的彩色图形场景（合成检验）"
    licence = LICENCE
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

    def rows(
        self,
        *,
        size: int | None = None,
        n: int = 2000,
        seed: int = 0,
        labels: bool = False,
        moving: bool = False,
        events: bool = False,
        sounding: bool = False,
        spoken: bool = False,
        ask: bool = False,
        kinds: Sequence[AskKind] = (),
        choices: bool = False,
        rounds: int = 0,
        dialogues: bool = False,
        editing: bool = False,
        langs: Sequence[str] = LANGS,
    ) -> Dataset:
        """The first `n` rows of a seed: captioned pictures of 96 pixels a side (all others: 64) unless something else is asked for.

        `labels`: with what all things have in common. `moving`: clips, with `events` those in which things meet or follow one another.
        `sounding`: with tones. `spoken`: with captions, or questions, read aloud. `ask`: questions about pictures, clips (with `moving`) or
        tones (with `sounding`), of `kinds`, with `choices`; with `rounds` so many about each picture, in one conversation. `dialogues`:
        conversations about pictures that refer back. `editing`: pictures to be changed. `langs`: of what is asked, said and spoken.
        """
        if [ask, dialogues, editing].count(True) > 1:
            raise UsageError("ask, dialogues, editing: choose one")
        talk = dialogues or editing
        for wrong, said in (
            (
                events and (ask or not moving),
                "events are what moving clips show: set moving, and not ask (questions about clips have them)",
            ),
            (moving and talk, "moving does not go with dialogues or editing: these are of pictures"),
            (sounding and (talk or spoken), "sounding does not go with dialogues, editing or spoken: a row has one sound"),
            (moving and sounding and ask, "moving and sounding: questions are about the one or the other"),
            (spoken and (talk or (moving and not ask)), "spoken goes with captions of pictures, and with ask"),
            ((kinds or choices) and not ask, "kinds and choices are of questions: set ask"),
            (rounds and not ask, "rounds are of questions: set ask"),
            (rounds and (moving or sounding or spoken or choices), "rounds are of written questions about pictures, without choices"),
            (labels and (ask or talk or moving), "labels are of pictures with captions: leave the others out"),
        ):
            if wrong:
                raise UsageError(f"scenes: {said}")
        if rounds:
            return generate_rounds(n, seed, rounds=rounds, kinds=kinds, langs=langs, size=size or 64)
        if ask:
            of: About = "clip" if moving else "sound" if sounding else "picture"
            return generate_questions(n, seed, of=of, kinds=kinds, langs=langs, choices=choices, spoken=spoken, size=size or 64)
        if dialogues:
            return generate_dialogues(n, seed, langs=langs, size=size or 64)
        if editing:
            return generate_edits(n, seed, langs=langs, size=size or 64)
        if moving:
            return generate_moving(n, seed, size=size or 64, events=events, sounding=sounding, langs=langs)
        return generate(n, seed, size=size or 96, labels=labels, sounding=sounding, spoken=spoken, langs=langs)
