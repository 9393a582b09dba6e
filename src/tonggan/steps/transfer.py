"""Teach a text tower another language from paired captions, against a frozen tower that knows one (Chen et al. 2022, AltCLIP, section 3.1).

The student reads the caption in the new language; its vector is drawn to the teacher's vector of the same caption in
the old. Since the teacher's space is the pictures' space, the student can be searched with at once.

Shape letters: B rows, D dim of the common space.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.dual_encoder import DualEncoder
from tonggan.objectives.contrastive import alignment, info_nce
from tonggan.steps.contrastive import Weight
from tonggan.tensors import Batch, Modality, StepOutput


class TransferConfig(Config):
    """How student and teacher are compared, and whether pictures take part."""

    kind: Literal["transfer"] = "transfer"
    distance: Literal["mse", "cosine"] = "mse"
    contrast_pictures: Weight = 0.0
    """Weight of a contrastive term between the student's texts and the (frozen) pictures, where the batch has them."""
    contrast_teacher: Weight = 0.0
    """Weight of a contrastive term between the student's texts and the teacher's."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """What a batch needs to have."""
        return frozenset({"image", "text"} if self.contrast_pictures else {"text"})


class TextTransferStep(nn.Module):
    """`student` learns; `teacher` is frozen and not saved with the step's parameters."""

    def __init__(self, student: DualEncoder, teacher: DualEncoder, config: TransferConfig) -> None:
        super().__init__()
        if student.dim != teacher.dim:
            raise ValueError(f"student and teacher need one space: {student.dim} and {teacher.dim} dimensions")
        self.model = student
        self.config = config
        self._teacher = [teacher.eval().requires_grad_(False)]  # in a list: no submodule, so neither trained nor saved

    def forward(self, batch: Batch) -> StepOutput:
        return self.couple(self.encode(batch), batch.keys)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """The student's vectors of the batch's tokens, the teacher's of its text features (the same caption in the language it knows),
        and the pictures' where they take part; each [B, D]."""
        (teacher,) = self._teacher
        reps = {"text": self.model.encode("text", batch.tokens)}
        with torch.no_grad():
            reps["teacher"] = teacher.encode("text", features=batch.text_features)
        if self.config.contrast_pictures:
            if batch.pixels is None and batch.image_features is None:
                raise ValueError("contrast_pictures needs pictures in the batch")
            with torch.no_grad():
                reps["image"] = teacher.encode("image", batch.pixels, features=batch.image_features)
        return reps

    def couple(self, reps: dict[str, Tensor], keys: Tensor | None) -> StepOutput:
        """Distance to the teacher, and the contrastive terms that are asked for."""
        text, aim = reps["text"], reps["teacher"]
        squared = alignment(text, aim).loss
        # For unit vectors the squared distance is 2 - 2 cos: both are reported as the paper has them.
        distance = squared / text.shape[1] if self.config.distance == "mse" else squared / 2
        loss = distance
        report = {"loss": 0.0, "floor": 0.0, "cosine": float(1 - squared.detach() / 2)}
        for name, weight in (("teacher", self.config.contrast_teacher), ("image", self.config.contrast_pictures)):
            if weight:
                term = info_nce(text, reps[name], self.model.log_scale, keys=keys, max_scale=self.model.max_scale)
                loss = loss + weight * term.loss
                report[f"contrast_{name}"] = float(term.loss.detach())
                report["floor"] += weight * term.floor
        report["loss"] = float(loss.detach())
        return StepOutput(loss, report)
