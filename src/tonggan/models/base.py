"""What systems offer, as protocols: everything outside this room asks a module for these and never which class it is.

Inputs are a tower's own: pixels, `Tokens`, `Sounds` or clips, by the kind that is named.

Shape letters: B rows, L tokens, V words of the vocabulary, W width of pooled features, D width of the common space,
C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from tonggan.nn.audio import mean_of_real
from tonggan.nn.transformer import Trace, Transformer
from tonggan.tensors import Hidden, Modality, Tokens


@runtime_checkable
class Featurizer(Protocol):
    """Has pooled features of one or more kinds of input, not normalised: what probes look at."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """The kinds."""
        ...

    def features(self, kind: Modality, inputs: Any) -> Tensor:
        """[B, W]"""
        ...


@runtime_checkable
class Embedder(Featurizer, Protocol):
    """Brings its kinds of input into one space, and has the learned scale (its logarithm, [1]) of the cosines there."""

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        ...

    @property
    def log_scale(self) -> Tensor:
        """[1]"""
        ...

    @property
    def max_scale(self) -> float:
        """Ceiling of the scale."""
        ...

    @property
    def bias(self) -> Tensor | None:
        """SigLIP's, [1]; None where the objective has none."""
        ...

    def encode(self, kind: Modality, inputs: Any = None, *, features: Tensor | None = None) -> Tensor:
        """Unit vectors [B, D] of inputs, or of features that were computed before."""
        ...


@runtime_checkable
class Matcher(Protocol):
    """Reads a picture and a text together and says how well they match."""

    def match(self, pixels: Tensor, tokens: Tokens) -> Tensor:
        """Two logits per row, [B, 2]: no, yes."""
        ...


@runtime_checkable
class WordPredictor(Protocol):
    """Says which word stands at each place, from the words on both sides and, where it reads pictures, from those."""

    def words(self, tokens: Tokens, pixels: Tensor | None = None, *, where: Tensor | None = None) -> Tensor:
        """Logits over the vocabulary, [B, L, V]; with `where` (Bool[B, L]) only at those N places, in reading order, [N, V]: a vocabulary
        is wide, and most places are not asked about."""
        ...


@dataclass(frozen=True, slots=True)
class Places:
    """Where something can be hidden in a batch: `count` places in each of `rows` rows."""

    rows: int
    count: int
    grid: tuple[int, int] | None = None
    """Rows and columns, where the places are patches of a picture."""
    lengths: Tensor | None = None
    """Int[B]: how many are a row's own; None: all."""


@runtime_checkable
class LatentLearner(Featurizer, Protocol):
    """Fills in its own states where its input is hidden (data2vec's way to learn from one kind of input alone)."""

    @property
    def width(self) -> int:
        """D of its states."""
        ...

    def can_hide(self, kind: Modality) -> bool:
        """Whether something stands for what is hidden: a mask token of the tower, or, of text, the vocabulary's."""
        ...

    def places(self, kind: Modality, inputs: Any) -> Places:
        """Where something can be hidden."""
        ...

    def fill(self, kind: Modality, inputs: Any, hidden: Tensor | None = None, *, trace: Trace | None = None) -> Hidden:
        """States [B, T, D] of all places, those at `hidden` (Bool[B, T]) unseen; `trace` gets the same of every block."""
        ...


@runtime_checkable
class Labeller(Protocol):
    """Has a classifier over what it reads: one kind of input, or several together."""

    @property
    def classes(self) -> int | None:
        """How many; None where this one was built without a classifier."""
        ...

    def classify(self, inputs: Mapping[Modality, Any]) -> Tensor:
        """Logits of the classes, [B, C], of inputs by kind."""
        ...


def depth(module: nn.Module) -> int:
    """How many blocks a system's Transformers have together."""
    return sum(len(part.blocks) for part in module.modules() if isinstance(part, Transformer))


def after_block(module: LatentLearner, number: int, kind: Modality, inputs: Any) -> Tensor:
    """The mean over a row's own places of the states after a block, counted from 1: [B, D]. The last blocks of a student fill in; what
    it knows is told better before them."""
    trace = Trace()
    lengths = module.fill(kind, inputs, trace=trace).lengths
    states = trace.blocks[number - 1]
    return states.mean(dim=1) if lengths is None else mean_of_real(states, lengths)
