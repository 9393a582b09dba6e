"""LSTM and GRU over sequences of unequal length.

Shape letters: B rows, T positions, D width.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Recurrent(nn.Module):
    """Layers of LSTM (Hochreiter and Schmidhuber 1997) or GRU (Cho et al. 2014), one- or two-directional.

    Padding is never read: the backward direction starts at each row's own last token. `.width` is the output's width.
    """

    def __init__(
        self, cell: Literal["lstm", "gru"], width: int, layers: int = 1, *, bidirectional: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.rnn = kind(width, width, layers, batch_first=True, bidirectional=bidirectional, dropout=dropout if layers > 1 else 0.0)
        self.width = width * (2 if bidirectional else 1)

    def forward(self, x: Float[Tensor, "B T D"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B T out"]:
        """States at every position, zeros where there is padding."""
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])
        return states
