"""Questions, dialogues and edits: answered again from pixels and samples, balanced, on their own sides, in good language."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tonggan.data.audio import load_audio
from tonggan.data.lessons import conversation_of, words_of
from tonggan.data.media import load_image
from tonggan.data.rows import Dataset
from tonggan.data.sources import scenes
from tonggan.data.sources.scenes.ask_sounds import Heard
from tonggan.data.sources.scenes.asking import ASK_KINDS, Form, dealt
from tonggan.data.sources.scenes.events import Film, draw_film, random_film
from tonggan.data.sources.scenes.questions import LISTEN, forms_of, question_plan
from tonggan.data.sources.scenes.sound import LENGTHS, RATE, tone
from tonggan.data.sources.scenes.words import ZH_COLORS, ZH_SHAPES, relation
from tonggan.data.sources.scenes.world import HELD_OUT, Scene
from tonggan.data.splits import leaks
from tonggan.data.video import load_frames
from tonggan.types import Image, Row, Text, TongganError, UsageError

SUBJECTS = ("picture", "clip", "sound")
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}


@pytest.fixture(scope="module")
def asked() -> dict[str, list[Row]]:
    return {of: list(scenes.generate_questions(96, 3, of=of, choices=True)) for of in SUBJECTS}  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------- answered from what is seen


def seen_in(question: str, things: list[scenes.Thing]) -> str | None:
    """The answer to an English question by what was read from the picture; None for a way of asking that this test leaves out."""

    def named(words: str) -> list[scenes.Thing]:
        singular = [{"crosses": "cross", "cross": "cross"}.get(word, word.removesuffix("s")) for word in words.split()]
        return [thing for thing in things if all(word in (thing.color, thing.shape, "thing") for word in singular)]

    def yes(found: object) -> str:
        return "yes" if found else "no"

    def side(a: scenes.Thing, b: scenes.Thing) -> str:
        return {"left": "to the left", "right": "to the right"}.get(relation(a, b), relation(a, b))

    if found := re.fullmatch(r"Is there an? (.+) in the picture\?", question):
        return yes(named(found[1]))
    if found := re.fullmatch(r"Are there any (.+) in the picture\?|Is anything in the picture (.+)\?", question):
        return yes(named(found[1] or found[2]))
    if found := re.fullmatch(r"How many (.+?) are there(?: in the picture)?\?", question):
        return next(word for word, n in NUMBERS.items() if n == len(named(found[1])))
    if found := re.fullmatch(r"What (color|shape) (?:is|are) the ([a-z]+(?: things?)?)\?", question):
        (answer,) = {getattr(thing, found[1]) for thing in named(found[2])}
        return str(answer)
    if found := re.fullmatch(r"What (color|shape) is the thing (to the left|to the right|above|below)(?: of)? the (.+)\?", question):
        (known,) = named(found[3])
        (other,) = (thing for thing in things if thing is not known and side(thing, known) == found[2])
        return str(getattr(other, found[1]))
    if found := re.fullmatch(r"Where is the (.+) in relation to the (.+)\?", question):
        return side(named(found[1])[0], named(found[2])[0])
    if found := re.fullmatch(r"Which is (larger|smaller), the (.+) or the (.+)\?", question):
        one, other = named(found[2])[0].r, named(found[3])[0].r
        return f"the {found[2 if (one > other) == (found[1] == 'larger') else 3]}"
    if found := re.fullmatch(r"Which are there (more|fewer) of, (.+) or (.+)\?", question):
        one, other = len(named(found[2])), len(named(found[3]))
        return found[2 if (one > other) == (found[1] == "more") else 3]
    return None


def test_pictures_give_the_answers(asked: dict[str, list[Row]]) -> None:
    checked: Counter[str] = Counter()
    for row in asked["picture"]:
        if row.meta["lang"] == "en":
            found = scenes.read(row.images[0])
            assert found is not None and row.question is not None
            answer = seen_in(row.question, list(found.things))
            if answer is not None:
                assert row.answers == (answer,), (row.question, answer)
                checked[row.meta["kind"]] += 1
    assert set(checked) == {"existence", "count", "colour", "shape", "relation", "comparison"} and sum(checked.values()) > 40


def test_clips_give_the_answers(asked: dict[str, list[Row]]) -> None:
    checked: Counter[str] = Counter()
    for row in asked["clip"]:
        if row.meta["lang"] != "en" or row.meta["form"] not in ("which way", "count at a time", "which moves first"):
            continue
        frames = [scenes.read(frame) for frame in load_frames(row.videos[0], 8)]  # None: empty, or things that touch
        (answer,), question = row.answers, str(row.question)
        where: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
        for number, frame in enumerate(frames):
            for thing in frame.things if frame else ():
                where[f"the {thing.color} {thing.shape}"].append((number, thing.x, thing.y))
        moved = {name for name, path in where.items() if np.hypot(path[0][1] - path[-1][1], path[0][2] - path[-1][2]) > 0.1}
        if found := re.fullmatch(r"Which way does (.+) move\?", question):
            dx, dy = (where[found[1]][-1][axis] - where[found[1]][0][axis] for axis in (1, 2))
            side = ("to the right" if dx > 0 else "to the left") if abs(dx) > abs(dy) else "down" if dy > 0 else "up"
            assert answer == side
        elif question == "How many things are there at the end of the clip?" and frames[-1] is not None:
            assert NUMBERS[answer] == len(frames[-1].things)
        elif (found := re.fullmatch(r"Which moves first, (.+) or (.+)\?", question)) and moved >= {found[1], found[2]}:
            starts = [next(b[0] for a, b in pairwise(where[name]) if np.hypot(a[1] - b[1], a[2] - b[2]) > 0.01) for name in found.groups()]
            assert answer == found[1 + int(np.argmin(starts))]
        else:
            continue
        checked[row.meta["kind"]] += 1
    assert set(checked) == {"relation", "count", "order"} and sum(checked.values()) > 8


def tones(samples: np.ndarray) -> list[tuple[str, str, str]]:
    """The looks of the tones of a sound, by the nearest of all 180."""
    looks = [(size, color, shape) for size in LENGTHS for color in scenes.COLORS for shape in scenes.SHAPES]
    found, start = [], 0
    while start + 0.05 * RATE < len(samples):
        here = {look: samples[start : start + len(tone(look))] for look in looks}  # type: ignore[arg-type]
        fits = {look: float(np.abs(piece - tone(look)[: len(piece)]).mean()) for look, piece in here.items()}  # type: ignore[arg-type]
        best = min(fits, key=lambda look: (round(fits[look], 4), look[0] == "small"))
        found.append(best)
        start += len(tone(best)) + round(0.1 * RATE)  # type: ignore[arg-type]
    return found


def test_tones_give_the_answers(asked: dict[str, list[Row]]) -> None:
    checked: Counter[str] = Counter()
    for row in asked["sound"][:50]:
        heard = tones(load_audio(row.audios[0], RATE))
        assert heard == [thing.look for thing in Heard.from_json(row.meta["scene"]).tones]
        if row.meta["lang"] != "en":
            continue
        (answer,) = row.answers
        names = [f"the {color} {shape}" for _, color, shape in heard]
        if row.meta["form"] == "count tones":
            assert NUMBERS[answer] == len(heard)
        elif row.meta["kind"] == "sounding":
            assert [answer] == names and answer in row.choices
        elif found := re.fullmatch(r"Which do you hear (first|last), (.+) or (.+)\?", str(row.question)):
            order = sorted(found.groups()[1:], key=names.index)
            assert answer == order[0 if found[1] == "first" else 1]
        else:
            continue
        checked[row.meta["kind"]] += 1
    assert set(checked) == {"count", "sounding", "order"}


# ------------------------------------------------------------------------------------------- balance and sides


def check_balance(answers: list[tuple[Form[Any], int]], of: str) -> None:
    """The most frequent answer of each way of asking, by its place among the choices: at most 1.5 times as often as by chance."""
    kinds = {form.kind for form, _ in answers}
    assert kinds == set(ASK_KINDS) - {"picture": {"order", "sounding"}, "clip": {"sounding"}}.get(of, set())
    for kind in kinds:
        of_kind = [(form.name, place) for form, place in answers if form.kind == kind]
        best = sum(max(Counter(place for one, place in of_kind if one == name).values()) for name in {name for name, _ in of_kind})
        assert best <= 1.5 * sum(form.chance for form, _ in answers if form.kind == kind), kind
    each = Counter(form.kind for form, _ in answers)
    assert max(each.values()) - min(each.values()) <= 1


@pytest.mark.parametrize("of", SUBJECTS)
def test_no_kind_is_answered_by_guessing(of: str) -> None:
    plan = [question_plan(i, 5, of) for i in range(600)]  # type: ignore[arg-type]
    check_balance([(form, form.keys.index(key)) for form, key, _ in plan], of)
    assert abs(Counter(lang for _, _, lang in plan)["zh"] / 600 - 0.5) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("of", SUBJECTS)
def test_no_kind_is_answered_by_guessing_in_rows(of: str) -> None:
    forms = {form.name: form for form in forms_of(of)}  # type: ignore[arg-type]
    rows = scenes.generate_questions(1500, 5, of=of, choices=True, size=48)  # type: ignore[arg-type]
    check_balance([(forms[row.meta["form"]], row.choices.index(row.answers[0])) for row in rows], of)


def test_answers_are_among_the_choices(asked: dict[str, list[Row]]) -> None:
    for of, rows in asked.items():
        for i, row in enumerate(rows):
            form, key, lang = question_plan(i, 3, of)  # type: ignore[arg-type]
            place = row.choices.index(row.answers[0])
            assert (row.meta["form"], row.meta["kind"], row.meta["lang"]) == (form.name, form.kind, lang)
            assert len(set(row.choices)) == len(row.choices) and (form.keys.index(key) == place), row.question


def test_dealing_is_fair_and_needs_no_history() -> None:
    dealt_out = [dealt("abc", turn, 1, 2) for turn in range(300)]
    assert Counter(option for option, _ in dealt_out) == {"a": 100, "b": 100, "c": 100}
    for option in "abc":
        assert [number for one, number in dealt_out if one == option] == list(range(100))
    assert len({tuple(option for option, _ in dealt_out[i : i + 3]) for i in range(0, 300, 3)}) == 6


def test_sides_share_nothing_and_name_no_combination(asked: dict[str, list[Row]]) -> None:
    for rows in asked.values():
        dataset = Dataset.from_rows(rows)
        assert {"train", "val", "test", "combination"} <= {str(row.split) for row in dataset}
        assert not leaks(dataset, by=("picture", "group"))
    for row in (row for rows in asked.values() for row in rows if row.split not in ("combination", "spare") and row.meta["lang"] == "en"):
        words = f"{row.question} {' '.join(row.answers)}"
        assert not any(re.search(rf"{color} {shape}", words) for color, shape in HELD_OUT), words


@pytest.mark.parametrize("of", SUBJECTS)
def test_question_seven_is_the_same_whatever_n_is(of: str) -> None:
    few, more = (scenes.generate_questions(n, 4, of=of, size=48)[7] for n in (8, 12))  # type: ignore[arg-type]
    assert (few.question, few.answers, few.meta) == (more.question, more.answers, more.meta)
    assert [one.data for one in (*few.images, *few.videos, *few.audios)] == [one.data for one in (*more.images, *more.videos, *more.audios)]


def test_language_is_written_as_it_should_be(asked: dict[str, list[Row]]) -> None:
    measures = {"五角星": "颗", "爱心": "颗", "月牙": "弯"}
    for row in (row for rows in asked.values() for row in rows):
        question = str(row.question)
        if row.meta["lang"] == "zh":
            assert question.endswith("？") and not re.search(r"[a-zA-Z,.?;:!\s]", question + row.answers[0])
            for measure, noun in re.findall(r"[几一两三四五]([个颗弯])(?:..的)?([一-鿿]{2,3})[？，]", question):
                assert measure == measures.get(noun, "个"), question
        else:
            assert re.fullmatch(r"[A-Z][a-z ,:]+\?", question), question
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", question)


def test_kinds_and_languages_are_chosen() -> None:
    rows = scenes.Scenes().rows(n=12, ask=True, kinds=["count", "colour"], langs=["zh"])
    assert Counter(row.meta["kind"] for row in rows) == {"count": 6, "colour": 6} and {row.meta["lang"] for row in rows} == {"zh"}
    assert not any(row.choices for row in rows)
    assert [message.role for message in conversation_of(rows[0])] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ask": True, "kinds": ["order"]}, "'order' is about a picture; there are existence"),
        ({"ask": True, "kinds": ["colr"]}, "did you mean 'colour'"),
        ({"ask": True, "langs": ["fr"]}, "'fr'"),
        ({"dialogues": True, "editing": True}, "choose one"),
        ({"events": True}, "set moving"),
        ({"kinds": ["count"]}, "set ask"),
        ({"ask": True, "sounding": True, "spoken": True}, "one sound"),
        ({"editing": True, "moving": True}, "moving does not go with"),
        ({"rounds": 3}, "rounds are of questions: set ask"),
        ({"ask": True, "rounds": 3, "moving": True}, "rounds are of written questions about pictures"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        scenes.Scenes().rows(n=1, **options)  # type: ignore[arg-type]


def test_rounds_are_questions_about_one_picture_each_for_itself() -> None:
    """Answered again from what is read in the pixels; no question twice, and none that names what is kept apart where it is not seen."""
    rows = scenes.generate_rounds(60, 2, rounds=6, size=96)
    told, right, yes, splits = 0, 0, Counter[str](), set()
    for row in rows:
        user, answers = row.messages[::2], row.messages[1::2]
        questions = [part.text for message in user for part in message.parts if isinstance(part, Text)]
        assert len(set(questions)) == len(questions) == len(answers) == 6
        seen = [part for message in row.messages for part in message.parts if isinstance(part, Image)]
        assert seen == [user[0].parts[0]]
        splits.add(row.split)
        named = " ".join(questions)
        assert row.split in ("combination", "spare") or not any(f"{color} {shape}" in named for color, shape in HELD_OUT)
        read = scenes.read(seen[0])
        assert read is not None
        for question, message in zip(questions, answers, strict=True):
            (answer,) = (part.text for part in message.parts if isinstance(part, Text))
            if row.meta["lang"] == "en" and (expected := seen_in(question, list(read.things))) is not None:
                told, right = told + 1, right + (answer == expected)
                yes[answer] += answer in ("yes", "no")
    assert right == told > 60
    assert {"train", "combination"} <= splits
    assert 0.3 < yes["yes"] / (yes["yes"] + yes["no"]) < 0.7
    again = scenes.generate_rounds(30, 2, rounds=6, size=96)
    assert [list(words_of(row)) for row in again] == [list(words_of(row)) for row in rows][:30], (
        "row 7 is the same whatever there is behind it"
    )
    few = scenes.generate_rounds(20, 2, rounds=9, kinds=("comparison",), langs=("zh",))
    assert {row.meta["lang"] for row in few} == {"zh"} and min(len(row.messages) for row in few) >= 2


def test_questions_can_be_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(TongganError, match="espeak-ng, which is not on this machine"):
        scenes.generate_questions(1, spoken=True)
    assert LISTEN.zh.endswith("。")


# ------------------------------------------------------------------------------------------- dialogues and edits


def test_dialogues_refer_back_and_are_true() -> None:
    threads: Counter[str] = Counter()
    turned = 0
    for row in scenes.generate_dialogues(60, 2):
        assert [message.role for message in row.messages] == ["user", "assistant"] * (len(row.messages) // 2) and 4 <= len(
            row.messages
        ) <= 8
        assert [isinstance(part, Image) for message in row.messages for part in message.parts].count(True) == 1
        said = [part.text for message in row.messages for part in message.parts if isinstance(part, Text)]
        questions, answers = said[::2], said[1::2]
        back = r"\b(it|they|them|other|others|two|And)\b" if row.meta["lang"] == "en" else r"它|其中|其余|另外|那|这两个"
        assert all(re.search(back, question) for question in questions[1:]), questions
        truth, picture = Scene.from_json(row.meta["scene"]), row.messages[0].parts[0]
        assert isinstance(picture, Image)
        found = scenes.read(picture)
        assert found is not None and Counter(t.look for t in found.things) == Counter(t.look for t in truth.things)
        if row.meta["thread"] == "of them" and row.meta["lang"] == "en":
            color = re.fullmatch(r"And how many of them are (\w+)\?", questions[1])
            assert color and [NUMBERS[n] for n in answers[:2]] == [len(found.things), [t.color for t in found.things].count(color[1])]
        if row.meta["thread"] == "the two":
            _it_is_the_one_named_last(truth, answers, row.meta["lang"])
            turned += len(questions) == 3
        threads[row.meta["thread"]] += 1
    assert len(threads) == 4 and min(threads.values()) >= 3 and turned >= 3


def _it_is_the_one_named_last(truth: Scene, answers: list[str], lang: str) -> None:
    """The last answer says where the other thing is, seen from the one that the answer before it names."""
    words = [(t.color, t.shape) if lang == "en" else (ZH_COLORS[t.color], ZH_SHAPES[t.shape][1]) for t in truth.things]
    (last,) = (n for n, (of_color, of_shape) in enumerate(words) if of_color in answers[-2] and answers[-2].endswith(of_shape))
    it, other = truth.things[last], truth.things[1 - last]
    across = abs(other.x - it.x) > abs(other.y - it.y)
    sides = {"en": ("left", "right", "above", "below"), "zh": ("左", "右", "上", "下")}[lang]
    side = sides[int(other.x > it.x)] if across else sides[2 + int(other.y > it.y)]
    assert side in answers[-1], (truth, answers)


def test_edits_change_what_is_asked_and_nothing_else() -> None:
    kinds: Counter[str] = Counter()
    for row in scenes.generate_edits(30, 2):
        (before, instruction), (after,) = row.messages[0].parts, row.messages[1].parts
        assert isinstance(before, Image) and isinstance(after, Image) and isinstance(instruction, Text)
        first, last = scenes.read(before), scenes.read(after)
        assert first is not None and last is not None
        was, now = ({(t.look, round(t.x, 1), round(t.y, 1)) for t in one.things} for one in (first, last))
        gone, new = len(was - now), len(now - was)
        assert (gone, new) == {"recolour": (1, 1), "remove": (1, 0), "add": (0, 1), "move": (1, 1)}[row.meta["kind"]], instruction.text
        changed = np.asarray(load_image(before)) != np.asarray(load_image(after))
        assert 0 < changed.any(axis=2).mean() < 0.25
        assert Counter(t.look for t in last.things) == Counter(t.look for t in Scene.from_json(row.meta["after"]).things)
        assert instruction.text.endswith("。" if row.meta["lang"] == "zh" else ".")
        kinds[row.meta["kind"]] += 1
    assert len(kinds) == 4


# ------------------------------------------------------------------------------------------------- events


def test_things_meet_and_part() -> None:
    acts: Counter[str] = Counter()
    for i in range(40):
        film = random_film(np.random.default_rng([9, i]))
        acts[film.act] += 1
        assert Film.from_json(film.to_json()) == film
        if film.act in ("push", "rebound"):
            frames = draw_film(film, 96)
            ink = (frames < 200).any(axis=3)
            apart = [len(Counter(_patches(one))) for one in (ink[0], ink[-1])]
            assert apart == [2, 2], film
            steps = [np.hypot(*(np.subtract(b, a))) for path in film.paths[:1] for a, b in pairwise(path) if a and b]
            assert min(steps[:4]) > 0.04 and (max(steps[4:]) < 1e-3) == (film.act == "push")
    assert set(acts) == {"bounce", "push", "rebound", "in order"}


def _patches(ink: np.ndarray) -> list[int]:
    from tonggan.data.sources.scenes.read import _patches as patches

    return list(range(len(patches(ink))))


def test_events_and_tones_come_with_clips() -> None:
    rows = list(scenes.Scenes().rows(n=6, moving=True, events=True, sounding=True))
    plain = list(scenes.Scenes().rows(n=6, moving=True, events=True))
    assert [row.videos[0].data for row in rows] == [row.videos[0].data for row in plain] and not plain[0].audios
    for row in rows:
        samples = load_audio(row.audios[0], RATE)
        film = Film.from_json(row.meta["scene"])
        starts = sorted({event.who: event.start for event in reversed(film.events)}.values())
        begins = int(np.argmax(np.abs(samples) > 1e-3)) / RATE
        assert abs(begins - starts[0] / 8) < 0.02 and len(samples) >= RATE and np.abs(samples).max() < 0.99


def test_pictures_sound_from_left_to_right() -> None:
    (row,) = scenes.Scenes().rows(n=1, sounding=True)
    (still,) = scenes.Scenes().rows(n=1)
    things = sorted(Scene.from_json(row.meta["scene"]).things, key=lambda thing: thing.x)
    assert row.images[0].data == still.images[0].data and row.texts == still.texts
    assert tones(load_audio(row.audios[0], RATE)) == [thing.look for thing in things]
