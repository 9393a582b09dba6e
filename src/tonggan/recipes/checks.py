"""What a run would fail by, or what would do nothing in it, found before its first update."""

from __future__ import annotations

from fnmatch import fnmatchcase

import torch
from torch import nn

from tonggan import devices
from tonggan.config import did_you_mean
from tonggan.data.pairs import NAMES, classes_of
from tonggan.evaluate.tasks.labelled import labelled
from tonggan.models import DualEncoder, adapt
from tonggan.models.base import Embedder, Featurizer, Matcher
from tonggan.recipes.config import (
    EvaluationConfig,
    LossEvaluation,
    MatchingEvaluation,
    ProbeEvaluation,
    RetrievalEvaluation,
    RunConfig,
    Stage,
    StreamConfig,
)
from tonggan.recipes.rows import RunRows
from tonggan.steps.classification import ClassificationConfig
from tonggan.steps.transfer import TransferConfig
from tonggan.train.logs import check_loggers
from tonggan.train.trainer import check_length, pick_precision
from tonggan.types import UsageError


def check(config: RunConfig, model: nn.Module, rows: RunRows, labels: tuple[str, ...] | None) -> None:
    """Raise `UsageError` for what any stage of a run would fail by; `labels` are the classes that the model will have learnt."""
    if adapt.is_adapted(model) and (first := config.stages[0]).adapt is None:
        start = config.model.start
        raise UsageError(
            f"model.start: {start} has an adapter, and stage {first.name} would train the base beneath it; merge it "
            f"(tonggan merge {start} DIRECTORY) and start from what that writes, or set adapt with other parts"
        )
    wider = False
    for stage in config.stages:
        check_length(stage.train)
        pick_precision(stage.train.precision, devices.choose(stage.train.device, "train.device"))
        check_loggers(stage.train.loggers)
        for where, evaluation, langs in _evaluations(config, stage):
            _check_evaluation(f"stage {stage.name}: {where}", evaluation, stage, model)
            _check_rows(f"stage {stage.name}: {where}", evaluation, langs, stage, rows, labels or ())
        wider |= stage.bilingual  # it moves the BERT to text.bert, which is not there yet
        for name in stage.freeze:
            if not (wider and name.startswith("text.")):
                named(model, name)
        _check_cached(stage, model)
        if not wider:
            _check_learning(stage, model)


def named(model: nn.Module, name: str) -> list[nn.Module]:
    """The parts that a name in `freeze`, or a pattern with *, stands for."""
    parts = dict(model.named_modules())
    found = [part for known, part in parts.items() if known and fnmatchcase(known, name)]
    if not found:
        shallow = [known for known in parts if known and known.count(".") <= 1]
        there = ", ".join(part for part in shallow if "." not in part)
        raise UsageError(f"freeze: no part {name!r}{did_you_mean(name, shallow)}; there are: {there}, and parts of these")
    return found


def encoded_once(model: nn.Module, stage: Stage, stream: StreamConfig) -> frozenset[str]:
    """The frozen parts whose output stands in for a stream's input: towers of a two-tower model, or the BERT in its text tower.

    What any other system freezes is run at every update.
    """
    if not isinstance(model, DualEncoder):
        return frozenset()
    kinds = stream.step.modalities
    texts = {"text", "text.bert"} if "text" in kinds and not isinstance(stream.step, TransferConfig) else set()
    return frozenset(stage.freeze) & (texts | kinds & {"image"})


def check_learns(model: nn.Module, stage: Stage) -> None:
    """Raise `UsageError` where nothing is left to learn, or where a part that is frozen has something of the stage's adapter inside.

    Of a stage with an adapter, `model` is the view that has it.
    """
    frozen = {id(parameter): name for name in stage.freeze for part in named(model, name) for parameter in part.parameters()}
    learning = {name: id(parameter) for name, parameter in model.named_parameters() if parameter.requires_grad}
    if stage.adapt is not None and (inside := [name for name, known in learning.items() if known in frozen]):
        raise UsageError(
            f"stage {stage.name}: {frozen[learning[inside[0]]]} is frozen, but the adapter goes into it ({inside[0]}); "
            "set adapt.parts and adapt.whole to other parts, or take it out of freeze: beside an adapter all else is frozen as it is"
        )
    if frozen.keys() >= set(learning.values()):
        remedy = f"take parts out of freeze ({', '.join(stage.freeze)})" if stage.adapt is None else "name parts in adapt.whole"
        raise UsageError(f"stage {stage.name}: nothing to train: every parameter of the model is frozen; {remedy}")


def _check_learning(stage: Stage, model: nn.Module) -> None:
    if stage.adapt is None:
        check_learns(model, stage)
        return
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        # A view for a moment: what is drawn for its first weights must not change what the run draws.
        with torch.random.fork_rng(devices=[]):
            check_learns(adapt.attach(model, stage.adapt), stage)
    finally:
        for parameter, learnt in before:
            parameter.requires_grad_(learnt)


def _check_cached(stage: Stage, model: nn.Module) -> None:
    """Views and augmentation are where pictures are read in the way that they need."""
    cached = [stream for stream in stage.streams if "image" in encoded_once(model, stage, stream)]
    if augmented := [stream.name for stream in cached if stream.augment is not None]:
        raise UsageError(
            f"stage {stage.name}: stream {augmented[0]}: augment changes nothing where a frozen picture tower has encoded each picture "
            "once; use views"
        )
    if stage.views > 1 and not cached:
        why = "no stream reads pictures" if isinstance(model, DualEncoder) else "only those of two-tower models do, and this is none"
        raise UsageError(
            f"stage {stage.name}: views are of pictures that a frozen tower encodes once; {why}: leave views out, or use augment"
        )


def _evaluations(config: RunConfig, stage: Stage) -> list[tuple[str, EvaluationConfig, tuple[str, ...] | None]]:
    """Each evaluation of a stage with its place in the recipe and the languages that it is of."""
    chooses = [] if (one := config.evaluation) is None else [("evaluation", one, stage.langs or one.langs)]
    return [*chooses, *((f"looks.{number}", look, look.langs) for number, look in enumerate(config.looks))]


def _check_evaluation(where: str, evaluation: EvaluationConfig, stage: Stage, model: nn.Module) -> None:
    """The model can do what is measured."""
    there = frozenset(model.modalities) if isinstance(model, Featurizer) else frozenset()
    reads = ", ".join(sorted(there)) or "nothing"
    match evaluation:
        case RetrievalEvaluation(between=(seen, said)):
            if not isinstance(model, Embedder):
                raise UsageError(
                    f"{where}: retrieval needs a model that embeds, and this one has no common space; take kind: loss, or probe"
                )
            if seen == said or not {seen, said} <= there:
                raise UsageError(
                    f"{where}: retrieval between {seen} and {said} needs two kinds of input that the model reads; it reads: {reads}"
                )
        case ProbeEvaluation():
            if evaluation.of not in there:
                raise UsageError(
                    f"{where}: a probe of {evaluation.of} looks at features of {NAMES[evaluation.of]}s; the model reads: {reads}"
                )
        case MatchingEvaluation():
            if not isinstance(model, Matcher):
                raise UsageError(f"{where}: matching needs a model that reads a picture and a text together, which this one does not")
        case LossEvaluation():
            if isinstance((first := stage.streams[0]).step, TransferConfig):
                raise UsageError(
                    f"{where}: the loss would be that of stream {first.name}, whose teacher has read only what is learnt from; "
                    "take kind: retrieval, or put another stream first"
                )


def _check_rows(
    where: str, evaluation: EvaluationConfig, langs: tuple[str, ...] | None, stage: Stage, rows: RunRows, labels: tuple[str, ...]
) -> None:
    """The rows have what is measured."""
    held_out = rows.held_out(evaluation, stage)
    spoken = {text.lang for row in held_out for text in row.texts} | {sound.role for row in held_out for sound in row.audios}
    if absent := [lang for lang in langs or () if lang not in spoken]:
        there = ", ".join(sorted(lang or "und" for lang in spoken))
        raise UsageError(f"{where}: no caption in {absent[0]!r} among what it is evaluated on; there are: {there}")
    if isinstance(evaluation, ProbeEvaluation):
        kept, _ = labelled(held_out, evaluation.label, evaluation.of)
        if missing := [name for name in ("train", "test") if name not in {row.split for row, _ in kept}]:
            raise UsageError(
                f"{where}: a probe learns on split train and is measured on split test, and no row of split {missing[0]} has a class in "
                f"column {evaluation.label!r}; set data.split: null for rows of every split"
            )
    first = stage.streams[0]
    if not isinstance(evaluation, LossEvaluation) or not isinstance(first.step, ClassificationConfig) or first.data.label is None:
        return
    if strange := [name for name in classes_of(held_out, first.data.label) if name not in labels]:
        raise UsageError(
            f"{where}: held-out rows of {evaluation.data.source} are of class {strange[0]!r} (meta.{first.data.label}), "
            f"which no stream learns; the classes are: {', '.join(labels)}"
        )
