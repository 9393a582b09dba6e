"""Recipes whose towers come from checkpoints: their weights, what prepares their input, and errors that name both numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from hub import references_pairs as references
from hub.references import close, picture, save_clip, tiny_clip
from tonggan import hub
from tonggan.config import ConfigError
from tonggan.models import DualEncoder
from tonggan.recipes.begin import Parts, begin
from tonggan.recipes.config import ModelSource
from tonggan.types import TongganError, UsageError

CAPTIONS = ["a red bird", "一只红色的小鸟", "two cats"]
BOTH = frozenset({"image", "text"})


def start(**settings: Any) -> Parts:
    words = {} if "text" in settings.get("towers", {}) else {"vocab_size": 320}
    return begin(ModelSource(preset="mini", **words, **settings), CAPTIONS, BOTH)  # type: ignore[arg-type]


def checkpoint(directory: Path, family: str) -> Path:
    """One of each kind of checkpoint that has towers."""
    match family:
        case "vit":
            references.save(directory, references.vit(classes=3, image_size=24, patch_size=8), size={"height": 24, "width": 24})
        case "efficientnet":
            references.save(directory, references.efficientnet())
        case "clip":
            save_clip(directory, tiny_clip())
        case "siglip":
            references.save(directory, references.siglip(vocab=len(references.spiece(directory))))
        case "bert":
            from transformers import BertConfig, BertModel

            vocab = references.with_wordpiece(directory)
            shape = {"hidden_size": 15, "intermediate_size": 23, "num_hidden_layers": 2, "num_attention_heads": 3}
            references.shaken(BertModel(BertConfig(vocab_size=vocab, max_position_embeddings=40, **shape))).save_pretrained(directory)
    return directory


@pytest.mark.parametrize("family", ["vit", "efficientnet", "clip", "siglip"])
def test_a_picture_tower_of_a_checkpoint_and_a_fresh_text_tower(tmp_path: Path, family: str) -> None:
    where = checkpoint(tmp_path / family, family)
    whole, parts = hub.read(where), start(towers={"image": str(where)})
    assert isinstance(parts.module, DualEncoder) and parts.module.image is not None and parts.processor.text is not None
    shown = [picture(), picture(30, 80, 1)]
    pixels = parts.processor.pixels(shown)
    assert torch.equal(pixels, whole.processor.pixels(shown))
    with torch.no_grad():
        close(parts.module.eval().features("image", pixels), whole.module.image(pixels), 1e-6)  # type: ignore[operator, union-attr]
        assert parts.module.encode("image", pixels).shape == (2, 128)
        assert parts.module.encode("text", parts.processor.tokens(CAPTIONS)).shape == (3, 128)
    hub.save(tmp_path / "saved", parts.module, parts.config, parts.processor)
    assert hub.read(tmp_path / "saved").identity.verified


@pytest.mark.parametrize("family", ["bert", "clip", "siglip"])
def test_a_text_tower_of_a_checkpoint_comes_with_its_tokenizer(tmp_path: Path, family: str) -> None:
    where = checkpoint(tmp_path / family, family)
    whole, parts = hub.read(where), start(towers={"text": str(where)})
    tokens = parts.processor.tokens(CAPTIONS)
    assert torch.equal(tokens.ids, whole.processor.tokens(CAPTIONS).ids)
    with torch.no_grad():
        found = parts.module.eval().features("text", tokens)  # type: ignore[operator]
        close(found, whole.module.text(tokens), 1e-6)  # type: ignore[operator, union-attr]


def test_both_towers_under_a_fusion_system(tmp_path: Path) -> None:
    image, text = checkpoint(tmp_path / "vit", "vit"), checkpoint(tmp_path / "bert", "bert")
    shape = {"kind": "late_fusion", "image": {"kind": "vit"}, "text": {"kind": "bert"}, "fusion": "attention", "width": 12}
    parts = begin(ModelSource.parse({"config": shape, "towers": {"image": str(image), "text": str(text)}}), CAPTIONS, BOTH)
    assert torch.equal(parts.module.image.positions.weight, hub.read(image).module.image.positions.weight)  # type: ignore[union-attr]
    assert torch.equal(parts.module.text.embedding.weight, hub.read(text).module.text.embedding.weight)  # type: ignore[union-attr]


def test_positions_are_stretched_on_request_only_as_the_library_does(tmp_path: Path) -> None:
    theirs = references.vit(pooler=False, image_size=24, patch_size=8)
    where = str(references.save(tmp_path / "vit", theirs, size={"height": 24, "width": 24}))
    with pytest.raises(
        UsageError, match=r"positions for 3 x 3 patches \(pictures of 24 x 24 .* asks for 5 x 5 \(40 x 40 .*resize_positions"
    ):
        start(towers={"image": where}, pictures={"size": 40})
    parts = start(towers={"image": where}, pictures={"size": 40}, resize_positions=True)
    pixels = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        expected = theirs(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]
        close(parts.module.eval().features("image", pixels), expected)  # type: ignore[operator]
    assert parts.processor.pixels([picture()]).shape == (1, 3, 40, 40)


def test_convolutions_read_any_size(tmp_path: Path) -> None:
    where = str(checkpoint(tmp_path / "net", "efficientnet"))
    parts = start(towers={"image": where}, pictures={"size": 65})
    assert parts.processor.pixels([picture()]).shape == (1, 3, 65, 65)
    assert parts.config.image.image_size == 65  # type: ignore[union-attr]


def test_what_does_not_fit_says_so(tmp_path: Path) -> None:
    vit, bert = str(checkpoint(tmp_path / "vit", "vit")), str(checkpoint(tmp_path / "bert", "bert"))
    with pytest.raises(UsageError, match="has no such tower; it has: image"):
        start(towers={"text": vit})
    with pytest.raises(UsageError, match="the shape has no such tower to replace; it has: text"):
        begin(ModelSource(preset="mini-bert", vocab_size=320, towers={"image": vit}), CAPTIONS, frozenset({"text"}))
    student = {"kind": "data2vec", "image": {"kind": "beit"}}
    with pytest.raises(ConfigError, match="data2vec has no place for a vit tower"):
        begin(ModelSource.parse({"config": student, "towers": {"image": vit}}), CAPTIONS, frozenset({"image"}))
    with pytest.raises(ValidationError, match="give preset or config, not start"):
        ModelSource(start=vit, towers={"text": bert})


def test_processor_and_model_that_disagree_name_both_numbers(tmp_path: Path) -> None:
    found = hub.read(checkpoint(tmp_path / "siglip", "siglip"))
    words = found.processor.text
    assert words is not None
    from tonggan.data.processor import Processor
    from tonggan.hub.families import agree

    for changes, message in (
        ({"pad_to": None}, "the model reads one length: set pad_to=13"),
        ({"pad_to": 20, "max_length": 20}, "up to 20 tokens by the tokenizer, 13 by the model"),
    ):
        with pytest.raises(TongganError, match=message):
            agree(found.config, Processor(found.processor.image, words.with_settings(**changes)), "here")
    fewer = found.config.model_copy(update={"text": found.config.text.model_copy(update={"vocab_size": 50})})  # type: ignore[union-attr]
    with pytest.raises(TongganError, match=rf"vocabulary: {words.vocab_size} ids by the tokenizer, 50 by the model"):
        agree(fewer, found.processor, "here")


def test_changes_to_an_input_that_the_model_does_not_read_are_refused() -> None:
    words = {"preset": "mini-bert", "vocab_size": 320}
    for field in ("pictures", "sounds", "clips"):
        with pytest.raises(UsageError, match=rf"model\.{field}: the model reads no {field}, .* leave it out"):
            begin(ModelSource.parse({**words, field: {"nonsense": 1}}), CAPTIONS, frozenset({"text"}))


def test_a_fresh_siglip_pads_to_its_length(tmp_path: Path) -> None:
    parts = begin(ModelSource(preset="mini-siglip", vocab_size=320), CAPTIONS, BOTH)
    tokens = parts.processor.tokens(CAPTIONS)
    assert tokens.ids.shape == (3, 64) and tokens.lengths.tolist() == [64, 64, 64]
    hub.save(tmp_path / "saved", parts.module, parts.config, parts.processor, format="tonggan")
    assert hub.read(tmp_path / "saved").identity.verified
