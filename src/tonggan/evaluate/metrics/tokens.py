"""Text to the tokens that captioning metrics count; each way of cutting has an id, because it moves every score.

`ptb` follows the Penn Treebank rules of Stanford CoreNLP 3.4.1 as `pycocoevalcap` calls it (lower case, then 17 marks dropped), in
Python: contractions, abbreviations, numbers, hyphens and slashes inside words, American spelling of frequent words. It is not that
program: rare abbreviations, web addresses and smileys are cut otherwise, so the id says `ptb-like`. Two quirks are kept on purpose.
Brackets become `-lrb-` and stay, because the list of dropped marks holds `-LRB-` in capitals; and British spelling is changed before
the lower case, so `grey` becomes `gray` but `Grey` becomes `grey`.

Chinese is cut into characters, or into words by jieba.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from tonggan.config import did_you_mean
from tonggan.types import MissingExtra, UsageError


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A way of cutting text; `id` belongs into the protocol of every score that was counted with it."""

    id: str
    cut: Callable[[str], list[str]]


def tokenizer(name: str) -> Tokenizer:
    """`ptb` (English), `zh-char`, `zh-jieba` (Chinese) or `given` (tokens already stand between spaces)."""
    if name == "zh-jieba":
        return _jieba()
    if name not in TOKENIZERS:
        known = (*TOKENIZERS, "zh-jieba")
        raise UsageError(f"unknown tokens {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)}")
    return TOKENIZERS[name]


# --------------------------------------------------------------------------------------------- English

_ABBREVIATIONS = "mr|mrs|ms|dr|prof|st|jr|sr|mt|ft|ave|blvd|rd|no|vs|etc|inc|co|corp|ltd|dept|gen|sgt|capt|lt|gov|sen|rev"
_TOKEN = re.compile(
    rf"""
      \.\.+ | …                                             # an ellipsis
    | (?:[a-z]\.){{2,}}                                     # U.S., a.m.
    | (?:{_ABBREVIATIONS})\.(?=\s+\S)                       # at the end of a caption the period ends it
    | can(?=not\b) | gon(?=na\b) | got(?=ta\b) | wan(?=na\b) | lem(?=me\b) | gim(?=me\b) | ['’]t(?=(?:is|was)\b)
    | [a-z]*[a-mo-z](?=n['’]t\b) | n['’]t\b                 # ca n't
    | ['’](?:s|m|d|re|ve|ll|em)\b                           # it 's
    | [dol]['’][^\W_]+                                      # o'clock
    | [^\W_]+(?:-[^\W_]+)*(?:/[^\W_]+(?:-[^\W_]+)*)+        # black/white, 1/2
    | [+-]?\d+(?:[.,:]\d+)+(?![^\W_]) | [+-]?\.\d+(?![^\W_])  # 1,000, 3.5, 12:30
    | [^\W_]+(?:-[^\W_]+)*                                  # well-dressed
    | --+ | [–—] | [!?]+ | \S
    """,
    re.IGNORECASE | re.VERBOSE,
)
_WRITTEN = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "“": "``", "”": "''", "‘": "`", "’": "'", '"': "''", "…": "...", "–": "--", "—": "--",
    "£": "#", "€": "$", "¢": "cents", "*": r"\*", "/": r"\/",
}  # fmt: skip
_DROPPED = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))
_AMERICAN = {
    "grey": "gray", "centre": "center", "theatre": "theater", "theatres": "theaters", "fibre": "fiber", "fibres": "fibers",
    "kerb": "curb", "defence": "defense", "analyse": "analyze", "analysed": "analyzed", "analysing": "analyzing",
    "travelled": "traveled", "travelling": "traveling", "labelled": "labeled", "labelling": "labeling",
    "cancelled": "canceled", "cancelling": "canceling", "organisation": "organization", "organisations": "organizations",
    "realise": "realize", "realised": "realized", "realising": "realizing", "recognise": "recognize", "recognised": "recognized",
    "practise": "practice", "practised": "practiced", "leant": "leaned", "learnt": "learned", "manoeuvre": "maneuver",
}  # fmt: skip
_OUR = re.compile(r"([a-z]{3,})our(s?)")
_OUR_INSIDE = re.compile(r"(arm|col|discol|endeav|fav|flav|hon|hum|lab|neighb|rum|sav)our(ed|ing|ful|ites?|able|hoods?)")
_OUR_STAYS = re.compile("bonjour|carrefour|contour|cornflour|de[tv]our|downpour|glamour|outpour|paramour|tambour|troubadour|velour")


def ptb(text: str) -> list[str]:
    """English words by the rules of the Penn Treebank, in lower case, without punctuation marks."""
    found = (_written(word) for word in _TOKEN.findall(text))
    return [word for word in found if word not in _DROPPED]


def _written(word: str) -> str:
    if word in _WRITTEN:
        return _WRITTEN[word]
    if word.startswith("--"):
        return "--"
    if word.startswith(".."):
        return "..."
    return _american(word).lower().replace("’", "'").replace("/", r"\/")


def _american(word: str) -> str:
    if word in _AMERICAN:
        return _AMERICAN[word]
    if (inside := _OUR_INSIDE.fullmatch(word)) is not None:
        return f"{inside[1]}or{inside[2]}"
    if (ending := _OUR.fullmatch(word)) is not None and not _OUR_STAYS.search(word):
        return f"{ending[1]}or{ending[2]}"
    return word


# --------------------------------------------------------------------------------------------- Chinese

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_CHARACTER = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+")


def characters(text: str) -> list[str]:
    """Each Han character a token, a run of other letters and digits one token; punctuation is dropped."""
    return _CHARACTER.findall(_folded(text))


def _folded(text: str) -> str:
    """Full-width letters and digits as half-width ones, in lower case."""
    return unicodedata.normalize("NFKC", text).lower()


def _jieba() -> Tokenizer:
    try:
        import jieba
    except ModuleNotFoundError:
        raise MissingExtra("cutting Chinese captions into words (jieba)", "metrics") from None
    jieba.setLogLevel(logging.WARNING)  # it reports each loading of its dictionary

    def cut(text: str) -> list[str]:
        return [word for word in jieba.lcut(_folded(text)) if _CHARACTER.search(word)]

    return Tokenizer(f"zh-jieba/v1 (jieba {jieba.__version__}, its own dictionary, HMM, NFKC, lower case, punctuation dropped)", cut)


TOKENIZERS = {
    "ptb": Tokenizer("ptb-like/v1 (Penn Treebank rules in Python, lower case, punctuation dropped)", ptb),
    "zh-char": Tokenizer(
        "zh-char/v1 (Han characters, runs of other letters and digits, NFKC, lower case, punctuation dropped)", characters
    ),
    "given": Tokenizer("given/v1 (between spaces)", str.split),
}
