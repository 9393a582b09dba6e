"""A model against the same model in another form, or somewhere else: ONNX, weights of one byte, an adapter merged, a server.

What is compared is what users get, from files and strings: every answer that the other form gives (`hub.answers`), of a server its vectors.
"""

from __future__ import annotations

import base64
import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from tonggan.backends import LocalModel
from tonggan.hub.answers import Answer, answers, offers
from tonggan.types import Audio, CannotError, Item, Text, TongganError, Video
from tonggan.verify.inputs import read_items, write_items
from tonggan.verify.measure import Difference, compare
from tonggan.verify.report import Report, Section

Against = Literal["onnx", "int8", "merged", "endpoint"]
Answers: TypeAlias = Mapping[str, Answer]
BY: dict[Against, Literal["relative", "cosine"]] = {"onnx": "relative", "int8": "cosine", "merged": "relative", "endpoint": "relative"}
TOLERANCE: dict[Against, float] = {"onnx": 1e-4, "int8": 0.98, "merged": 1e-5, "endpoint": 1e-5}
"""The most of the largest value, except for int8: there the least cosine of any vector to its original. all-MiniLM-L6-v2 has 0.996 on
sentences and 0.991 on random tokens; 0.98 leaves deeper models room, and is far from the cosines between different sentences. Rows that
have it are also held to their length and, where they are scores, to the first places that are clear (`measure.Difference.reason`)."""
NARROW = 0.2
"""For int8, of answers with one or two numbers, whose cosine is hardly more than a sign: the most of the largest value. It is as strict:
vectors of cosine 0.98 are a fifth of their length apart."""

LEARNED = 1e-6
"""Of each number that a model has learned or was given for its cosines, whatever the form: no form rounds them."""


def against_model(original: LocalModel, other: LocalModel, what: Against, *, count: int, seed: int, versions: dict[str, str]) -> Report:
    """Everything that `other` answers, on canonical and seeded items; what it would answer unseen is a problem."""
    with tempfile.TemporaryDirectory() as place:
        inputs = read_items(original.processor, write_items(Path(place), original.processor, count=count, seed=seed))
    mine, theirs = answers(original.module, inputs), answers(other.module, inputs)
    report = Report(original.name, what, versions, verbs=tuple(sorted(offers(other.module))))
    _fill(report, original, mine, theirs, what)
    if lost := [name for name in mine if name not in theirs]:
        report.notes.append(f"the {what} form does not answer: {', '.join(lost)}")
    return report


def against_endpoint(original: LocalModel, url: str, *, count: int, seed: int) -> Report:
    """Vectors of a server that says it serves this model, asked by OpenAI's API (`URL/embeddings`), files as data URIs."""
    if "embed" not in original.can:
        raise CannotError(f"{original.name} gives no vectors, and of a server nothing else is compared")
    url = url.rstrip("/")
    card = _card(original, url, _ask(f"{url}/models").get("data", []))
    report = Report(original.name, url, {})
    mine: dict[str, Answer] = {}
    theirs: dict[str, Answer] = {}
    with tempfile.TemporaryDirectory() as place:
        items = write_items(Path(place), original.processor, count=count, seed=seed)
        for kind, given in ((kind, items.of(kind)) for kind in sorted(original.modalities)):
            for answers_, vectors in (
                (mine, torch.from_numpy(original.embed(given).vectors)),
                (theirs, _served(url, given, card.get("id"))),
            ):
                answer = Answer("vectors", frozenset({kind}), vectors)
                answers_[answer.name] = answer
    _fill(report, original, mine, theirs, "endpoint")
    told = card.get("weights")
    if told is not None and told != original.identity.weights:
        report.sections[0].differences.append(Difference("weights", problem=f"{original.identity.weights[:12]} here, {told[:12]} there"))
    if told is None:
        report.notes.append("the server does not say which weights it has; only vectors were compared")
    return report


def _fill(report: Report, original: LocalModel, mine: Answers, theirs: Answers, what: Against) -> None:
    """Put into the report how far the answers are apart, and which were not compared."""
    found = [_judged(name, theirs[name], answer, what) for name, answer in mine.items() if name in theirs]
    # What was not compared may be anything: a copy of which a tower or a head was never run is not admitted.
    compared = [answer for name, answer in theirs.items() if name in mine]
    unseen = [name for name in theirs if name not in mine]
    unseen += sorted(set(report.verbs) - {answer.verb for answer in compared})
    unseen += sorted(original.modalities - {kind for answer in compared for kind in answer.reads})
    found += [Difference(name, problem="not compared") for name in unseen]
    if {"vectors of text", "vectors of image"} <= mine.keys() & theirs.keys() and not any(one.problem for one in found):
        # Said, not judged: random pictures are about equally far from every text, so ranks among them mean little.
        first, second = (vectors["vectors of text"].values @ vectors["vectors of image"].values.T for vectors in (mine, theirs))
        ranks = compare("ranks", second, first, 0.0, scores=True)
        report.notes.append(f"nearest picture of each text: the same for {100 * (ranks.argmax or 0.0):.0f} %")
    report.sections.append(Section("answers to files and strings", found))


def _judged(name: str, theirs: Answer, mine: Answer, what: Against) -> Difference:
    if not mine.reads:
        return compare(name, theirs.values, mine.values, LEARNED)
    if BY[what] == "cosine" and mine.values.shape[1] <= 2:
        return compare(name, theirs.values, mine.values, NARROW, scores=mine.scores)
    return compare(name, theirs.values, mine.values, TOLERANCE[what], by=BY[what], scores=mine.scores)


def _card(original: LocalModel, url: str, cards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the server says of the model to be asked: the one of these weights, else of this name, else the only one."""
    names = {original.name, Path(original.name).name}
    for found in ([c for c in cards if c.get("weights") == original.identity.weights], [c for c in cards if c.get("id") in names], cards):
        if len(found) == 1 or (found and found is not cards):  # of those with the same weights any will do
            return found[0]
    if cards:
        there = ", ".join(f"{card.get('id')} ({str(card.get('weights'))[:12]})" for card in cards)
        raise TongganError(
            f"{url}: serves {there}; none has the weights of {original.name} ({original.identity.weights[:12]}) or its name, so which one "
            f"is meant is not known"
        )
    return {}


def _served(url: str, items: Sequence[Item], model: str | None) -> Tensor:
    given = [_sent(item) for item in items]
    named = {} if model is None else {"model": model}
    data = _ask(f"{url}/embeddings", {**named, "input": given, "encoding_format": "float"})["data"]
    return torch.tensor([one["embedding"] for one in sorted(data, key=lambda one: int(one["index"]))])


def _sent(item: Item) -> str | dict[str, Any]:
    """An item as a string or a content part; what a file is, the server sees by itself."""
    if isinstance(item, Text):
        return item.text
    assert not isinstance(item, str) and item.path is not None, "what is compared was written to files"
    data = base64.b64encode(item.path.read_bytes()).decode()
    if isinstance(item, Audio):
        return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    url = f"data:image/png;base64,{data}"
    return {"type": "video_url", "video_url": {"url": url}} if isinstance(item, Video) else url


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        raise TongganError(f"{url}: answered {error.code}: {error.read(500).decode('utf-8', 'replace')}") from None
    except (OSError, ValueError) as error:
        raise TongganError(f"{url}: no answer that can be read ({error})") from None
