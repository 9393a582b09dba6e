"""Rows with one question and its exact answer, about a picture, a clip, or tones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from tonggan.config import one_of
from tonggan.data.rows import Dataset
from tonggan.data.sources.scenes import ask_sounds, events
from tonggan.data.sources.scenes.ask_clips import CLIP_FORMS, random_clip
from tonggan.data.sources.scenes.ask_pictures import PICTURE_FORMS
from tonggan.data.sources.scenes.ask_sounds import SOUND_FORMS, Heard, random_heard
from tonggan.data.sources.scenes.asking import ASK_KINDS, Ask, AskKind, Form, ask, dealt
from tonggan.data.sources.scenes.draw import draw
from tonggan.data.sources.scenes.events import Film, draw_film
from tonggan.data.sources.scenes.making import LANGS, Turn, checked_langs, clip, in_splits, meta, one_lang, picture, sound, talk
from tonggan.data.sources.scenes.sound import in_order, speak
from tonggan.data.sources.scenes.words import Said, english
from tonggan.data.sources.scenes.world import Scene, random_scene
from tonggan.types import Row, UsageError

About: TypeAlias = Literal["picture", "clip", "sound"]

LISTEN = Said("Answer the question that you hear.", "请回答你听到的问题。")
"""The words of a question that is spoken."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is asked about: its ways of asking, its worlds, and how a world becomes a row (with a picture, where a form is of one)."""

    forms: tuple[Form[Any], ...]
    draw_world: Callable[[np.random.Generator], Any]
    row: Callable[[Any, bool, int], Row]
    held_out: Callable[[Any, bool], bool]
    stream: int
    """Sets its random numbers apart from the others'."""


def generate_questions(
    n: int,
    seed: int = 0,
    *,
    of: About = "picture",
    kinds: Sequence[AskKind] = (),
    langs: Sequence[str] = LANGS,
    choices: bool = False,
    spoken: bool = False,
    size: int = 64,
) -> Dataset:
    """Questions 0..n-1 of the endless sequence that `seed`, `of`, `kinds` and `langs` name, each about a scene of its own.

    A row has `question`, one of `answers`, and the picture, clip or sound that it is about; `meta` has its `kind`, the `form` of the
    question and its `lang`. Kinds come equally often (none given: all of the subject), so do ways of asking within a kind, and the answers
    of each way. With `choices` a row lists what may be answered. With `spoken` the question is read aloud (needs `espeak-ng`); what
    is said is in `meta["said"]`. Splits are those of `generate`; a question names a combination kept apart only in the split `combination`.
    """
    subject = _SUBJECTS[one_of(of, _SUBJECTS, "subject of questions")]
    if spoken and of == "sound":
        raise UsageError("a question about tones is not spoken too: a row has one sound")
    langs = checked_langs(langs)
    rows, held_out = [], []
    for i in range(n):
        form, key, lang = question_plan(i, seed, of, kinds, langs)
        world, asked = ask(form, key, subject.draw_world, np.random.default_rng([seed, i, subject.stream]))
        row = subject.row(world, form.seen, size)
        row = row.with_(id=f"scenes/questions/{of}/{seed}/{i}", meta=meta(world.to_json(), form.kind))
        rows.append(_asked(row, form, asked, lang, choices, spoken))
        held_out.append(subject.held_out(world, form.seen))
    return Dataset.from_rows(in_splits(rows, held_out))


def generate_rounds(
    n: int, seed: int = 0, *, rounds: int, kinds: Sequence[AskKind] = (), langs: Sequence[str] = LANGS, size: int = 64
) -> Dataset:
    """Conversations 0..n-1 of the endless sequence that `seed`, `rounds`, `kinds` and `langs` name: rows with `messages`, of so many
    questions about one picture (fewer where there is no more to ask), each of which stands for itself.

    So a picture is looked at once for all of them, as LLaVA-1.5's data has it (Liu et al. 2024, Improved Baselines). Of what can be asked
    about a scene kinds come equally often, then ways of asking, then answers. `meta` has the `lang`; splits are those of `generate`.
    """
    subject = _SUBJECTS["picture"]
    langs, forms = checked_langs(langs), _forms(subject, "picture", kinds)
    rows, pictures, held_out = [], [], []
    for i in range(n):
        rng = np.random.default_rng([seed, i, 8])
        turns: list[Turn] = []
        while not turns:
            scene = random_scene(rng)
            turns = [(one.question, one.answer) for one in _several(scene, list(forms.values()), rounds, rng)]
        lang, shown = one_lang(langs, rng), _of_picture(scene, True, size)
        row = Row(
            f"scenes/rounds/{seed}/{i}",
            messages=talk(shown.images[0], turns, lang),
            group=shown.group,
            meta=meta(scene.to_json(), "rounds") | {"lang": lang},
        )
        rows.append(row)
        pictures.append(row.with_(images=shown.images))
        held_out.append(scene.held_out)
    return Dataset.from_rows(row.with_(split=side.split) for row, side in zip(rows, in_splits(pictures, held_out), strict=True))


def _several(scene: Scene, kinds: Sequence[Sequence[Form[Any]]], rounds: int, rng: np.random.Generator) -> list[Ask]:
    """So many different questions about a scene, or as many as it answers."""

    def by_key(form: Form[Any]) -> dict[str, list[Ask]]:
        found: dict[str, list[Ask]] = {}
        for one in form.find(scene):
            found.setdefault(one.key, []).append(one)
        return found

    there = [asks for forms in kinds if (asks := [found for form in forms if (found := by_key(form))])]
    asked: list[Ask] = []
    while there and len(asked) < rounds:
        kind = there[rng.integers(len(there))]
        form = kind[rng.integers(len(kind))]
        key = list(form)[rng.integers(len(form))]
        asked.append(form[key].pop(rng.integers(len(form[key]))))
        if not form[key]:  # what was asked is asked no more
            del form[key]
        if not form:
            kind.remove(form)
        if not kind:
            there.remove(kind)
    return asked


def question_plan(i: int, seed: int, of: About, kinds: Sequence[AskKind] = (), langs: Sequence[str] = LANGS) -> tuple[Form[Any], str, str]:
    """The form of question i, the key of its answer, and its language: known without the questions before it."""
    subject = _SUBJECTS[of]
    forms = _forms(subject, of, kinds)
    kind, turn = dealt(list(forms), i, seed, subject.stream, 1)
    where = [seed, subject.stream, ASK_KINDS.index(kind)]
    form, turn = dealt(forms[kind], turn, *where, 2)
    where.append(forms[kind].index(form))
    key, turn = dealt(form.keys, turn, *where, 3)
    lang, _ = dealt(langs, turn, *where, form.keys.index(key), 4)
    return form, key, lang


def forms_of(of: About) -> tuple[Form[Any], ...]:
    """Every way of asking about a picture, a clip or tones."""
    return _SUBJECTS[of].forms


def _forms(subject: _Subject, of: About, kinds: Sequence[AskKind]) -> dict[AskKind, list[Form[Any]]]:
    """The ways of asking, by kind."""
    there = {kind: [form for form in subject.forms if form.kind == kind] for kind in ASK_KINDS}
    there = {kind: forms for kind, forms in there.items() if forms}
    for kind in kinds:
        one_of(kind, ASK_KINDS, "kind of question")
        if kind not in there:
            raise UsageError(f"no question of kind {kind!r} is about a {of}; there are {', '.join(there)}")
    return {kind: forms for kind, forms in there.items() if kind in kinds or not kinds}


def _asked(row: Row, form: Form[Any], asked: Ask, lang: str, choices: bool, spoken: bool) -> Row:
    question = asked.question.in_(lang)
    row = row.with_(
        question=question,
        answers=(asked.answer.in_(lang),),
        choices=tuple(one.in_(lang) for one in asked.choices) if choices else (),
        meta={**row.meta, "form": form.name, "lang": lang},
    )
    if not spoken:
        return row
    return row.with_(question=LISTEN.in_(lang), audios=(speak(question, lang),), meta={**row.meta, "said": question})


def _of_picture(scene: Scene, seen: bool, size: int) -> Row:
    return Row("", images=(picture(draw(scene, size)),), group=f"scenes:{english(scene)}")


def _of_clip(film: Film, seen: bool, size: int) -> Row:
    return Row("", videos=(clip(draw_film(film, size)),), group=f"scenes:{events.caption(film).en}")


def _of_sound(heard: Heard, seen: bool, size: int) -> Row:
    row = Row("", audios=(sound(in_order([thing.look for thing in heard.tones])),), group=f"scenes:{ask_sounds.caption(heard).en}")
    return row.with_(images=(picture(draw(heard.scene, size)),), group=f"scenes:{english(heard.scene)}") if seen else row


_SUBJECTS: dict[str, _Subject] = {
    "picture": _Subject(PICTURE_FORMS, random_scene, _of_picture, lambda scene, seen: scene.held_out, 1),
    "clip": _Subject(CLIP_FORMS, random_clip, _of_clip, lambda film, seen: film.held_out, 2),
    "sound": _Subject(SOUND_FORMS, random_heard, _of_sound, lambda heard, seen: heard.held_out(seen), 3),
}
