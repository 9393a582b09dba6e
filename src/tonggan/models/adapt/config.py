"""What an adapter is, as configuration: its kind, its size, and where in a model it goes."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from tonggan.config import Config


class AdapterConfig(Config):
    """What every kind has: the parts that it goes into, and those that learn whole beside it."""

    parts: tuple[str, ...] = ()
    """Parts of the model that get it, e.g. (image,) or (text,); none named: all of it. A probe, which is put nowhere, has none."""
    whole: tuple[str, ...] = ()
    """Parts that learn whole beside it and are kept with it, e.g. (image_head, text_head)."""


class LowRankConfig(AdapterConfig):
    """A product of two narrow matrices beside each chosen linear layer."""

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    """The product is scaled by alpha / rank."""
    rslora: bool = False
    """Scale by alpha / √rank instead, so that large ranks learn as fast (Kalajdzievski 2023)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On what enters the narrow matrices."""
    targets: tuple[str, ...] = Field(default=("attention.q", "attention.v"), min_length=1)
    """Linear layers, by the ends of their names: attention.q, attention.out, feed_forward.up, or one in full."""

    @property
    def scale(self) -> float:
        """Factor of the product."""
        return float(self.alpha / (self.rank**0.5 if self.rslora else self.rank))


class LoraConfig(LowRankConfig):
    """Low-rank adaptation (Hu et al. 2022)."""

    kind: Literal["lora"] = "lora"


class DoraConfig(LowRankConfig):
    """Low-rank adaptation of the weight's direction, its magnitude learnt apart (Liu et al. 2024)."""

    kind: Literal["dora"] = "dora"


class PromptConfig(AdapterConfig):
    """Learnt tokens in front of a tower's blocks (Lester et al. 2021; Jia et al. 2022, VPT)."""

    kind: Literal["prompt"] = "prompt"
    length: PositiveInt = 8
    deep: bool = False
    """New tokens in front of every block, in the place of the last block's (VPT-deep); else only in front of the first."""


class BottleneckConfig(AdapterConfig):
    """A narrow feed-forward beside the frozen one."""

    kind: Literal["bottleneck"] = "bottleneck"
    width: PositiveInt = 64
    form: Literal["serial", "parallel"] = "serial"
    """`serial`: behind attention's and the feed-forward's last layer, before the sum (Houlsby et al. 2019); `parallel`: beside the whole
    feed-forward, reading what it reads (He et al. 2022)."""
    scale: PositiveFloat = 1.0
    """Factor of what it adds (4 in He et al. for the parallel form)."""


class ProbeConfig(AdapterConfig):
    """Nothing is added: only the named linear parts learn (a linear probe)."""

    kind: Literal["probe"] = "probe"
    whole: tuple[str, ...] = Field(default=("image_head", "text_head"), min_length=1)

    @model_validator(mode="after")
    def _goes_nowhere(self) -> ProbeConfig:
        if self.parts:
            raise ValueError(
                f"a probe puts nothing into parts ({', '.join(self.parts)}); name what learns in whole, e.g. whole: [text_head]"
            )
        return self


AdaptConfig: TypeAlias = Annotated[LoraConfig | DoraConfig | PromptConfig | BottleneckConfig | ProbeConfig, Field(discriminator="kind")]
