"""SentencePiece files (`spiece.model`): read and written without that library, and its normalisation done exactly.

The file is a Protocol Buffers message, `ModelProto` of sentencepiece_model.proto; only the fields named here are looked at. The
normalisation is a table from character sequences to what stands for them (Kudo and Richardson 2018, section 3.2), a double-array trie.
`tokenizers` has it too (`Precompiled`), but goes by grapheme and there loses combining marks: one in ten texts with such marks differs.
"""

from __future__ import annotations

import base64
import re
import string
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tonggan.types import TongganError

BLANK = "▁"
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
"""Types of pieces (`ModelProto.SentencePiece.Type`); user-defined ones (4) have rules of their own and are refused, as are unused (5)."""
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class SentencePieceModel:
    """A Unigram vocabulary: pieces with their logarithmic probabilities, an id being a place in the list."""

    pieces: tuple[tuple[str, float], ...]
    unknown: int
    charsmap: bytes
    byte_fallback: bool = False

    @classmethod
    def parse(cls, data: bytes, where: str) -> SentencePieceModel:
        """Out of a file's bytes; raises `TongganError` for what is damaged or does not work as SigLIP's and T5's files do."""
        try:
            top = _Message(data)
            trainer, rules = (_Message(b"".join(top.bytes.get(number, []))) for number in (2, 3))
            made = [_Message(piece) for piece in top.bytes[1]]
            pieces = tuple((piece.bytes[1][0].decode(), struct.unpack("<f", *piece.bytes.get(2, [bytes(4)]))[0]) for piece in made)
        except (IndexError, KeyError, struct.error, UnicodeDecodeError, TypeError) as error:
            raise TongganError(f"{where}: not a SentencePiece file, or damaged ({error})") from None
        types = [piece.numbers.get(3, NORMAL) for piece in made]
        wrong = []
        if trainer.numbers.get(3, 1) != 1:
            wrong.append("a model that is not Unigram")
        if wrong_type := sorted(set(types) - {NORMAL, UNKNOWN, CONTROL, BYTE}):
            wrong.append(f"pieces of type {', '.join(map(str, wrong_type))} (user-defined or unused)")
        if types.count(UNKNOWN) != 1:
            wrong.append(f"{types.count(UNKNOWN)} unknown pieces")
        wrong += [f"{name}=false" for number, name in RULES.items() if not rules.numbers.get(number, 1)]
        if wrong:
            raise TongganError(f"{where}: not supported: {'; '.join(wrong)}")
        return cls(pieces, types.index(UNKNOWN), b"".join(rules.bytes.get(2, [])), bool(trainer.numbers.get(35, 0)))

    @classmethod
    def of_spec(cls, spec: Mapping[str, Any]) -> SentencePieceModel:
        """Out of a `tokenizer.json` of such a tokenizer."""
        model, rules = spec["model"], spec["normalizer"] or {}
        pieces = tuple((str(piece), float(score)) for piece, score in model["vocab"])
        return cls(pieces, model["unk_id"], base64.b64decode(rules.get("precompiled_charsmap", "")), bool(model["byte_fallback"]))

    def to_bytes(self) -> bytes:
        """The file again. Pieces, scores, types and rules are the same; how it was trained is not kept."""
        made = b"".join(
            _field(1, _field(1, piece.encode()) + _field(2, struct.pack("<f", score), wire=5) + _field(3, self._type(i)))
            for i, (piece, score) in enumerate(self.pieces)
        )
        trainer = _field(3, 1) + _field(35, int(self.byte_fallback)) + _field(40, self.unknown)
        trainer += b"".join(_field(number, self._find(piece)) for number, piece in ((41, "<s>"), (42, "</s>"), (43, "<pad>")))
        rules = _field(2, self.charsmap) + b"".join(_field(number, 1) for number in RULES)
        return made + _field(2, trainer) + _field(3, rules)

    def _type(self, number: int) -> int:
        piece, score = self.pieces[number]
        if number == self.unknown:
            return UNKNOWN
        if self.byte_fallback and re.fullmatch("<0x[0-9A-F]{2}>", piece):
            return BYTE
        return CONTROL if score == 0 and piece[:1] == "<" and piece[-1:] == ">" else NORMAL

    def _find(self, piece: str) -> int:
        return next((i for i, (name, _) in enumerate(self.pieces) if name == piece), -1)


RULES = {3: "add_dummy_prefix", 4: "remove_extra_whitespaces", 5: "escape_whitespaces"}
"""Of `NormalizerSpec`, all true where the file is silent."""


class Charsmap:
    """The normalisation table: at each place the longest sequence that it has is replaced, anything else stays."""

    def __init__(self, data: bytes) -> None:
        size = struct.unpack("<I", data[:4])[0] if data else 0
        self._trie: Sequence[int] = memoryview(data[4 : 4 + size]).cast("I") if size else ()
        self._texts = data[4 + size :]

    def __call__(self, text: str) -> str:
        """The normalised text."""
        if not self._trie:
            return text
        data, at, made = text.encode(), 0, bytearray()
        while at < len(data):
            length, value = self._longest(data, at)
            if length:
                made += self._texts[value : self._texts.index(0, value)]
            else:
                length = next((n for n in (1, 2, 3) if at + n >= len(data) or data[at + n] & 0xC0 != 0x80), 4)  # one character
                made += data[at : at + length]
            at += length
        return made.decode()

    def _longest(self, data: bytes, at: int) -> tuple[int, int]:
        """Length of the longest sequence from `at` on that the trie has, and where its replacement stands; 0 for none."""
        trie, found = self._trie, (0, 0)
        node = _offset(trie[0])
        for length, byte in enumerate(data[at:], 1):
            node ^= byte
            if node >= len(trie) or trie[node] & 0x800000FF != byte:
                break
            unit = trie[node]
            node ^= _offset(unit)
            if unit >> 8 & 1:
                found = length, trie[node] & 0x7FFFFFFF
        return found


class Canonical:
    """What SigLIP's tokenizer makes of a text before its pieces are looked up: lower case, no ASCII punctuation, single blanks (as in
    big_vision), then SentencePiece's own normalisation, blanks written as ▁.

    `spec` is a `tokenizer.json`, whose normaliser holds the table. Special tokens that a text spells out stay, but for the end token at
    the very end, which will be added anyway. Raises `TongganError` for a tokenizer of another kind.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        rules = spec["normalizer"] or {"type": "Precompiled", "precompiled_charsmap": ""}
        if rules.get("type") != "Precompiled" or spec["model"].get("type") != "Unigram":
            raise TongganError(
                f"cleaning siglip goes with a SentencePiece tokenizer, not with {rules.get('type')}, {spec['model'].get('type')}"
            )
        self._charsmap = Charsmap(base64.b64decode(rules["precompiled_charsmap"]))
        special = sorted((token["content"] for token in spec["added_tokens"] if token["special"]), key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, special))})")
        self._end = str(spec["post_processor"]["single"][-1]["SpecialToken"]["id"])

    def __call__(self, text: str) -> str:
        parts = self._special.split(BLANK + text.replace(BLANK, " "))
        for i in range(1, len(parts), 2):  # as the library does: a special token swallows the blanks around it
            parts[i - 1], parts[i + 1] = parts[i - 1].rstrip(), parts[i + 1].lstrip()
        parts[::2] = [self._plain(part) for part in parts[::2]]
        ended = len(parts) > 1 and not parts[-1] and parts[-2] == self._end
        return "".join(parts[:-2] if ended else parts)

    def _plain(self, part: str) -> str:
        part = re.sub(r"\s+", " ", part.lower().translate(_NO_PUNCTUATION)).strip()
        return re.sub(" +", " ", self._charsmap(part)).rstrip(" ").replace(" ", BLANK)


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)


class _Message:
    """A message's fields by their numbers: those that are numbers themselves (the last counts), and all others as bytes."""

    def __init__(self, data: bytes) -> None:
        self.numbers: dict[int, int] = {}
        self.bytes: dict[int, list[bytes]] = {}
        at = 0
        while at < len(data):
            key, at = _varint(data, at)
            if key & 7 == 0:
                self.numbers[key >> 3], at = _varint(data, at)
                continue
            if key & 7 == 2:
                size, at = _varint(data, at)
            else:
                size = {1: 8, 5: 4}[key & 7]
            if at + size > len(data):
                raise IndexError("it ends in the middle of a field")
            self.bytes.setdefault(key >> 3, []).append(data[at : at + size])
            at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _field(number: int, value: bytes | int, wire: int = 2) -> bytes:
    if isinstance(value, int):
        return _number(number << 3) + _number(value & (1 << 64) - 1)  # a negative one in two's complement
    return _number(number << 3 | wire) + (_number(len(value)) if wire == 2 else b"") + value


def _number(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
