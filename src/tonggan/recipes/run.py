"""A run: a model, stages of streams, and what comes out of them, in one directory.

run.yaml        the configuration, as it was
metrics.jsonl   numbers of the last stage (earlier stages keep theirs under stages/NAME)
best/, last/    models; `tonggan.load(run)` takes best/
"""

from __future__ import annotations

import copy
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tonggan import devices, hub, steps
from tonggan.backends import load_local
from tonggan.backends.local import LocalModel
from tonggan.data.lessons import LessonCollate, words_of
from tonggan.data.loader import Loader
from tonggan.data.pairs import PairCollate, classes_of
from tonggan.data.plain import writer_of
from tonggan.data.rows import Dataset
from tonggan.generate import Talker
from tonggan.hub.read import Checkpoint
from tonggan.models import DualEncoder, adapt
from tonggan.models.adapt import AdaptConfig
from tonggan.models.base import Labeller
from tonggan.models.ngram import BilingualText
from tonggan.nn.memo import Memo, Rememberer
from tonggan.recipes.begin import begin
from tonggan.recipes.cache import bert_features, image_features, text_features
from tonggan.recipes.checks import batches, check, check_apart, check_learns, check_prepared, encoded_once, named
from tonggan.recipes.config import DataConfig, EvaluationConfig, LossEvaluation, RunConfig, Stage, StreamConfig
from tonggan.recipes.measuring import held_out_loss, measure, shown
from tonggan.recipes.prepare import centre_heads, make_bilingual, solve_ngrams
from tonggan.recipes.progress import Progress
from tonggan.recipes.rows import PAIRS, RunRows, wanted
from tonggan.steps.classification import ClassificationConfig
from tonggan.steps.language import LanguageConfig
from tonggan.steps.transfer import TransferConfig
from tonggan.tensors import Modality
from tonggan.train import checkpoint
from tonggan.train.planner import preflight
from tonggan.train.trainer import Finished, Stream, Trainer
from tonggan.types import Dropped, Identity, Row, UsageError

log = logging.getLogger("tonggan")
UNKNOWN = Identity({}, "")
"""While a model changes with every update, its identity is not worth computing."""


class Run:
    """A configuration at work in the directory `out`."""

    def __init__(self, config: RunConfig, out: str | Path, *, limit: int | None = None, quiet: bool = False) -> None:
        self.config, self.out = config, Path(out)
        for stage in config.stages:
            devices.choose(stage.train.device, "train.device")  # before anything is drawn or read
        self._progress = Progress(config, self.out)
        self._quiet = quiet
        self._rows = RunRows(config, limit)
        torch.manual_seed(config.seed)
        # A generator: only a model that starts from nothing reads captions now, to learn its tokens from.
        tasks = [stream.step for stage in config.stages for stream in stage.streams]
        self.parts = begin(
            config.model,
            self._words(),
            frozenset().union(*(step.modalities for step in tasks)),
            mask=any(map(steps.hides_words, tasks)),
        )
        self._teacher: LocalModel | None = None
        self._base: Checkpoint | None = None
        """What an adapter stands beside."""

    def _words(self) -> Iterator[str]:
        for stage in self.config.stages:
            for stream in stage.streams:
                for row in self._rows.stream(stream):
                    yield from words_of(row, asked=isinstance(stream.step, LanguageConfig))

    @property
    def model(self) -> nn.Module:
        """The module in training."""
        return self.parts.module

    @property
    def dropped(self) -> list[Dropped]:
        """Rows that could not be used, as far as they are known by now, with their reasons."""
        return self._rows.dropped

    def local(self) -> LocalModel:
        """The model as it is now, with its verbs."""
        module, shape, processor, *_ = self.parts
        checkpoint = Checkpoint(module, shape, processor, UNKNOWN, self.config.name, labels=self.labels)
        return LocalModel(checkpoint, next(module.parameters()).device)

    def save(self, directory: Path) -> None:
        """Write the model with all that `load` needs."""
        provenance = {"run": self.config.name, "seed": self.config.seed, "start": self.config.model.start or self.config.model.preset}
        if self._base is not None and (config := self.config.stages[-1].adapt) is not None:
            hub.adapters.save(directory, self.model, self._base, config, provenance=provenance, labels=self.labels)
        else:
            hub.save(directory, *self.parts[:3], provenance=provenance, labels=self.labels)

    def rows(self, data: DataConfig, kinds: frozenset[Modality] = PAIRS) -> Dataset:
        """The rows of a configuration, those that lack one of these kinds of input left out and listed."""
        return self._rows.of(data, kinds)

    def dropped_rows(self) -> list[Dropped]:
        """Rows that cannot be used, with their reasons, as far as they are known before training."""
        for stage in self.config.stages:
            self._rows.stage(stage)
        return self.dropped

    @cached_property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of their numbers. The model has one classifier, so they are numbered once for all streams
        that it learns from; a model that knows them all already keeps its own order.

        Raises `UsageError` when they are more than the model has classes.
        """
        classifying = [s for stage in self.config.stages for s in stage.streams if isinstance(s.step, ClassificationConfig)]
        named = [(stream, stream.data.label) for stream in classifying if stream.data.label is not None]
        learnt = sorted({name for stream, label in named for name in classes_of(self._rows.stream(stream), label)})
        known, model = self.parts.labels, self.model
        room = model.classes if isinstance(model, Labeller) else None
        if not learnt or room is None or set(learnt) <= set(known or ()):
            return known
        if len(learnt) > room:
            raise UsageError(
                f"the streams of classification have {len(learnt)} classes ({', '.join(learnt[:5])}, …), the model {room}; "
                f"set model.config.classes to {len(learnt)}, or leave rows out"
            )
        if known:
            log.warning("the classifier knew other classes (%s, …); from here on it learns %s, …", known[0], learnt[0])
        return (*learnt, *(f"unused {number}" for number in range(len(learnt), room)))

    # -------------------------------------------------------------------------------------------- training

    def train(self, *, resume: bool = False) -> Finished:
        """Every stage in turn; with `resume`, those that are done are skipped and the one that was cut short goes on."""
        self._progress.check(resume=resume)
        if resume:
            self._check_saved()
        self._progress.begin(resume=resume)
        check(self.config, self.parts, self._rows, self.labels)
        done = self.stages_done() if resume else {}
        finished: Finished | None = None
        for number, stage in enumerate(self.config.stages):
            begun = time.monotonic()
            if number:
                # Else what is drawn here would depend on whether the stage before ran in this process or in one that was killed.
                _seed(self.config.seed, number)
            self.prepare(stage)
            if stage.adapt is not None:
                self._adapt(number, stage, stage.adapt)
            if stage.name in done:
                self._take(number)
                continue
            finished = self._stage(number, stage, resume=resume)
            if finished.stopped == "interrupted":
                self._progress.spent(stage.name, time.monotonic() - begun)
                return finished
            self._take(number)
            done[stage.name] = self._progress.spent(stage.name, time.monotonic() - begun)
            self._progress.finish(done)
        return finished or Finished(0, 0.0, None, "done")

    def _check_saved(self) -> None:
        """What the data decide, and a checkpoint was trained with, must be as it was: the order of the classes, and a tokenizer that was
        trained on the captions."""
        saved = next((last for last in self._progress.lasts() if (last / checkpoint.STATE).is_file()), None)
        words = None if self.config.model.start is not None else self.parts.processor.text
        if saved is None or (words is None and self.labels is None):
            return
        before = load_local(str(saved), device="cpu")
        if before.labels and before.labels != self.labels:
            raise UsageError(
                f"{self.out}: the classes are not those that this run was begun with (rows changed, or --limit?), so their numbers mean "
                "others; resume with the same data, or name another --out"
            )
        if words is not None and (before.processor.text is None or before.processor.text.spec != words.spec):
            raise UsageError(
                f"{self.out}: the captions are not those that this run was begun with (rows changed, or --limit?), so its tokenizer "
                "is another one; resume with the same data, or name another --out"
            )

    def begun(self) -> bool:
        """Whether the directory holds a checkpoint of any stage, so that there is something to resume or to lose."""
        return self._progress.begun()

    def _stage(self, number: int, stage: Stage, *, resume: bool) -> Finished:
        trainer = self.trainer(number, stage)
        last = self._progress.directory(number) / "last"
        checkpoint.settle(last)
        loaders = [stream.batches for stream in trainer.streams if isinstance(stream.batches, Loader)]
        try:
            for stream, loader in zip(trainer.streams, loaders, strict=True):
                kept = loader.collate.fills(len(loader.dataset)) if isinstance(loader.collate, PairCollate | LessonCollate) else 0
                for warning in preflight(trainer, stream, loader.largest(), kept).warnings:
                    log.warning("stage %s: %s", stage.name, warning)
            return trainer.fit(resume=resume and (last / checkpoint.STATE).is_file())
        finally:
            for loader in loaders:
                loader.close()
                if isinstance(loader.collate, PairCollate | LessonCollate):
                    self._rows.drop(loader.collate.dropped.values())

    def trainer(self, number: int, stage: Stage) -> Trainer:
        """The trainer of a stage that has been prepared."""
        device = devices.choose(stage.train.device, "train.device")
        self.model.to(device)  # before a frozen tower encodes all pictures
        if self._teacher is not None:
            self._teacher = LocalModel(self._teacher.checkpoint, device)
        frozen = [part for name in stage.freeze for part in named(self.model, name)]
        for part in frozen:
            part.requires_grad_(False)
        if stage.adapt is not None:
            frozen += adapt.still(self.model, stage.adapt)
        model: object = self.model
        if isinstance(model, Rememberer) and model.image is not None:
            learning = any(parameter.requires_grad for parameter in model.image.parameters())
            model.memo = None if learning else Memo()
            if not learning:  # what is kept of a picture must not be one draw of the tower's dropout
                frozen.append(model.image)
        made: dict[tuple[str, tuple[int, ...]], nn.Module] = {}
        streams = []
        for stream in stage.streams:  # streams of one task learn by one step: what it has of its own (a teacher) is theirs together
            task = stream.step.model_dump_json(), self._others(stream)
            if task not in made:
                made[task] = self._step(stream)
            streams.append(self._stream(stage, stream, made[task]))
        directory = self._progress.directory(number)
        return Trainer(
            self.model,
            streams,
            stage.train,
            stage.optim,
            run=directory,
            save=self.save,
            evaluate=(lambda: self._evaluate(stage, streams)) if self.config.evaluation else None,
            score=self.config.evaluation.score if self.config.evaluation else None,
            choose=self.config.evaluation is None or self.config.evaluation.choose,
            frozen=frozen,
            title=f"{self.config.name}: {stage.name}" if len(self.config.stages) > 1 else self.config.name,
            quiet=self._quiet,
        )

    def prepare(self, stage: Stage) -> None:
        """What a stage changes before its first update: the centring of heads, then the text tower's second language, seen from there."""
        self.model.cpu()
        module = self.model
        check_prepared(stage, module)
        if not isinstance(module, DualEncoder):
            return
        if stage.centre:
            shown = [row for stream in stage.streams if "image" in stream.step.modalities for row in self._rows.stream(stream)]
            # Where no picture has an English caption, the English of a dictionary says best where texts lie.
            captions = _english(shown) or _english(self._rows.stage(stage))
            centre_heads(self.local(), shown, captions, stage.views)
        if any(isinstance(stream.step, TransferConfig) for stream in stage.streams):
            self._teacher = LocalModel(replace(self.local().checkpoint, module=copy.deepcopy(module)), "cpu")
        if stage.bilingual and not isinstance(module.text, BilingualText):
            chinese = [t.text for row in self._rows.stage(stage) for t in row.texts if t.lang == "zh"]
            self.parts = make_bilingual(self.parts, chinese)
        if stage.ridge is not None:
            assert self._teacher is not None, "a transfer stream has one"
            solve_ngrams(self.parts, self._teacher, self._pairs(stage), stage.ridge)

    def _adapt(self, number: int, stage: Stage, config: AdaptConfig) -> None:
        """Put a view with the adapter in the model's place; what it stands beside is the model as it can be opened again."""
        module, shape, processor, labels, identity = self.parts
        name = str(self.config.model.start)
        if number:
            name, labels = str(self._progress.best(number - 1)), self.labels
            identity = hub.identity(module, shape, processor, labels)
        assert identity is not None
        self._base = Checkpoint(module, shape, processor, identity, name, labels=labels)
        self.parts = self.parts._replace(module=adapt.attach(module, config))
        check_learns(self.model, stage)

    def _pairs(self, stage: Stage) -> list[tuple[str, str, float]]:
        """Every Chinese caption of the transfer streams, the row's first English one, and what the pair counts."""
        pairs: list[tuple[str, str, float]] = []
        for stream in stage.streams:
            if isinstance(stream.step, TransferConfig):
                for row in self._rows.stream(stream):
                    english = next(t.text for t in row.texts if t.lang == "en")
                    pairs += [(t.text, english, stream.weight) for t in row.texts if t.lang == "zh"]
        return pairs

    def _stream(self, stage: Stage, stream: StreamConfig, step: nn.Module) -> Stream:
        rows, langs, kinds = self._rows.stream(stream), stream.data.langs, stream.step.modalities
        if isinstance(stream.step, LanguageConfig):
            lessons = Loader(rows, self._lessons(stream.step, langs), batches(stream, rows), seed=self.config.seed)
            return Stream(stream.name, step, lessons, stream.weight, stream.every)
        pictures = text = teacher = None
        if isinstance(stream.step, TransferConfig):
            assert self._teacher is not None
            english = {row.id: next(t.text for t in row.texts if t.lang == "en") for row in rows}
            known = text_features(self._teacher, english.values())
            teacher, langs = {name: known[caption] for name, caption in english.items()}, ("zh",)
        once = encoded_once(self.model, stage, stream)
        if "image" in once:
            pictures, dropped = image_features(self.local(), list(rows), stage.views)
            self._rows.drop(dropped)
            rows = rows.where([i for i, row in enumerate(rows) if row.id in pictures])
        if once & {"text", "text.bert"}:
            captions = [t.text for row in rows for t in row.texts if wanted(t, stream.data)]
            text = text_features(self.local(), captions) if "text" in once else bert_features(self.local(), captions)
        check_apart(stage, stream, rows)  # once more: pictures that cannot be read are known by now
        collate = PairCollate(
            self.parts.processor,
            seed=self.config.seed,
            langs=langs,
            augmentation=stream.augment,
            modalities=kinds,
            image_features=pictures,
            text_features=text,
            teacher_features=teacher,
            label=stream.data.label if self._classes(stream) else None,
            classes=self._classes(stream),
        )
        return Stream(stream.name, step, Loader(rows, collate, batches(stream, rows), seed=self.config.seed), stream.weight, stream.every)

    def _lessons(self, step: LanguageConfig, langs: Sequence[str] | None) -> LessonCollate:
        """What makes batches of conversations; each stream, and each evaluation, has its own."""
        module = self.model
        assert isinstance(module, Talker), "or the step refuses it"
        processor = self.parts.processor
        writer = writer_of(self.config.name, self.parts.config, processor, context=module.context, reads=module.reads_prompt)
        return LessonCollate(writer, seed=self.config.seed, langs=langs, of=step.of, pack=step.pack, room=step.room, shots=step.shots)

    def _classes(self, stream: StreamConfig) -> tuple[str, ...]:
        """What a stream's labels are numbered by; nothing where it doesn't classify."""
        return self.labels or () if isinstance(stream.step, ClassificationConfig) else ()

    def _step(self, stream: StreamConfig) -> nn.Module:
        teacher = self._teacher.module if self._teacher is not None else None
        assert teacher is None or isinstance(teacher, DualEncoder)
        vocabulary = self.parts.vocabulary(stream.step)
        return steps.build(self.model, stream.step, teacher=teacher, vocabulary=vocabulary, others=self._others(stream))

    def _others(self, stream: StreamConfig) -> tuple[int, ...]:
        """Numbers of the classes that a stream's column has not, where only those of its column compete."""
        if not isinstance(stream.step, ClassificationConfig) or stream.step.among == "all":
            return ()
        label = stream.data.label
        alike = [one for stage in self.config.stages for one in stage.streams if self._classes(one) and one.data.label == label]
        own = {name for one in alike for name in classes_of(self._rows.stream(one), label or "")}
        return tuple(number for number, name in enumerate(self._classes(stream)) if name not in own)

    def _evaluate(self, stage: Stage, streams: Sequence[Stream]) -> dict[str, float]:
        """The numbers of what chooses, then of what is only looked at, these under their kinds' names."""
        evaluation = self.config.evaluation
        assert evaluation is not None
        found = self._measure(evaluation, stage.langs or evaluation.langs, stage, streams)
        several = Counter(look.kind for look in self.config.looks)
        for number, look in enumerate(self.config.looks):
            measured = self._measure(look, look.langs, stage, streams)
            named = f"{look.kind} {number}" if several[look.kind] > 1 else look.kind
            found |= {f"{named} {name}": value for name, value in measured.items()}
        if self.config.show:
            self._show(evaluation, stage)
        return found

    def _show(self, evaluation: EvaluationConfig, stage: Stage) -> None:
        """What the model says of the first held-out rows: on the terminal, and in `samples.jsonl`."""
        rows = self._rows.held_out(evaluation, stage, stage.langs or evaluation.langs)
        step = next(stream.step for stream in stage.streams if isinstance(stream.step, LanguageConfig))
        collate = self._lessons(step, stage.langs or evaluation.langs)
        said = shown(self.local(), collate, rows, self.config.show)
        self._progress.samples(stage.name, said)
        if not self._quiet:
            sys.stderr.writelines(f"  {one['asked']!r} -> {one['said']!r} (right: {one['right']!r})\n" for one in said)

    def _measure(
        self, evaluation: EvaluationConfig, langs: tuple[str, ...] | None, stage: Stage, streams: Sequence[Stream]
    ) -> dict[str, float]:
        rows = self._rows.held_out(evaluation, stage, langs)
        if isinstance(evaluation, LossEvaluation):
            first, device = stage.streams[0], next(self.model.parameters()).device
            collate: PairCollate | LessonCollate
            if isinstance(first.step, LanguageConfig):
                alone = first.step.model_copy(update={"shots": 0})
                collate = self._lessons(alone, langs or evaluation.data.langs)
            else:
                collate = PairCollate(
                    self.parts.processor,
                    seed=self.config.seed,
                    langs=langs or evaluation.data.langs,
                    modalities=first.step.modalities,
                    label=first.data.label if self._classes(first) else None,
                    classes=self._classes(first),
                )
            found = held_out_loss(streams[0].step, collate, rows, first.loader.batch_size, device)
        else:
            found = measure(evaluation, self.local(), rows, langs)
        self._rows.drop(found.dropped)
        return found.metrics

    def _take(self, number: int) -> None:
        """Go on from what a stage found best."""
        best = self._progress.best(number)
        self.model.load_state_dict(load_local(str(best), device="cpu").module.state_dict())
        for parameter in self.model.parameters():
            parameter.requires_grad_(True)

    def finished(self) -> bool:
        """Whether every stage has been trained to its end."""
        return {stage.name for stage in self.config.stages} <= self.stages_done().keys()

    def stages_done(self) -> dict[str, float]:
        """Seconds that each finished stage took, its preparation and earlier attempts included (but for one that was killed)."""
        return self._progress.done()


def _english(rows: Iterable[Row]) -> list[str]:
    return [text.text for row in rows for text in row.texts if text.lang in (None, "en")]


def _seed(*words: int) -> None:
    """Set every global generator."""
    seed = int(np.random.SeedSequence(words).generate_state(1)[0])
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
