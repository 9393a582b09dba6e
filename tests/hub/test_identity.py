"""What makes a model another one though its weights are the same: its vocabulary, the order of its classes, a scale that is not learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hub import references_bert
from hub import references_pairs as references
from hub.references import MERGES, clip_tokenizer, save_clip, tiny_clip
from tonggan import hub
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import CANONICAL, Processor
from tonggan.data.text import TextProcessing, Tokenizer
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


def clip(directory: Path) -> Path:
    """A CLIP of ours, with its record."""
    return saved(directory / "saved", hub.read(save_clip(directory / "theirs", tiny_clip())))


def permuted(file: Path, kept: set[int]) -> int:
    """Give every piece of a tokenizer file, but for these ids and the special ones, the id of another; how many there were."""
    spec = json.loads(file.read_text("utf-8"))
    vocab, special = spec["model"]["vocab"], {token["id"] for token in spec["added_tokens"]}
    moved = [piece for piece, i in vocab.items() if i not in kept | special]
    ids = [vocab[piece] for piece in moved]
    vocab |= dict(zip(moved, [*ids[1:], ids[0]], strict=True))
    file.write_text(json.dumps(spec), "utf-8")
    return len(moved)


def test_another_vocabulary_is_another_model_though_canonical_texts_have_the_same_ids(tmp_path: Path) -> None:
    where = clip(tmp_path)
    found = hub.read(where)
    assert found.processor.text is not None and found.identity.verified
    before, _ = found.processor.text.encode(list(CANONICAL.values()))
    assert permuted(where / "tokenizer.json", {i for row in before for i in row}) > 400
    now = Tokenizer.from_file(where / "tokenizer.json", found.processor.text.config)
    assert now.encode(list(CANONICAL.values()))[0] == before
    with pytest.raises(TongganError, match=r"not the model that was saved here .*\n  text\.tokenizer: '[0-9a-f]{16}' != '[0-9a-f]{16}'\n"):
        hub.read(where)


@pytest.mark.parametrize("change", ["merges", "normalizer", "pre_tokenizer", "added_tokens"])
def test_every_rule_that_decides_ids_is_in_the_record(tmp_path: Path, change: str) -> None:
    where = clip(tmp_path)
    file = where / "tokenizer.json"
    spec = json.loads(file.read_text("utf-8"))
    match change:
        case "merges":
            spec["model"]["merges"].reverse()
        case "normalizer":
            spec["normalizer"]["normalizers"].insert(0, {"type": "Replace", "pattern": {"String": "zzz"}, "content": "y"})
        case "pre_tokenizer":
            spec["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Punctuation", "behavior": "Isolated"})
        case "added_tokens":
            spec["added_tokens"][0]["lstrip"] = True
    file.write_text(json.dumps(spec), "utf-8")
    with pytest.raises(TongganError, match=r"text\.tokenizer: "):
        hub.read(where)


def test_the_layout_of_a_tokenizer_file_is_not_the_tokenizer(tmp_path: Path) -> None:
    where = clip(tmp_path)
    file = where / "tokenizer.json"
    spec = json.loads(file.read_text("utf-8"))
    spec["model"]["vocab"] = dict(reversed(spec["model"]["vocab"].items()))
    file.write_text(json.dumps(dict(reversed(spec.items())), indent=3), "utf-8")
    assert hub.read(where).identity.verified


def test_a_tokenizer_is_the_same_from_its_older_files_and_in_both_formats(tmp_path: Path) -> None:
    """Other classes put the special tokens around a text there, and what is left open says the same as what is spelled out."""
    settings = TextProcessing()
    words = tmp_path / "words"
    references_bert.wordpiece(words)
    assert (
        Tokenizer.wordpiece(words / "vocab.txt", settings).fingerprint
        == Tokenizer.from_file(words / "tokenizer.json", settings).fingerprint
    )
    theirs = clip_tokenizer()
    theirs.save_pretrained(tmp_path)
    older = Tokenizer.clip(theirs.get_vocab(), [(a, b) for a, b in map(str.split, MERGES)], settings)
    assert older.fingerprint == Tokenizer.from_file(tmp_path / "tokenizer.json", settings).fingerprint
    assert older.fingerprint == older.with_settings(max_length=9).fingerprint

    model = references.siglip(vocab=len(references.spiece(tmp_path / "siglip")))
    pieces = hub.read(references.save(tmp_path / "siglip", model))
    ours, published = (hub.read(saved(tmp_path / form, pieces, format=form)) for form in ("tonggan", "transformers"))
    assert ours.identity.difference(pieces.identity) == published.identity.difference(pieces.identity) == []


def test_a_record_from_before_the_tokenizer_was_in_it_is_still_good(tmp_path: Path) -> None:
    where = clip(tmp_path)
    kept = json.loads((where / "tonggan.json").read_text("utf-8"))["identity"]
    del kept["preprocessing"]["text.tokenizer"]
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


def test_a_configuration_that_no_module_can_have_is_named(tmp_path: Path) -> None:
    save_clip(tmp_path / "clip", tiny_clip())
    file = tmp_path / "clip" / "config.json"
    said = json.loads(file.read_text("utf-8"))
    said["vision_config"]["num_attention_heads"] = 7
    file.write_text(json.dumps(said), "utf-8")
    with pytest.raises(TongganError, match=r"clip: config\.json describes no model: .* is not divisible by 7 heads"):
        hub.read(tmp_path / "clip")
