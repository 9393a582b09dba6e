"""What a model that talks begins with: words of its own, and how conversations are written out for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tonggan.config import height_width
from tonggan.data.chat import ChatProcessing, Placeholder, TileProcessing
from tonggan.data.processor import Processor
from tonggan.data.text import END, START, Tokenizer
from tonggan.data.video import VideoProcessing, VideoProcessor
from tonggan.models import (
    CaptionerConfig,
    ChatConfig,
    CocaConfig,
    EncoderDecoderConfig,
    FlamingoConfig,
    GitConfig,
    GPTConfig,
    ModelConfig,
)
from tonggan.models.projectors import QueriesConfig
from tonggan.models.towers import LogMelConfig, ViTConfig
from tonggan.types import UsageError

SPEAKING = (CaptionerConfig, ChatConfig, CocaConfig, EncoderDecoderConfig, FlamingoConfig, GPTConfig, GitConfig)
"""Shapes of models that say what they have read, to the letter."""


def worded(shape: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The shape with a tokenizer's words in place of its own. Placeholders that stand behind a decoder's words still do, and what is said
    begins and ends with the tokenizer's tokens for these."""
    text: Any = getattr(shape, "text", None)
    changes: dict[str, Any] = {"text": text.model_copy(update={"vocab_size": tokenizer.vocab_size})}
    if not isinstance(shape, SPEAKING):
        return shape.model_copy(update=changes)
    for name in ("image_token", "video_token", "audio_token"):
        token = getattr(shape, name, None)
        if token is not None and token >= text.vocab_size:
            changes[name] = tokenizer.vocab_size + token - text.vocab_size
    for name, word in (("start", START), ("ends", END)):
        if hasattr(shape, name) and (token := tokenizer.id_of(word)) is not None:
            changes[name] = (token,)
    return type(shape).parse({**shape.model_dump(), **{k: _plain(v) for k, v in changes.items()}}, "model.config")


def conversing(
    shape: ModelConfig, module: nn.Module, processor: Processor, base: ChatProcessing | None, changes: Mapping[str, Any]
) -> Processor:
    """The processor with conversations: those of `base` (of a decoder that came with some) or our own, under the recipe's `changes`.

    What reads pictures among words always has them, a language model where the recipe, or its checkpoint, says something of them. Raises
    `UsageError` for a model that has none.
    """
    if not isinstance(shape, ChatConfig | FlamingoConfig) and not (isinstance(shape, GPTConfig) and (changes or base)):
        if changes:
            raise UsageError(f"model.chat: a {shape.kind} takes one message without a template; leave it out")
        return processor
    if "context" in changes:
        raise UsageError("model.chat.context: a conversation is as long as the model's context; set model.config.text.context")
    written = {} if base is None else base.model_dump()
    settings = {**written, **_places(shape, module, processor), **changes, "context": shape.text.context}
    return processor.with_chat(ChatProcessing.parse(settings, "model.chat"))


def watching(shape: ModelConfig, processor: Processor, clips: Mapping[str, Any]) -> Processor:
    """The processor of what looks at pictures among words, for clips as well, where the recipe says how: their frames are pictures."""
    if not clips or not isinstance(shape, ChatConfig | FlamingoConfig) or processor.image is None or processor.video is not None:
        return processor
    frames = {"image": {**processor.image.config.model_dump(), **clips.get("image", {})}}
    settings = {"frames": getattr(shape, "frames", None) or 8, **clips, **frames}
    video = VideoProcessor(VideoProcessing.parse(settings, "model.clips"))
    return Processor(processor.image, processor.text, processor.audio, video)


def _places(shape: ChatConfig | FlamingoConfig | GPTConfig, module: nn.Module, processor: Processor) -> dict[str, Any]:
    """The placeholders of what a model sees and hears."""
    if isinstance(shape, FlamingoConfig):
        image = Placeholder(text="<image>", id=shape.image_token)
        clips = {"video": Placeholder(text="<video>", id=shape.image_token), "clips": "whole"} if processor.video is not None else {}
        return {"image": image, **clips}
    if not isinstance(shape, ChatConfig):
        return {}
    found: dict[str, Any] = {}
    if shape.image is not None and shape.image_token is not None:
        count = _features(module, height_width(shape.image.image_size))
        found["image"] = Placeholder(text="<image>", id=shape.image_token, count=count)
        if shape.tiles is not None:
            assert isinstance(shape.image, ViTConfig), "or there are no tiles"
            found["tiles"] = TileProcessing(grids=shape.tiles.grids, most=shape.tiles.most, side=shape.image.grid[0])
        if processor.video is not None:
            found["video"] = Placeholder(text="<video>", id=shape.video_token or shape.image_token, count=count)
    if shape.audio is not None and shape.audio_token is not None:
        if isinstance(shape.audio_projector, QueriesConfig):
            length = {"count": shape.audio_projector.queries}
        elif isinstance(shape.audio, LogMelConfig):
            length = {"every": 2 * shape.audio_projector.stack}  # its second convolution halves the frames
        else:
            raise UsageError("model.config.audio: begun here, a chat model hears by log_mel; or set audio_projector.kind: queries")
        found["audio"] = Placeholder(text="<audio>", id=shape.audio_token, **length)
    return found


def _features(module: nn.Module, size: tuple[int, int]) -> int:
    """How many stand for one picture: asked of the model, which knows."""
    training = module.training
    with torch.no_grad():
        features = module.eval().pictures(torch.zeros(1, 3, *size, dtype=torch.uint8))  # type: ignore[operator]
    module.train(training)
    return len(features[0])


def _plain(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value
