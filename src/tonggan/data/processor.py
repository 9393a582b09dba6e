"""Everything between a user's item and a model's input, as one object that can be saved, read, and told apart from any other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from tonggan.config import Config
from tonggan.data.audio import AudioProcessing, AudioProcessor, canonical_sound
from tonggan.data.chat import ChatProcessing, ChatProcessor
from tonggan.data.images import ImageProcessing, ImageProcessor, canonical_picture, stack
from tonggan.data.text import TextProcessing, Tokenizer
from tonggan.data.video import VideoProcessing, VideoProcessor, canonical_clip
from tonggan.tensors import MODALITIES, Modality, Tokens, pad
from tonggan.types import Image, UsageError

CANONICAL = {
    "zh": "一只红色的小鸟，停在３根树枝上！",
    "en": "A photo of the cat's  2 kittens &amp; a café — it’s GREAT :)",
    "mixed": "iPhone 15手机壳🐱ﬁ\u200d\n<b>HTML</b>",
    "long": "a very long caption that goes on 一直写下去 " * 60,
}
"""Strings on which any two tokenizers or settings differ: Chinese, full-width forms, contractions, entities, emoji, and one too long."""


SettingsT = TypeVar("SettingsT", bound=Config)


class Processor:
    """What prepares pictures, text, sounds and clips: each kind that a model takes, and conversations of them where it can chat."""

    def __init__(
        self,
        image: ImageProcessor | None = None,
        text: Tokenizer | None = None,
        audio: AudioProcessor | None = None,
        video: VideoProcessor | None = None,
        chat: ChatProcessor | None = None,
    ) -> None:
        self.image, self.text, self.audio, self.video, self.chat = image, text, audio, video, chat

    def pixels(self, images: Sequence[Image | PIL.Image.Image]) -> Tensor:
        """uint8 [N, 3, H, W]; raises `MediaError` for the first that cannot be read."""
        assert self.image is not None, "this processor reads no pictures"
        return torch.from_numpy(stack([self.image(image) for image in images]))

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """Ids padded to the batch's longest, unless the settings say a fixed length."""
        assert self.text is not None, "this processor reads no text"
        ids, _ = self.text.encode(texts)
        return self.collate(ids)

    def collate(self, ids: Sequence[Sequence[int]]) -> Tokens:
        """Id lists as one batch.

        A caption may spell out CLIP's end token. The state at the first one is the text, in OpenAI's code and the library's, and in a
        causal tower nothing behind it is seen from there: so a row ends there.
        """
        assert self.text is not None
        config, end = self.text.config, self.text.end
        if end is not None:
            ids = [row[: row.index(end) + 1] if end in row else row for row in ids]
        if config.pad_to is None:
            return pad(ids, config.pad_id)
        full = pad([[*row, *[config.pad_id] * (config.pad_to - len(row))] for row in ids], config.pad_id)
        return full if config.pad_counts else Tokens(full.ids, torch.tensor([len(row) for row in ids], dtype=torch.long))

    def parts(self) -> dict[Modality, ImageProcessor | Tokenizer | AudioProcessor | VideoProcessor]:
        """What there is, by kind of input."""
        every: dict[Modality, ImageProcessor | Tokenizer | AudioProcessor | VideoProcessor | None]
        every = {"image": self.image, "text": self.text, "audio": self.audio, "video": self.video}
        return {kind: part for kind, part in every.items() if part is not None}

    def settings(self) -> dict[str, Any]:
        """What `tonggan.json` keeps; together with `tokenizer.json` it is the whole processor."""
        parts = self.parts()
        settings = {kind: parts[kind].config.model_dump(mode="json") if kind in parts else None for kind in MODALITIES}
        return settings | ({} if self.chat is None else {"chat": self.chat.config.model_dump(mode="json")})

    def record(self) -> dict[str, Any]:
        """Every setting literally, and fingerprints of what the settings do: this half of a model's identity."""
        found: dict[str, Any] = {}
        if self.image is not None:
            pixels = self.image(canonical_picture(), decode="exact")
            found["image"] = {**self.image.config.model_dump(mode="json"), "pixels": _digest(pixels)}
        if self.text is not None:
            ids, _ = self.text.encode(list(CANONICAL.values()))
            digests = {f"ids.{name}": _digest(np.array(row, dtype="<i4")) for name, row in zip(CANONICAL, ids, strict=True)}
            settings = self.text.config.model_dump(mode="json")
            found["text"] = {**settings, "vocab_size": self.text.vocab_size, "tokenizer": self.text.fingerprint, **digests}
        if self.audio is not None:
            found["audio"] = {**self.audio.config.model_dump(mode="json"), **_heard(self.audio)}
        if self.video is not None:
            found["video"] = {**self.video.config.model_dump(mode="json"), "pixels": _digest(self.video(canonical_clip()))}
        if self.chat is not None:
            found["chat"] = self.chat.record()
        return found

    def save(self, directory: str | Path) -> dict[str, Any]:
        """Write `tokenizer.json` where there is one; gives the settings for `tonggan.json`."""
        if self.text is not None:
            self.text.save(Path(directory) / "tokenizer.json")
        return self.settings()

    @classmethod
    def read(cls, directory: str | Path, settings: Mapping[str, Any]) -> Processor:
        """The processor that `save` wrote."""

        def part(kind: str, settings_of: type[SettingsT]) -> SettingsT | None:
            found = settings.get(kind)
            return settings_of.parse(found, f"{directory}/tonggan.json: processor.{kind}") if found else None

        image, text = part("image", ImageProcessing), part("text", TextProcessing)
        audio, video = part("audio", AudioProcessing), part("video", VideoProcessing)
        whole = cls(
            ImageProcessor(image) if image else None,
            Tokenizer.from_file(Path(directory) / "tokenizer.json", text) if text else None,
            AudioProcessor(audio) if audio else None,
            VideoProcessor(video) if video else None,
        )
        return whole.with_chat(part("chat", ChatProcessing))

    def with_chat(self, config: ChatProcessing | None) -> Processor:
        """The same for conversations that are written out so; None: for none. Raises `UsageError` where there is no tokenizer for them."""
        if config is None:
            return Processor(self.image, self.text, self.audio, self.video)
        if self.text is None:
            raise UsageError("a model without a tokenizer has no conversations")
        chat = ChatProcessor(config, self.text, self.image, self.audio, self.video)
        return Processor(self.image, self.text, self.audio, self.video, chat)


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def _heard(process: AudioProcessor) -> dict[str, Any]:
    """What the settings make of the canonical sound. Spectrograms are values: their last digits are the machine's, and are compared so."""
    heard = process(canonical_sound(process.config.rate))
    if process.config.kind == "waveform":
        # Room for 8 standard deviations; rounded, so that the last bits of a mean do not count.
        return {"samples": _digest(np.round(heard * 4096).astype("<i2"))}
    places = np.linspace(0, heard.size - 1, 64).astype(int)
    return {"mel": [round(float(value), 6) for value in heard.ravel()[places]]}
