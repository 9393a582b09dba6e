"""What a run is, as one YAML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, FieldSerializationInfo, field_serializer, field_validator, model_validator

from tonggan.config import Config
from tonggan.data.augment import Augment
from tonggan.data.loader import LoaderConfig
from tonggan.models import ModelConfig
from tonggan.models.adapt import AdaptConfig
from tonggan.steps import StepConfig
from tonggan.steps.classification import ClassificationConfig
from tonggan.steps.contrastive import ContrastiveConfig
from tonggan.steps.language import LanguageConfig
from tonggan.tensors import Modality
from tonggan.train.optim import OptimConfig
from tonggan.train.trainer import TrainConfig


class ModelSource(Config):
    """Where the model comes from: exactly one of the three."""

    preset: str | None = None
    """A shape by name (mini, vit-b-32, …), with random weights and a tokenizer trained on the captions."""
    config: ModelConfig | None = None
    """A shape written out."""
    start: str | None = None
    """Anything `tonggan.load` opens, also a pair PICTURES+TEXT."""
    towers: dict[Modality, str] = Field(default_factory=dict)
    """Towers of the shape that come from checkpoints, with what prepares their input: {image: NAME, text: NAME}, anything that
    `tonggan.load` opens and that has such a tower; for clips that are read frame by frame a picture tower will do. Which systems take
    which, and what is taken of them, says docs/systems.md."""
    resize_positions: bool = False
    """Interpolate the positions of a ViT in `towers` (bicubic) where `pictures` asks for another size than it was trained for."""
    vocab_size: int = 4096
    """Of the tokenizer, where one is trained: with a shape, not with `start` or `towers.text`."""
    pictures: dict[str, Any] = Field(default_factory=dict)
    """Changes to the picture processing, e.g. {mode: pad}."""
    sounds: dict[str, Any] = Field(default_factory=dict)
    """Changes to the sound processing, e.g. {seconds: 3}."""
    clips: dict[str, Any] = Field(default_factory=dict)
    """Changes to the clip processing, e.g. {sampling: uniform, image: {mode: pad}}. A model that reads pictures among words watches clips
    where something is said of them here, {frames: 8} for instance."""
    chat: dict[str, Any] = Field(default_factory=dict)
    """Changes to how conversations are written out, e.g. {template: …}. A language model has none unless something is said of them here."""

    @field_serializer("config")
    def _as_written(self, shape: ModelConfig | None, info: FieldSerializationInfo) -> dict[str, Any] | None:
        """Beside towers only what the recipe says itself: a default that is written out would ask a tower for another measure."""
        if shape is None:
            return None
        whole = shape.model_dump(mode=info.mode)
        return _set_only(shape, whole) if self.towers else whole

    @model_validator(mode="after")
    def _exactly_one(self) -> ModelSource:
        given = [name for name in ("preset", "config", "start") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of preset, config and start; got {', '.join(given) or 'none'}")
        if self.towers and self.start is not None:
            raise ValueError("towers replace those of a shape: give preset or config, not start")
        if self.resize_positions and self.start is not None:
            raise ValueError(
                "resize_positions is for the towers of a shape, and start keeps its size: leave it out, or write the shape out in "
                f"config and take towers: {{image: {self.start}, …}}, with which the heads begin anew"
            )
        # Not by whether it was given: a recipe that was written out whole names every field.
        brings = "start" if self.start is not None else "towers.text" if "text" in self.towers else None
        if brings and self.vocab_size != (plain := type(self).model_fields["vocab_size"].default):
            raise ValueError(f"vocab_size is for a tokenizer that is trained, and {brings} brings its own: leave it out (or at {plain})")
        return self


def _set_only(config: Config, whole: dict[str, Any]) -> dict[str, Any]:
    """The fields of a dumped configuration that were given, and the kind, which says what it is."""
    given = {name: value for name, value in whole.items() if name in config.model_fields_set or name == "kind"}
    nested = {name: getattr(config, name) for name in given}
    return given | {name: _set_only(part, given[name]) for name, part in nested.items() if isinstance(part, Config)}


class DataConfig(Config):
    """Rows to learn from or to measure on."""

    source: str
    """A source by name, or a file or folder."""
    split: str | None = "train"
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the source, e.g. {size: 64, held_out: openmoji}."""
    protocol: Literal["as given", "captions"] = "as given"
    """`captions`: the five-split protocol, which holds out 150 unique captions by `protocol_seed`."""
    protocol_seed: int = 0
    image_col: str | None = None
    text_col: str | None = None
    langs: tuple[str, ...] | None = None
    label: str | None = None
    """The column that says a row's class, for classification."""


class StreamConfig(Config):
    """Data, the task it is for, and how often and how much it counts."""

    name: str = Field(default="pairs", pattern=r"^\w[\w -]*$")
    """Unique in its stage. Its numbers and what is kept of its step go by this name, so it has neither dots nor slashes."""
    data: DataConfig
    step: StepConfig = ContrastiveConfig()
    weight: float = Field(default=1.0, gt=0)
    every: int = Field(default=1, ge=1)
    exclude_heldout: bool = False
    """Leave out rows of other data that give away what is evaluated or looked at: a caption that equals a held-out one, or an English
    one with all its words."""
    augment: Augment | None = None
    loader: LoaderConfig = LoaderConfig()

    @field_validator("step", mode="before")
    @classmethod
    def _contrastive_unless_said(cls, value: Any) -> Any:
        return {"kind": "contrastive", **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _classes_are_named(self) -> StreamConfig:
        if isinstance(self.step, ClassificationConfig) and self.data.label is None:
            raise ValueError("classification learns the classes of a column: set data.label")
        return self


class Stage(Config):
    """One stretch of training: streams, what stays frozen, for how long."""

    name: str = Field(default="train", pattern=r"^\w[\w .-]*$")
    """Also that of its directory, below the run's; unique in the run."""
    streams: tuple[StreamConfig, ...] = Field(min_length=1)
    freeze: tuple[str, ...] = ()
    """Parts that stay as they are: image, text, image_head, text_head, or deeper (text.bert); a * stands for any part of a name
    (blocks.*.attention)."""
    adapt: AdaptConfig | None = None
    """An adapter, which alone learns, on the model that the stage begins with. It is saved as an adapter, beside its base."""
    langs: tuple[str, ...] | None = None
    """Languages by which this stage is evaluated; None: the evaluation's own. `looks` keep theirs."""
    views: int = Field(1, ge=1, le=4)
    """Views of each picture that a frozen picture tower encodes once (plain, mirrored, shrunk, both); training picks among them."""
    centre: bool = False
    """Fit centred heads to the training set before the first update."""
    bilingual: bool = False
    """Give the text tower an n-gram part for Chinese before this stage (see models/ngram.py)."""
    ridge: float | None = Field(default=None, gt=0)
    """With `bilingual`: set the n-gram part in closed form from the transfer streams' pairs before training."""
    train: TrainConfig
    optim: OptimConfig = OptimConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Stage:
        if twice := _twice(stream.name for stream in self.streams):
            raise ValueError(f"two streams are named {twice!r}; give each its own name")
        if min(stream.every for stream in self.streams) > 1:
            raise ValueError("some updates would have nothing to learn from: at least one stream needs every: 1")
        if self.views > 1 and "image" not in self.freeze:
            raise ValueError("views are encoded by a frozen picture tower: add image to freeze, or use augment")
        if self.adapt and (self.centre or self.bilingual):
            raise ValueError("centre and bilingual change the base that an adapter stands beside: do them in a stage before")
        return self


class _Evaluation(Config):
    """Rows to measure on."""

    data: DataConfig
    langs: tuple[str, ...] | None = None
    """Languages that are measured, of captions or of speech; None: all that there are (of a loss: those of `data`)."""
    choose: bool = True
    """Off: the numbers are only looked at, and `best/` is the end of training. For rows on which results are reported."""
    score: ClassVar[str]
    """The number by which `best/` is chosen."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """What a row needs to have."""
        return frozenset({"image", "text"})


class RetrievalEvaluation(_Evaluation):
    """Retrieval both ways: pictures, sounds or clips by captions, or by spoken sounds."""

    kind: Literal["retrieval"] = "retrieval"
    between: tuple[Literal["image", "video", "audio"], Literal["text", "audio"]] = ("image", "text")
    """What is shown, and what is said of it."""
    score: ClassVar[str] = "mean recall"

    @property
    def modalities(self) -> frozenset[Modality]:
        """What a row needs to have."""
        return frozenset(self.between)


class ProbeEvaluation(_Evaluation):
    """A linear classifier on the model's features, learnt on split train of these rows and measured on split test."""

    kind: Literal["probe"] = "probe"
    label: str
    """The column with the classes."""
    of: Literal["image", "audio", "video"] = "image"
    score: ClassVar[str] = "probe acc1"

    @field_validator("langs")
    @classmethod
    def _of_no_language(cls, langs: tuple[str, ...] | None) -> None:
        if langs is not None:
            raise ValueError("a probe takes the first picture, sound or clip of every row, whatever its language: leave langs out")

    @property
    def modalities(self) -> frozenset[Modality]:
        """What a row needs to have."""
        return frozenset({self.of})


class MatchingEvaluation(_Evaluation):
    """Whether a model that reads a picture and a text together tells each right pair from a wrong one."""

    kind: Literal["matching"] = "matching"
    score: ClassVar[str] = "acc"


class CaptionsEvaluation(_Evaluation):
    """What a model says of pictures, against their captions."""

    kind: Literal["captions"] = "captions"
    score: ClassVar[str] = "cider-d"


class AnswersEvaluation(_Evaluation):
    """What a model answers to questions about pictures, clips or sounds, or how it writes down what it hears."""

    kind: Literal["answers"] = "answers"
    metric: str = "auto"
    """How answers are marked: match, yes-no, vqa, anls, relaxed, or error rates: wer, cer, cer-zh."""
    score: ClassVar[str] = "right"
    """The metric, or 1 less an error rate."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """Questions are about anything."""
        return frozenset()


class LossEvaluation(_Evaluation):
    """The loss of the stage's first stream on rows that it doesn't learn from."""

    kind: Literal["loss"] = "loss"
    score: ClassVar[str] = "negative loss"

    @property
    def modalities(self) -> frozenset[Modality]:
        """What the stream's step asks for, whichever that is."""
        return frozenset()


EvaluationConfig: TypeAlias = Annotated[
    RetrievalEvaluation | ProbeEvaluation | MatchingEvaluation | CaptionsEvaluation | AnswersEvaluation | LossEvaluation,
    Field(discriminator="kind"),
]


class RunConfig(Config):
    """A whole run."""

    name: str
    about: str = ""
    seed: int = Field(default=0, ge=0)
    model: ModelSource
    stages: tuple[Stage, ...] = Field(min_length=1)
    evaluation: EvaluationConfig | None = None
    """What chooses `best/`; None trains without looking."""
    looks: tuple[EvaluationConfig, ...] = ()
    """Further evaluations, that choose nothing."""
    show: int = Field(default=0, ge=0)
    """Of models that talk: so many held-out rows whose answers are shown, and kept in `samples.jsonl`, at every evaluation."""

    @field_validator("evaluation", mode="before")
    @classmethod
    def _retrieval_unless_said(cls, value: Any) -> Any:
        return {"kind": "retrieval", **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _looked_at(self) -> RunConfig:
        """What waits for an evaluation has one."""
        if self.evaluation is not None:
            return self
        if self.looks or self.show:
            raise ValueError(
                f"{'looks' if self.looks else 'show'} are taken when the evaluation is, which is not set: set evaluation (with "
                "choose: false it chooses nothing)"
            )
        for stage in self.stages:
            for name in ("eval_every", "eval_first", "patience"):
                if getattr(stage.train, name):
                    raise ValueError(
                        f"stage {stage.name}: train.{name} is about evaluations, and evaluation is not set: set it, or leave this out"
                    )
        return self

    @model_validator(mode="after")
    def _shows_what_is_said(self) -> RunConfig:
        for stage in self.stages:
            if self.show and not any(isinstance(stream.step, LanguageConfig) for stream in stage.streams):
                raise ValueError(
                    f"stage {stage.name}: show is of what a model says, and no stream teaches it to (step: language): leave it out"
                )
        return self

    @model_validator(mode="after")
    def _probed_in_no_language(self) -> RunConfig:
        if isinstance(self.evaluation, ProbeEvaluation) and (some := next((stage for stage in self.stages if stage.langs), None)):
            raise ValueError(f"stage {some.name}: langs are those of the evaluation, and a probe is of none: leave langs out")
        return self

    @model_validator(mode="after")
    def _named_apart(self) -> RunConfig:
        if twice := _twice(stage.name for stage in self.stages):
            raise ValueError(f"two stages are named {twice!r}; give each its own name")
        if any(stage.adapt for stage in self.stages[:-1]):
            raise ValueError("only the last stage can have adapt: its base is what the stage before left, which must stay as it is")
        if self.stages[-1].adapt and len(self.stages) == 1 and self.model.start is None:
            raise ValueError("adapt needs a base to stand beside: a model in model.start, or a stage before")
        if self.stages[-1].adapt and len(self.stages) == 1 and (self.model.pictures or self.model.sounds or self.model.clips):
            raise ValueError(
                "adapt stands beside model.start as it is: leave pictures, sounds and clips out, or change them in a stage before"
            )
        return self


def _twice(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
