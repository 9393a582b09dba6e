"""Towers of a shape that come from checkpoints: a ViT trained on ImageNet, a BERT, CLIP's or SigLIP's halves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from tonggan.backends import load_local
from tonggan.config import ConfigError, PictureSize, height_width
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.models import ModelConfig
from tonggan.models.towers import ViT, ViTConfig
from tonggan.nn.positions import resized
from tonggan.recipes.config import ModelSource
from tonggan.tensors import MODALITIES, Modality
from tonggan.types import UsageError


class Tower(NamedTuple):
    """A tower out of a checkpoint: its shape, its weights, and what prepares its input."""

    config: Any
    state: Mapping[str, torch.Tensor]
    prepares: Any


def towers_of(source: ModelSource) -> dict[Modality, Tower]:
    """The towers that a recipe names, pictures' fitted to the size that it asks for; raises `UsageError` for what is not there."""
    return {kind: _tower(source, kind, name) for kind, name in source.towers.items()}


def put(shape: ModelConfig, towers: Mapping[Modality, Tower]) -> ModelConfig:
    """The shape with these towers in place of its own; raises `ConfigError` where it has no place for one."""
    for kind, tower in towers.items():
        if getattr(shape, kind, None) is None:
            has = ", ".join(k for k in MODALITIES if getattr(shape, k, None) is not None)
            raise UsageError(f"model.towers.{kind}: the shape has no such tower to replace; it has: {has or 'none that can be replaced'}")
        try:
            shape = type(shape).parse({**shape.model_dump(), kind: tower.config.model_dump()}, "model.towers")
        except ConfigError as error:
            raise ConfigError(f"model.towers.{kind}: a {shape.kind} has no place for a {tower.config.kind} tower: {error}") from None
    return shape


def fill(module: nn.Module, towers: Mapping[Modality, Tower]) -> None:
    """Give a freshly built module the weights of its towers."""
    for kind, tower in towers.items():
        getattr(module, kind).load_state_dict(tower.state)


def _tower(source: ModelSource, kind: Modality, name: str) -> Tower:
    found = load_local(name, device="cpu")
    tower = getattr(found.module, kind, None)
    prepares = getattr(found.processor, kind)
    if not isinstance(tower, nn.Module) or prepares is None:
        has = ", ".join(k for k in MODALITIES if getattr(found.module, k, None) is not None)
        raise UsageError(f"model.towers.{kind}: {name} has no such tower; it has: {has or 'none'}")
    config: Any = tower.config
    if kind == "image":
        return _fitted(source, name, config, tower, found.processor)
    return Tower(config, tower.state_dict(), prepares)


def _fitted(source: ModelSource, name: str, config: Any, tower: nn.Module, processor: Processor) -> Tower:
    """A picture tower for the size that `model.pictures` asks for. Convolutions read any; positions are learnt for one size only, and are
    stretched only where the recipe says so."""
    assert processor.image is not None
    pictures = ImageProcessing.parse({**processor.image.config.model_dump(), **source.pictures}, "model.pictures")
    state = tower.state_dict()
    wanted: PictureSize = pictures.side
    if wanted != config.image_size:
        if isinstance(tower, ViT):
            state = _stretched(source, name, tower, wanted)
        elif getattr(tower, "pool", None) is not None or not hasattr(tower, "net"):
            raise UsageError(f"model.towers.image: {name} reads pictures of {_x(config.image_size)} pixels only, not of {_x(wanted)}")
        config = config.model_copy(update={"image_size": wanted})
    return Tower(config, state, ImageProcessor(pictures))


def _stretched(source: ModelSource, name: str, tower: ViT, wanted: PictureSize) -> dict[str, torch.Tensor]:
    """The weights of a ViT with its table of positions interpolated (bicubic, as the library does it on demand)."""
    config = tower.config
    new: ViTConfig = config.model_copy(update={"image_size": wanted})
    (rows, columns), (down, across) = config.grid, new.grid
    if not source.resize_positions:
        raise UsageError(
            f"model.towers.image: {name} has positions for {rows} x {columns} patches (pictures of {_x(config.image_size)} pixels), "
            f"model.pictures asks for {down} x {across} ({_x(wanted)} pixels); leave the size as it is, or set model.resize_positions: true"
        )
    state = dict(tower.state_dict())
    if config.positions == "learned":
        state["positions.weight"] = resized(state["positions.weight"], config.grid, new.grid)
    return state


def _x(size: PictureSize) -> str:
    height, width = height_width(size)
    return f"{height} x {width}"
