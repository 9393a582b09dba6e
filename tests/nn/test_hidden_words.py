"""What is hidden in text: shares, the three fates, words as a whole, and nothing that is no word."""

from __future__ import annotations

import torch

from tonggan.nn.masking import derived_generator, hide_words
from tonggan.tensors import Tokens, Vocabulary, pad

VOCABULARY = Vocabulary(size=100, mask=4, special=frozenset(range(5)), continues=frozenset(range(50, 100)))
"""0 padding, 2 start, 3 end, 4 mask; from 50 on pieces that go on with a word."""


def texts(rows: int = 300, seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    return pad([[2, *torch.randint(5, 100, (n % 23,), generator=generator).tolist(), 3] for n in range(rows)])


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_share_of_each_row_and_never_what_is_no_word() -> None:
    tokens = texts()
    hidden = hide_words(tokens, VOCABULARY, 0.15, drawn())
    words = (tokens.lengths - 2).float()
    expected = (words * 0.15).round().clamp(min=1).minimum(words)
    assert torch.equal(hidden.where.sum(1).float(), expected), "a text of n words hides a fixed number, a text without words none"
    assert not bool(hidden.where[tokens.ids < 5].any())
    assert torch.equal(hidden.tokens.ids[~hidden.where], tokens.ids[~hidden.where]), "the rest is untouched"
    assert hidden.tokens.lengths is tokens.lengths


def test_four_fifths_become_the_mask_a_tenth_any_word() -> None:
    tokens = texts(4000)
    hidden = hide_words(tokens, VOCABULARY, 0.5, drawn())
    was, now = tokens.ids[hidden.where], hidden.tokens.ids[hidden.where]
    count = len(was)
    masked, kept = int((now == 4).sum()), int((now == was).sum())
    # Three standard deviations of so many draws; a word drawn at random is the old one once in 95.
    assert abs(masked / count - 0.8) < 3 * (0.8 * 0.2 / count) ** 0.5
    assert abs(kept / count - (0.1 + 0.1 / 95)) < 3 * (0.1 * 0.9 / count) ** 0.5
    others = now[(now != 4) & (now != was)]
    assert len(others.unique()) == 95 and int(others.min()) == 5


def test_every_place_is_as_likely() -> None:
    tokens = pad([[2, *range(5, 15), 3]] * 5000)
    found = hide_words(tokens, VOCABULARY, 0.3, drawn()).where.float().mean(0)[1:11]
    assert float((found - 0.3).abs().max()) < 4 * (0.3 * 0.7 / 5000) ** 0.5


def test_padding_on_the_left_and_padding_of_any_id() -> None:
    rows = texts(50)
    left = torch.full((50, 30), 60)
    starts = 30 - rows.lengths
    for i, row in enumerate(rows.ids):
        left[i, starts[i] :] = row[: rows.lengths[i]]
    hidden = hide_words(Tokens(left, torch.full((50,), 30), starts), VOCABULARY, 0.4, drawn(), whole_words=True)
    assert not bool(hidden.where[torch.arange(30) < starts[:, None]].any())
    assert hidden.tokens.starts is starts
    right = Tokens(torch.where(torch.arange(rows.ids.shape[1]) < rows.lengths[:, None], rows.ids, 60), rows.lengths)
    same = hide_words(rows, VOCABULARY, 0.4, drawn(), whole_words=True)
    assert torch.equal(hide_words(right, VOCABULARY, 0.4, drawn(), whole_words=True).where, same.where)


def test_whole_words() -> None:
    """All pieces of a word or none; not more than the share, unless the first word alone is longer than that."""
    tokens = texts(400)
    hidden = hide_words(tokens, VOCABULARY, 0.3, drawn(), whole_words=True)
    for ids, where, length in zip(tokens.ids.tolist(), hidden.where.tolist(), tokens.lengths.tolist(), strict=True):
        words: list[list[bool]] = []
        for place in range(1, length - 1):
            if ids[place] >= 50 and place > 1:
                words[-1].append(where[place])
            else:
                words.append([where[place]])
        assert all(len(set(word)) == 1 for word in words)
        chosen = [word for word in words if word[0]]
        assert len(chosen) == 1 or sum(map(len, chosen)) <= round((length - 2) * 0.3)
        assert bool(chosen) == (length > 2)


def test_a_seed_gives_the_same_and_the_global_one_decides() -> None:
    tokens = texts(20)
    assert torch.equal(hide_words(tokens, VOCABULARY, 0.3, drawn(1)).tokens.ids, hide_words(tokens, VOCABULARY, 0.3, drawn(1)).tokens.ids)
    states = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        states.append(hide_words(tokens, VOCABULARY, 0.3, derived_generator()).tokens.ids)
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
