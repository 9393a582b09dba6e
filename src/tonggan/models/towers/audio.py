"""Sound towers: sounds in, one vector (and a sequence) out. Each is a configuration and a module.

Shape letters: B rows, S samples, M bins, F frames of a spectrogram, T positions, D width.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.nn.activations import Activation
from tonggan.nn.audio import ConvPositions, SpectrogramStem, WaveformStem, mean_of_real, real, samples_of_one
from tonggan.nn.positions import FixedPositions, sinusoids
from tonggan.nn.transformer import Trace, Transformer, encoder_block, init_transformer
from tonggan.tensors import Hidden, Mask, Sounds
from tonggan.types import UsageError


class LogMelConfig(Config):
    """Whisper's encoder (Radford et al. 2023, section 2.2): log-mel spectrograms, pooled by the mean over a row's own frames."""

    kind: Literal["log_mel"] = "log_mel"
    bins: PositiveInt = 80
    context: PositiveInt = 1500
    """Most positions; one is two frames of the spectrogram."""
    width: PositiveInt = 384
    layers: PositiveInt = 4
    heads: PositiveInt = 6
    mlp_width: PositiveInt = 1536
    activation: Activation = "gelu"
    eps: float = 1e-5
    padding: Literal["hidden", "seen"] = "hidden"
    """Whether a sound is attended to alone, or with the silence behind it, as published Whisper models are trained: these read
    spectrograms of full length only."""
    mask_token: bool = False
    """A learned vector that stands for hidden positions, for training by filling in."""
    dropout: float = 0.0


class WaveformConfig(Config):
    """data2vec's encoder for speech (Baevski et al. 2022), wav2vec 2.0's but for its positions: waveforms, pooled by the mean."""

    kind: Literal["waveform"] = "waveform"
    channels: tuple[PositiveInt, ...] = Field(default=(512,) * 7, min_length=1)
    kernels: tuple[PositiveInt, ...] = (10, 3, 3, 3, 3, 2, 2)
    strides: tuple[PositiveInt, ...] = (5, 2, 2, 2, 2, 2, 2)
    stem_bias: bool = False
    stem_activation: Activation = "gelu"
    width: PositiveInt = 768
    layers: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_width: PositiveInt = 3072
    activation: Activation = "gelu"
    eps: float = 1e-5
    position_layers: PositiveInt = 5
    position_kernel: PositiveInt = 19
    position_groups: PositiveInt = 16
    mask_token: bool = False
    """A learned vector that stands for hidden frames, for training by filling in."""
    dropout: float = 0.0

    @property
    def shortest(self) -> int:
        """Fewest samples of a sound: one frame takes so many."""
        return samples_of_one(self.kernels, self.strides)

    @model_validator(mode="after")
    def _as_many_of_each(self) -> WaveformConfig:
        counts = {"channels": len(self.channels), "kernels": len(self.kernels), "strides": len(self.strides)}
        if len(set(counts.values())) > 1:
            raise ValueError("each convolution has one of each: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
        return self


AudioTowerConfig: TypeAlias = Annotated[LogMelConfig | WaveformConfig, Field(discriminator="kind")]


class LogMel(nn.Module):
    """Two convolutions, fixed sinusoids, pre-norm blocks whose keys have no bias, a norm."""

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.stem = SpectrogramStem(config.bins, config.width)
        self.mask_token = nn.Parameter(torch.randn(config.width) * 0.02) if config.mask_token else None
        half = config.width // 2
        # Whisper's slowest sine has a wavelength of 2π·10000 exactly, that of Vaswani et al. a little less.
        self.positions = FixedPositions(sinusoids(config.context, config.width, 10_000 ** (half / max(1, half - 1))), saved=True)
        self.dropout = nn.Dropout(config.dropout)
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
        self.post_norm = nn.LayerNorm(config.width, eps=config.eps)

    def tokens(self, sounds: Sounds, *, hidden: Bool[Tensor, "B T"] | None = None, trace: Trace | None = None) -> Hidden:
        """States [B, T, D] after the last norm, and how many of them are a row's own. `hidden` positions are replaced by the mask token."""
        alone = self.config.padding == "hidden"
        longest = 2 * self.config.context
        if sounds.values.shape[2] > longest or (not alone and sounds.values.shape[2] != longest):
            raise ValueError(
                f"spectrograms of {sounds.values.shape[2]} frames; this tower reads {'at most' if alone else 'exactly'} {longest}"
            )
        lengths = self.stem.lengths(sounds.lengths)
        x = _hiding(self.stem(sounds.values, sounds.lengths if alone else None), hidden, self.mask_token)
        x = self.dropout(x + self.positions.weight[: x.shape[1]])
        return Hidden(self.post_norm(self.transformer(x, mask=Mask(lengths=lengths) if alone else None, trace=trace)), lengths)

    def forward(self, sounds: Sounds) -> Float[Tensor, "B D"]:
        return _pooled(self.tokens(sounds))


class Waveform(nn.Module):
    """Convolutions over the samples, a projection, positions by convolution, a norm, post-norm blocks."""

    def __init__(self, config: WaveformConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.stem = WaveformStem(config.channels, config.kernels, config.strides, config.stem_activation, bias=config.stem_bias)
        self.stem_norm = nn.LayerNorm(config.channels[-1], eps=config.eps)
        self.projection = nn.Linear(config.channels[-1], config.width)
        self.mask_token = nn.Parameter(torch.rand(config.width)) if config.mask_token else None
        self.positions = ConvPositions(
            config.width, config.position_kernel, config.position_groups, config.position_layers, config.stem_activation
        )
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(
            [
                encoder_block(
                    config.width,
                    config.heads,
                    config.mlp_width,
                    act=config.activation,
                    order="post",
                    eps=config.eps,
                    dropout=config.dropout,
                )
                for _ in range(config.layers)
            ]
        )
        for module in self.transformer.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def tokens(
        self,
        sounds: Sounds,
        *,
        hidden: Bool[Tensor, "B T"] | None = None,
        trace: Trace | None = None,
        padding: Literal["hidden", "seen"] = "hidden",
    ) -> Hidden:
        """States [B, T, D], and how many of them are a row's own. `hidden` frames are replaced by the mask token.

        A row's states are those it has alone, whatever padding follows. The reference lets its second layer of positions on see what the
        first made of padding, so that there a row's last frames depend on how much follows: with `padding` seen, here too.
        """
        lengths = self.stem.lengths(sounds.lengths)
        x = _hiding(self.projection(self.stem_norm(self.stem(sounds.values))), hidden, self.mask_token)
        own = real(lengths, x.shape[1])
        x = x * own[:, :, None]
        x = x + self.positions(x, own if padding == "hidden" else None)
        return Hidden(self.transformer(self.dropout(self.norm(x)), mask=Mask(lengths=lengths), trace=trace), lengths)

    def forward(self, sounds: Sounds) -> Float[Tensor, "B D"]:
        return _pooled(self.tokens(sounds))


def _hiding(x: Float[Tensor, "B T D"], hidden: Bool[Tensor, "B T"] | None, mask_token: Tensor | None) -> Float[Tensor, "B T D"]:
    if hidden is None:
        return x
    if mask_token is None:
        raise UsageError("hiding frames needs a mask token, and this tower has none; set model.config.audio.mask_token: true")
    return torch.where(hidden[:, :, None], mask_token, x)


def _pooled(found: Hidden) -> Float[Tensor, "B D"]:
    assert found.lengths is not None
    return mean_of_real(found.states, found.lengths)


AudioTower: TypeAlias = LogMel | Waveform


def build_audio(config: LogMelConfig | WaveformConfig) -> AudioTower:
    """The sound tower of a configuration; weights are random."""
    return LogMel(config) if isinstance(config, LogMelConfig) else Waveform(config)
