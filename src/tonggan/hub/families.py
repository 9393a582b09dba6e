"""The formats that directories may have, and which one a `config.json` names or a model fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from tonggan.config import did_you_mean
from tonggan.data.audio import AudioProcessing
from tonggan.data.processor import Processor
from tonggan.data.text import Tokenizer
from tonggan.data.video import VideoProcessing
from tonggan.hub.convert import (
    align,
    bart,
    bert,
    blip,
    blip_retrieval,
    chinese_clip,
    clip,
    coca,
    data2vec_audio,
    data2vec_text,
    data2vec_vision,
    efficientnet_hf,
    git,
    gpt2,
    idefics,
    llama,
    llava,
    llava_onevision,
    ours,
    roberta,
    siglip,
    t5,
    videomae,
    vilt,
    vit,
    whisper,
)
from tonggan.hub.convert.table import KeyTable
from tonggan.hub.weights import CONFIGS, WHOLE, read_json
from tonggan.models import ModelConfig
from tonggan.models.towers import AudioTowerConfig, FramesConfig, LogMelConfig, VideoTowerConfig
from tonggan.types import TongganError


@dataclass(frozen=True)
class Family:
    """One format of directories, read and written by the functions of one module in `convert/`."""

    name: str
    model_types: tuple[str, ...]
    """What `config.json` says of itself."""
    read: Callable[[Mapping[str, Any], Path], tuple[ModelConfig, Processor]]
    """Of the content of config.json and the directory."""
    write: Callable[[Path, ModelConfig, Processor], None]
    """All files but the weights."""
    misfit: Callable[[ModelConfig, Processor | None], str | None]
    """Why a model cannot be written in this format; None when it can. Without a processor only the model's shape is judged."""
    table: Callable[[ModelConfig], KeyTable] | None
    """None: the names of tensors are ours."""
    outputs: Callable[[Any, Mapping[str, Tensor]], dict[str, Tensor]] | None
    """Our module on the named tensors of the reference's forward; gives the reference's names. None: there is no reference."""
    heads: tuple[str, ...] = ()
    """Architectures that are read, where a model type has others as well that are not ours; none named: all."""
    weights: tuple[str, ...] = WHOLE
    """Names of the weights file by preference; the first is written."""

    def reads(self, raw: Mapping[str, Any]) -> bool:
        """Whether a `config.json` is of this family."""
        return raw.get("model_type") in self.model_types and (not self.heads or bool(set(self.heads) & set(raw.get("architectures") or ())))


class Format(Protocol):
    """What a module in `convert/` for a published format has."""

    @property
    def MODEL_TYPES(self) -> tuple[str, ...]: ...  # noqa: N802 - a constant in each module

    def read(self, raw: Mapping[str, Any], directory: Path, /) -> tuple[ModelConfig, Processor]: ...
    def write(self, directory: Path, config: ModelConfig, processor: Processor, /) -> None: ...
    def misfit(self, config: ModelConfig, processor: Processor | None, /) -> str | None: ...
    def table(self, config: ModelConfig, /) -> KeyTable: ...
    def outputs(self, module: Any, inputs: Mapping[str, Tensor], /) -> dict[str, Tensor]: ...


def _family(name: str, form: Format, heads: tuple[str, ...] = (), weights: tuple[str, ...] = WHOLE) -> Family:
    return Family(name, form.MODEL_TYPES, form.read, form.write, form.misfit, form.table, form.outputs, heads, weights)


OURS = Family("tonggan", ours.MODEL_TYPES, ours.read, ours.write, lambda config, processor: None, None, None)
PUBLISHED = (
    _family("clip", clip),
    _family("siglip", siglip, siglip.HEADS),
    _family("chinese-clip", chinese_clip),
    _family("align", align),
    _family("vit", vit, vit.HEADS),
    _family("efficientnet", efficientnet_hf),
    _family("bert", bert),
    _family("roberta", roberta),
    _family("data2vec-text", data2vec_text),
    _family("data2vec-vision", data2vec_vision),
    _family("data2vec-audio", data2vec_audio),
    _family("whisper", whisper),
    _family("t5", t5, t5.HEADS),
    _family("bart", bart, bart.HEADS),
    _family("videomae", videomae),
    _family("vilt", vilt, vilt.HEADS),
    _family("blip", blip_retrieval, blip_retrieval.HEADS),
    _family("blip-talks", blip, blip.HEADS),
    _family("git", git, git.HEADS),
    _family("coca", coca, weights=coca.WEIGHTS),
    _family("idefics", idefics, idefics.HEADS),
    _family("gpt2", gpt2, gpt2.HEADS),
    _family("llama", llama, llama.HEADS),
    _family("llava", llava, llava.HEADS),
    _family("llava-onevision", llava_onevision, llava_onevision.HEADS),
)
"""In the order in which a model is tried for a format that has a place for it: the more particular first."""


def described(directory: Path) -> tuple[dict[str, Any], Path]:
    """What a directory says of the model in it, and the file it stands in: `config.json`, or open_clip's own where there is no other,
    which tells its kind by its parts."""
    file = next((directory / name for name in CONFIGS if (directory / name).is_file()), directory / CONFIGS[0])
    raw = read_json(file)
    if file.name != coca.FILE:
        return raw, file
    if "multimodal_cfg" not in (raw.get("model_cfg") or {}):
        raise TongganError(f"{file}: of open_clip only CoCa is read; a CLIP needs the config.json and weights of its Hugging Face form")
    return {**raw, "model_type": coca.MODEL_TYPES[0]}, file


def family_of(raw: Mapping[str, Any], where: str) -> Family:
    """The family that a `config.json` names; raises `TongganError` that lists those supported."""
    kind = raw.get("model_type")
    for family in (*PUBLISHED, OURS):
        if family.reads(raw):
            return family
    known = [name for family in (*PUBLISHED, OURS) for name in family.model_types]
    what = f"model_type {kind!r} is not supported{did_you_mean(str(kind), known)}" if kind else "it has no model_type"
    if heads := [head for family in PUBLISHED if kind in family.model_types for head in family.heads]:
        given = ", ".join(raw.get("architectures") or ()) or "one unnamed"
        raise TongganError(f"{where}: of {kind} only {', '.join(heads)} is supported, not {given}")
    raise TongganError(f"{where}: {what}; supported are: {', '.join(known)}")


def family_of_module(module: nn.Module) -> Family:
    """The published format whose shape a module of ours has; raises `TongganError` when there is none."""
    config = getattr(module, "config", None)
    if config is not None:
        for family in PUBLISHED:
            if family.misfit(config, None) is None:
                return family
    raise TongganError(f"{type(module).__name__} of this shape has no published reference whose tensors could be named")


def family_for(config: ModelConfig, processor: Processor, *, insist: bool) -> Family:
    """The published format that has a place for everything of this model, otherwise ours.

    With `insist` ours is no way out: raises `TongganError` with what each published format lacks.
    """
    reasons = [(family, family.misfit(config, processor)) for family in PUBLISHED]
    for family, reason in reasons:
        if reason is None:
            return family
    if insist:
        why = "; ".join(f"{family.name}: {reason}" for family, reason in reasons)
        raise TongganError(f"no published format has a place for this model ({why}); save it with format='tonggan'")
    return OURS


def agree(config: ModelConfig, processor: Processor, where: str) -> None:
    """Raise `TongganError` when the processor makes other input than the model reads: each difference with both values and what to do.

    Mean and deviation are written in both places: the model applies them, the processor's are what is published and compared.
    """
    wrong = []
    model, text = getattr(config, "image", None), getattr(config, "text", None)
    if model is not None and processor.image is not None:
        given = processor.image.config
        pairs = {"mean": (given.mean, model.mean), "std": (given.std, model.std), "size": (given.side, model.image_size)}
        wrong += _differences("image", pairs)
    if text is not None and processor.text is not None:
        length, vocab = processor.text.config.max_length, processor.text.vocab_size
        words = getattr(config, "vocab_size", text.vocab_size)  # a system may add some to those of its text model
        if length > text.context:
            wrong.append(
                f"text length: up to {length} tokens by the tokenizer, {text.context} by the model (set max_length to {text.context})"
            )
        if vocab > words:
            wrong.append(
                f"vocabulary: {vocab} ids by the tokenizer, {words} by the model "
                f"(take the tokenizer it was trained with, or for a new model set vocab_size to {vocab})"
            )
        offset, pad = getattr(text, "position_offset", None), processor.text.pad_id
        if offset is not None and pad != offset - 1:  # elsewhere padding is told by its place, whatever its id
            wrong.append(
                f"padding: id {pad} by the tokenizer, {offset - 1} by the model, which counts positions past it "
                f"(set the tokenizer's pad_id to {offset - 1}, or for a new model position_offset to {pad + 1})"
            )
        if getattr(text, "pooling", None) == "last" and processor.text.config.pad_to is None:
            wrong.append(f"padding: to each batch's longest by the tokenizer, but the model reads one length: set pad_to={text.context}")
    if processor.text is not None:
        wrong += _word_differences(config, processor.text)
    if processor.chat is not None and hasattr(config, "image_token"):
        named = {kind: getattr(config, f"{kind}_token", None) for kind in processor.chat.config.placeholders}
        named |= {"video": named["video"] or config.image_token} if "video" in named else {}  # frames may be pictures
        wrong += _differences("chat", {kind: (place.id, named[kind]) for kind, place in processor.chat.config.placeholders.items()})
    audio, video = getattr(config, "audio", None), getattr(config, "video", None)
    if audio is not None and processor.audio is not None:
        wrong += _audio_differences(audio, processor.audio.config)
    if video is not None and processor.video is not None:
        wrong += _video_differences(video, processor.video.config)
    if wrong:
        raise TongganError(f"{where}: processor and model do not fit: {'; '.join(wrong)}")


def _differences(kind: str, pairs: Mapping[str, tuple[object, object]]) -> list[str]:
    """What the processor (first) has otherwise than the model; the weights go with the model's value, so that is the one to take."""
    return [
        f"{kind} {name}: {a} by the processor, {b} by the model (set the processor's to {b})" for name, (a, b) in pairs.items() if a != b
    ]


def _word_differences(config: ModelConfig, tokenizer: Tokenizer) -> list[str]:
    """Words by which a model speaks that another's tokenizer has not: it would go on without an end, or say nothing that can be read.
    A tokenizer may have fewer words than the model, and some of several ends may be beyond it."""
    ends: tuple[int, ...] = getattr(config, "ends", ())
    take = "take the tokenizer it was trained with"
    if ends and min(ends) >= tokenizer.vocab_size:
        return [
            f"end: {', '.join(map(str, ends))} by the model, none of which is among the tokenizer's {tokenizer.vocab_size} ids ({take})"
        ]
    languages = getattr(getattr(config, "listening", None), "languages", {})
    named = {code: (tokenizer.id_of(f"<|{code}|>"), number) for code, number in languages.items()}
    other = {code: ids for code, ids in named.items() if ids[0] != ids[1]}
    return [f"language {code}: {mine} by the tokenizer, {theirs} by the model ({take})" for code, (mine, theirs) in list(other.items())[:1]]


def _audio_differences(tower: AudioTowerConfig, given: AudioProcessing) -> list[str]:
    wrong = _differences("sound", {"kind": (given.kind, tower.kind)})
    if isinstance(tower, LogMelConfig) and not wrong:
        wrong += _differences("sound", {"bins": (given.bins, tower.bins)})
        seconds = 2 * tower.context * given.hop / given.rate
        frames = None if given.limit is None else given.limit // given.hop
        if frames is None or frames > 2 * tower.context:
            longest = "any number of" if frames is None else f"up to {frames}"
            wrong.append(f"sound length: {longest} frames by the processor, {2 * tower.context} by the model (set seconds to {seconds:g})")
        if tower.padding == "seen" and (given.pad != "whole" or frames != 2 * tower.context):
            wrong.append(
                f"sound padding: pad {given.pad} to {frames} frames by the processor, always {2 * tower.context} by the model "
                f"(set pad to whole and seconds to {seconds:g})"
            )
    return wrong


def _video_differences(tower: VideoTowerConfig, given: VideoProcessing) -> list[str]:
    image = tower.image if isinstance(tower, FramesConfig) else tower
    pairs = {"mean": (given.image.mean, image.mean), "std": (given.image.std, image.std), "size": (given.image.side, image.image_size)}
    if not isinstance(tower, FramesConfig) or given.frames > tower.frames:  # one that reads frame by frame takes fewer as well
        pairs["frames"] = (given.frames, tower.frames)
    return _differences("video", pairs)
