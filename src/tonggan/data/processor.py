"""Everything between a user's item and a model's input, as one object that can be saved, read, and told apart from any other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from tonggan.data.images import ImageProcessing, ImageProcessor, canonical_picture
from tonggan.data.text import TextProcessing, Tokenizer
from tonggan.tensors import Tokens, pad
from tonggan.types import Image

CANONICAL = {
    "zh": "一只红色的小鸟，停在３根树枝上！",
    "en": "A photo of the cat's  2 kittens &amp; a café — it’s GREAT :)",
    "mixed": "iPhone 15手机壳🐱ﬁ\u200d\n<b>HTML</b>",
    "long": "a very long caption that goes on 一直写下去 " * 60,
}
"""Strings on which any two tokenizers or settings differ: Chinese, full-width forms, contractions, entities, emoji, and one too long."""


class Processor:
    """A picture processor, a tokenizer, or both."""

    def __init__(self, image: ImageProcessor | None = None, text: Tokenizer | None = None) -> None:
        self.image, self.text = image, text

    def pixels(self, images: Sequence[Image | PIL.Image.Image]) -> Tensor:
        """uint8 [N, 3, H, W]; raises `MediaError` for the first that cannot be read."""
        assert self.image is not None, "this processor reads no pictures"
        return torch.from_numpy(np.stack([self.image(image) for image in images]))

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """Ids padded to the batch's longest, unless the settings say a fixed length."""
        assert self.text is not None, "this processor reads no text"
        ids, _ = self.text.encode(texts)
        return self.collate(ids)

    def collate(self, ids: Sequence[Sequence[int]]) -> Tokens:
        """Id lists as one batch."""
        assert self.text is not None
        config = self.text.config
        if config.pad_to is None:
            return pad(ids, config.pad_id)
        full = [[*row, *[config.pad_id] * (config.pad_to - len(row))] for row in ids]
        # Such models attend to their padding: to them it belongs to the text.
        return pad(full, config.pad_id)

    def settings(self) -> dict[str, Any]:
        """What `tonggan.json` keeps; together with `tokenizer.json` it is the whole processor."""
        return {
            "image": self.image.config.model_dump(mode="json") if self.image else None,
            "text": self.text.config.model_dump(mode="json") if self.text else None,
        }

    def record(self) -> dict[str, Any]:
        """Every setting literally, and fingerprints of what the settings do: this half of a model's identity."""
        found: dict[str, Any] = {}
        if self.image is not None:
            pixels = self.image(canonical_picture(), decode="exact")
            found["image"] = {**self.image.config.model_dump(mode="json"), "pixels": hashlib.sha256(pixels.tobytes()).hexdigest()[:16]}
        if self.text is not None:
            ids, _ = self.text.encode(list(CANONICAL.values()))
            digests = {
                f"ids.{name}": hashlib.sha256(np.array(row, dtype="<i4").tobytes()).hexdigest()[:16]
                for name, row in zip(CANONICAL, ids, strict=True)
            }
            found["text"] = {**self.text.config.model_dump(mode="json"), "vocab_size": self.text.vocab_size, **digests}
        return found

    def save(self, directory: str | Path) -> dict[str, Any]:
        """Write `tokenizer.json` where there is one; gives the settings for `tonggan.json`."""
        if self.text is not None:
            self.text.save(Path(directory) / "tokenizer.json")
        return self.settings()

    @classmethod
    def read(cls, directory: str | Path, settings: Mapping[str, Any]) -> Processor:
        """The processor that `save` wrote."""
        image, text = settings.get("image"), settings.get("text")
        return cls(
            ImageProcessor(ImageProcessing.parse(image, f"{directory}/tonggan.json: processor.image")) if image else None,
            Tokenizer.from_file(Path(directory) / "tokenizer.json", TextProcessing.parse(text, f"{directory}/tonggan.json: processor.text"))
            if text
            else None,
        )
