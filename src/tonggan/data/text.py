"""Text becomes token ids, by Rust tokenizers and settings that are all named.

Kinds: CLIP's byte-level BPE with end-of-word marks and its two cleanings, WordPiece, any `tokenizer.json`, and a byte-level BPE
trained on one's own captions in Chinese and English.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import ftfy
from pydantic import Field, field_validator, model_validator
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from tonggan.config import Config
from tonggan.types import TongganError, UsageError

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
START, END = "<|startoftext|>", "<|endoftext|>"
CLIP_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class TextProcessing(Config):
    """What happens around the tokenizer file."""

    cleaning: Literal["none", "openai"] = "none"
    """`openai`: ftfy, HTML entities twice, white space to one blank, lower case, as OpenAI's and open_clip's code does before
    its BPE. `none`: the tokenizer file's own normaliser is all. That is what `transformers` does, which is understood as another
    name of it."""
    max_length: int = Field(default=77, ge=1)
    """Longer texts are cut, keeping the closing special token, and are reported."""
    pad_to: int | None = Field(default=None, ge=1)
    """Pad every batch to this length, for models that attend to their padding (SigLIP); None: to the batch's longest."""
    pad_id: int = Field(default=0, ge=0)

    @field_validator("cleaning", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        return "none" if value == "transformers" else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.pad_to is not None and self.pad_to < self.max_length:
            raise ValueError(f"pad_to={self.pad_to} is less than max_length={self.max_length}: longer texts would not be cut")
        return self


class Tokenizer:
    """A tokenizer file and its settings."""

    def __init__(self, backend: Backend, config: TextProcessing) -> None:
        taken = backend.num_special_tokens_to_add(False)
        if config.max_length < taken:
            raise UsageError(f"max_length={config.max_length}: this tokenizer's special tokens alone take {taken}")
        self.config = config
        self._backend = backend
        # Whatever the file says of padding and cutting is replaced by what the settings say.
        backend.no_padding()
        backend.enable_truncation(config.max_length)

    @classmethod
    def from_file(cls, path: str | Path, config: TextProcessing) -> Tokenizer:
        """Any `tokenizer.json`; raises `TongganError` when it is not readable as one."""
        try:
            return cls(Backend.from_file(str(path)), config)
        except Exception as error:  # the Rust side raises bare Exception, whatever is wrong
            raise TongganError(f"{path}: not a tokenizer file: {error}") from None

    @classmethod
    def clip(cls, vocab: dict[str, int], merges: Sequence[tuple[str, str]], config: TextProcessing) -> Tokenizer:
        """CLIP's tokenizer out of `vocab.json` and `merges.txt`.

        A special token that is glued to punctuation (`...<|endoftext|>`) is recognised, as in transformers; OpenAI's own code misses it.
        Letters that Unicode gained of late are letters to OpenAI's code only where its `regex` is as new.
        """
        pattern = CLIP_PATTERN
        if config.cleaning == "openai":
            # OpenAI's code ignores case even in character classes. The iota below has a letter for its capital: no symbol, yet no letter.
            pattern = pattern.replace(r"[^\s", r"[^\s\x{345}")
        backend = Backend(models.BPE(vocab=vocab, merges=list(merges), end_of_word_suffix="</w>", unk_token=END))
        if config.cleaning == "none":
            backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=config.cleaning == "none"),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([AddedToken(START, normalized=False), AddedToken(END, normalized=False)])
        backend.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}", special_tokens=[(START, vocab[START]), (END, vocab[END])]
        )
        return cls(backend, config)

    @classmethod
    def wordpiece(cls, vocab: str | Path, config: TextProcessing, *, lowercase: bool = True) -> Tokenizer:
        """BERT's tokenizer out of a `vocab.txt`."""
        words = {line.rstrip("\n"): i for i, line in enumerate(Path(vocab).read_text("utf-8").splitlines(keepends=True))}
        missing = [word for word in ("[UNK]", "[CLS]", "[SEP]") if word not in words]
        if missing:
            raise TongganError(f"{vocab}: not a BERT vocabulary, it lacks {', '.join(missing)}")
        backend = Backend(models.WordPiece(words, unk_token="[UNK]", max_input_chars_per_word=100))
        backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.post_processor = processors.BertProcessing(("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"]))
        backend.add_special_tokens([AddedToken(word) for word in ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]") if word in words])
        return cls(backend, config)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def pad_id(self) -> int:
        """The id that fills a batch; no result depends on it."""
        return self.config.pad_id

    @property
    def spec(self) -> dict[str, Any]:
        """What `tokenizer.json` says, as data."""
        found: dict[str, Any] = json.loads(self._backend.to_str())
        return found

    def id_of(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, None when it has none."""
        found: int | None = self._backend.token_to_id(token)
        return found

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Ids of each text with special tokens, and the numbers of those that were cut to `max_length`.

        Raises `UsageError` for a text that is not valid Unicode.
        """
        cleaned = [clean(text) for text in texts] if self.config.cleaning == "openai" else list(texts)
        try:
            found = self._backend.encode_batch_fast(cleaned)
        except TypeError:
            _check_unicode(cleaned)
            raise
        return [one.ids for one in found], [i for i, one in enumerate(found) if one.overflowing]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens."""
        return str(self._backend.decode(list(ids)))

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json`, without the settings; raises `OSError` when the disk is full."""
        # Cutting belongs to the settings: in the file it would be applied twice by other readers.
        self._backend.no_truncation()
        try:
            written = self._backend.to_str(pretty=True)
        finally:
            self._backend.enable_truncation(self.config.max_length)
        Path(path).write_text(written, encoding="utf-8")  # the Rust side's own `save` raises bare Exception

    def with_characters(self, texts: Iterable[str]) -> Tokenizer:
        """A WordPiece tokenizer that also knows every Han character of `texts`; known words keep their ids."""
        plain = json.loads(self._backend.to_str())
        if plain["model"]["type"] != "WordPiece":
            raise UsageError("characters can be added to a WordPiece tokenizer only")
        vocab = plain["model"]["vocab"]
        for character in sorted({c for text in texts for c in HAN.findall(unicodedata.normalize("NFKC", text))} - set(vocab)):
            vocab[character] = len(vocab)
        return Tokenizer(Backend.from_str(json.dumps(plain)), self.config)

    def han_ids(self) -> list[int]:
        """Ids of all tokens that contain a Han character."""
        return sorted(i for token, i in self._backend.get_vocab(with_added_tokens=True).items() if HAN.search(token))

    def with_settings(self, **changes: Any) -> Tokenizer:
        """The same tokenizer under other settings."""
        return Tokenizer(Backend.from_str(self._backend.to_str()), TextProcessing.parse({**self.config.model_dump(), **changes}))


def clean(text: str) -> str:
    """What OpenAI's code does before BPE: mend mojibake, undo HTML entities (twice), one blank for white space, lower case."""
    if text.isascii() and text.isprintable() and "&" not in text:  # most captions: there is nothing to mend
        return " ".join(text.split()).lower()
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip().lower()


def is_unicode(text: str) -> bool:
    """Whether a text is free of lone surrogates: JSON can hold half a character, which no tokenizer reads."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _check_unicode(texts: Iterable[str]) -> None:
    """Raise `UsageError` where a text holds half of a surrogate pair: no bytes stand for it."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the text {text[:60]!r} is not valid Unicode: character {error.start + 1} is half of a surrogate pair; "
                "read it again in its right encoding, or replace it: text.encode('utf-8', 'replace').decode()"
            ) from None


def train_bpe(captions: Iterable[str], vocab_size: int, *, max_length: int = 64) -> Tokenizer:
    """A byte-level BPE learnt from captions: any text can be written in it, and the same captions give the same tokenizer.

    Full-width forms become ordinary ones and letters lower case (NFKC). Every Han character is its own word, so that what is
    learnt of 鸟 in 红色的鸟 serves in 小鸟; Latin words are split off at blanks. Raises `UsageError` for a caption that is not valid
    Unicode.
    """
    if vocab_size < 300:
        raise UsageError(f"vocab_size {vocab_size}: expected 300 or more (256 bytes and the special tokens)")
    backend = Backend(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{Han}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    special = ["<|pad|>", START, END]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, min_frequency=2, show_progress=False
    )
    learnt_from = sorted(set(captions))
    _check_unicode(learnt_from)
    backend.train_from_iterator(learnt_from, trainer)
    ids = {token: int(backend.token_to_id(token) or 0) for token in special}
    backend.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
    )
    return Tokenizer(backend, TextProcessing(max_length=max_length, pad_id=ids["<|pad|>"]))
