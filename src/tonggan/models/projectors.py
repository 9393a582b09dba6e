"""Between a tower and a decoder: which of a picture tower's states are taken, what projects states to where words are, and what puts a
picture's tiles together.

Shape letters: N pictures or sounds, P states of one, E width of a tower, D width of the decoder, Q queries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.towers import ConvTower, ImageTower, Pixels
from tonggan.nn.activations import Activation, activation
from tonggan.nn.resampler import perceiver
from tonggan.tensors import Frames, Mask, Tiles
from tonggan.types import UsageError


class MLPConfig(Config):
    """Each state by itself through one or two linear maps (LLaVA's one, LLaVA-1.5's two: Liu et al. 2024, section 3.2)."""

    kind: Literal["mlp"] = "mlp"
    layers: Literal[1, 2] = 2
    activation: Activation = "gelu"
    bias: bool = True
    norm: bool = False
    """A norm before the first map (InternVL has it): for towers whose states have no norm behind them."""
    stack: PositiveInt = 1
    """So many neighbouring states enter as one: sounds have many."""
    square: PositiveInt = 1
    """The states of a square of so many neighbouring patches a side enter as one, as InternVL's pixel shuffle has it; 1: each by itself."""

    @model_validator(mode="after")
    def _one_way(self) -> MLPConfig:
        if self.stack > 1 and self.square > 1:
            raise ValueError("stack is for sounds, square for pictures; set one of them")
        return self


class QueriesConfig(Config):
    """Learned queries read the states: as many features of each picture or sound, however large it is."""

    kind: Literal["queries"] = "queries"
    queries: PositiveInt = 64
    layers: PositiveInt = 2
    heads: PositiveInt = 8


ProjectorConfig: TypeAlias = Annotated[MLPConfig | QueriesConfig, Field(discriminator="kind")]


class TilesConfig(Config):
    """Pictures of any resolution as LLaVA-OneVision has them (Li et al. 2024, section 3.2): the whole of a picture made small, then tiles
    of it, each as large as what the tower reads; a learnt feature ends each line. Of a clip's frames two by two features become one."""

    grids: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(min_length=1)
    """Rows and columns of tiles that a picture may have; the one that keeps most of it is taken (`data.tiles`)."""
    most: PositiveInt = 9
    """Of more tiles the features are brought to as many as these have, by bilinear interpolation."""


class MLP(nn.Module):
    """States of a tower to features, one by one."""

    def __init__(self, config: MLPConfig, width: int, out: int) -> None:
        super().__init__()
        self.stack, self.square = config.stack, config.square
        width *= config.stack * config.square**2
        self.norm = nn.LayerNorm(width) if config.norm else nn.Identity()
        self.first = nn.Linear(width, out, bias=config.bias)
        self.second = nn.Linear(out, out, bias=config.bias) if config.layers == 2 else None
        self.act = activation(config.activation)

    def forward(self, states: Float[Tensor, "N P E"], *, lengths: Int[Tensor, " N"] | None = None) -> list[Float[Tensor, "Pn D"]]:
        """Features of each; states behind its length are none of it. Raises `UsageError` for patches that make no squares."""
        states = states if self.square == 1 else _squares(states, self.square)
        counts = torch.full((len(states),), states.shape[1]) if lengths is None else lengths
        if lengths is not None:
            states = states * (torch.arange(states.shape[1], device=states.device) < lengths[:, None])[:, :, None]
        short = -states.shape[1] % self.stack
        states = F.pad(states, (0, 0, 0, short)).reshape(len(states), -1, self.stack * states.shape[2])
        made = self.first(self.norm(states))
        made = made if self.second is None else self.second(self.act(made))
        return [one[:count] for one, count in zip(made, (-(-counts // self.stack)).tolist(), strict=True)]


def _squares(states: Float[Tensor, "N P E"], side: int) -> Float[Tensor, "N Q F"]:
    """Patches of square pictures, row by row, as squares of them: each has its patches' states one after the other."""
    number, patches, width = states.shape
    grid = math.isqrt(patches)
    if grid * grid != patches or grid % side:
        raise UsageError(f"image_projector.square: {patches} patches are no square that squares of {side} by {side} fill")
    cut = states.view(number, grid // side, side, grid // side, side, width).transpose(2, 3)
    return cut.reshape(number, (grid // side) ** 2, side * side * width)


class Queries(nn.Module):
    """States of a tower to a fixed number of features."""

    def __init__(self, config: QueriesConfig, width: int, out: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, out)
        self.resampler = perceiver(out, config.heads, config.queries, config.layers)

    def forward(self, states: Float[Tensor, "N P E"], *, lengths: Int[Tensor, " N"] | None = None) -> list[Float[Tensor, "Q D"]]:
        """Features of each; states behind its length are not read."""
        return list(self.resampler(self.enter(states), mask=None if lengths is None else Mask(lengths=lengths)))


class Tiling(nn.Module):
    """Puts together what a projector made of the tiles of a picture, or of the frames of a clip."""

    def __init__(self, config: TilesConfig, side: int, width: int) -> None:
        super().__init__()
        self.most, self.side = config.most, side
        self.newline = nn.Parameter(torch.randn(width) * width**-0.5)

    def count(self, cut: Tiles | Frames) -> int:
        """How many features stand for one picture or clip."""
        return cut.features(self.side, self.most)

    def forward(self, pieces: Float[Tensor, "N P D"], cut: Tiles | Frames) -> Float[Tensor, "Pn D"]:
        """Features of one picture: the whole made small, then the lines of what its tiles show, padding left out. Of one clip: frame by
        frame. A newline ends each line, a picture that is not cut, and a clip."""
        maps = pieces.view(len(pieces), self.side, self.side, -1).movedim(3, 1)
        if isinstance(cut, Frames):
            half = -(-self.side // 2)
            frames = F.interpolate(maps, (half, half), mode="bilinear").movedim(1, 3)
            return torch.cat([frames.flatten(0, 2), self.newline[None]])
        if not cut.rows:
            return torch.cat([pieces[0], self.newline[None]])
        down, across = cut.own(self.side)
        tiles = maps[1:].reshape(cut.rows, cut.columns, *maps.shape[1:])
        large = tiles.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)[:, down, across]
        if (size := cut.kept(self.side, self.most)) != tuple(large.shape[1:]):
            large = F.interpolate(large[None], size, mode="bilinear")[0]
        lines = torch.cat([large, self.newline[:, None, None].expand(-1, large.shape[1], 1)], dim=2)
        return torch.cat([pieces[0], lines.flatten(1).T])


def looked(tower: ImageTower, pixels: Pixels, layers: Sequence[int], class_token: bool) -> Float[Tensor, "N P E"]:
    """States of a picture tower after these of its blocks, side by side; blocks behind the last of them are not run."""
    if isinstance(tower, ConvTower):
        return tower.tokens(pixels).states
    depth = len(tower.transformer.blocks)
    wanted = [layer if layer >= 0 else depth + 1 + layer for layer in layers]
    states = [tower.enter(pixels)]
    for block in tower.transformer.blocks[: max(wanted)]:
        states.append(block(states[-1]))
    found = torch.cat([states[layer] for layer in wanted], dim=-1)
    return found if tower.class_token is None or class_token else found[:, 1:]


def build_projector(config: MLPConfig | QueriesConfig, width: int, out: int) -> MLP | Queries:
    """The projector of a configuration; weights are random."""
    return MLP(config, width, out) if isinstance(config, MLPConfig) else Queries(config, width, out)
