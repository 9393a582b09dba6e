"""What models are compared on: canonical and seeded items as files and strings, and the reference's named tensors made of them.

Shape letters: B rows, L tokens, H W pixels, T frames.
"""

from __future__ import annotations

import wave
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from tonggan.data.audio import canonical_sound
from tonggan.data.images import ImageProcessing, canonical_picture
from tonggan.data.processor import CANONICAL, Processor
from tonggan.tensors import Modality
from tonggan.types import Audio, Image, Item, Text, Video
from tonggan.verify import conversations
from tonggan.verify.conversations import Conversation

WORDS = (
    "a",
    "the",
    "red",
    "Bird",
    "photo",
    "of",
    "2",
    "kittens,",
    "it's",
    "一只",
    "红色的",
    "小鸟",
    "停在",
    "树枝上。",
    "３",
    "🐱",
    "café",
    "&amp;",
)


@dataclass(frozen=True, slots=True)
class Items:
    """As many of each kind as of every other, so that models that read two kinds together can be asked too."""

    texts: tuple[str, ...]
    images: tuple[Path, ...]
    sounds: tuple[Path, ...]
    clips: tuple[Path, ...]
    conversations: tuple[Conversation, ...] = ()
    """Of the others, for models that read them in one text; then they are read no other way."""

    def __getitem__(self, which: slice) -> Items:
        """Some of each kind."""
        return Items(self.texts[which], self.images[which], self.sounds[which], self.clips[which], self.conversations[which])

    def conversing(self) -> Items:
        """With conversations of them."""
        return replace(self, conversations=conversations.of(self.texts, self.images, self.clips))

    def of(self, kind: Modality) -> list[Item]:
        """Those of one kind, as users give them."""
        given: dict[Modality, list[Item]] = {
            "text": [Text(text) for text in self.texts],
            "image": [Image.open(file) for file in self.images],
            "audio": [Audio.open(file) for file in self.sounds],
            "video": [Video.open(file) for file in self.clips],
        }
        return given[kind]


def write_items(directory: Path, processor: Processor, *, count: int, seed: int) -> Items:
    """The canonical picture, strings and sound first, then seeded random ones; files of the kinds that the processor reads."""
    random = np.random.default_rng(seed)
    strings = [*CANONICAL.values(), *(" ".join(random.choice(WORDS, random.integers(1, 40))) for _ in range(count))]
    canonical = canonical_picture()
    # Models that keep a picture's shape (ViLT) read batches of one shape only.
    one = canonical.size if processor.image is not None and processor.image.config.mode == "keep" else None
    pictures = [canonical, *(_picture(random, one) for _ in range(count - 1))]
    images, sounds, clips = [], [], []
    for i, picture in enumerate(pictures[:count]):
        if processor.image is not None:
            images.append(directory / f"{i}.png")
            picture.save(images[-1])
        if processor.audio is not None:
            rate = processor.audio.config.rate
            sounds.append(_sound(directory / f"{i}.wav", rate, canonical_sound(rate) if i == 0 else _tones(random, rate)))
        if processor.video is not None:
            clips.append(directory / f"{i}-clip.png")
            frames = [picture.rotate(angle) for angle in range(0, 120, 7)]
            frames[0].save(clips[-1], save_all=True, append_images=frames[1:], duration=100)
    return Items(tuple(strings[:count]) if processor.text is not None else (), tuple(images), tuple(sounds), tuple(clips))


def read_items(processor: Processor, items: Items) -> dict[Modality, Any]:
    """What our processor makes of the items, as the towers read it."""
    found: dict[Modality, Any] = {}
    if items.texts:
        found["text"] = processor.tokens(items.texts)
    if items.images:
        found["image"] = processor.pixels([Image.open(file) for file in items.images])
    if items.sounds and processor.audio is not None:
        found["audio"] = processor.audio.collate([processor.audio(Audio.open(file)) for file in items.sounds])
    if items.clips and processor.video is not None:
        found["video"] = torch.from_numpy(np.stack([processor.video(Video.open(file)) for file in items.clips]))
    return found


def named(processor: Processor, items: Items, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The same under the names and in the form of the reference's forward, numbers in a precision."""
    if items.conversations and processor.chat is not None:
        return conversations.named(processor.chat, items.conversations, dtype)
    read, found = read_items(processor, items), {}
    if (tokens := read.get("text")) is not None:
        found["input_ids"] = tokens.ids
        found["attention_mask"] = _own(tokens.lengths, tokens.ids.shape[1])
    if (pixels := read.get("image")) is not None and processor.image is not None:
        found["pixel_values"] = _normal(pixels.to(dtype), processor.image.config)
    if (clips := read.get("video")) is not None and processor.video is not None:
        found["pixel_values"] = _normal(clips.to(dtype), processor.video.config.image)
    if (sounds := read.get("audio")) is not None and processor.audio is not None:
        wave_form = processor.audio.config.kind == "waveform"
        found["input_values" if wave_form else "input_features"] = sounds.values.to(dtype)
        if wave_form:
            found["attention_mask"] = _own(sounds.lengths, sounds.values.shape[1])
    return found


def random_like(inputs: dict[str, Tensor], *, vocabulary: int, pad: int, seed: int, kept: Collection[int] = ()) -> dict[str, Tensor]:
    """Random tensors of the same shapes: normal numbers; any ids but the special ones and those to be `kept` (placeholders), which stay
    where they stand."""
    generator = torch.Generator().manual_seed(seed)
    found = dict(inputs)
    for name, tensor in inputs.items():
        if tensor.is_floating_point():
            found[name] = torch.randn(tensor.shape, generator=generator)
    if (ids := inputs.get("input_ids")) is not None and ids.shape[1] > 2:
        ends = inputs["attention_mask"].sum(dim=1) - 1
        special = {pad, *kept, *ids[:, 0].tolist(), *ids[torch.arange(len(ids)), ends].tolist()}
        plain = torch.tensor([i for i in range(vocabulary) if i not in special])
        drawn = plain[torch.randint(len(plain), ids.shape, generator=generator)]
        at = torch.arange(ids.shape[1])
        held = torch.isin(ids, torch.tensor(list(kept), dtype=ids.dtype))
        found["input_ids"] = torch.where((at > 0) & (at < ends[:, None]) & ~held, drawn, ids)
    return found


def _own(lengths: Tensor, longest: int) -> Tensor:
    return (torch.arange(longest) < lengths[:, None]).long()


def pictures(files: Sequence[Path]) -> list[PIL.Image.Image]:
    """As any program opens them."""
    return [PIL.Image.open(file).convert("RGB") for file in files]


def _normal(pixels: Tensor, config: ImageProcessing) -> Tensor:
    """With the arithmetic of `nn.patches.Normalize`, which keeps mean and deviation in single precision."""
    mean, std = (torch.tensor(given).view(3, 1, 1) for given in (config.mean, config.std))
    return (pixels / 255 - mean) / std


def _picture(random: np.random.Generator, size: tuple[int, int] | None) -> PIL.Image.Image:
    """Coloured tiles, enlarged to a size, or any: edges and flat parts."""
    tiles = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    width, height = (int(n) for n in random.integers(20, 400, 2))
    return PIL.Image.fromarray(tiles).resize(size or (width, height), PIL.Image.Resampling.BILINEAR)


def _tones(random: np.random.Generator, rate: int) -> np.ndarray:
    """One to two seconds of three tones."""
    at = np.arange(int(rate * random.uniform(1, 2))) / rate
    return 0.3 * sum(np.sin(2 * np.pi * hertz * at) for hertz in random.uniform(80, rate / 4, 3))


def _sound(file: Path, rate: int, samples: np.ndarray) -> Path:
    """A plain WAV file."""
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples * 32768).astype("<i2").tobytes())
    return file
