"""Tokenizers against transformers and against OpenAI's algorithm written out: the same ids on two thousand awkward strings."""

from __future__ import annotations

import html
import itertools
import json
import random
import resource
import unicodedata
from pathlib import Path

import ftfy
import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers
from transformers import BertTokenizer, CLIPTokenizer

from tonggan.config import ConfigError
from tonggan.data.processor import Processor
from tonggan.data.text import CLIP_PATTERN, END, START, TextProcessing, Tokenizer, clean, train_bpe
from tonggan.types import TongganError, UsageError

PIECES = [
    "a photo of a cat", "It's GREAT, isn't it?", "we're they've I'm I'll he'd", "don't STOP", "café naïve façade",
    "ﬁne ﬂow", "ＡＢＣ１２３", "一只红色的鸟", "日本語テスト", "한국어", "🐱🐶",
    "👨‍👩‍👧", "🇨🇳", "&amp;lt;b&amp;gt;", "&lt;p&gt;", "<b>bold</b>", "3.14159", "1,000,000",
    "x²+y²", "tab\there", "new\nline", "\u00a0nbsp", "\u200bzero", "\u3000全角", "schÃ¶n",
    "â€œquotedâ€\x9d", "...", "!!!???", "#hash @at", "snake_case", "CamelCase", "don’t", "“curly”",
    "—dash—", " <|endoftext|> ", "Ω≈ç√", "مرحبا", "привет", "\u0301", "A\u030a", "ab\u0345c",
]  # fmt: skip


def awkward(count: int = 2000) -> list[str]:
    rng = random.Random(0)
    return ["", " ", "\n", *(rng.choice([" ", "", "  "]).join(rng.choices(PIECES, k=rng.randint(1, 5))) for _ in range(count))]


@pytest.fixture(scope="module")
def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A small CLIP vocabulary, learnt here: bytes, bytes that end a word, merges, the two special tokens."""
    backend = Backend(models.BPE(end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    corpus = [text.lower() for text in awkward(300)]
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False)
    backend.train_from_iterator(corpus, trainer)
    plain = json.loads(backend.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split()) for m in plain["merges"]]
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(m) for m in merges)]
    vocab = {word: i for i, word in enumerate(dict.fromkeys([*words, START, END]))}
    return vocab, merges  # type: ignore[return-value]


def simple_tokenizer(text: str, vocab: dict[str, int], merges: list[tuple[str, str]]) -> list[int]:
    """OpenAI's SimpleTokenizer step by step: clean, split, bytes as letters, merge by rank.

    open_clip's is the same but for how the special tokens are spelt inside a caption; its own ids are in `test_open_clip.py`.
    """
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    text = regex.sub(r"\s+", " ", text).strip().lower()
    letter_of = _letters()
    rank = {pair: i for i, pair in enumerate(merges)}
    ids = [vocab[START]]
    for token in regex.findall(CLIP_PATTERN, text, regex.IGNORECASE):
        if token in (START, END):
            ids.append(vocab[token])
            continue
        word = [letter_of[b] for b in token.encode("utf-8")]
        word[-1] += "</w>"
        while len(word) > 1:
            best = min(itertools.pairwise(word), key=lambda pair: rank.get(pair, 10**9))
            if best not in rank:
                break
            merged, i = [], 0
            while i < len(word):
                if i + 1 < len(word) and (word[i], word[i + 1]) == best:
                    merged.append(word[i] + word[i + 1])
                    i += 2
                else:
                    merged.append(word[i])
                    i += 1
            word = merged
        ids += [vocab[piece] for piece in word]
    return [*ids, vocab[END]]


def _letters() -> dict[int, str]:
    """GPT-2's map from bytes to printable letters."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


def test_openai_cleaning_gives_openais_ids(vocabulary: tuple[dict[str, int], list[tuple[str, str]]]) -> None:
    vocab, merges = vocabulary
    mine = Tokenizer.clip(vocab, merges, TextProcessing(cleaning="openai", max_length=1000))
    texts = awkward()
    ids, cut = mine.encode(texts)
    assert not cut
    wrong = [text for text, found in zip(texts, ids, strict=True) if found != simple_tokenizer(text, vocab, merges)]
    assert wrong == []


@given(st.text(st.characters(max_codepoint=126), max_size=30))
def test_nothing_is_mended_in_plain_captions(text: str) -> None:
    """The short way around ftfy gives what the long way gives."""
    slow = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    assert clean(text) == " ".join(slow.split()).lower()


def test_plain_cleaning_gives_transformers_ids(vocabulary: tuple[dict[str, int], list[tuple[str, str]]]) -> None:
    vocab, merges = vocabulary
    theirs = CLIPTokenizer(vocab=vocab, merges=merges)
    mine = Tokenizer.clip(vocab, merges, TextProcessing(max_length=1000))
    texts = awkward()
    wrong = [t for t, found in zip(texts, mine.encode(texts)[0], strict=True) if found != theirs(t)["input_ids"]]
    assert wrong == []


def test_a_text_ends_at_its_first_end_in_clip_alone(vocabulary: tuple[dict[str, int], list[tuple[str, str]]], tmp_path: Path) -> None:
    """The ids are the library's; it is a batch of them that has no more than is read. BERT reads on."""
    vocab, merges = vocabulary
    clip = Tokenizer.clip(vocab, merges, TextProcessing())
    ids, _ = clip.encode([f"a{END} photo{END}", "a"])
    assert ids[0].count(vocab[END]) == 3
    batch = Processor(text=clip).collate(ids)
    assert batch.lengths.tolist() == [3, 3] and batch.ids[0].tolist() == batch.ids[1].tolist() == ids[1]

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", START, END]))
    bert = Tokenizer.wordpiece(tmp_path / "vocab.txt", TextProcessing())
    assert bert.end is None
    assert Processor(text=bert).tokens(["a[SEP] photo"]).ids.tolist() == [[2, 4, 3, 5, 3]]


def test_the_two_cleanings_differ(vocabulary: tuple[dict[str, int], list[tuple[str, str]]]) -> None:
    vocab, merges = vocabulary
    texts = ["schÃ¶n &amp; gut"]
    one, two = (Tokenizer.clip(vocab, merges, TextProcessing(cleaning=c)).encode(texts)[0] for c in ("openai", "none"))  # type: ignore[arg-type]
    assert one != two


def test_transformers_names_the_plain_cleaning() -> None:
    assert TextProcessing.parse({"cleaning": "transformers"}) == TextProcessing(cleaning="none")


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="pad_to=10 is less than max_length=77"):
        TextProcessing.parse({"pad_to": 10})
    with pytest.raises(UsageError, match="special tokens alone take 2"):
        train_bpe(CAPTIONS, 320, max_length=1)


def test_wordpiece_is_transformers_bert(tmp_path: Path) -> None:
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "red",
        "bird",
        "##s",
        "the",
        "photo",
        "of",
        "鸟",
        "红",
        ".",
        ",",
        "!",
        "cafe",
        "it",
        "'",
        "s",
        "3",
        "##1",
    ]
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(words) + "\n", "utf-8")
    theirs = BertTokenizer(vocab={w: i for i, w in enumerate(words)})
    mine = Tokenizer.wordpiece(file, TextProcessing(max_length=1000))
    texts = [*awkward(300), "a red birds", "红鸟", "31"]
    assert mine.encode(texts)[0] == [theirs(t)["input_ids"] for t in texts]


def test_a_file_that_is_no_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("one\ntwo\n")
    with pytest.raises(TongganError, match=r"\[UNK\]"):
        Tokenizer.wordpiece(tmp_path / "vocab.txt", TextProcessing())
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TongganError, match="not a tokenizer file"):
        Tokenizer.from_file(tmp_path / "tokenizer.json", TextProcessing())


CAPTIONS = ["一只红色的鸟", "一只蓝色的鸟", "红色的苹果", "a red bird", "a blue bird", "the red apple", "two birds"] * 3


def test_training_is_deterministic_and_does_not_depend_on_order() -> None:
    a, b = train_bpe(CAPTIONS, 400), train_bpe(CAPTIONS[::-1], 400)
    assert a._backend.to_str() == b._backend.to_str()
    with pytest.raises(UsageError, match="300 or more"):
        train_bpe(CAPTIONS, 200)


@example("\U00010781")
@given(st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40))
def test_any_text_can_be_written_in_bytes(text: str) -> None:
    """Of the characters that this Python knows: the Rust side has a newer Unicode, with small letters that are unassigned here. Which
    letters are forms of others it has from an older one, so that what it left as it was becomes ordinary here."""
    tokenizer = train_bpe(CAPTIONS, 320, max_length=10_000)
    (ids,), cut = tokenizer.encode([text])
    assert not cut
    assert ids[0] == tokenizer.id_of(START) and ids[-1] == tokenizer.id_of(END)
    written = unicodedata.normalize("NFKC", tokenizer.decode(ids[1:-1])).lower()
    assert written.strip() == unicodedata.normalize("NFKC", text).lower().strip()


def test_han_characters_are_words_of_their_own() -> None:
    tokenizer = train_bpe(CAPTIONS, 500)
    (alone,), _ = tokenizer.encode(["鸟"])
    (inside,), _ = tokenizer.encode(["红色的小鸟"])
    assert len(alone) == 3
    assert alone[1] in inside


def test_cutting_keeps_the_end_and_is_reported() -> None:
    tokenizer = train_bpe(CAPTIONS, 400, max_length=5)
    ids, cut = tokenizer.encode(["a red bird and another one", "a"])
    assert cut == [0]
    assert len(ids[0]) == 5 and ids[0][-1] == tokenizer.id_of(END)


def test_saved_and_read(tmp_path: Path) -> None:
    tokenizer = train_bpe(CAPTIONS, 400, max_length=7)
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.from_file(tmp_path / "tokenizer.json", tokenizer.config)
    texts = awkward(50)
    assert again.encode(texts) == tokenizer.encode(texts)


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    """Of a kind that those who write checkpoints know; the tokenizer still cuts. Where there is room, the file is the Rust side's own."""
    tokenizer = train_bpe(CAPTIONS, 400, max_length=7)
    tokenizer.save(tmp_path / "tokenizer.json")
    plain = Backend.from_str((tmp_path / "tokenizer.json").read_text("utf-8"))
    plain.save(str(tmp_path / "theirs.json"))
    assert (tmp_path / "tokenizer.json").read_bytes() == (tmp_path / "theirs.json").read_bytes()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, usual[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            tokenizer.save(tmp_path / "full.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert len(tokenizer.encode(["a red bird and another one"])[0][0]) == 7


def test_half_a_character_is_told() -> None:
    with pytest.raises(UsageError, match=r"'a \\ud83d' is not valid Unicode: character 3"):
        train_bpe(CAPTIONS, 320).encode(["a bird", "a \ud83d"])
    with pytest.raises(UsageError, match="not valid Unicode"):
        train_bpe([*CAPTIONS, "\udc00"], 320)


def test_characters_are_added_behind_the_known_words(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "bird", "鸟"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    plain = Tokenizer.wordpiece(tmp_path / "vocab.txt", TextProcessing())
    wider = plain.with_characters(["红鸟", "蓝"])
    assert wider.vocab_size == plain.vocab_size + 2
    assert wider.encode(["a bird"]) == plain.encode(["a bird"])
    assert wider.id_of("[UNK]") not in wider.encode(["红鸟"])[0][0]
    assert {wider.id_of(c) for c in "红鸟蓝"} == set(wider.han_ids())
