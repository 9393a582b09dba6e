"""Text becomes token ids, by Rust tokenizers and settings that are all named.

Kinds: CLIP's byte-level BPE with end-of-word marks and its two cleanings, WordPiece, any `tokenizer.json`, and a byte-level BPE
trained on one's own captions in Chinese and English.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import ftfy
from pydantic import Field, field_validator, model_validator
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from tonggan.config import Config
from tonggan.data.sentencepiece import Canonical, SentencePieceModel
from tonggan.tensors import Vocabulary
from tonggan.types import TongganError, UsageError

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
START, END, MASK = "<|startoftext|>", "<|endoftext|>", "<|mask|>"
MASKS = (MASK, "[MASK]", "<mask>")
"""How mask tokens are spelled."""
CLIP_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class TextProcessing(Config):
    """What happens around the tokenizer file."""

    cleaning: Literal["none", "openai", "siglip"] = "none"
    """`openai`: ftfy, HTML entities twice, white space to one blank, lower case, as OpenAI's and open_clip's code does before
    its BPE. `siglip`: lower case without ASCII punctuation, then the file's SentencePiece rules to the letter (`data.sentencepiece`).
    `none`: the tokenizer file's own normaliser is all. That is what `transformers` does, which is understood as another name of it."""
    max_length: int = Field(default=77, ge=1)
    """Longer texts are cut, keeping the special tokens, and are reported."""
    truncation_side: Literal["right", "left"] = "right"
    """Where a longer text loses its words: at its end or at its beginning."""
    pad_to: int | None = Field(default=None, ge=1)
    """Pad every batch to this length, for models that attend to their padding (SigLIP); None: to the batch's longest."""
    pad_counts: bool = True
    """With `pad_to`: padding belongs to the text, and is attended to as SigLIP was trained; else it is padding."""
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
        self._canonical: Canonical | None = None
        if config.cleaning == "siglip":
            # The file's rules are carried out here, to the letter, before the backend sees a text.
            self._canonical = Canonical(json.loads(backend.to_str()))
            self._rules, backend.normalizer = backend.normalizer, None
        # Whatever the file says of padding and cutting is replaced by what the settings say.
        backend.no_padding()
        backend.enable_truncation(config.max_length, direction=config.truncation_side)
        frame = backend.encode("")
        self._ends = frame.ids[-1] if frame.tokens == [START, END] else None

    @classmethod
    def from_file(cls, path: str | Path, config: TextProcessing) -> Tokenizer:
        """Any `tokenizer.json`; raises `TongganError` when it is not readable as one."""
        try:
            return cls(Backend.from_file(str(path)), config)
        except Exception as error:  # the Rust side raises bare Exception, whatever is wrong
            raise TongganError(f"{path}: not a tokenizer file: {error}") from None

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], config: TextProcessing) -> Tokenizer:
        """The tokenizer of what a `tokenizer.json` says."""
        return cls(Backend.from_str(json.dumps(spec)), config)

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
        # The mark of a word's end becomes a byte-level blank, while the pieces are still apart.
        backend.decoder = decoders.Sequence([decoders.Replace("</w>", "Ġ"), decoders.ByteLevel(), decoders.Replace(Regex(r" \z"), "")])
        backend.add_special_tokens([AddedToken(START, normalized=False), AddedToken(END, normalized=False)])
        backend.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}", special_tokens=[(START, vocab[START]), (END, vocab[END])]
        )
        return cls(backend, config)

    @classmethod
    def roberta(
        cls,
        vocab: dict[str, int],
        merges: Sequence[tuple[str, str]],
        config: TextProcessing,
        *,
        prefix_space: bool = False,
        mask_strips: bool = False,
    ) -> Tokenizer:
        """RoBERTa's byte-level BPE out of `vocab.json` and `merges.txt`.

        `prefix_space`: a text's first word is spelled like any other; `mask_strips`: the mask swallows the blank before it.
        """
        backend = Backend(models.BPE(vocab=vocab, merges=list(merges), continuing_subword_prefix="", end_of_word_suffix=""))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
        backend.decoder = decoders.ByteLevel()
        special = [token for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>") if token in vocab]
        backend.add_special_tokens([AddedToken(token, normalized=False, lstrip=mask_strips and token == "<mask>") for token in special])
        backend.post_processor = processors.RobertaProcessing(
            ("</s>", vocab["</s>"]), ("<s>", vocab["<s>"]), trim_offsets=True, add_prefix_space=prefix_space
        )
        return cls(backend, config)

    @classmethod
    def gpt2(
        cls,
        vocab: dict[str, int],
        merges: Sequence[tuple[str, str]],
        config: TextProcessing,
        *,
        special: Iterable[str] = (END,),
        prefix_space: bool = False,
    ) -> Tokenizer:
        """GPT-2's byte-level BPE out of `vocab.json` and `merges.txt`, with nothing around a text; `prefix_space` as in `roberta`."""
        backend = Backend(models.BPE(vocab=vocab, merges=list(merges), continuing_subword_prefix="", end_of_word_suffix=""))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
        return cls(backend, config)

    @classmethod
    def sentencepiece(cls, model: SentencePieceModel, end: str, config: TextProcessing) -> Tokenizer:
        """SigLIP's tokenizer out of its `spiece.model`; every text ends with the piece `end`."""
        pieces = [piece for piece, _ in model.pieces]
        if end not in pieces:
            raise TongganError(f"the SentencePiece vocabulary has no end token {end}")
        backend = Backend(models.Unigram(list(model.pieces), unk_id=model.unknown, byte_fallback=model.byte_fallback))
        backend.normalizer = normalizers.Precompiled(model.charsmap) if model.charsmap else None
        backend.decoder = decoders.Metaspace()
        backend.add_special_tokens([AddedToken(token, normalized=False) for token in (end, pieces[model.unknown])])
        backend.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, pieces.index(end))])
        return cls(backend, config)

    @classmethod
    def wordpiece(
        cls, vocab: str | Path, config: TextProcessing, *, lowercase: bool = True, strip_accents: bool | None = None, split_han: bool = True
    ) -> Tokenizer:
        """BERT's tokenizer out of a `vocab.txt`; accents go with the capitals unless `strip_accents` says otherwise."""
        words = {line.rstrip("\n"): i for i, line in enumerate(Path(vocab).read_text("utf-8").splitlines(keepends=True))}
        missing = [word for word in ("[UNK]", "[CLS]", "[SEP]") if word not in words]
        if missing:
            raise TongganError(f"{vocab}: not a BERT vocabulary, it lacks {', '.join(missing)}")
        backend = Backend(models.WordPiece(words, unk_token="[UNK]", max_input_chars_per_word=100))
        backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=split_han)
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
    def end(self) -> int | None:
        """The id of CLIP's end token where texts are framed as CLIP's are: at the first one a text ends. None for other frames."""
        return self._ends

    @property
    def spec(self) -> dict[str, Any]:
        """What `tokenizer.json` says, as data."""
        found: dict[str, Any] = json.loads(self._written())
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Of all that decides ids: vocabulary, merges, rules, added tokens, the special tokens around a text. 16 digits of a SHA-256.

        The same tokenizer has the same one however its file is laid out, and whatever the class that frames its texts is called.
        """
        spec = self.spec
        decides = {name: _plain(spec[name]) for name in ("model", "normalizer", "pre_tokenizer", "added_tokens")}
        decides["frame"] = self._backend.encode("").ids
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]

    def id_of(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, None when it has none."""
        found: int | None = self._backend.token_to_id(token)
        return found

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Ids of each text with special tokens, and the numbers of those that were cut to `max_length`.

        Raises `UsageError` for a text that is not valid Unicode.
        """
        cleaned = [self._clean(text) for text in texts]
        try:
            found = self._backend.encode_batch_fast(cleaned)
        except TypeError:
            _check_unicode(cleaned)
            raise
        return [one.ids for one in found], [i for i, one in enumerate(found) if one.overflowing]

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text without the special tokens around it, and uncut: what stands in the midst of others. Raises as `encode` does."""
        cleaned = [self._clean(text) for text in texts]
        _check_unicode(cleaned)
        self._backend.no_truncation()
        try:
            return [one.ids for one in self._backend.encode_batch_fast(cleaned, add_special_tokens=False)]
        finally:
            self._backend.enable_truncation(self.config.max_length, direction=self.config.truncation_side)

    def _clean(self, text: str) -> str:
        match self.config.cleaning:
            case "none":
                return text
            case "openai":
                return clean(text)
            case "siglip":
                assert self._canonical is not None
                _check_unicode([text])
                return self._canonical(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens."""
        return str(self._backend.decode(list(ids)))

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json`, without the settings; raises `OSError` when the disk is full."""
        # Cutting belongs to the settings: in the file it would be applied twice by other readers.
        self._backend.no_truncation()
        try:
            written = self._written(pretty=True)
        finally:
            self._backend.enable_truncation(self.config.max_length, direction=self.config.truncation_side)
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

    def vocabulary(self) -> Vocabulary:
        """What hiding words needs to know; raises `UsageError` where there is no mask token.

        A piece goes on with a word in WordPiece when it begins with ##, in Unigram when it does not begin with ▁, in byte-level BPE
        when it begins neither with a blank nor with a letter of three or more bytes (Han, kana: each is a word of its own).
        """
        pieces = self._backend.get_vocab(with_added_tokens=True)
        mask = next((pieces[token] for token in MASKS if token in pieces), None)
        if mask is None:
            raise UsageError(f"this tokenizer has no mask token ({', '.join(MASKS)}); masked language modelling needs one")
        special = frozenset(i for i, token in self._backend.get_added_tokens_decoder().items() if token.special)
        kind = self.spec["model"]["type"]
        continues = frozenset(i for piece, i in pieces.items() if _goes_on(piece, kind)) - special
        return Vocabulary(max(pieces.values()) + 1, mask, special | {mask}, continues)

    def lowercased(self) -> Tokenizer:
        """The same tokenizer for lower-case text: what its rules do not make so themselves becomes so before them."""
        spec = self.spec
        rules = spec["normalizer"]
        first = {"type": "Lowercase"}
        inner = [] if rules is None else rules["normalizers"] if rules["type"] == "Sequence" else [rules]
        if first in inner:
            return self
        return Tokenizer.from_spec({**spec, "normalizer": {"type": "Sequence", "normalizers": [first, *inner]}}, self.config)

    def han_ids(self) -> list[int]:
        """Ids of all tokens that contain a Han character."""
        return sorted(i for token, i in self._backend.get_vocab(with_added_tokens=True).items() if HAN.search(token))

    def with_settings(self, **changes: Any) -> Tokenizer:
        """The same tokenizer under other settings."""
        return Tokenizer(Backend.from_str(self._written()), TextProcessing.parse({**self.config.model_dump(), **changes}))

    def _written(self, *, pretty: bool = False) -> str:
        """`tokenizer.json`, with the rules that are carried out here."""
        if self._canonical is None:
            return str(self._backend.to_str(pretty=pretty))
        self._backend.normalizer = self._rules
        try:
            return str(self._backend.to_str(pretty=pretty))
        finally:
            self._backend.normalizer = None


def _plain(rules: Any) -> Any:
    """Rules of a `tokenizer.json` in one form: without what is null, false or empty, which some versions write and others leave out."""
    if isinstance(rules, list):
        return [_plain(rule) for rule in rules]
    if not isinstance(rules, dict):
        return rules
    if rules.get("type") == "BertNormalizer" and rules["strip_accents"] is None:
        rules = {**rules, "strip_accents": rules["lowercase"]}
    return {
        name: value if name in ("vocab", "merges") else _plain(value)  # long, and in one form as they are
        for name, value in rules.items()
        if value not in (None, "", []) and value is not False and name != "trim_offsets"  # places in the text are no ids
    }


def _goes_on(piece: str, kind: str) -> bool:
    """Whether a piece of a vocabulary of that kind belongs to the word of the piece before it."""
    match kind:
        case "WordPiece":
            return piece.startswith("##")
        case "Unigram":
            return not piece.startswith("▁")
        case "BPE":
            return piece[:1] != "Ġ" and not "à" <= piece[:1] <= "ÿ"  # in Latin-1's place stand the bytes from E0 on
    return False


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


def train_bpe(captions: Iterable[str], vocab_size: int, *, max_length: int = 64, mask: bool = False, exact: bool = False) -> Tokenizer:
    """A byte-level BPE learnt from captions: any text can be written in it, and the same captions give the same tokenizer.

    Full-width forms become ordinary ones and letters lower case (NFKC), unless `exact`: then what is written can be read again to the
    letter, as models need it that say it, and a text counts as often as it is said, as what is asked with is said again and again. Every
    Han character is its own word, so that what is learnt of 鸟 in 红色的鸟 serves in 小鸟; Latin words are split off at blanks. `mask`
    adds a token for hidden words. Raises `UsageError` for a caption that is not valid Unicode.
    """
    if vocab_size < 300:
        raise UsageError(f"vocab_size {vocab_size}: expected 300 or more (256 bytes and the special tokens)")
    backend = Backend(models.BPE())
    if not exact:
        backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{Han}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    special = ["<|pad|>", START, END, *([MASK] if mask else [])]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, min_frequency=2, show_progress=False
    )
    learnt_from = sorted(captions if exact else set(captions))
    _check_unicode(learnt_from)
    backend.train_from_iterator(learnt_from, trainer)
    ids = {token: int(backend.token_to_id(token) or 0) for token in special}
    backend.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
    )
    return Tokenizer(backend, TextProcessing(max_length=max_length, pad_id=ids["<|pad|>"]))
