"""A run: a model, stages of streams, and what comes out of them, in one directory.

run.yaml        the configuration, as it was
metrics.jsonl   numbers of the last stage (earlier stages keep theirs under stages/NAME)
best/, last/    models; `tonggan.load(run)` takes best/
"""

from __future__ import annotations

import copy
import json
import logging
import random
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tonggan import hub
from tonggan.backends import load_local
from tonggan.backends.local import LocalModel
from tonggan.config import did_you_mean, one_of
from tonggan.data import open_data
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.loader import Loader
from tonggan.data.pairs import PairCollate
from tonggan.data.processor import Processor
from tonggan.data.rows import Dataset
from tonggan.data.sources import held_out_captions
from tonggan.data.splits import caption_key
from tonggan.data.text import train_bpe
from tonggan.evaluate import retrieval
from tonggan.hub.read import Checkpoint
from tonggan.models import DualEncoder, DualEncoderConfig, build, presets
from tonggan.models.conse import Centre
from tonggan.models.ngram import BilingualText, BilingualTextConfig
from tonggan.models.towers import Bert
from tonggan.recipes.cache import image_features, text_features
from tonggan.recipes.config import DataConfig, RunConfig, Stage, StreamConfig
from tonggan.steps.contrastive import ContrastiveConfig, ContrastiveStep
from tonggan.steps.transfer import TextTransferStep, TransferConfig
from tonggan.train import checkpoint
from tonggan.train.logs import check_loggers
from tonggan.train.planner import preflight
from tonggan.train.trainer import Finished, Stream, Trainer, check_length, pick_device, pick_precision
from tonggan.types import Dropped, Identity, Row, Text, TongganError, UsageError

log = logging.getLogger("tonggan")
COMMON = frozenset(["a", "an", "the", "of", "in", "on", "and", "with", "s", "is"])
UNKNOWN = Identity({}, "")
"""While a model changes with every update, its identity is not worth computing."""


class Run:
    """A configuration at work in the directory `out`."""

    def __init__(self, config: RunConfig, out: str | Path, *, limit: int | None = None, quiet: bool = False) -> None:
        self.config, self.out = config, Path(out)
        self._limit, self._quiet = limit, quiet
        self.dropped: list[Dropped] = []
        torch.manual_seed(config.seed)
        self.model, self.model_config, self.processor = self._begin()
        self._teacher: DualEncoder | None = None

    # --------------------------------------------------------------------------------------------- model

    def _begin(self) -> tuple[DualEncoder, DualEncoderConfig, Processor]:
        source = self.config.model
        if source.start is not None:
            found = load_local(source.start, device="cpu")
            if not isinstance(found.module, DualEncoder) or not isinstance(found.config, DualEncoderConfig):
                raise UsageError(f"model.start: {source.start} is a classifier; pair it with a text model: {source.start}+TEXT")
            return found.module.train(), found.config, self._pictures(found.processor, found.config)
        shape = source.config or presets()[one_of(str(source.preset), presets(), "preset")]
        image, words = shape.image, shape.text
        if image is None or words is None:
            raise UsageError("model.config: training needs both a picture and a text tower")
        captions = sorted(
            {t.text for stage in self.config.stages for stream in stage.streams for row in self.rows(stream.data) for t in row.texts}
        )
        tokenizer = train_bpe(captions, source.vocab_size, max_length=words.context)
        text = words.model_copy(update={"vocab_size": tokenizer.vocab_size})
        shape = shape.model_copy(update={"text": text})
        looking = ImageProcessing(mode="pad", size=image.image_size, mean=image.mean, std=image.std)
        module = build(shape)
        assert isinstance(module, DualEncoder)
        return module, shape, self._pictures(Processor(ImageProcessor(looking), tokenizer), shape)

    def _pictures(self, processor: Processor, config: DualEncoderConfig) -> Processor:
        """The processor under the recipe's changes to picture processing."""
        if not self.config.model.pictures or processor.image is None:
            return processor
        changed = ImageProcessing.parse({**processor.image.config.model_dump(), **self.config.model.pictures}, "model.pictures")
        if config.image is not None and changed.side != config.image.image_size:
            raise UsageError(f"model.pictures: pictures of {changed.side} pixels, but the tower reads {config.image.image_size}")
        return Processor(ImageProcessor(changed), processor.text)

    def local(self) -> LocalModel:
        """The model as it is now, with its verbs."""
        made = Checkpoint(self.model, self.model_config, self.processor, UNKNOWN, self.config.name)
        return LocalModel(made, next(self.model.parameters()).device)

    def save(self, directory: Path) -> None:
        """Write the model with all that `load` needs."""
        provenance = {"run": self.config.name, "seed": self.config.seed, "start": self.config.model.start or self.config.model.preset}
        hub.save(directory, self.model, self.model_config, self.processor, provenance=provenance)

    # ---------------------------------------------------------------------------------------------- data

    def rows(self, data: DataConfig) -> Dataset:
        """The rows of a configuration, those that lack what training needs left out and listed."""
        found = _open(data.model_dump_json())
        self._drop(found.dropped)
        usable = [i for i, row in enumerate(found) if row.images and any(_wanted(t, data) for t in row.texts)]
        if not usable:
            langs = f" in {', '.join(data.langs)}" if data.langs else ""
            raise TongganError(f"{data.source}: no row of split {data.split!r} has a picture and a caption{langs}")
        return found.where(usable[: self._limit])

    def dropped_rows(self) -> list[Dropped]:
        """Rows that cannot be used, with their reasons, as far as they are known before training."""
        for stage in self.config.stages:
            for stream in stage.streams:
                self.rows(stream.data)
        return self.dropped

    def _heldout(self) -> list[Row]:
        return list(self.rows(self.config.evaluation.data)) if self.config.evaluation else []

    # -------------------------------------------------------------------------------------------- training

    def train(self, *, resume: bool = False) -> Finished:
        """Every stage in turn; with `resume`, those that are done are skipped and the one that was cut short goes on."""
        self.out.mkdir(parents=True, exist_ok=True)
        file = self.out / "run.yaml"
        if resume:
            self._check_same(file)
            self._check_tokenizer()
        elif self.begun():
            raise UsageError(f"{self.out}: has a run already; go on with --resume, or name another --out")
        file.write_text(self.config.to_yaml(), encoding="utf-8")
        self._check_stages()
        done = self._stages_done() if resume else []
        finished: Finished | None = None
        for number, stage in enumerate(self.config.stages):
            if number:
                # Else what is drawn here would depend on whether the stage before ran in this process or in one that was killed.
                _seed(self.config.seed, number)
            self.prepare(stage)
            if stage.name in done:
                self._take(self._stage_directory(number))
                continue
            finished = self._stage(number, stage, resume=resume)
            if finished.stopped == "interrupted":
                return finished
            self._take(self._stage_directory(number))
            done.append(stage.name)
            (self.out / "stages.json").write_text(json.dumps(done), encoding="utf-8")
        return finished or Finished(0, 0.0, None, "done")

    def _check_stages(self) -> None:
        """What a later stage would fail by, found before the first is trained."""
        wider = False
        for stage in self.config.stages:
            check_length(stage.train)
            pick_precision(stage.train.precision, pick_device(stage.train.device))
            check_loggers(stage.train.loggers)
            if stage.train.patience is not None and self.config.evaluation is None:
                raise UsageError(f"stage {stage.name}: train.patience waits for a better evaluation, and evaluation is not set")
            wider |= stage.bilingual  # it moves the BERT to text.bert
            for name in stage.freeze:
                if not (wider and name.startswith("text.")):
                    self._part(name)

    def _check_tokenizer(self) -> None:
        """A tokenizer that is trained on the captions is another one when they have changed; the checkpoint's vectors are not its own."""
        places = [self._stage_directory(number) / "last" for number in range(len(self.config.stages))]
        saved = next((last for last in places if (last / checkpoint.STATE).is_file()), None)
        if self.config.model.start is not None or saved is None or self.processor.text is None:
            return
        before = hub.read(saved).processor.text
        if before is None or before.spec != self.processor.text.spec:
            raise UsageError(
                f"{self.out}: the captions are not those that this run was begun with (rows changed, or --limit?), so its tokenizer "
                "is another one; resume with the same data, or name another --out"
            )

    def begun(self) -> bool:
        """Whether the directory holds a checkpoint of any stage, so that there is something to resume or to lose."""
        lasts = [self._stage_directory(number) / "last" for number in range(len(self.config.stages))]
        for last in lasts:
            checkpoint.settle(last)
        return any(last.exists() for last in lasts)

    def _stage(self, number: int, stage: Stage, *, resume: bool) -> Finished:
        trainer = self.trainer(number, stage)
        last = self._stage_directory(number) / "last"
        checkpoint.settle(last)
        loaders = [stream.batches for stream in trainer.streams if isinstance(stream.batches, Loader)]
        try:
            for stream, loader in zip(trainer.streams, loaders, strict=True):
                for warning in preflight(trainer, stream, loader.largest()).warnings:
                    log.warning("stage %s: %s", stage.name, warning)
            return trainer.fit(resume=resume and (last / checkpoint.STATE).is_file())
        finally:
            for loader in loaders:
                loader.close()
                if isinstance(loader.collate, PairCollate):
                    self._drop(loader.collate.dropped.values())

    def _drop(self, several: Iterable[Dropped]) -> None:
        self.dropped += [one for one in several if one not in self.dropped]

    def trainer(self, number: int, stage: Stage) -> Trainer:
        """The trainer of a stage that has been prepared."""
        device = pick_device(stage.train.device)
        for model in (self.model, self._teacher):  # before a frozen tower encodes all pictures
            if model is not None:
                model.to(device)
        frozen = [self._part(name) for name in stage.freeze]
        for part in frozen:
            part.requires_grad_(False)
        streams = [self._stream(stage, stream) for stream in stage.streams]
        directory = self._stage_directory(number)
        return Trainer(
            self.model,
            streams,
            stage.train,
            stage.optim,
            run=directory,
            save=self.save,
            evaluate=(lambda: self._evaluate(stage)) if self.config.evaluation else None,
            score="mean recall",
            choose=self.config.evaluation is None or self.config.evaluation.choose,
            frozen=frozen,
            title=f"{self.config.name}: {stage.name}" if len(self.config.stages) > 1 else self.config.name,
            quiet=self._quiet,
        )

    def _part(self, name: str) -> nn.Module:
        try:
            return self.model.get_submodule(name)
        except AttributeError:
            known = [n for n, _ in self.model.named_modules() if n and n.count(".") <= 1]
            raise UsageError(
                f"freeze: no part {name!r}{did_you_mean(name, known)}; for example image, text, image_head, text_head"
            ) from None

    def prepare(self, stage: Stage) -> None:
        """What a stage changes before its first update: the text tower's second language, the centring of heads."""
        self.model.cpu()
        if stage.bilingual and not isinstance(self.model.text, BilingualText):
            self._make_bilingual(stage)
        if any(isinstance(stream.step, TransferConfig) for stream in stage.streams):
            self._teacher = copy.deepcopy(self.model)
        if stage.ridge is not None:
            self._solve(stage, stage.ridge)
        if stage.centre:
            rows = [row for stream in stage.streams for row in self.rows(stream.data)]
            pictures, _ = image_features(self.local(), rows, stage.views)
            captions = {f"{row.id} {i}": t for row in rows for i, t in enumerate(row.texts) if t.lang in (None, "en")}
            for head, features in ((self.model.image_head, pictures), (self.model.text_head, text_features(self.local(), captions))):
                fit = getattr(head, "fit", None)
                if fit is not None and features:
                    fit(torch.cat([f.reshape(-1, f.shape[-1]) for f in features.values()]))

    def _make_bilingual(self, stage: Stage) -> None:
        """Put an n-gram tower for Chinese beside the BERT, over a vocabulary with the characters that occur in training."""
        bert, tokenizer = self.model.text, self.processor.text
        if not isinstance(bert, Bert) or tokenizer is None or self.model_config.text is None:
            raise UsageError(f"stage {stage.name}: bilingual needs a model whose text tower is a BERT")
        chinese = [t.text for stream in stage.streams for row in self.rows(stream.data) for t in row.texts if t.lang == "zh"]
        wider = tokenizer.with_characters(chinese)
        config = BilingualTextConfig(bert=bert.config, vocab_size=wider.vocab_size)
        tower = BilingualText(config)
        tower.bert = bert
        tower.is_han[torch.tensor(wider.han_ids())] = True
        tower.ngrams.fit_rarity(Processor(None, wider).tokens(chinese))
        centre = getattr(self.model.text_head, "centre", None)
        if centre is not None:
            tower.ngrams.origin.copy_(centre.mean)
        self.model.text = tower
        self.model_config = self.model_config.model_copy(update={"text": config})
        self.model.config = self.model_config
        self.processor = Processor(self.processor.image, wider)

    def _solve(self, stage: Stage, ridge: float) -> None:
        """The n-gram tower in closed form: from the Chinese captions to where the teacher's English ones lie, seen from its centre."""
        tower, centre = self.model.text, getattr(self.model.text_head, "centre", None)
        if not isinstance(tower, BilingualText) or not isinstance(centre, Centre):
            raise UsageError(f"stage {stage.name}: ridge needs bilingual, and a centred text head")
        pairs: list[tuple[str, str, float]] = []
        for stream in stage.streams:
            rows = self.rows(stream.data)
            for i in self._telling_nothing(rows) if stream.exclude_heldout else range(len(rows)):
                english = [t.text for t in rows[i].texts if t.lang == "en"]
                pairs += [(t.text, english[0], stream.weight) for t in rows[i].texts if t.lang == "zh" and english]
        taught = text_features(self.local(), {str(i): Text(en) for i, (_, en, _) in enumerate(pairs)})
        aims = nn.functional.normalize(centre(torch.stack([taught[str(i)] for i in range(len(pairs))])), dim=1)
        weights = torch.tensor([weight for _, _, weight in pairs])
        tower.ngrams.solve(self.processor.tokens([zh for zh, _, _ in pairs]), aims, ridge, weights)

    def _stream(self, stage: Stage, stream: StreamConfig) -> Stream:
        rows = self.rows(stream.data)
        if stream.exclude_heldout:
            rows = rows.where(self._telling_nothing(rows))
        langs = stream.data.langs
        pictures = text = teacher = None
        if isinstance(stream.step, TransferConfig):
            rows = rows.where([i for i, row in enumerate(rows) if {"zh", "en"} <= {t.lang for t in row.texts}])
            teacher = text_features(self.local(), {row.id: next(t for t in row.texts if t.lang == "en") for row in rows})
            langs = ("zh",)
            uses_pictures = stream.step.contrast_pictures > 0
        else:
            uses_pictures = True
        if uses_pictures and "image" in stage.freeze:
            pictures, dropped = image_features(self.local(), list(rows), stage.views)
            self._drop(dropped)
            rows = rows.where([i for i, row in enumerate(rows) if row.id in pictures])
        if "text" in stage.freeze and teacher is None:
            # With one caption per row and a frozen tower, the text is encoded once too.
            single = {row.id: c[0] for row in rows if len(c := [t for t in row.texts if _wanted(t, stream.data)]) == 1}
            text = text_features(self.local(), single) if len(single) == len(rows) else None
        collate = PairCollate(
            self.processor,
            seed=self.config.seed,
            langs=langs,
            augmentation=stream.augment,
            pictures=uses_pictures,
            image_features=pictures,
            text_features=text,
            teacher_features=teacher,
        )
        loader = stream.loader.model_copy(update={"batch_size": min(stream.loader.batch_size, len(rows))})
        return Stream(stream.name, self._step(stream), Loader(rows, collate, loader, seed=self.config.seed), stream.weight, stream.every)

    def _telling_nothing(self, rows: Dataset) -> list[int]:
        """Numbers of rows that share no caption with the held-out side (val and test) of the evaluation's data."""
        if self.config.evaluation is None:
            return list(range(len(rows)))
        every = self.rows(self.config.evaluation.data.model_copy(update={"split": None, "langs": None}))
        held = [t for row in every if row.split != "train" for t in row.texts]
        same = {caption_key(t.text) for t in held}
        words = [frozenset(caption_key(t.text).split()) - COMMON for t in held if t.lang == "en"]
        words = [w for w in words if w]

        def silent(row: Row) -> bool:
            for text in row.texts:
                key = caption_key(text.text)
                if key in same or (text.lang == "en" and any(w <= set(key.split()) for w in words)):
                    return False
            return True

        return [i for i, row in enumerate(rows) if silent(row)]

    def _step(self, stream: StreamConfig) -> nn.Module:
        if isinstance(stream.step, ContrastiveConfig):
            return ContrastiveStep(self.model, stream.step)
        assert self._teacher is not None
        return TextTransferStep(self.model, self._teacher, stream.step)

    def _evaluate(self, stage: Stage) -> dict[str, float]:
        evaluation = self.config.evaluation
        assert evaluation is not None
        result = retrieval(self.local(), self._heldout(), langs=stage.langs or evaluation.langs, intervals=False)
        self._drop(result.dropped)
        return {name: m.value for name, m in result.metrics.items() if "rank" not in name}

    # --------------------------------------------------------------------------------------------- stages

    def _stage_directory(self, number: int) -> Path:
        last = number == len(self.config.stages) - 1
        return self.out if last else self.out / "stages" / self.config.stages[number].name

    def _take(self, directory: Path) -> None:
        """Go on from what a stage found best."""
        best = directory / "best" if (directory / "best").exists() else directory / "last"
        self.model.load_state_dict(hub.read(best).module.state_dict())
        for parameter in self.model.parameters():
            parameter.requires_grad_(True)

    def _stages_done(self) -> list[str]:
        file = self.out / "stages.json"
        return list(json.loads(file.read_text("utf-8"))) if file.is_file() else []

    def _check_same(self, file: Path) -> None:
        if not file.is_file():
            raise UsageError(f"{self.out}: no run to resume here (run.yaml is missing)")
        mine, theirs = _what_counts(self.config), _what_counts(RunConfig.read(file))
        if mine != theirs:
            names = [name for name in mine if mine[name] != theirs.get(name)]
            raise UsageError(
                f"{file}: this run was begun with other settings ({', '.join(names)}); resume with those, or name another --out"
            )


def _what_counts(config: RunConfig) -> dict[str, Any]:
    """A configuration without what may change when a run goes on: where it runs, and what is written down how often."""
    plain = config.model_dump(mode="json")
    for stage in plain["stages"]:
        for name in ("device", "loggers", "log_every", "checkpoint_seconds", "checkpoint_every"):
            del stage["train"][name]
    return plain


def _seed(*words: int) -> None:
    """Set every global generator."""
    seed = int(np.random.SeedSequence(words).generate_state(1)[0])
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@cache
def _open(data: str) -> Dataset:
    """Rows of a `DataConfig` (as JSON, so that opening is done once)."""
    config = DataConfig.model_validate_json(data)
    found = open_data(config.source, image_col=config.image_col, text_col=config.text_col, options=config.options)
    if config.protocol == "captions":
        dropped = found.dropped
        found = Dataset.from_rows(held_out_captions(list(found), seed=config.protocol_seed), dropped=dropped)
    if config.split is None:
        return found
    dropped = found.dropped
    kept = found.split(config.split)
    kept.dropped = dropped
    return kept


def _wanted(text: Text, data: DataConfig) -> bool:
    return bool(text.text.strip()) and (data.langs is None or text.lang in data.langs)
