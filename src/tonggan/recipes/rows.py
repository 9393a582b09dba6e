"""The rows of a run: opened once, those that cannot serve left out and listed, on request also those that give the evaluation away."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, cached_property
from inspect import signature
from pathlib import Path

from tonggan.config import did_you_mean
from tonggan.data import open_data
from tonggan.data.kept import NAMES
from tonggan.data.lessons import conversation_of
from tonggan.data.rows import Dataset
from tonggan.data.sources import SOURCES, held_out_captions
from tonggan.data.splits import caption_key
from tonggan.recipes.config import DataConfig, EvaluationConfig, LossEvaluation, RunConfig, Stage, StreamConfig
from tonggan.steps.language import LanguageConfig
from tonggan.steps.transfer import TransferConfig
from tonggan.tensors import MODALITIES, Modality
from tonggan.types import Dropped, Row, Text, TongganError, UsageError

PAIRS: frozenset[Modality] = frozenset({"image", "text"})
COMMON = frozenset(["a", "an", "the", "of", "in", "on", "and", "with", "s", "is"])


class RunRows:
    """What a run learns from and is measured on; the first `limit` usable rows of each. `dropped` grows as data are opened."""

    def __init__(self, config: RunConfig, limit: int | None = None) -> None:
        self._config, self._limit = config, limit
        self._known: dict[tuple[str, str], Dataset] = {}
        self.dropped: list[Dropped] = []
        self._noted: set[Dropped] = set()

    def of(self, data: DataConfig, kinds: frozenset[Modality] = PAIRS) -> Dataset:
        """Rows with each of these kinds of input, and of a class where `data` names a column of classes; captions, and sounds in a known
        language, in one of the languages of `data`."""

        def find() -> Dataset:
            found = _open(data)
            self.drop(found.dropped)
            usable = []
            for i, row in enumerate(found):
                lacking = [_named(kind, data) for kind in MODALITIES if kind in kinds and not _has(row, kind, data)]
                if data.label is not None and data.label not in row.meta:
                    lacking.append(f"class (meta.{data.label})")
                if not lacking:
                    usable.append(i)
                else:
                    self.drop([Dropped(row.id, f"no {lacking[0]}")])
            if not usable:
                needed = [f"a {_named(kind, data)}" for kind in MODALITIES if kind in kinds]
                needed += [f"a class (meta.{data.label})"] if data.label is not None else []
                what = f"has {' and '.join(needed)}" if needed else "is there"
                raise TongganError(f"{data.source}: no row of split {data.split!r} {what}")
            return found.where(usable[: self._limit])

        return self._once(" ".join(sorted(kinds)), data.model_dump_json(), find)

    def stream(self, stream: StreamConfig) -> Dataset:
        """What a stream learns from: for language transfer, rows with a caption in both languages."""

        def find() -> Dataset:
            rows = self.of(stream.data, stream.step.modalities)
            if isinstance(stream.step, TransferConfig):
                rows = rows.where([i for i, row in enumerate(rows) if {"zh", "en"} <= {t.lang for t in row.texts}])
            if isinstance(stream.step, LanguageConfig):
                rows = self._teaching(rows, stream.data, stream.step)
            if stream.exclude_heldout:
                rows = rows.where(self._telling_nothing(rows))
            if not rows:
                why = "with a Chinese and an English caption" if isinstance(stream.step, TransferConfig) else "that is not held out"
                if isinstance(stream.step, LanguageConfig) and not stream.exclude_heldout:
                    why = f"that a model can learn to talk from; the first: {self.dropped[-1]}" if self.dropped else "to learn from"
                raise TongganError(f"stream {stream.name}: {stream.data.source} has no row {why}")
            return rows

        return self._once("stream", stream.model_dump_json(), find)

    def stage(self, stage: Stage) -> list[Row]:
        """The rows of all its streams."""
        return [row for stream in stage.streams for row in self.stream(stream)]

    def held_out(self, evaluation: EvaluationConfig, stage: Stage, langs: tuple[str, ...] | None) -> list[Row]:
        """What a stage is evaluated on. A loss is of what the stage's first stream reads, in one of `langs`, or else of the data's own."""
        if not isinstance(evaluation, LossEvaluation):
            return list(self.of(evaluation.data, evaluation.modalities))
        data = evaluation.data if langs is None else evaluation.data.model_copy(update={"langs": langs})
        step = stage.streams[0].step
        rows = self.of(data, step.modalities)
        return list(self._teaching(rows, data, step) if isinstance(step, LanguageConfig) else rows)

    def _teaching(self, rows: Dataset, data: DataConfig, step: LanguageConfig) -> Dataset:
        """Rows of which there is something to say: messages, an answered question, a caption."""
        usable = []
        for number, row in enumerate(rows):
            try:
                conversation_of(row, langs=data.langs, of=step.of)
            except TongganError as error:
                self.drop([Dropped(row.id, str(error).removeprefix(f"row {row.id} "))])
            else:
                usable.append(number)
        return rows.where(usable)

    def drop(self, several: Iterable[Dropped]) -> None:
        """Note rows that are lost, once each."""
        for one in several:
            if one not in self._noted:
                self._noted.add(one)
                self.dropped.append(one)

    def _once(self, kind: str, key: str, find: Callable[[], Dataset]) -> Dataset:
        if (kind, key) not in self._known:
            self._known[kind, key] = find()
        return self._known[kind, key]

    def _telling_nothing(self, rows: Dataset) -> list[int]:
        """Numbers of rows that share no caption with what is held out."""
        same, words = self._told

        def silent(row: Row) -> bool:
            for text in row.texts:
                key = caption_key(text.text)
                if key in same or (text.lang == "en" and any(w <= set(key.split()) for w in words)):
                    return False
            return True

        return [i for i, row in enumerate(rows) if silent(row)]

    @cached_property
    def _told(self) -> tuple[set[str], list[frozenset[str]]]:
        """Captions of the held-out side (all but train) of whatever the run is measured on, and the words of each English one: of every
        row, whatever the limit is."""
        measured = [one.data for one in (self._config.evaluation, *self._config.looks) if one is not None]
        whole = {(data := one.model_copy(update={"split": None})).model_dump_json(): data for one in measured}
        held = [text for data in whole.values() for row in _open(data) if row.split != "train" for text in row.texts]
        words = [frozenset(caption_key(text.text).split()) - COMMON for text in held if text.lang == "en"]
        return {caption_key(text.text) for text in held} - {""}, [some for some in words if some]


def _has(row: Row, kind: Modality, data: DataConfig) -> bool:
    match kind:
        case "image":
            return bool(row.images)
        case "video":
            return bool(row.videos)
        case "audio":
            return any(data.langs is None or sound.role is None or sound.role in data.langs for sound in row.audios)
        case "text":
            return any(wanted(text, data) for text in row.texts)


def _named(kind: Modality, data: DataConfig) -> str:
    return NAMES[kind] + (f" in {', '.join(data.langs)}" if data.langs and kind in ("text", "audio") else "")


def wanted(text: Text, data: DataConfig) -> bool:
    """Whether a caption says something, in one of the languages of `data`; one of no known language is `und`."""
    return bool(text.text.strip()) and (data.langs is None or (text.lang or "und") in data.langs)


def _open(data: DataConfig) -> Dataset:
    """Rows of a configuration, whatever their languages and classes; opened once, and again when the file has changed."""
    asked = data.model_copy(update={"langs": None, "label": None}).model_dump_json()
    try:
        state = Path(data.source).expanduser().stat()
    except (OSError, RuntimeError):
        return _opened(asked, "")
    return _opened(asked, f"{Path(data.source).absolute()} {state.st_mtime_ns} {state.st_size}")


@cache
def _opened(data: str, state: str) -> Dataset:
    config = DataConfig.model_validate_json(data)
    if config.options:
        _check_options(config)
    if config.split is not None:  # each source is opened once, whichever of its splits are asked for
        return _opened(config.model_copy(update={"split": None}).model_dump_json(), state).split(config.split)
    found = open_data(config.source, image_col=config.image_col, text_col=config.text_col, options=config.options)
    if config.protocol == "captions":
        return Dataset.from_rows(held_out_captions(list(found), seed=config.protocol_seed), dropped=found.dropped)
    return found


def _check_options(config: DataConfig) -> None:
    """Options are the source's own; a file has none."""
    if config.source not in SOURCES:
        raise UsageError(f"data.options: {config.source} is a file; options go with a source ({', '.join(SOURCES)})")
    known = [name for name in signature(SOURCES[config.source].rows).parameters if name != "self"]
    for name in config.options:
        if name not in known:
            raise UsageError(
                f"data.options.{name}: {config.source} has no such option{did_you_mean(name, known)}; it has: {', '.join(known)}"
            )
