"""What a run would fail by, or what would do nothing in it, found before its first update."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from tonggan import devices, steps
from tonggan.config import did_you_mean, one_of
from tonggan.data.kept import NAMES, media_key
from tonggan.data.loader import LoaderConfig, check_streams
from tonggan.data.pairs import classes_of
from tonggan.data.rows import Dataset
from tonggan.evaluate.tasks.answers import METRICS, RATES
from tonggan.evaluate.tasks.labelled import labelled
from tonggan.generate import Talker
from tonggan.models import DualEncoder, adapt
from tonggan.models.base import Embedder, Featurizer, Matcher
from tonggan.models.conse import Centre
from tonggan.models.ngram import BilingualText
from tonggan.models.towers import Bert
from tonggan.recipes.begin import Parts
from tonggan.recipes.config import (
    AnswersEvaluation,
    CaptionsEvaluation,
    EvaluationConfig,
    LossEvaluation,
    MatchingEvaluation,
    ProbeEvaluation,
    RetrievalEvaluation,
    RunConfig,
    Stage,
    StreamConfig,
)
from tonggan.recipes.rows import RunRows, wanted
from tonggan.steps.classification import ClassificationConfig
from tonggan.steps.contrastive import ContrastiveConfig
from tonggan.steps.language import LanguageConfig
from tonggan.steps.matching import MatchingConfig
from tonggan.steps.transfer import TransferConfig
from tonggan.tensors import Modality
from tonggan.train.logs import check_loggers
from tonggan.train.optim import groups
from tonggan.train.trainer import check_length, check_parts, check_patience, pick_precision
from tonggan.types import Media, MediaError, Row, TongganError, UsageError


def check(config: RunConfig, parts: Parts, rows: RunRows, labels: tuple[str, ...] | None) -> None:
    """Raise for what any stage of a run would fail by; `labels` are the classes that the model will have learnt."""
    model = parts.module
    if adapt.is_adapted(model) and (first := config.stages[0]).adapt is None:
        start = config.model.start
        raise UsageError(
            f"model.start: {start} has an adapter, and stage {first.name} would train the base beneath it; merge it "
            f"(tonggan merge {start} DIRECTORY) and start from what that writes, or set adapt with other parts"
        )
    wider, still = False, _weightless(model)
    for stage in config.stages:
        check_length(stage.train)
        check_patience(stage.train, config.evaluation is None or config.evaluation.choose)
        pick_precision(stage.train.precision, devices.choose(stage.train.device, "train.device"))
        check_loggers(stage.train.loggers)
        for where, evaluation, langs in _evaluations(config, stage):
            _check_evaluation(f"stage {stage.name}: {where}", evaluation, stage, model)
            _check_rows(f"stage {stage.name}: {where}", evaluation, langs, stage, rows, labels or ())
        check_prepared(stage, model, bilingual=wider)
        wider |= stage.bilingual  # it moves the BERT to text.bert, which is not there yet
        for name in stage.freeze:
            if not (wider and name.startswith("text.")):
                named(model, name)
        _check_cached(stage, model)
        if not wider:
            _check_learning(stage, model)
        _check_streams(stage, parts, still, rows)


def check_prepared(stage: Stage, model: nn.Module, *, bilingual: bool = False) -> None:
    """Raise `UsageError` where a stage cannot change the model as it says before its first update.

    `bilingual`: by then the text tower will have its n-gram part.
    """
    if not isinstance(model, DualEncoder):
        if stage.centre or stage.bilingual or stage.ridge is not None:
            raise UsageError(f"stage {stage.name}: centre, bilingual and ridge are for two-tower models")
        return
    bilingual |= isinstance(model.text, BilingualText)
    if stage.bilingual and not bilingual and not isinstance(model.text, Bert):
        raise UsageError(f"stage {stage.name}: bilingual needs a model whose text tower is a BERT")
    if stage.ridge is None:
        return
    if not any(isinstance(stream.step, TransferConfig) for stream in stage.streams):
        raise UsageError(f"stage {stage.name}: ridge needs a transfer stream, whose pairs it learns from")
    if not (bilingual or stage.bilingual) or not isinstance(getattr(model.text_head, "centre", None), Centre):
        raise UsageError(f"stage {stage.name}: ridge needs bilingual, and a centred text head")


def batches(stream: StreamConfig, rows: Dataset) -> LoaderConfig:
    """A stream's loader, with batches no larger than its rows."""
    return stream.loader.model_copy(update={"batch_size": min(stream.loader.batch_size, len(rows))})


def check_apart(stage: Stage, stream: StreamConfig, rows: Dataset) -> None:
    """Contrastive learning tells rows apart, and matching right pairs from wrong ones; where nothing differs, there is nothing to learn."""
    if not isinstance(stream.step, ContrastiveConfig | MatchingConfig):
        return
    where = f"stage {stage.name}: stream {stream.name}"
    if len(rows) < 2 or stream.loader.batch_size < 2:
        few = f"there is only {len(rows)}" if len(rows) < 2 else "batch_size is 1"
        task = "contrastive learning" if isinstance(stream.step, ContrastiveConfig) else "matching"
        raise TongganError(f"{where}: {task} tells rows apart, but {few}")
    if len(found := set(rows.column("group"))) == 1 and (group := found.pop()) is not None:
        raise TongganError(f"{where}: all {len(rows)} rows are of one group ({group}), so nothing tells them apart")
    if (kind := _in_common(stream, rows)) is not None:
        raise TongganError(f"{where}: all {len(rows)} rows have the same {NAMES[kind]}, so nothing tells them apart")


def _in_common(stream: StreamConfig, rows: Dataset) -> Modality | None:
    """The kind of input that is the same one in every row. Nothing is looked at beyond the first row that differs."""

    def given(kind: Modality, row: Row) -> set[Any]:
        if kind == "text":
            return {text.text.strip().lower() for text in row.texts if wanted(text, stream.data)}
        parts: dict[Modality, Sequence[Media]] = {"image": row.images[:1], "audio": row.audios, "video": row.videos[:1]}
        try:
            return {media_key(part) for part in parts[kind]}
        except MediaError:  # it will be left out, whatever it is
            return set()

    for kind in sorted(stream.step.modalities):
        if len(one := given(kind, rows[0])) == 1 and all(given(kind, row) == one for row in rows):
            return kind
    return None


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
    """Raise `UsageError` where nothing is left to learn, where a part that is frozen has something of the stage's adapter inside, or where
    a part with a rate of its own is not there.

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
    groups(model, stage.optim.weight_decay, stage.optim.parts)


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


def _weightless(model: nn.Module) -> nn.Module:
    """A copy without weights, for steps that are built only to see that they can be: some keep a copy of the model."""
    known: dict[int, object] = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    known |= {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    return copy.deepcopy(model, known)


def _check_streams(stage: Stage, parts: Parts, still: nn.Module, rows: RunRows) -> None:
    """There are rows, batches of them can be made, and the model, of which `still` is a copy, can do what each step trains."""
    for stream in stage.streams:
        found = rows.stream(stream)
        loader = batches(stream, found)
        check_apart(stage, stream, found)
        try:
            check_streams(loader)
            with torch.random.fork_rng(devices=[]):  # a step may draw first weights of its own
                teacher = still if isinstance(still, DualEncoder) else None
                step = steps.build(still, stream.step, teacher=teacher, vocabulary=parts.vocabulary(stream.step))
            check_parts(stream.name, step, stage.train.micro_batch, loader.batch_size)
            if isinstance(stream.step, LanguageConfig) and stream.augment is not None:
                raise UsageError(f"stream {stream.name}: augment changes single pictures, and these stand in conversations; leave it out")
        except UsageError as error:
            raise UsageError(f"stage {stage.name}: {error}") from None


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
        case CaptionsEvaluation() | AnswersEvaluation():
            if not isinstance(model, Talker):
                raise UsageError(f"{where}: {evaluation.kind} are asked of a model that talks, which this one does not; take kind: loss")
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
    held_out = rows.held_out(evaluation, stage, langs)
    said = _said(evaluation, stage)
    spoken = {text.lang or "und" for row in held_out for text in row.texts if "text" in said}
    spoken |= {sound.role or "und" for row in held_out for sound in row.audios if "audio" in said}
    if said and (absent := [lang for lang in langs or () if lang not in spoken]):
        things = " or ".join(NAMES[kind] for kind in ("text", "audio") if kind in said)
        raise UsageError(f"{where}: no {things} in {absent[0]!r} among what it is evaluated on; there are: {', '.join(sorted(spoken))}")
    if isinstance(evaluation, ProbeEvaluation):
        kept, _ = labelled(held_out, evaluation.label, evaluation.of)
        if missing := [name for name in ("train", "test") if name not in {row.split for row, _ in kept}]:
            raise UsageError(
                f"{where}: a probe learns on split train and is measured on split test, and no row of split {missing[0]} has a class in "
                f"column {evaluation.label!r}; set data.split: null for rows of every split"
            )
    if isinstance(evaluation, AnswersEvaluation):
        one_of(evaluation.metric, ["auto", *METRICS], f"{where}: metric")
        heard = evaluation.metric in RATES and any(row.audios and row.texts for row in held_out)
        if not heard and not any(row.question and row.answers for row in held_out):
            raise UsageError(f"{where}: none of the {len(held_out)} rows has a question and an answer; take other data, or kind: loss")
    if isinstance(evaluation, MatchingEvaluation):
        for lang in langs or sorted(spoken):
            some = [row for row in held_out if row.images and any((text.lang or "und") == lang for text in row.texts)]
            if len(some) < 2:
                raise UsageError(
                    f"{where}: matching takes a caption of another row as the wrong one, and {len(some)} of the rows that it is evaluated "
                    f"on {'has' if len(some) == 1 else 'have'} a picture and a caption in {lang!r}; take more rows, or set langs"
                )
    first = stage.streams[0]
    if not isinstance(evaluation, LossEvaluation) or not isinstance(first.step, ClassificationConfig) or first.data.label is None:
        return
    if strange := [name for name in classes_of(held_out, first.data.label) if name not in labels]:
        raise UsageError(
            f"{where}: held-out rows of {evaluation.data.source} are of class {strange[0]!r} (meta.{first.data.label}), "
            f"which no stream learns; the classes are: {', '.join(labels)}"
        )


def _said(evaluation: EvaluationConfig, stage: Stage) -> frozenset[Modality]:
    """The kinds of input whose language is what an evaluation's `langs` are about."""
    match evaluation:
        case RetrievalEvaluation():
            return frozenset({evaluation.between[1]})
        case MatchingEvaluation() | CaptionsEvaluation():
            return frozenset({"text"})
        case ProbeEvaluation() | AnswersEvaluation():
            return frozenset()
        case LossEvaluation():
            return stage.streams[0].step.modalities & {"text", "audio"}
