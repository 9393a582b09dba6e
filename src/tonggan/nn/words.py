"""From hidden states to words.

Shape letters: D width, V words of the vocabulary.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tonggan.nn.activations import Activation, activation


class WordHead(nn.Module):
    """Logits over the vocabulary (Devlin et al. 2019, as in their code): dense, activation, norm, then the word embeddings and a bias.

    The embeddings are an argument of `forward`: input and output share one table, which stays in the tower's hands alone.
    """

    def __init__(self, width: int, vocab_size: int, act: Activation = "gelu", eps: float = 1e-12) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.act = activation(act)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def ready(self, states: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """States that meet the embeddings."""
        return self.norm(self.act(self.dense(states)))

    def forward(self, states: Float[Tensor, "... D"], embeddings: Float[Tensor, "V D"]) -> Float[Tensor, "... V"]:
        return nn.functional.linear(self.ready(states), embeddings, self.bias)
