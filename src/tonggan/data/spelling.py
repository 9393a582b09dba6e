"""A written conversation to tokens, in which only the template's own words act as control tokens and placeholders."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from tonggan.data.text import Tokenizer
from tonggan.types import TongganError, UsageError

_PRIVATE = 0x100000
"""From here on, in the last private plane of Unicode, stand the characters that take the place of words to be spelled out."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of a written text."""

    ids: Sequence[int]
    start: int
    stop: int
    placeholder: int | None = None
    """Which of the placeholders it is."""


class Speller:
    """From a written text to pieces: the tokenizer without a frame and without cutting, which knows the placeholders and, as single private
    characters, the words of users that must not act as tokens."""

    def __init__(self, tokenizer: Tokenizer, placeholders: Sequence[str]) -> None:
        if tokenizer.config.cleaning != "none":
            raise UsageError(f"a tokenizer with cleaning={tokenizer.config.cleaning!r} writes no conversations; it is made for captions")
        # Without a post-processor, which would but trim blanks off the places of tokens in the text.
        spec = tokenizer.spec | {"truncation": None, "padding": None, "post_processor": None}
        known = {token["content"] for token in spec["added_tokens"]}
        control = [token["content"] for token in spec["added_tokens"] if token["special"]]
        # As spelled, not as the rules change them: else a text could hold a control token in full-width letters, say.
        spec["added_tokens"] = [token | ({"normalized": False} if token["special"] else {}) for token in spec["added_tokens"]]
        self._backend = Backend.from_str(json.dumps(spec))
        self._guarded = sorted({*control, *placeholders}, key=lambda word: (-len(word), word))
        self._words = re.compile("|".join(map(re.escape, self._guarded)) or r"(?!)")
        self._stands = {word: chr(_PRIVATE + number) for number, word in enumerate(self._guarded)}
        self._private = re.compile(f"[{chr(_PRIVATE)}-{chr(_PRIVATE + len(self._guarded))}]")
        spelled = {word: self._plainly(word) for word in self._guarded}
        added = [*(word for word in placeholders if word not in known), *self._stands.values()]
        self._backend.add_special_tokens([AddedToken(word, normalized=False) for word in added])
        self._placeholders = {self._backend.token_to_id(word): number for number, word in enumerate(placeholders)}
        self._spelled = {self._backend.token_to_id(stand): spelled[word] for word, stand in self._stands.items()}

    def guarded(self, text: str) -> str:
        """A user's text in which what looks like a placeholder or a control token is a private character."""
        if self._private.search(text):
            raise TongganError("the text has a character of Unicode's last private plane, which no font shows; leave it out")
        return self._words.sub(lambda found: self._stands[found[0]], text)

    def __call__(self, written: str) -> list[Piece]:
        found = self._backend.encode(written, add_special_tokens=False)
        return [
            Piece(self._spelled.get(id, (id,)), start, stop, self._placeholders.get(id))
            for id, (start, stop) in zip(found.ids, found.offsets, strict=True)
        ]

    def _plainly(self, word: str) -> list[int]:
        """A word in ordinary pieces, letter by letter where the vocabulary has it as one."""
        self._backend.encode_special_tokens = True
        try:
            whole = self._backend.encode(word, add_special_tokens=False).ids
            if {*whole}.isdisjoint(map(self._backend.token_to_id, self._guarded)):
                return list(whole)
            return [id for letter in word for id in self._backend.encode(letter, add_special_tokens=False).ids]
        finally:
            self._backend.encode_special_tokens = False
