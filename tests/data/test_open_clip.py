"""Pixels and token ids as open_clip makes them, against what it once gave (`golden/open_clip_inputs.py`)."""

from __future__ import annotations

import json
from typing import Any, Literal

import numpy as np
import pytest

from data.golden.open_clip_inputs import CONTEXT, PIXELS, SIDE, SIZES, TOKENS, picture
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.text import END, START, TextProcessing, Tokenizer


@pytest.mark.parametrize(("theirs", "mode"), [("shortest", "crop"), ("squash", "squash")])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_every_pixel(size: tuple[int, int], theirs: str, mode: Literal["crop", "squash"]) -> None:
    with np.load(PIXELS) as golden:
        expected = golden[f"{theirs} {size[0]}x{size[1]}"]
    assert np.array_equal(ImageProcessor(ImageProcessing(mode=mode, size=SIDE, rounding="openai"))(picture(*size)), expected)


def test_the_other_rounding_is_another_picture() -> None:
    """Or the golden pictures would prove nothing about where the crop falls."""
    with np.load(PIXELS) as golden:
        differ = [
            size
            for size in SIZES
            if not np.array_equal(
                ImageProcessor(ImageProcessing(size=SIDE, rounding="transformers"))(picture(*size)), golden[f"shortest {size[0]}x{size[1]}"]
            )
        ]
    assert differ


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TOKENS.read_text("utf-8"))
    return found


def tokenizer(golden: dict[str, Any], **settings: Any) -> Tokenizer:
    vocab = golden["vocab"] | {START: golden["start"], END: golden["end"]}
    return Tokenizer.clip(vocab, [(a, b) for a, b in golden["merges"]], TextProcessing(cleaning="openai", **settings))


def test_every_id(golden: dict[str, Any]) -> None:
    ids, cut = tokenizer(golden, max_length=1000).encode([text for text, _ in golden["ids"]])
    start, end = golden["start"], golden["end"]
    wrong = [text for (text, expected), found in zip(golden["ids"], ids, strict=True) if found != [start, *expected, end]]
    assert wrong == [] and cut == []


def test_a_long_caption_is_cut_in_the_same_place(golden: dict[str, Any]) -> None:
    (ids,), cut = tokenizer(golden, max_length=CONTEXT).encode([golden["ids"][-1][0]])
    assert ids == golden["cut"] and cut == [0]
