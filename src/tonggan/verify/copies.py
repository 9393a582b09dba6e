"""A model against the same model in another form, or somewhere else: ONNX, weights of one byte, an adapter merged, a server.

What is compared is what users get: vectors of files and strings.
"""

from __future__ import annotations

import base64
import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tonggan.backends import LocalModel
from tonggan.types import Audio, CannotError, Image, Item, Text, TongganError, Video
from tonggan.verify.inputs import write_items
from tonggan.verify.measure import Difference, compare
from tonggan.verify.report import Report, Section

Against = Literal["onnx", "int8", "merged", "endpoint"]
BY: dict[Against, Literal["relative", "cosine"]] = {"onnx": "relative", "int8": "cosine", "merged": "relative", "endpoint": "relative"}
TOLERANCE: dict[Against, float] = {"onnx": 1e-4, "int8": 0.98, "merged": 1e-5, "endpoint": 1e-5}
"""The most of the largest value, except for int8: there the least cosine of any vector to its original. all-MiniLM-L6-v2 has 0.996 on
sentences and 0.991 on random tokens; 0.98 leaves deeper models room, and is far from the cosines between different sentences."""
Vectors = Callable[[Sequence[Item]], Tensor]


def against_model(original: LocalModel, other: LocalModel, what: Against, *, count: int, seed: int, versions: dict[str, str]) -> Report:
    """Vectors of both on canonical and seeded items."""
    return _compared(original, lambda items: _vectors(other, items), what, count=count, seed=seed, versions=versions, label=what)


def against_endpoint(original: LocalModel, url: str, *, count: int, seed: int) -> Report:
    """Vectors of a server that says it serves this model, asked by OpenAI's API (`URL/embeddings`), pictures as data URIs."""
    url = url.rstrip("/")
    card: dict[str, Any] = next(iter(_ask(f"{url}/models").get("data", [])), {})
    report = _compared(original, lambda items: _served(url, items), "endpoint", count=count, seed=seed, versions={}, label=url)
    told = card.get("weights")
    if told is not None and told != original.identity.weights:
        report.sections[0].differences.append(Difference("weights", problem=f"{original.identity.weights[:12]} here, {told[:12]} there"))
    if told is None:
        report.notes.append("the server does not say which weights it has; only vectors were compared")
    return report


def _compared(
    original: LocalModel, other: Vectors, what: Against, *, count: int, seed: int, versions: dict[str, str], label: str
) -> Report:
    report, found, both = Report(original.name, label, versions), [], {}
    with tempfile.TemporaryDirectory() as place:
        items = write_items(Path(place), original.processor, count=count, seed=seed)
        kinds: dict[str, list[Item]] = {
            "text": [Text(text) for text in items.texts],
            "image": [Image.open(file) for file in items.images],
        }
        if what != "endpoint":  # what is asked over the network is text and pictures
            kinds |= {"audio": [Audio.open(file) for file in items.sounds], "video": [Video.open(file) for file in items.clips]}
        for kind, given in kinds.items():
            if given and kind in original.modalities:
                mine, theirs = _vectors(original, given), other(given)
                found.append(compare(f"vectors of {kind}", theirs, mine, TOLERANCE[what], by=BY[what]))
                both[kind] = (mine, theirs)
    # What was not compared may be anything: a copy of which a tower was never run is not admitted.
    found += [Difference(f"vectors of {kind}", problem="not compared") for kind in sorted(original.modalities - both.keys())]
    if {"text", "image"} <= both.keys() and not any(one.problem for one in found):
        # Said, not judged: random pictures are about equally far from every text, so ranks among them mean little.
        (text, text2), (image, image2) = both["text"], both["image"]
        ranks = compare("ranks", text2 @ image2.T, text @ image.T, 0.0, scores=True)
        report.notes.append(f"nearest picture of each text: the same for {100 * (ranks.argmax or 0.0):.0f} %")
    report.sections.append(Section("vectors of files and strings", found))
    return report


def _vectors(model: LocalModel, items: Sequence[Item]) -> Tensor:
    if "embed" in model.can:
        return torch.from_numpy(model.embed(items).vectors)
    if "features" in model.can:
        return torch.from_numpy(model.features(items))
    raise CannotError(f"{model.name} gives no vectors that could be compared")


def _served(url: str, items: Sequence[Item]) -> Tensor:
    given = [item.text if isinstance(item, Text) else _uri(item) for item in items]
    data = _ask(f"{url}/embeddings", {"input": given, "encoding_format": "float"})["data"]
    return torch.tensor([one["embedding"] for one in sorted(data, key=lambda one: int(one["index"]))])


def _uri(item: Item) -> str:
    assert isinstance(item, Image) and item.path is not None
    return "data:image/png;base64," + base64.b64encode(item.path.read_bytes()).decode()


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        raise TongganError(f"{url}: answered {error.code}: {error.read(500).decode('utf-8', 'replace')}") from None
    except (OSError, ValueError) as error:
        raise TongganError(f"{url}: no answer that can be read ({error})") from None
