"""What is hidden from a model that learns by filling in. Every draw comes from a Generator that is given.

Shape letters: B rows, L tokens, V ids of the vocabulary.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tonggan.tensors import Tokens, Vocabulary


class HiddenWords(NamedTuple):
    """Tokens of which some are hidden, and at which places."""

    tokens: Tokens
    where: Bool[Tensor, "B L"]


def derived_generator() -> torch.Generator:
    """A generator on the CPU, seeded from torch's global one: what it draws is resumed and repeated with that."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, ())))


def hide_words(
    tokens: Tokens, vocabulary: Vocabulary, share: float, generator: torch.Generator, *, whole_words: bool = False
) -> HiddenWords:
    """Corruption for masked language models (Devlin et al. 2019, section 3.1): `share` of each row's tokens, but at least one, are
    chosen; 80 % of them become the mask, 10 % any word, 10 % stay what they are. Special tokens and padding are never chosen.

    With `whole_words` all pieces of a word are chosen together (as in their later release): words in random order, as long as
    the share is not passed. What becomes of a chosen piece is drawn for itself.
    """
    ids = tokens.ids.cpu()
    places = torch.arange(ids.shape[1]).expand_as(ids)
    own = places < tokens.lengths.cpu()[:, None]
    if tokens.starts is not None:
        own &= places >= tokens.starts.cpu()[:, None]
    special = _members(vocabulary.special, vocabulary.size)
    ordinary = own & ~special[ids]
    word = _word_starts(ids, ordinary, vocabulary) if whole_words else places
    where = _choose(ordinary, word, share, generator)
    lot = torch.rand(ids.shape, generator=generator)
    words = (~special).nonzero().squeeze(1)
    drawn = words[torch.randint(len(words), ids.shape, generator=generator)]
    changed = torch.where(where & (lot < 0.8), vocabulary.mask, ids)
    changed = torch.where(where & (lot >= 0.9), drawn, changed)
    device = tokens.ids.device
    return HiddenWords(Tokens(changed.to(device), tokens.lengths, tokens.starts), where.to(device))


def hide_blocks(batch: int, grid: tuple[int, int], share: float, generator: torch.Generator, *, smallest: int = 16) -> Bool[Tensor, "B P"]:
    """Patches hidden in blocks (Bao et al. 2022, BEiT, algorithm 1): rectangles of at least `smallest` patches, with an aspect of 0.3 to
    1/0.3, until `share` of the picture is reached. The last one is thinned at random, so that every picture hides equally many."""
    rows, columns = grid
    aim = min(max(1, round(share * rows * columns)), rows * columns)
    hidden = torch.zeros(batch, rows, columns, dtype=torch.bool)
    for picture in hidden:
        while (left := aim - int(picture.sum())) > 0:
            before = picture.clone()
            _rectangle(picture, min(smallest, aim), left, generator)
            fresh = (picture & ~before).flatten().nonzero()[:, 0]
            surplus = len(fresh) - left
            if surplus > 0:
                picture.view(-1)[fresh[torch.randperm(len(fresh), generator=generator)[:surplus]]] = False
    return hidden.flatten(1)


def hide_spans(lengths: Int[Tensor, " B"], positions: int, share: float, span: int, generator: torch.Generator) -> Bool[Tensor, "B T"]:
    """Frames hidden in spans (Baevski et al. 2020, wav2vec 2.0, section 3.1): as many spans of `span` frames as would hide `share` of a row
    if they did not overlap, which they may; at least one. A row no longer than a span keeps one frame in sight, unless it has only one."""
    hidden = torch.zeros(len(lengths), positions, dtype=torch.bool)
    for row, length in zip(hidden, lengths.tolist(), strict=True):
        width = min(span, max(1, length - 1))
        places = length - width + 1
        # Rounded up or down by lot, so that the share is met on average.
        spans = min(max(1, int(share * length / width + float(torch.rand((), generator=generator)))), places)
        starts = torch.randperm(places, generator=generator)[:spans]
        row[(starts[:, None] + torch.arange(width)).flatten()] = True
    return hidden


def _rectangle(picture: Bool[Tensor, "R C"], smallest: int, largest: int, generator: torch.Generator) -> None:
    """Hide one rectangle of about `smallest` to `largest` patches."""
    rows, columns = picture.shape
    size, aspect, down, across = torch.rand(4, generator=generator).tolist()
    area = smallest + size * max(0, largest - smallest)
    stretch = math.exp(math.log(0.3) * (1 - 2 * aspect))
    height = min(max(1, round(math.sqrt(area * stretch))), rows)
    width = min(max(1, round(math.sqrt(area / stretch))), columns)
    top, left = int(down * (rows - height + 1)), int(across * (columns - width + 1))
    picture[top : top + height, left : left + width] = True


def _choose(ordinary: Bool[Tensor, "B L"], word: Int[Tensor, "B L"], share: float, generator: torch.Generator) -> Bool[Tensor, "B L"]:
    """Words in random order as long as the row's share is not passed, the first one in any case.

    `word` says which word a token belongs to: the place of its first token.
    """
    shape = ordinary.shape
    turn = torch.rand(shape, generator=generator).gather(1, word).masked_fill(~ordinary, 2.0)  # last: no lot is as high
    order = turn.argsort(dim=1, stable=True)
    upto = ordinary.gather(1, order).cumsum(dim=1)
    # How many tokens are taken once a token's word is whole: one number for all its pieces.
    taken = torch.zeros(shape, dtype=torch.long).scatter_reduce(1, word.gather(1, order), upto, "amax").gather(1, word)
    size = torch.zeros(shape, dtype=torch.long).scatter_add(1, word, ordinary.long()).gather(1, word)
    target = (ordinary.sum(dim=1, keepdim=True) * share).round()
    return ordinary & ((taken <= target) | (taken == size))


def _word_starts(ids: Int[Tensor, "B L"], ordinary: Bool[Tensor, "B L"], vocabulary: Vocabulary) -> Int[Tensor, "B L"]:
    """The place of each token's word's first token; nothing goes on with a special token or padding."""
    goes_on = _members(vocabulary.continues, vocabulary.size)[ids] & ordinary
    goes_on[:, 1:] &= ordinary[:, :-1]
    goes_on[:, :1] = False
    places = torch.arange(ids.shape[1]).expand_as(ids)
    return torch.where(goes_on, 0, places).cummax(dim=1).values


def _members(some: frozenset[int], size: int) -> Bool[Tensor, "V"]:
    found = torch.zeros(size, dtype=torch.bool)
    found[torch.tensor(sorted(some), dtype=torch.long)] = True
    return found
