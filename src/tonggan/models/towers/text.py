"""Text towers: tokens in, one vector and a sequence of states out. Each is a configuration and a module.

Shape letters: B rows, L tokens, D width.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.nn.activations import Activation
from tonggan.nn.positions import LearnedPositions
from tonggan.nn.recurrent import Recurrent
from tonggan.nn.transformer import Trace, Transformer, encoder_block, init_transformer
from tonggan.tensors import Hidden, Mask, Tokens


class TransformerTextConfig(Config):
    """CLIP's text tower: causal, pooled at the end token, which is each row's last. SigLIP's looks both ways, and its last position,
    be that padding, is the text: it reads batches of one length only."""

    kind: Literal["transformer"] = "transformer"
    vocab_size: PositiveInt = 49408
    context: PositiveInt = 77
    width: PositiveInt = 512
    layers: PositiveInt = 12
    heads: PositiveInt = 8
    mlp_width: PositiveInt = 2048
    activation: Activation = "gelu"
    eps: float = 1e-5
    causal: bool = True
    pooling: Literal["end", "last"] = "end"
    """At each row's own last token, or at the batch's last position."""
    dropout: float = 0.0


class BertTextConfig(Config):
    """BERT (Devlin et al. 2019), and RoBERTa (Liu et al. 2019), which counts positions otherwise; pooled by the mean or the first token."""

    kind: Literal["bert"] = "bert"
    vocab_size: PositiveInt = 30522
    context: PositiveInt = 512
    width: PositiveInt = 384
    layers: PositiveInt = 6
    heads: PositiveInt = 12
    mlp_width: PositiveInt = 1536
    activation: Activation = "gelu"
    eps: float = 1e-12
    type_vocab: PositiveInt = 2
    position_offset: int | None = Field(default=None, ge=1)
    """RoBERTa's: the first real token stands at this position, padding before it; the id one below it is padding's. None: every row's
    positions are 0, 1, 2, ..., padding or not, as in BERT."""
    padding_id: int | None = Field(default=None, ge=0)
    """The id whose embedding is not learnt, as published models hold padding's still; None: all are learnt."""
    pooling: Literal["mean", "first"] = "mean"
    dropout: float = 0.0


class RecurrentTextConfig(Config):
    """LSTM or GRU, pooled by the mean over the row's own tokens."""

    kind: Literal["recurrent"] = "recurrent"
    cell: Literal["lstm", "gru"] = "gru"
    vocab_size: PositiveInt = 4096
    context: PositiveInt = 77
    width: PositiveInt = 256
    layers: PositiveInt = 1
    bidirectional: bool = True
    dropout: float = 0.0


TextTowerConfig: TypeAlias = Annotated[TransformerTextConfig | BertTextConfig | RecurrentTextConfig, Field(discriminator="kind")]


class TransformerText(nn.Module):
    """Token and position embeddings, causal blocks (or not), a norm; the end token's state is the text (or the last position's)."""

    def __init__(self, config: TransformerTextConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.positions = LearnedPositions(config.context, config.width)
        self.transformer = Transformer(
            [
                encoder_block(config.width, config.heads, config.mlp_width, act=config.activation, eps=config.eps, dropout=config.dropout)
                for _ in range(config.layers)
            ]
        )
        init_transformer(self.transformer, config.width)
        self.post_norm = nn.LayerNorm(config.width, eps=config.eps)

    def tokens(self, tokens: Tokens) -> Hidden:
        """States [B, L, D] after the last norm."""
        x = self.embedding(tokens.ids) + self.positions(tokens.ids.shape[1])
        # Padding stands behind the end token, where nothing causal that is used looks: no length mask is needed.
        mask = Mask(causal=True, starts=tokens.starts) if self.config.causal else Mask(lengths=tokens.lengths, starts=tokens.starts)
        return Hidden(self.post_norm(self.transformer(x, mask=mask)), tokens.lengths)

    def forward(self, tokens: Tokens) -> Float[Tensor, "B D"]:
        return self.summary(self.tokens(tokens))

    def summary(self, hidden: Hidden) -> Float[Tensor, "B D"]:
        """What `forward` gives, out of what `tokens` gave."""
        states = hidden.states
        if self.config.pooling == "last" or hidden.lengths is None:
            return states[:, -1]
        return states[torch.arange(len(states), device=states.device), hidden.lengths - 1]


class Bert(nn.Module):
    """Word, position and type embeddings under a norm, then post-norm blocks."""

    def __init__(self, config: BertTextConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.embedding = nn.Embedding(config.vocab_size, config.width, padding_idx=config.padding_id)
        self.positions = LearnedPositions(config.context + (config.position_offset or 0), config.width, std=0.02)
        self.types = nn.Embedding(config.type_vocab, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(
            [
                encoder_block(
                    config.width,
                    config.heads,
                    config.mlp_width,
                    act=config.activation,
                    order="post",
                    eps=config.eps,
                    dropout=config.dropout,
                )
                for _ in range(config.layers)
            ]
        )
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)  # Devlin et al. 2019, as in their code
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def embed(self, tokens: Tokens, types: Int[Tensor, "B L"] | None = None) -> Float[Tensor, "B L D"]:
        """What enters the blocks. `types` tell the sentences of a pair apart; None: all tokens are of the first."""
        of_types = self.types.weight[0] if types is None else self.types(types)
        return self.dropout(self.norm(self.embedding(tokens.ids) + self._places(tokens.ids) + of_types))

    def tokens(self, tokens: Tokens, types: Int[Tensor, "B L"] | None = None, *, trace: Trace | None = None) -> Hidden:
        """States [B, L, D]; padding attends to nothing of its own worth, and is never attended to."""
        mask = Mask(lengths=tokens.lengths, starts=tokens.starts)
        return Hidden(self.transformer(self.embed(tokens, types), mask=mask, trace=trace), tokens.lengths)

    def forward(self, tokens: Tokens) -> Float[Tensor, "B D"]:
        return self.pool(self.tokens(tokens).states, tokens)

    def pool(self, states: Float[Tensor, "B L D"], tokens: Tokens) -> Float[Tensor, "B D"]:
        """One vector per row of states."""
        if self.config.pooling == "mean":
            return _mean(states, tokens.lengths, tokens.starts)
        if tokens.starts is None:
            return states[:, 0]
        return states[torch.arange(len(states), device=states.device), tokens.starts]

    def _places(self, ids: Int[Tensor, "B L"]) -> Float[Tensor, "... L D"]:
        """Position vectors. RoBERTa counts the tokens that are not padding, by their ids; padding itself has a row of its own."""
        offset, length = self.config.position_offset, ids.shape[1]
        if offset is None:
            return self.positions(length)
        real = (ids != offset - 1).long()
        return F.embedding(real.cumsum(dim=1) * real + offset - 1, self.positions(length + offset), padding_idx=offset - 1)


class RecurrentText(nn.Module):
    """Token embeddings through an LSTM or a GRU."""

    def __init__(self, config: RecurrentTextConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.rnn = Recurrent(config.cell, config.width, config.layers, bidirectional=config.bidirectional, dropout=config.dropout)
        self.width = self.rnn.width
        self.post_norm = nn.LayerNorm(self.width)

    def tokens(self, tokens: Tokens) -> Hidden:
        """States [B, L, D], zeros at padding."""
        return Hidden(self.rnn(self.embedding(tokens.ids), tokens.lengths), tokens.lengths)

    def forward(self, tokens: Tokens) -> Float[Tensor, "B D"]:
        return self.post_norm(_mean(self.tokens(tokens).states, tokens.lengths))


def _mean(states: Float[Tensor, "B L D"], lengths: Tensor, starts: Tensor | None = None) -> Float[Tensor, "B D"]:
    """The mean over each row's own tokens."""
    at = torch.arange(states.shape[1], device=states.device)
    own = at < lengths[:, None] if starts is None else (at >= starts[:, None]) & (at < lengths[:, None])
    return (states * own[:, :, None]).sum(dim=1) / own.sum(dim=1, keepdim=True).clamp(min=1)


TextTower: TypeAlias = TransformerText | Bert | RecurrentText


def build_text(config: TransformerTextConfig | BertTextConfig | RecurrentTextConfig) -> TextTower:
    """The text tower of a configuration; weights are random."""
    if isinstance(config, TransformerTextConfig):
        return TransformerText(config)
    return Bert(config) if isinstance(config, BertTextConfig) else RecurrentText(config)
