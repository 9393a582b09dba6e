"""What systems offer, as protocols: everything outside this room asks a module for these and never which class it is.

Inputs are a tower's own: pixels, `Tokens`, `Sounds` or clips, by the kind that is named.

Shape letters: B rows, L tokens, V words of the vocabulary, W width of pooled features, D width of the common space.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from tonggan.tensors import Modality, Tokens


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
