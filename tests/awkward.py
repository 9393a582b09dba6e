"""Awkward strings, the same for the same seed: what people and crawlers really send to a tokenizer, and then some."""

from __future__ import annotations

import random

PIECES = [
    # words of both languages, and mixed scripts
    "a", "the", "red", "bird", "birds", "singing", "don't", "it's", "CAN'T", "e.g.", "U.S.A.", "naïve", "café", "Straße", "ŒUVRE",
    "İstanbul", "ΣΊΣΥΦΟΣ", "Москва", "一只", "红色的", "小鸟", "停在", "树枝上", "中文", "繁體字", "㐀", "𠮷野家", "龘",
    "ひらがな", "カタカナ", "ｶﾞｷﾞ", "한국어", "ไทย", "हिन्दी", "العربية", "עברית",
    # digits, full-width and compatibility forms
    "2024", "１２３", "3.14", "1,000", "①", "½", "㍿", "ﬁ", "Ａｂｃ", "（括号）", "！？", "，。、；：", "《书名》", "“引号”",
    "…", "——", "￥", "％",
    # emoji, joined, with skin and selectors; flags
    "🐱", "👨‍👩‍👧", "👍🏽", "❤️", "🇨🇳", "🙂", "1️⃣",
    # combining marks, precomposed and not
    "e\u0301", "é", "A\u030a", "Å", "o\u0308\u0301", "\u0301", "が", "か\u3099", "각", "\u1100\u1161\u11a8",
    # HTML, addresses, code
    "<b>bold</b>", "&amp;", "&#39;", "&lt;br/&gt;", "<!-- -->", "https://a.b/c?d=1&e=%20", "x@y.zz",
    "#tag", "@user", "a_b-c", "$5", "`x`", "{y}",
    # blanks and controls of every kind
    " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u200b", "\u200d", "\ufeff", "\u2028", "\u0007", "\x00", "\x1c", "\u2581", "\ufffd",
    # what might be taken for special tokens
    "[CLS]", "[MASK]", "</s>", "<pad>", "<|endoftext|>",
]  # fmt: skip


def awkward(count: int, seed: int = 0, *, leave_out: tuple[str, ...] = ()) -> list[str]:
    """So many strings of up to 24 pieces, some glued together, some not; the first few are the edges."""
    draw = random.Random(seed)
    pieces = [piece for piece in PIECES if piece not in leave_out]
    made = ["", " ", "\n\t", "。", "x" * 300, "一" * 200, "🐱" * 50]
    while len(made) < count:
        joint = draw.choice(["", " ", "", " ", "\u3000"])
        made.append(joint.join(draw.choices(pieces, k=draw.randint(1, 24))))
    return made[:count]
