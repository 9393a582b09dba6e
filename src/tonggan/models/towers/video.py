"""Video towers: clips in, one vector (and a sequence) out. Each is a configuration and a module.

Shape letters: B clips, T frames, H W pixels, P tubelets, D width.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from jaxtyping import Float, UInt8
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from tonggan.config import Config, height_width
from tonggan.models.towers.image import ImageConfig, ImageTowerConfig, build_image
from tonggan.nn.activations import Activation
from tonggan.nn.patches import Normalize, TubeletEmbed
from tonggan.nn.positions import FixedPositions, LearnedPositions, sinusoids
from tonggan.nn.transformer import Transformer, encoder_block, init_transformer
from tonggan.tensors import Hidden

Clips: TypeAlias = UInt8[Tensor, "B T 3 H W"] | Float[Tensor, "B T 3 H W"]


class TubeletConfig(ImageConfig):
    """VideoMAE's encoder (Tong et al. 2022): tubelets, fixed sinusoids, a plain Transformer over all of them."""

    kind: Literal["tubelet"] = "tubelet"
    frames: PositiveInt = 16
    tubelet: PositiveInt = 2
    """Frames in a tubelet."""
    patch_size: PositiveInt = 16
    width: PositiveInt = 768
    layers: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_width: PositiveInt = 3072
    activation: Activation = "gelu"
    eps: float = 1e-12
    post_norm: bool = False
    """A norm after the last block."""
    pooling: Literal["mean", "first"] = "mean"
    """The mean of the states, or the first tubelet's."""
    dropout: float = 0.0


class FramesConfig(Config):
    """Any picture tower, frame by frame, and what joins the frames (Luo et al. 2022, CLIP4Clip, section 3.3)."""

    kind: Literal["frames"] = "frames"
    image: ImageTowerConfig
    frames: PositiveInt = 12
    pooling: Literal["mean", "transformer"] = "mean"
    """`mean` has no weights and no order; `transformer` lets frames, with their places, attend to each other before the mean."""
    layers: PositiveInt = 4
    heads: PositiveInt = 8
    dropout: float = 0.0


VideoTowerConfig: TypeAlias = Annotated[TubeletConfig | FramesConfig, Field(discriminator="kind")]


class Tubelets(nn.Module):
    """Tubelets, sinusoids, pre-norm blocks whose keys have no bias."""

    def __init__(self, config: TubeletConfig) -> None:
        super().__init__()
        high, wide = height_width(config.image_size)
        self.config, self.width = config, config.width
        self.size = (config.frames, high, wide)
        self.normalize = Normalize(config.mean, config.std)
        self.tubelets = TubeletEmbed(config.tubelet, config.patch_size, config.width)
        places = (config.frames // config.tubelet) * (high // config.patch_size) * (wide // config.patch_size)
        # Sine and cosine by turns, as VideoMAE orders them.
        by_turns = sinusoids(places, config.width).view(places, 2, -1).transpose(1, 2).flatten(1)
        self.positions = FixedPositions(by_turns)
        self.transformer = Transformer(
            [
                encoder_block(
                    config.width,
                    config.heads,
                    config.mlp_width,
                    act=config.activation,
                    eps=config.eps,
                    dropout=config.dropout,
                    key_bias=False,
                )
                for _ in range(config.layers)
            ]
        )
        init_transformer(self.transformer, config.width)
        self.post_norm = nn.LayerNorm(config.width, eps=config.eps) if config.post_norm else nn.Identity()

    def tokens(self, clips: Clips) -> Hidden:
        """States [B, P, D] by time, then in row-major order; after the last norm where there is one."""
        given = (clips.shape[1], *clips.shape[3:])
        if given != self.size:
            raise ValueError(f"clips of {' x '.join(map(str, given))}; this tower reads {' x '.join(map(str, self.size))}")
        pixels = self.normalize(clips.flatten(0, 1)).view(clips.shape)
        x = self.tubelets(pixels) + self.positions.weight
        return Hidden(self.post_norm(self.transformer(x)))

    def forward(self, clips: Clips) -> Float[Tensor, "B D"]:
        states = self.tokens(clips).states
        return states[:, 0] if self.config.pooling == "first" else states.mean(dim=1)


class Frames(nn.Module):
    """A picture tower over the frames as if they were a batch of pictures; the mean of what it gives is the clip."""

    def __init__(self, config: FramesConfig) -> None:
        super().__init__()
        self.config = config
        self.image = build_image(config.image)
        self.width = self.image.width
        self.positions: LearnedPositions | None = None
        self.transformer: Transformer | None = None
        if config.pooling == "transformer":
            self.positions = LearnedPositions(config.frames, self.width)
            self.transformer = Transformer(
                [encoder_block(self.width, config.heads, 4 * self.width, dropout=config.dropout) for _ in range(config.layers)]
            )
            init_transformer(self.transformer, self.width)

    def tokens(self, clips: Clips) -> Hidden:
        """One state per frame [B, T, D]."""
        if clips.shape[1] > self.config.frames:
            raise ValueError(f"clips of {clips.shape[1]} frames; this tower reads at most {self.config.frames}")
        x = self.image(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
        if self.transformer is not None and self.positions is not None:
            # The Transformer is added to what the picture tower saw, so that training starts near the plain mean.
            x = x + self.transformer(x + self.positions(x.shape[1]))
        return Hidden(x)

    def forward(self, clips: Clips) -> Float[Tensor, "B D"]:
        return self.tokens(clips).states.mean(dim=1)


VideoTower: TypeAlias = Tubelets | Frames


def build_video(config: TubeletConfig | FramesConfig) -> VideoTower:
    """The video tower of a configuration; weights are random."""
    return Tubelets(config) if isinstance(config, TubeletConfig) else Frames(config)
