"""What makes a model another one though its weights are the same: the order of its classes, a scale that is not learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hub import references_pairs as references
from tonggan import hub
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.hub import Checkpoint
from tonggan.hub.identity import recorded_as
from tonggan.models import build, presets
from tonggan.types import TongganError

ANIMALS = ("猫", "dog", "bird")


def classifier(directory: Path, names: tuple[str, ...] = ANIMALS) -> Checkpoint:
    """Three classes, in the published format."""
    theirs = references.vit(classes=3)
    theirs.config.id2label = dict(enumerate(names))
    theirs.config.label2id = {name: i for i, name in enumerate(names)}
    return hub.read(references.save(directory, theirs))


def saved(directory: Path, found: Checkpoint, **settings: Any) -> Path:
    hub.save(directory, found.module, found.config, found.processor, labels=found.labels, **settings)
    return directory


def change(file: Path, name: str, value: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {name: value}), "utf-8")


def test_classes_in_another_order_are_another_model(tmp_path: Path) -> None:
    one, other = classifier(tmp_path / "one"), classifier(tmp_path / "other", ("dog", "猫", "bird"))
    assert one.identity.weights == other.identity.weights
    (difference,) = one.identity.difference(other.identity)
    assert difference.startswith("labels: ")
    assert one.identity.difference(classifier(tmp_path / "again").identity) == []


@pytest.mark.parametrize("published", [True, False], ids=["published format", "ours"])
def test_names_that_were_changed_in_the_directory_are_refused(tmp_path: Path, published: bool) -> None:
    where = saved(tmp_path / "saved", classifier(tmp_path / "theirs"), format="transformers" if published else "tonggan")
    assert hub.read(where).labels == ANIMALS and hub.read(where).identity.verified
    if published:
        change(where / "config.json", "id2label", {"0": "dog", "1": "猫", "2": "bird"})
    else:
        change(where / "tonggan.json", "labels", ["dog", "猫", "bird"])
    with pytest.raises(TongganError, match="labels: "):
        hub.read(where)


def test_a_record_from_before_labels_were_in_it_is_still_good(tmp_path: Path) -> None:
    where = saved(tmp_path / "saved", classifier(tmp_path / "theirs"), format="tonggan")
    kept = json.loads((where / "tonggan.json").read_text("utf-8"))["identity"]
    del kept["preprocessing"]["labels"]
    change(where / "tonggan.json", "identity", kept)
    assert hub.read(where).identity.verified


def co_attention(**settings: Any) -> Any:
    return presets()["mini-albef"].model_copy(update={"scale_learned": False, **settings})


def record(config: Any) -> dict[str, Any]:
    image = config.image
    processor = Processor(ImageProcessor(ImageProcessing(size=image.image_size, mean=image.mean, std=image.std)))
    return dict(hub.identity(build(config), config, processor).preprocessing)


def test_a_scale_that_is_not_learnt_is_part_of_the_model() -> None:
    plain, sharper, capped = (record(co_attention(**s)) for s in ({}, {"scale_init": 3.0}, {"max_scale": 7.0}))
    assert {name for name in plain if plain[name] != sharper[name]} == {"model.scale_init"}
    assert {name for name in plain if plain[name] != capped[name]} == {"model.max_scale"}


def test_a_learnt_scale_is_among_the_weights_and_how_it_began_is_not_the_model() -> None:
    found = record(co_attention(scale_learned=True))
    assert not {"model.scale_init", "model.max_scale"} & set(found)
    assert not {"model.scale_init", "model.max_scale"} & set(record(presets()["mini"]))


def test_a_record_from_before_the_scale_was_in_it_is_still_good() -> None:
    config = co_attention(scale_init=2.5)
    now = hub.identity(build(config), config, None)
    before = {name: value for name, value in now.preprocessing.items() if name not in ("model.scale_init", "labels")}
    assert now.difference(recorded_as({"preprocessing": before, "weights": now.weights}, config, Processor())) == []
    later = {**now.preprocessing, "model.scale_init": 2.4}
    wrong = now.difference(recorded_as({"preprocessing": later, "weights": now.weights}, config, Processor()))
    assert wrong == ["model.scale_init: 2.5 != 2.4"]
