"""Strings on which tokenizers differ: scripts, widths, accents, emoji, entities, control characters, literal special tokens. Seeded."""

from __future__ import annotations

import random

WORDS = ["a", "red", "The", "birds", "don't", "IT'S", "co-operate", "x86_64", "naïve", "Café", "straße", "ŁÓDŹ", "İstanbul", "ǅ", "ﬁnal"]
CHINESE = ["一只", "红色的鸟", "中文", "繁體字", "𠮷野家", "㐀", "〇", "ㄅㄆ", "かな", "カタカナ", "ｶﾞ", "한국어"]
WIDE = ["ＡＢＣ", "１２３", "！", "，", "　", "～", "￥", "㎡", "①", "Ⅳ"]
SCRIPTS = ["привет", "Ελλάς", "ΣΊΣΥΦΟΣ", "שלום", "مرحبا", "हिन्दी", "ไทย", "ქართული", "ʻOkina"]
EMOJI = ["🙂", "👩‍👩‍👧", "🏳️‍🌈", "👍🏽", "🇨🇳", "☃", "❤️"]
MARKUP = ["&amp;", "&lt;b&gt;", "&#39;", "<b>", "</p>", "<br/>", "http://a.b/c?d=e&f", "@user", "#tag", "$9.99", "50%"]
SPECIAL = ["<s>", "</s>", "<pad>", "<unk>", "<mask>", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "<|endoftext|>", "##ing", "▁", "Ġ"]
SIGNS = ["...", "—", "“quoted”", "‘x’", "`", "^", "~~", "!?", "(a)", "a/b", "\\n", "'s", "''", '"', "·", "•", "«»"]
NUMBERS = ["0", "2024-05-01", "12:30", "1,000,000", "3.14", "½", "٣", "１０"]
CONTROL = [
    "\u0000",
    "\u0007",
    "\u001b",
    "\u007f",
    "\u0085",
    "\u00ad",
    "\u200b",
    "\u200d",
    "\u2028",
    "\ufeff",
    "\ufffd",
    "\ue000",
    "\U000e0041",
]
COMBINED = ["e\u0301", "o\u0308\u0323", "a\u030a", "か\u3099", "\u0301", "q\u0307\u0323"]
BLANKS = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u1680", "\u202f", "", ""]
KINDS = [WORDS, CHINESE, WIDE, SCRIPTS, EMOJI, MARKUP, SPECIAL, SIGNS, NUMBERS, CONTROL, COMBINED]


def strings(count: int = 2000, seed: int = 0, *, special: bool = True) -> list[str]:
    """So many; without `special`, none with a literal special token. The first are empty, blank, and long."""
    draw = random.Random(seed)
    kinds = KINDS if special else [kind for kind in KINDS if kind is not SPECIAL]
    found = ["", " ", "\u3000", "long sentence about red birds " * 40, "一" * 300, "x" * 300]
    while len(found) < count:
        blank = draw.choice([BLANKS, [" "], [""]])
        parts = [draw.choice(draw.choice(kinds)) + draw.choice(blank) for _ in range(draw.randint(1, 12))]
        if draw.random() < 0.1:  # and what nobody thought of
            parts.append("".join(chr(draw.choice([draw.randrange(0x20, 0xD800), draw.randrange(0xE000, 0x30000)])) for _ in range(4)))
        found.append("".join(parts))
    return found[:count]
