"""A masked language model (Devlin et al. 2019): a BERT or RoBERTa tower, and a head that says which word stands where.

It has `features` and `words`, but embeds nothing: its pooled states were never trained to be compared. The one way to a sentence
encoder is a `DualEncoder` with a text tower alone, whose `text` has the same names and takes this one's weights as they are.

Shape letters: B rows, L tokens, N places, D width, V words of the vocabulary.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.towers import Bert, BertTextConfig
from tonggan.nn.activations import Activation
from tonggan.nn.words import WordHead
from tonggan.tensors import Modality, Tokens
from tonggan.types import UsageError


class BertConfig(Config):
    """A text tower and its head."""

    kind: Literal["bert"] = "bert"
    text: BertTextConfig
    head_activation: Activation = "gelu"
    published_as: Literal["bert", "roberta", "data2vec-text"] = "bert"
    """Whose names the published format uses; it computes nothing."""


class MaskedBert(nn.Module):
    """The tower, and a head that shares the word embeddings with it."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.modalities: frozenset[Modality] = frozenset({"text"})
        self.text = Bert(config.text)
        self.head = WordHead(config.text.width, config.text.vocab_size, config.head_activation, config.text.eps)

    def features(self, kind: Modality, inputs: Tokens) -> Float[Tensor, "B D"]:
        """The tower's pooled states."""
        if kind != "text":
            raise UsageError(f"this model has no tower for {kind}; it has: text")
        return self.text(inputs)

    def words(
        self, tokens: Tokens, pixels: Tensor | None = None, *, where: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B L V"] | Float[Tensor, "N V"]:
        """Logits over the vocabulary at each place, or only at those of `where`, in reading order."""
        if pixels is not None:
            raise UsageError("this model reads no pictures; give it text alone")
        states = self.text.tokens(tokens).states
        return self.head(states if where is None else states[where], self.text.embedding.weight)
