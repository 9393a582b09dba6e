"""Train an embedder so that what belongs together meets: a picture and its words, a sound and its picture.

Shape letters: B rows, D dim of the common space, K kinds of key.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self, TypeAlias

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from tonggan.config import Config
from tonggan.models.base import Embedder
from tonggan.objectives.contrastive import Objective, alignment, info_nce, nt_xent, one_way, scale, sigmoid, top1
from tonggan.tensors import Batch, Modality, StepOutput
from tonggan.types import UsageError

TILE_FROM = 2048
"""From this many rows on the tiled form is used by itself: below, a matrix of 16 MB costs less than computing it twice."""
TILE = 512
Weight: TypeAlias = Annotated[float, Field(ge=0)]


class ContrastiveConfig(Config):
    """Which objective, and how it treats several positives."""

    kind: Literal["contrastive"] = "contrastive"
    objective: Literal["infonce", "sigmoid", "one_way", "nt_xent"] = "infonce"
    """`infonce`: CLIP's, both ways; `sigmoid`: SigLIP's; `one_way`: pictures to texts only; `nt_xent`: SimCLR's over the batch's pictures
    and texts together, so that a picture is told from other pictures too."""
    denominator: Literal["all", "negatives"] = "all"
    """For `one_way` only: whether the positive itself is in the denominator."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """For `infonce` only."""
    multi_positives: bool = True
    """Rows that share a group, a picture or a caption are positives of each other; off, they are taken for negatives."""
    alignment: Weight = 0.0
    """Weight of the alignment term (Wang and Isola 2020)."""
    anchor: Weight = 0.0
    """Weight of the squared distance of heads' `anchored` weights from their start (Li et al. 2018, L2-SP)."""
    between: tuple[Modality, Modality] = ("image", "text")
    """The kinds of input that meet."""
    tile: PositiveInt | Literal["auto"] | None = "auto"
    """Rows of the similarity matrix at a time; None: the whole matrix; auto: tiles for large batches."""

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        idle = {
            "label_smoothing": self.label_smoothing != 0 and self.objective != "infonce",
            "denominator": self.denominator != "all" and self.objective != "one_way",
        }
        if found := [name for name, useless in idle.items() if useless]:
            raise ValueError(f"objective {self.objective} has no {' and no '.join(found)}")
        return self

    @property
    def modalities(self) -> frozenset[Modality]:
        """What a batch needs to have."""
        return frozenset(self.between)


class ContrastiveStep(nn.Module):
    """Encodes both kinds of input, or a frozen tower's cached features in their place, and couples them."""

    model: Embedder

    def __init__(self, model: Embedder, config: ContrastiveConfig) -> None:
        super().__init__()
        if missing := sorted(config.modalities - model.modalities):
            raise UsageError(
                f"step.between: the model has no tower for {' and '.join(missing)}; it has: {', '.join(sorted(model.modalities))}"
            )
        if config.objective == "sigmoid" and model.bias is None:
            raise UsageError(
                "step.objective: sigmoid needs a bias, and this model has none; set bias_init in its shape (model.config.bias_init, "
                "SigLIP: -10), or take another objective"
            )
        self.model = model
        self.config = config
        held = [(owner, name) for owner in (self.modules() if config.anchor else ()) for name in getattr(owner, "anchored", ())]
        self._anchored = [owner.get_parameter(name) for owner, name in held]
        # Where a weight starts is known from the model that training starts from, also when it is resumed.
        self._starts = [parameter.detach().clone() for parameter in self._anchored]

    def forward(self, batch: Batch) -> StepOutput:
        return self.couple(self.encode(batch), batch.keys)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Unit vectors by kind, each [B, D]."""
        return {kind: self.model.encode(kind, batch.input(kind), features=batch.features(kind)) for kind in self.config.between}

    def couple(self, reps: dict[str, Tensor], keys: Tensor | None) -> StepOutput:
        """The objective over all pairs of the batch, and the terms that are added to it.

        `floor` and `chance` are the objective's: beside terms, its own value is reported as `objective`. `i2t_top1` and `t2i_top1`
        (i image, t text, a audio, v video) are the shares of pictures and of texts whose nearest row in the batch is a positive by its
        keys, whether or not the objective uses them.
        """
        one, other = self.config.between
        a, b = reps[one], reps[other]
        found = self._objective(a, b, keys if self.config.multi_positives else None)
        loss = found.loss
        report = {"loss": 0.0, "floor": found.floor, "chance": found.chance}
        report[f"{one[0]}2{other[0]}_top1"], report[f"{other[0]}2{one[0]}_top1"] = top1(a, b, keys=keys)
        if self.config.alignment:
            term = alignment(a, b)
            loss = loss + self.config.alignment * term.loss
            report["alignment"] = float(term.loss.detach())
        if self._anchored:
            pairs = zip(self._anchored, self._starts, strict=True)
            loss = loss + self.config.anchor * torch.stack([(now - start).square().sum() for now, start in pairs]).sum()
        if loss is not found.loss:
            report["objective"] = float(found.loss.detach())
        report["loss"] = float(loss.detach())
        report["scale"] = float(scale(self.model.log_scale.detach(), self.model.max_scale))
        return StepOutput(loss, report)

    def _objective(self, a: Tensor, b: Tensor, keys: Tensor | None) -> Objective:
        config, model = self.config, self.model
        rows = len(a) * (2 if config.objective == "nt_xent" else 1)
        tile = (TILE if rows >= TILE_FROM else None) if config.tile == "auto" else config.tile
        most = model.max_scale
        match config.objective:
            case "infonce":
                return info_nce(a, b, model.log_scale, keys=keys, label_smoothing=config.label_smoothing, max_scale=most, tile=tile)
            case "sigmoid":
                assert model.bias is not None
                return sigmoid(a, b, model.log_scale, model.bias, keys=keys, max_scale=most, tile=tile)
            case "one_way":
                return one_way(a, b, model.log_scale, denominator=config.denominator, keys=keys, max_scale=most, tile=tile)
            case "nt_xent":
                return nt_xent(a, b, 1 / scale(model.log_scale, most), keys=keys, tile=tile)

    @torch.no_grad()
    def after_update(self) -> None:
        """Hold the scale at its ceiling, as CLIP does after each update."""
        # A hair below, so that rounding cannot leave it above the ceiling, where its gradient would be zero for good.
        ceiling = math.log(self.model.max_scale) - 1e-6
        if not is_parametrized(self.model, "log_scale"):  # type: ignore[arg-type]
            if self.model.log_scale.requires_grad:  # a frozen one stays what it was to the last bit
                self.model.log_scale.clamp_(max=ceiling)
        elif float(self.model.log_scale) > ceiling:  # assigned, so that the temperature behind it is what changes
            self.model.log_scale = torch.full_like(self.model.log_scale, ceiling)  # type: ignore[misc]
