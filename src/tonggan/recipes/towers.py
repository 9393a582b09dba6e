"""Towers that come from checkpoints: a ViT trained on ImageNet, a BERT, CLIP's or SigLIP's halves, a Whisper, a VideoMAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tonggan.backends import LocalModel, load_local
from tonggan.config import Config, PictureSize, height_width
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.video import VideoProcessing, VideoProcessor
from tonggan.models import ModelConfig
from tonggan.models.towers import EfficientNetConfig, FramesConfig, ResNetConfig, ViTConfig
from tonggan.nn.positions import resized
from tonggan.recipes.config import ModelSource
from tonggan.recipes.grafts import Tower
from tonggan.tensors import MODALITIES, Modality
from tonggan.types import UsageError


def towers_of(source: ModelSource, shape: ModelConfig) -> dict[Modality, Tower]:
    """The towers that a recipe names for a shape, pictures' fitted to the size that it asks for.

    Raises `UsageError` for what is not there.
    """
    return {kind: _tower(source, shape, kind, name) for kind, name in source.towers.items()}


def _tower(source: ModelSource, shape: ModelConfig, kind: Modality, name: str) -> Tower:
    found = load_local(name, device="cpu")
    clips = getattr(shape, "video", None)
    if kind == "video" and isinstance(clips, FramesConfig) and getattr(found.module, "video", None) is None:
        # Clips are read picture by picture, so it is a picture tower that they need.
        tower = _fitted("clips.image", source.clips.get("image", {}), source.resize_positions, _part(found, "image", kind, name))
        processing = VideoProcessing(frames=clips.frames, image=tower.prepares.config)
        return tower._replace(prepares=VideoProcessor(processing))
    tower = _part(found, kind, kind, name)
    return _fitted("pictures", source.pictures, source.resize_positions, tower) if kind == "image" else tower


def _part(found: LocalModel, part: Modality, kind: Modality, name: str) -> Tower:
    """A tower of a model, for inputs of a kind."""
    tower, prepares = getattr(found.module, part, None), getattr(found.processor, part)
    if not isinstance(tower, nn.Module) or not isinstance(config := getattr(tower, "config", None), Config) or prepares is None:
        has = ", ".join(k for k in MODALITIES if isinstance(getattr(getattr(found.module, k, None), "config", None), Config))
        raise UsageError(f"model.towers.{kind}: {name} has no such tower; it has: {has or 'none'}")
    chat = found.processor.chat if part == "text" else None
    return Tower(name, config, tower.state_dict(), prepares, None if chat is None else chat.config)


def _fitted(field: str, changes: Mapping[str, Any], resize: bool, tower: Tower) -> Tower:
    """A picture tower for the size that the changes to its input ask for. Convolutions read any; positions are learnt for one size only,
    and are stretched only where the recipe says so."""
    pictures = ImageProcessing.parse({**tower.prepares.config.model_dump(), **changes}, f"model.{field}")
    config, state, wanted = tower.config, tower.state, pictures.side
    if wanted != config.image_size:
        match config:
            case ViTConfig():
                state = _stretched(field, resize, tower, wanted)
            case ResNetConfig(pooling="mean") | EfficientNetConfig():
                pass
            case _:
                raise UsageError(
                    f"model.towers.image: {tower.name} reads pictures of {_x(config.image_size)} pixels only, not of {_x(wanted)}"
                )
        config = config.model_copy(update={"image_size": wanted})
    return Tower(tower.name, config, state, ImageProcessor(pictures))


def _stretched(field: str, resize: bool, tower: Tower, wanted: PictureSize) -> dict[str, Tensor]:
    """The weights of a ViT with its table of positions interpolated (bicubic, as the library does it on demand)."""
    config: ViTConfig = tower.config
    new: ViTConfig = config.model_copy(update={"image_size": wanted})
    (rows, columns), (down, across) = config.grid, new.grid
    if not resize:
        raise UsageError(
            f"model.towers: {tower.name} has positions for {rows} x {columns} patches (pictures of {_x(config.image_size)} pixels), "
            f"model.{field} asks for {down} x {across} ({_x(wanted)} pixels); leave the size as it is, or set model.resize_positions: true"
        )
    state = dict(tower.state)
    if config.positions == "learned":
        state["positions.weight"] = resized(state["positions.weight"], config.grid, new.grid)
    return state


def _x(size: PictureSize) -> str:
    height, width = height_width(size)
    return f"{height} x {width}"
