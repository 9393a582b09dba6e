"""Sounds into tokens: convolutions over a waveform or a spectrogram, and positions by convolution.

Shape letters: B rows, S samples, M bins, F frames of a spectrogram, T positions, C channels, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tonggan.nn.activations import Activation, activation


def real(lengths: Int[Tensor, " B"], positions: int) -> Bool[Tensor, "B T"]:
    """Which positions are a row's own."""
    return torch.arange(positions, device=lengths.device) < lengths[:, None]


def mean_of_real(states: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B D"]:
    """The mean over each row's own positions."""
    own = real(lengths, states.shape[1])
    return (states * own[:, :, None]).sum(dim=1) / lengths[:, None].clamp(min=1)


def samples_of_one(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that one frame takes behind convolutions without padding."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


class SpectrogramStem(nn.Module):
    """Two convolutions of three frames over a log-mel spectrogram, the second halving time (Radford et al. 2023, Whisper, section 2.2)."""

    def __init__(self, bins: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(bins, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)

    def forward(self, mels: Float[Tensor, "B M F"], lengths: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B T D"]:
        """T = ⌈F/2⌉. With `lengths` a row sees nothing behind its end: what the convolutions make of padding is set to their own, zero."""
        if lengths is not None:
            mels = mels * real(lengths, mels.shape[2])[:, None]
        x = F.gelu(self.conv1(mels))
        if lengths is not None:
            x = x * real(lengths, x.shape[2])[:, None]
        return F.gelu(self.conv2(x)).transpose(1, 2)

    def lengths(self, frames: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """How many positions so many frames give."""
        return (frames + 1) // 2

    def count(self, frames: int) -> int:
        """How many positions a batch of so many frames has."""
        return (frames + 1) // 2


class WaveformStem(nn.Module):
    """A waveform becomes frames: convolutions, a norm over the channels and an activation after each (Baevski et al. 2020, wav2vec 2.0).

    No padding anywhere, so a frame depends on no sample behind a row's end as long as `lengths` counts it as that row's own.
    """

    def __init__(self, channels: Sequence[int], kernels: Sequence[int], strides: Sequence[int], act: Activation, *, bias: bool) -> None:
        super().__init__()
        inputs = (1, *channels[:-1])
        self.convs = nn.ModuleList(
            nn.Conv1d(i, o, k, stride=s, bias=bias) for i, o, k, s in zip(inputs, channels, kernels, strides, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in channels)
        self.act = activation(act)
        self.steps = tuple(zip(kernels, strides, strict=True))
        for conv in self.convs:
            assert isinstance(conv, nn.Conv1d)
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, samples: Float[Tensor, "B S"]) -> Float[Tensor, "B T C"]:
        shortest = self.shortest
        if samples.shape[1] < shortest:
            raise ValueError(f"a sound of {samples.shape[1]} samples is too short: one frame takes {shortest}")
        x = samples[:, None]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = self.act(norm(conv(x).transpose(1, 2))).transpose(1, 2)
        return x.transpose(1, 2)

    def lengths(self, samples: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """How many frames so many samples give; a row too short for one counts as having one."""
        for kernel, stride in self.steps:
            samples = torch.div(samples - kernel, stride, rounding_mode="floor") + 1
        return samples.clamp(min=1)

    def count(self, samples: int) -> int:
        """How many frames a batch of so many samples has."""
        return int(self.lengths(torch.tensor([samples])))

    @property
    def shortest(self) -> int:
        """Samples that one frame takes."""
        kernels, strides = zip(*self.steps, strict=True)
        return samples_of_one(kernels, strides)


class ConvPositions(nn.Module):
    """Positions relative to the neighbourhood: a stack of grouped convolutions, each under a norm without weights (Baevski et al. 2022,
    data2vec, section 4.2)."""

    def __init__(self, width: int, kernel: int, groups: int, layers: int, act: Activation) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups) for _ in range(layers))
        self.act = activation(act)
        self.width = width
        for conv in self.convs:
            assert isinstance(conv, nn.Conv1d) and conv.bias is not None
            nn.init.normal_(conv.weight, std=(4 / (kernel * width)) ** 0.5)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Float[Tensor, "B T D"], own: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, "B T D"]:
        """What to add to `x`. With `own` each layer sees zeros behind a row's end, as it would if the row stood alone."""
        length = x.shape[1]
        for conv in self.convs:
            if own is not None:
                x = x * own[:, :, None]
            # An even kernel gives one position too many, at the end.
            x = conv(x.transpose(1, 2))[:, :, :length].transpose(1, 2)
            x = self.act(F.layer_norm(x, (self.width,)))
        return x
