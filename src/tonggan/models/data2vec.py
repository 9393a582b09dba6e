"""data2vec (Baevski et al. 2022): one way to learn from pictures, from speech and from text alone, by filling in one's own states.

The three differ in how input becomes tokens and in where those stand; above that it is the same Transformer, the same hiding and
the same targets. What is here is the student; the teacher, the targets and the loss are `steps.latent`.

Shape letters: B rows, T positions, D width.
"""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Bool, Float
from pydantic import model_validator
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.base import Places
from tonggan.models.towers import AudioTowerConfig, Beit, BeitConfig, Bert, BertTextConfig, LogMel, Waveform, build_audio
from tonggan.nn.transformer import Trace
from tonggan.tensors import Hidden, Modality, Sounds
from tonggan.types import UsageError


class Data2VecConfig(Config):
    """The tower of one kind of input. For pictures and sounds it needs a mask token to be trained; for text the vocabulary has one."""

    kind: Literal["data2vec"] = "data2vec"
    image: BeitConfig | None = None
    audio: AudioTowerConfig | None = None
    """Of waveforms, as in the paper, or of spectrograms."""
    text: BertTextConfig | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Data2VecConfig:
        given = [kind for kind in ("image", "audio", "text") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"data2vec reads one of image, audio and text, not {' and '.join(given) or 'none'}")
        return self

    @property
    def modality(self) -> Modality:
        """The kind of input."""
        return "image" if self.image is not None else "audio" if self.audio is not None else "text"


class Data2Vec(nn.Module):
    """A tower that can be asked to fill in what is hidden, and for what every block made on the way."""

    def __init__(self, config: Data2VecConfig) -> None:
        super().__init__()
        self.config = config
        self.image = Beit(config.image) if config.image is not None else None
        self.audio = build_audio(config.audio) if config.audio is not None else None
        self.text = Bert(config.text) if config.text is not None else None
        self.width = self.tower(config.modality).width

    @property
    def modalities(self) -> frozenset[Modality]:
        """The one kind of input."""
        return frozenset({self.config.modality})

    def tower(self, kind: Modality) -> Beit | LogMel | Waveform | Bert:
        """The tower; raises `UsageError` for a kind that it does not read."""
        found: Beit | LogMel | Waveform | Bert | None = getattr(self, kind, None)
        if found is None:
            raise UsageError(f"this model reads {self.config.modality}, not {kind}")
        return found

    def features(self, kind: Modality, inputs: Any) -> Float[Tensor, "B D"]:
        """Pooled states."""
        pooled: Tensor = self.tower(kind)(inputs)
        return pooled

    def can_hide(self, kind: Modality) -> bool:
        """Whether the tower has a mask token; that of a text is among its words."""
        tower = self.tower(kind)
        return isinstance(tower, Bert) or tower.mask_token is not None

    def places(self, kind: Modality, inputs: Any) -> Places:
        """Where something can be hidden: patches on a grid, or frames."""
        tower = self.tower(kind)
        if isinstance(tower, Beit):
            return Places(len(inputs), tower.grid[0] * tower.grid[1], grid=tower.grid)
        if isinstance(tower, (LogMel, Waveform)):
            assert isinstance(inputs, Sounds)
            own = tower.stem.lengths(inputs.lengths)
            return Places(len(own), tower.stem.count(inputs.values.shape[-1]), lengths=own)
        rows, count = inputs.ids.shape
        return Places(rows, count, lengths=inputs.lengths)

    def fill(self, kind: Modality, inputs: Any, hidden: Bool[Tensor, "B T"] | None = None, *, trace: Trace | None = None) -> Hidden:
        """States [B, T, D] of patches, frames or tokens, with those at `hidden` unseen. In text they are hidden beforehand, in the ids.

        A class token takes part but is not among what is given, nor among what is traced.
        """
        tower = self.tower(kind)
        if isinstance(tower, Bert):
            return tower.tokens(inputs, trace=trace)
        found = tower.tokens(inputs, hidden=hidden, trace=trace)
        if isinstance(tower, (LogMel, Waveform)):
            return found
        if trace is not None:
            trace.blocks[:] = [states[:, 1:] for states in trace.blocks]
            trace.feed_forwards[:] = [states[:, 1:] for states in trace.feed_forwards]
        return Hidden(found.states[:, 1:])
