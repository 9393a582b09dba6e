"""Where the weights of a tower go in a system: whole into a tower's place, or by a table of names where the system has none.

VLMo and ViLT have one Transformer for pictures and words. It starts from a ViT, as ViLT's does (Kim et al. 2021, section 3.1); of a BERT
they take what its blocks read. A co-attention model's text Transformer is a BERT's in which some blocks look at pictures as well (Li et
al. 2021, ALBEF, section 3.1).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from tonggan.config import Config, ConfigError
from tonggan.data.chat import ChatProcessing
from tonggan.hub.convert.table import KeyTable, Rules, prefixed
from tonggan.hub.identity import TRAINING_ONLY
from tonggan.models import ChatConfig, CoAttentionConfig, FlamingoConfig, ModelConfig, SingleStreamConfig, VLMoConfig
from tonggan.models.streams import PatchesConfig, WordsConfig
from tonggan.models.towers import BertTextConfig, FramesConfig, TubeletConfig, ViTConfig
from tonggan.tensors import MODALITIES, Modality
from tonggan.types import UsageError

log = logging.getLogger("tonggan")


class Tower(NamedTuple):
    """A tower out of a checkpoint: where it is from, its shape, its weights, and what prepares its input."""

    name: str
    config: Any
    state: Mapping[str, Tensor]
    prepares: Any
    chat: ChatProcessing | None = None
    """How conversations are written out for it."""


SHARED = ("attention.q", "attention.k", "attention.v", "attention.out", "norm1", "norm2")
ENDS = ("up", "down")


def _blocks(feed_forward: str = "feed_forward") -> Rules:
    """The blocks' names, with the feed-forward in this place."""
    names = {part: part for part in SHARED} | {f"feed_forward.{end}": f"{feed_forward}.{end}" for end in ENDS}
    return {f"transformer.blocks.{{i}}.{theirs}.{{p}}": f"transformer.blocks.{{i}}.{ours}.{{p}}" for theirs, ours in names.items()}


PICTURES: Rules = {"class_token": "class_token", "positions.weight": "positions.weight", "patches.{p}": "patches.{p}"}
WORDS: Rules = {
    "embedding.weight": "text.embedding.weight",
    "positions.weight": "text.positions.weight",
    "types.weight": "text.types.weight",
    "norm.{p}": "text.norm.{p}",
}
# `None`: what a system has no use for. A ViT's pooler is a head, and each system has its own.
VIT = KeyTable(
    "ViT",
    {
        **prefixed("", "image.", {**PICTURES, **_blocks(), "pre_norm.{p}": "pre_norm.{p}", "post_norm.{p}": "post_norm.{p}"}),
        "pooler.{p}": None,
    },
)
VIT_IN_VLMO = KeyTable(
    "ViT", {**prefixed("", "image.", PICTURES), **_blocks("feed_forward.image"), "post_norm.{p}": "norm.{p}", "pooler.{p}": None}
)
VIT_IN_STREAM = KeyTable("ViT", {**prefixed("", "image.", PICTURES), **_blocks(), "post_norm.{p}": "norm.{p}", "pooler.{p}": None})
BERT = KeyTable("BERT", {**WORDS, **_blocks()})
BERT_WORDS = KeyTable("BERT", {**WORDS, **dict.fromkeys(_blocks())})


def fitted(shape: ModelConfig, towers: Mapping[Modality, Tower], *, written: bool = True) -> ModelConfig:
    """The shape with the measures of these towers in place of its own.

    `written`: the recipe writes the shape out. What acts in training alone (dropout, `patch_keep`) is then as it says, and a measure that
    it gives must be the tower's. Nobody chose what a preset says. Raises `UsageError` or `ConfigError` where the shape has no place for a
    tower, or asks for another measure, saying what it takes.
    """
    for kind in towers:
        if getattr(shape, kind, None) is None:
            has = ", ".join(k for k in MODALITIES if getattr(shape, k, None) is not None)
            raise UsageError(f"model.towers.{kind}: the shape has no such tower to replace; it has: {has or 'none that can be replaced'}")
    match shape:
        case VLMoConfig() | SingleStreamConfig():
            changes = _of_stream(shape, towers)
        case CoAttentionConfig():
            changes = _of_co_attention(shape, towers)
        case _:
            changes = {kind: _of_tower(shape, kind, tower) for kind, tower in towers.items()}
    if not written and isinstance(shape, ChatConfig | FlamingoConfig) and (words := towers.get("text")) is not None:
        changes |= _behind(shape, words)
    if written:
        changes = _as_written(shape, changes, towers)
    return _changed(shape, changes, towers)


def fill(module: nn.Module, shape: ModelConfig, towers: Mapping[Modality, Tower]) -> None:
    """Give a freshly built module of a fitted shape the weights of its towers. What is left of a tower is named in a warning."""
    state = module.state_dict()
    for kind, tower in towers.items():
        table = _table(shape, kind)
        if table is None:
            place = f"{kind}.image" if _by_frames(shape, kind, tower) else kind
            module.get_submodule(place).load_state_dict(tower.state)
            continue
        given = dict(tower.state)
        if offset := getattr(tower.config, "position_offset", None):  # RoBERTa's rows below are padding's
            given["positions.weight"] = given["positions.weight"][offset:]
        state |= table.import_(given, [name for name in state if table.theirs(name) is not None])
        if left := dict.fromkeys(name.partition(".")[0] for name in table.dropped(given)):
            log.warning("model.towers.%s: a %s has no use for these parts of %s: %s", kind, shape.kind, tower.name, ", ".join(left))
    module.load_state_dict(state)


def _table(shape: ModelConfig, kind: Modality) -> KeyTable | None:
    """The names of a tower's weights in a system that has no such tower whole."""
    match shape:
        case VLMoConfig():
            return VIT_IN_VLMO if kind == "image" else BERT_WORDS
        case SingleStreamConfig():
            return VIT_IN_STREAM if kind == "image" else BERT_WORDS
        case CoAttentionConfig():
            return VIT if kind == "image" else BERT
    return None


def _by_frames(shape: ModelConfig, kind: Modality, tower: Tower) -> bool:
    """Whether it is a picture tower, for clips that are read frame by frame."""
    return isinstance(getattr(shape, kind), FramesConfig) and not isinstance(tower.config, FramesConfig | TubeletConfig)


def _of_tower(shape: ModelConfig, kind: Modality, tower: Tower) -> dict[str, Any]:
    """The measures of a tower that is put in whole."""
    measures: dict[str, Any] = tower.config.model_dump()
    return {**getattr(shape, kind).model_dump(), "image": measures} if _by_frames(shape, kind, tower) else measures


def _of_stream(shape: VLMoConfig | SingleStreamConfig, towers: Mapping[Modality, Tower]) -> dict[str, Any]:
    """What changes in a system whose pictures and words go through one Transformer: a picture tower sets its measures."""
    changes: dict[str, Any] = {}
    if (words := towers.get("text")) is not None:
        bert = _bert(shape, words)
        changes |= {"text": bert.model_dump(include=set(WordsConfig.model_fields)), "width": bert.width, "eps": bert.eps}
    if (pictures := towers.get("image")) is not None:
        vit = _plain_vit(shape, pictures)
        for name in ("width", "eps"):
            if words is not None and getattr(vit, name) != changes[name]:
                raise UsageError(
                    f"model.towers: pictures and words of a {shape.kind} go through one Transformer, but {name} is {getattr(vit, name)} in "
                    f"{pictures.name} and {changes[name]} in {words.name}; take towers that agree, or one of the two"
                )
        changes |= {"image": vit.model_dump(include=set(PatchesConfig.model_fields))}
        changes |= vit.model_dump(include={"width", "layers", "heads", "mlp_width", "activation", "eps"})
        if isinstance(shape, VLMoConfig):
            changes |= {"order": "pre", "layer_scale": None}
    return changes


def _of_co_attention(shape: CoAttentionConfig, towers: Mapping[Modality, Tower]) -> dict[str, Any]:
    """What changes in a ViT and a BERT whose upper blocks look at pictures."""
    changes: dict[str, Any] = {}
    if (pictures := towers.get("image")) is not None:
        vit = _vit(shape, pictures)
        if vit.pooling != "class":
            raise _refused(shape, "image", pictures, f"it is pooled by {vit.pooling} and has no class token")
        changes["image"] = vit.model_copy(update={"pooler": False}).model_dump()
    if (words := towers.get("text")) is not None:
        bert = _bert(shape, words)
        measures = bert.model_dump(include=set(type(shape.text).model_fields))
        if shape.text.cross_from >= bert.layers:
            raise UsageError(
                f"model.towers.text: {words.name} has {bert.layers} blocks, and pictures are looked at from block "
                f"{shape.text.cross_from} on (counted from 0): none would; set model.config.text.cross_from below {bert.layers}"
            )
        changes["text"] = {**measures, "cross_from": shape.text.cross_from}
    return changes


def _behind(shape: ChatConfig | FlamingoConfig, words: Tower) -> dict[str, int]:
    """Placeholders that stand behind a decoder's words, behind those of the decoder in its place: among them they would be words of it."""
    own = shape.text.vocab_size
    tokens = {name: token for name in ("image_token", "video_token", "audio_token") if (token := getattr(shape, name, None)) is not None}
    return {name: words.config.vocab_size + token - own for name, token in tokens.items() if token >= own}


def _vit(shape: ModelConfig, tower: Tower) -> ViTConfig:
    if not isinstance(tower.config, ViTConfig):
        raise _refused(shape, "image", tower, f"its tower is of kind {tower.config.kind}")
    return tower.config


def _plain_vit(shape: ModelConfig, tower: Tower) -> ViTConfig:
    """A ViT as it was published for ImageNet: what VLMo and ViLT compute of a picture alone."""
    vit = _vit(shape, tower)
    wrong = {
        f"it is pooled by {vit.pooling} and has no class token": vit.pooling != "class",
        "it has a norm before its first block": vit.pre_norm,
        "its patches have no bias": not vit.patch_bias,
        "its positions are not learnt": vit.positions != "learned",
        f"its pictures are not square, {vit.image_size}": not isinstance(vit.image_size, int),
        f"its patches are not square, {vit.patch_size}": not isinstance(vit.patch_size, int),
    }
    for why, found in wrong.items():
        if found:
            raise _refused(shape, "image", tower, why)
    return vit


def _bert(shape: ModelConfig, tower: Tower) -> BertTextConfig:
    if not isinstance(tower.config, BertTextConfig):
        raise _refused(shape, "text", tower, f"its tower is of kind {tower.config.kind}")
    return tower.config


def _refused(shape: ModelConfig, kind: Modality, tower: Tower, why: str) -> UsageError:
    takes = "a BERT or RoBERTa" if kind == "text" else "a ViT with a class token, as published for ImageNet"
    return UsageError(
        f"model.towers.{kind}: a {shape.kind} starts from {takes}; {tower.name} cannot be put in: {why}. "
        "Two-tower and late-fusion shapes take any tower"
    )


def _as_written(shape: ModelConfig, changes: dict[str, Any], towers: Mapping[Modality, Tower]) -> dict[str, Any]:
    """The changes under what the recipe writes of these fields itself; raises `UsageError` naming each measure that is another there."""
    wrong: list[str] = []
    kept = {}
    for name, value in changes.items():
        part = getattr(shape, name)
        if isinstance(part, Config):
            kept[name] = _part_as_written(part, value, f"model.config.{name}", wrong)
        else:
            kept[name] = value
            if name in shape.model_fields_set and part != value:
                wrong.append(f"model.config.{name} is {part!r}, but {value!r} is what the tower needs")
    if wrong:
        named = " and ".join(tower.name for tower in towers.values())
        raise UsageError(
            f"model.towers.{'/'.join(towers)}: {named} comes with its measures, and the recipe asks for others: {'; '.join(wrong)}. "
            "Leave them out; pictures of another size are asked for by model.pictures, those of clips by model.clips"
        )
    return kept


def _part_as_written(part: Config, measures: Mapping[str, Any], where: str, wrong: list[str]) -> dict[str, Any]:
    kept = dict(measures)
    for name in sorted(part.model_fields_set - {"kind"}):  # a place for a tower must be of some kind, and takes one of any
        asked = getattr(part, name)
        if name not in measures:
            wrong.append(f"{where}.{name} is {asked!r}, and the tower has no such setting")
        elif isinstance(asked, Config) and isinstance(measures[name], Mapping):
            kept[name] = _part_as_written(asked, measures[name], f"{where}.{name}", wrong)
        elif name in TRAINING_ONLY:
            kept[name] = asked
        elif asked != measures[name]:
            wrong.append(f"{where}.{name} is {asked!r}, the tower's is {measures[name]!r}")
    return kept


def _changed(shape: ModelConfig, changes: Mapping[str, Any], towers: Mapping[Modality, Tower]) -> ModelConfig:
    try:
        return type(shape).parse({**shape.model_dump(), **changes}, "model.towers")
    except ConfigError as error:
        given = " and ".join(f"{tower.config.kind} tower" for tower in towers.values())
        raise ConfigError(f"model.towers.{'/'.join(towers)}: a {shape.kind} has no place for a {given}: {error}") from None
