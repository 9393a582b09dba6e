"""What a run begins with: a model, and how its input is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn

from tonggan import steps
from tonggan.backends import load_local
from tonggan.config import ConfigError, one_of
from tonggan.data.audio import AudioProcessing, AudioProcessor
from tonggan.data.chat import ChatProcessing
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.kept import NAMES
from tonggan.data.processor import Processor
from tonggan.data.text import train_bpe
from tonggan.data.video import VideoProcessing, VideoProcessor
from tonggan.hub.families import agree
from tonggan.hub.read import with_shortest
from tonggan.models import Classifier, ModelConfig, build, presets
from tonggan.models.towers import FramesConfig, LogMelConfig, TubeletConfig, WaveformConfig
from tonggan.recipes.config import ModelSource
from tonggan.recipes.grafts import fill, fitted
from tonggan.recipes.talking import SPEAKING, conversing, watching, worded
from tonggan.recipes.towers import towers_of
from tonggan.steps import StepConfig
from tonggan.tensors import MODALITIES, Modality, Vocabulary
from tonggan.types import Identity, UsageError


class Parts(NamedTuple):
    """A model in training: the module, its shape, and how its input is made."""

    module: nn.Module
    config: ModelConfig
    processor: Processor
    labels: tuple[str, ...] | None = None
    """Names of a classifier's classes, where it began with some."""
    identity: Identity | None = None
    """Of the checkpoint that it began with."""

    def vocabulary(self, step: StepConfig) -> Vocabulary | None:
        """What a step that hides words takes them from; None for the others."""
        words = self.processor.text
        return words.vocabulary() if words is not None and steps.hides_words(step) else None


def begin(source: ModelSource, captions: Iterable[str], needs: frozenset[Modality], *, mask: bool = False) -> Parts:
    """The model that a recipe starts from, which must take the kinds of input that it `needs`.

    A shape without weights gets a tokenizer that is trained on `captions`; with `mask` it has a token for hidden words.
    """
    parts = _started(source) if source.start is not None else _fresh(source, captions, mask)
    _check(source, parts, needs)
    return parts


def _started(source: ModelSource) -> Parts:
    found = load_local(str(source.start), device="cpu")
    processor = _changed(source, found.processor, found.config)
    if (chat := found.processor.chat) is not None:
        processor = processor.with_chat(ChatProcessing.parse({**chat.config.model_dump(), **source.chat}, "model.chat"))
    elif source.chat:
        processor = conversing(found.config, found.module, processor, None, source.chat)
    return Parts(found.module.train(), found.config, processor, found.labels, found.identity)


def _fresh(source: ModelSource, captions: Iterable[str], mask: bool) -> Parts:
    shape: ModelConfig = source.config or presets()[one_of(str(source.preset), presets(), "preset")]
    pretrained = towers_of(source, shape)
    shape = fitted(shape, pretrained, written=source.config is not None)
    towers = {kind: None if kind in pretrained else getattr(shape, kind, None) for kind in MODALITIES}
    tokenizer = None
    if (words := towers["text"]) is not None:
        # Of an encoder-decoder the source has a length of its own.
        longest = min(words.context, getattr(getattr(shape, "source", None), "context", words.context))
        tokenizer = train_bpe(captions, source.vocab_size, max_length=longest, mask=mask, exact=isinstance(shape, SPEAKING))
        if getattr(words, "pooling", None) == "last":
            tokenizer = tokenizer.with_settings(pad_to=words.context)
        shape = worded(shape, tokenizer)
    try:
        module = build(shape)
    except ConfigError as error:
        raise ConfigError(f"model.config: {error}") from None
    fill(module, shape, pretrained)
    made: dict[Modality, Any] = {
        "image": towers["image"] and ImageProcessor(_pictures(towers["image"])),
        "text": tokenizer,
        "audio": towers["audio"] and AudioProcessor(_sounds(towers["audio"])),
        "video": towers["video"] and VideoProcessor(_clips(towers["video"])),
    }
    made |= {kind: tower.prepares for kind, tower in pretrained.items()}
    processor = watching(shape, Processor(made["image"], made["text"], made["audio"], made["video"]), source.clips)
    processor = _changed(source, processor, shape)
    base = pretrained["text"].chat if "text" in pretrained else None
    processor = conversing(shape, module, processor, base, source.chat)
    agree(shape, processor, "model")
    return Parts(module, shape, processor)


def _pictures(tower: Any) -> ImageProcessing:
    """The whole picture, with white beside it."""
    return ImageProcessing(mode="pad", size=tower.image_size, mean=tower.mean, std=tower.std)


def _sounds(tower: LogMelConfig | WaveformConfig) -> AudioProcessing:
    """As long as the tower's positions reach; waveforms have no end but the recipe's."""
    if isinstance(tower, WaveformConfig):
        return AudioProcessing(kind="waveform", normalize="unit")
    plain = AudioProcessing(bins=tower.bins)
    return AudioProcessing(bins=tower.bins, seconds=2 * tower.context * plain.hop / plain.rate)


def _clips(tower: TubeletConfig | FramesConfig) -> VideoProcessing:
    return VideoProcessing(frames=tower.frames, image=_pictures(tower.image if isinstance(tower, FramesConfig) else tower))


def _changed(source: ModelSource, processor: Processor, config: ModelConfig) -> Processor:
    """The processor under the recipe's changes to how pictures, sounds and clips are prepared."""
    image, audio, video = processor.image, processor.audio, processor.video
    for field, part in (("pictures", image), ("sounds", audio), ("clips", video)):
        if getattr(source, field) and part is None:
            raise UsageError(f"model.{field}: the model reads no {field}, so there is nothing to change; leave it out")
    if source.pictures and image is not None:
        pictures = ImageProcessing.parse({**image.config.model_dump(), **source.pictures}, "model.pictures")
        if (tower := getattr(config, "image", None)) is not None and pictures.side != tower.image_size:
            raise UsageError(f"model.pictures: pictures of {pictures.side} pixels, but the tower reads {tower.image_size}")
        image = ImageProcessor(pictures)
    if source.sounds and audio is not None:
        audio = AudioProcessor(AudioProcessing.parse({**audio.config.model_dump(), **source.sounds}, "model.sounds"))
    if source.clips and video is not None:
        before = video.config.model_dump()
        frames = {"image": {**before["image"], **source.clips.get("image", {})}}
        video = VideoProcessor(VideoProcessing.parse({**before, **source.clips, **frames}, "model.clips"))
    made = Processor(image, processor.text, audio, video)
    agree(config, made, "model")
    return with_shortest(config, made)


def _check(source: ModelSource, parts: Parts, needs: frozenset[Modality]) -> None:
    """Every kind of input that is trained on has a tower."""
    there: frozenset[Modality] = getattr(parts.module, "modalities", frozenset())
    lacks = [kind for kind in MODALITIES if kind in needs and kind not in there]
    if not lacks:
        return
    name = source.start or source.preset or "model.config"
    if isinstance(parts.module, Classifier):
        raise UsageError(f"model.start: {name} is a classifier; pair it with a text model: {name}+TEXT")
    if source.start is not None and lacks[0] in ("image", "text"):
        pair = f"PICTURES+{name}" if lacks[0] == "image" else f"{name}+TEXT"
        raise UsageError(f"{name} has no {'picture' if lacks[0] == 'image' else 'text'} tower; give it one as a pair: {pair}")
    raise UsageError(f"{name} reads no {NAMES[lacks[0]]}s, which its streams learn from; it takes: {', '.join(sorted(there))}")
