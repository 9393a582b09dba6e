"""Learn from pictures, sounds or text alone: a student fills in what is hidden from it, in the states of a teacher that sees
everything and is the student's own running average (Baevski et al. 2022, data2vec).

Shape letters: B rows, T places, N hidden places, D width.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, Self

import torch
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.base import LatentLearner, depth
from tonggan.nn.masking import derived_generator, hide_blocks, hide_spans, hide_words
from tonggan.nn.transformer import Trace, Transformer
from tonggan.objectives.latent import Norm, average_top, normalised, regression
from tonggan.tensors import Batch, Modality, StepOutput, Vocabulary
from tonggan.types import UsageError


class LatentConfig(Config):
    """What is hidden, what is aimed at, and how the teacher follows. The defaults are the paper's for pictures (section 4.1); it has
    for speech: top_layers 8, of feed_forward, norm instance, norm_mean none, beta 0, share 0.65, share_stem (section 4.2); for text:
    top_layers 10, of feed_forward, norm instance, norm_mean layer, beta 4, share 0.15, share_stem (section 4.3)."""

    kind: Literal["latent"] = "latent"
    modality: Literal["image", "audio", "text"] = "image"
    share: float = Field(default=0.6, gt=0, le=1)
    """How much is hidden: of the patches; of the frames, if spans did not overlap; of the words."""
    smallest_block: PositiveInt = 16
    """For pictures: patches in the smallest rectangle that is hidden."""
    span: PositiveInt = 10
    """For sounds: frames that are hidden in a row."""
    top_layers: PositiveInt = 6
    of: Literal["block", "feed_forward"] = "block"
    """Whether a layer's output is the stream after a block, or what its feed-forward adds to it."""
    norm: Norm = "layer"
    """Of each layer."""
    norm_mean: Literal["layer", "place", "none"] = "layer"
    """Of the layers' mean."""
    beta: NonNegativeFloat = 2.0
    """Where the loss turns from square to linear; 0: it is square everywhere."""
    scale: float | None = None
    """Of the loss, which is a sum over channels; None: 1/√D."""
    head_layers: PositiveInt = 1
    """Linear layers between the student's states and the teacher's; a GELU between two."""
    share_stem: bool = False
    """The teacher averages blocks only; whatever stands before them is the student's as it is."""
    decay: float = Field(default=0.9998, ge=0, le=1)
    """How much of the teacher stays at an update, at first."""
    decay_end: float = Field(default=0.9998, ge=0, le=1)
    ramp: PositiveInt = 1
    """Updates in which the first decay becomes the last, in equal steps."""

    @model_validator(mode="after")
    def _decay_does_not_fall(self) -> Self:
        if self.decay_end < self.decay:
            raise ValueError(f"decay_end {self.decay_end} is below decay {self.decay}: a teacher settles down, it does not speed up")
        return self

    @property
    def modalities(self) -> frozenset[Modality]:
        """What a batch needs to have."""
        return frozenset({self.modality})


class LatentStep(nn.Module):
    """Student, its teacher, and the head between them. Teacher, head and count are the step's own: saved with the run, not the model."""

    updates: Tensor

    def __init__(self, model: LatentLearner, config: LatentConfig, vocabulary: Vocabulary | None = None) -> None:
        super().__init__()
        assert isinstance(model, nn.Module)
        kind = config.modality
        if kind not in model.modalities:
            raise UsageError(f"step.modality: the model reads {', '.join(sorted(model.modalities))}, not {kind}")
        if kind == "text" and vocabulary is None:
            raise UsageError("step latent: hiding words needs a tokenizer with a mask token")
        if not model.can_hide(kind):
            raise UsageError(f"step latent: hiding needs a mask token, and this tower has none; set model.config.{kind}.mask_token: true")
        if config.top_layers > (blocks := depth(model)):
            raise UsageError(f"step.top_layers: {config.top_layers} of {blocks} blocks; set it to {blocks} at most")
        self.model, self.config, self._vocabulary = model, config, vocabulary
        self.teacher = copy.deepcopy(model).eval().requires_grad_(False)
        layers: list[nn.Module] = [nn.Linear(model.width, model.width)]
        for _ in range(config.head_layers - 1):
            layers += [nn.GELU(), nn.Linear(model.width, model.width)]
        self.head = nn.Sequential(*layers)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def train(self, mode: bool = True) -> Self:
        """As usual, but a teacher drops nothing out."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: Batch) -> StepOutput:
        """The student's guesses at hidden places against the teacher's states. `target_variance` and `prediction_variance` falling to zero
        is collapse: the loss is then small and says nothing; `chance` falls with it. `hidden` is how many places were."""
        kind, inputs = self.config.modality, batch.input(self.config.modality)
        if inputs is None:
            raise UsageError(f"step latent: the batch has no {kind}")
        seen, hidden, told = self._hide(inputs)
        states = self.model.fill(kind, seen, hidden if told else None).states
        objective, spread = regression(
            self.head(states[hidden]), self.targets(inputs)[hidden], beta=self.config.beta, scale=self.config.scale
        )
        report = {
            "loss": float(objective.loss.detach()),
            "floor": objective.floor,
            "chance": objective.chance,
            "target_variance": spread.targets,
            "prediction_variance": spread.predictions,
            "hidden": float(hidden.sum()),
            "decay": self.decay(),
        }
        return StepOutput(objective.loss, report)

    @torch.no_grad()
    def targets(self, inputs: Any) -> Float[Tensor, "B T D"]:
        """What the teacher, which sees everything, made of each place."""
        trace = Trace()
        found = self.teacher.fill(self.config.modality, inputs, trace=trace)
        layers = trace.blocks if self.config.of == "block" else trace.feed_forwards
        mean = average_top(layers, self.config.top_layers, self.config.norm, found.lengths)
        return normalised(mean, self.config.norm_mean, found.lengths)

    def decay(self) -> float:
        """How much of the teacher stays at the next update."""
        passed = min(1.0, int(self.updates) / self.config.ramp)
        return self.config.decay + (self.config.decay_end - self.config.decay) * passed

    @torch.no_grad()
    def after_update(self) -> None:
        """The teacher follows the student: θ ← τθ + (1-τ)θ_student (section 3.2)."""
        stay = self.decay()
        averaged = {id(p) for part in self._averaged() for p in part.parameters()}
        for mine, its in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
            mine.lerp_(its.to(mine.dtype), 1 - stay if id(mine) in averaged else 1.0)
        for still, moved in zip(self.teacher.buffers(), self.model.buffers(), strict=True):
            still.copy_(moved)
        self.updates += 1

    def _averaged(self) -> list[nn.Module]:
        if not self.config.share_stem:
            return [self.teacher]
        return [part for part in self.teacher.modules() if isinstance(part, Transformer)]

    def _hide(self, inputs: Any) -> tuple[Any, Bool[Tensor, "B T"], bool]:
        """What the student sees, which places are hidden, and whether it is told which: words are hidden in the ids themselves."""
        config, generator = self.config, derived_generator()
        if config.modality == "text":
            assert self._vocabulary is not None
            corrupted = hide_words(inputs, self._vocabulary, config.share, generator)
            return corrupted.tokens, corrupted.where, False
        places = self.model.places(config.modality, inputs)
        if places.grid is not None:
            hidden = hide_blocks(places.rows, places.grid, config.share, generator, smallest=config.smallest_block)
        else:
            assert places.lengths is not None
            hidden = hide_spans(places.lengths.cpu(), places.count, config.share, config.span, generator)
        return inputs, hidden.to(next(self.teacher.parameters()).device), True
